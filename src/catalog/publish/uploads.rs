//! What one process has seen to: which repositories have which blobs and manifests by now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::digest::Digest;
use crate::registry::Reference;

/// What this process has sent or found, and in a dry run what it would have sent: no two tasks send the same blob, and
/// what is known is not asked for again.
#[derive(Debug, Default)]
pub struct Uploads {
    blobs: Mutex<BTreeMap<(Reference, Digest), Turn>>,
    manifests: Mutex<BTreeMap<Reference, Digest>>,
    listed: Mutex<BTreeSet<(Reference, Digest)>>,
    told: Mutex<BTreeSet<String>>,
}

/// Held by the task that sees to a blob; true: the repository has it by now.
type Turn = Arc<tokio::sync::Mutex<bool>>;

impl Uploads {
    /// Waits for its turn; true: the repository has the blob by now.
    pub(super) async fn enter(
        &self,
        repository: &Reference,
        blob: &Digest,
    ) -> OwnedMutexGuard<bool> {
        let key = (plain(repository), *blob);
        let turn = {
            let mut all = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(key).or_default())
        };
        turn.lock_owned().await
    }

    /// Repositories that have the blob by now, as far as this process saw to it. Waits for nobody.
    pub(super) fn holders(&self, blob: &Digest) -> Vec<Reference> {
        let all = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = all.iter().filter(|((_, digest), seen)| {
            digest == blob && seen.try_lock().is_ok_and(|seen| *seen)
        });
        holders.map(|((place, _), _)| place.clone()).collect()
    }

    /// What the reference's tag or digest names, as far as this process saw to it.
    pub(super) fn manifest(&self, reference: &Reference) -> Option<Digest> {
        let all = self
            .manifests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.get(reference).copied()
    }

    /// Whether a repository lists this manifest as a referrer, as far as this process saw to it.
    pub(super) fn lists(&self, repository: &Reference, referrer: &Digest) -> bool {
        let all = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        all.contains(&(plain(repository), *referrer))
    }

    /// It does by now.
    pub(super) fn listed(&self, repository: &Reference, referrer: Digest) {
        let mut all = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((plain(repository), referrer));
    }

    /// Whether this is told for the first time.
    pub(super) fn is_news(&self, message: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(message.to_owned())
    }

    /// The reference names this manifest by now, and so does its digest alone.
    pub(super) fn put(&self, reference: &Reference, manifest: Digest) {
        let mut all = self
            .manifests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let pinned = Reference {
            digest: Some(manifest),
            ..plain(reference)
        };
        all.insert(pinned, manifest);
        if reference.tag.is_some() {
            all.insert(reference.clone(), manifest);
        }
    }
}

/// The repository alone.
fn plain(reference: &Reference) -> Reference {
    Reference {
        tag: None,
        digest: None,
        ..reference.clone()
    }
}
