//! The request key: what was asked for, independent of order, comments, duplicates and the image's name.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ConfigDocument;
use super::encoding::set;
use crate::digest::Digest;
use crate::manifest::Platform;

/// The document behind a request key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestDocument {
    /// Document version, 1.
    pub v: u32,
    /// One platform; an image for two has two request keys.
    pub platform: Platform,
    /// Where the file system begins.
    pub base: BaseDocument,
    /// Demanded Python minor version, for example `3.11`.
    #[serde(deserialize_with = "Option::deserialize")]
    pub python: Option<String>,
    /// OS packages above the base.
    #[serde(serialize_with = "set")]
    pub os: BTreeSet<OsDocument>,
    /// Requirements.
    #[serde(serialize_with = "set")]
    pub pip: BTreeSet<PipDocument>,
    /// Constraints.
    #[serde(serialize_with = "set")]
    pub constraints: BTreeSet<PipDocument>,
    /// Overrides.
    #[serde(serialize_with = "set")]
    pub overrides: BTreeSet<PipDocument>,
    /// RFC 3339 instant in UTC.
    #[serde(deserialize_with = "Option::deserialize")]
    pub exclude_newer: Option<String>,
    /// URLs of the indexes that may serve any package, the most preferred first; the default index and explicit ones
    /// are not among them.
    pub indexes: Vec<String>,
    /// URL of the index that replaces the default one.
    #[serde(deserialize_with = "Option::deserialize")]
    pub default_index: Option<String>,
    /// Absolute path in the image → content.
    pub files: BTreeMap<String, FileDocument>,
    /// Downloads.
    #[serde(serialize_with = "set")]
    pub fetches: BTreeSet<FetchDocument>,
    /// OCI configuration.
    pub config: ConfigDocument,
}

impl RequestDocument {
    /// The version of this document.
    pub const VERSION: u32 = 1;

    /// Key of the base's part of the request, which a locked Debian base answers.
    pub fn base_key(&self) -> Digest {
        super::key(&serde_json::json!({
            "base": self.base, "platform": self.platform, "python": self.python, "v": Self::VERSION,
        }))
    }

    /// Key of the image's own OS requirements.
    pub fn os_key(&self) -> Digest {
        super::key(&serde_json::json!({
            "base": self.base, "os": self.os, "platform": self.platform, "v": Self::VERSION,
        }))
    }
}

/// Where the file system begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum BaseDocument {
    /// Another image.
    From {
        /// As written in the manifest, byte by byte.
        reference: String,
    },
    /// Debian packages.
    Debian {
        /// For example `bookworm`.
        suite: String,
        /// The archive's URL, where declared.
        #[serde(deserialize_with = "Option::deserialize")]
        mirror: Option<String>,
        /// For example `main`.
        #[serde(serialize_with = "set")]
        components: BTreeSet<String>,
        /// Whether updates and security suites count.
        updates: bool,
        /// OS packages of the base.
        #[serde(serialize_with = "set")]
        os: BTreeSet<OsDocument>,
    },
}

impl BaseDocument {
    /// Where it begins, as records tell it: `debian SUITE`, or the reference of the image.
    pub fn root(&self) -> String {
        match self {
            Self::From { reference } => reference.clone(),
            Self::Debian { suite, .. } => format!("debian {suite}"),
        }
    }
}

/// One OS requirement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OsDocument {
    /// Package name.
    pub name: String,
    /// Version or upstream version.
    #[serde(deserialize_with = "Option::deserialize")]
    pub version: Option<String>,
}

/// One Python requirement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipDocument {
    /// Canonical PEP 508 text.
    pub requirement: String,
    /// URL of the index that must serve it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub index: Option<String>,
    /// The project's wheel file that it is.
    #[serde(deserialize_with = "Option::deserialize")]
    pub wheel: Option<WheelFileDocument>,
    /// Allowed hashes, `sha256:…`; empty means any.
    #[serde(serialize_with = "set")]
    pub hashes: BTreeSet<String>,
}

/// A wheel file of the project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelFileDocument {
    /// Its file name without folders: the name says version and tags.
    pub file: String,
    /// Of the file.
    pub sha256: Digest,
}

/// One file of the project, as it goes into an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
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

/// One download; where it comes from does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchDocument {
    /// Of the file.
    pub sha256: Digest,
    /// Absolute path in the image.
    pub to: String,
    /// Permission bits; 0644 (420) if none are declared.
    pub mode: u32,
}

impl FetchDocument {
    /// The permission bits of a download that declares none.
    pub const DEFAULT_MODE: u32 = 0o644;
}
