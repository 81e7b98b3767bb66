//! The run key: everything that a run's outcome may depend on.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::Digest;
use crate::manifest::{Network, Platform, Resources};

/// The document behind a run key: SHA-256 over its canonical JSON (RFC 8785), like the keys of `identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunDocument {
    /// Document version, 1.
    pub v: u32,
    /// Of the image's manifest.
    pub image: Digest,
    /// Diff ID of the layer with the run's own files.
    pub files: Option<Digest>,
    /// Argument vector, axes replaced.
    pub command: Vec<String>,
    /// The run's own environment, axes replaced.
    pub env: BTreeMap<String, String>,
    /// Declared working folder.
    pub workdir: Option<String>,
    /// Requests and limits.
    pub resources: Resources,
    /// Milliseconds.
    pub timeout_ms: u64,
    /// Platform of the image.
    pub platform: Platform,
    /// Network access.
    pub network: Network,
    /// Axis → value.
    pub cell: BTreeMap<String, String>,
}

impl RunDocument {
    /// The version of this document.
    pub const VERSION: u32 = 1;

    /// The run key.
    pub fn key(&self) -> Digest {
        crate::identity::key(self)
    }
}
