//! A mistake inside one value, before it is known where in which file the value stands.

use std::ops::Range;

/// What is wrong with a value, and which bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Bytes of the value; `None`: all of it.
    pub(super) range: Option<Range<usize>>,
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
    /// The value must not be shown.
    pub(super) secret: bool,
}

impl Mistake {
    pub(super) fn whole(message: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            range: None,
            message: message.into(),
            label: label.into(),
            help: None,
            secret: false,
        }
    }

    pub(super) fn at(
        range: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self {
            range: Some(range),
            ..Self::whole(message, label)
        }
    }

    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same mistake, with this help if it has none.
    #[must_use]
    pub(super) fn or_help(mut self, help: impl FnOnce() -> String) -> Self {
        self.help = Some(self.help.take().unwrap_or_else(help));
        self
    }

    #[must_use]
    pub(super) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The same mistake in a text that begins `by` bytes earlier.
    #[must_use]
    pub(super) fn shifted(mut self, by: usize) -> Self {
        self.range = self.range.map(|range| range.start + by..range.end + by);
        self
    }
}
