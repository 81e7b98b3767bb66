//! What a store holds: every thing with its size and its last use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::super::lease::used_marker;
use super::super::{Store, StoreError};
use super::{Item, Kind};

/// What is known of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Length of its files in bytes.
    pub bytes: u64,
    /// When a process last used it, or made it.
    pub used: SystemTime,
}

/// All things of a store.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// By kind and name.
    pub items: BTreeMap<Item, Found>,
}

impl Inventory {
    /// Looks at everything. What has no name that the store gives is not listed, and so never removed.
    ///
    /// # Errors
    /// When a folder of the store cannot be read.
    pub fn take(store: &Store) -> Result<Self, StoreError> {
        let mut items = BTreeMap::new();
        for kind in Kind::ALL {
            let folder = store.base().join(kind.folder());
            let entries = fs::read_dir(&folder).map_err(StoreError::io("read", &folder))?;
            for entry in entries.flatten() {
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let item = Item::new(kind, name);
                if let Some(found) = look(&item, &entry.path()) {
                    items.insert(item, found);
                }
            }
        }
        Ok(Self { items })
    }

    /// Bytes of all things.
    pub fn bytes(&self) -> u64 {
        self.items.values().map(|found| found.bytes).sum()
    }
}

/// Size and last use of what is at `path`, if it is a thing of the kind.
fn look(item: &Item, path: &Path) -> Option<Found> {
    let meta = fs::symlink_metadata(path).ok()?;
    let hashed = item.name.len() == 64 && item.name.bytes().all(|b| b.is_ascii_hexdigit());
    let fits = match item.kind {
        Kind::Recipe | Kind::Blob | Kind::Artifact => hashed && meta.is_file(),
        Kind::Tree => hashed && meta.is_dir(),
        Kind::Cache | Kind::Run => meta.is_dir(),
    };
    let bytes = match meta.is_dir() {
        true => bytes_below(path, &mut BTreeSet::new()),
        false => meta.len(),
    };
    fits.then(|| Found {
        bytes,
        used: last_use(item.kind, path, &meta),
    })
}

/// When the thing at `path` was last used; read again before it is removed.
pub(super) fn used(kind: Kind, path: &Path) -> io::Result<SystemTime> {
    Ok(last_use(kind, path, &fs::symlink_metadata(path)?))
}

fn last_use(kind: Kind, path: &Path, meta: &Metadata) -> SystemTime {
    let modified = |meta: &Metadata| time(meta.mtime(), meta.mtime_nsec());
    match kind {
        // The mtime of a tree is a time inside of the image; when it was put here is the time of its last change.
        Kind::Tree => fs::symlink_metadata(used_marker(path)).map_or_else(
            |_| time(meta.ctime(), meta.ctime_nsec()),
            |meta| modified(&meta),
        ),
        _ => modified(meta),
    }
}

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let since = Duration::new(
        u64::try_from(seconds).unwrap_or(0),
        u32::try_from(nanoseconds).unwrap_or(0),
    );
    SystemTime::UNIX_EPOCH + since
}

/// Length of all files below a folder, each counted once however many names it has.
fn bytes_below(folder: &Path, linked: &mut BTreeSet<(u64, u64)>) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else {
            continue;
        };
        if meta.is_dir() {
            sum += bytes_below(&entry.path(), linked);
        } else if meta.is_file() && (meta.nlink() == 1 || linked.insert((meta.dev(), meta.ino()))) {
            sum += meta.len();
        }
    }
    sum
}
