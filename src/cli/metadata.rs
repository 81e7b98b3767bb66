//! `--metadata-file`: what a build or a push made, for the steps of a CI job that come after it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Serialize;

use super::build::Named;
use super::context::Context;
use super::failure::Failure;
use super::pipeline::publishing;
use crate::catalog::Place;
use crate::digest::Digest;
use crate::image::Image;
use crate::manifest::tags::expand;
use crate::manifest::{Manifest, Platform};
use crate::oci::{Descriptor, DescriptorPlatform};

/// The media type of an image manifest.
const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What `--metadata-file` holds.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct MetadataDocument {
    /// What the one image is, if there is one for one platform: as `docker buildx build --metadata-file` says it.
    #[serde(flatten)]
    pub single: Option<BuildxDocument>,
    /// In declared order, platform by platform.
    pub images: Vec<ImageMetadata>,
}

/// An image in the words of buildx.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct BuildxDocument {
    /// Digest of the image manifest.
    #[serde(rename = "containerimage.digest")]
    pub digest: Digest,
    /// Digest of the image configuration, which Docker calls the image ID.
    #[serde(rename = "containerimage.config.digest")]
    pub config: Digest,
    /// The descriptor of the image manifest.
    #[serde(rename = "containerimage.descriptor")]
    pub descriptor: Descriptor,
    /// References in the declared registries, separated by commas.
    #[serde(rename = "image.name")]
    pub name: String,
}

/// One image for one platform.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ImageMetadata {
    /// Declared name.
    pub name: String,
    /// Its platform.
    pub platform: Platform,
    /// The image in the words of buildx.
    #[serde(flatten)]
    pub image: BuildxDocument,
    /// The chain of identity.
    pub keys: KeysMetadata,
    /// References that the image has, or a push would give it, in the declared registries.
    pub references: Vec<String>,
}

/// The chain of identity of an image.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct KeysMetadata {
    /// What was asked for.
    pub request: Option<Digest>,
    /// What the lock pinned.
    pub set: Digest,
    /// Layers and configuration.
    pub image: Digest,
}

/// What is told of these images. Without `places` these are the registries that the manifest declares.
///
/// # Errors
/// When a declared registry cannot be one.
pub fn of(
    context: &Context,
    manifest: &Manifest,
    built: &[Named],
    places: Option<&[Place]>,
) -> Result<MetadataDocument, Failure> {
    let declared = match places {
        Some(_) => Vec::new(),
        None => declared(manifest)?,
    };
    let places = places.unwrap_or(&declared);
    let images = built.iter().map(|named| {
        let tags = tags(context, manifest, &named.name);
        let references: Vec<String> = places
            .iter()
            .flat_map(|place| place.names(&named.name, &tags))
            .map(|reference| reference.to_string())
            .collect();
        let image = &named.built.image;
        ImageMetadata {
            name: named.name.clone(),
            platform: image.platform,
            image: buildx(image, &references),
            keys: KeysMetadata {
                request: named.request,
                set: named.built.set,
                image: image.key,
            },
            references,
        }
    });
    let images: Vec<ImageMetadata> = images.collect();
    let single = match images.as_slice() {
        [only] => Some(only.image.clone()),
        _ => None,
    };
    Ok(MetadataDocument { single, images })
}

fn buildx(image: &Image, references: &[String]) -> BuildxDocument {
    BuildxDocument {
        digest: image.digest(),
        config: image.config_digest(),
        descriptor: Descriptor {
            platform: Some(DescriptorPlatform {
                os: "linux".into(),
                architecture: image.platform.architecture().into(),
                variant: None,
            }),
            ..Descriptor::of(IMAGE_MANIFEST, &image.manifest)
        },
        name: references.join(","),
    }
}

fn declared(manifest: &Manifest) -> Result<Vec<Place>, Failure> {
    let destinations = manifest.registry.iter().chain(&manifest.pushes);
    destinations
        .map(|destination| Ok(Place::new(destination)?))
        .collect()
}

/// The declared tags of an image whose words are known; without a commit, those with `{git}` are not.
fn tags(context: &Context, manifest: &Manifest, name: &str) -> Vec<String> {
    let Some(request) = manifest.image(name) else {
        return Vec::new();
    };
    let commit = publishing::needs_commit(request)
        .then(|| publishing::commit(&context.folder).ok())
        .flatten();
    let version = request.version.as_ref().map(|version| version.as_str());
    let tags = request.tags.iter();
    tags.filter_map(|tag| expand(tag, version, commit.as_deref()).ok())
        .collect()
}

/// Sees, before any work, whether the file could be written.
///
/// # Errors
/// When it could not.
pub fn check(path: &Path) -> Result<(), Failure> {
    let begin = || match path.is_dir() {
        true => Err(std::io::ErrorKind::IsADirectory.into()),
        false => begin(path).map(|_| ()),
    };
    begin().map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    let hint = "give --metadata-file a path in a folder that exists and is writable";
    Failure::unwritten(path, error, hint)
}

/// A file that is put into the place of `path` when it is complete.
fn begin(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".imagewright.metadata.")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
}

/// Writes the document, all or nothing.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, document: &MetadataDocument) -> Result<(), Failure> {
    let put = || -> std::io::Result<()> {
        let _held = super::interrupt::hold();
        let mut text = serde_json::to_vec_pretty(document)?;
        text.push(b'\n');
        let mut file = begin(path)?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    put().map_err(|error| unwritten(path, &error))
}
