//! What every error of imagewright has: a kind (which decides the exit code), a message, and a hint.
//!
//! Modules define `thiserror` enums and implement [`Explain`] for them. A mistake in a text file is a
//! [`Problem`]: it knows the file, the span and what to write instead, and many are collected into
//! [`Problems`] so that one pass reports them all. Nothing here prints.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why the command ends, and with which exit code. The codes are part of the command's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// 1: a declared run failed; imagewright itself did its work.
    RunFailed = 1,
    /// 2: the manifest or the command line is wrong.
    Usage = 2,
    /// 3: the requirements have no solution.
    NoResolution = 3,
    /// 4: network, registry, disk or runtime; worth a retry.
    Unavailable = 4,
    /// 5: the lock is out of date and `--locked` forbids to change it.
    LockOutOfDate = 5,
    /// 6: credentials are missing or not sufficient.
    Unauthorised = 6,
    /// 7: refused by policy or trust: a wrong hash, a bad signature, a hostile archive.
    Refused = 7,
    /// 8: what was asked for does not exist.
    NotFound = 8,
    /// 70: a bug of imagewright.
    Bug = 70,
    /// 130: interrupted.
    Interrupted = 130,
}

impl Kind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// Whether a character can steer a terminal, break a line, or reorder or hide text.
pub fn is_wild(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// A number of things, for people: `1 record`, `2 records`.
pub fn counted(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}

/// An error that knows its kind and what its reader can do about it.
pub trait Explain: Error + Send + Sync + 'static {
    /// Decides the exit code.
    fn kind(&self) -> Kind;

    /// What to do about it; never repeated inside the message.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Mistakes in text files, with spans, when the error consists of such.
    fn problems(&self) -> &[Problem] {
        &[]
    }
}

/// A text file as the user knows it.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceText {
    /// The path to show.
    pub name: String,
    /// The whole text, UTF-8.
    pub text: String,
}

impl SourceText {
    /// Shares a text under the name that messages show.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            text: text.into(),
        })
    }
}

/// A range of bytes (not characters) of a [`SourceText`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Span {
    /// `len` bytes from byte `start` on.
    pub fn new(start: usize, len: usize) -> Self {
        Self { start, len }
    }
}

/// One mistake in a text file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Decides the exit code.
    pub kind: Kind,
    /// What was found.
    pub message: String,
    /// The file.
    pub source_text: Arc<SourceText>,
    /// Where, and what is the matter there; the first label is the main one.
    pub labels: Vec<(Span, String)>,
    /// What to write instead.
    pub help: Option<String>,
}

impl Problem {
    /// A mistake of the manifest's author (exit code 2) with one label.
    pub fn new(
        source_text: &Arc<SourceText>,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self {
            kind: Kind::Usage,
            message: message.into(),
            source_text: Arc::clone(source_text),
            labels: vec![(span, label.into())],
            help: None,
        }
    }

    /// Says what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a second place that belongs to the mistake.
    #[must_use]
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.labels.push((span, label.into()));
        self
    }

    /// Changes the kind.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }
}

impl miette::Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as _)
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&*self.source_text)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().map(|(span, text)| {
            miette::LabeledSpan::new(Some(text.clone()), span.start, span.len)
        })))
    }
}

impl miette::SourceCode for SourceText {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let inner = self.text.as_str().read_span(span, before, after)?;
        Ok(Box::new(miette::MietteSpanContents::new_named(
            self.name.clone(),
            inner.data(),
            *inner.span(),
            inner.line(),
            inner.column(),
            inner.line_count(),
        )))
    }
}

/// All mistakes of one pass over one or more text files; never empty when returned as an error.
#[derive(Clone, Debug, Default, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// `value` if no mistake was found, else all of them.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "{one}"),
            many => f.write_str(&counted(many.len(), "mistake")),
        }
    }
}

impl Explain for Problems {
    fn kind(&self) -> Kind {
        self.0.first().map_or(Kind::Usage, |problem| problem.kind)
    }
    fn problems(&self) -> &[Problem] {
        &self.0
    }
}
