//! Layer keys: what shapes the bytes of one layer, and nothing else.

use serde::Serialize;

use super::{CLEANING_VERSION, EMITTER_VERSION};
use crate::digest::Digest;

/// The document behind a layer key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LayerDocument {
    /// One wheel, or the wheels of one bucket.
    Wheels {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// What scripts and paths are made for.
        python: PythonDocument,
        /// Sorted by normalised name.
        wheels: Vec<WheelDocument>,
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
        winners: std::collections::BTreeMap<String, Digest>,
    },
    /// The empty virtual environment: `pyvenv.cfg`, `bin/python`.
    Skeleton {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// What it links to.
        python: PythonDocument,
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
        workdir: Option<String>,
    },
    /// Project files.
    Files {
        /// Document version.
        v: u32,
        /// See [`EMITTER_VERSION`].
        emitter: u32,
        /// Absolute path in the image → content.
        entries: std::collections::BTreeMap<String, super::FileDocument>,
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
        /// SHA-256 of every deb, sorted.
        debs: Vec<Digest>,
        /// Seconds since 1970 to which newer mtimes are clamped.
        epoch: i64,
        /// Diff IDs of the layers below; empty for a base.
        parents: Vec<Digest>,
    },
}

impl LayerDocument {
    /// The version of all layer documents.
    pub const VERSION: u32 = 1;

    /// A layer of wheels; sorts them.
    pub fn wheels(python: PythonDocument, mut wheels: Vec<WheelDocument>) -> Self {
        wheels.sort();
        Self::Wheels {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            python,
            wheels,
        }
    }

    /// A layer of debs; sorts them.
    pub fn debian(
        architecture: &str,
        mut debs: Vec<Digest>,
        epoch: i64,
        parents: Vec<Digest>,
    ) -> Self {
        debs.sort();
        Self::Debian {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            cleaning: CLEANING_VERSION,
            architecture: architecture.into(),
            debs,
            epoch,
            parents,
        }
    }
}

/// One wheel of a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WheelDocument {
    /// PEP 503 normalised.
    pub name: String,
    /// Of the wheel file.
    pub sha256: Digest,
}

/// What of the interpreter shapes a Python layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PythonDocument {
    /// For example `3.11`.
    pub minor: String,
    /// Absolute path of the base's interpreter; only where the layer contains it (the skeleton), else empty.
    pub interpreter: String,
    /// The environment's root: `/opt/venv`.
    pub prefix: String,
}

/// The user of a user layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
