//! What registries have told of layers beside their blobs, kept in the store: it is asked for once.

use crate::catalog::LayerRecord;
use crate::cli::failure::Failure;
use crate::digest::Digest;
use crate::identity;
use crate::registry::Reference;
use crate::store::{State, Store, StoreError};

/// Keeps what the repository of a cache told of a layer key.
pub fn keep(
    state: &State,
    cache: &Reference,
    key: &Digest,
    record: &LayerRecord,
) -> Result<(), Failure> {
    let document = String::from_utf8_lossy(&identity::canonical_json(record)).into_owned();
    Ok(state.put_document(&name(cache, key), &document)?)
}

/// What it told.
pub fn record(
    state: &State,
    cache: &Reference,
    key: &Digest,
) -> Result<Option<LayerRecord>, StoreError> {
    let document = state.document(&name(cache, key))?;
    Ok(document.and_then(|document| serde_json::from_str(&document).ok()))
}

/// The document of a layer's paths, if it is here.
pub fn paths(store: &Store, record: &LayerRecord) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(named) = &record.paths else {
        return Ok(None);
    };
    let Some(path) = store.blob(&named.digest) else {
        return Ok(None);
    };
    let bytes = std::fs::read(&path).map_err(StoreError::io("read", path))?;
    Ok(Some(bytes).filter(|bytes| Digest::of(bytes) == named.digest))
}

fn name(cache: &Reference, key: &Digest) -> Digest {
    let told = serde_json::json!({ "told": key, "by": cache.to_string(), "v": 1 });
    identity::key(&told)
}
