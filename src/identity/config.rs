//! Content and image keys.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::Digest;

/// The part of the OCI configuration and annotations that a manifest decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigDocument {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// `name:uid:gid:home`; `None` means the default user.
    pub user: Option<String>,
    /// Working folder.
    pub workdir: Option<String>,
    /// Entry point.
    pub entrypoint: Option<Vec<String>>,
    /// Default command.
    pub cmd: Option<Vec<String>>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The document behind a content key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContentDocument {
    /// Document version, 1.
    pub v: u32,
    /// For example `linux/amd64`.
    pub platform: String,
    /// Digest of the `from` image's manifest, if the root is one.
    pub from: Option<Digest>,
    /// Layer keys, lowest first.
    pub layers: Vec<Digest>,
}

/// The document behind an image key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageDocument {
    /// Document version, 1.
    pub v: u32,
    /// The content key.
    pub content: Digest,
    /// The configuration.
    pub config: ConfigDocument,
}
