//! Base images: pinned by digest, their layers brought into the store, and what is in them found out by reading.
//!
//! Knows neither layouts nor registries: both are an [`ImageReader`] that the caller passes in. Executes nothing of
//! the image. What was found is kept in the store under the manifest's digest, so that layers are read once.

mod elf;
mod file;
mod probe;
mod reader;
mod tree;

use std::fs::File;
use std::io::Read;

use futures_util::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

pub use file::read_files;
pub use probe::{Contents, Interpreter};
pub use reader::{ImageManifest, find_manifest};
pub use tree::decompress;

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::lock::{LockedBase, LockedPython};
use crate::manifest::{Platform, PythonMinor};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, ImageReader, ReadError};
use crate::progress::{Progress, Stage};
use crate::store::{Store, StoreError};

/// Version of what is recorded about a base; other versions are read anew.
const RECORD_VERSION: u32 = 1;

/// Layers pulled at one time.
const PARALLEL: usize = 4;

/// Most layers a base may have, so that others fit above it.
const MOST_LAYERS: usize = 120;

/// A base image for one platform whose blobs are in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    v: u32,
    /// As the manifest writes it.
    pub reference: String,
    /// Of the image manifest.
    pub digest: Digest,
    /// Its platform.
    pub platform: Platform,
    /// The OCI image configuration, JSON as it came.
    pub config: String,
    /// Lowest first.
    pub layers: Vec<BaseLayer>,
    /// What is in it.
    pub contents: Contents,
}

/// A layer of a base image; the store has its blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseLayer {
    /// OCI media type.
    pub media_type: String,
    /// Of the blob.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Of the tar.
    pub diff_id: Digest,
    /// Of the tar, in bytes.
    pub unpacked: u64,
}

/// Why an image cannot be a base.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum BaseError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{reference}` is not an image that imagewright can build on: {reason}")]
    NotAnImage { reference: String, reason: String },
    #[error("{what} has {found}, expected {expected}")]
    WrongDigest {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("`{reference}` has no image for {platform}; it has {}", list(found))]
    NoPlatform {
        reference: String,
        platform: Platform,
        found: Vec<String>,
    },
    #[error("`{reference}` names several images: {}", list(names))]
    Ambiguous {
        reference: String,
        names: Vec<String>,
    },
    #[error("layer {digest} of `{reference}` has the media type `{media_type}`")]
    LayerType {
        reference: String,
        digest: Digest,
        media_type: String,
    },
    #[error("layer {digest} of `{reference}` cannot be read")]
    Layer {
        reference: String,
        digest: Digest,
        #[source]
        source: std::io::Error,
    },
    #[error("`{reference}` has {count} layers; a base can have at most {MOST_LAYERS}")]
    ManyLayers { reference: String, count: usize },
    #[error("`{reference}` has no Python interpreter")]
    NoPython { reference: String },
    #[error("`{reference}` has no Python {wanted}; it has {}", list(found))]
    OtherPython {
        reference: String,
        wanted: PythonMinor,
        found: Vec<String>,
    },
    #[error("`{reference}` has PyPy ({path}); imagewright installs packages for CPython")]
    PyPy { reference: String, path: String },
    #[error("`{reference}` says it is {platform}, but its {path} is a program for {machine}")]
    OtherMachine {
        reference: String,
        platform: Platform,
        path: String,
        machine: String,
    },
    #[error("`{reference}` is built on musl; Python wheels need glibc")]
    Musl { reference: String },
    #[error("`{reference}` has Python at {path}, but no glibc was found in it")]
    NoGlibc { reference: String, path: String },
    #[error("the version of {path} in `{reference}` cannot be told")]
    UnknownVersion { reference: String, path: String },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

