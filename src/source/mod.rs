//! `Lock` → verified artifacts in the store.
//!
//! Owns where the bytes of a locked artifact come from and how they get here: nothing is in the store's `artifacts`
//! that does not have its digest. Never resolves: a file that is gone is an error, not a reason to take another.
//!
//! When an index no longer has a file, or is out of reach, an [`ArtifactMirror`] may still keep it; the digest of what
//! comes from there is verified all the same. Other bytes than were locked are an error, whoever could do better.
//!
//! A login reaches only the origin of its index ([`IndexLogins`]); redirects to other hosts lose it. Two processes
//! that want the same artifact both download it; the later rename replaces equal bytes by equal bytes.

pub mod debian;
mod download;
mod error;
mod mirror;
mod simple;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use url::Url;

use mirror::{Asked, Silence, ask};

pub use download::Download;
pub use error::SourceError;
pub use mirror::MirrorError;

use crate::ambient::{Ambient, IndexLogins, redact};
use crate::digest::Digest;
use crate::http::Http;
use crate::lock::{LockedWheel, WheelOrigin};
use crate::oci::ArtifactMirror;
use crate::progress::Progress;
use crate::resolve::python::default_index_url;
use crate::store::{Store, StoreError};

/// Downloads at one time, unless told otherwise.
pub const DEFAULT_JOBS: usize = 8;

/// What fetching works with.
#[derive(Clone, Copy)]
pub struct FetchContext<'a> {
    /// The client; knows whether the network is switched off.
    pub http: &'a Http,
    /// Where artifacts go.
    pub store: &'a Store,
    /// Mirror of the default index, and logins.
    pub ambient: &'a Ambient,
    /// (declared name, URL) of the manifest's indexes, so that logins by name are found.
    pub indexes: &'a [(String, String)],
    /// The folder of the manifest, for wheels of the project.
    pub project_dir: &'a Path,
    /// Receives bytes.
    pub progress: &'a dyn Progress,
    /// Requests at one time.
    pub jobs: usize,
    /// Who is asked for a wheel that its index does not give.
    pub fallback: Option<&'a dyn ArtifactMirror>,
}

impl std::fmt::Debug for FetchContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchContext").finish_non_exhaustive()
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Artifacts that the store had.
    pub present: usize,
    /// Artifacts that were downloaded or copied.
    pub fetched: usize,
}

/// Brings wheels, given as (file name, wheel), into the store.
///
/// # Errors
/// The first that occurs; other downloads are given up then. What was complete stays in the store.
pub async fn fetch_wheels(
    wheels: &[(&str, &LockedWheel)],
    ctx: &FetchContext<'_>,
) -> Result<Fetched, SourceError> {
    let mut missing = BTreeMap::<&Digest, Wanted<'_>>::new();
    for (file, wheel) in wheels {
        if ctx.store.artifact(&wheel.sha256).is_none() {
            missing.insert(&wheel.sha256, Wanted { file, wheel });
        }
    }
    let fetched = Fetched {
        present: wheels.len() - missing.len(),
        fetched: missing.len(),
    };
    let default = default_index_url(ctx.ambient);
    let logins = logins(missing.values(), ctx, &default);
    let mut groups = BTreeMap::<(String, &str), Vec<Wanted<'_>>>::new();
    let mut single = Vec::new();
    for wanted in missing.into_values() {
        let index = match &wanted.wheel.origin {
            WheelOrigin::DefaultIndex => default.clone(),
            WheelOrigin::Index(url) => url.clone(),
            WheelOrigin::Url(_) | WheelOrigin::Path(_) => {
                single.push(wanted);
                continue;
            }
        };
        let group = groups.entry((index, &wanted.wheel.name)).or_default();
        group.push(wanted);
    }
    // Large ones first, so that none of them is left alone at the end.
    let mut groups: Vec<_> = groups.into_iter().collect();
    let size = |wanted: &Wanted<'_>| wanted.wheel.size.unwrap_or(0);
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.iter().map(size).max()));
    let permits = Semaphore::new(ctx.jobs.max(1));
    let worker = Worker {
        ctx,
        logins: &logins,
        permits: &permits,
        silence: Silence::default(),
    };
    let grouped = groups
        .iter()
        .map(|((index, project), group)| Box::pin(worker.of_project(index, project, group)));
    let alone = single.iter().map(|wanted| Box::pin(worker.alone(wanted)));
    futures_util::try_join!(try_join_all(grouped), try_join_all(alone))?;
    Ok(fetched)
}

