//! Fetches the lock's debs from an archive's mirrors into the store, verified against the lock's hashes.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::mirror::{Asked, MirrorError, Silence, ask, decisive};
use crate::ambient::{Ambient, redact};
use crate::diagnostic::{Explain, Kind};
use crate::http::{Http, HttpError};
use crate::lock::LockedDeb;
use crate::oci::ArtifactMirror;
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
    /// The place that keeps artifacts does not give it either.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// Several places were asked.
    #[error("{deb} cannot be fetched: {}", reasons(tried))]
    Nowhere {
        /// The package and its version.
        deb: String,
        /// What came of each, in the order in which they were asked.
        tried: Vec<DebError>,
    },
}

fn reasons(tried: &[DebError]) -> String {
    let reason = |error: &DebError| match error {
        DebError::Vanished { url, .. } => format!("{url} does not exist"),
        DebError::NoMirror { suite, .. } => {
            format!("nothing says where the Debian suite {suite} can be fetched from")
        }
        DebError::Http { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    tried.iter().map(reason).collect::<Vec<_>>().join("; ")
}

fn most_telling(tried: &[DebError]) -> Option<&dyn Explain> {
    decisive(tried.iter().map(|error| error as &dyn Explain))
}

impl Explain for DebError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoMirror { .. } => Kind::Usage,
            Self::Vanished { .. } => Kind::NotFound,
            Self::Http { source, .. } => source.kind(),
            Self::Store(source) => source.kind(),
            Self::Mirror(source) => source.kind(),
            Self::Nowhere { tried, .. } => {
                most_telling(tried).map_or(Kind::NotFound, Explain::kind)
            }
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoMirror { .. } => Some(
                "declare the archive with `debian … mirror=\"…\"`, or set IMAGEWRIGHT_DEBIAN_MIRROR, or add the suite to the machine's apt sources".into(),
            ),
            Self::Vanished { .. } => Some(
                "archives keep only current versions: run `imagewright lock --upgrade`, or declare an archive that keeps the others with `debian … snapshot=\"…\"`; who still has it in the store can keep it in the registry with `imagewright push --with-sources`".into(),
            ),
            Self::Http { source, .. } => source.hint(),
            Self::Store(source) => source.hint(),
            Self::Mirror(source) => source.hint(),
            Self::Nowhere { tried, .. } => most_telling(tried).and_then(Explain::hint),
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
    /// An archive that keeps superseded packages, asked first; as [`snapshot_url`] gives it.
    pub snapshot: Option<&'a str>,
    /// Who is asked for what no archive gives.
    pub fallback: Option<&'a dyn ArtifactMirror>,
}

/// The URL of a declared snapshot: `{timestamp}` in it stands for the second `epoch` of 1970 in UTC, as in
/// `20240630T120000Z`.
pub fn snapshot_url(declared: &str, epoch: i64) -> String {
    let time = jiff::Timestamp::from_second(epoch).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    declared.replace("{timestamp}", &time.strftime("%Y%m%dT%H%M%SZ").to_string())
}

/// The URLs of archives that may have a suite's packages, in the order in which they are asked.
fn archives(source: DebSource<'_>, suite: &str) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(snapshot) = source.snapshot {
        let snapshot = snapshot.trim_end_matches('/');
        if suite.ends_with("-security") {
            // A snapshot has one folder for each archive, and the times below it.
            let parts = snapshot.split('/');
            let sibling = parts.map(|part| {
                if part == "debian" {
                    "debian-security"
                } else {
                    part
                }
            });
            all.push(sibling.collect::<Vec<_>>().join("/"));
        }
        all.push(snapshot.to_owned());
    }
    all.extend(mirrors(suite, source.mirror, source.ambient));
    all.dedup();
    all
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
    let silence = &Silence::default();
    let fetches = missing.into_values().map(|deb| fetch(source, deb, silence));
    stream::iter(fetches)
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

fn describe(deb: &LockedDeb) -> String {
    format!("{} {}", deb.package, deb.version)
}

/// Asks one place after the other. Who keeps artifacts by their digest is asked only if no archive had other bytes.
async fn fetch(source: DebSource<'_>, deb: &LockedDeb, silence: &Silence) -> Result<(), DebError> {
    let what = describe(deb);
    let mut tried = match from_archives(source, deb, silence).await {
        Ok(()) => return Ok(()),
        Err(tried) => tried,
    };
    if tried.is_empty() {
        tried.push(DebError::NoMirror {
            deb: what.clone(),
            suite: deb.suite.clone(),
        });
    }
    let refused = tried.iter().any(|error| error.kind() == Kind::Refused);
    if let Some(fallback) = source
        .fallback
        .filter(|_| !refused && !source.http.is_offline())
    {
        let asked = Asked {
            what: &what,
            sha256: &deb.sha256,
            size: Some(deb.size),
        };
        match ask(fallback, asked, source.store, source.progress).await {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(error.into()),
        }
    }
    match tried.len() {
        1 => Err(tried.remove(0)),
        _ => Err(DebError::Nowhere { deb: what, tried }),
    }
}

async fn from_archives(
    source: DebSource<'_>,
    deb: &LockedDeb,
    silence: &Silence,
) -> Result<(), Vec<DebError>> {
    let mut tried = Vec::new();
    for archive in archives(source, &deb.suite) {
        let url = format!("{archive}/{}", deb.path);
        match download(source, deb, &url, silence).await {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(error),
        }
    }
    Err(tried)
}

fn failed(deb: &LockedDeb, url: &str, error: HttpError) -> DebError {
    match error.kind() {
        Kind::NotFound => DebError::Vanished {
            deb: describe(deb),
            url: redact(url),
        },
        _ => DebError::Http {
            deb: describe(deb),
            source: error,
        },
    }
}

/// One piece of progress; over when dropped.
struct Bar<'a>(&'a dyn Progress, u64);

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

async fn download(
    source: DebSource<'_>,
    deb: &LockedDeb,
    url: &str,
    silence: &Silence,
) -> Result<(), DebError> {
    silence
        .check(url)
        .map_err(|error| failed(deb, url, error))?;
    let progress = source.progress;
    let bar = Bar(
        progress,
        progress.begin(Stage::Fetch, &describe(deb), Some(deb.size)),
    );
    let response = source.http.get(url, login(url, source.ambient)).await;
    let mut response = response.map_err(|error| {
        silence.note(url, &error);
        failed(deb, url, error)
    })?;
    let mut pending = source.store.pending()?;
    let mut received = 0;
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| failed(deb, url, HttpError::from_reqwest(url, error)))?
    {
        received += chunk.len() as u64;
        pending.append(&chunk)?;
        progress.advance(bar.1, chunk.len() as u64);
        // What is longer than locked cannot have the locked hash.
        if received > deb.size {
            break;
        }
    }
    let target = source.store.artifact_path(&deb.sha256);
    let what = format!("{} from {}", describe(deb), redact(url));
    pending.commit_verified(&target, &deb.sha256, &what)?;
    Ok(())
}
