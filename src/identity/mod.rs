//! The chain of identity: request key → layer keys → content key → image key.
//!
//! Every key is the SHA-256 of the canonical JSON (RFC 8785) of a versioned document; the documents are the types
//! of this module, and `schemas/identity/` tells them in prose with test vectors. Nothing here reads a file, the
//! environment or a clock. Names, tags, times and commits are in no document, so that two teams share.

mod config;
mod from_request;
mod layer;
mod request;

use serde::Serialize;

use crate::digest::Digest;

pub use config::{ConfigDocument, ContentDocument, ImageDocument};
pub use from_request::ProjectContent;
pub use layer::{LayerDocument, PythonDocument, UserDocument, WheelDocument};
pub use request::{
    BaseDocument, FetchDocument, FileDocument, IndexDocument, OsDocument, PipDocument,
    RequestDocument,
};

/// Version of the rules by which layers are emitted. A change of any emitted byte raises it.
pub const EMITTER_VERSION: u32 = 1;

/// Version of the rules by which OS layers are cleaned.
pub const CLEANING_VERSION: u32 = 1;

/// The key of a document: SHA-256 over its canonical JSON.
///
/// # Panics
/// Never for the documents of this module: they hold strings, integers, lists and string-keyed objects only.
pub fn key(document: &impl Serialize) -> Digest {
    Digest::of(canonical_json(document))
}

/// The canonical JSON (RFC 8785) of a document.
pub fn canonical_json(document: &impl Serialize) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(document).expect("identity documents are plain JSON values")
}
