//! The small layers, which exist as blobs in the store: the empty virtual environment ([`skeleton`]), the default
//! user ([`user`]), project files ([`scan`], [`project`]) and downloads ([`fetch`]).
//!
//! A layer of a known key whose blob is in the store is not made again.

mod error;
mod ignore_file;
mod paths;
mod project;
mod scan;
mod skeleton;
mod tree;
mod user;

pub use error::FilesError;
pub use ignore_file::IgnoreFile;
pub use project::{fetch, fetch_comment, fetch_document, project};
pub use scan::{ScanError, ScanReason, Scanned, scan};
pub use skeleton::{python_document, skeleton};
pub use user::{UserParts, WORK, user};

use super::pack::Packer;
use super::{LAYER_MEDIA_TYPE, Layer, LayerContent};
use crate::digest::Digest;
use crate::identity::{self, LayerDocument};
use crate::store::{Store, StoreError};
use tree::Tree;

/// The layer of `document`: as the store knows it, else made from the tree that `fill` gives.
fn layer(
    store: &Store,
    document: &LayerDocument,
    comment: String,
    fill: impl FnOnce() -> Result<Tree, FilesError>,
) -> Result<Layer, FilesError> {
    let key = identity::key(document);
    if let Some(known) = known(store, &key)? {
        return Ok(known);
    }
    let tree = fill()?;
    let mut packer = Packer::new(store.pending()?);
    tree.write(&mut packer)?;
    let (pending, packed) = packer.finish().map_err(FilesError::Write)?;
    pending.commit_verified(&store.blob_path(&packed.digest), &packed.digest, &comment)?;
    let layer = Layer {
        key,
        media_type: LAYER_MEDIA_TYPE.into(),
        digest: packed.digest,
        size: packed.size,
        diff_id: packed.diff_id,
        unpacked: packed.unpacked,
        comment,
        content: LayerContent::Blob,
    };
    let record = String::from_utf8_lossy(&identity::canonical_json(&layer)).into_owned();
    store.state()?.put_layer(&key, &record)?;
    Ok(layer)
}

/// The recorded layer of `key`, if its blob is there and has its size.
///
/// # Errors
/// Those of the store.
pub fn known(store: &Store, key: &Digest) -> Result<Option<Layer>, StoreError> {
    let record = store.state()?.layer(key)?;
    let layer = record.and_then(|record| serde_json::from_str::<Layer>(&record).ok());
    Ok(layer.filter(|layer| {
        layer.content == LayerContent::Blob
            && std::fs::metadata(store.blob_path(&layer.digest))
                .is_ok_and(|meta| meta.is_file() && meta.len() == layer.size)
    }))
}
