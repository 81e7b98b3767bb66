//! Why a layer cannot be planned, made, streamed or unpacked.

use std::io;
use std::path::PathBuf;

use super::wheel::WheelError;
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::store::StoreError;

/// What can go wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A wheel cannot be read or is refused.
    #[error(transparent)]
    Wheel(#[from] WheelError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Two wheels cannot be installed side by side.
    #[error(
        "`/{path}` is a file in {file} and a folder in {folder}: these wheels cannot be in one image"
    )]
    Clash {
        /// Relative to the root.
        path: String,
        /// Wheel with the file.
        file: String,
        /// Wheel with the folder.
        folder: String,
    },
    /// A wheel that a layer needs is not in the store.
    #[error("the wheel {name} ({digest}) is not in the store")]
    MissingWheel {
        /// File name.
        name: String,
        /// Of the file.
        digest: Digest,
    },
    /// The store's bytes of a layer are not what they were.
    #[error("the layer `{comment}` has {found}, expected {expected}: {reason}")]
    Damaged {
        /// What the layer holds.
        comment: String,
        /// As recorded.
        expected: Digest,
        /// As found.
        found: Digest,
        /// Where to look.
        reason: &'static str,
    },
    /// A layer has neither recipe nor blob.
    #[error("the bytes of the layer `{comment}` ({digest}) are not in the store")]
    Missing {
        /// What the layer holds.
        comment: String,
        /// Of the blob.
        digest: Digest,
    },
    /// A layer's tar is refused.
    #[error("the layer `{comment}` is refused: its entry `{entry}` {reason}")]
    Entry {
        /// What the layer holds.
        comment: String,
        /// Path in the tar, escaped.
        entry: String,
        /// The end of the sentence.
        reason: String,
    },
    /// A layer's bytes are no tar, or compressed in a way that is not known.
    #[error("the layer `{comment}` cannot be read: {reason}")]
    Unreadable {
        /// What the layer holds.
        comment: String,
        /// What was found.
        reason: String,
    },
}

impl LayerError {
    /// Wraps an I/O error with what was done to which path of the store.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let wrap = StoreError::io(action, path);
        move |source| Self::Store(wrap(source))
    }
}

impl Explain for LayerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Wheel(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Clash { .. } => Kind::NoResolution,
            Self::MissingWheel { .. } | Self::Missing { .. } => Kind::Unavailable,
            Self::Damaged { .. } | Self::Entry { .. } | Self::Unreadable { .. } => Kind::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Wheel(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Clash { .. } => Some("leave one of the two out, or pin another version of it".into()),
            Self::MissingWheel { .. } | Self::Missing { .. } => {
                Some("run `imagewright build` again: it fetches what the store lacks".into())
            }
            Self::Damaged { .. } => Some(
                "what was damaged has been set aside; run `imagewright build` again to make it anew".into(),
            ),
            Self::Entry { .. } | Self::Unreadable { .. } => {
                Some("do not use the image that this layer comes from unless you know why it is so".into())
            }
        }
    }
}
