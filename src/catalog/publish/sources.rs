//! The wheels and debs of an image, kept beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Publisher;
use super::layers::AT_ONCE;
use super::report::Traffic;
use super::sender::Sender;
use crate::catalog::artifact::Artifact;
use crate::catalog::{Catalog, CatalogError};
use crate::digest::Digest;
use crate::oci::Descriptor;
use crate::registry::Put;

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

/// What keeping the files of an image moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The files.
    pub files: Traffic,
    /// What names them.
    pub documents: Traffic,
}

impl std::ops::AddAssign for Kept {
    fn add_assign(&mut self, more: Self) {
        self.files += more.files;
        self.documents += more.documents;
    }
}

impl Publisher<'_> {
    /// Whether a destination keeps the files that the image with this key was made of.
    ///
    /// # Errors
    /// When that cannot be known.
    pub async fn keeps_sources(
        &self,
        catalog: &Catalog,
        image: &Digest,
    ) -> Result<bool, CatalogError> {
        let sender = Sender::new(self, catalog);
        Ok(sender.found(&sources_tag(image)).await?.is_some())
    }

    /// Keeps the files that the image with this key was made of in the cache of a destination; nothing is sent that is
    /// there. The manifest that names them comes last; the key decides which files these are
    /// ([`Publisher::keeps_sources`]).
    ///
    /// # Errors
    /// Those of the registry; a file that cannot be read or has changed.
    pub async fn keep_sources(
        &self,
        catalog: &Catalog,
        image: &Digest,
        files: &[SourceFile],
    ) -> Result<Kept, CatalogError> {
        let sender = Sender::new(self, catalog);
        let once: BTreeMap<&Digest, &SourceFile> =
            files.iter().map(|file| (&file.blob.digest, file)).collect();
        if once.is_empty() {
            return Ok(Kept::default());
        }
        let sends = once.values().map(|file| Box::pin(sender.file(file)));
        let sent: Vec<(u64, Put)> = stream::iter(sends)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let mut traffic = Traffic::default();
        for (size, put) in sent {
            traffic.count(put, size);
        }
        let mut blobs: Vec<&Descriptor> = once.values().map(|file| &file.blob).collect();
        blobs.sort_by(|one, other| one.annotations.cmp(&other.annotations));
        let artifact = Artifact::of_sources(&blobs);
        let (cache, tag) = (catalog.place().cache(), sources_tag(image));
        sender.artifact(&cache, &artifact, None, &[tag]).await?;
        Ok(Kept {
            files: traffic,
            documents: sender.document_traffic(),
        })
    }
}

/// The tag that names the sources of an image.
fn sources_tag(image: &Digest) -> String {
    format!("sources-{}", image.hex())
}

impl Sender<'_> {
    /// Sees to it that the cache has a file.
    async fn file(&self, file: &SourceFile) -> Result<(u64, Put), CatalogError> {
        let (cache, blob) = (self.catalog.place().cache(), &file.blob);
        let send = self.put(&cache, blob, file.name(), &file.path, &[]);
        let put = self.blob(&cache, blob, &[], send).await?;
        Ok((blob.size, put))
    }
}
