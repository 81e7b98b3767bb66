//! The axes of a `matrix`: node names are free there.

use std::collections::BTreeMap;

use kdl::{KdlDocument, KdlNode};

use super::check::{Checker, span_of};
use super::language::Form;
use super::node::{Axis, Node, Scalar};
use super::values;
use crate::diagnostic::{Problem, Span};

impl Checker<'_> {
    /// Reads the axes of a `matrix`.
    pub(super) fn axes(&mut self, document: &KdlDocument, checked: &mut Node) {
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        for node in document.nodes() {
            let name = node.name().value();
            let span = span_of(node.name().span());
            let mut letters = name.chars();
            let good = letters.next().is_some_and(|c| c.is_ascii_lowercase())
                && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !good || name.len() > 64 {
                self.problem(
                    span,
                    format!("`{}` is not the name of an axis", values::shorten(name)),
                    "not an axis name",
                    "write lower-case letters, digits and `_`, beginning with a letter",
                );
                continue;
            }
            if let Some(first) = seen.get(name) {
                self.report.push(
                    Problem::new(
                        self.source,
                        span,
                        format!("the axis `{name}` is declared twice"),
                        "again here",
                    )
                    .also(*first, "first here")
                    .help("write all values behind one name"),
                );
                continue;
            }
            seen.insert(name.to_owned(), span);
            if let Some(child) = node
                .children()
                .and_then(|children| children.nodes().first())
            {
                self.problem(
                    span_of(child.name().span()),
                    "an axis has no children",
                    "nothing may stand here",
                    format!("write the values behind the name: {name} 1 2 3"),
                );
            }
            let values = self.axis_values(node, name, span);
            checked.axes.push(Axis {
                name: name.to_owned(),
                values,
            });
        }
        if document.nodes().is_empty() {
            self.problem(
                checked.span,
                "the matrix has no axes",
                "nothing stands in it",
                "write for example `matrix { seed 1 2 3 }`, or remove it",
            );
        }
        let cells = checked.axes.iter().try_fold(1_usize, |cells, axis| {
            cells.checked_mul(axis.values.len().max(1))
        });
        if cells.is_none_or(|cells| cells > 10_000) {
            self.problem(
                checked.span,
                "the matrix has more than 10000 cells",
                "too many runs",
                "shorten an axis, or split the run",
            );
        }
    }

    fn axis_values(&mut self, node: &KdlNode, name: &str, span: Span) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut spans: BTreeMap<String, Span> = BTreeMap::new();
        for entry in node.entries() {
            let value = self.value(entry);
            if let Some(property) = entry.name() {
                self.problem(
                    span_of(property.span()),
                    format!("the axis `{name}` has no properties"),
                    "not a value",
                    format!("write the values one after another: {name} 1 2 3"),
                );
                continue;
            }
            let text = match &value.scalar {
                Scalar::Text(_) if !self.form(Form::Word, &value) => continue,
                Scalar::Text(text) | Scalar::Float(text) => text.clone(),
                Scalar::Integer(number) => number.to_string(),
                Scalar::Boolean(boolean) => boolean.to_string(),
                Scalar::Null => {
                    self.problem(
                        value.span,
                        format!("`#null` is not a value of the axis `{name}`"),
                        "no value",
                        "write a string, a number, #true or #false",
                    );
                    continue;
                }
            };
            if let Some(first) = spans.get(&text) {
                self.report.push(
                    Problem::new(
                        self.source,
                        value.span,
                        format!(
                            "the axis `{name}` has the value `{}` twice",
                            values::shorten(&text)
                        ),
                        "again here",
                    )
                    .also(*first, "first here")
                    .help("remove one of the two"),
                );
                continue;
            }
            spans.insert(text.clone(), value.span);
            all.push(text);
        }
        if node.entries().is_empty() {
            self.problem(
                span,
                format!("the axis `{name}` has no values"),
                "no values",
                format!("write the values behind the name: {name} 1 2 3"),
            );
        }
        all
    }
}
