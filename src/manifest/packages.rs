//! `pip`, `constraint`, `override` and `pip-from` nodes → requirements.

use std::sync::Arc;

use super::merge::Merger;
use super::model::{PipRequirement, Spanned};
use super::node::{Node, Value};
use super::requirements_file::{self, Requirements};
use super::{paths, requirement};
use crate::diagnostic::{Problem, Span};

impl Merger<'_> {
    /// `pip`, `override` and `constraint` share their form.
    pub(super) fn pip(&mut self, node: &Node) -> Option<Spanned<PipRequirement>> {
        let first = node.argument(0)?;
        let mut parsed = requirement::parse(first.text()).ok()?;
        if let Some(specifier) = node.argument(1) {
            if !parsed.specifiers.is_empty() {
                let problem = Problem::new(
                    &node.source,
                    specifier.span,
                    format!("`{}` has two specifiers", parsed.name),
                    "the second one",
                );
                self.report.push(
                    problem
                        .also(first.span, "the first one is in here")
                        .help("write all specifiers into one string, separated by commas"),
                );
                return None;
            }
            parsed.specifiers = requirement::specifiers(specifier.text()).ok()?;
        }
        let wheel = match node.property("wheel") {
            Some(wheel) => Some(self.wheel(node, wheel, &parsed)?),
            None => None,
        };
        let pip = PipRequirement {
            pep508: parsed.canonical(),
            name: parsed.name,
            index: node.property("index").map(|value| value.text().to_owned()),
            wheel,
            hashes: Vec::new(),
            constraint: false,
        };
        Some(Spanned {
            value: pip,
            source: Arc::clone(&node.source),
            span: node.arguments_span(),
        })
    }

    fn wheel(
        &mut self,
        node: &Node,
        wheel: &Value,
        parsed: &requirement::Requirement,
    ) -> Option<String> {
        let mut refuse = |span: Span, message: String, label: &str, help: String| {
            self.report
                .push(Problem::new(&node.source, span, message, label).help(help));
            None
        };
        let (path, name) = paths::wheel(wheel.text()).ok()?;
        if let Some(index) = node.property("index") {
            return refuse(
                index.span,
                format!("`{}` comes from a wheel and from an index", parsed.name),
                "an index has nothing to serve here",
                "remove index= or wheel=".into(),
            );
        }
        if !parsed.specifiers.is_empty() {
            let span = node
                .argument(1)
                .or(node.argument(0))
                .map_or(node.span, |value| value.span);
            return refuse(
                span,
                format!("`{}` has a wheel and a specifier", parsed.name),
                "the wheel's name says the version",
                "remove the specifier".into(),
            );
        }
        if name != parsed.name {
            return refuse(
                wheel.span,
                format!("the wheel is of `{name}`, not of `{}`", parsed.name),
                "another package's wheel",
                format!("write pip \"{name}\", or name another wheel"),
            );
        }
        Some(path)
    }

    pub(super) fn constraint(&mut self, node: &Node) -> Option<Spanned<PipRequirement>> {
        let mut pip = self.pip(node)?;
        let first = node.argument(0)?;
        let parsed = requirement::parse(first.text()).ok()?;
        let refused = if !parsed.extras.is_empty() {
            Some((
                "a constraint has extras",
                "extras install something; a constraint does not",
                "remove the brackets",
            ))
        } else if parsed.specifiers.is_empty() && node.argument(1).is_none() {
            Some((
                "the constraint has no specifier",
                "constrains nothing",
                "write the versions that count, for example constraint \"numpy\" \"<2\"",
            ))
        } else {
            None
        };
        if let Some((message, label, help)) = refused {
            self.report
                .push(Problem::new(&node.source, first.span, message, label).help(help));
            return None;
        }
        pip.value.constraint = true;
        Some(pip)
    }

    pub(super) fn requirements(&mut self, node: &Node) -> Option<Requirements> {
        let path = node.argument(0)?;
        if let Some(read) = self.cache.get(path.text()) {
            return Some(read.clone());
        }
        let read = requirements_file::read(path, self.files, self.report);
        self.cache.insert(path.text().to_owned(), read.clone());
        Some(read)
    }
}