impl Explain for BaseError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::WrongDigest { .. } | Self::Layer { .. } | Self::NotAnImage { .. } => {
                Kind::Refused
            }
            Self::NoPlatform { .. } => Kind::NotFound,
            _ => Kind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read(error) => return error.hint(),
            Self::Store(error) => return error.hint(),
            Self::NotAnImage { .. } | Self::Layer { .. } | Self::LayerType { .. } => {
                "`from` needs a container image whose layers are tar files (plain, gzip or zstd)".into()
            }
            Self::WrongDigest { .. } => "the copy is damaged or was tampered with: get it again".into(),
            Self::NoPlatform { .. } => "declare a platform that the image has, or another `from`".into(),
            Self::Ambiguous { .. } => "name one: `oci:DIR:NAME` or `oci:DIR@sha256:…`".into(),
            Self::ManyLayers { .. } => "squash the image, or build on one with fewer layers".into(),
            Self::NoPython { .. } => {
                "use a base with CPython in its PATH, for example a `python:…-slim` image, or `debian`".into()
            }
            Self::OtherPython { .. } => {
                "change `python` to a version that the base has, or choose another base".into()
            }
            Self::PyPy { .. } => "use a base with CPython".into(),
            Self::OtherMachine { .. } => {
                "the base was built for another architecture than it declares: use a correct one".into()
            }
            Self::Musl { .. } => {
                "use a base on Debian, Ubuntu, Fedora or another glibc distribution (for `python:…-alpine`: `python:…-slim`)".into()
            }
            Self::NoGlibc { .. } | Self::UnknownVersion { .. } => {
                "use a base whose Python is a CPython linked against glibc, with its files in place".into()
            }
        })
    }
}

/// Brings the image behind `reference` into the store and finds out what is in it; with `pinned`, the image with
/// that manifest digest, whatever the reference means today. What is in the store already is not read again.
/// Reads layers in the calling thread.
///
/// # Errors
/// Those of the reader and the store; when it is no image, not for the platform, or its bytes do not match their
/// digests. A missing Python is no error here: see [`BaseImage::python`].
pub async fn inspect(
    store: &Store,
    reader: &dyn ImageReader,
    reference: &str,
    pinned: Option<&Digest>,
    platform: Platform,
    progress: &dyn Progress,
) -> Result<BaseImage, BaseError> {
    if let Some(digest) = pinned
        && let Some(known) = recorded(store, reference, digest, platform)?
    {
        return Ok(known);
    }
    let manifest = find_manifest(reader, reference, pinned, platform).await?;
    if let Some(known) = recorded(store, reference, &manifest.digest, platform)? {
        return Ok(known);
    }
    check_layers(reference, &manifest)?;
    pull(store, reader, &manifest, progress).await?;
    let found = read(store, reference, platform, &manifest, progress)?;
    let document = serde_json::to_string(&found)
        .map_err(|error| reader::not_an_image(reference, &error.to_string()))?;
    store.state()?.put_base(&found.digest, &document)?;
    Ok(found)
}

fn recorded(
    store: &Store,
    reference: &str,
    digest: &Digest,
    platform: Platform,
) -> Result<Option<BaseImage>, BaseError> {
    let Some(document) = store.state()?.base(digest)? else {
        return Ok(None);
    };
    let known = serde_json::from_str::<BaseImage>(&document)
        .ok()
        .filter(|known| {
            known.v == RECORD_VERSION
                && known.platform == platform
                && known
                    .layers
                    .iter()
                    .all(|layer| has_blob(store, &layer.digest, layer.size))
        });
    Ok(known.map(|known| BaseImage {
        reference: reference.into(),
        ..known
    }))
}

fn has_blob(store: &Store, digest: &Digest, size: u64) -> bool {
    std::fs::metadata(store.blob_path(digest))
        .is_ok_and(|meta| meta.is_file() && meta.len() == size)
}

fn check_layers(reference: &str, manifest: &ImageManifest) -> Result<(), BaseError> {
    if manifest.layers.len() > MOST_LAYERS {
        let count = manifest.layers.len();
        return Err(BaseError::ManyLayers {
            reference: reference.into(),
            count,
        });
    }
    if manifest.config.size > DOCUMENT_LIMIT {
        return Err(reader::not_an_image(
            reference,
            "its configuration is larger than 4 MiB",
        ));
    }
    for layer in &manifest.layers {
        if oci_media_type(&layer.media_type).is_none() {
            return Err(BaseError::LayerType {
                reference: reference.into(),
                digest: layer.digest,
                media_type: layer.media_type.chars().take(100).collect(),
            });
        }
    }
    Ok(())
}

