//! `imagewright.lock`, version 1, as types. `write` makes its text, `read` reads it and shows what it looks like.
//!
//! Artifacts stand once, in tables shared by all images, one line each, sorted; an image's platform lists the
//! artifacts it uses. A file of an index is named by index and file name, not by URL, so that the same lock comes
//! out behind any mirror. Derived keys are not stored.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::manifest::{Platform, PythonMinor};

/// The version of the lock's format that this program writes.
pub const LOCK_VERSION: u32 = 1;

/// The whole lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// Version of the rules by which layers are emitted (see `identity`), as of the last `build`.
    pub emitter: u32,
    /// File name → wheel.
    pub wheels: BTreeMap<String, LockedWheel>,
    /// `<package>_<version>_<architecture>` → deb.
    pub debs: BTreeMap<String, LockedDeb>,
    /// Image name → platform → what it consists of.
    pub images: BTreeMap<String, BTreeMap<Platform, LockedImage>>,
}

/// One wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedWheel {
    /// PEP 503 normalised.
    pub name: String,
    /// PEP 440.
    pub version: String,
    /// Of the file.
    pub sha256: Digest,
    /// In bytes, where the index tells.
    pub size: Option<u64>,
    /// Where it comes from.
    pub origin: WheelOrigin,
}

/// Where a wheel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WheelOrigin {
    /// The default index, whichever mirror of it a machine uses.
    DefaultIndex,
    /// The simple API at this URL, which the manifest declares.
    Index(String),
    /// A direct URL of the manifest (without credentials and query).
    Url(String),
    /// A file of the project, relative to the manifest.
    Path(String),
}

/// One Debian package file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedDeb {
    /// Binary package name.
    pub package: String,
    /// Full Debian version.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
    /// Of the file.
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
    /// Path below the archive's root (`pool/…`).
    pub path: String,
    /// The suite that listed it, for example `bookworm` or `bookworm-security`.
    pub suite: String,
}

/// What one image consists of on one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedImage {
    /// The request key that these pins answer.
    pub request: Digest,
    /// Where its file system begins.
    pub base: LockedBase,
    /// The interpreter that the base has.
    pub python: LockedPython,
    /// File names in `Lock::wheels`, sorted by normalised package name.
    pub wheels: Vec<String>,
    /// Keys into `Lock::debs`: the image's own OS packages, sorted.
    pub debs: Vec<String>,
    /// Key of the OS requirements (with those of the base) that `debs` answer; other requests may change around it.
    pub os_request: Option<Digest>,
    /// The first diff ID of the image's own OS layer, once built.
    pub os_diff_id: Option<Digest>,
    /// Digest of the image manifest that these pins first became, once built.
    pub digest: Option<Digest>,
}

/// The root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockedBase {
    /// An OCI image, by the digest of its image manifest for the platform.
    From {
        /// As the manifest writes it.
        reference: String,
        /// Of the image manifest (not of the index).
        digest: Digest,
    },
    /// Debian packages.
    Debian {
        /// For example `bookworm`.
        suite: String,
        /// The archive's URL where the manifest declares one; else any mirror of the suite will do.
        mirror: Option<String>,
        /// Seconds since 1970: the newest date among the suites' Release files; mtimes are clamped to it.
        epoch: i64,
        /// Key of the base's part of the request, which these packages answer.
        request: Digest,
        /// Keys into `Lock::debs`, sorted.
        debs: Vec<String>,
        /// The first diff ID of the base layer, once built.
        diff_id: Option<Digest>,
    },
}

/// A Python interpreter inside a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedPython {
    /// Absolute path, links resolved as far as it stays a stable name, for example `/usr/bin/python3.11`.
    pub path: String,
    /// Minor version.
    pub minor: PythonMinor,
    /// Full version such as `3.11.2`, for markers.
    pub full: String,
    /// glibc (major, minor) of the base.
    pub glibc: (u16, u16),
}
