//! Why the catalog cannot be read or written.

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::registry::{ReferenceError, RegistryError};
use crate::store::StoreError;

/// Why the catalog cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum CatalogError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{what} is not a record that imagewright knows: {reason}")]
    Malformed { what: String, reason: String },
    #[error("{what} has {found}, expected {expected}")]
    WrongDigest {
        what: String,
        expected: Digest,
        found: Digest,
    },
}

impl Explain for CatalogError {
    fn kind(&self) -> Kind {
        match self {
            Self::Registry(error) => error.kind(),
            Self::Reference(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Malformed { .. } | Self::WrongDigest { .. } => Kind::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Reference(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Malformed { .. } | Self::WrongDigest { .. } => Some(
                "somebody who can write to this registry put it there: do not trust it before you know who".into(),
            ),
        }
    }
}
