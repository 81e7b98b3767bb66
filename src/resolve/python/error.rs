//! What can go wrong while Python requirements are resolved.

use crate::diagnostic::{Explain, Kind, Problem, Problems};

/// Why Python requirements could not be resolved. URLs in it carry no credentials.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// Lines of the manifest that cannot be used as they stand.
    #[error(transparent)]
    Invalid(Problems),
    /// The requirements cannot be met; every problem labels the lines that take part.
    #[error("{problems}")]
    NoSolution {
        /// One per text file that has a part in it; the first has the reason.
        problems: Problems,
    },
    /// An index did not answer, or answered with an error that is worth a retry.
    #[error("the Python index cannot be reached: {url}: {reason}")]
    Unreachable {
        /// Redacted.
        url: String,
        /// Without URL.
        reason: String,
    },
    /// An index wants a login, or another one.
    #[error("the Python index {index} refuses access ({status})")]
    Unauthorised {
        /// Redacted.
        index: String,
        /// For example `401 Unauthorized`.
        status: String,
    },
    /// The network is switched off and the cache lacks something.
    #[error("{what} is not in the cache, and the network is switched off (--offline)")]
    Offline {
        /// For example `package numpy`.
        what: String,
    },
    /// An index or wheel answered something that cannot be understood.
    #[error("{what} cannot be read: {reason}")]
    Unreadable {
        /// For example a wheel's URL.
        what: String,
        /// Why.
        reason: String,
    },
    /// The cache folder cannot be used.
    #[error("the resolver's cache cannot be used: {reason}")]
    Cache {
        /// Why.
        reason: String,
    },
    /// The HTTP client could not be set up, or a file could not be downloaded for hashing.
    #[error(transparent)]
    Http(#[from] crate::http::HttpError),
    /// The resolver broke one of its own rules.
    #[error("the resolver failed unexpectedly: {reason}")]
    Internal {
        /// What it said.
        reason: String,
    },
}

impl Explain for PythonError {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Usage,
            Self::NoSolution { .. } => Kind::NoResolution,
            Self::Unauthorised { .. } => Kind::Unauthorised,
            Self::Unreachable { .. }
            | Self::Offline { .. }
            | Self::Unreadable { .. }
            | Self::Cache { .. } => Kind::Unavailable,
            Self::Http(error) => error.kind(),
            Self::Internal { .. } => Kind::Bug,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Invalid(_) | Self::NoSolution { .. } | Self::Internal { .. } => return None,
            Self::Unreachable { .. } => {
                "check the network, proxy and certificate settings, then try again".into()
            }
            Self::Unauthorised { .. } => {
                "put a login for this host into ~/.netrc, or into IMAGEWRIGHT_INDEX_<NAME>_USERNAME and _PASSWORD".into()
            }
            Self::Offline { .. } => {
                "run `imagewright lock` once without --offline: what it asks for stays in the store".into()
            }
            Self::Unreadable { .. } => {
                "if the index or file is broken only for now, try again; else pin another version".into()
            }
            Self::Cache { .. } => {
                "check space and permissions of the store, or set IMAGEWRIGHT_STORE to another folder".into()
            }
            Self::Http(error) => return error.hint(),
        })
    }

    fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) | Self::NoSolution { problems } => &problems.0,
            _ => &[],
        }
    }
}
