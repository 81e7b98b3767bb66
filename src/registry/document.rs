//! Small blobs that are read into memory: configurations, records and what lies beside them.

use reqwest::Method;

use super::grants::Access;
use super::manifests::{RESENT, wrong};
use super::push::blob_of;
use super::{Reference, Registry, RegistryError};
use crate::digest::Digest;

impl Registry {
    /// The bytes of a blob of at most `limit` bytes, its digest verified; asked for again if they are others.
    ///
    /// # Errors
    /// When it does not exist, is not allowed, is larger, or is not what the digest says.
    pub async fn small_blob(
        &self,
        repository: &Reference,
        digest: &Digest,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = blob_of(repository, digest);
        let path = format!("/blobs/{digest}");
        let ask = self.ask(repository, &what, Method::GET, &path, Access::Pull)?;
        let mut waits = self.waits().at_most(RESENT);
        loop {
            let bytes = self.call(&ask, limit).await?.body;
            self.transfers.received(bytes.len());
            let found = Digest::of(&bytes);
            if found == *digest {
                return Ok(bytes);
            }
            waits.pause(wrong(what.clone(), *digest, found)).await?;
        }
    }
}
