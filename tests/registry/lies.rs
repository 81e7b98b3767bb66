//! Documents that stand where they should not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imagewright::catalog::{Catalog, LayerRecord, Record};
use imagewright::digest::Digest;
use imagewright::oci::Descriptor;
use imagewright::registry::Reference;
use serde_json::{Value, json};

use crate::lab::wait;

const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Puts something else under the tag of a key.
pub fn put(catalog: &Catalog, tag: &str, media_type: &str, document: &str) {
    let reference = Reference {
        tag: Some(tag.to_owned()),
        ..catalog.place().cache()
    };
    let config = blob(catalog, media_type, document.as_bytes());
    let embedding = Descriptor {
        data: Some(STANDARD.encode(document)),
        ..config
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "artifactType": Record::ARTIFACT_TYPE,
        "config": embedding, "layers": [],
    });
    let bytes = manifest.to_string();
    let put = catalog
        .registry()
        .put_manifest(&reference, IMAGE_MANIFEST, bytes.as_bytes());
    wait(put).unwrap();
}

/// Puts a record of a layer that was changed under `tag`.
pub fn put_layer(
    catalog: &Catalog,
    tag: &str,
    record: &LayerRecord,
    change: impl FnOnce(&mut Value),
) {
    let mut document = serde_json::to_value(record).unwrap();
    change(&mut document);
    put(catalog, tag, LayerRecord::MEDIA_TYPE, &document.to_string());
}

/// Puts a blob into the cache.
pub fn blob(catalog: &Catalog, media_type: &str, bytes: &[u8]) -> Descriptor {
    let blob = Descriptor::of(media_type, bytes);
    let content = bytes.to_vec();
    let cache = catalog.place().cache();
    let put = catalog
        .registry()
        .put_blob(&cache, &blob, &content, &[], &|_| {});
    wait(put).unwrap();
    blob
}

/// The plain record of a layer key.
pub fn layer(catalog: &Catalog, key: &Digest) -> LayerRecord {
    let claims = wait(catalog.layers(key, &[])).unwrap();
    claims.records.into_iter().next().unwrap()
}

/// The plain record of a set key.
pub fn record(catalog: &Catalog, set: &Digest) -> Record {
    let claims = wait(catalog.images(set, &[])).unwrap();
    claims.records.into_iter().next().unwrap()
}
