//! Collection: which things of the store go, and how they go.
//!
//! Knows no images and no locks: the caller says what is rooted and which thing needs which ([`Roots`]). [`Inventory`]
//! is what is there, [`plan`] decides, [`sweep`] removes. A thing is renamed into the collector's own temporary folder
//! while no process can take a lease (see `lease`), then removed: a kill at any moment leaves things whole or gone, and
//! the next process removes the folder. What a living process uses, and what was used since the inventory was taken,
//! stays. Links are never followed.

mod inventory;
mod plan;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use inventory::{Found, Inventory};
pub use plan::{Plan, Policy, plan};
pub use sweep::{Row, leased, remove_rows, sweep};

use super::Store;

/// Kinds of things that a store keeps, in the order in which they are removed: what needs others before these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Recipes of layers.
    Recipe,
    /// Unpacked layers.
    Tree,
    /// Blobs.
    Blob,
    /// Wheels, debs, downloads.
    Artifact,
    /// What other libraries cache.
    Cache,
    /// Logs and results of a job.
    Run,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Recipe,
        Self::Tree,
        Self::Blob,
        Self::Artifact,
        Self::Cache,
        Self::Run,
    ];

    /// The folder of the store that holds them.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Recipe => "recipes",
            Self::Tree => "trees",
            Self::Blob => "blobs",
            Self::Artifact => "artifacts",
            Self::Cache => "cache",
            Self::Run => "runs",
        }
    }
}

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its name in the folder of its kind.
    pub name: String,
}

impl Item {
    /// A thing of this kind and name.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { kind, name }
    }

    /// Reads `folder/name`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (folder, name) = line.split_once('/')?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.folder() == folder)?;
        Some(Self::new(kind, name))
    }

    /// Where it is, without a lease of it: for looking, not for using.
    pub fn path(&self, store: &Store) -> PathBuf {
        store.base().join(self.kind.folder()).join(&self.name)
    }
}

/// What has to stay.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Things that are rooted themselves.
    pub held: BTreeSet<Item>,
    /// Thing → what it is of no use without.
    pub needs: BTreeMap<Item, Vec<Item>>,
    /// Not all roots could be read: whatever is not made again from other things of the store may be rooted.
    pub unknown: bool,
}

impl Roots {
    /// `things` and all that they need.
    pub fn closure(&self, things: impl IntoIterator<Item = Item>) -> BTreeSet<Item> {
        let mut open: Vec<Item> = things.into_iter().collect();
        let mut found = BTreeSet::new();
        while let Some(item) = open.pop() {
            open.extend(self.needs.get(&item).into_iter().flatten().cloned());
            found.insert(item);
        }
        found
    }
}
