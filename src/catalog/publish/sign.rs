//! Signing what is in a registry already, after holding it against what is known here.

use schemars::JsonSchema;
use serde::Serialize;

use super::layers::layer_record;
use super::report::Traffic;
use super::sender::Sender;
use super::{Extras, Publisher, own_key};
use crate::catalog::{Catalog, CatalogError, KeyTag, LayerRecord, Record, SecretKey, Wanted};
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::Layer;
use crate::oci::DOCUMENT_LIMIT;
use crate::registry::Reference;

/// An image whose record is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct ToSign<'a> {
    /// Declared name.
    pub name: &'a str,
    /// The set key.
    pub set: Digest,
    /// What the manifest and the lock say that the image must be.
    pub wanted: Wanted<'a>,
    /// How it is known here.
    pub evidence: Evidence<'a>,
    /// Digest of the lock of this image alone, as it is here.
    pub lock: Digest,
}

/// Why the signer knows that a record is right.
#[derive(Clone, Copy, Debug)]
pub enum Evidence<'a> {
    /// This store has built the image.
    Built(&'a Image, &'a [Extras]),
    /// The lock has its digest.
    Lock(Digest),
    /// The signer was told to believe the registry.
    Registry,
    /// It does not.
    None,
}

/// What was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Signed {
    /// Digest of the image manifest.
    pub digest: Digest,
    /// Artifacts that were written; none if everything had been signed by this key before.
    pub documents: Traffic,
}

/// Layer records with the documents of their paths, where those are at hand.
pub(super) type LayerRecords = Vec<(LayerRecord, Option<Vec<u8>>)>;

impl Publisher<'_> {
    /// Signs the record that a registry has of an image, and those of its layers.
    ///
    /// # Errors
    /// When there is none, when it is not of the image that is known here or nothing is known here; those of the registry.
    pub async fn sign(
        &self,
        catalog: &Catalog,
        image: &ToSign<'_>,
        signer: &SecretKey,
    ) -> Result<Signed, CatalogError> {
        let sender = Sender::new(self, catalog);
        let record = recorded(catalog, image).await?;
        let known = |known: Digest| match known == record.digest {
            true => Ok(()),
            false => Err(CatalogError::OtherImage {
                what: catalog.tagged(&KeyTag::Set(image.set).tag()).to_string(),
                found: record.digest,
                image: known,
            }),
        };
        let layers = match image.evidence {
            Evidence::Built(built, extras) => {
                known(built.digest())?;
                adopted(catalog, &record, image).await?;
                own(built, extras)
            }
            Evidence::Lock(digest) => {
                known(digest)?;
                own(&adopted(catalog, &record, image).await?, &[])
            }
            Evidence::Registry => {
                let adopted = adopted(catalog, &record, image).await?;
                foreign(catalog, &adopted).await?
            }
            Evidence::None => {
                return Err(CatalogError::Unvouched {
                    name: image.name.into(),
                    what: catalog.place().cache().to_string(),
                    found: record.digest,
                });
            }
        };
        let record = match image.evidence {
            Evidence::Registry => record,
            _ => with_known_lock(record, &image.lock),
        };
        sender.sign_records(signer, &record, layers).await?;
        Ok(Signed {
            digest: record.digest,
            documents: sender.document_traffic(),
        })
    }
}

/// The record, without the lock beside it if that is not the signer's own: a signature vouches for it too.
pub(super) fn with_known_lock(record: Record, own: &Digest) -> Record {
    let lock = record.lock.clone().filter(|lock| lock.digest == *own);
    Record { lock, ..record }
}

/// The first record of the set.
async fn recorded(catalog: &Catalog, image: &ToSign<'_>) -> Result<Record, CatalogError> {
    let mut claims = catalog.images(&image.set, &[]).await?;
    match (claims.records.pop(), claims.refused.pop()) {
        (Some(record), _) => Ok(record),
        (None, Some(error)) => Err(error),
        (None, None) => Err(CatalogError::NotPushed {
            name: image.name.into(),
            place: catalog.place().cache().to_string(),
        }),
    }
}

/// The record's image, everything that the record says of it held against its manifest and configuration.
async fn adopted(
    catalog: &Catalog,
    record: &Record,
    image: &ToSign<'_>,
) -> Result<Image, CatalogError> {
    let repository = Reference {
        repository: record.repository.clone(),
        ..catalog.place().cache()
    };
    let pinned = Reference {
        digest: Some(record.digest),
        ..repository.clone()
    };
    let registry = catalog.registry();
    let manifest = registry.manifest(&pinned).await?;
    let config = registry.small_blob(&repository, &record.config, DOCUMENT_LIMIT);
    record.image(image.wanted, manifest, config.await?)
}

/// Records of the layers, with what is known here beside the image itself.
fn own(image: &Image, extras: &[Extras]) -> LayerRecords {
    keyed(image)
        .map(|(index, layer, key)| layer_record(layer, key, extras.get(index)))
        .collect()
}

/// The registry's records of the layers; one that is of another blob is an error.
async fn foreign(catalog: &Catalog, image: &Image) -> Result<LayerRecords, CatalogError> {
    let mut records = Vec::new();
    for (_, layer, key) in keyed(image) {
        let claims = catalog.layers(&key, &[]).await?;
        let (plain, _) = layer_record(layer, key, None);
        match claims.records.into_iter().next() {
            Some(record) if record.layer.digest != layer.digest => {
                return Err(CatalogError::OtherImage {
                    what: catalog.tagged(&KeyTag::Layer(key).tag()).to_string(),
                    found: record.layer.digest,
                    image: layer.digest,
                });
            }
            Some(record) => records.push((
                LayerRecord {
                    layer: plain.layer,
                    ..record
                },
                None,
            )),
            None => records.push((plain, None)),
        }
    }
    Ok(records)
}

fn keyed(image: &Image) -> impl Iterator<Item = (usize, &Layer, Digest)> {
    let layers = image.layers.iter().enumerate();
    layers.filter_map(|(index, layer)| Some((index, layer, own_key(image, index)?)))
}
