//! Why the catalog cannot be read or written.

use std::io;
use std::path::PathBuf;

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::oci::ReadError;
use crate::registry::RegistryError;
use crate::store::{StoreError, no_room};

/// Why the catalog cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum CatalogError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{what} is not a record that imagewright knows: {reason}")]
    Malformed { what: String, reason: String },
    #[error("{name} is protected and stands for {found}, not for {image}")]
    Protected {
        name: String,
        found: Digest,
        image: Digest,
    },
    #[error("{what} stands for {found}, not for {image}")]
    OtherImage {
        what: String,
        found: Digest,
        image: Digest,
    },
    #[error("image `{name}` has no record in {place}")]
    NotPushed { name: String, place: String },
    #[error("nothing here vouches for {found}, which {what} says that image `{name}` is")]
    Unvouched {
        name: String,
        what: String,
        found: Digest,
    },
    #[error("the bytes of the layer `{comment}` ({digest}) cannot be read")]
    Layer {
        comment: String,
        digest: Digest,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Materialise(#[from] ReadError),
    #[error("the command is ending")]
    Ended,
    #[error("{what} has {found}, expected {expected}")]
    WrongDigest {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("{message}")]
    Query { message: String, hint: String },
    #[error("the page token {0}")]
    Token(&'static str),
    #[error("the index {} cannot be used", path.display())]
    Index {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("reading the registry's records was interrupted")]
    Interrupted,
    #[error("the index {} is of another version of imagewright", path.display())]
    OtherIndex { path: PathBuf },
    #[error("the records of {place} cannot be read: {source}")]
    Unread {
        place: String,
        source: Box<RegistryError>,
    },
}

impl CatalogError {
    /// Whether the store's index has to be made anew.
    pub fn is_damaged(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::OtherIndex { .. } => true,
            Self::Index { source, .. } => match source {
                rusqlite::Error::SqliteFailure(failure, message) => {
                    let code = matches!(failure.code, DatabaseCorrupt | NotADatabase);
                    let message = message.as_deref().unwrap_or_default();
                    code || message.starts_with("no such ")
                }
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::QueryReturnedNoRows => true,
                _ => false,
            },
            _ => false,
        }
    }
}

impl Explain for CatalogError {
    fn kind(&self) -> Kind {
        match self {
            Self::Registry(error) => error.kind(),
            Self::Unread { source, .. } => source.kind(),
            Self::Store(error) => error.kind(),
            Self::Materialise(error) => error.kind(),
            Self::Layer { .. } => Kind::Unavailable,
            Self::NotPushed { .. } => Kind::NotFound,
            Self::Ended => Kind::Interrupted,
            Self::Protected { .. }
            | Self::Unvouched { .. }
            | Self::OtherImage { .. }
            | Self::Malformed { .. }
            | Self::WrongDigest { .. } => Kind::Refused,
            Self::Query { .. } | Self::Token(_) => Kind::Usage,
            Self::Index { .. } | Self::OtherIndex { .. } | Self::Interrupted => Kind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Materialise(error) => error.hint(),
            Self::Ended => None,
            Self::Protected { .. } => Some(
                "push under another tag (for example with a new `version`), or remove `protected` from the image".into(),
            ),
            Self::OtherImage { .. } => Some(
                "two builds of one lock differ, or somebody else put it there: compare the two before you trust either; a key's \
                 tag is never overwritten: if it is wrong, delete it in the registry, and push again"
                    .into(),
            ),
            Self::Unvouched { .. } => Some(
                "build the image here first, or have its digest in the lock; --trust-registry signs what the registry says".into(),
            ),
            Self::NotPushed { .. } => Some("run `imagewright push` first".into()),
            Self::Layer { .. } => Some(
                "something damages the store: point IMAGEWRIGHT_STORE to another folder, and build the image there".into(),
            ),
            Self::Malformed { .. } | Self::WrongDigest { .. } => Some(
                "somebody who can write to this registry put it there: do not trust it before you know who; if it is wrong, \
                 delete it in the registry, and push again"
                    .into(),
            ),
            Self::Query { hint, .. } => Some(hint.clone()),
            Self::Token(_) => Some("begin again without --page-token; a token goes with the filters of the page that it came with".into()),
            Self::Interrupted => Some("try again".into()),
            Self::Unread { source, .. } => Some(match **source {
                RegistryError::Status { .. } => {
                    "try again, or let --no-sync answer from what was read until now; a record that the registry itself \
                     cannot read any more can be deleted there: it is written anew when its image is pushed again"
                }
                _ => "try again, or let --no-sync answer from what was read of it before",
            }.into()),
            Self::Index { path, source } if no_room(path, source).is_some() => no_room(path, source),
            Self::Index { .. } | Self::OtherIndex { .. } => {
                Some("it can be removed: what it holds is read again from the registry".into())
            }
        }
    }
}
