//! Small blobs that are read into memory: configurations, and what lies beside records.

use reqwest::Method;

use super::auth::Access;
use super::{Reference, Registry, RegistryError};
use crate::digest::Digest;

impl Registry {
    /// The bytes of a blob of at most `limit` bytes, its digest verified.
    ///
    /// # Errors
    /// When it does not exist, is not allowed, is larger, or is not what the digest says.
    pub async fn small_blob(
        &self,
        repository: &Reference,
        digest: &Digest,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = format!(
            "blob {digest} of {}/{}",
            repository.host, repository.repository
        );
        let path = format!("/blobs/{digest}");
        let ask = self.ask(repository, &what, Method::GET, &path, Access::Pull)?;
        let bytes = self.call(&ask, limit).await?.body;
        let found = Digest::of(&bytes);
        match found == *digest {
            true => Ok(bytes),
            false => Err(RegistryError::WrongDigest {
                what,
                expected: *digest,
                found,
            }),
        }
    }
}
