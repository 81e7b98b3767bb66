//! `{axis}` in commands, environments and names of runs; `{{` and `}}` stand for braces.

use std::collections::BTreeMap;
use std::ops::Range;

use super::model::RunSpec;

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Literal(&'t str),
    Axis(&'t str, Range<usize>),
    /// A brace that neither belongs to an axis nor is doubled.
    Stray(Range<usize>),
}

/// Cuts a template into its parts.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(len) = text[at..].find(['{', '}']) {
        if len > 0 {
            all.push(Piece::Literal(&text[at..at + len]));
        }
        at += len;
        let rest = &text[at..];
        let used = if rest.starts_with("{{") || rest.starts_with("}}") {
            all.push(Piece::Literal(&rest[..1]));
            2
        } else {
            match axis(rest) {
                Some(name) => {
                    all.push(Piece::Axis(name, at + 1..at + 1 + name.len()));
                    name.len() + 2
                }
                None => {
                    all.push(Piece::Stray(at..at + 1));
                    1
                }
            }
        };
        at += used;
    }
    if at < text.len() {
        all.push(Piece::Literal(&text[at..]));
    }
    all
}

fn axis(rest: &str) -> Option<&str> {
    let inner = rest.strip_prefix('{')?;
    let name = &inner[..inner.find('}')?];
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    (!name.is_empty() && name.chars().all(word)).then_some(name)
}

/// `template` with each `{axis}` replaced by the cell's value, and `{{`, `}}` by single braces.
pub fn expand(template: &str, cell: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(template.len());
    for piece in pieces(template) {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Axis(name, range) => match cell.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&template[range.start - 1..range.end + 1]),
            },
            Piece::Stray(range) => out.push_str(&template[range]),
        }
    }
    out
}

/// The cells of a run's matrix, axis name → value: the first declared axis varies slowest. One empty cell without a matrix.
pub fn cells(run: &RunSpec) -> Vec<BTreeMap<String, String>> {
    let mut all = vec![BTreeMap::new()];
    for (axis, values) in &run.matrix {
        all = all
            .into_iter()
            .flat_map(|cell| values.iter().map(move |value| (cell.clone(), value)))
            .map(|(mut cell, value)| {
                cell.insert(axis.clone(), value.clone());
                cell
            })
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_replaced_and_doubled_braces_are_not() {
        let cell = BTreeMap::from([("seed".to_owned(), "{1}".to_owned())]);
        for (template, expanded) in [
            ("--seed={seed}", "--seed={1}"),
            ("{{seed}}", "{seed}"),
            ("{{{seed}}}", "{{1}}"),
            ("ü{seed}ü", "ü{1}ü"),
            ("{other} { }", "{other} { }"),
        ] {
            assert_eq!(expand(template, &cell), expanded, "{template}");
        }
    }
}
