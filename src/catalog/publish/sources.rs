//! The wheels and debs of an image, kept beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Publisher;
use super::report::Traffic;
use super::sender::Sender;
use crate::catalog::artifact::{Artifact, IMAGE_MANIFEST};
use crate::catalog::{Catalog, CatalogError};
use crate::digest::Digest;
use crate::oci::Descriptor;
use crate::progress::Stage;
use crate::registry::Put;

/// Files at one time.
const PARALLEL: usize = 8;

/// The media type of wheels, which are zip archives.
const WHEEL: &str = "application/zip";
/// The media type of debs.
const DEB: &str = "application/vnd.debian.binary-package";
/// Names a file (OCI image specification, "Pre-Defined Annotation Keys").
const TITLE: &str = "org.opencontainers.image.title";

/// A file that an image was made of, in the store.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// What the lock says of it: its name, digest, length and media type.
    blob: Descriptor,
    path: PathBuf,
}

impl SourceFile {
    /// The wheel with this file name.
    pub fn wheel(name: &str, sha256: Digest, size: u64, path: PathBuf) -> Self {
        Self::new(WHEEL, name, sha256, size, path)
    }

    /// The deb with this file name.
    pub fn deb(name: &str, sha256: Digest, size: u64, path: PathBuf) -> Self {
        Self::new(DEB, name, sha256, size, path)
    }

    fn new(media_type: &str, name: &str, sha256: Digest, size: u64, path: PathBuf) -> Self {
        let mut blob = Descriptor::new(media_type, sha256, size);
        blob.annotations.insert(TITLE.into(), name.into());
        Self { blob, path }
    }

    fn name(&self) -> &str {
        self.blob.annotations.get(TITLE).map_or("", String::as_str)
    }
}

impl Publisher<'_> {
    /// Keeps the files that the image with this key was made of in the cache of a destination; nothing is sent that is
    /// there. The manifest that names them comes last; the key decides which files these are ([`Catalog::has_sources`]).
    ///
    /// # Errors
    /// Those of the registry; a file that cannot be read or has changed.
    pub async fn keep_sources(
        &self,
        catalog: &Catalog,
        image: &Digest,
        files: &[SourceFile],
    ) -> Result<Traffic, CatalogError> {
        let sender = Sender::new(self, catalog);
        let once: BTreeMap<&Digest, &SourceFile> =
            files.iter().map(|file| (&file.blob.digest, file)).collect();
        let mut traffic = Traffic::default();
        if once.is_empty() {
            return Ok(traffic);
        }
        let sends = once.values().map(|file| Box::pin(sender.file(file)));
        let sent: Vec<(u64, Put)> = stream::iter(sends)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        for (size, put) in sent {
            match put {
                Put::Existing => traffic.existing.add(size),
                Put::Mounted => traffic.mounted.add(size),
                Put::Uploaded => traffic.uploaded.add(size),
            }
        }
        let mut blobs: Vec<&Descriptor> = once.values().map(|file| &file.blob).collect();
        blobs.sort_by(|one, other| one.annotations.cmp(&other.annotations));
        let artifact = Artifact::of_sources(&blobs);
        let cache = catalog.place().cache();
        sender
            .document(&cache, artifact.config(), artifact.document())
            .await?;
        sender
            .manifest(&catalog.sources(image), IMAGE_MANIFEST, artifact.manifest())
            .await?;
        Ok(traffic)
    }
}

impl Sender<'_> {
    /// Sees to it that the cache has a file.
    async fn file(&self, file: &SourceFile) -> Result<(u64, Put), CatalogError> {
        let cache = self.catalog.place().cache();
        let (registry, blob) = (self.catalog.registry(), &file.blob);
        let mut seen = self.publisher.uploads.enter(&cache, &blob.digest).await;
        let put = if *seen || registry.has_blob(&cache, blob).await? {
            Put::Existing
        } else if self.dry() {
            Put::Uploaded
        } else {
            let _held = self.exclusive(&blob.digest).await?;
            let progress = self.publisher.progress;
            let id = progress.begin(Stage::Push, file.name(), Some(blob.size));
            let advance = |bytes| progress.advance(id, bytes);
            let put = registry
                .put_blob(&cache, blob, &file.path, &[], &advance)
                .await;
            progress.end(id);
            put?
        };
        *seen = true;
        Ok((blob.size, put))
    }
}
