//! Where base images come from, and the documents that lead to an image: index, manifest, configuration
//! (OCI image specification, and Docker's schema 2, which has the same fields).

use serde::Deserialize;

use super::BaseError;
use crate::digest::Digest;
use crate::manifest::Platform;
use crate::oci::{DOCUMENT_LIMIT, Descriptor, ImageReader};

/// How deep indexes may lie in indexes.
const MOST_INDEXES: usize = 4;

/// An index or a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// An image manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    /// Of the manifest's bytes.
    pub digest: Digest,
    /// The configuration.
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

/// Finds the image manifest for `platform` behind a reference.
///
/// # Errors
/// Those of the reader; when a document is not one, has another digest than it must have, or there is no image for
/// the platform.
pub async fn find_manifest(
    reader: &dyn ImageReader,
    reference: &str,
    pinned: Option<&Digest>,
    platform: Platform,
) -> Result<ImageManifest, BaseError> {
    let mut bytes = match pinned {
        Some(digest) => verified(reader, reference, digest).await?,
        None => reader.top().await?,
    };
    for _ in 0..MOST_INDEXES {
        let document = parse(reference, &bytes)?;
        match document.manifests {
            None => return image_manifest(reference, &bytes, document),
            Some(manifests) => {
                let chosen = choose(reference, &manifests, platform)?;
                bytes = verified(reader, reference, &chosen.digest).await?;
            }
        }
    }
    Err(not_an_image(
        reference,
        "its indexes contain each other too deeply",
    ))
}

async fn verified(
    reader: &dyn ImageReader,
    reference: &str,
    digest: &Digest,
) -> Result<Vec<u8>, BaseError> {
    let bytes = reader.manifest(digest).await?;
    let found = Digest::of(&bytes);
    if found != *digest {
        return Err(BaseError::WrongDigest {
            what: format!("the manifest of `{reference}`"),
            expected: *digest,
            found,
        });
    }
    Ok(bytes)
}

fn parse(reference: &str, bytes: &[u8]) -> Result<Document, BaseError> {
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(not_an_image(reference, "its manifest is larger than 4 MiB"));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| not_an_image(reference, &format!("its manifest is not valid: {error}")))
}

fn image_manifest(
    reference: &str,
    bytes: &[u8],
    document: Document,
) -> Result<ImageManifest, BaseError> {
    match document {
        Document {
            config: Some(config),
            layers: Some(layers),
            ..
        } => Ok(ImageManifest {
            digest: Digest::of(bytes),
            config,
            layers,
        }),
        _ => Err(not_an_image(
            reference,
            "its manifest has neither layers nor manifests",
        )),
    }
}

fn choose<'a>(
    reference: &str,
    manifests: &'a [Descriptor],
    platform: Platform,
) -> Result<&'a Descriptor, BaseError> {
    let fits = |descriptor: &&Descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_some_and(|found| found.is(platform.architecture()))
    };
    let unmarked: Vec<&Descriptor> = manifests
        .iter()
        .filter(|descriptor| descriptor.platform.is_none())
        .collect();
    match (manifests.iter().find(fits), unmarked.as_slice()) {
        (Some(found), _) => Ok(found),
        (None, [one]) => Ok(one),
        (None, []) => Err(BaseError::NoPlatform {
            reference: reference.into(),
            platform,
            found: manifests
                .iter()
                .filter_map(|descriptor| descriptor.platform.as_ref())
                .filter(|found| found.os != "unknown")
                .map(ToString::to_string)
                .collect(),
        }),
        (None, many) => Err(BaseError::Ambiguous {
            reference: reference.into(),
            names: many
                .iter()
                .map(|descriptor| {
                    descriptor
                        .annotations
                        .get("org.opencontainers.image.ref.name")
                        .cloned()
                        .unwrap_or_else(|| descriptor.digest.to_string())
                })
                .collect(),
        }),
    }
}

pub(super) fn not_an_image(reference: &str, reason: &str) -> BaseError {
    BaseError::NotAnImage {
        reference: reference.into(),
        reason: reason.into(),
    }
}
