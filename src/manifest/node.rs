//! Nodes after the language table has accepted them: values with the bytes that they stand at.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::language::Rule;
use super::mistake::Mistake;
use super::model::Spanned;
use super::report::Report;
use crate::diagnostic::{SourceText, Span};

/// What a value says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Text(String),
    Integer(i128),
    /// As written.
    Float(String),
    Boolean(bool),
    Null,
}

/// One argument's or property's value.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) source: Arc<SourceText>,
    /// The value's own bytes, quotes included, without a property's name.
    pub(super) span: Span,
    pub(super) scalar: Scalar,
    /// As written.
    pub(super) written: String,
    /// For each byte of a text (and its end) the byte in the file; `None` where that cannot be told.
    offsets: Option<Vec<usize>>,
}

impl Value {
    pub(super) fn new(source: &Arc<SourceText>, span: Span, scalar: Scalar, written: &str) -> Self {
        let offsets = match &scalar {
            Scalar::Text(text) => offsets(written, text, span.start),
            _ => None,
        };
        Self {
            source: Arc::clone(source),
            span,
            scalar,
            written: written.to_owned(),
            offsets,
        }
    }

    /// The text; empty for other types.
    pub(super) fn text(&self) -> &str {
        match &self.scalar {
            Scalar::Text(text) => text,
            _ => "",
        }
    }

    /// Where bytes of the text stand in the file.
    pub(super) fn within(&self, range: Range<usize>) -> Option<Span> {
        let offsets = self.offsets.as_ref()?;
        let (start, end) = (*offsets.get(range.start)?, *offsets.get(range.end)?);
        (start <= end && !(range.is_empty() && offsets.len() == 1))
            .then(|| Span::new(start, end - start))
    }

    pub(super) fn report(&self, mistake: Mistake, report: &mut Report) {
        report.mistake(&self.source, self.span, mistake, |range| self.within(range));
    }

    pub(super) fn spanned<T>(&self, value: T) -> Spanned<T> {
        Spanned {
            value,
            source: Arc::clone(&self.source),
            span: self.span,
        }
    }
}

/// A node that the language knows. Values that were wrong are reported and absent.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) rule: &'static Rule,
    pub(super) source: Arc<SourceText>,
    /// Of the node's name.
    pub(super) span: Span,
    pub(super) arguments: Vec<Option<Value>>,
    pub(super) properties: BTreeMap<&'static str, Value>,
    pub(super) children: Vec<Node>,
    /// The axes of a `matrix`.
    pub(super) axes: Vec<Axis>,
}

/// An axis of a matrix.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) values: Vec<String>,
}

impl Node {
    /// The argument at that place, if it is there and right.
    pub(super) fn argument(&self, at: usize) -> Option<&Value> {
        self.arguments.get(at).and_then(Option::as_ref)
    }

    pub(super) fn property(&self, name: &str) -> Option<&Value> {
        self.properties.get(name)
    }

    /// The children of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children
            .iter()
            .filter(move |child| child.rule.name == name)
    }

    pub(super) fn first(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.rule.name == name)
    }

    /// From the first to the last argument, else the node's name.
    pub(super) fn arguments_span(&self) -> Span {
        let mut present = self.arguments.iter().flatten();
        let Some(first) = present.next() else {
            return self.span;
        };
        let last = present.next_back().unwrap_or(first);
        Span::new(
            first.span.start,
            last.span.start + last.span.len - first.span.start,
        )
    }
}

/// For each byte of `text` its byte in the file, where `written` (as KDL writes it) stands at `start`.
fn offsets(written: &str, text: &str, start: usize) -> Option<Vec<usize>> {
    let hashes = written.bytes().take_while(|byte| *byte == b'#').count();
    let body = &written[hashes..];
    if body.starts_with("\"\"\"") && body.len() > 3 {
        return None;
    }
    let quoted = body.starts_with('"');
    let inner = if quoted {
        body.get(1..body.len().checked_sub(1 + hashes)?)?
    } else {
        body
    };
    let first = start + hashes + usize::from(quoted);
    if inner == text {
        return Some((first..=first + text.len()).collect());
    }
    if hashes > 0 || !quoted {
        return None;
    }
    let (decoded, map) = unescape(inner, first)?;
    (decoded == text).then_some(map)
}

fn unescape(inner: &str, first: usize) -> Option<(String, Vec<usize>)> {
    let mut out = String::new();
    let mut map = Vec::new();
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        let at = first + inner.len() - rest.len();
        let (decoded, len) = if c == '\\' {
            escape(rest)?
        } else {
            (Some(c), c.len_utf8())
        };
        if let Some(decoded) = decoded {
            out.push(decoded);
            map.extend(std::iter::repeat_n(at, decoded.len_utf8()));
        }
        rest = &rest[len..];
    }
    map.push(first + inner.len());
    Some((out, map))
}

/// The character that an escape stands for (none for escaped white space), and the escape's length.
fn escape(rest: &str) -> Option<(Option<char>, usize)> {
    let second = rest[1..].chars().next()?;
    let plain = match second {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '\\' => '\\',
        '"' => '"',
        'b' => '\u{8}',
        'f' => '\u{c}',
        's' => ' ',
        'u' => {
            let end = rest.find('}')?;
            let code = u32::from_str_radix(rest.get(3..end)?, 16).ok()?;
            return Some((Some(char::from_u32(code)?), end + 1));
        }
        c if c.is_whitespace() => {
            let tail = rest[1..].trim_start();
            return Some((None, rest.len() - tail.len()));
        }
        _ => return None,
    };
    Some((Some(plain), 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_value_are_found_in_the_file_through_escapes() {
        for (written, text, part, expected) in [
            ("\"añb\"", "añb", 3..4, "b"),
            ("\"\\u{e9}b\"", "éb", 0..2, "\\u{e9}"),
            ("\"\\u{e9}b\"", "éb", 2..3, "b"),
            ("\"a\\tb\"", "a\tb", 2..3, "b"),
            ("#\"a\"b\"#", "a\"b", 2..3, "b"),
            ("bare", "bare", 1..3, "ar"),
            ("\"a\\   b\"", "ab", 1..2, "b"),
        ] {
            let value = Value::new(
                &SourceText::new("x", written),
                Span::new(0, written.len()),
                Scalar::Text(text.into()),
                written,
            );
            let span = value.within(part).unwrap();
            assert_eq!(
                &written[span.start..span.start + span.len],
                expected,
                "{written}"
            );
        }
    }
}
