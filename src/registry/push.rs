//! Push of blobs: found, mounted, or sent (OCI distribution specification, "Pushing Blobs").

use reqwest::{Method, StatusCode, header};

use super::client::{Answer, Ask};
use super::grants::Access;
use super::manifests::found;
use super::upload::{Session, Upload};
use super::{BlobContent, Reference, Registry, RegistryError};
use crate::digest::Digest;
use crate::oci::Descriptor;

/// Most bytes of an answer whose body does not matter.
pub(super) const BODY_LIMIT: u64 = 64 << 10;

/// Most repositories that a mount is tried from: a blob that is in none of them is sent.
const MOUNTS: usize = 4;

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
    /// When that cannot be known; when it has one of another size.
    pub async fn has_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        self.holds(repository, blob, Access::Pull).await
    }

    /// The length of a blob of the repository in bytes; `None` if it does not have it.
    ///
    /// # Errors
    /// When that cannot be known.
    pub async fn blob_size(
        &self,
        repository: &Reference,
        digest: &Digest,
    ) -> Result<Option<u64>, RegistryError> {
        let what = blob_of(repository, digest);
        let found = self.probe(repository, digest, &what, Access::Pull).await?;
        match found.map(|head| length(&head)) {
            None => Ok(None),
            Some(Some(size)) => Ok(Some(size)),
            Some(None) => Err(RegistryError::Malformed {
                what,
                reason: "it does not tell the length".into(),
            }),
        }
    }

    /// Whether [`Registry::put_blob`] would mount the blob from one of `mounts`, as far as these can be read.
    ///
    /// # Errors
    /// When that cannot be known.
    pub async fn can_mount(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        mounts: &[String],
    ) -> Result<bool, RegistryError> {
        for from in others(repository, mounts) {
            let from = Reference {
                repository: from.clone(),
                tag: None,
                digest: None,
                ..repository.clone()
            };
            match self.has_blob(&from, blob).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) if error.is_refusal() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    pub(super) async fn holds(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        access: Access,
    ) -> Result<bool, RegistryError> {
        let what = blob_of(repository, &blob.digest);
        let found = self.probe(repository, &blob.digest, &what, access).await?;
        match found.as_ref().map(length) {
            None => Ok(false),
            Some(Some(size)) if size != blob.size => Err(RegistryError::WrongSize {
                what,
                found: size,
                expected: blob.size,
            }),
            Some(_) => Ok(true),
        }
    }

    async fn probe(
        &self,
        repository: &Reference,
        digest: &Digest,
        what: &str,
        access: Access,
    ) -> Result<Option<Answer>, RegistryError> {
        let path = format!("/blobs/{digest}");
        let ask = self.ask(repository, what, Method::HEAD, &path, access)?;
        found(self.call(&ask, BODY_LIMIT).await)
    }

    /// Sees to it that the repository has a blob: finds it there, mounts it from one of `mounts` (repositories of the
    /// same registry), or sends it. `advance` hears of every byte of content that was sent, once.
    ///
    /// The content is streamed in one request. When that breaks off, it goes on where the registry has it, if the
    /// registry tells, and in smaller requests; else it begins again. May be dropped at any time.
    ///
    /// # Errors
    /// Those of the registry; content that is not what the descriptor says.
    pub async fn put_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        content: &dyn BlobContent,
        mounts: &[String],
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<Put, RegistryError> {
        if self.holds(repository, blob, Access::Push).await? {
            return Ok(Put::Existing);
        }
        let what = blob_of(repository, &blob.digest);
        let session = match self.mount(repository, blob, &what, mounts).await? {
            Mount::Done => return Ok(Put::Mounted),
            Mount::Session(session) => Some(session),
            Mount::Nothing => None,
        };
        let upload = Upload::new(self, repository, blob, content, &what, advance);
        upload.run(session).await?;
        Ok(Put::Uploaded)
    }

    async fn mount(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        what: &str,
        mounts: &[String],
    ) -> Result<Mount, RegistryError> {
        let mut left = None;
        for from in others(repository, mounts) {
            if let Some(session) = left.take() {
                self.abandon(repository, what, session).await;
            }
            let mut ask = self.uploads(repository, what)?;
            let digest = blob.digest.to_string();
            let pairs = [("mount", digest.as_str()), ("from", from)];
            ask.url.query_pairs_mut().extend_pairs(pairs);
            ask.scopes.add(&format!("repository:{from}:pull"));
            match self.call(&ask, BODY_LIMIT).await {
                Ok(answer) if answer.status == StatusCode::CREATED => return Ok(Mount::Done),
                Ok(answer) => left = Some(self.session(&ask, &answer, 0)?),
                Err(error) if error.is_refusal() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(left.map_or(Mount::Nothing, Mount::Session))
    }

    /// Tells the registry that a session is not needed; what it says to that does not matter.
    async fn abandon(&self, repository: &Reference, what: &str, session: Session) {
        let ask = self.ask_url(repository, what, Method::DELETE, session.url, Access::Push);
        let _ = self.call_once(&ask, BODY_LIMIT).await;
    }

    /// The request that begins an upload.
    pub(super) fn uploads<'a>(
        &self,
        repository: &'a Reference,
        what: &'a str,
    ) -> Result<Ask<'a>, RegistryError> {
        let ask = self.ask(
            repository,
            what,
            Method::POST,
            "/blobs/uploads/",
            Access::Push,
        )?;
        Ok(ask.header(header::CONTENT_LENGTH, "0"))
    }

    /// The upload session that an answer leads to.
    pub(super) fn session(
        &self,
        ask: &Ask<'_>,
        answer: &Answer,
        offset: u64,
    ) -> Result<Session, RegistryError> {
        let location = answer
            .header("location")
            .ok_or_else(|| RegistryError::Malformed {
                what: ask.what.to_owned(),
                reason: "it does not say where the upload goes on".into(),
            })?;
        let least = answer.header("oci-chunk-min-length");
        Ok(Session {
            url: self.target(ask, &answer.url, location)?,
            offset,
            least: least.and_then(|least| least.parse().ok()).unwrap_or(0),
        })
    }
}

/// The repositories that a mount into `repository` is tried from.
fn others<'a>(repository: &'a Reference, mounts: &'a [String]) -> impl Iterator<Item = &'a String> {
    let others = mounts.iter().filter(|from| **from != repository.repository);
    others.take(MOUNTS)
}

enum Mount {
    Done,
    Session(Session),
    Nothing,
}

fn length(head: &Answer) -> Option<u64> {
    head.header("content-length")?.parse().ok()
}

pub(super) fn blob_of(repository: &Reference, digest: &Digest) -> String {
    format!(
        "blob {digest} of {}/{}",
        repository.host, repository.repository
    )
}
