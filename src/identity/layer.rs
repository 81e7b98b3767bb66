//! Layer keys: what shapes the bytes of one layer, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::encoding::set;
use super::{CLEANING_VERSION, EMITTER_VERSION, FetchDocument, FileDocument, MAX_INTEGER};
use crate::digest::Digest;
use crate::manifest::User;

/// The document behind a layer key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LayerDocument {
    /// One wheel, or the wheels of one bucket.
    Wheels {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// What scripts and paths are made for.
        python: PythonDocument,
        /// The wheels.
        #[serde(serialize_with = "set")]
        wheels: BTreeSet<WheelDocument>,
    },
    /// Files that win where two wheels of different layers bring different bytes for one path.
    Collisions {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// What scripts and paths are made for.
        python: PythonDocument,
        /// Path → SHA-256 of the wheel that wins it.
        winners: BTreeMap<String, Digest>,
    },
    /// The empty virtual environment: `pyvenv.cfg`, `bin/python`.
    Skeleton {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// What it is made for.
        python: PythonDocument,
        /// Absolute path of the base's interpreter, which it links to. No other layer knows it.
        interpreter: String,
    },
    /// The default user: `/etc/passwd`, `/etc/group`, home and work folders.
    User {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// The user.
        user: UserDocument,
        /// SHA-256 of the parent's `/etc/passwd` (of the empty string if it has none), which this layer rewrites.
        passwd: Digest,
        /// The same of `/etc/group`.
        group: Digest,
        /// Working folder that must exist and belong to the user, if any.
        #[serde(deserialize_with = "Option::deserialize")]
        workdir: Option<String>,
    },
    /// Project files.
    Files {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// Absolute path in the image → content.
        entries: BTreeMap<String, FileDocument>,
    },
    /// One download.
    Fetch {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// Of the file.
        sha256: Digest,
        /// Absolute path in the image.
        to: String,
        /// Permission bits.
        mode: u32,
    },
    /// Debian packages unpacked and configured: the base itself, or an image's own above it.
    Debian {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// See [`CLEANING_VERSION`].
        cleaning: u32,
        /// Debian architecture.
        architecture: String,
        /// SHA-256 of every deb.
        #[serde(serialize_with = "set")]
        debs: BTreeSet<Digest>,
        /// Seconds since 1970 to which newer mtimes are clamped.
        epoch: i64,
        /// Diff IDs of the layers below, lowest first; empty for a base.
        parents: Vec<Digest>,
    },
}

impl LayerDocument {
    /// The version of all layer documents.
    pub const VERSION: u32 = 1;

    /// A layer of wheels, in any order.
    pub fn wheels(python: PythonDocument, wheels: impl IntoIterator<Item = WheelDocument>) -> Self {
        Self::Wheels {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            python,
            wheels: wheels.into_iter().collect(),
        }
    }

    /// The layer that settles collisions between wheels.
    pub fn collisions(python: PythonDocument, winners: BTreeMap<String, Digest>) -> Self {
        Self::Collisions {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            python,
            winners,
        }
    }

    /// The empty environment that links to `interpreter` (absolute path in the base).
    pub fn skeleton(python: PythonDocument, interpreter: &str) -> Self {
        Self::Skeleton {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            python,
            interpreter: interpreter.into(),
        }
    }

    /// The layer that adds `user` to the parent's `/etc/passwd` and `/etc/group`, given by their content.
    pub fn user(user: UserDocument, passwd: &[u8], group: &[u8], workdir: Option<String>) -> Self {
        Self::User {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            user,
            passwd: Digest::of(passwd),
            group: Digest::of(group),
            workdir,
        }
    }

    /// A layer of project files.
    pub fn files(entries: BTreeMap<String, FileDocument>) -> Self {
        Self::Files {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            entries,
        }
    }

    /// The layer of one download.
    pub fn fetch(fetch: &FetchDocument) -> Self {
        Self::Fetch {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            sha256: fetch.sha256,
            to: fetch.to.clone(),
            mode: fetch.mode,
        }
    }

    /// A layer of debs, in any order. An epoch beyond ±(2^53 − 1) seconds, where JSON integers end, counts as that.
    pub fn debian(
        architecture: &str,
        debs: impl IntoIterator<Item = Digest>,
        epoch: i64,
        parents: Vec<Digest>,
    ) -> Self {
        Self::Debian {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            cleaning: CLEANING_VERSION,
            architecture: architecture.into(),
            debs: debs.into_iter().collect(),
            epoch: epoch.clamp(-MAX_INTEGER, MAX_INTEGER),
            parents,
        }
    }
}

/// One wheel of a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelDocument {
    /// PEP 503 normalised.
    pub name: String,
    /// Of the wheel file.
    pub sha256: Digest,
}

/// What of Python shapes every Python layer. The base, its patch version and the interpreter's path do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PythonDocument {
    /// For example `3.11`.
    pub minor: String,
    /// The environment's root: `/opt/venv`.
    pub prefix: String,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserDocument {
    /// Login name.
    pub name: String,
    /// Numeric id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// Home folder.
    pub home: String,
}

impl From<&User> for UserDocument {
    fn from(user: &User) -> Self {
        let User {
            name,
            uid,
            gid,
            home,
        } = user;
        Self {
            name: name.clone(),
            uid: *uid,
            gid: *gid,
            home: home.clone(),
        }
    }
}

impl Default for UserDocument {
    fn default() -> Self {
        Self::from(&User::default())
    }
}
