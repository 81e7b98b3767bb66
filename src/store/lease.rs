//! What running processes use, so that a collection ([`super::gc`]) leaves it alone.
//!
//! Whoever asks the store for the path of a thing takes a lease of it: a line `folder/name` in `leases` in the process's
//! own folder below `tmp/`, which is locked while the process lives. Taking one, and the last use that it stamps on the
//! thing, happen under a shared lock of `locks/gc`; a collector reads the leases of the living and moves things away
//! under the exclusive one. So a path that was asked for leads to a thing that stays, or to nothing: never to
//! something that goes while it is used. No clock takes part in this.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, utimensat};

use super::StoreError;
use super::gc::{Item, Kind};

/// The file with a session's leases.
const FILE: &str = "leases";
/// The name of the lock between users and collectors; the only one that is never removed.
pub(super) const GATE_NAME: &str = "gc";

/// The leases of this process.
#[derive(Debug)]
pub(super) struct Leases {
    base: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    gate: File,
    file: File,
    held: BTreeSet<(Kind, String)>,
    /// A lease could not be written: the gate stays shut for collectors as long as this process lives.
    shut: bool,
}

impl Leases {
    /// Of the process that owns `session`.
    pub(super) fn open(base: &Path, session: &Path) -> Result<Self, StoreError> {
        let path = session.join(FILE);
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let inner = Inner {
            gate: gate(base)?,
            file: file.map_err(StoreError::io("create", path))?,
            held: BTreeSet::new(),
            shut: false,
        };
        Ok(Self {
            base: base.into(),
            inner: Mutex::new(inner),
        })
    }

    /// Takes a lease, whether the thing is there or not, and stamps its last use.
    pub(super) fn take(&self, kind: Kind, name: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.held.insert((kind, name.to_owned())) {
            return;
        }
        let shared = flock(&inner.gate, FlockOperation::LockShared).is_ok();
        let line = format!("{}/{name}\n", kind.folder());
        let written = inner.file.write_all(line.as_bytes()).is_ok();
        stamp(&self.base, kind, name);
        inner.shut |= !written;
        if shared && !inner.shut {
            // Of a lock that is held, and so not an error to speak of.
            let _ = flock(&inner.gate, FlockOperation::Unlock);
        }
    }
}

/// Last use is now. A thing of another user's cannot be stamped, and then counts as old as it is.
fn stamp(base: &Path, kind: Kind, name: &str) {
    const NOW: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let path = base.join(kind.folder()).join(name);
    let path = match kind {
        // The time of a tree's own folder is part of what it holds.
        Kind::Tree => {
            let marker = used_marker(&path);
            if path.is_dir() && !marker.exists() {
                let _ = File::create(&marker);
            }
            marker
        }
        _ => path,
    };
    let times = Timestamps {
        last_access: NOW,
        last_modification: NOW,
    };
    let _ = utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
}

/// The file whose mtime is a tree's last use.
pub(super) fn used_marker(tree: &Path) -> PathBuf {
    let mut name = tree.as_os_str().to_owned();
    name.push(".used");
    name.into()
}

fn gate(base: &Path) -> Result<File, StoreError> {
    let path = base.join("locks").join(GATE_NAME);
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("open", path))
}

/// While it lives, nobody takes a lease.
#[derive(Debug)]
pub(super) struct Closed {
    _gate: File,
}

/// Waits until nobody is about to take a lease, and lets nobody.
pub(super) fn close(base: &Path) -> Result<Closed, StoreError> {
    let gate = gate(base)?;
    flock(&gate, FlockOperation::LockExclusive).map_err(|error| {
        StoreError::io("lock", base.join("locks").join(GATE_NAME))(error.into())
    })?;
    Ok(Closed { _gate: gate })
}

/// What living processes use; that of the process which owns `own` is left out. To be read while the gate is closed.
pub(super) fn of_others(base: &Path, own: &Path) -> Result<BTreeSet<Item>, StoreError> {
    let parent = base.join("tmp");
    let entries = fs::read_dir(&parent).map_err(StoreError::io("read", &parent))?;
    let mut found = BTreeSet::new();
    for entry in entries.flatten() {
        let session = entry.path();
        if session == own || is_dead(&session) {
            continue;
        }
        let path = session.join(FILE);
        let text = match fs::read_to_string(&path) {
            // A session without leases has not used anything yet, or is over.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(StoreError::io("read", path))?,
        };
        found.extend(text.lines().filter_map(Item::parse));
    }
    Ok(found)
}

fn is_dead(session: &Path) -> bool {
    File::open(session)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}
