//! Where base images come from, and the documents that lead to an image: index, manifest, configuration
//! (OCI image specification, and Docker's schema 2, which has the same fields).

use std::collections::BTreeMap;
use std::fmt;

use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::BaseError;
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::manifest::Platform;
use crate::progress::Progress;
use crate::store::Store;

/// Most bytes of an index, manifest or configuration.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// How deep indexes may lie in indexes.
const MOST_INDEXES: usize = 4;

/// One image repository: a layout on disk, or a repository of a registry.
pub trait ImageReader: Send + Sync {
    /// The index or manifest that the reference names.
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, ReadError>>;

    /// The index or manifest with this digest; the caller verifies it.
    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<u8>, ReadError>>;

    /// Brings a blob into the store, its size and digest verified.
    fn blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<(), ReadError>>;
}

/// Why a reader failed; keeps the kind and hint of the cause.
pub struct ReadError(Box<dyn Explain>);

impl ReadError {
    /// Wraps the reader's own error.
    pub fn new(error: impl Explain) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Explain for ReadError {
    fn kind(&self) -> Kind {
        self.0.kind()
    }
    fn hint(&self) -> Option<String> {
        self.0.hint()
    }
}

/// A content descriptor (OCI image specification, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Of the content.
    pub digest: Digest,
    /// Of the content, in bytes.
    pub size: u64,
    /// For manifests in an index.
    #[serde(default)]
    pub platform: Option<DescriptorPlatform>,
    /// Free text by name.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The platform of a manifest in an index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DescriptorPlatform {
    /// For example `linux`.
    pub os: String,
    /// For example `amd64`.
    pub architecture: String,
    /// For example `v8`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl DescriptorPlatform {
    fn is(&self, platform: Platform) -> bool {
        // 64-bit ARM has one variant in use, v8, which images may name or not.
        self.os == "linux"
            && self.architecture == platform.architecture()
            && matches!(self.variant.as_deref(), None | Some("" | "v8"))
    }
}

impl fmt::Display for DescriptorPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

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
            .is_some_and(|found| found.is(platform))
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
