//! What every step of a push goes through: asks first, writes unless it is a dry run, counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::content::LayerBlob;
use super::layers::blob_of;
use super::report::Traffic;
use super::{Publication, Publisher};
use crate::catalog::artifact::{Artifact, IMAGE_MANIFEST};
use crate::catalog::{Catalog, CatalogError};
use crate::diagnostic::{Explain as _, Kind};
use crate::digest::Digest;
use crate::layer::{Layer, LayerContent};
use crate::oci::Descriptor;
use crate::progress::Stage;
use crate::registry::{BlobContent, Put, Reference};
use crate::store::LockGuard;

/// A push to one destination.
pub(super) struct Sender<'a> {
    pub(super) publisher: &'a Publisher<'a>,
    pub(super) catalog: &'a Catalog,
    layers: Mutex<BTreeMap<Digest, Moved>>,
    documents: Mutex<Traffic>,
}

/// What became of one layer, in all repositories of the destination.
#[derive(Clone, Copy, Default)]
struct Moved {
    size: u64,
    uploads: u64,
    mounts: u64,
}

impl<'a> Sender<'a> {
    pub(super) fn new(publisher: &'a Publisher<'a>, catalog: &'a Catalog) -> Self {
        Self {
            publisher,
            catalog,
            layers: Mutex::default(),
            documents: Mutex::default(),
        }
    }

    pub(super) fn dry(&self) -> bool {
        self.publisher.dry_run
    }

    /// Sees to it that `repository` has the layer: it is there, one of `mounts` has it, or it is sent.
    pub(super) async fn layer(
        &self,
        repository: &Reference,
        layer: &Layer,
        mounts: &[Reference],
    ) -> Result<(), CatalogError> {
        let blob = blob_of(layer);
        let send = self.send_layer(repository, layer, &blob, mounts);
        let put = self.blob(repository, &blob, mounts, send).await?;
        self.count_layer(layer, put);
        Ok(())
    }

