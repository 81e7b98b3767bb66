//! Manifests: read, asked for, put and deleted (OCI distribution specification, "Pulling manifests", "Pushing
//! Manifests", "Content Management").

use reqwest::{Method, header};

use super::client::Answer;
use super::grants::Access;
use super::push::BODY_LIMIT;
use super::{Reference, Registry, RegistryError};
use crate::digest::Digest;
use crate::oci::{DOCUMENT_LIMIT, Descriptor};

/// Manifest types that are understood.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Attempts to get a document across undamaged.
pub(super) const RESENT: u32 = 3;

impl Registry {
    /// The bytes of the index or manifest that `reference` names. With a digest in it they are verified.
    ///
    /// # Errors
    /// When it does not exist, is not allowed, is larger than 4 MiB, or is not what the digest says.
    pub async fn manifest(&self, reference: &Reference) -> Result<Vec<u8>, RegistryError> {
        let what = reference.to_string();
        Ok(self.document(reference, &what, Method::GET).await?.body)
    }

    /// As [`Registry::manifest`]; `None` if it does not exist.
    ///
    /// # Errors
    /// The same, but for that it does not exist.
    pub async fn find_manifest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        found(self.manifest(reference).await)
    }

    /// The descriptor of what `reference` names, without fetching it; `None` if it does not exist.
    ///
    /// # Errors
    /// When that cannot be known.
    pub async fn head_manifest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let what = reference.to_string();
        let Some(head) = found(self.document(reference, &what, Method::HEAD).await)? else {
            return Ok(None);
        };
        let digest = head.header("docker-content-digest");
        let size = head.header("content-length");
        let named = digest
            .and_then(|digest| digest.parse().ok())
            .zip(size.and_then(|size| size.parse().ok()));
        let Some((digest, size)) = named else {
            // A registry that does not tell is asked for the document itself.
            let answer = self.document(reference, &what, Method::GET).await;
            return Ok(
                found(answer)?.map(|answer| Descriptor::of(media_type(&answer), &answer.body))
            );
        };
        Ok(Some(Descriptor::new(media_type(&head), digest, size)))
    }

    /// A document that is not what its digest says, or what the answer's own header says, is asked for once more.
    async fn document(
        &self,
        reference: &Reference,
        what: &str,
        method: Method,
    ) -> Result<Answer, RegistryError> {
        let head = method == Method::HEAD;
        let path = format!("/manifests/{}", reference.target());
        let ask = self
            .ask(reference, what, method, &path, Access::Pull)?
            .header(header::ACCEPT, ACCEPT);
        let mut waits = self.waits().at_most(RESENT);
        loop {
            let answer = self.call(&ask, DOCUMENT_LIMIT).await?;
            let (expected, found) = match head {
                true => (reference.digest, told(&answer)),
                false => {
                    let expected = reference.digest.or_else(|| told(&answer));
                    (expected, Some(Digest::of(&answer.body)))
                }
            };
            match (expected, found) {
                (Some(expected), Some(found)) if found != expected => {
                    let what = what.to_owned();
                    waits.pause(wrong(what, expected, found)).await?;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Puts a manifest, index or artifact manifest under the reference's tag, or under its digest if there is none.
    ///
    /// # Errors
    /// When the registry does not take it, or took something else.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        self.put_document(reference, media_type, bytes).await?;
        Ok(Digest::of(bytes))
    }

    pub(super) async fn put_document(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Answer, RegistryError> {
        let digest = Digest::of(bytes);
        let target = reference.tag.clone().unwrap_or_else(|| digest.to_string());
        let what = format!("{}/{} ({target})", reference.host, reference.repository);
        let path = format!("/manifests/{target}");
        let ask = self
            .ask(reference, &what, Method::PUT, &path, Access::Push)?
            .header(header::CONTENT_TYPE, media_type)
            .body(bytes.to_vec());
        let mut waits = self.waits().at_most(RESENT);
        loop {
            match self.call(&ask, BODY_LIMIT).await {
                Ok(answer) => match told(&answer) {
                    // What was damaged on its way stands under a tag now: it has to be replaced.
                    Some(found) if found != digest => {
                        waits.pause(wrong(what.clone(), digest, found)).await?;
                    }
                    _ => return Ok(answer),
                },
                // Damaged on its way; or parts that another push is just putting are not seen for a moment.
                Err(
                    error @ (RegistryError::InvalidManifest { .. }
                    | RegistryError::WrongContent { .. }
                    | RegistryError::MissingParts { .. }),
                ) => waits.pause(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes the manifest with the reference's digest, and with it every tag that names it.
    ///
    /// # Errors
    /// When it does not exist, or the registry does not delete; without a digest.
    pub async fn delete_manifest(&self, reference: &Reference) -> Result<(), RegistryError> {
        let what = reference.to_string();
        match reference.digest {
            Some(digest) => self.delete(reference, &what, &digest.to_string()).await,
            None => Err(RegistryError::Unsupported {
                what: format!("deleting {what}"),
                message: "a manifest is deleted by its digest".into(),
            }),
        }
    }

    /// Deletes the reference's tag, not what it names. Many registries do not offer that.
    ///
    /// # Errors
    /// When it does not exist, or the registry does not delete tags; without a tag.
    pub async fn delete_tag(&self, reference: &Reference) -> Result<(), RegistryError> {
        let what = reference.to_string();
        let unsupported = |message: String| RegistryError::Unsupported {
            what: format!("deleting the tag of {what}"),
            message,
        };
        let Some(tag) = &reference.tag else {
            return Err(unsupported("there is no tag".into()));
        };
        match self.delete(reference, &what, tag).await {
            // Registries that expect a digest there.
            Err(
                RegistryError::WrongContent { message, .. }
                | RegistryError::InvalidManifest { message, .. }
                | RegistryError::Status { message, .. },
            ) => Err(unsupported(message)),
            other => other,
        }
    }

    async fn delete(
        &self,
        reference: &Reference,
        what: &str,
        target: &str,
    ) -> Result<(), RegistryError> {
        let path = format!("/manifests/{target}");
        let what = format!("deleting {what}");
        let ask = self.ask(reference, &what, Method::DELETE, &path, Access::Delete)?;
        self.call(&ask, BODY_LIMIT).await.map(drop)
    }
}

fn told(answer: &Answer) -> Option<Digest> {
    answer.header("docker-content-digest")?.parse().ok()
}

pub(super) fn wrong(what: String, expected: Digest, found: Digest) -> RegistryError {
    RegistryError::WrongDigest {
        what,
        expected,
        found,
    }
}

fn media_type(answer: &Answer) -> String {
    let value = answer.header("content-type").unwrap_or_default();
    let value = value.split(';').next().unwrap_or_default().trim();
    value.chars().take(255).collect()
}

/// An answer that nothing is there is an answer.
pub(super) fn found<T>(answer: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match answer {
        Ok(there) => Ok(Some(there)),
        Err(RegistryError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
