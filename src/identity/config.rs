//! Content and image keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EMITTER_VERSION, UserDocument, key};
use crate::digest::Digest;
use crate::manifest::Platform;

/// The part of the OCI configuration and annotations that a manifest decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigDocument {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// The user that the image runs as; the default user if none is declared.
    pub user: UserDocument,
    /// Working folder; there is no default.
    #[serde(deserialize_with = "Option::deserialize")]
    pub workdir: Option<String>,
    /// Entry point; never empty.
    #[serde(deserialize_with = "Option::deserialize")]
    pub entrypoint: Option<Vec<String>>,
    /// Default command; never empty.
    #[serde(deserialize_with = "Option::deserialize")]
    pub cmd: Option<Vec<String>>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The document behind a content key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentDocument {
    /// Document version, 1.
    pub v: u32,
    /// What the layers are for.
    pub platform: Platform,
    /// Digest of the `from` image's manifest for the platform, if the root is one.
    #[serde(deserialize_with = "Option::deserialize")]
    pub from: Option<Digest>,
    /// Layer keys, lowest first; the layers of a `from` image are not among them.
    pub layers: Vec<Digest>,
}

impl ContentDocument {
    /// The version of this document.
    pub const VERSION: u32 = 1;

    /// The document of `layers` (keys, lowest first) above the image manifest `from`, if there is one.
    pub fn new(platform: Platform, from: Option<Digest>, layers: Vec<Digest>) -> Self {
        Self {
            v: Self::VERSION,
            platform,
            from,
            layers,
        }
    }
}

/// The document behind an image key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageDocument {
    /// Document version, 1.
    pub v: u32,
    /// See [`EMITTER_VERSION`]: the configuration and manifest are emitted bytes, too.
    pub emitter: u32,
    /// The content key.
    pub content: Digest,
    /// The configuration.
    pub config: ConfigDocument,
}

impl ImageDocument {
    /// The version of this document.
    pub const VERSION: u32 = 1;

    /// The document of `content` with `config`.
    pub fn new(content: &ContentDocument, config: ConfigDocument) -> Self {
        Self {
            v: Self::VERSION,
            emitter: EMITTER_VERSION,
            content: key(content),
            config,
        }
    }
}
