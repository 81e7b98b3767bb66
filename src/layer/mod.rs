//! Artifact → layer. Knows no network and no clock; what it emits is a function of the layer key.
//!
//! `plan` decides which layers an image has, `contents` is what it has to know of a wheel that is not here; `wheel` turns a wheel into tar entries by the packaging
//! specifications; `splice` turns entries into a gzipped tar without recompressing; `recipe` is how a layer is kept
//! and streamed without existing as bytes; `files` makes the small layers (skeleton, user, files, downloads);
//! `blob` looks into a blob; `tree` unpacks a layer for the runtime; `debian` makes OS layers with the help of a sandbox.

pub mod blob;
pub mod build;
mod collisions;
pub mod contents;
pub mod debian;
pub mod entry;
pub mod error;
pub mod files;
pub mod pack;
pub mod plan;
pub mod recipe;
pub mod splice;
#[cfg(target_os = "linux")]
pub mod tree;
pub mod wheel;

pub use build::{build_wheel_layers, verify_wheel};
pub use contents::{LayerContents, Told, WheelContents};
pub use error::LayerError;
pub use plan::{PinnedWheel, WheelLayerPlan, WheelPlan, holders, plan};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The media type of every layer that imagewright emits.
pub const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The root of the Python environment in every image.
pub const VENV: &str = "/opt/venv";

/// mtime of everything in layers made from Python packages and project files: 1980-01-01T00:00:00Z.
pub const MTIME: u64 = 315_532_800;

/// A layer that is known: what an image needs to refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its layer key; for layers of a `from` image, the diff ID stands in.
    pub key: Digest,
    /// OCI media type of the blob.
    pub media_type: String,
    /// Of the compressed blob.
    pub digest: Digest,
    /// Of the compressed blob, in bytes.
    pub size: u64,
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// Length of the uncompressed tar in bytes; 0 if not known (layers of a `from` image).
    pub unpacked: u64,
    /// What it holds, for the image's history, for example `numpy 1.26.4`.
    pub comment: String,
    /// Where its bytes are.
    pub content: LayerContent,
}

/// Where a layer's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerContent {
    /// In the store's `blobs`, under `digest`.
    Blob,
    /// Streamed by the store's recipe of `key`.
    Recipe,
    /// Nowhere on this machine: known from a registry's catalog, whose repository has the blob.
    Registry,
}
