//! What can go wrong with the small layers.

use std::io;
use std::path::PathBuf;

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::store::StoreError;

/// Why a small layer could not be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum FilesError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the layer cannot be written")]
    Write(#[source] io::Error),
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error("`{path}` cannot be put into an image: {reason}")]
    Target { path: String, reason: &'static str },
    #[error("`{path}` would be both a file and a folder")]
    Conflict { path: String },
    #[error("the artifact {digest} is not in the store")]
    Missing { digest: Digest },
    #[error("user `{name}` with uid {uid} conflicts with `{line}` in the base's /etc/{file}")]
    User {
        name: String,
        uid: u32,
        file: &'static str,
        line: String,
    },
    #[error("`{value}` is not a {what}")]
    Name { what: &'static str, value: String },
}

impl Explain for FilesError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Write(_) | Self::Read { .. } | Self::Changed { .. } => Kind::Unavailable,
            Self::Missing { .. } => Kind::NotFound,
            Self::Target { .. } | Self::Conflict { .. } | Self::User { .. } | Self::Name { .. } => {
                Kind::Usage
            }
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Store(error) => return error.hint(),
            Self::Changed { .. } => "build again when nothing writes to the project".into(),
            Self::Target { .. } => {
                "choose another `to`, for example below /opt, /srv or /work".into()
            }
            Self::Conflict { .. } => "let the `file` nodes write to different places".into(),
            Self::Missing { .. } => "build without `--offline`, so that it is fetched".into(),
            Self::User { .. } => {
                "declare a `user` with another name and uid, or with exactly those of the base"
                    .into()
            }
            Self::Write(_) | Self::Read { .. } | Self::Name { .. } => return None,
        })
    }
}
