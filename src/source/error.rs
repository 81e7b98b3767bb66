//! Why an artifact could not be brought into the store.

use std::path::PathBuf;

use super::mirror::{MirrorError, decisive};
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::http::HttpError;
use crate::store::StoreError;

/// Why an artifact could not be brought into the store. URLs in it carry no credentials and no query.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The server does not answer, or answers with an error.
    #[error("cannot fetch {what}: {source}")]
    Http {
        /// Package and file.
        what: String,
        /// What happened.
        source: HttpError,
    },
    /// The store lacks it and the network is switched off.
    #[error("{what} is not in the store, and the network is switched off (--offline)")]
    Offline {
        /// Package and file.
        what: String,
    },
    /// The index no longer lists the file, or its server no longer has it.
    #[error("{what} is no longer offered by {from}")]
    Dropped {
        /// Package and file.
        what: String,
        /// The index or URL, redacted.
        from: String,
    },
    /// Other bytes than were locked.
    #[error("{what} from {url} has {found}, the lock says {expected} ({size} bytes received)")]
    WrongHash {
        /// Package and file.
        what: String,
        /// Redacted.
        url: String,
        /// As locked.
        expected: Digest,
        /// As received.
        found: Digest,
        /// Bytes received.
        size: u64,
    },
    /// The download broke off, again and again.
    #[error("{what} from {url} broke off after {received} bytes: {reason}")]
    BrokenOff {
        /// Package and file.
        what: String,
        /// Redacted.
        url: String,
        /// The most bytes that one try received.
        received: u64,
        /// The last attempt's end.
        reason: String,
    },
    /// More bytes than were locked.
    #[error("{what} from {url} is longer than the {expected} bytes that the lock says")]
    TooLong {
        /// Package and file.
        what: String,
        /// Redacted.
        url: String,
        /// As locked.
        expected: u64,
    },
    /// An index page that cannot be understood.
    #[error("the index page {url} cannot be read: {reason}")]
    Unreadable {
        /// Redacted.
        url: String,
        /// Why.
        reason: String,
    },
    /// A file of the project cannot be read.
    #[error("cannot read {what}: {}", path.display())]
    Project {
        /// Package and file.
        what: String,
        /// The path.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file of the project is another one than was locked.
    #[error("{what} has changed since it was locked: it has {found}, the lock says {expected}")]
    Changed {
        /// Package and file.
        what: String,
        /// As locked.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
    /// Neither the index nor the mirror gives it.
    #[error("{error}; {mirror}")]
    Nowhere {
        /// What came of asking where it was locked from.
        error: Box<SourceError>,
        /// What came of asking the mirror.
        mirror: MirrorError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SourceError {
    /// An index that does not tell the files of a project.
    pub(super) fn list_of(project: &str, source: HttpError) -> Self {
        Self::Http {
            what: format!("the list of files of {project}"),
            source,
        }
    }

    /// Whether the file was not given, rather than a wrong one: then it may be had elsewhere.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Http { source, .. } => !matches!(source, HttpError::Offline { .. }),
            Self::Dropped { .. } | Self::BrokenOff { .. } | Self::Unreadable { .. } => true,
            _ => false,
        }
    }
}

impl Explain for SourceError {
    fn kind(&self) -> Kind {
        match self {
            Self::Http { source, .. } => source.kind(),
            Self::Offline { .. } | Self::BrokenOff { .. } | Self::Unreadable { .. } => {
                Kind::Unavailable
            }
            Self::Dropped { .. } | Self::Project { .. } => Kind::NotFound,
            Self::WrongHash { .. } | Self::TooLong { .. } => Kind::Refused,
            Self::Changed { .. } => Kind::LockOutOfDate,
            Self::Nowhere { error, mirror } => {
                decisive([&**error as &dyn Explain, mirror]).map_or(Kind::NotFound, Explain::kind)
            }
            Self::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Http { source, .. } => return source.hint(),
            Self::Store(error) => return error.hint(),
            Self::Offline { .. } => {
                "run once without --offline: what is fetched stays in the store".into()
            }
            Self::Dropped { .. } => {
                "run `imagewright lock --upgrade` for this package to take a file that is offered, or use an index or mirror that still has this one; who still has it in the store can keep it in the registry with `imagewright push --with-sources`".into()
            }
            Self::WrongHash { .. } | Self::TooLong { .. } => {
                "the server sends other bytes than were locked: if that is meant, run `imagewright lock --upgrade` for this package; otherwise do not trust it".into()
            }
            Self::BrokenOff { .. } => "try again: the server or a proxy on the way ends downloads early".into(),
            Self::Unreadable { .. } => {
                "check that the URL is the index's simple API, such as `https://host/simple`".into()
            }
            Self::Project { .. } => "build the wheel again, or correct its path in the manifest".into(),
            Self::Changed { .. } => "run `imagewright lock` to lock the file as it is now".into(),
            Self::Nowhere { error, mirror } => {
                return decisive([&**error as &dyn Explain, mirror]).and_then(Explain::hint);
            }
        })
    }
}
