//! The layers of an image, and the artifacts that pin them under their keys.

use std::collections::BTreeMap;

use futures_util::future::try_join;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::sender::Sender;
use super::{Extras, Publication, own_key};
use crate::catalog::artifact::{Artifact, IMAGE_MANIFEST};
use crate::catalog::{CatalogError, KeyTag, LayerRecord, RecordLayer};
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::Layer;
use crate::oci::Descriptor;
use crate::registry::Reference;

/// How many layers are on their way at a time.
pub(super) const AT_ONCE: usize = 8;

/// The media type of an image configuration.
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layer of one or more of the images.
struct Part<'a> {
    layer: &'a Layer,
    key: Option<Digest>,
    extras: Option<&'a Extras>,
    /// Whether an image needs it whose manifest is not in the repository yet.
    wanted: bool,
}

impl Sender<'_> {
    /// Which of the images a repository has, with all their parts.
    pub(super) async fn known(
        &self,
        publication: &Publication<'_>,
        repository: &Reference,
    ) -> Result<Vec<bool>, CatalogError> {
        let mut known = Vec::new();
        for edition in publication.editions {
            known.push(self.has_image(repository, edition.image).await?);
        }
        Ok(known)
    }

    async fn has_image(&self, repository: &Reference, image: &Image) -> Result<bool, CatalogError> {
        if !self.has_manifest(repository, &image.digest()).await? {
            return Ok(false);
        }
        let config = Descriptor::of(IMAGE_CONFIG, &image.config);
        let layers = image.layers.iter().map(blob_of);
        let asked = stream::iter(layers.chain([config]))
            .map(|blob| async move { self.has_blob(repository, &blob).await })
            .buffer_unordered(AT_ONCE);
        asked.try_fold(true, async |all, has| Ok(all && has)).await
    }

    /// Everything of the images but the names: layers, configurations, manifests, of those that are not `known`.
    pub(super) async fn images(
        &self,
        publication: &Publication<'_>,
        repository: &Reference,
        known: &[bool],
    ) -> Result<(), CatalogError> {
        self.layers(publication, repository, known).await?;
        for (edition, known) in publication.editions.iter().zip(known) {
            if !known {
                self.image(repository, edition.image).await?;
            }
        }
        Ok(())
    }

    /// Sees to it that the cache has all layers, and `repository` those of images that it does not have (`known`).
    async fn layers(
        &self,
        publication: &Publication<'_>,
        repository: &Reference,
        known: &[bool],
    ) -> Result<(), CatalogError> {
        let work = parts(publication, known)
            .into_iter()
            .map(|part| self.part(part, repository));
        stream::iter(work)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn part(&self, part: Part<'_>, repository: &Reference) -> Result<(), CatalogError> {
        let place = self.catalog.place();
        let elsewhere = part.extras.map_or(&[][..], |extras| &extras.elsewhere);
        let brought = self.publisher.uploads.holders(&part.layer.digest);
        let all = brought.iter().chain(elsewhere);
        let here = all.filter(|other| other.host == place.host());
        let mounts: Vec<Reference> = here.cloned().collect();
        let cache = place.cache();
        match part.key {
            Some(key) => self.pinned(&cache, &part, key, &mounts).await?,
            None => self.layer(&cache, part.layer, &mounts).await?,
        }
        if part.wanted && *repository != cache {
            self.layer(repository, part.layer, &[cache]).await?;
        }
        Ok(())
    }

    /// A layer in the cache, with the artifact that pins it under its key.
    async fn pinned(
        &self,
        cache: &Reference,
        part: &Part<'_>,
        key: Digest,
        mounts: &[Reference],
    ) -> Result<(), CatalogError> {
        let (record, paths) = layer_record(part.layer, key, part.extras);
        let artifact = Artifact::of_layer(&record);
        let tag = KeyTag::Layer(key).tag();
        let found = self.found(&tag).await?;
        self.layer(cache, part.layer, mounts).await?;
        match found {
            Some(found) if found == artifact.digest() => {
                match paths.as_deref().zip(artifact.content()) {
                    Some((bytes, blob)) => self.document(cache, blob, bytes).await,
                    None => Ok(()),
                }
            }
            Some(_) => self.tell_other_layer(&tag, &record).await,
            None => {
                self.artifact(cache, &artifact, paths.as_deref(), &[tag])
                    .await
            }
        }
    }

    /// What lies under a layer's tag need not be what this push would put there, but has to be of the same blob.
    async fn tell_other_layer(&self, tag: &str, own: &LayerRecord) -> Result<(), CatalogError> {
        let found = self
            .catalog
            .document::<LayerRecord>(tag, LayerRecord::MEDIA_TYPE);
        let known = match found.await {
            Ok(Some(found)) if found.layer.digest != own.layer.digest => {
                Err(CatalogError::OtherImage {
                    what: self.catalog.tagged(tag).to_string(),
                    found: found.layer.digest,
                    image: own.layer.digest,
                })
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        self.tell_foreign(known)
    }

    /// Puts an artifact, with what it consists of, under tags that are absent.
    pub(super) async fn artifact(
        &self,
        repository: &Reference,
        artifact: &Artifact,
        content: Option<&[u8]>,
        tags: &[String],
    ) -> Result<(), CatalogError> {
        let config = self.document(repository, artifact.config(), artifact.document());
        let content = async {
            match content.zip(artifact.content()) {
                Some((bytes, blob)) => self.document(repository, blob, bytes).await,
                None => Ok(()),
            }
        };
        try_join(config, content).await?;
        for tag in tags {
            let reference = Reference {
                tag: Some(tag.clone()),
                ..repository.clone()
            };
            self.manifest(&reference, IMAGE_MANIFEST, artifact.manifest())
                .await?;
        }
        Ok(())
    }

    /// Configuration and manifest of an image, by digest.
    async fn image(&self, repository: &Reference, image: &Image) -> Result<(), CatalogError> {
        let config = Descriptor::of(IMAGE_CONFIG, &image.config);
        self.document(repository, &config, image.config.as_bytes())
            .await?;
        self.manifest(repository, IMAGE_MANIFEST, image.manifest.as_bytes())
            .await
    }
}

/// A layer's blob.
pub(super) fn blob_of(layer: &Layer) -> Descriptor {
    Descriptor::new(&layer.media_type, layer.digest, layer.size)
}

/// Every layer once, the largest first.
fn parts<'a>(publication: &'a Publication<'_>, known: &[bool]) -> Vec<Part<'a>> {
    let mut parts: BTreeMap<(Digest, Option<Digest>), Part<'_>> = BTreeMap::new();
    for (edition, known) in publication.editions.iter().zip(known) {
        for (index, layer) in edition.image.layers.iter().enumerate() {
            let key = own_key(edition.image, index);
            let part = parts.entry((layer.digest, key)).or_insert(Part {
                layer,
                key,
                extras: edition.extras.get(index),
                wanted: false,
            });
            part.wanted |= !known;
        }
    }
    let mut parts: Vec<_> = parts.into_values().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.layer.size));
    parts
}

/// What is recorded of a layer under its key, and the document of its paths.
pub(super) fn layer_record(
    layer: &Layer,
    key: Digest,
    extras: Option<&Extras>,
) -> (LayerRecord, Option<Vec<u8>>) {
    let paths = extras.and_then(|extras| extras.paths.clone());
    let record = LayerRecord {
        v: LayerRecord::VERSION,
        layer: RecordLayer::of(layer, Some(key)),
        accounts: extras.and_then(|extras| extras.accounts.clone()),
        paths: paths
            .as_ref()
            .map(|paths| Descriptor::of(LayerRecord::PATHS_MEDIA_TYPE, paths)),
        signatures: Vec::new(),
    };
    (record, paths)
}
