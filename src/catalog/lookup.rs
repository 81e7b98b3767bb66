//! Key → what the registry says it stands for.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{CatalogError, KeyTag, LayerRecord, Place, Record, Trust};
use crate::diagnostic::{Explain, Kind};
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

/// The version of the catalog's documents.
const VERSION: u32 = 1;

/// Why a document is none of a key.
const ANOTHER: &str = "it does not belong to the key in its tag";

/// Most signed variants of one image that are read.
const SIGNERS: usize = 32;

/// What a registry says of a key.
#[derive(Debug)]
pub struct Claims<T> {
    /// Signed ones first.
    pub records: Vec<T>,
    /// What stood under the key's tags and is none.
    pub refused: Vec<CatalogError>,
}

/// The field that every document has.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
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

    /// What the registry says that a set key stands for: the first record of it, and those that one of `keys` signed.
    /// Believed is none of them.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn images(
        &self,
        set: &Digest,
        keys: &[TrustedKey],
    ) -> Result<Claims<Record>, CatalogError> {
        let fits = |record: &Record| match record.keys.set == *set {
            true => Ok(()),
            false => Err(ANOTHER),
        };
        let tags = tags(&KeyTag::Set(*set), keys);
        self.claims(tags, Record::MEDIA_TYPE, fits).await
    }

    /// Public keys that have signed this very image, each once: those of the record itself, and those whose signed
    /// variants are among `tags`, which are the cache's.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn signers(
        &self,
        record: &Record,
        tags: &[String],
    ) -> Result<BTreeSet<String>, CatalogError> {
        let variants = KeyTag::Image(record.keys.image).signed("");
        let tags = tags.iter().filter(|tag| tag.starts_with(&variants));
        let tags = tags.take(SIGNERS).cloned().collect();
        let fits = |signed: &Record| match signed.digest == record.digest {
            true => Ok(()),
            false => Err("it is of another image"),
        };
        let claims = self.claims(tags, Record::MEDIA_TYPE, fits).await?;
        let records = claims.records.iter().chain([record]);
        Ok(records.flat_map(Record::signers).collect())
    }

    /// What the registry says that a layer key stands for, as [`Catalog::images`].
    ///
    /// # Errors
    /// The same.
    pub async fn layers(
        &self,
        key: &Digest,
        keys: &[TrustedKey],
    ) -> Result<Claims<LayerRecord>, CatalogError> {
        let tags = tags(&KeyTag::Layer(*key), keys);
        self.claims(tags, LayerRecord::MEDIA_TYPE, is_of(key)).await
    }

    /// As [`Catalog::layers`], but only what `trust` can believe is asked for.
    ///
    /// # Errors
    /// The same.
    pub async fn trusted_layers(
        &self,
        key: &Digest,
        trust: &Trust,
    ) -> Result<Claims<LayerRecord>, CatalogError> {
        let tag = KeyTag::Layer(*key);
        let signed = trust.keys.iter().map(|key| tag.signed(&key.id()));
        let plain = trust.registry.then(|| tag.tag());
        let tags = signed.chain(plain).collect();
        self.claims(tags, LayerRecord::MEDIA_TYPE, is_of(key)).await
    }

    /// The documents under these tags, all asked for at once.
    async fn claims<T: DeserializeOwned>(
        &self,
        tags: Vec<String>,
        media_type: &str,
        fits: impl Fn(&T) -> Result<(), &'static str>,
    ) -> Result<Claims<T>, CatalogError> {
        let asked = tags.iter().map(|tag| self.document::<T>(tag, media_type));
        let answers = join_all(asked).await;
        let mut claims = Claims {
            records: Vec::new(),
            refused: Vec::new(),
        };
        for (tag, answer) in tags.iter().zip(answers) {
            match answer {
                Ok(Some(record)) => match fits(&record) {
                    Ok(()) => claims.records.push(record),
                    Err(reason) => claims.refused.push(CatalogError::Malformed {
                        what: self.tagged(tag).to_string(),
                        reason: reason.into(),
                    }),
                },
                Ok(None) => {}
                Err(error) if error.kind() == Kind::Refused => claims.refused.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(claims)
    }

    /// A tag of the cache.
    pub(super) fn tagged(&self, tag: &str) -> Reference {
        Reference {
            tag: Some(tag.to_owned()),
            ..self.place.cache()
        }
    }

    /// The document embedded in the artifact under `tag`; `None` if there is no such tag, or one of another version.
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
        let malformed = |error: serde_json::Error| CatalogError::Malformed {
            what: reference.to_string(),
            reason: error.to_string(),
        };
        let Versioned { v } = serde_json::from_slice(&text).map_err(malformed)?;
        if v != VERSION {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&text).map_err(malformed)?))
    }
}

/// Whether a record is one of the layer with this key; else why not.
fn is_of(key: &Digest) -> impl Fn(&LayerRecord) -> Result<(), &'static str> {
    |record| match record.layer.key == Some(*key) {
        true => record.layer.check_size(),
        false => Err(ANOTHER),
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
