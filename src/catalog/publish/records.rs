//! Records, signed and not, and the SBOM.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::layers::{AT_ONCE, layer_record};
use super::names::{Names, Top};
use super::sender::Sender;
use super::sign::{LayerRecords, with_known_lock};
use super::{Edition, Publication, own_key};
use crate::catalog::artifact::Artifact;
use crate::catalog::place::name_tag;
use crate::catalog::{CatalogError, KeyTag, LayerRecord, Record, SecretKey, Statement};
use crate::diagnostic::{Explain as _, Kind};
use crate::digest::Digest;
use crate::lock::Lock;
use crate::manifest::TrustedKey;
use crate::oci::Descriptor;
use crate::registry::Reference;

/// By how much the clock of another pusher is believed to be ahead, in milliseconds: a day.
const SKEW: i64 = 24 * 60 * 60 * 1000;

impl Sender<'_> {
    /// Whether the last record of the name is of these images, and everything is there by which they and their layers are
    /// found. What else lies under the tags of their keys is told.
    pub(super) async fn is_recorded(
        &self,
        publication: &Publication<'_>,
    ) -> Result<bool, CatalogError> {
        for edition in publication.editions {
            let recorded = self.absent(&edition.record).await?.is_empty()
                && self.has_layer_records(edition).await?
                && self.is_current(publication, &edition.record).await?;
            if !recorded {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn has_layer_records(&self, edition: &Edition<'_>) -> Result<bool, CatalogError> {
        let cache = &self.catalog.place().cache();
        let asked = stream::iter(layer_records(edition))
            .map(|(record, _)| async move {
                let Some(key) = record.layer.key else {
                    return Ok(true);
                };
                Ok::<_, CatalogError>(
                    self.found(&KeyTag::Layer(key).tag()).await?.is_some()
                        && match &record.paths {
                            Some(paths) => self.has_blob(cache, paths).await?,
                            None => true,
                        },
                )
            })
            .buffer_unordered(AT_ONCE);
        asked.try_fold(true, async |all, has| Ok(all && has)).await
    }

    /// Whether the name's last record is of this image, and there with its lock and SBOM.
    async fn is_current(
        &self,
        publication: &Publication<'_>,
        own: &Record,
    ) -> Result<bool, CatalogError> {
        let repository = self.catalog.place().image(publication.name);
        let found = self.last_record(&repository, own).await?;
        let Some(found) = found.filter(|found| is_of(found, own) && !found.removed) else {
            return Ok(false);
        };
        let cache = self.catalog.place().cache();
        let record = KeyTag::Record(Artifact::of_record(&found).config().digest).tag();
        Ok(self.found(&record).await?.is_some()
            && match &found.lock {
                Some(lock) => self.has_blob(&cache, lock).await?,
                None => false,
            }
            && match &found.sbom {
                Some(sbom) => self.has_referrer(&repository, &own.digest, sbom).await?,
                None => false,
            })
    }

    /// The record that was written last for the name of `own`, if what stands for that is one.
    async fn last_record(
        &self,
        repository: &Reference,
        own: &Record,
    ) -> Result<Option<Record>, CatalogError> {
        let tag = name_tag(&repository.repository, &own.name, own.platform);
        let found = self.catalog.document::<Record>(&tag, Record::MEDIA_TYPE);
        match found.await {
            Err(error) if error.kind() == Kind::Refused => Ok(None),
            found => found,
        }
    }

    /// The tags of an image's keys that the cache does not have. What else than a record of this image lies under one is
    /// told.
    async fn absent(&self, own: &Record) -> Result<Vec<String>, CatalogError> {
        let mut absent = Vec::new();
        for key in key_tags(own) {
            let tag = key.tag();
            if self.found(&tag).await?.is_none() {
                absent.push(tag);
                continue;
            }
            let known = self.known_record(&tag, own).await;
            self.tell_foreign(known.map(|_| ()))?;
        }
        Ok(absent)
    }

    /// Writes the records of a push: what its names stand for from now on. Returns each with the digest of its document.
    pub(super) async fn records(
        &self,
        publication: &Publication<'_>,
        top: &Top,
        names: &Names,
    ) -> Result<Vec<(Record, Digest)>, CatalogError> {
        let repository = self.catalog.place().image(publication.name);
        let now = (self.publisher.clock)();
        let mut records = Vec::new();
        for edition in publication.editions {
            let last = self.last_record(&repository, &edition.record).await?;
            let pushed_ms = match last {
                // Also where clocks differ it is later than what came before.
                Some(last) if (now..now.saturating_add(SKEW)).contains(&last.pushed_ms) => {
                    last.pushed_ms + 1
                }
                _ => now,
            };
            let draft = Record {
                repository: repository.repository.clone(),
                tags: names.tags(),
                index: top.index(),
                pushed_ms,
                supersedes: names.supersedes(top),
                ..edition.record.clone()
            };
            records.push(self.record(&repository, edition, draft).await?);
        }
        Ok(records)
    }

    /// Completes a record with what it refers to, and writes it under its own tag, under those of its keys that are
    /// absent, and under that of its name. Returns it with the digest of its document.
    async fn record(
        &self,
        repository: &Reference,
        edition: &Edition<'_>,
        draft: Record,
    ) -> Result<(Record, Digest), CatalogError> {
        let record = Record {
            lock: Some(Descriptor::of(Lock::MEDIA_TYPE, &edition.lock)),
            sbom: Some(self.sbom(repository, edition).await?),
            ..draft
        };
        let artifact = Artifact::of_record(&record);
        let digest = artifact.config().digest;
        let mut tags = vec![KeyTag::Record(digest).tag()];
        tags.extend(self.absent(&record).await?);
        tags.push(name_tag(&record.repository, &record.name, record.platform));
        let cache = self.catalog.place().cache();
        let lock = Some(edition.lock.as_bytes());
        self.artifact(&cache, &artifact, lock, &tags).await?;
        Ok((record, digest))
    }

    /// The record that lies under a tag of the cache, if it is one of the image that `own` is of.
    async fn known_record(&self, tag: &str, own: &Record) -> Result<Option<Record>, CatalogError> {
        let found = self.catalog.document::<Record>(tag, Record::MEDIA_TYPE);
        match found.await? {
            Some(record) if !is_of(&record, own) => Err(CatalogError::OtherImage {
                what: self.catalog.tagged(tag).to_string(),
                found: record.digest,
                image: own.digest,
            }),
            found => Ok(found),
        }
    }

    /// The record that lies under the image key, if it is one of this very image.
    async fn first_record(&self, edition: &Edition<'_>) -> Result<Option<Record>, CatalogError> {
        let tag = KeyTag::Image(edition.record.keys.image).tag();
        self.known_record(&tag, &edition.record).await
    }

    /// Puts the SBOM as a referrer of the image, unless the first record names one that is there. Returns the digest of
    /// its manifest.
    async fn sbom(
        &self,
        repository: &Reference,
        edition: &Edition<'_>,
    ) -> Result<Digest, CatalogError> {
        let image = edition.image.digest();
        let first = self.first_record(edition).await.ok().flatten();
        let first = first.filter(|first| first.repository == repository.repository);
        if let Some(known) = first.and_then(|first| first.sbom)
            && self.has_referrer(repository, &image, &known).await?
        {
            return Ok(known);
        }
        let artifact = Artifact::of_sbom(&edition.sbom, edition.image);
        let digest = artifact.digest();
        if self.has_referrer(repository, &image, &digest).await? {
            return Ok(digest);
        }
        self.document(repository, artifact.config(), artifact.document())
            .await?;
        if let Some(blob) = artifact.content() {
            self.document(repository, blob, &edition.sbom).await?;
        }
        self.referrer(repository, &artifact).await?;
        Ok(digest)
    }

    /// Puts the signed variants of an image's layers and of its record that are absent or say less. `written` is the record that
    /// this push has made.
    pub(super) async fn sign(
        &self,
        edition: &Edition<'_>,
        signer: &SecretKey,
        written: Option<&Record>,
    ) -> Result<(), CatalogError> {
        let record = match written {
            Some(record) => record.clone(),
            None => match self.first_record(edition).await? {
                Some(record) => with_known_lock(record, &Digest::of(&edition.lock)),
                None => {
                    return Err(CatalogError::NotPushed {
                        name: edition.record.name.clone(),
                        place: self.catalog.place().cache().to_string(),
                    });
                }
            },
        };
        self.sign_records(signer, &record, layer_records(edition))
            .await
    }

    /// The same of records that somebody else made.
    pub(super) async fn sign_records(
        &self,
        signer: &SecretKey,
        record: &Record,
        layers: LayerRecords,
    ) -> Result<(), CatalogError> {
        let id = signer.public().id();
        let work = layers.iter().filter_map(|(record, paths)| {
            let signed = signer.sign_layer(record)?;
            let tag = KeyTag::Layer(signed.layer.key?).signed(&id);
            Some(self.sign_layer(signed, paths.as_deref(), tag))
        });
        stream::iter(work)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        let signed = signer.sign_record(record);
        let mut tags = Vec::new();
        for key in key_tags(&signed) {
            let tag = key.signed(&id);
            let enough = match self.known_record(&tag, &signed).await? {
                Some(known) => says_as_much(&known, &signed, &signer.public()),
                // In a dry run, it would be there.
                None => self.is_put(&tag),
            };
            if !enough {
                tags.push(tag);
            }
        }
        if tags.is_empty() {
            return Ok(());
        }
        let cache = self.catalog.place().cache();
        let artifact = Artifact::of_record(&signed);
        self.artifact(&cache, &artifact, None, &tags).await
    }

    async fn sign_layer(
        &self,
        signed: LayerRecord,
        paths: Option<&[u8]>,
        tag: String,
    ) -> Result<(), CatalogError> {
        if self.found(&tag).await?.is_some() {
            return Ok(());
        }
        let cache = self.catalog.place().cache();
        let artifact = Artifact::of_layer(&signed);
        self.artifact(&cache, &artifact, paths, &[tag]).await
    }
}

/// What is recorded of an image's layers that have keys.
fn layer_records(edition: &Edition<'_>) -> LayerRecords {
    let image = edition.image;
    let layers = image.layers.iter().enumerate();
    let records = layers.filter_map(|(index, layer)| {
        let key = own_key(image, index)?;
        Some(layer_record(layer, key, edition.extras.get(index)))
    });
    records.collect()
}

fn key_tags(record: &Record) -> [KeyTag; 2] {
    [
        KeyTag::Image(record.keys.image),
        KeyTag::Set(record.keys.set),
    ]
}

/// Whether `key` has signed in `known` what it signs in `signed`, or that with another lock. What it signed before
/// without a lock, because it did not know the one beside the record, gives way to what vouches for a lock too.
fn says_as_much(known: &Record, signed: &Record, key: &TrustedKey) -> bool {
    let statement = Statement::of(known);
    let mut signatures = known.signatures.iter();
    signatures.any(|signature| signature.is_of(key, &statement))
        && (known.lock.is_some() || signed.lock.is_none())
}

/// Whether two records are of the same image, whoever pushed it under whatever name.
fn is_of(record: &Record, own: &Record) -> bool {
    let parts = |record: &Record| -> Vec<(Digest, u64, Digest)> {
        let layers = record.layers.iter();
        layers
            .map(|layer| (layer.digest, layer.size, layer.diff_id))
            .collect()
    };
    record.digest == own.digest
        && record.keys.image == own.keys.image
        && record.keys.set == own.keys.set
        && parts(record) == parts(own)
}
