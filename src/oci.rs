//! What several rooms call a descriptor, and the trait through which image documents and blobs are read.
//!
//! `resolve::base` asks, `image` (layouts) and `registry` answer; neither knows the others.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::progress::Progress;
use crate::store::Store;

/// Most bytes of an index, manifest or configuration.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// One image repository: a layout on disk, or a repository of a registry.
pub trait ImageReader: Send + Sync {
    /// The index or manifest that the reference names.
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, ReadError>>;

    /// The index or manifest with this digest; the caller verifies it.
    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<u8>, ReadError>>;

    /// Brings a blob into the store, its size and digest verified.
    fn blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<(), ReadError>>;
}

/// Why a reader failed; keeps the kind and hint of the cause.
pub struct ReadError(Box<dyn Explain>);

impl ReadError {
    /// Wraps the reader's own error.
    pub fn new(error: impl Explain) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Explain for ReadError {
    fn kind(&self) -> Kind {
        self.0.kind()
    }
    fn hint(&self) -> Option<String> {
        self.0.hint()
    }
}

/// Keeps artifacts by their SHA-256. What is not declared is no mirror: nobody else learns what somebody builds.
pub trait ArtifactMirror: Send + Sync {
    /// As messages name it: host and path, without credentials.
    fn name(&self) -> String;

    /// Brings an artifact into the store, verified; false if the mirror does not have it. `size` is its length in
    /// bytes, where known.
    fn fetch<'a>(
        &'a self,
        sha256: &'a Digest,
        size: Option<u64>,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<bool, ReadError>>;
}

/// A content descriptor (OCI image specification, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Of the content.
    pub digest: Digest,
    /// Of the content, in bytes.
    pub size: u64,
    /// For manifests in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// What kind of artifact a referrer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The content itself, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Describes `bytes`.
    pub fn of(media_type: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Describes content of this digest and size in bytes.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            artifact_type: None,
            data: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// The platform of a manifest in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DescriptorPlatform {
    /// For example `linux`.
    pub os: String,
    /// For example `amd64`.
    pub architecture: String,
    /// For example `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl DescriptorPlatform {
    /// Whether this is Linux on `architecture`, as OCI names it.
    pub fn is(&self, architecture: &str) -> bool {
        // 64-bit ARM has one variant in use, v8, which images may name or not.
        self.os == "linux"
            && self.architecture == architecture
            && matches!(self.variant.as_deref(), None | Some("" | "v8"))
    }
}

impl fmt::Display for DescriptorPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}
