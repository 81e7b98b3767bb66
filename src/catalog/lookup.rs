//! Key → what the registry says it stands for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{CatalogError, KeyTag, LayerRecord, Place, Record};
use crate::digest::Digest;
use crate::manifest::TrustedKey;
use crate::oci::Descriptor;
use crate::registry::{Reference, Registry};

/// A destination and the way to it.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(super) registry: Registry,
    pub(super) place: Place,
}

/// The part of an artifact manifest that is read.
#[derive(Deserialize)]
struct ArtifactManifest {
    config: Descriptor,
}

impl Catalog {
    /// The catalog of `place`.
    pub fn new(registry: Registry, place: Place) -> Self {
        Self { registry, place }
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The client.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every record that answers a set key: the first one, and those that one of `keys` signed. Believed is none of them.
    ///
    /// # Errors
    /// Those of the registry; a document that is not a record, or is one of another set.
    pub async fn images(
        &self,
        set: &Digest,
        keys: &[TrustedKey],
    ) -> Result<Vec<Record>, CatalogError> {
        let mut found = Vec::new();
        for tag in tags(&KeyTag::Set(*set), keys) {
            let record = self.document::<Record>(&tag, Record::MEDIA_TYPE).await?;
            let Some(record) = record.filter(|record| record.v == Record::VERSION) else {
                continue;
            };
            if record.keys.set != *set {
                return Err(CatalogError::Malformed {
                    what: self.tagged(&tag).to_string(),
                    reason: format!("it is of the set {}", record.keys.set),
                });
            }
            found.push(record);
        }
        Ok(found)
    }

    /// Every record of a layer key, as [`Catalog::images`].
    ///
    /// # Errors
    /// The same.
    pub async fn layers(
        &self,
        key: &Digest,
        keys: &[TrustedKey],
    ) -> Result<Vec<LayerRecord>, CatalogError> {
        let mut found = Vec::new();
        for tag in tags(&KeyTag::Layer(*key), keys) {
            let record = self
                .document::<LayerRecord>(&tag, LayerRecord::MEDIA_TYPE)
                .await?;
            let Some(record) = record.filter(|record| record.v == LayerRecord::VERSION) else {
                continue;
            };
            if record.layer.key != Some(*key) {
                return Err(CatalogError::Malformed {
                    what: self.tagged(&tag).to_string(),
                    reason: "it is of another layer key".into(),
                });
            }
            found.push(record);
        }
        Ok(found)
    }

    /// A tag of the cache.
    pub(super) fn tagged(&self, tag: &str) -> Reference {
        Reference {
            tag: Some(tag.to_owned()),
            ..self.place.cache()
        }
    }

    /// The document embedded in the artifact under `tag`; `None` if there is no such tag.
    pub(super) async fn document<T: DeserializeOwned>(
        &self,
        tag: &str,
        media_type: &str,
    ) -> Result<Option<T>, CatalogError> {
        let reference = self.tagged(tag);
        let Some(manifest) = self.registry.find_manifest(&reference).await? else {
            return Ok(None);
        };
        let text = embedded(&manifest, media_type).map_err(|reason| CatalogError::Malformed {
            what: reference.to_string(),
            reason,
        })?;
        let document = serde_json::from_slice(&text).map_err(|error| CatalogError::Malformed {
            what: reference.to_string(),
            reason: error.to_string(),
        })?;
        Ok(Some(document))
    }
}

fn tags(tag: &KeyTag, keys: &[TrustedKey]) -> Vec<String> {
    let signed = keys.iter().map(|key| tag.signed(&key.id()));
    signed.chain([tag.tag()]).collect()
}

/// The document that an artifact manifest's configuration descriptor embeds, its digest verified.
pub(super) fn embedded(manifest: &[u8], media_type: &str) -> Result<Vec<u8>, String> {
    let manifest: ArtifactManifest =
        serde_json::from_slice(manifest).map_err(|error| error.to_string())?;
    let config = manifest.config;
    if config.media_type != media_type {
        return Err("its media type is another".into());
    }
    let data = config.data.ok_or("it embeds no document")?;
    let text = BASE64
        .decode(&data)
        .map_err(|_| "the embedded document is not base64")?;
    if Digest::of(&text) != config.digest {
        return Err("the embedded document does not have its digest".into());
    }
    Ok(text)
}