    /// Sees to it that `repository` has a blob that may be large; `send` does it, unless it is there by then.
    pub(super) async fn blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        mounts: &[Reference],
        send: impl Future<Output = Result<Put, CatalogError>>,
    ) -> Result<Put, CatalogError> {
        let mut seen = self.publisher.uploads.enter(repository, &blob.digest).await;
        let put = if *seen || self.catalog.registry().has_blob(repository, blob).await? {
            Put::Existing
        } else if self.dry() {
            self.predict(repository, blob, mounts).await?
        } else {
            let _held = self.exclusive(&blob.digest).await?;
            send.await?
        };
        *seen = true;
        Ok(put)
    }

    /// Whether a repository has a blob by now.
    pub(super) async fn has_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
    ) -> Result<bool, CatalogError> {
        let mut seen = self.publisher.uploads.enter(repository, &blob.digest).await;
        *seen = *seen || self.catalog.registry().has_blob(repository, blob).await?;
        Ok(*seen)
    }

    /// What a real push would do with a blob that is not there.
    async fn predict(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        mounts: &[Reference],
    ) -> Result<Put, CatalogError> {
        let brought = self.publisher.uploads.holders(&blob.digest);
        let registry = self.catalog.registry();
        let mounted = mounts.iter().any(|mount| brought.contains(mount))
            || registry.can_mount(repository, blob, &names(mounts)).await?;
        Ok(if mounted { Put::Mounted } else { Put::Uploaded })
    }

    /// Tells of what stands under a tag and is not what its key is: such a tag is left as it is.
    pub(super) fn tell_foreign(&self, known: Result<(), CatalogError>) -> Result<(), CatalogError> {
        match known {
            Err(error) if error.kind() == Kind::Refused => {
                let hint = error.hint().unwrap_or_default();
                let message = format!("{error}; {hint}");
                if self.publisher.uploads.is_news(&message) {
                    self.publisher.progress.warn(&message);
                }
                Ok(())
            }
            known => known,
        }
    }

    /// Keeps other processes that use this store from sending the same blob at the same time; they find it afterwards.
    async fn exclusive(&self, blob: &Digest) -> Result<LockGuard, CatalogError> {
        let wait = self.publisher.store.locker(&format!("push-{}", blob.hex()));
        match tokio::task::spawn_blocking(wait).await {
            Ok(held) => Ok(held?),
            Err(_) => Err(CatalogError::Ended),
        }
    }

    /// Mounts or sends a layer. The bytes of one that only a registry has are brought when mounting does not do.
    async fn send_layer(
        &self,
        repository: &Reference,
        layer: &Layer,
        blob: &Descriptor,
        mounts: &[Reference],
    ) -> Result<Put, CatalogError> {
        let elsewhere = layer.content == LayerContent::Registry;
        if !elsewhere {
            self.readable(layer).await?;
        }
        let content = LayerBlob::new(self.publisher.source, layer);
        let put = self
            .put(repository, blob, &layer.comment, &content, mounts)
            .await;
        if put.is_ok() || !elsewhere || !content.was_opened() {
            return put;
        }
        self.publisher.materialise.bring(layer).await?;
        let layer = Layer {
            content: LayerContent::Blob,
            ..layer.clone()
        };
        let content = LayerBlob::new(self.publisher.source, &layer);
        self.put(repository, blob, &layer.comment, &content, &[])
            .await
    }

    /// Mounts or sends a blob; whoever watches sees it under the name `label`.
    pub(super) async fn put(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        label: &str,
        content: &dyn BlobContent,
        mounts: &[Reference],
    ) -> Result<Put, CatalogError> {
        let progress = self.publisher.progress;
        let id = progress.begin(Stage::Push, label, Some(blob.size));
        let advance = |bytes| progress.advance(id, bytes);
        let registry = self.catalog.registry();
        let put = registry
            .put_blob(repository, blob, content, &names(mounts), &advance)
            .await;
        progress.end(id);
        Ok(put?)
    }

    /// Sees to it that the bytes of a layer of the store can be read: something may have removed what they come from.
    async fn readable(&self, layer: &Layer) -> Result<(), CatalogError> {
        let source = self.publisher.source;
        let Err(error) = source.open_at(layer, 0) else {
            return Ok(());
        };
        let comment = &layer.comment;
        self.publisher.progress.warn(&format!(
            "the bytes of the layer `{comment}` cannot be read ({error}); they are brought again"
        ));
        self.publisher.materialise.bring(layer).await?;
        match source.open_at(layer, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(CatalogError::Layer {
                comment: comment.clone(),
                digest: layer.digest,
                source,
            }),
        }
    }

    /// Sees to it that `repository` has a small blob.
    pub(super) async fn document(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), CatalogError> {
        let mut seen = self.publisher.uploads.enter(repository, &blob.digest).await;
        let registry = self.catalog.registry();
        let mut mounts = self.publisher.uploads.holders(&blob.digest);
        mounts.retain(|mount| mount.host == repository.host);
        let put = if *seen {
            Put::Existing
        } else if self.dry() {
            match registry.has_blob(repository, blob).await? {
                true => Put::Existing,
                false => self.predict(repository, blob, &mounts).await?,
            }
        } else {
            let _held = self.exclusive(&blob.digest).await?;
            let content = bytes.to_vec();
            registry
                .put_blob(repository, blob, &content, &names(&mounts), &|_| {})
                .await?
        };
        *seen = true;
        self.count_document(put, blob.size);
        Ok(())
    }

    /// Whether a repository has a manifest, an image's or another.
    pub(super) async fn has_manifest(
        &self,
        repository: &Reference,
        digest: &Digest,
    ) -> Result<bool, CatalogError> {
        let pinned = Reference {
            digest: Some(*digest),
            ..repository.clone()
        };
        Ok(self.named(&pinned).await?.is_some())
    }

    /// What a tag of the cache names; such a tag never moves.
    pub(super) async fn found(&self, tag: &str) -> Result<Option<Digest>, CatalogError> {
        self.named(&self.catalog.tagged(tag)).await
    }

    /// Whether this process has put a tag of the cache, or in a dry run would have.
    pub(super) fn is_put(&self, tag: &str) -> bool {
        let known = self.publisher.uploads.manifest(&self.catalog.tagged(tag));
        known.is_some()
    }

    /// What a tag that never moves, or a digest, names.
    async fn named(&self, reference: &Reference) -> Result<Option<Digest>, CatalogError> {
        let uploads = self.publisher.uploads;
        if let Some(known) = uploads.manifest(reference) {
            return Ok(Some(known));
        }
        let found = self.catalog.registry().head_manifest(reference).await?;
        let found = found.map(|found| found.digest);
        if let Some(found) = found {
            uploads.put(reference, found);
        }
        Ok(found)
    }

    /// Whether a repository has a manifest that refers to an image, and lists it there.
    pub(super) async fn has_referrer(
        &self,
        repository: &Reference,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<bool, CatalogError> {
        let uploads = self.publisher.uploads;
        if uploads.lists(repository, referrer) {
            return Ok(true);
        }
        if !self.has_manifest(repository, referrer).await? {
            return Ok(false);
        }
        let registry = self.catalog.registry();
        let all = registry.referrers(repository, subject).await?;
        let found = all.iter().any(|found| found.digest == *referrer);
        if found {
            uploads.listed(repository, *referrer);
        }
        Ok(found)
    }

    /// Puts a manifest that has a `subject`, findable from there.
    pub(super) async fn referrer(
        &self,
        repository: &Reference,
        artifact: &Artifact,
    ) -> Result<(), CatalogError> {
        if !self.dry() {
            let registry = self.catalog.registry();
            registry
                .attach(repository, IMAGE_MANIFEST, artifact.manifest())
                .await?;
        }
        let uploads = self.publisher.uploads;
        uploads.put(repository, artifact.digest());
        uploads.listed(repository, artifact.digest());
        self.count_document(Put::Uploaded, artifact.manifest().len() as u64);
        Ok(())
    }

    /// Puts a manifest under the reference's tag, or its digest.
    pub(super) async fn manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), CatalogError> {
        if !self.dry() {
            let registry = self.catalog.registry();
            registry.put_manifest(reference, media_type, bytes).await?;
        }
        self.publisher.uploads.put(reference, Digest::of(bytes));
        self.count_document(Put::Uploaded, bytes.len() as u64);
        Ok(())
    }

    pub(super) fn count_document(&self, put: Put, bytes: u64) {
        let mut traffic = self
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        traffic.count(put, bytes);
    }

    pub(super) fn count_layer(&self, layer: &Layer, put: Put) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = layers.entry(layer.digest).or_default();
        moved.size = layer.size;
        match put {
            Put::Existing => {}
            Put::Mounted => moved.mounts += 1,
            Put::Uploaded => moved.uploads += 1,
        }
    }

    /// Counts every layer as there already.
    pub(super) fn existing_layers(&self, publication: &Publication<'_>) {
        for edition in publication.editions {
            for layer in &edition.image.layers {
                self.count_layer(layer, Put::Existing);
            }
        }
    }

    /// What became of the layers; one that several repositories got counts once.
    pub(super) fn layer_traffic(&self) -> Traffic {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut traffic = Traffic::default();
        for moved in layers.values() {
            match (moved.uploads, moved.mounts) {
                (0, 0) => traffic.existing.add(moved.size),
                (0, _) => traffic.mounted.add(moved.size),
                (uploads, _) => traffic.uploaded.add(moved.size * uploads),
            }
        }
        traffic
    }

    /// What became of the documents.
    pub(super) fn document_traffic(&self) -> Traffic {
        *self
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(mounts: &[Reference]) -> Vec<String> {
    let names = mounts.iter().map(|mount| mount.repository.clone());
    names.collect()
}
