//! What can go wrong when an image is put together or written.

use std::io;
use std::path::PathBuf;

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;

/// Why an image could not be put together, written or loaded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum ImageError {
    #[error("the configuration of the base image {digest} is not valid: {reason}")]
    BaseConfig { digest: Digest, reason: String },
    #[error("the image would have {count} layers; container engines take at most {limit}")]
    ManyLayers { count: usize, limit: usize },
    #[error("the image's documents cannot be encoded: {0}")]
    Encoding(String),
    #[error("layer {digest} ({comment}) cannot be read")]
    Layer {
        digest: Digest,
        comment: String,
        #[source]
        source: io::Error,
    },
    #[error("the bytes of layer `{what}` have {found}, expected {expected}")]
    WrongDigest {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("the image cannot be written")]
    Write(#[source] io::Error),
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not an OCI image layout: {reason}", path.display())]
    NotALayout { path: PathBuf, reason: String },
    #[error("`{0}` is not a name for an image in a layout or archive")]
    Name(String),
    #[error("no image, or two images for {0}, were given to write under one name")]
    Platforms(String),
    #[error("a Docker archive holds one platform; {0} were given")]
    OnePlatform(usize),
    #[error("cannot start `{}`", program.display())]
    NoEngine {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{program}` did not load the image ({status}): {message}")]
    Engine {
        program: String,
        status: String,
        message: String,
    },
}

impl ImageError {
    /// Wraps an I/O error with what was done to which path.
    pub(super) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

impl Explain for ImageError {
    fn kind(&self) -> Kind {
        match self {
            Self::BaseConfig { .. } | Self::WrongDigest { .. } => Kind::Refused,
            Self::ManyLayers { .. } | Self::NotALayout { .. } | Self::Name(_) => Kind::Usage,
            Self::Platforms(_) | Self::OnePlatform(_) => Kind::Usage,
            Self::Encoding(_) => Kind::Bug,
            Self::Layer { .. } | Self::Write(_) | Self::File { .. } => Kind::Unavailable,
            Self::NoEngine { .. } | Self::Engine { .. } => Kind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ManyLayers { .. } => "use a base with fewer layers".into(),
            Self::WrongDigest { .. } | Self::Layer { .. } => {
                "the store has lost or damaged it: point IMAGEWRIGHT_STORE to another folder, and build there".into()
            }
            Self::NotALayout { .. } => "name a new or empty folder, or an existing layout".into(),
            Self::Name(_) => {
                "use letters, digits and `-`, `.`, `_`, `:`, `/`, for example `titanic:v1`".into()
            }
            Self::OnePlatform(_) => "choose one with `--platform`, or write `--oci-archive`".into(),
            Self::NoEngine { .. } => "install it, or name another engine".into(),
            Self::Engine { .. } => {
                "check that the engine runs and that this user may use it".into()
            }
            _ => return None,
        })
    }
}
