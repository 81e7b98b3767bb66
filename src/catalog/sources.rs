//! Wheels and debs that a registry keeps for the day when an index or archive has dropped them.
//!
//! They lie in the cache repository as blobs, found by their SHA-256 alone. An artifact manifest under
//! `sources-<image key>` names those of an image, so that retention keeps them.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{Catalog, CatalogError};
use crate::digest::Digest;
use crate::oci::{ArtifactMirror, Descriptor, ReadError};
use crate::progress::Progress;
use crate::registry::RegistryError;
use crate::store::Store;

/// The largest file that is fetched when its length is not known, in bytes.
const LARGEST: u64 = 64 << 30;

impl ArtifactMirror for Catalog {
    fn name(&self) -> String {
        self.place.cache().to_string()
    }

    fn fetch<'a>(
        &'a self,
        sha256: &'a Digest,
        size: Option<u64>,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<bool, ReadError>> {
        let found = self.fetch_source(sha256, size, store, progress);
        found.map(|found| found.map_err(ReadError::new)).boxed()
    }
}

impl Catalog {
    /// Brings the file with this SHA-256, whose length in bytes is `size` if that is known, into the store's artifacts,
    /// verified; false if the registry does not keep it.
    ///
    /// # Errors
    /// Those of the registry; other bytes than promised.
    async fn fetch_source(
        &self,
        sha256: &Digest,
        size: Option<u64>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<bool, CatalogError> {
        let cache = self.place.cache();
        let Some(found) = self.registry.blob_size(&cache, sha256).await? else {
            return Ok(false);
        };
        let limit = size.unwrap_or(LARGEST);
        if found > limit {
            let what = format!("{sha256} in {cache}");
            return Err(RegistryError::TooLarge { what, limit }.into());
        }
        let blob = Descriptor::new("", *sha256, size.unwrap_or(found));
        self.registry.blob(&cache, &blob, store, progress).await?;
        store.adopt_blob(sha256)?;
        Ok(true)
    }
}
