//! The documents of the catalog. Every one says its schema's version in `v`; readers refuse versions that they do not
//! know and fields that they do not know are ignored, so that later programs may add some.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Signature;
use crate::digest::Digest;
use crate::identity::{BaseDocument, OsDocument, PipDocument, RequestDocument};
use crate::layer::Layer;
use crate::manifest::Platform;
use crate::oci::Descriptor;

/// One push of one image for one platform: what it holds, and which name was given to it. Or the end of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Version of this schema, 1.
    pub v: u32,
    /// Declared name.
    pub name: String,
    /// Platform of the image.
    pub platform: Platform,
    /// Repository of the image, without the registry's host.
    pub repository: String,
    /// Tags that were put on it, the name's own first.
    pub tags: Vec<String>,
    /// Digest of the image manifest.
    pub digest: Digest,
    /// Digest of the index that the tags name, if the image has several platforms.
    pub index: Option<Digest>,
    /// Digest of the image configuration.
    pub config: Digest,
    /// The chain of identity.
    pub keys: Keys,
    /// Version of the rules by which layers were emitted.
    pub emitter: u32,
    /// Full Python version, for example `3.11.2`.
    pub python: String,
    /// Where the file system begins.
    pub base: BaseRecord,
    /// What was asked for.
    pub requested: RequestRecord,
    /// Installed Python packages, by normalised name.
    pub pip: Vec<PackageRecord>,
    /// Installed OS packages; of a `from` base only what imagewright added.
    pub os: Vec<PackageRecord>,
    /// Lowest first, those of a `from` base included.
    pub layers: Vec<RecordLayer>,
    /// How many of `layers`, from the lowest on, belong to a `from` base.
    pub base_layers: usize,
    /// What `{version}` stood for.
    pub version: Option<String>,
    /// What `{git}` stood for.
    pub git: Option<String>,
    /// When it was pushed, by the pusher's clock, in milliseconds since 1970.
    pub pushed_ms: i64,
    /// Digest of the image manifest (or index) that the name stood for before.
    pub supersedes: Option<Digest>,
    /// The lock of this image alone, a blob beside the record.
    pub lock: Option<Descriptor>,
    /// Digest of the manifest of the image's SBOM, a referrer of the image.
    pub sbom: Option<Digest>,
    /// Whether this says that the image was removed from its repository, and with it the name.
    #[serde(default)]
    pub removed: bool,
    /// Signatures of [`super::Statement`].
    #[serde(default)]
    pub signatures: Vec<Signature>,
}

/// The chain of identity of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Keys {
    /// What was asked for.
    pub request: Digest,
    /// What the lock pinned.
    pub set: Digest,
    /// The layers.
    pub content: Digest,
    /// Layers and configuration.
    pub image: Digest,
}

/// Where an image's file system begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BaseRecord {
    /// Name of the base in the manifest, for example `tabular`.
    pub name: String,
    /// `debian SUITE`, or the reference of the image.
    pub root: String,
    /// Digest of a `from` image's manifest.
    pub digest: Option<Digest>,
    /// Key of the base's part of the request, if it is Debian.
    pub request: Option<Digest>,
}

/// What a manifest asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestRecord {
    /// Canonical PEP 508 texts.
    pub pip: Vec<String>,
    /// OS packages, those of a Debian base included.
    pub os: Vec<OsRequest>,
    /// Canonical PEP 508 texts.
    #[serde(default)]
    pub constraints: Vec<String>,
    /// Canonical PEP 508 texts.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// RFC 3339 instant.
    #[serde(default)]
    pub exclude_newer: Option<String>,
    /// URLs of the indexes that may serve any package, the most preferred first.
    #[serde(default)]
    pub indexes: Vec<String>,
    /// URL of the index that replaces the default one.
    #[serde(default)]
    pub default_index: Option<String>,
}

/// A requested OS package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct OsRequest {
    /// Package name.
    pub name: String,
    /// Version or upstream version.
    pub version: Option<String>,
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct PackageRecord {
    /// Normalised name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Whether the manifest, or a base of its own, asked for it by name.
    #[serde(default)]
    pub requested: bool,
    /// Index into the record's layers.
    pub layer: Option<usize>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordLayer {
    /// The layer key; layers of a `from` base have none.
    pub key: Option<Digest>,
    /// OCI media type of the blob.
    pub media_type: String,
    /// Of the compressed blob.
    pub digest: Digest,
    /// Of the compressed blob, in bytes.
    pub size: u64,
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// Length of the uncompressed tar in bytes; 0 if not known.
    pub unpacked: u64,
    /// What it holds.
    pub comment: String,
}

/// What is known of a layer by its key alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayerRecord {
    /// Version of this schema, 1.
    pub v: u32,
    /// The layer; its key is always there.
    pub layer: RecordLayer,
    /// For OS layers: `/etc/passwd` and `/etc/group` as the layer leaves them.
    #[serde(default)]
    pub accounts: Option<Accounts>,
    /// For layers of wheels: what paths they bring, a blob beside the record.
    #[serde(default)]
    pub paths: Option<Descriptor>,
    /// Signatures of [`super::LayerStatement`].
    #[serde(default)]
    pub signatures: Vec<Signature>,
}

/// The accounts of an OS layer, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
}

impl From<&RequestDocument> for RequestRecord {
    fn from(document: &RequestDocument) -> Self {
        let texts = |list: &BTreeSet<PipDocument>| -> Vec<String> {
            let texts: BTreeSet<&String> = list.iter().map(|line| &line.requirement).collect();
            texts.into_iter().cloned().collect()
        };
        let base = match &document.base {
            BaseDocument::Debian { os, .. } => Some(os),
            BaseDocument::From { .. } => None,
        };
        let os: BTreeSet<&OsDocument> = base.into_iter().flatten().chain(&document.os).collect();
        let os = os.into_iter().map(|os| OsRequest {
            name: os.name.clone(),
            version: os.version.clone(),
        });
        Self {
            pip: texts(&document.pip),
            os: os.collect(),
            constraints: texts(&document.constraints),
            overrides: texts(&document.overrides),
            exclude_newer: document.exclude_newer.clone(),
            indexes: document.indexes.clone(),
            default_index: document.default_index.clone(),
        }
    }
}

impl Record {
    /// The version of the schema that this program writes.
    pub const VERSION: u32 = 1;
    /// The artifact type of a record's manifest.
    pub const ARTIFACT_TYPE: &'static str = "application/vnd.imagewright.record.v1";
    /// The media type of the document.
    pub const MEDIA_TYPE: &'static str = "application/vnd.imagewright.record.v1+json";
}

impl RecordLayer {
    /// What a record says of `layer`.
    pub fn of(layer: &Layer, key: Option<Digest>) -> Self {
        Self {
            key,
            media_type: layer.media_type.clone(),
            digest: layer.digest,
            size: layer.size,
            diff_id: layer.diff_id,
            unpacked: layer.unpacked,
            comment: layer.comment.clone(),
        }
    }
}

impl LayerRecord {
    /// The version of the schema that this program writes.
    pub const VERSION: u32 = 1;
    /// The artifact type of a layer record's manifest.
    pub const ARTIFACT_TYPE: &'static str = "application/vnd.imagewright.layer.v1";
    /// The media type of the document.
    pub const MEDIA_TYPE: &'static str = "application/vnd.imagewright.layer.v1+json";
    /// The media type of the document of a layer's paths.
    pub const PATHS_MEDIA_TYPE: &'static str = "application/vnd.imagewright.paths.v1+json";
    /// The longest such document that is read, in bytes.
    pub const PATHS_LIMIT: u64 = 64 << 20;
}