/// Brings the file at `url` into the store and returns its path there. `what` names it in messages.
pub async fn fetch_file(
    what: &str,
    url: &str,
    sha256: &Digest,
    ctx: &FetchContext<'_>,
) -> Result<PathBuf, SourceError> {
    if let Some(path) = ctx.store.artifact(sha256) {
        return Ok(path);
    }
    let logins = IndexLogins::new(ctx.ambient, [(None, url)]);
    let url = parse(url)?;
    let download = Download {
        what: what.to_owned(),
        label: what,
        login: logins.for_url(&url).cloned(),
        url,
        sha256: *sha256,
        size: None,
    };
    download.run(ctx).await?;
    Ok(ctx.store.artifact_path(sha256))
}

/// A wheel that the store lacks.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    file: &'a str,
    wheel: &'a LockedWheel,
}

impl Wanted<'_> {
    fn described(&self) -> String {
        format!("{} {} ({})", self.wheel.name, self.wheel.version, self.file)
    }
}

fn logins<'a>(
    wanted: impl Iterator<Item = &'a Wanted<'a>>,
    ctx: &FetchContext<'_>,
    default: &str,
) -> IndexLogins {
    let declared = ctx.indexes.iter();
    let declared = declared.map(|(name, url)| (Some(name.as_str()), url.as_str()));
    let known = |url: &str| {
        ctx.indexes
            .iter()
            .any(|(_, declared)| same_url(declared, url))
    };
    let origins = wanted.filter_map(|wanted| match &wanted.wheel.origin {
        WheelOrigin::Index(url) | WheelOrigin::Url(url) if !known(url) => {
            Some((None, url.as_str()))
        }
        _ => None,
    });
    let mirror = ctx.ambient.python_index.as_deref().unwrap_or(default);
    IndexLogins::new(ctx.ambient, declared.chain(origins).chain([(None, mirror)]))
}

fn same_url(one: &str, other: &str) -> bool {
    redact(one).trim_end_matches('/') == redact(other).trim_end_matches('/')
}

fn parse(url: &str) -> Result<Url, SourceError> {
    Url::parse(url).map_err(|error| SourceError::Unreadable {
        url: redact(url),
        reason: error.to_string(),
    })
}

struct Worker<'a> {
    ctx: &'a FetchContext<'a>,
    logins: &'a IndexLogins,
    permits: &'a Semaphore,
    silence: Silence,
}

