//! Wheels, debs and downloads: from where the manifest says, and else from the registry that keeps them.

use std::collections::BTreeMap;

use crate::catalog::Catalog;
use crate::catalog::publish::SourceFile;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::http::Http;
use crate::lock::{Lock, LockedBase, LockedDeb, LockedImage};
use crate::manifest::{FetchSpec, ImageRequest, Root};
use crate::oci::ArtifactMirror;
use crate::source::debian::{DebSource, fetch_debs, snapshot_url};
use crate::source::{FetchContext, SourceError, fetch_file, fetch_wheels};
use crate::store::Store;

/// Downloads at one time.
const PARALLEL: usize = 8;

/// Where the artifacts of images come from.
#[derive(Clone, Copy, Debug)]
pub struct Artifacts<'a> {
    /// Options, credentials, progress.
    pub context: &'a Context,
    /// Where they go.
    pub store: &'a Store,
    /// The network.
    pub http: &'a Http,
    /// The registry that the manifest declares; it is asked for what an index or archive does not give.
    pub registry: Option<&'a Catalog>,
}

impl Artifacts<'_> {
    /// Brings a download into the store.
    pub async fn download(&self, fetch: &FetchSpec) -> Result<(), Failure> {
        let context = self.fetching(&[], None);
        fetch_file(&fetch.to, &fetch.url, &fetch.sha256, &context).await?;
        Ok(())
    }

    /// Brings wheels of an image, given by file name, into the store.
    pub async fn wheels<'f>(
        &self,
        request: &ImageRequest,
        lock: &Lock,
        files: impl IntoIterator<Item = &'f String>,
    ) -> Result<(), SourceError> {
        let indexes: Vec<(String, String)> = request
            .indexes
            .iter()
            .map(|index| (index.name.clone(), index.url.clone()))
            .collect();
        let wheels: Vec<_> = files
            .into_iter()
            .filter_map(|file| lock.wheels.get_key_value(file))
            .map(|(file, wheel)| (file.as_str(), wheel))
            .collect();
        fetch_wheels(&wheels, &self.fetching(&indexes, self.mirror())).await?;
        Ok(())
    }

    /// Brings the wheels with these SHA-256 into the store, for the first of `requests` that has them all; false if none
    /// has.
    pub async fn wheels_again(
        &self,
        requests: &[ImageRequest],
        lock: &Lock,
        lost: &[Digest],
    ) -> Result<bool, SourceError> {
        let is_lost = |file: &&String| {
            let wheel = lock.wheels.get(*file);
            wheel.is_some_and(|wheel| lost.contains(&wheel.sha256))
        };
        for request in requests {
            let platforms = lock.images.get(&request.name.value);
            for locked in platforms.into_iter().flat_map(BTreeMap::values) {
                let files: Vec<&String> = locked.wheels.iter().filter(is_lost).collect();
                if !files.is_empty() && files.len() == lost.len() {
                    self.wheels(request, lock, files).await?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn mirror(&self) -> Option<&dyn ArtifactMirror> {
        self.registry.map(|catalog| catalog as &dyn ArtifactMirror)
    }

    fn fetching<'c>(
        &'c self,
        indexes: &'c [(String, String)],
        fallback: Option<&'c dyn ArtifactMirror>,
    ) -> FetchContext<'c> {
        FetchContext {
            http: self.http,
            store: self.store,
            ambient: self.context.ambient(),
            indexes,
            project_dir: &self.context.folder,
            progress: &*self.context.progress,
            jobs: PARALLEL,
            fallback,
        }
    }

    /// Brings debs of an image into the store.
    pub async fn debs(
        &self,
        request: &ImageRequest,
        locked: &LockedImage,
        debs: &[&LockedDeb],
    ) -> Result<(), Failure> {
        let (mirror, snapshot) = match (&locked.base, &request.root) {
            (LockedBase::Debian { mirror, epoch, .. }, Root::Debian(debian)) => {
                let snapshot = debian.snapshot.as_ref();
                let snapshot = snapshot.map(|declared| snapshot_url(declared, *epoch));
                (mirror.as_deref(), snapshot)
            }
            _ => (None, None),
        };
        let source = DebSource {
            http: self.http,
            ambient: self.context.ambient(),
            store: self.store,
            progress: &*self.context.progress,
            mirror,
            snapshot: snapshot.as_deref(),
            fallback: self.mirror(),
        };
        Ok(fetch_debs(source, debs).await?)
    }

    /// Every wheel and deb of an image; those that the store lacks, because layers came from elsewhere, are fetched.
    pub async fn sources(
        &self,
        request: &ImageRequest,
        lock: &Lock,
        locked: &LockedImage,
    ) -> Result<Vec<SourceFile>, Failure> {
        let base: &[String] = match &locked.base {
            LockedBase::Debian { debs, .. } => debs,
            LockedBase::From { .. } => &[],
        };
        let ids = base.iter().chain(&locked.debs);
        let debs: Vec<&LockedDeb> = ids.filter_map(|id| lock.debs.get(id)).collect();
        self.wheels(request, lock, &locked.wheels).await?;
        self.debs(request, locked, &debs).await?;
        let mut files = Vec::new();
        for file in &locked.wheels {
            if let Some(wheel) = lock.wheels.get(file) {
                let (sha256, size) = (wheel.sha256, self.size(&wheel.sha256)?);
                files.push(SourceFile::wheel(
                    file,
                    sha256,
                    size,
                    self.store.artifact_path(&sha256),
                ));
            }
        }
        for deb in debs {
            let name = deb.path.rsplit('/').next().unwrap_or(&deb.path);
            let path = self.store.artifact_path(&deb.sha256);
            files.push(SourceFile::deb(name, deb.sha256, deb.size, path));
        }
        Ok(files)
    }

    fn size(&self, artifact: &Digest) -> Result<u64, Failure> {
        let path = self.store.artifact_path(artifact);
        let meta = std::fs::metadata(&path).map_err(|error| {
            Failure::plain(
                Kind::Unavailable,
                format!("cannot read {}: {error}", path.display()),
                "",
            )
        })?;
        Ok(meta.len())
    }
}
