//! What `find` asks for: filters that all have to hold.

use std::collections::BTreeSet;
use std::str::FromStr;

use pep440_rs::{Operator, Version, VersionSpecifier, VersionSpecifiers};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CatalogError;
use crate::digest::Digest;
use crate::identity;
use crate::manifest::{Platform, normalise};
use crate::resolve::debian::means_version;

/// Longest filter that is read, in bytes.
const MAX_LENGTH: usize = 1000;

/// Filters; an image has to satisfy all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Query {
    /// Installed Python packages.
    pub pip: Vec<PipFilter>,
    /// Installed OS packages.
    pub os: Vec<OsFilter>,
    /// Its Python.
    pub python: Option<PythonFilter>,
    /// Name of its base, or where the base begins.
    pub base: Option<String>,
    /// Its platform.
    pub platform: Option<Platform>,
    /// Its name, with `*`, `?` and `[…]` as wildcards.
    pub name: Option<NameFilter>,
    /// Where it stands; none means [`Status::Ready`].
    pub status: BTreeSet<Status>,
    /// Key of the request that it has to satisfy; who asks tells apart which records do.
    pub satisfies: Option<Digest>,
}

/// Where an image stands. There are only complete ones: what is being built, or could not be built, has no record.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// The newest of its name and platform.
    Ready,
    /// Its name stands for a later one, or for nothing any more.
    Outdated,
}

impl Status {
    /// All, in the order in which they are listed to people.
    pub const ALL: [Self; 2] = [Self::Ready, Self::Outdated];

    /// As `--json` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Outdated => "OUTDATED",
        }
    }
}

impl FromStr for Status {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let word = text.trim().to_ascii_uppercase();
        let found = Self::ALL.into_iter().find(|status| status.as_str() == word);
        found.ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            let shown: String = text.chars().take(60).collect();
            let unfinished = ["BUILDING_FIRST_TIME", "REBUILDING", "FAILED"].contains(&&*word);
            let why = match unfinished {
                true => "an image is recorded when it is complete, so that none stands so; ",
                false => "",
            };
            wrong(
                format!("`{}` is not a status of images", shown.escape_debug()),
                format!("{why}the words are {words}"),
            )
        })
    }
}

impl Query {
    /// Whether images that stand so are asked for.
    pub fn wants(&self, status: Status) -> bool {
        match self.status.is_empty() {
            true => status == Status::Ready,
            false => self.status.contains(&status),
        }
    }

    /// Tells queries apart in page tokens: a digest of the filters and of where they are asked.
    pub fn digest(&self, source: &str) -> Digest {
        let mut sorted = self.clone();
        sorted
            .pip
            .sort_by_cached_key(|filter| String::from(filter.clone()));
        sorted.os.sort();
        if sorted.status.is_empty() {
            sorted.status.insert(Status::Ready);
        }
        identity::key(&serde_json::json!({ "query": sorted, "source": source, "v": 1 }))
    }
}

/// PEP 440 specifiers, and whether pre-releases are meant too: when one of them names a pre-release, as PEP 440 says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Versions {
    specifiers: Vec<VersionSpecifier>,
    pre_releases: bool,
}

impl Versions {
    fn parse(text: &str) -> Result<Self, String> {
        let specifiers = VersionSpecifiers::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self {
            pre_releases: specifiers.iter().any(VersionSpecifier::any_prerelease),
            specifiers: specifiers.iter().cloned().collect(),
        })
    }

    fn canonical(&self) -> String {
        let texts: BTreeSet<String> = self.specifiers.iter().map(ToString::to_string).collect();
        let pre_releases = self.pre_releases.then(|| "pre-releases".to_owned());
        let texts: Vec<String> = texts.into_iter().chain(pre_releases).collect();
        texts.join(",")
    }

    fn contain(&self, version: &str) -> bool {
        let Ok(version) = version.parse::<Version>() else {
            return self.specifiers.is_empty();
        };
        let meant = self.specifiers.is_empty() || self.pre_releases || !version.any_prerelease();
        meant && self.specifiers.iter().all(|one| contains(one, &version))
    }
}

/// Whether a version satisfies a specifier; missing numbers of a release count as 0, as PEP 440 says.
fn contains(specifier: &VersionSpecifier, version: &Version) -> bool {
    #[allow(deprecated)] // It exists in PEP 440 all the same.
    let exact = *specifier.operator() == Operator::ExactEqual;
    let wanted = specifier.version().release().len();
    let release = version.release();
    if exact || release.len() >= wanted {
        return specifier.contains(version);
    }
    let padded = release.iter().copied().chain(std::iter::repeat(0));
    let padded: Vec<u64> = padded.take(wanted).collect();
    specifier.contains(&version.clone().with_release(padded))
}

/// A Python package, and which versions of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct PipFilter {
    /// Normalised.
    pub name: String,
    versions: Versions,
}

impl PipFilter {
    /// Whether the package's version is meant. Versions that are not PEP 440 are meant when no specifier is given.
    pub fn matches(&self, version: &str) -> bool {
        self.versions.contain(version)
    }
}