impl Worker<'_> {
    /// The wheels of one project: one request for its page, then the files.
    async fn of_project(
        &self,
        index: &str,
        project: &str,
        group: &[Wanted<'_>],
    ) -> Result<(), SourceError> {
        if self.ctx.http.is_offline()
            && let Some(first) = group.first()
        {
            return Err(SourceError::Offline {
                what: first.described(),
            });
        }
        let files = match self.page(index, project).await {
            Ok(files) => files,
            Err(error) => return self.elsewhere(group, error).await,
        };
        let downloads = group.iter().map(|wanted| async {
            let error = match files.get(wanted.file) {
                Some(url) => return self.download(wanted, url.clone()).await,
                None => SourceError::Dropped {
                    what: wanted.described(),
                    from: redact(index),
                },
            };
            self.elsewhere(std::slice::from_ref(wanted), error).await
        });
        try_join_all(downloads).await?;
        Ok(())
    }

    async fn page(&self, index: &str, project: &str) -> Result<BTreeMap<String, Url>, SourceError> {
        let _permit = self.permits.acquire().await;
        self.silence
            .check(index)
            .map_err(|source| SourceError::list_of(project, source))?;
        let page = simple::files(self.ctx.http, self.logins, index, project).await;
        self.listen(index, page)
    }

    /// Remembers a server that gave no answer.
    fn listen<T>(&self, url: &str, result: Result<T, SourceError>) -> Result<T, SourceError> {
        if let Err(SourceError::Http { source, .. }) = &result {
            self.silence.note(url, source);
        }
        result
    }

    /// Asks the mirror for wheels that `error` kept from being fetched where they come from.
    async fn elsewhere(&self, group: &[Wanted<'_>], error: SourceError) -> Result<(), SourceError> {
        let Some(mirror) = self.ctx.fallback.filter(|_| error.is_absence()) else {
            return Err(error);
        };
        for wanted in group {
            let _permit = self.permits.acquire().await;
            let asked = Asked {
                what: &wanted.described(),
                sha256: &wanted.wheel.sha256,
                size: wanted.wheel.size,
            };
            if let Err(mirror) = ask(mirror, asked, self.ctx.store, self.ctx.progress).await {
                return Err(SourceError::Nowhere {
                    error: Box::new(error),
                    mirror,
                });
            }
        }
        Ok(())
    }

    async fn alone(&self, wanted: &Wanted<'_>) -> Result<(), SourceError> {
        match &wanted.wheel.origin {
            WheelOrigin::Path(path) => self.copy(wanted, path).await,
            WheelOrigin::Url(url) => self.download(wanted, parse(url)?).await,
            WheelOrigin::DefaultIndex | WheelOrigin::Index(_) => Ok(()),
        }
    }

    async fn download(&self, wanted: &Wanted<'_>, url: Url) -> Result<(), SourceError> {
        let text = url.to_string();
        let fetched = {
            let _permit = self.permits.acquire().await;
            let download = Download {
                what: wanted.described(),
                label: wanted.file,
                login: self.logins.for_url(&url).cloned(),
                url,
                sha256: wanted.wheel.sha256,
                size: wanted.wheel.size,
            };
            match self.silence.check(&text) {
                Ok(()) => self.listen(&text, download.run(self.ctx).await),
                Err(source) => Err(SourceError::Http {
                    what: wanted.described(),
                    source,
                }),
            }
        };
        match fetched {
            Ok(()) => Ok(()),
            Err(error) => self.elsewhere(std::slice::from_ref(wanted), error).await,
        }
    }

    /// Takes a wheel of the project into the store.
    async fn copy(&self, wanted: &Wanted<'_>, path: &str) -> Result<(), SourceError> {
        let path = self.ctx.project_dir.join(path);
        let pending = self.ctx.store.pending()?;
        let target = self.ctx.store.artifact_path(&wanted.wheel.sha256);
        let (expected, what) = (wanted.wheel.sha256, wanted.described());
        let work = move || {
            let mut pending = pending;
            let unreadable = |source| SourceError::Project {
                what: what.clone(),
                path: path.clone(),
                source,
            };
            let mut file = File::open(&path).map_err(unreadable)?;
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match file.read(&mut buffer).map_err(unreadable)? {
                    0 => break,
                    n => pending.append(&buffer[..n])?,
                }
            }
            match pending.commit_verified(&target, &expected, &what) {
                Err(StoreError::WrongDigest { found, .. }) => Err(SourceError::Changed {
                    what,
                    expected,
                    found,
                }),
                other => Ok(other.map(|_| ())?),
            }
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(_) => Err(SourceError::BrokenOff {
                what: wanted.described(),
                url: String::new(),
                received: 0,
                reason: "interrupted".into(),
            }),
        }
    }
}
