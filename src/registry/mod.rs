//! OCI distribution client: references, credentials, pull and push. Knows nothing of locks and of how images are resolved;
//! prints nothing. Errors and log lines carry no credentials and no query strings.

mod blob;
mod challenge;
mod client;
mod credentials;
mod document;
mod error;
mod reference;

pub use blob::{BlobContent, Put};
pub use client::{Registry, Repository};
pub use credentials::{Credential, CredentialError, Credentials};
pub use error::RegistryError;
pub use reference::{Reference, ReferenceError};
