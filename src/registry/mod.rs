//! OCI distribution client: references, credentials, pull and push. Knows nothing of locks and of how images are resolved;
//! prints nothing. Errors and log lines carry no credentials and no query strings.

mod auth;
mod body;
mod challenge;
mod client;
mod credentials;
mod document;
mod error;
mod grants;
mod manifests;
mod pages;
mod pull;
mod push;
mod reference;
mod referrers;
mod retry;
mod silence;
mod standstill;
mod tags;
mod transfers;
mod upload;

pub use body::BlobContent;
pub use client::Registry;
pub use credentials::{Credential, CredentialError, Credentials};
pub use error::RegistryError;
pub use pull::Repository;
pub use push::Put;
pub use reference::{Reference, ReferenceError};
pub use transfers::Transfers;