/// The OCI name of a layer's media type; `None` for what is not a layer that can be passed on.
fn oci_media_type(found: &str) -> Option<&'static str> {
    Some(match found {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => {
            "application/vnd.oci.image.layer.v1.tar"
        }
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.v1.tar+gzip"
        }
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            "application/vnd.oci.image.layer.v1.tar+zstd"
        }
        _ => return None,
    })
}

async fn pull(
    store: &Store,
    reader: &dyn ImageReader,
    manifest: &ImageManifest,
    progress: &dyn Progress,
) -> Result<(), BaseError> {
    let wanted: Vec<&Descriptor> = std::iter::once(&manifest.config)
        .chain(&manifest.layers)
        .filter(|blob| !has_blob(store, &blob.digest, blob.size))
        .collect();
    let pulls = wanted
        .into_iter()
        .map(|blob| reader.blob(blob, store, progress));
    futures_util::stream::iter(pulls)
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

#[derive(Deserialize)]
struct RawCreated {
    created: Option<String>,
}

/// The fields of an image configuration that matter here.
#[derive(Deserialize)]
struct RawConfig {
    os: Option<String>,
    architecture: Option<String>,
    #[serde(default)]
    config: Option<RawRuntime>,
    rootfs: RawRootfs,
}

#[derive(Default, Deserialize)]
struct RawRuntime {
    #[serde(default, rename = "Env")]
    env: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

fn read(
    store: &Store,
    reference: &str,
    platform: Platform,
    manifest: &ImageManifest,
    progress: &dyn Progress,
) -> Result<BaseImage, BaseError> {
    let path = store.blob_path(&manifest.config.digest);
    let text = std::fs::read_to_string(&path).map_err(StoreError::io("read", &path))?;
    let config: RawConfig = serde_json::from_str(&text).map_err(|error| {
        reader::not_an_image(
            reference,
            &format!("its configuration is not valid: {error}"),
        )
    })?;
    let says = format!(
        "{}/{}",
        config.os.as_deref().unwrap_or("?"),
        config.architecture.as_deref().unwrap_or("?")
    );
    if says != platform.to_string() {
        return Err(BaseError::NoPlatform {
            reference: reference.into(),
            platform,
            found: vec![says],
        });
    }
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(reader::not_an_image(
            reference,
            "its configuration names another number of layers than its manifest",
        ));
    }
    let (tree, layers) = read_layers(
        store,
        reference,
        manifest,
        &config.rootfs.diff_ids,
        progress,
    )?;
    let env = config.config.unwrap_or_default().env.unwrap_or_default();
    Ok(BaseImage {
        v: RECORD_VERSION,
        reference: reference.into(),
        digest: manifest.digest,
        platform,
        config: text,
        layers,
        contents: probe::probe(&tree, &env),
    })
}

fn read_layers(
    store: &Store,
    reference: &str,
    manifest: &ImageManifest,
    diff_ids: &[Digest],
    progress: &dyn Progress,
) -> Result<(tree::Tree, Vec<BaseLayer>), BaseError> {
    let mut tree = tree::Tree::default();
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let path = store.blob_path(&layer.digest);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let id = progress.begin(Stage::Base, &layer.digest.short(), Some(layer.size));
        let counted = Counted {
            inner: file,
            progress,
            id,
        };
        let result = tree.apply(counted);
        progress.end(id);
        let found = result.map_err(|source| BaseError::Layer {
            reference: reference.into(),
            digest: layer.digest,
            source,
        })?;
        if found.diff_id != *diff_id {
            return Err(BaseError::WrongDigest {
                what: format!("the content of layer {} of `{reference}`", layer.digest),
                expected: *diff_id,
                found: found.diff_id,
            });
        }
        layers.push(BaseLayer {
            media_type: oci_media_type(&layer.media_type).unwrap_or_default().into(),
            digest: layer.digest,
            size: layer.size,
            diff_id: found.diff_id,
            unpacked: found.unpacked,
        });
    }
    Ok((tree, layers))
}

struct Counted<'a, R> {
    inner: R,
    progress: &'a dyn Progress,
    id: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.progress.advance(self.id, n as u64);
        Ok(n)
    }
}

