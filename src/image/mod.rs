//! Layers + configuration → OCI image, and the places an image can be written to.
//!
//! [`Image`] is immutable and complete: two byte strings and a list of layers whose bytes the store can stream.
//! `config` makes it; `layout` and `archive` write it. Nothing here knows the network or KDL.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::layer::Layer;
use crate::manifest::Platform;

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its platform.
    pub platform: Platform,
    /// The image key.
    pub key: Digest,
    /// The OCI image configuration, JSON.
    pub config: String,
    /// The OCI image manifest, JSON.
    pub manifest: String,
    /// Lowest first, those of a `from` base included.
    pub layers: Vec<Layer>,
    /// How many of `layers`, from the lowest on, belong to the base.
    pub base_layers: usize,
}

impl Image {
    /// The digest of the image manifest: the image's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}
