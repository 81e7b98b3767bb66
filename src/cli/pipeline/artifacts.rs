//! Wheels, debs and downloads: from where the manifest says, and else from the registry that keeps them.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::catalog::Catalog;
use crate::catalog::publish::SourceFile;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::http::Http;
use crate::lock::{Lock, LockedBase, LockedDeb, LockedImage, LockedWheel};
use crate::manifest::{ImageRequest, Root};
use crate::oci::ReadError;
use crate::progress::Progress;
use crate::source::debian::{DebSource, fetch_debs, snapshot_url};
use crate::source::{ArtifactMirror, FetchContext, SourceError, fetch_file, fetch_wheels};
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

/// A registry as a keeper of artifacts.
struct Keeper<'a>(&'a Catalog);

impl ArtifactMirror for Keeper<'_> {
    fn name(&self) -> String {
        self.0.place().cache().to_string()
    }

    fn fetch<'a>(
        &'a self,
        sha256: &'a Digest,
        size: Option<u64>,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<bool, ReadError>> {
        let found = self.0.fetch_source(sha256, size, store, progress);
        found.map(|found| found.map_err(ReadError::new)).boxed()
    }
}

impl Artifacts<'_> {
    /// Brings the wheels and downloads of an image into the store.
    pub async fn fetch(
        &self,
        request: &ImageRequest,
        lock: &Lock,
        locked: &LockedImage,
    ) -> Result<(), Failure> {
        self.wheels(request, lock, locked).await?;
        for fetch in &request.fetches {
            let context = self.fetching(&[], None);
            fetch_file(&fetch.to, &fetch.url, &fetch.sha256, &context).await?;
        }
        Ok(())
    }

    async fn wheels(
        &self,
        request: &ImageRequest,
        lock: &Lock,
        locked: &LockedImage,
    ) -> Result<(), Failure> {
        let wheels: Vec<_> = wheels(lock, locked).collect();
        Ok(self.fetch_wheels(request, &wheels).await?)
    }

    /// Brings the wheels with these SHA-256 into the store, of an image of `requests` that has them all; false if none
    /// has.
    pub async fn wheels_again(
        &self,
        requests: &[ImageRequest],
        lock: &Lock,
        lost: &[Digest],
    ) -> Result<bool, SourceError> {
        for request in requests {
            let platforms = lock.images.get(&request.name.value);
            for locked in platforms.into_iter().flat_map(BTreeMap::values) {
                let mut found: Vec<_> = wheels(lock, locked).collect();
                found.retain(|(_, wheel)| lost.contains(&wheel.sha256));
                if found.len() == lost.len() {
                    self.fetch_wheels(request, &found).await?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn fetch_wheels(
        &self,
        request: &ImageRequest,
        wheels: &[(&str, &LockedWheel)],
    ) -> Result<(), SourceError> {
        let indexes: Vec<(String, String)> = request
            .indexes
            .iter()
            .map(|index| (index.name.clone(), index.url.clone()))
            .collect();
        let keeper = self.registry.map(Keeper);
        let keeper = keeper.as_ref().map(|keeper| keeper as &dyn ArtifactMirror);
        let context = self.fetching(&indexes, keeper);
        fetch_wheels(wheels, &context).await.map(drop)
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
        let keeper = self.registry.map(Keeper);
        let source = DebSource {
            http: self.http,
            ambient: self.context.ambient(),
            store: self.store,
            progress: &*self.context.progress,
            mirror,
            snapshot: snapshot.as_deref(),
            fallback: keeper.as_ref().map(|keeper| keeper as &dyn ArtifactMirror),
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
        self.wheels(request, lock, locked).await?;
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

/// The wheels of an image, by file name.
fn wheels<'l>(
    lock: &'l Lock,
    locked: &'l LockedImage,
) -> impl Iterator<Item = (&'l str, &'l LockedWheel)> {
    let files = locked.wheels.iter();
    files
        .filter_map(|file| lock.wheels.get_key_value(file))
        .map(|(file, wheel)| (file.as_str(), wheel))
}