/// 1980-01-01, the oldest instant that archives of every kind can say.
const OLDEST_EPOCH: i64 = 315_532_800;

fn epoch_of(config: &str) -> i64 {
    let created = serde_json::from_str::<RawCreated>(config)
        .ok()
        .and_then(|config| config.created?.parse::<jiff::Timestamp>().ok());
    created.map_or(OLDEST_EPOCH, |created| {
        created.as_second().max(OLDEST_EPOCH)
    })
}

impl BaseImage {
    /// Seconds since 1970 to which times in OS layers above this image are clamped: when it was created (OCI image
    /// specification, config, `created`). Images that hide that get 1980-01-01.
    pub fn epoch(&self) -> i64 {
        epoch_of(&self.config)
    }

    /// How the lock names it.
    pub fn locked(&self) -> LockedBase {
        LockedBase::From {
            reference: self.reference.clone(),
            digest: self.digest,
        }
    }

    /// The interpreter to install for: of the demanded minor version, else the one that `python3` means.
    ///
    /// # Errors
    /// When there is none, or not one that wheels can be installed for; says what there is instead.
    pub fn python(&self, wanted: Option<PythonMinor>) -> Result<LockedPython, BaseError> {
        let reference = self.reference.clone();
        let all = &self.contents.interpreters;
        let cpython: Vec<&Interpreter> = all
            .iter()
            .filter(|found| found.implementation == "cpython")
            .collect();
        let fits = |found: &&&Interpreter| match wanted {
            Some(wanted) => found.minor.as_deref() == Some(wanted.to_string().as_str()),
            None => true,
        };
        let Some(found) = cpython.iter().find(fits) else {
            return Err(match (all.first(), wanted) {
                (None, _) if self.contents.musl && self.contents.glibc.is_none() => {
                    BaseError::Musl { reference }
                }
                (None, _) => BaseError::NoPython { reference },
                (Some(pypy), _) if cpython.is_empty() => BaseError::PyPy {
                    reference,
                    path: pypy.path.clone(),
                },
                (Some(_), None) => BaseError::NoPython { reference },
                (Some(_), Some(wanted)) => {
                    let found = cpython.iter().map(|found| found.to_string()).collect();
                    BaseError::OtherPython {
                        reference,
                        wanted,
                        found,
                    }
                }
            });
        };
        self.usable(found)
    }

    fn usable(&self, found: &Interpreter) -> Result<LockedPython, BaseError> {
        let reference = self.reference.clone();
        let path = found.path.clone();
        if found.machine != self.platform.machine() {
            let machine = found.machine.clone();
            return Err(BaseError::OtherMachine {
                reference,
                platform: self.platform,
                path,
                machine,
            });
        }
        if found.musl {
            return Err(BaseError::Musl { reference });
        }
        let Some(glibc) = self.contents.glibc else {
            return Err(match self.contents.musl {
                true => BaseError::Musl { reference },
                false => BaseError::NoGlibc { reference, path },
            });
        };
        let minor = found.minor.as_deref().and_then(|minor| minor.parse().ok());
        match (minor, found.full.clone()) {
            (Some(minor), Some(full)) => Ok(LockedPython {
                path,
                minor,
                full,
                glibc,
            }),
            _ => Err(BaseError::UnknownVersion { reference, path }),
        }
    }
}

impl std::fmt::Display for Interpreter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.full.as_deref().or(self.minor.as_deref());
        write!(f, "{} ({})", version.unwrap_or("?"), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_when_the_image_was_created() {
        for (created, expected) in [
            (r#""2026-01-02T03:04:05Z""#, 1_767_323_045),
            (r#""2026-01-02T03:04:05.678+01:00""#, 1_767_319_445),
            (r#""1970-01-01T00:00:00Z""#, OLDEST_EPOCH),
            (r#""0001-01-01T00:00:00Z""#, OLDEST_EPOCH),
            (r#""yesterday""#, OLDEST_EPOCH),
            ("null", OLDEST_EPOCH),
            ("5", OLDEST_EPOCH),
        ] {
            let config = format!("{{\"created\": {created}}}");
            assert_eq!(epoch_of(&config), expected, "{created}");
        }
        assert_eq!(epoch_of("{}"), OLDEST_EPOCH);
    }
}
