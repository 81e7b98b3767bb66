//! The set key: what a lock pins and a manifest configures, which is all that decides an image. Unlike the image key it
//! is known before anything is fetched: layers whose keys depend on what lies below them stand here by their artifacts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::encoding::set;
use super::from_request::fetch_document;
use super::{
    CLEANING_VERSION, ConfigDocument, EMITTER_VERSION, FetchDocument, FileDocument, MAX_INTEGER,
    WheelDocument,
};
use crate::digest::Digest;
use crate::lock::{Lock, LockedBase, LockedImage, LockedPython};
use crate::manifest::{ImageRequest, Platform};

/// The document behind a set key.
///
/// Diff IDs of OS layers are not in it: they are learned by building, and a key that changed when they are known would
/// not be found by those who have yet to learn them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDocument {
    /// Document version, 1.
    pub v: u32,
    /// See [`EMITTER_VERSION`].
    pub emitter: u32,
    /// See [`CLEANING_VERSION`].
    pub cleaning: u32,
    /// What the image is for.
    pub platform: Platform,
    /// Where the file system begins.
    pub base: SetBase,
    /// The base's interpreter.
    pub python: SetPython,
    /// SHA-256 of the debs above the base.
    #[serde(serialize_with = "set")]
    pub debs: BTreeSet<Digest>,
    /// The wheels.
    #[serde(serialize_with = "set")]
    pub wheels: BTreeSet<WheelDocument>,
    /// Absolute path in the image → content.
    pub files: BTreeMap<String, FileDocument>,
    /// Downloads.
    #[serde(serialize_with = "set")]
    pub fetches: BTreeSet<FetchDocument>,
    /// OCI configuration.
    pub config: ConfigDocument,
}

/// Where a locked image's file system begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SetBase {
    /// Another image.
    From {
        /// Of the image manifest for the platform.
        digest: Digest,
    },
    /// Debian packages.
    Debian {
        /// For example `bookworm`; the image's history says it.
        suite: String,
        /// Seconds since 1970 to which newer mtimes are clamped.
        epoch: i64,
        /// SHA-256 of every deb.
        #[serde(serialize_with = "set")]
        debs: BTreeSet<Digest>,
    },
}

/// A base's interpreter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPython {
    /// Absolute path in the base.
    pub path: String,
    /// Minor version, for example `3.11`.
    pub minor: String,
    /// Full version, for example `3.11.2`.
    pub full: String,
}

impl SetDocument {
    /// The version of this document.
    pub const VERSION: u32 = 1;

    /// The document of `locked`, an image of `lock`, with what `image` declares; `files` is what its `file` nodes put
    /// into it.
    pub fn new(
        image: &ImageRequest,
        platform: Platform,
        lock: &Lock,
        locked: &LockedImage,
        files: &BTreeMap<String, FileDocument>,
    ) -> Self {
        let wheels = locked
            .wheels
            .iter()
            .filter_map(|file| lock.wheels.get(file));
        Self {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            cleaning: CLEANING_VERSION,
            platform,
            base: base(lock, &locked.base),
            python: SetPython::from(&locked.python),
            debs: debs(lock, &locked.debs),
            wheels: wheels
                .map(|wheel| WheelDocument {
                    name: wheel.name.clone(),
                    sha256: wheel.sha256,
                })
                .collect(),
            files: files.clone(),
            fetches: image
                .fetches
                .iter()
                .map(|fetch| fetch_document(fetch))
                .collect(),
            config: ConfigDocument::new(&image.config),
        }
    }
}

impl SetDocument {
    /// Whether `locked`, an image of `lock`, pins just this: what a manifest configures beside that is not looked at.
    pub fn is_pinned_by(&self, lock: &Lock, locked: &LockedImage) -> bool {
        let wheels = locked.wheels.iter();
        let wheels: BTreeSet<Digest> = wheels
            .filter_map(|file| Some(lock.wheels.get(file)?.sha256))
            .collect();
        self.emitter == EMITTER_VERSION
            && self.cleaning == CLEANING_VERSION
            && self.base == base(lock, &locked.base)
            && self.python == SetPython::from(&locked.python)
            && self.debs == debs(lock, &locked.debs)
            && self
                .wheels
                .iter()
                .map(|wheel| wheel.sha256)
                .collect::<BTreeSet<_>>()
                == wheels
    }
}

impl From<&LockedPython> for SetPython {
    fn from(python: &LockedPython) -> Self {
        let LockedPython {
            path,
            minor,
            full,
            glibc: _, // decides which wheels are chosen, which are here
        } = python;
        Self {
            path: path.clone(),
            minor: minor.to_string(),
            full: full.clone(),
        }
    }
}

fn base(lock: &Lock, base: &LockedBase) -> SetBase {
    match base {
        LockedBase::From {
            reference: _, // the digest says what it is
            digest,
        } => SetBase::From { digest: *digest },
        LockedBase::Debian {
            suite,
            mirror: _,
            epoch,
            request: _,
            debs: ids,
            diff_id: _, // learned by building
        } => SetBase::Debian {
            suite: suite.clone(),
            epoch: (*epoch).clamp(-MAX_INTEGER, MAX_INTEGER),
            debs: debs(lock, ids),
        },
    }
}

fn debs(lock: &Lock, ids: &[String]) -> BTreeSet<Digest> {
    let found = ids.iter().filter_map(|id| lock.debs.get(id));
    found.map(|deb| deb.sha256).collect()
}