impl FromStr for PipFilter {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let text = bounded(text)?;
        let alphanumeric = |c: char| c.is_ascii_alphanumeric();
        let end = text.find(|c: char| !alphanumeric(c) && !"._-".contains(c));
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        let rest = rest.trim();
        if !name.starts_with(alphanumeric) || !name.ends_with(alphanumeric) {
            return Err(wrong(
                format!("`{text}` does not begin with the name of a Python package"),
                "write for example `numpy` or `numpy>=1.26,<2`".into(),
            ));
        }
        let inner = rest
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'));
        let rest = inner.unwrap_or(rest).trim();
        let mistake = |message: String, hint: String| Err(wrong(message, hint));
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return mistake(
                format!("the version `{rest}` in `{text}` has no operator"),
                format!(
                    "write `{name}=={rest}` for this version, or `{name}>={rest}` for this and later ones"
                ),
            );
        }
        let example =
            format!("write for example `{name}==1.0.2`, `{name}>=1.2,<2` or `{name}~=2.1`");
        if let Some(behind) = rest.strip_prefix('=')
            && !behind.starts_with('=')
        {
            // `=>1` is meant as `>=1`.
            let version = behind.trim_start_matches(['<', '>', '!', '~']);
            let turned = &behind[..behind.len() - version.len()];
            let meant = if turned.is_empty() { "=" } else { turned };
            let version = version.trim();
            return mistake(
                format!("`={turned}` in `{text}` is not a PEP 440 operator"),
                match turned.len() < 2 && version.starts_with(|c: char| c.is_ascii_digit()) {
                    true => format!("write `{name}{meant}={version}`"),
                    false => example,
                },
            );
        }
        if rest.starts_with(['[', ';', '@']) {
            return mistake(
                format!("`{text}` has more than a name and versions"),
                "extras, markers and addresses are not kept of installed packages: leave them out"
                    .into(),
            );
        }
        let versions = Versions::parse(rest).map_err(|reason| {
            wrong(
                format!(
                    "`{rest}` in `{text}` is not a PEP 440 specifier: {}",
                    reason.lines().next().unwrap_or_default()
                ),
                example,
            )
        })?;
        Ok(Self {
            name: normalise(name),
            versions,
        })
    }
}

impl From<PipFilter> for String {
    fn from(filter: PipFilter) -> Self {
        format!("{}{}", filter.name, filter.versions.canonical())
    }
}

/// An OS package, and which version of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OsFilter {
    /// Package name.
    pub name: String,
    /// Full or upstream version, or the beginning of one.
    pub version: Option<String>,
}

impl OsFilter {
    /// Whether the package's version is meant, by the rules of the manifest's `os`.
    pub fn matches(&self, version: &str) -> bool {
        let wanted = self.version.as_deref();
        wanted.is_none_or(|wanted| means_version(wanted, version))
    }
}

impl FromStr for OsFilter {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let text = bounded(text)?;
        let (name, version) = match text.split_once('=') {
            Some((name, version)) => (name.trim(), Some(version.trim())),
            None => (text, None),
        };
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        let name_fine =
            name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_name);
        let is_version = |c: char| c.is_ascii_alphanumeric() || ".+-:~".contains(c);
        let version_fine = version.is_none_or(|version| {
            version.starts_with(|c: char| c.is_ascii_digit()) && version.chars().all(is_version)
        });
        if !name_fine || !version_fine {
            return Err(wrong(
                format!("`{text}` is not an OS package, or one with its version"),
                "write for example `vim`, `vim=9.0` or `vim=2:9.0.1378-2`".into(),
            ));
        }
        Ok(Self {
            name: name.into(),
            version: version.map(Into::into),
        })
    }
}

/// Which Pythons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct PythonFilter {
    versions: Versions,
}

impl PythonFilter {
    /// Whether this full version is meant.
    pub fn matches(&self, version: &str) -> bool {
        self.versions.contain(version)
    }
}

impl FromStr for PythonFilter {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let text = bounded(text)?;
        let prefix = text.starts_with(|c: char| c.is_ascii_digit());
        let specifier = match text.parse::<Version>() {
            Ok(version) if prefix && version.any_prerelease() => format!("=={text}"),
            _ if prefix => format!("=={}.*", text.trim_end_matches(".*")),
            _ => text.to_owned(),
        };
        let versions = Versions::parse(&specifier)
            .ok()
            .filter(|found| !found.specifiers.is_empty());
        let Some(mut versions) = versions else {
            return Err(wrong(
                format!("`{text}` is not a version of Python"),
                "write for example `3.11`, `3.11.2` or `>=3.10`".into(),
            ));
        };
        versions.pre_releases |= prefix;
        Ok(Self { versions })
    }
}

impl From<PythonFilter> for String {
    fn from(filter: PythonFilter) -> Self {
        filter.versions.canonical()
    }
}

/// Names, with wildcards as SQLite's GLOB knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameFilter(pub(super) String);

impl FromStr for NameFilter {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let known = |c: char| c.is_ascii_alphanumeric() || "_-*?[]^".contains(c);
        let open = text.matches('[').count() == text.matches(']').count();
        if text.is_empty() || text.len() > 200 || !text.chars().all(known) || !open {
            let shown: String = text.chars().take(60).collect();
            return Err(wrong(
                format!("`{shown}` is not the name of an image or a pattern of names"),
                "write for example `fraud`, `fraud-*` or `fraud-v[12]`".into(),
            ));
        }
        Ok(Self(text.into()))
    }
}

fn bounded(text: &str) -> Result<&str, CatalogError> {
    let shown: String = text.chars().take(60).collect();
    if text.len() > MAX_LENGTH || text.chars().any(char::is_control) {
        return Err(wrong(
            format!("the filter `{}…` is not one", shown.escape_debug()),
            format!("a filter has at most {MAX_LENGTH} bytes, and no control characters"),
        ));
    }
    Ok(text.trim())
}

fn wrong(message: String, hint: String) -> CatalogError {
    CatalogError::Query { message, hint }
}
