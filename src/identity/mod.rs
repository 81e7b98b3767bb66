//! The chain of identity: request key → set key → layer keys → content key → image key.
//!
//! Every key is the SHA-256 of the canonical JSON (RFC 8785) of a versioned document; the documents are the types
//! of this module, and `schemas/identity/` tells them in prose with test vectors. [`explain`](explain()) and its
//! siblings tell two documents apart in words. Nothing here reads a file, the environment or a clock. Names, tags,
//! times and commits are in no document, so that two teams share.

mod cache;
mod config;
mod encoding;
mod explain;
mod from_request;
mod layer;
mod request;
mod set;

pub use cache::CacheDocument;
pub use config::{ConfigDocument, ContentDocument, ImageDocument};
pub use encoding::{DocumentError, MAX_INTEGER, canonical_json, key, read};
pub use explain::{
    Difference, KeyKind, LayerComparison, explain, explain_config, explain_content, explain_layers,
    explain_set,
};
pub use from_request::{MissingContent, ProjectContent, canonical_url};
pub use layer::{LayerDocument, PythonDocument, UserDocument, WheelDocument};
pub use request::{
    BaseDocument, FetchDocument, FileDocument, OsDocument, PipDocument, RequestDocument,
    WheelFileDocument,
};
pub use set::{SetBase, SetDocument, SetPython};

/// Version of the rules by which layers and image configurations are emitted. A change of any emitted byte raises it.
pub const EMITTER_VERSION: u32 = 1;

/// Version of the rules by which OS layers are cleaned.
pub const CLEANING_VERSION: u32 = 1;
