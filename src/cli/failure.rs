//! How an error leaves the command: its message, where, what to do, and the exit code.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::bars::neutral_lines;
use crate::diagnostic::{Explain, Kind, Problem, counted};
use crate::store::is_full;

/// What to do when the disk of a file is full that the error names.
const NO_ROOM: &str = "that disk is full: free some space there; `imagewright gc` removes from the store what nothing needs";

/// An error on its way out of the command.
#[derive(Debug)]
pub struct Failure {
    error: Box<dyn Explain>,
}

impl<E: Explain> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            error: Box::new(error),
        }
    }
}

/// An error that only the command knows, for example a name that nothing has.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Plain {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Explain for Plain {
    fn kind(&self) -> Kind {
        self.kind
    }
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl Plain {
    /// An error of the command itself; an empty hint is none.
    pub fn new(kind: Kind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self {
            kind,
            message: message.into(),
            hint: (!hint.is_empty()).then_some(hint),
        }
    }
}

impl Failure {
    /// An error of the command itself.
    pub fn plain(kind: Kind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Plain::new(kind, message, hint).into()
    }

    /// A file of the user's that cannot be written; the hint is for whatever is not want of room.
    pub fn unwritten(path: &Path, error: &io::Error, hint: &str) -> Self {
        Self::plain(
            Kind::Unavailable,
            format!("cannot write {}: {error}", path.display()),
            if is_full(error) { NO_ROOM } else { hint },
        )
    }

    /// Decides the exit code.
    pub fn kind(&self) -> Kind {
        self.error.kind()
    }

    /// For people: the message with its causes, spans and hint.
    pub fn render(&self, colour: bool) -> String {
        let problems = self.error.problems();
        if !problems.is_empty() {
            return render_problems(problems, colour);
        }
        let mut out = format!("error: {}", self.error);
        for cause in self.causes() {
            let _ = write!(out, "\n  because: {cause}");
        }
        if let Some(hint) = self.hint() {
            let _ = write!(out, "\n  help: {hint}");
        }
        out.push('\n');
        neutral_lines(&out)
    }

    /// What to do about it; for want of room the same, whatever was written.
    fn hint(&self) -> Option<String> {
        let full = || {
            let mut cause = self.error.source();
            while let Some(error) = cause {
                if error.downcast_ref().is_some_and(is_full) {
                    return Some(NO_ROOM.to_owned());
                }
                cause = error.source();
            }
            None
        };
        self.error.hint().or_else(full)
    }

    /// The causes whose text does not stand in the message before them already.
    fn causes(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut last = self.error.to_string();
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !last.contains(&text) {
                found.push(text.clone());
            }
            last = text;
            cause = error.source();
        }
        found
    }

    /// For programs: what `--json` prints on standard error.
    pub fn to_json(&self) -> ErrorDocument {
        let kind = self.kind();
        let problems = self.error.problems().iter().map(|problem| {
            let (span, label) = problem.labels.first().cloned().unwrap_or_default();
            let before = problem.source_text.text.get(..span.start).unwrap_or("");
            ProblemDocument {
                message: problem.message.clone(),
                file: problem.source_text.name.clone(),
                line: before.matches('\n').count() + 1,
                start: span.start,
                length: span.len,
                label,
                help: problem.help.clone(),
            }
        });
        ErrorDocument {
            error: ErrorBody {
                code: kind.exit_code(),
                kind: format!("{kind:?}"),
                message: std::iter::once(self.error.to_string())
                    .chain(self.causes())
                    .collect::<Vec<_>>()
                    .join(": "),
                hint: self.hint(),
                problems: problems.collect(),
            },
        }
    }
}

/// What `--json` prints when a command fails.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ErrorDocument {
    /// The error.
    pub error: ErrorBody,
}

/// The error.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ErrorBody {
    /// The exit code.
    pub code: u8,
    /// The exit code's name.
    pub kind: String,
    /// What was found.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Mistakes in text files.
    pub problems: Vec<ProblemDocument>,
}

/// One mistake in a text file.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ProblemDocument {
    /// What was found.
    pub message: String,
    /// In which file.
    pub file: String,
    /// In which line, from 1.
    pub line: usize,
    /// First byte of the span.
    pub start: usize,
    /// Length of the span in bytes.
    pub length: usize,
    /// What is the matter there.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
}

fn render_problems(problems: &[Problem], colour: bool) -> String {
    let theme = if colour {
        miette::GraphicalTheme::unicode()
    } else {
        miette::GraphicalTheme::unicode_nocolor()
    };
    let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(110);
    let mut out = String::new();
    for problem in problems {
        if handler.render_report(&mut out, problem).is_err() {
            let _ = writeln!(out, "error: {problem}");
        }
        out.push('\n');
    }
    if problems.len() > 1 {
        let _ = writeln!(out, "{}", counted(problems.len(), "mistake"));
    }
    out
}
