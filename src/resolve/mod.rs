//! `Manifest` → `Lock`.
//!
//! Owns the questions to indexes, archives and registries that turn requirements into pins. Never writes images,
//! never prints. Each part has an error type of its own; [`ResolveError`] is any of them.

pub mod base;
pub mod debian;
pub mod python;

use crate::diagnostic::{Explain, Kind, Problem};

/// Why a manifest could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The Python requirements.
    #[error(transparent)]
    Python(#[from] python::PythonError),
}

impl ResolveError {
    fn inner(&self) -> &dyn Explain {
        match self {
            Self::Python(error) => error,
        }
    }
}

impl Explain for ResolveError {
    fn kind(&self) -> Kind {
        self.inner().kind()
    }
    fn hint(&self) -> Option<String> {
        self.inner().hint()
    }
    fn problems(&self) -> &[Problem] {
        self.inner().problems()
    }
}
