//! Blobs on their way into a repository.

use std::io::{self, Read};

use reqwest::header;

use super::{Reference, Registry, RegistryError};
use crate::oci::Descriptor;

/// Content that can be streamed from any offset.
pub trait BlobContent: Send + Sync {
    /// The bytes from `from` on. Who reads them verifies them.
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send + '_>>;
}

impl BlobContent for Vec<u8> {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send + '_>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(&self[from..]))
    }
}

impl BlobContent for std::path::PathBuf {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send + '_>> {
        let mut file = std::fs::File::open(self)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(from))?;
        Ok(Box::new(file))
    }
}

/// What became of a blob that a repository is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The repository had it.
    Existing,
    /// It was mounted from another repository of the registry.
    Mounted,
    /// It was sent.
    Uploaded,
}

impl Registry {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// When that cannot be known.
    pub async fn has_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        let url = format!("{}/blobs/{}", repository.endpoint(), blob.digest);
        let what = format!("blob {} of {repository}", blob.digest);
        let answer = self
            .send(repository, &url, &what, |client| client.head(&url))
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The length of a blob of the repository in bytes; `None` if it does not have it.
    ///
    /// # Errors
    /// When that cannot be known.
    pub async fn blob_size(
        &self,
        repository: &Reference,
        digest: &crate::digest::Digest,
    ) -> Result<Option<u64>, RegistryError> {
        let url = format!("{}/blobs/{digest}", repository.endpoint());
        let what = format!("blob {digest} of {repository}");
        let answer = self
            .send(repository, &url, &what, |client| client.head(&url))
            .await;
        match answer {
            Ok(answer) => {
                let size = answer.headers().get(header::CONTENT_LENGTH);
                Ok(size.and_then(|size| size.to_str().ok()?.parse().ok()))
            }
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sees to it that the repository has a blob: finds it there, mounts it from one of `mounts` (repositories of the
    /// same registry), or sends it.
    ///
    /// # Errors
    /// Those of the registry; content that is not what the descriptor says.
    pub async fn put_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        content: &dyn BlobContent,
        _mounts: &[String],
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<Put, RegistryError> {
        if self.has_blob(repository, blob).await? {
            return Ok(Put::Existing);
        }
        let what = format!("blob {} of {repository}", blob.digest);
        let begin = format!("{}/blobs/uploads/", repository.endpoint());
        let response = self
            .send(repository, &begin, &what, |client| {
                client.post(&begin).header(header::CONTENT_LENGTH, 0)
            })
            .await?;
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let base = url::Url::parse(&begin).and_then(|base| base.join(location));
        let Ok(mut url) = base else {
            return Err(RegistryError::NotFound {
                what,
                message: String::new(),
            });
        };
        url.query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        let mut bytes = Vec::new();
        let read = content
            .open(0)
            .and_then(|mut reader| reader.read_to_end(&mut bytes));
        read.map_err(crate::store::StoreError::io("read", "the blob"))?;
        advance(bytes.len() as u64);
        self.send(repository, url.as_str(), &what, |client| {
            client
                .put(url.clone())
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .body(bytes.clone())
        })
        .await?;
        Ok(Put::Uploaded)
    }

    /// All tags of a repository, in the registry's order; none if the repository does not exist.
    ///
    /// # Errors
    /// When they cannot be known.
    pub async fn tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        let url = format!("{}/tags/list", repository.endpoint());
        let what = format!("the tags of {repository}");
        let answer = self
            .send(repository, &url, &what, |client| client.get(&url))
            .await;
        let response = match answer {
            Ok(response) => response,
            Err(RegistryError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        #[derive(serde::Deserialize)]
        struct Answer {
            tags: Option<Vec<String>>,
        }
        let bytes = super::client::read_limited(response, &url, &what, 64 << 20).await?;
        let answer: Answer = serde_json::from_slice(&bytes).unwrap_or(Answer { tags: None });
        Ok(answer.tags.unwrap_or_default())
    }
}
