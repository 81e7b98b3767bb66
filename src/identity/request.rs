//! The request key: what was asked for, independent of order, comments, duplicates and the image's name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ConfigDocument;
use crate::digest::Digest;

/// The document behind a request key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestDocument {
    /// Document version, 1.
    pub v: u32,
    /// One platform, for example `linux/amd64`.
    pub platform: String,
    /// Where the file system begins.
    pub base: BaseDocument,
    /// Demanded Python minor version.
    pub python: Option<String>,
    /// OS packages above the base.
    pub os: BTreeSet<OsDocument>,
    /// Requirements.
    pub pip: BTreeSet<PipDocument>,
    /// Constraints.
    pub constraints: BTreeSet<PipDocument>,
    /// Overrides.
    pub overrides: BTreeSet<PipDocument>,
    /// RFC 3339 instant.
    pub exclude_newer: Option<String>,
    /// Declared indexes; their order is their priority.
    pub indexes: Vec<IndexDocument>,
    /// Absolute path in the image → content.
    pub files: BTreeMap<String, FileDocument>,
    /// Downloads.
    pub fetches: BTreeSet<FetchDocument>,
    /// OCI configuration.
    pub config: ConfigDocument,
}

impl RequestDocument {
    /// The version of this document.
    pub const VERSION: u32 = 1;
}

/// Where the file system begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum BaseDocument {
    /// Another image.
    From {
        /// As written in the manifest.
        reference: String,
    },
    /// Debian packages.
    Debian {
        /// For example `bookworm`.
        suite: String,
        /// The archive's URL, where declared.
        mirror: Option<String>,
        /// Sorted.
        components: BTreeSet<String>,
        /// Whether updates and security suites count.
        updates: bool,
        /// OS packages of the base.
        os: BTreeSet<OsDocument>,
    },
}

/// One OS requirement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OsDocument {
    /// Package name.
    pub name: String,
    /// Version or upstream version.
    pub version: Option<String>,
}

/// One Python requirement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PipDocument {
    /// Canonical PEP 508 text.
    pub requirement: String,
    /// Name of the index that must serve it.
    pub index: Option<String>,
    /// SHA-256 of the project's wheel file.
    pub wheel: Option<Digest>,
    /// Allowed hashes.
    pub hashes: BTreeSet<String>,
}

/// One declared index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct IndexDocument {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// Replaces the default.
    pub default: bool,
    /// Serves only what names it.
    pub explicit: bool,
}

/// One file of the project, as it goes into an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FileDocument {
    /// A regular file.
    File {
        /// Of its content.
        sha256: Digest,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: String,
    },
    /// A folder.
    Folder {
        /// Permission bits.
        mode: u32,
    },
}

/// One download.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FetchDocument {
    /// Of the file.
    pub sha256: Digest,
    /// Absolute path in the image.
    pub to: String,
    /// Permission bits.
    pub mode: Option<u32>,
}
