//! What can go wrong with the store, and what to say when a disk is full.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use super::FORMAT;
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;

/// With fewer bytes than this SQLite cannot open a database: it is the size of the file of its shared memory.
const NO_BYTES: u64 = 32 << 10;

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// For example `write`.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The store's disk takes no changes.
    #[error("the store {} is read-only", path.display())]
    ReadOnly {
        /// The store.
        path: PathBuf,
    },
    /// The store was written by a newer program.
    #[error("the store {} has format {found}, this imagewright knows format {FORMAT}", path.display())]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Bytes do not have the digest they must have.
    #[error("{what} has {found}, expected {expected} ({size} bytes received)")]
    WrongDigest {
        /// For example the package.
        what: String,
        /// As the lock says.
        expected: Digest,
        /// As it came.
        found: Digest,
        /// Bytes received.
        size: u64,
    },
    /// The state database failed.
    #[error("the state database {} cannot be used", path.display())]
    State {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// Wraps an I/O error with what was done to which path.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// True when the disk is full or a quota is used up.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { path, source, .. } => no_room(path, source).is_some(),
            Self::State { path, source } => no_room(path, source).is_some(),
            Self::ReadOnly { .. } | Self::NewerFormat { .. } | Self::WrongDigest { .. } => false,
        }
    }

    /// The same for who opens the store `base`: which part of it showed that it is read-only does not matter.
    pub(super) fn of_opening(self, base: &Path) -> Self {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path: base.into() }
            }
            other => other,
        }
    }

    fn is_damaged(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(self, Self::State { source, .. }
            if matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)))
    }
}

impl Explain for StoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::NewerFormat { .. } | Self::WrongDigest { .. } => Kind::Refused,
            Self::Io { .. } | Self::ReadOnly { .. } | Self::State { .. } => Kind::Unavailable,
        }
    }
    fn hint(&self) -> Option<String> {
        let no_room = match self {
            Self::Io { path, source, .. } => no_room(path, source),
            Self::State { path, source } => no_room(path, source),
            _ => None,
        };
        match self {
            _ if no_room.is_some() => no_room,
            Self::ReadOnly { .. } => {
                Some("set IMAGEWRIGHT_STORE to a folder that this user can write".into())
            }
            Self::Io { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied
                        | io::ErrorKind::ReadOnlyFilesystem
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::AlreadyExists
                ) =>
            {
                Some("set IMAGEWRIGHT_STORE to a folder that this user can write".into())
            }
            Self::State { .. } if self.is_damaged() => Some(
                "move this file away: images are found again by building them from what the store has; only the records \
                 of jobs are lost"
                    .into(),
            ),
            Self::NewerFormat { .. } => Some(
                "use the newer imagewright, or set IMAGEWRIGHT_STORE to another folder".into(),
            ),
            Self::WrongDigest { .. } => Some(
                "the server sends other bytes than were locked: if that is meant, run `imagewright lock --upgrade`; otherwise do not trust it".into(),
            ),
            _ => None,
        }
    }
}

/// What to do if `error`, which came from the file `path`, or one of its causes says that the disk is full; `None` if
/// nothing does.
pub fn no_room(path: &Path, error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    let mut full = false;
    while let Some(cause) = next {
        let file = cause.downcast_ref::<io::Error>();
        let database = cause.downcast_ref::<rusqlite::Error>();
        full |=
            file.is_some_and(is_full) || database.is_some_and(|error| is_full_below(path, error));
        next = cause.source();
    }
    full.then(|| {
        format!(
            "the disk at {} is full: free some space there (`imagewright gc` removes what nothing needs from the store), or \
             set IMAGEWRIGHT_STORE to a folder on a larger disk; what is in the store is intact",
            disk_of(path).display()
        )
    })
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// SQLite says only of some writes that the disk was full: of the others, the disk has to say it.
fn is_full_below(path: &Path, error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    let disk = || statvfs(path.parent().unwrap_or(path)).ok();
    match error.sqlite_error_code() {
        Some(DiskFull) => true,
        Some(CannotOpen | SystemIoFailure) => disk().is_some_and(|disk| {
            let files = disk.f_files > 0 && disk.f_favail == 0;
            files || disk.f_bavail.saturating_mul(disk.f_frsize) < NO_BYTES
        }),
        _ => false,
    }
}

/// Where the disk is mounted that holds `path`, or what there is of its folders.
fn disk_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
    let mut found = path.ancestors().skip_while(|path| device(path).is_none());
    let lowest = found.next().unwrap_or(&path);
    let same = found.take_while(|folder| device(folder) == device(lowest));
    same.last().unwrap_or(lowest).into()
}
