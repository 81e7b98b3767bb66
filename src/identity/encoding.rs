//! How documents become bytes and keys, and how stored documents are read back.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;

/// The largest integer that every JSON implementation keeps exactly (RFC 7493, section 2.2): 2^53 − 1.
pub const MAX_INTEGER: i64 = 9_007_199_254_740_991;

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

/// Reads a stored document of version `version`. Only canonical bytes are accepted, so that the key of what was read
/// is the SHA-256 of what was stored.
pub fn read<T: Serialize + DeserializeOwned>(
    stored: &[u8],
    version: u32,
) -> Result<T, DocumentError> {
    let value: serde_json::Value = serde_json::from_slice(stored)?;
    let found = value.get("v").cloned().unwrap_or_default();
    if found != version {
        return Err(DocumentError::Version {
            found: found.to_string().chars().take(40).collect(),
            version,
        });
    }
    let document: T = serde_json::from_slice(stored)?;
    if canonical_json(&document) != stored {
        return Err(DocumentError::NotCanonical);
    }
    Ok(document)
}

/// Why a stored identity document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or a field is unknown, missing or of another type.
    #[error("the stored identity document is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version of imagewright.
    #[error(
        "the stored identity document has version {found}; this imagewright reads version {version}"
    )]
    Version {
        /// What its field `v` holds, as JSON.
        found: String,
        /// What was expected.
        version: u32,
    },
    /// Other bytes than those that its key was computed over.
    #[error(
        "the stored identity document is not canonical JSON (RFC 8785), so its key cannot be checked"
    )]
    NotCanonical,
}

impl Explain for DocumentError {
    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Version { .. } => {
                "use the imagewright that wrote it, or build the image anew".into()
            }
            Self::Malformed(_) | Self::NotCanonical => {
                "it is damaged or was not written by imagewright; build the image anew".into()
            }
        })
    }
}

/// Writes a set as the specification orders it: by the members' canonical JSON, byte by byte.
pub(super) fn set<T: Serialize, S: Serializer>(
    members: &BTreeSet<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut encoded: Vec<(Vec<u8>, &T)> = members
        .iter()
        .map(|member| (canonical_json(member), member))
        .collect();
    encoded.sort_by(|a, b| a.0.cmp(&b.0));
    serializer.collect_seq(encoded.into_iter().map(|(_, member)| member))
}
