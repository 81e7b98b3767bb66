//! The key for a copy of a store that a machine keeps between its jobs.

use std::collections::BTreeSet;

use serde::Serialize;

use super::encoding::set;
use super::{CLEANING_VERSION, EMITTER_VERSION, SetPython, key};
use crate::digest::Digest;
use crate::lock::{Lock, LockedBase};
use crate::store::FORMAT;

/// Everything that decides what building a lock leaves in a store: the artifacts of all its images, and the versions of
/// the rules by which layers come from them. Names, order and what building teaches (diff IDs) are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheDocument {
    /// Document version, 1.
    pub v: u32,
    /// See [`EMITTER_VERSION`].
    pub emitter: u32,
    /// See [`CLEANING_VERSION`].
    pub cleaning: u32,
    /// Version of the store's tree.
    pub store: String,
    /// SHA-256 of all wheels.
    #[serde(serialize_with = "set")]
    pub wheels: BTreeSet<Digest>,
    /// SHA-256 of all debs.
    #[serde(serialize_with = "set")]
    pub debs: BTreeSet<Digest>,
    /// Manifests of `from` images.
    #[serde(serialize_with = "set")]
    pub bases: BTreeSet<Digest>,
    /// Seconds since 1970 to which times in OS layers are clamped.
    #[serde(serialize_with = "set")]
    pub epochs: BTreeSet<i64>,
    /// Interpreters.
    #[serde(serialize_with = "set")]
    pub pythons: BTreeSet<SetPython>,
}

impl CacheDocument {
    /// Of all images of a lock.
    pub fn new(lock: &Lock) -> Self {
        let mut document = Self {
            v: 1,
            emitter: EMITTER_VERSION,
            cleaning: CLEANING_VERSION,
            store: FORMAT.into(),
            wheels: lock.wheels.values().map(|wheel| wheel.sha256).collect(),
            debs: lock.debs.values().map(|deb| deb.sha256).collect(),
            bases: BTreeSet::new(),
            epochs: BTreeSet::new(),
            pythons: BTreeSet::new(),
        };
        for image in lock
            .images
            .values()
            .flat_map(|platforms| platforms.values())
        {
            document.pythons.insert(SetPython::from(&image.python));
            match &image.base {
                LockedBase::From { digest, .. } => document.bases.insert(*digest),
                LockedBase::Debian { epoch, .. } => document.epochs.insert(*epoch),
            };
        }
        document
    }

    /// The key.
    pub fn key(&self) -> Digest {
        key(self)
    }
}
