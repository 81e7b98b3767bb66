//! One temporary folder per process, held by a lock; the next process removes the folders of the dead.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// A process's temporary folder.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    lock: File,
    next: AtomicU64,
}

impl Scratch {
    /// Makes a folder below `parent` and sweeps those whose owner is dead.
    pub(super) fn open(parent: &Path) -> Result<Self, StoreError> {
        // The parent's lock keeps a sweeper from taking a folder whose owner is about to lock it.
        let gate = File::open(parent).map_err(StoreError::io("open", parent))?;
        flock(&gate, FlockOperation::LockExclusive)
            .map_err(|error| StoreError::io("lock", parent)(error.into()))?;
        sweep(parent);
        let made = tempfile::Builder::new()
            .prefix("session-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(StoreError::io("create a folder in", parent))?;
        let path = made.keep();
        let lock = File::open(&path).map_err(StoreError::io("open", &path))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| StoreError::io("lock", &path)(error.into()))?;
        Ok(Self {
            path,
            lock,
            next: AtomicU64::new(0),
        })
    }

    /// One whose folder could not be made, for who writes nothing into it.
    pub(super) fn missing(parent: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            path: parent.join("session-"),
            lock: File::open(parent).map_err(StoreError::io("open", parent))?,
            next: AtomicU64::new(0),
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the folder that is not in use.
    pub fn new_path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.path.join(number.to_string())
    }

    /// A new empty folder, mode 0700.
    pub fn new_folder(&self) -> Result<PathBuf, StoreError> {
        let path = self.new_path();
        fs::create_dir(&path).map_err(StoreError::io("create the folder", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .map_err(StoreError::io("set the mode of", &path))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
        let _ = flock(&self.lock, FlockOperation::Unlock);
        // A container whose caller was killed may have been ending, and writing, while the first sweep went on.
        let gate = self.path.parent().and_then(|parent| {
            let gate = File::open(parent).ok()?;
            flock(&gate, FlockOperation::NonBlockingLockExclusive).ok()?;
            Some((parent, gate))
        });
        if let Some((parent, _gate)) = gate {
            sweep(parent);
        }
    }
}

fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let dead = File::open(&path)
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if dead {
            let _ = remove_tree(&path);
        }
    }
}

/// Removes a folder and everything in it, also where folders lack the owner's write permission. Never follows links.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            open_folders(path);
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_folders(path: &Path) {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    if !is_folder {
        return;
    }
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        open_folders(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_the_dead_and_leaves_the_living() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join("session-dead");
        fs::create_dir_all(dead.join("locked")).unwrap();
        fs::set_permissions(dead.join("locked"), fs::Permissions::from_mode(0o500)).unwrap();
        let living = Scratch::open(parent.path()).unwrap();
        let other = Scratch::open(parent.path()).unwrap();
        assert!(!dead.exists());
        assert!(living.path().exists() && other.path().exists());
        let path = other.path().to_owned();
        let late = parent.path().join("session-late");
        fs::create_dir(&late).unwrap();
        drop(other);
        assert!(!path.exists() && !late.exists());
        assert!(living.path().exists());
    }
}
