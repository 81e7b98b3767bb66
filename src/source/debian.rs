//! Fetches the lock's debs from an archive's mirrors into the store, verified against the lock's hashes.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::ambient::{Ambient, redact};
use crate::diagnostic::{Explain, Kind};
use crate::http::{Http, HttpError};
use crate::lock::LockedDeb;
use crate::progress::{Progress, Stage};
use crate::resolve::debian::{login, mirrors};
use crate::store::{Store, StoreError};

/// Downloads at one time.
const PARALLEL: usize = 8;

/// Why a deb cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// Nobody says where the suite is.
    #[error("nothing says where the Debian suite {suite}, which holds {deb}, can be fetched from")]
    NoMirror {
        /// The package and its version.
        deb: String,
        /// The suite.
        suite: String,
    },
    /// The archive has dropped the file.
    #[error("the archive no longer has {deb} ({url})")]
    Vanished {
        /// The package and its version.
        deb: String,
        /// Redacted; of the last mirror tried.
        url: String,
    },
    /// The network.
    #[error("{deb} cannot be fetched: {source}")]
    Http {
        /// The package and its version.
        deb: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// A wrong hash, or a store that cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for DebError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoMirror { .. } => Kind::Usage,
            Self::Vanished { .. } => Kind::NotFound,
            Self::Http { source, .. } => source.kind(),
            Self::Store(source) => source.kind(),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoMirror { .. } => Some(
                "declare the archive with `debian … mirror=\"…\"`, or set IMAGEWRIGHT_DEBIAN_MIRROR, or add the suite to the machine's apt sources".into(),
            ),
            Self::Vanished { .. } => Some(
                "archives keep only current versions: run `imagewright lock --upgrade`, or declare a snapshot of the archive with `debian … mirror=\"…\"` to keep these; layers that a registry has need no debs".into(),
            ),
            Self::Http { source, .. } => source.hint(),
            Self::Store(source) => source.hint(),
        }
    }
}

/// What fetching needs.
#[derive(Clone, Copy)]
pub struct DebSource<'a> {
    /// The network.
    pub http: &'a Http,
    /// Mirrors and credentials.
    pub ambient: &'a Ambient,
    /// Where debs go.
    pub store: &'a Store,
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// The archive's URL, where the manifest declares one.
    pub mirror: Option<&'a str>,
}

/// Brings all `debs` into the store's artifacts; those that are there already cost nothing.
///
/// # Errors
/// The first deb that cannot be had.
pub async fn fetch_debs(source: DebSource<'_>, debs: &[&LockedDeb]) -> Result<(), DebError> {
    let missing: BTreeMap<_, _> = debs
        .iter()
        .filter(|deb| source.store.artifact(&deb.sha256).is_none())
        .map(|deb| (deb.sha256, *deb))
        .collect();
    let fetches = missing.into_values().map(|deb| async move {
        let name = describe(deb);
        let id = source.progress.begin(Stage::Fetch, &name, Some(deb.size));
        let fetched = fetch(source, deb, id).await;
        source.progress.end(id);
        fetched
    });
    stream::iter(fetches)
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

fn describe(deb: &LockedDeb) -> String {
    format!("{} {}", deb.package, deb.version)
}

/// Tries every mirror; the failure that tells most is returned: wrong bytes, then no answer, then absence.
async fn fetch(source: DebSource<'_>, deb: &LockedDeb, id: u64) -> Result<(), DebError> {
    let mut failure = None;
    for mirror in mirrors(&deb.suite, source.mirror, source.ambient) {
        let url = format!("{mirror}/{}", deb.path);
        match download(source, deb, &url, id).await {
            Ok(()) => return Ok(()),
            Err(error) => match (&failure, error.kind()) {
                (Some(_), Kind::NotFound) => {}
                _ => failure = Some(error),
            },
        }
    }
    Err(failure.unwrap_or_else(|| DebError::NoMirror {
        deb: describe(deb),
        suite: deb.suite.clone(),
    }))
}

async fn download(
    source: DebSource<'_>,
    deb: &LockedDeb,
    url: &str,
    id: u64,
) -> Result<(), DebError> {
    let failed = |error: HttpError| match error.kind() {
        Kind::NotFound => DebError::Vanished {
            deb: describe(deb),
            url: redact(url),
        },
        _ => DebError::Http {
            deb: describe(deb),
            source: error,
        },
    };
    let response = source.http.get(url, login(url, source.ambient)).await;
    let mut response = response.map_err(failed)?;
    let mut pending = source.store.pending()?;
    let mut received = 0;
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| failed(HttpError::from_reqwest(url, error)))?
    {
        received += chunk.len() as u64;
        pending.append(&chunk)?;
        source.progress.advance(id, chunk.len() as u64);
        // What is longer than locked cannot have the locked hash.
        if received > deb.size {
            break;
        }
    }
    let target = source.store.artifact_path(&deb.sha256);
    pending.commit_verified(&target, &deb.sha256, &describe(deb))?;
    Ok(())
}
