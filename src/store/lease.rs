//! What running processes use, so that a collection ([`super::gc`]) leaves it alone.
//!
//! Whoever asks the store for the path of a thing takes a lease of it: a line `folder/name` in the process's own file
//! below `leases/`, which is locked while the process lives. Taking one, and the last use that it stamps on the thing,
//! happen under a shared lock of `locks/gc`; a collector reads the leases of the living and moves things away under the
//! exclusive one. So a path that was asked for leads to a thing that stays, or to nothing: never to something that goes
//! while it is used. No clock takes part in this.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, utimensat};

use super::StoreError;
use super::gc::{Item, Kind};

/// The folder with a file of leases per process.
pub(super) const FOLDER: &str = "leases";
/// The name of the lock between users and collectors; the only one that is never removed.
pub(super) const GATE_NAME: &str = "gc";

/// The leases of this process.
#[derive(Debug)]
pub(super) struct Leases {
    base: PathBuf,
    /// The process's file.
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    gate: File,
    /// `None` if the disk was full.
    file: Option<File>,
    held: BTreeSet<(Kind, String)>,
    /// A lease could not be written: the gate stays shut for collectors as long as this process lives.
    shut: bool,
}

impl Leases {
    /// None yet. Removes those of the dead, unless others are busy with theirs.
    pub(super) fn open(base: &Path) -> Result<Self, StoreError> {
        let folder = base.join(FOLDER);
        let gate = gate(base)?;
        if flock(&gate, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // For the tidiness of it: the next one may be luckier.
            let _ = living(&folder);
        }
        // A file that nobody has locked is a dead process's: nobody may look until this one is locked.
        flock(&gate, FlockOperation::LockShared).map_err(|error| gate_error(base, error))?;
        let made = tempfile::Builder::new()
            .prefix("process-")
            .tempfile_in(&folder);
        let made = made.and_then(|file| Ok(file.keep()?));
        let (file, path) = match made.map_err(StoreError::io("create a file in", &folder)) {
            Ok((file, path)) => (Some(file), path),
            // Then a lease that is taken keeps the gate shut.
            Err(error) if error.is_full() => (None, folder.join("none")),
            Err(error) => return Err(error),
        };
        if let Some(file) = &file {
            flock(file, FlockOperation::LockExclusive)
                .map_err(|error| StoreError::io("lock", &path)(error.into()))?;
        }
        flock(&gate, FlockOperation::Unlock).map_err(|error| gate_error(base, error))?;
        let inner = Inner {
            gate,
            file,
            held: BTreeSet::new(),
            shut: false,
        };
        Ok(Self {
            base: base.into(),
            path,
            inner: Mutex::new(inner),
        })
    }

    /// What living processes other than this one use. To be read while the gate is closed.
    pub(super) fn of_others(&self) -> Result<BTreeSet<Item>, StoreError> {
        let mut found = BTreeSet::new();
        for path in living(&self.base.join(FOLDER))? {
            if path != self.path {
                let text = unless_gone(fs::read_to_string(&path), "read", &path)?;
                found.extend(text.unwrap_or_default().lines().filter_map(Item::parse));
            }
        }
        Ok(found)
    }

    /// Takes a lease, whether the thing is there or not, and stamps its last use.
    pub(super) fn take(&self, kind: Kind, name: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.held.insert((kind, name.to_owned())) {
            return;
        }
        let shared = flock(&inner.gate, FlockOperation::LockShared).is_ok();
        let line = format!("{}/{name}\n", kind.folder());
        let file = inner.file.as_mut();
        let written = file.is_some_and(|file| file.write_all(line.as_bytes()).is_ok());
        stamp(&self.base, kind, name);
        inner.shut |= !written;
        if shared && !inner.shut {
            // Of a lock that is held, and so not an error to speak of.
            let _ = flock(&inner.gate, FlockOperation::Unlock);
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
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
    flock(&gate, FlockOperation::LockExclusive).map_err(|error| gate_error(base, error))?;
    Ok(Closed { _gate: gate })
}

fn gate_error(base: &Path, error: rustix::io::Errno) -> StoreError {
    StoreError::io("lock", base.join("locks").join(GATE_NAME))(error.into())
}

/// The files of living processes; those of the dead are removed. To be called while the gate is closed.
fn living(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(folder).map_err(StoreError::io("read", folder))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(file) = unless_gone(File::open(&path), "read", &path)? else {
            continue;
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                unless_gone(fs::remove_file(&path), "remove", &path)?;
            }
            Err(_) => found.push(path),
        }
    }
    Ok(found)
}

/// `None` if there is no such file: its process has just ended.
fn unless_gone<T>(
    done: io::Result<T>,
    action: &'static str,
    path: &Path,
) -> Result<Option<T>, StoreError> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(StoreError::io(action, path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_the_living_count_and_those_of_the_dead_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        for folder in ["locks", "blobs", FOLDER] {
            fs::create_dir(base.join(folder)).unwrap();
        }
        let used = |leases: &Leases| {
            let _closed = close(base).unwrap();
            leases.of_others().unwrap()
        };
        let dead = base.join(FOLDER).join("process-dead");
        fs::write(&dead, "blobs/dead\n").unwrap();
        let own = Leases::open(base).unwrap();
        assert!(!dead.exists());
        own.take(Kind::Blob, "own");
        let other = Leases::open(base).unwrap();
        assert!(used(&own).is_empty());
        other.take(Kind::Blob, "other");
        assert_eq!(used(&own), [Item::new(Kind::Blob, "other")].into());
        assert_eq!(used(&other), [Item::new(Kind::Blob, "own")].into());
        fs::write(&dead, "blobs/dead\n").unwrap();
        drop(other);
        assert!(used(&own).is_empty() && !dead.exists());
        assert_eq!(fs::read_dir(base.join(FOLDER)).unwrap().count(), 1);
    }
}
