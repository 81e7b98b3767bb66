//! A place that keeps artifacts by their SHA-256, asked when the place that they came from does not give one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::http::HttpError;
use crate::oci::{ArtifactMirror, ReadError};
use crate::progress::Progress;
use crate::store::Store;

/// Why a mirror did not give an artifact.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// It never had it, or no longer has it.
    #[error("{mirror} does not keep {what}")]
    Absent {
        /// Its name.
        mirror: String,
        /// The artifact.
        what: String,
    },
    /// It does not answer, refuses, or has other bytes.
    #[error("{mirror} does not give {what}: {reason}")]
    Failed {
        /// Its name.
        mirror: String,
        /// The artifact.
        what: String,
        /// What happened.
        reason: ReadError,
    },
}

impl Explain for MirrorError {
    fn kind(&self) -> Kind {
        match self {
            Self::Absent { .. } => Kind::NotFound,
            Self::Failed { reason, .. } => reason.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Absent { .. } => None,
            Self::Failed { reason, .. } => reason.hint(),
        }
    }
}

/// An artifact that a mirror is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// For messages.
    pub(super) what: &'a str,
    pub(super) sha256: &'a Digest,
    pub(super) size: Option<u64>,
}

/// Brings an artifact from `mirror` into the store.
pub(super) async fn ask(
    mirror: &dyn ArtifactMirror,
    asked: Asked<'_>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(), MirrorError> {
    let Asked { what, sha256, size } = asked;
    let (name, what) = (mirror.name(), what.to_owned());
    match mirror.fetch(sha256, size, store, progress).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(MirrorError::Absent { mirror: name, what }),
        Err(reason) => Err(MirrorError::Failed {
            mirror: name,
            what,
            reason,
        }),
    }
}

/// The error that tells most: refused bytes, then whatever is no absence, then absence; of equals the first.
pub(super) fn decisive<'e>(
    errors: impl IntoIterator<Item = &'e dyn Explain>,
) -> Option<&'e dyn Explain> {
    let rank = |error: &&dyn Explain| match error.kind() {
        Kind::Refused => 0,
        Kind::NotFound => 2,
        _ => 1,
    };
    errors.into_iter().min_by_key(rank)
}

/// Servers that gave no answer, so that many files do not each wait for one of them in vain.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<BTreeMap<String, String>>);

impl Silence {
    /// Whether `url`'s server may be asked.
    ///
    /// # Errors
    /// Why it gave no answer before.
    pub(super) fn check(&self, url: &str) -> Result<(), HttpError> {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match silent.get(&origin(url)) {
            None => Ok(()),
            Some(reason) => Err(HttpError::Unreachable {
                url: crate::ambient::redact(url),
                reason: reason.clone(),
            }),
        }
    }

    /// Remembers that `url`'s server gave no answer, if that is what happened.
    pub(super) fn note(&self, url: &str, error: &HttpError) {
        if let HttpError::Unreachable { reason, .. } = error {
            let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            silent.insert(origin(url), reason.clone());
        }
    }
}

fn origin(url: &str) -> String {
    let parsed = url::Url::parse(url);
    parsed.map_or_else(|_| url.to_owned(), |url| url.origin().ascii_serialization())
}
