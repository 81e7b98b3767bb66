//! Small blobs that are read into memory: configurations, records and what lies beside them.

use super::client::read_limited;
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
        let url = format!("{}/blobs/{digest}", repository.endpoint());
        let what = format!(
            "blob {digest} of {}/{}",
            repository.host, repository.repository
        );
        let response = self
            .send(repository, &url, &what, |client| client.get(&url))
            .await?;
        let bytes = read_limited(response, &url, &what, limit).await?;
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
