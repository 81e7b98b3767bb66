//! What changed between two locked images.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Lock, LockedBase, LockedImage};

/// One package that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Change {
    /// `pip` or `os`.
    pub ecosystem: &'static str,
    /// Normalised name.
    pub name: String,
    /// Version before; absent if it was not there.
    pub before: Option<String>,
    /// Version after; absent if it is gone.
    pub after: Option<String>,
    /// The version is the same, the file is another one.
    pub rebuilt: bool,
}

/// All that differs between two locked images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ImageDiff {
    /// Packages, by ecosystem and name.
    pub packages: Vec<Change>,
    /// Sentences about base and interpreter.
    pub other: Vec<String>,
}

impl ImageDiff {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.other.is_empty()
    }
}

/// Compares `before` of lock `old` with `after` of lock `new`.
pub fn diff_images(old: &Lock, before: &LockedImage, new: &Lock, after: &LockedImage) -> ImageDiff {
    let mut diff = ImageDiff::default();
    compare(
        &mut diff,
        "os",
        &os_packages(old, before),
        &os_packages(new, after),
    );
    compare(
        &mut diff,
        "pip",
        &pip_packages(old, before),
        &pip_packages(new, after),
    );
    match (&before.base, &after.base) {
        (
            LockedBase::From {
                reference: a,
                digest: x,
            },
            LockedBase::From {
                reference: b,
                digest: y,
            },
        ) => {
            if a != b {
                diff.other.push(format!("the base was {a}, is {b}"));
            }
            if x != y {
                diff.other
                    .push(format!("the base image's digest was {x}, is {y}"));
            }
        }
        (
            LockedBase::Debian {
                suite: a, epoch: x, ..
            },
            LockedBase::Debian {
                suite: b, epoch: y, ..
            },
        ) => {
            if a != b {
                diff.other.push(format!("the suite was {a}, is {b}"));
            }
            if x != y {
                diff.other.push(format!(
                    "the archive's date was {x}, is {y} (seconds since 1970)"
                ));
            }
        }
        (LockedBase::From { reference, .. }, LockedBase::Debian { suite, .. }) => {
            diff.other.push(format!(
                "the base was the image {reference}, is Debian {suite}"
            ));
        }
        (LockedBase::Debian { suite, .. }, LockedBase::From { reference, .. }) => {
            diff.other.push(format!(
                "the base was Debian {suite}, is the image {reference}"
            ));
        }
    }
    if before.python != after.python {
        let (a, b) = (&before.python, &after.python);
        diff.other.push(format!(
            "Python was {} at {}, is {} at {}",
            a.full, a.path, b.full, b.path
        ));
    }
    diff
}

type Packages = BTreeMap<String, (String, crate::digest::Digest)>;

fn pip_packages(lock: &Lock, image: &LockedImage) -> Packages {
    let found = image.wheels.iter().filter_map(|file| lock.wheels.get(file));
    found
        .map(|wheel| (wheel.name.clone(), (wheel.version.clone(), wheel.sha256)))
        .collect()
}

fn os_packages(lock: &Lock, image: &LockedImage) -> Packages {
    let base: &[String] = match &image.base {
        LockedBase::Debian { debs, .. } => debs,
        LockedBase::From { .. } => &[],
    };
    let found = base
        .iter()
        .chain(&image.debs)
        .filter_map(|id| lock.debs.get(id));
    found
        .map(|deb| (deb.package.clone(), (deb.version.clone(), deb.sha256)))
        .collect()
}

fn compare(diff: &mut ImageDiff, ecosystem: &'static str, before: &Packages, after: &Packages) {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old == new {
            continue;
        }
        let version = |side: Option<&(String, _)>| side.map(|(version, _)| version.clone());
        diff.packages.push(Change {
            ecosystem,
            name: name.clone(),
            rebuilt: version(old) == version(new),
            before: version(old),
            after: version(new),
        });
    }
}
