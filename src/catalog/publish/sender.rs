//! What every step of a push goes through: asks first, writes unless it is a dry run, counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::content::LayerBlob;
use super::report::{Pushed, Traffic};
use super::{Publication, Publisher};
use crate::catalog::artifact::{Artifact, IMAGE_MANIFEST};
use crate::catalog::{Catalog, CatalogError};
use crate::digest::Digest;
use crate::layer::{Layer, LayerContent};
use crate::oci::Descriptor;
use crate::progress::Stage;
use crate::registry::{Put, Reference};
use crate::store::LockGuard;

/// Which blobs this process has seen to, by repository: no two tasks send the same blob, and what was sent, or in a dry
/// run would have been, is not asked for again.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<BTreeMap<(Reference, Digest), Turn>>);

/// Held by the task that sees to a blob; true: the repository has it by now.
type Turn = Arc<tokio::sync::Mutex<bool>>;

impl Uploads {
    /// Waits for its turn; true: the repository has the blob by now.
    pub(super) async fn enter(
        &self,
        repository: &Reference,
        blob: &Digest,
    ) -> OwnedMutexGuard<bool> {
        let plain = Reference {
            tag: None,
            digest: None,
            ..repository.clone()
        };
        let key = (plain, *blob);
        let turn = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(key).or_default())
        };
        turn.lock_owned().await
    }

    /// Repositories that have the blob by now, as far as this process saw to it. Waits for nobody.
    fn holders(&self, blob: &Digest) -> Vec<Reference> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = all.iter().filter(|((_, digest), seen)| {
            digest == blob && seen.try_lock().is_ok_and(|seen| *seen)
        });
        holders.map(|((place, _), _)| place.clone()).collect()
    }
}

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
        let mut seen = self
            .publisher
            .uploads
            .enter(repository, &layer.digest)
            .await;
        let blob = Descriptor::new(&layer.media_type, layer.digest, layer.size);
        let registry = self.catalog.registry();
        let put = if *seen || registry.has_blob(repository, &blob).await? {
            Put::Existing
        } else if self.dry() {
            self.predict(&blob, mounts).await?
        } else {
            let _held = self.exclusive(&layer.digest).await?;
            self.send(repository, layer, &blob, mounts).await?
        };
        *seen = true;
        self.count_layer(layer, put);
        Ok(())
    }

    /// What a real push would do with a blob that is not there.
    async fn predict(&self, blob: &Descriptor, mounts: &[Reference]) -> Result<Put, CatalogError> {
        let brought = self.publisher.uploads.holders(&blob.digest);
        for mount in mounts {
            if brought.contains(mount) || self.catalog.registry().has_blob(mount, blob).await? {
                return Ok(Put::Mounted);
            }
        }
        Ok(Put::Uploaded)
    }

    /// Keeps other processes that use this store from sending the same blob at the same time; they find it afterwards.
    pub(super) async fn exclusive(&self, blob: &Digest) -> Result<LockGuard, CatalogError> {
        let wait = self.publisher.store.locker(&format!("push-{}", blob.hex()));
        match tokio::task::spawn_blocking(wait).await {
            Ok(held) => Ok(held?),
            Err(_) => Err(CatalogError::Ended),
        }
    }

    async fn send(
        &self,
        repository: &Reference,
        layer: &Layer,
        blob: &Descriptor,
        mounts: &[Reference],
    ) -> Result<Put, CatalogError> {
        let content = LayerBlob::new(self.publisher.source, layer);
        let mounts = names(mounts.to_vec());
        let elsewhere = layer.content == LayerContent::Registry;
        if !elsewhere {
            self.check(layer)?;
        }
        let progress = self.publisher.progress;
        let id = progress.begin(Stage::Push, &layer.comment, Some(layer.size));
        let registry = self.catalog.registry();
        let advance = |bytes| progress.advance(id, bytes);
        let mut put = registry
            .put_blob(repository, blob, &content, &mounts, &advance)
            .await;
        if put.is_err() && elsewhere && content.was_opened() {
            self.publisher.materialise.bring(layer).await?;
            let layer = Layer {
                content: LayerContent::Blob,
                ..layer.clone()
            };
            let content = LayerBlob::new(self.publisher.source, &layer);
            put = registry
                .put_blob(repository, blob, &content, &[], &advance)
                .await;
        }
        progress.end(id);
        Ok(put?)
    }

    /// Whether the bytes can be read, told in our words before a request is made for them.
    fn check(&self, layer: &Layer) -> Result<(), CatalogError> {
        match self.publisher.source.open_at(layer, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(CatalogError::Layer {
                comment: layer.comment.clone(),
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
                false => self.predict(blob, &mounts).await?,
            }
        } else {
            let _held = self.exclusive(&blob.digest).await?;
            let mounts = names(mounts);
            let content = bytes.to_vec();
            registry
                .put_blob(repository, blob, &content, &mounts, &|_| {})
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
        let reference = Reference {
            digest: Some(*digest),
            ..repository.clone()
        };
        let found = self.catalog.registry().head_manifest(&reference).await?;
        Ok(found.is_some())
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
        self.count_document(Put::Uploaded, bytes.len() as u64);
        Ok(())
    }

    pub(super) fn count_document(&self, put: Put, bytes: u64) {
        let mut traffic = self
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match put {
            Put::Existing => traffic.existing.add(bytes),
            Put::Mounted => traffic.mounted.add(bytes),
            Put::Uploaded => traffic.uploaded.add(bytes),
        }
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
        for edition in &publication.editions {
            for layer in &edition.image.layers {
                self.count_layer(layer, Put::Existing);
            }
        }
    }

    /// Puts the counts into the report.
    pub(super) fn finish(&self, pushed: &mut Pushed) {
        pushed.documents = *self
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for moved in self
            .layers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            let layers = &mut pushed.layers;
            match (moved.uploads, moved.mounts) {
                (0, 0) => layers.existing.add(moved.size),
                (0, _) => layers.mounted.add(moved.size),
                (uploads, _) => layers.uploaded.add(moved.size * uploads),
            }
        }
    }
}

fn names(mounts: Vec<Reference>) -> Vec<String> {
    let names = mounts.into_iter().map(|mount| mount.repository);
    names.collect()
}
