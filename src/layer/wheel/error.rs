//! Why a wheel cannot become a layer.

use std::io;
use std::sync::Arc;

use crate::diagnostic::{Explain, Kind};

/// A wheel that cannot be read, or that is refused. Names the wheel, and the entry where one is to blame.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// The file cannot be read.
    #[error("cannot read the wheel {wheel}")]
    Io {
        /// File name of the wheel.
        wheel: Arc<str>,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The archive as a whole is not acceptable.
    #[error("the wheel {wheel} is refused: {reason}")]
    Wheel {
        /// File name of the wheel.
        wheel: Arc<str>,
        /// What is the matter.
        reason: String,
    },
    /// One entry is not acceptable.
    #[error("the wheel {wheel} is refused: its entry `{entry}` {reason}")]
    Entry {
        /// File name of the wheel.
        wheel: Arc<str>,
        /// The entry's name, control characters escaped.
        entry: String,
        /// What is the matter, as the end of a sentence that begins with the entry.
        reason: String,
    },
}

impl WheelError {
    /// An entry is to blame.
    pub(super) fn entry(wheel: &Arc<str>, entry: &str, reason: impl Into<String>) -> Self {
        Self::Entry {
            wheel: Arc::clone(wheel),
            entry: shown(entry),
            reason: reason.into(),
        }
    }

    /// The archive is to blame.
    pub(super) fn wheel(wheel: &Arc<str>, reason: impl Into<String>) -> Self {
        Self::Wheel {
            wheel: Arc::clone(wheel),
            reason: reason.into(),
        }
    }

    /// Wraps an I/O error; an unexpected end is the wheel's fault.
    pub(super) fn io(wheel: &Arc<str>) -> impl FnOnce(io::Error) -> Self {
        let wheel = Arc::clone(wheel);
        move |source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::wheel(&wheel, "it is truncated"),
            _ => Self::Io { wheel, source },
        }
    }
}

/// A name from an archive, safe to show: control characters escaped, at most 200 characters.
pub(in crate::layer) fn shown(name: &str) -> String {
    let mut text: String = name
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(200).is_some() {
        text.push('…');
    }
    text
}

impl Explain for WheelError {
    fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } => Kind::Unavailable,
            Self::Wheel { .. } | Self::Entry { .. } => Kind::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { .. } => None,
            Self::Wheel { .. } | Self::Entry { .. } => Some(
                "the wheel does not follow the packaging specifications, or it is hostile: pin another version of it, or ask its authors for a correct one".into(),
            ),
        }
    }
}
