//! What refers to a manifest: the referrers API, and the tag that stands in for it (OCI distribution specification,
//! "Listing Referrers", "Referrers Tag Schema").

use std::time::Duration;

use reqwest::{Method, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Answer;
use super::grants::Access;
use super::manifests::found;
use super::pages::Bounds;
use super::retry::jitter;
use super::{Reference, Registry, RegistryError};
use crate::digest::Digest;
use crate::oci::{DOCUMENT_LIMIT, Descriptor};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

const BOUNDS: Bounds = Bounds {
    page: DOCUMENT_LIMIT,
    all: 16 * DOCUMENT_LIMIT,
    entries: 10_000,
};

/// Attempts to get into the index under a fallback tag.
const ATTEMPTS: usize = 8;
/// After that time, another writer that began before us has ended.
const SETTLED: Duration = Duration::from_millis(100);

/// The part of a manifest that makes it a referrer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Registry {
    /// The manifests of this repository whose subject is `subject`.
    ///
    /// # Errors
    /// When that cannot be known; when the list is malformed or has no end.
    pub async fn referrers(
        &self,
        repository: &Reference,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let what = format!(
            "the list of referrers of {subject} in {}/{}",
            repository.host, repository.repository
        );
        let path = format!("/referrers/{subject}");
        let ask = self
            .ask(repository, &what, Method::GET, &path, Access::Pull)?
            .header(header::ACCEPT, INDEX);
        match self.pages(ask, BOUNDS, read).await {
            Ok(entries) => Ok(entries),
            Err(
                RegistryError::NotFound { .. }
                | RegistryError::Unsupported { .. }
                | RegistryError::Status { .. },
            ) => {
                let index = self.fallback(repository, subject).await?;
                descriptors(&index).map_err(|reason| RegistryError::Malformed { what, reason })
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a manifest that has a `subject`, under its digest, and makes it known as a referrer.
    ///
    /// # Errors
    /// When the registry does not take it; when others keep changing the fallback tag; without a subject.
    pub async fn attach(
        &self,
        repository: &Reference,
        media_type: &str,
        manifest: &[u8],
    ) -> Result<Descriptor, RegistryError> {
        let mut descriptor = Descriptor::of(media_type, manifest);
        let malformed = |reason: String| RegistryError::Malformed {
            what: format!(
                "{} in {}/{}",
                descriptor.digest, repository.host, repository.repository
            ),
            reason,
        };
        let referrer: Referrer =
            serde_json::from_slice(manifest).map_err(|error| malformed(error.to_string()))?;
        let subject = referrer
            .subject
            .ok_or_else(|| malformed("it has no subject".into()))?;
        let config = referrer.config.map(|config| config.media_type);
        descriptor.artifact_type = referrer.artifact_type.or(config);
        descriptor.annotations = referrer.annotations;
        let plain = Reference {
            tag: None,
            digest: None,
            ..repository.clone()
        };
        let answer = self.put_document(&plain, media_type, manifest).await?;
        let known = answer.header("oci-subject");
        if known != Some(subject.digest.to_string().as_str()) {
            self.join(repository, &subject.digest, &descriptor).await?;
        }
        Ok(descriptor)
    }

    /// Adds a referrer to the index under the fallback tag. Registries have no conditional writes: it looks again
    /// afterwards whether another writer has put one without it.
    async fn join(
        &self,
        repository: &Reference,
        subject: &Digest,
        referrer: &Descriptor,
    ) -> Result<(), RegistryError> {
        let tagged = fallback_tag(repository, subject);
        for attempt in 0..ATTEMPTS {
            let mut index = self.fallback(repository, subject).await?;
            if lists(&index, &referrer.digest) {
                return Ok(());
            }
            if let Some(manifests) = index["manifests"].as_array_mut() {
                manifests.push(json!(referrer));
            }
            self.put_manifest(&tagged, INDEX, index.to_string().as_bytes())
                .await?;
            tokio::time::sleep(SETTLED.mul_f64(jitter() * (attempt + 1) as f64)).await;
            if lists(&self.fallback(repository, subject).await?, &referrer.digest) {
                return Ok(());
            }
        }
        Err(RegistryError::Contended {
            what: tagged.to_string(),
        })
    }

    /// The index under the fallback tag; an empty one if there is none.
    async fn fallback(
        &self,
        repository: &Reference,
        subject: &Digest,
    ) -> Result<Value, RegistryError> {
        let tagged = fallback_tag(repository, subject);
        let Some(bytes) = found(self.manifest(&tagged).await)? else {
            return Ok(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}));
        };
        let index: Option<Value> = serde_json::from_slice(&bytes).ok();
        let index = index.filter(|index| {
            index["mediaType"].as_str().is_none_or(|kind| kind == INDEX)
                && index["manifests"]
                    .as_array()
                    .is_some_and(|all| all.len() <= BOUNDS.entries)
        });
        index.ok_or_else(|| RegistryError::Malformed {
            what: tagged.to_string(),
            reason: "it is not an index of referrers".into(),
        })
    }
}

fn fallback_tag(repository: &Reference, subject: &Digest) -> Reference {
    Reference {
        tag: Some(format!("sha256-{}", subject.hex())),
        digest: None,
        ..repository.clone()
    }
}

fn lists(index: &Value, digest: &Digest) -> bool {
    let entries = index["manifests"].as_array().into_iter().flatten();
    let digest = digest.to_string();
    entries
        .into_iter()
        .any(|entry| entry["digest"] == digest.as_str())
}

fn read(answer: &Answer) -> Result<Vec<Descriptor>, String> {
    let index: Value = serde_json::from_slice(&answer.body)
        .map_err(|_| "it is not an index of referrers".to_owned())?;
    descriptors(&index)
}

/// The descriptors of an index; those with a digest of another algorithm are left out.
fn descriptors(index: &Value) -> Result<Vec<Descriptor>, String> {
    let entries = index["manifests"]
        .as_array()
        .ok_or("it is not an index of referrers")?;
    let ours = entries.iter().filter(|entry| {
        let digest = entry["digest"].as_str();
        digest.is_none_or(|digest| digest.starts_with("sha256:"))
    });
    ours.map(|entry| {
        Descriptor::deserialize(entry).map_err(|_| "it lists what is no descriptor".to_owned())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_strictly_but_for_other_algorithms() {
        let good = json!({"mediaType": "a", "digest": Digest::of("x"), "size": 1});
        let other = json!({"mediaType": "a", "digest": "sha512:00", "size": 1});
        let index = json!({"manifests": [good, other]});
        assert_eq!(descriptors(&index).unwrap().len(), 1);
        assert!(lists(&index, &Digest::of("x")) && !lists(&index, &Digest::of("y")));
        for bad in [
            json!({}),
            json!([]),
            json!({"manifests": 1}),
            json!({"manifests": [1]}),
        ] {
            assert!(descriptors(&bad).is_err(), "{bad}");
        }
    }
}
