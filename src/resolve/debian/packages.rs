//! What an archive offers: the stanzas of its `Packages` files (or of dpkg's `status`), indexed for the solver.

use std::collections::BTreeMap;

use deb822_fast::borrowed::{BorrowedParagraph, BorrowedParagraphIter};
use debversion::Version;

use super::relation;

/// Debian's priorities, most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// `required`
    Required,
    /// `important`
    Important,
    /// `standard`
    Standard,
    /// `optional` and anything else.
    Optional,
    /// `extra`, deprecated.
    Extra,
}

/// One binary package in one version.
#[derive(Clone, Debug)]
pub struct Package {
    /// Binary package name.
    pub name: Box<str>,
    /// Full version.
    pub version: Box<str>,
    /// The image's architecture or `all`.
    pub architecture: Box<str>,
    /// `Pre-Depends` and `Depends`, joined by a comma.
    pub depends: Box<str>,
    /// `Conflicts` and `Breaks`, joined by a comma.
    pub conflicts: Box<str>,
    /// `Provides`.
    pub provides: Box<str>,
    /// Path below the archive's root; empty for an installed package.
    pub filename: Box<str>,
    /// Of the file, hex; empty for an installed package.
    pub sha256: Box<str>,
    /// Of the file, in bytes.
    pub size: u64,
    /// `Essential: yes`.
    pub essential: bool,
    /// How important.
    pub priority: Priority,
    /// Index into [`Universe::suites`].
    pub suite: u16,
}

impl Package {
    /// The version, parsed (only where it is compared: an archive has 60,000 of them).
    pub fn parsed_version(&self) -> Option<Version> {
        self.version.parse().ok()
    }

    fn read(paragraph: &BorrowedParagraph<'_>, suite: u16) -> Option<Self> {
        let one = |name: &str| paragraph.get_single(name).unwrap_or("").trim();
        let joined = |first: &str, second: &str| {
            let text = |name: &str| {
                paragraph
                    .get(name)
                    .map(|lines| lines.join(" "))
                    .unwrap_or_default()
            };
            let (first, second) = (text(first), text(second));
            if first.is_empty() || second.is_empty() {
                return (first + &second).into_boxed_str();
            }
            format!("{first}, {second}").into_boxed_str()
        };
        let package = Self {
            name: one("Package").into(),
            version: one("Version").into(),
            architecture: one("Architecture").into(),
            depends: joined("Pre-Depends", "Depends"),
            conflicts: joined("Conflicts", "Breaks"),
            provides: joined("Provides", ""),
            filename: one("Filename").into(),
            sha256: one("SHA256").into(),
            size: one("Size").parse().unwrap_or(0),
            essential: one("Essential") == "yes",
            priority: match one("Priority") {
                "required" => Priority::Required,
                "important" => Priority::Important,
                "standard" => Priority::Standard,
                "extra" => Priority::Extra,
                _ => Priority::Optional,
            },
            suite,
        };
        let numbered = package
            .version
            .starts_with(|first: char| first.is_ascii_digit());
        (!package.name.is_empty() && numbered).then_some(package)
    }
}

/// Index of a package that provides a name, and the version it provides it in, if it says one.
pub type Provider = (u32, Option<Box<str>>);

/// Everything that the suites of one archive offer for one architecture.
#[derive(Clone, Debug, Default)]
pub struct Universe {
    /// For example `amd64`.
    pub architecture: String,
    /// The suites read, the main one first.
    pub suites: Vec<String>,
    /// Seconds since 1970: the newest date among the suites' Release files.
    pub epoch: i64,
    packages: Vec<Package>,
    by_name: BTreeMap<Box<str>, Vec<u32>>,
    providers: BTreeMap<Box<str>, Vec<Provider>>,
}

/// A text of stanzas is not one.
#[derive(Debug, thiserror::Error)]
#[error("not a list of Debian packages: {0}")]
pub struct NotStanzas(String);

impl Universe {
    /// Nothing, for this architecture.
    pub fn new(architecture: &str) -> Self {
        Self {
            architecture: architecture.into(),
            ..Self::default()
        }
    }

    /// Adds a suite; returns its index.
    pub fn add_suite(&mut self, name: &str) -> u16 {
        self.suites.push(name.into());
        (self.suites.len() - 1) as u16
    }

    /// Adds the stanzas of a `Packages` file. The same version from a later suite is the same package.
    pub fn add_stanzas(&mut self, text: &str, suite: u16) -> Result<(), NotStanzas> {
        for paragraph in BorrowedParagraphIter::new(text) {
            let paragraph = paragraph.map_err(|error| NotStanzas(error.to_string()))?;
            if let Some(package) = Package::read(&paragraph, suite) {
                self.add(package);
            }
        }
        Ok(())
    }

    /// Adds one package, unless it is for another architecture or known; returns its index.
    pub fn add(&mut self, package: Package) -> Option<u32> {
        if !["all", &self.architecture].contains(&&*package.architecture) {
            return None;
        }
        let index = self.packages.len() as u32;
        let same = self.by_name.entry(package.name.clone()).or_default();
        if let Some(known) = same
            .iter()
            .find(|&&other| self.packages[other as usize].version == package.version)
        {
            return Some(*known);
        }
        same.push(index);
        for (name, version) in relation::provided(&package.provides) {
            let provider = (index, version.map(Into::into));
            match self.providers.get_mut(name) {
                Some(known) => known.push(provider),
                None => {
                    self.providers.insert(name.into(), vec![provider]);
                }
            }
        }
        self.packages.push(package);
        Some(index)
    }

    /// The package at `index`.
    pub fn package(&self, index: u32) -> &Package {
        &self.packages[index as usize]
    }

    /// Indexes of all versions of the real package `name`, newest first.
    pub fn versions(&self, name: &str) -> Vec<u32> {
        let mut found = self.by_name.get(name).cloned().unwrap_or_default();
        if found.len() > 1 {
            found.sort_by_cached_key(|&index| {
                std::cmp::Reverse(self.package(index).parsed_version())
            });
        }
        found
    }

    /// Packages that provide `name`, with the provided version.
    pub fn providers(&self, name: &str) -> &[Provider] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }

    /// All real package names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// Number of packages.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether it offers nothing.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// Names of the packages that every base has: `Essential: yes` or `Priority: required` in their newest version,
    /// as `mmdebstrap --variant=required` chooses.
    pub fn base_names(&self) -> Vec<&str> {
        self.by_name
            .iter()
            .filter(|(name, _)| {
                let newest = self
                    .versions(name)
                    .first()
                    .map(|&index| self.package(index));
                newest.is_some_and(|package| {
                    package.essential || package.priority == Priority::Required
                })
            })
            .map(|(name, _)| &**name)
            .collect()
    }
}

/// The packages that a dpkg `status` text calls installed, with suite index `suite`.
pub fn installed(status: &str, suite: u16) -> Result<Vec<Package>, NotStanzas> {
    let mut found = Vec::new();
    for paragraph in BorrowedParagraphIter::new(status) {
        let paragraph = paragraph.map_err(|error| NotStanzas(error.to_string()))?;
        let state = paragraph.get_single("Status").unwrap_or("");
        if state.trim().ends_with(" installed") {
            found.extend(Package::read(&paragraph, suite));
        }
    }
    Ok(found)
}
