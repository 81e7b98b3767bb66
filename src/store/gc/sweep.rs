//! How things go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::super::lease::{self, used_marker};
use super::super::{Store, StoreError, remove_tree};
use super::inventory::used;
use super::{Found, Item, Kind, Plan, Roots};

/// Things moved away while the gate is closed; then users get their turn.
const AT_ONCE: usize = 128;

/// End of the name of what could not be moved out of its folder and is being removed there.
const GOING: &str = ".going";

/// What living processes other than this one use.
///
/// # Errors
/// When their leases cannot be read.
pub fn leased(store: &Store) -> Result<BTreeSet<Item>, StoreError> {
    let _closed = lease::close(store.base())?;
    store.leases.of_others()
}

/// Removes what the plan names, but for what was used since the inventory was taken. Returns what went.
///
/// # Errors
/// The first thing that cannot be removed; what was removed before stays removed.
pub fn sweep(
    store: &Store,
    roots: &Roots,
    plan: &Plan,
) -> Result<BTreeMap<Item, Found>, StoreError> {
    let mut removed = BTreeMap::new();
    let mut spared = BTreeSet::new();
    let items: Vec<(&Item, &Found)> = plan.items.iter().collect();
    for batch in items.chunks(AT_ONCE) {
        let mut moved = Vec::new();
        {
            let _closed = lease::close(store.base())?;
            let leases = store.leases.of_others()?;
            spared.extend(roots.closure(leases));
            for (item, found) in batch {
                let path = item.path(store);
                // Gone already: another collector was quicker.
                let Ok(now) = used(item.kind, &path) else {
                    continue;
                };
                if now != found.used || spared.contains(*item) {
                    spared.extend(roots.closure([(*item).clone()]));
                    continue;
                }
                moved.extend(move_away(store, &path)?);
                removed.insert((*item).clone(), **found);
            }
        }
        for path in moved {
            remove_tree_or_file(&path)?;
        }
    }
    tidy(store)?;
    Ok(removed)
}

/// Takes a thing away from under its name; returns where it is now, if it still is anywhere.
fn move_away(store: &Store, path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let target = store.scratch().new_path();
    let Err(error) = fs::rename(path, &target) else {
        return Ok(Some(target));
    };
    match error.kind() {
        // On a full disk there may be no folder to move to, nor room in it.
        io::ErrorKind::NotFound | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()) =>
        {
            fs::remove_file(path).map_err(StoreError::io("remove", path))?;
            Ok(None)
        }
        // A folder without write permission changes its parent for nobody but root, and other disks take no renames.
        io::ErrorKind::NotFound
        | io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::CrossesDevices => {
            let mut beside = path.as_os_str().to_owned();
            beside.push(GOING);
            let beside = PathBuf::from(beside);
            remove_tree_or_file(&beside)?;
            fs::rename(path, &beside).map_err(StoreError::io("remove", path))?;
            Ok(Some(beside))
        }
        _ => Err(StoreError::io("remove", path)(error)),
    }
}

fn remove_tree_or_file(path: &Path) -> Result<(), StoreError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(StoreError::io("remove", path))
}

/// Removes what only goes with something that is gone: what a killed collector left, marks of wheels and trees, locks.
fn tidy(store: &Store) -> Result<(), StoreError> {
    let base = store.base();
    for kind in Kind::ALL {
        for path in entries(&base.join(kind.folder()))? {
            if path.to_string_lossy().ends_with(GOING) {
                remove_tree_or_file(&path)?;
            }
        }
    }
    let _closed = lease::close(base)?;
    for path in entries(&base.join("checked"))? {
        let name = path.file_name().unwrap_or_default();
        if !base.join(Kind::Artifact.folder()).join(name).exists() {
            remove_tree_or_file(&path)?;
        }
    }
    for path in entries(&base.join(Kind::Tree.folder()))? {
        let tree = path.with_extension("");
        if path == used_marker(&tree) && !tree.exists() {
            remove_tree_or_file(&path)?;
        }
    }
    for path in entries(&base.join("locks"))? {
        unlink_lock(&path);
    }
    Ok(())
}

/// Removes an advisory lock that nobody holds; who waits for it finds out, see [`Store::lock`].
fn unlink_lock(path: &Path) {
    if path
        .file_name()
        .is_some_and(|name| name == lease::GATE_NAME)
    {
        return;
    }
    let Ok(file) = File::open(path) else {
        return;
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = fs::remove_file(path);
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(folder).map_err(StoreError::io("read", folder))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// A row of the state database that is of no use without certain things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// An image that was built here.
    Image {
        /// Declared name.
        name: String,
        /// For example `linux/amd64`.
        platform: String,
        /// The image key, as text.
        key: String,
    },
    /// A layer that exists as a blob, by its key.
    Layer(String),
    /// What was found in a base image, by the digest of its manifest.
    Base(String),
}

/// Removes those rows which need things that are neither there nor about to be made by a living process; returns how
/// many went.
///
/// # Errors
/// Those of the state database.
pub fn remove_rows(store: &Store, rows: &[(Row, Vec<Item>)]) -> Result<usize, StoreError> {
    let _closed = lease::close(store.base())?;
    let leases = store.leases.of_others()?;
    let there = |item: &Item| leases.contains(item) || item.path(store).exists();
    let useless: Vec<&Row> = rows
        .iter()
        .filter(|(_, needs)| !needs.iter().all(there))
        .map(|(row, _)| row)
        .collect();
    if useless.is_empty() {
        return Ok(0);
    }
    let state = store.state()?;
    for row in &useless {
        state.remove_row(row)?;
    }
    Ok(useless.len())
}
