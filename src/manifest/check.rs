//! KDL document → nodes of the language, by the table alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use kdl::{KdlDocument, KdlEntry, KdlNode, KdlValue};

use super::language::{
    Argument, Children, Form, Place, Rule, Times, did_you_mean, places_of, rule, rules_of,
};
use super::node::{Node, Scalar, Value};
use super::report::Report;
use super::scalars::{number_form, secret, wrong_type};
use super::{secrets, values};
use crate::diagnostic::{Problem, SourceText, Span};

/// Checks the nodes of one place against the table.
pub(super) fn nodes(
    document: &KdlDocument,
    place: Place,
    source: &Arc<SourceText>,
    report: &mut Report,
) -> Vec<Node> {
    let mut checker = Checker { source, report };
    checker.nodes(document, place)
}

/// Holds a document against the table.
pub(super) struct Checker<'a> {
    pub(super) source: &'a Arc<SourceText>,
    pub(super) report: &'a mut Report,
}

impl Checker<'_> {
    fn nodes(&mut self, document: &KdlDocument, place: Place) -> Vec<Node> {
        let checked: Vec<Node> = document
            .nodes()
            .iter()
            .filter_map(|node| self.node(node, place))
            .collect();
        self.repeated(&checked);
        checked
    }

    pub(super) fn problem(
        &mut self,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.report
            .push(Problem::new(self.source, span, message, label).help(help));
    }

    /// Nodes that may stand once, and names that may be given once.
    fn repeated(&mut self, nodes: &[Node]) {
        let mut seen: BTreeMap<(&str, &str), Span> = BTreeMap::new();
        for node in nodes {
            let (key, span) = match node.argument(0) {
                Some(value) if node.rule.keyed => (value.text(), value.span),
                _ if node.rule.single => ("", node.span),
                _ => continue,
            };
            let Some(first) = seen.get(&(node.rule.name, key)) else {
                seen.insert((node.rule.name, key), span);
                continue;
            };
            let name = node.rule.name;
            let (message, help) = if key.is_empty() {
                (format!("`{name}` stands twice"), "keep one of the two")
            } else {
                (
                    format!("{name} `{}` is declared twice", values::shorten(key)),
                    "rename or remove one of the two",
                )
            };
            self.report.push(
                Problem::new(self.source, span, message, "again here")
                    .also(*first, "first here")
                    .help(help),
            );
        }
    }

    fn node(&mut self, node: &KdlNode, place: Place) -> Option<Node> {
        let name = node.name().value();
        let span = span_of(node.name().span());
        if let Some(ty) = node.ty() {
            self.type_annotation(span_of(ty.span()));
        }
        let Some(rule) = rule(name, place) else {
            self.unknown_node(name, span, place);
            return None;
        };
        let mut checked = Node {
            rule,
            source: Arc::clone(self.source),
            span,
            arguments: Vec::new(),
            properties: BTreeMap::new(),
            children: Vec::new(),
            axes: Vec::new(),
        };
        self.entries(node, &mut checked);
        self.children(node, &mut checked);
        Some(checked)
    }

    fn unknown_node(&mut self, name: &str, span: Span, place: Place) {
        let shown = values::shorten(name);
        let elsewhere: Vec<&str> = places_of(name).into_iter().map(Place::name).collect();
        if !elsewhere.is_empty() {
            let help = format!("it belongs {}", elsewhere.join(" or "));
            let message = format!("`{shown}` may not stand {}", place.name());
            return self.problem(span, message, "in the wrong place", help);
        }
        let everywhere = Place::ALL.into_iter().flat_map(rules_of);
        let help = match (meant(name, rules_of(place)), meant(name, everywhere)) {
            (Some(here), _) => format!("did you mean `{here}`?"),
            (None, Some(other)) => {
                let places: Vec<&str> = places_of(other).into_iter().map(Place::name).collect();
                format!("did you mean `{other}`? It belongs {}", places.join(" or "))
            }
            (None, None) => {
                let known: Vec<&str> = rules_of(place).map(|rule| rule.name).collect();
                format!("{} may stand {}", place.name(), known.join(", "))
            }
        };
        self.problem(
            span,
            format!("`{shown}` is not a node of the manifest"),
            "unknown node",
            help,
        );
    }

    fn type_annotation(&mut self, span: Span) {
        self.problem(
            span,
            "type annotations have no meaning in a manifest",
            "type annotation",
            "remove the parentheses and what stands in them",
        );
    }

    fn entries(&mut self, node: &KdlNode, checked: &mut Node) {
        let mut first_of: BTreeMap<String, Span> = BTreeMap::new();
        for entry in node.entries() {
            let value = self.value(entry);
            match entry.name() {
                None => self.argument(value, checked),
                Some(name) => {
                    let span = span_of(name.span());
                    if let Some(first) = first_of.get(name.value()) {
                        let message = format!(
                            "the property `{}` is given twice",
                            values::shorten(name.value())
                        );
                        self.report.push(
                            Problem::new(self.source, span, message, "again here")
                                .also(*first, "first here")
                                .help("keep one of the two"),
                        );
                        continue;
                    }
                    first_of.insert(name.value().to_owned(), span);
                    self.property(name.value(), span, value, checked);
                }
            }
        }
        self.missing(checked, &first_of);
        if checked.rule.name == "env" {
            self.secret_variable(checked);
        }
    }

    pub(super) fn value(&mut self, entry: &KdlEntry) -> Value {
        if let Some(ty) = entry.ty() {
            self.type_annotation(span_of(ty.span()));
        }
        let whole = span_of(entry.span());
        let written = entry
            .format()
            .map_or("", |format| format.value_repr.as_str());
        let end = whole.start + whole.len;
        let start = end.saturating_sub(written.len());
        let exact = self.source.text.get(start..end) == Some(written) && !written.is_empty();
        let span = if exact {
            Span::new(start, end - start)
        } else {
            whole
        };
        let scalar = match entry.value() {
            KdlValue::String(text) => Scalar::Text(text.clone()),
            KdlValue::Integer(number) => Scalar::Integer(*number),
            KdlValue::Float(_) => Scalar::Float(written.replace('_', "")),
            KdlValue::Bool(boolean) => Scalar::Boolean(*boolean),
            KdlValue::Null => Scalar::Null,
        };
        Value::new(self.source, span, scalar, if exact { written } else { "" })
    }

    fn argument(&mut self, value: Value, checked: &mut Node) {
        let at = checked.arguments.len();
        let declared = checked.rule.arguments;
        let argument = declared
            .get(at)
            .or_else(|| declared.last().filter(|last| last.times == Times::Many));
        match argument {
            Some(argument) => {
                let good = self.form(argument.form, &value);
                checked.arguments.push(good.then_some(value));
            }
            None => {
                let message = match declared.len() {
                    0 => format!("`{}` takes no arguments", checked.rule.name),
                    1 => format!("`{}` takes one argument", checked.rule.name),
                    n => format!("`{}` takes at most {n} arguments", checked.rule.name),
                };
                let help = match checked.rule.properties {
                    [] => format!("write `{}`", usage(checked.rule)),
                    _ => format!(
                        "write `{}`; properties are written as name=\"value\"",
                        usage(checked.rule)
                    ),
                };
                self.problem(value.span, message, "one too many", help);
            }
        }
    }

    fn property(&mut self, name: &str, span: Span, value: Value, checked: &mut Node) {
        let properties = checked.rule.properties;
        if let Some(property) = properties.iter().find(|property| property.name == name) {
            if self.form(property.form, &value) {
                checked.properties.insert(property.name, value);
            }
            return;
        }
        let known = properties.iter().map(|property| property.name);
        let help = match did_you_mean(name, known.clone()) {
            Some(meant) => format!("did you mean `{meant}=`?"),
            None if properties.is_empty() => format!(
                "`{}` has no properties; write `{}`",
                checked.rule.name,
                usage(checked.rule)
            ),
            None => format!(
                "`{}` knows {}",
                checked.rule.name,
                known
                    .map(|name| format!("{name}="))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        self.problem(
            span,
            format!(
                "`{}` has no property `{}`",
                checked.rule.name,
                values::shorten(name)
            ),
            "unknown property",
            help,
        );
    }

    fn missing(&mut self, checked: &Node, given: &BTreeMap<String, Span>) {
        let rule = checked.rule;
        for argument in rule.arguments.iter().skip(checked.arguments.len()) {
            if argument.times != Times::Optional {
                self.problem(
                    checked.span,
                    format!("`{}` lacks its {}", rule.name, argument.name),
                    format!("the {} is missing", argument.name),
                    format!("write `{}` with {}", usage(rule), argument.form.example()),
                );
            }
        }
        for property in rule.properties {
            if property.required && !given.contains_key(property.name) {
                self.problem(
                    checked.span,
                    format!("`{}` lacks `{}=`", rule.name, property.name),
                    format!("`{}=` is missing", property.name),
                    format!("write {}={}", property.name, quoted_example(property.form)),
                );
            }
        }
    }

    fn secret_variable(&mut self, checked: &Node) {
        let (Some(name), Some(value)) = (checked.argument(0), checked.argument(1)) else {
            return;
        };
        if !secrets::is_secret_name(name.text()) || secrets::is_harmless(value.text()) {
            return;
        }
        self.report.hide(self.source, value.span);
        self.problem(
            value.span,
            format!("`{}` looks like a secret", name.text()),
            "would be stored in the image for everybody to read",
            "remove it here and give it to the container when it runs: as a secret of the cluster, a mounted file, or `docker run --env`",
        );
    }

    /// Type, secrets and form of one value.
    pub(super) fn form(&mut self, form: Form, value: &Value) -> bool {
        if let Some(mistake) = wrong_type(form, value) {
            value.report(mistake, self.report);
            return false;
        }
        let checked = match &value.scalar {
            Scalar::Text(text) => match secrets::in_value(text) {
                Some((range, what)) => Err(secret(range, what)),
                None => values::check(form, text),
            },
            Scalar::Integer(number) => number_form(form, *number, &value.written),
            Scalar::Float(text) if form == Form::Cpu => values::check(form, text),
            _ => Ok(()),
        };
        match checked {
            Ok(()) => true,
            Err(mistake) => {
                value.report(mistake, self.report);
                false
            }
        }
    }

    fn children(&mut self, node: &KdlNode, checked: &mut Node) {
        let Some(document) = node.children() else {
            return;
        };
        match checked.rule.children {
            Children::Of(place) => checked.children = self.nodes(document, place),
            Children::Axes => self.axes(document, checked),
            Children::None => {
                let span = document
                    .nodes()
                    .first()
                    .map_or(checked.span, |child| span_of(child.name().span()));
                self.problem(
                    span,
                    format!("`{}` has no children", checked.rule.name),
                    "nothing may stand here",
                    format!("write `{}` without braces", usage(checked.rule)),
                );
            }
        }
    }
}

/// The node that was meant by its own name or one of its other names.
fn meant(written: &str, rules: impl Iterator<Item = &'static Rule>) -> Option<&'static str> {
    let names = rules.flat_map(|rule| {
        let aliases = rule.aliases.iter().map(move |alias| (*alias, rule.name));
        std::iter::once((rule.name, rule.name)).chain(aliases)
    });
    let names: Vec<(&str, &str)> = names.collect();
    let exact = names
        .iter()
        .find(|(alias, _)| *alias == written)
        .map(|(alias, _)| *alias);
    let found = exact.or_else(|| did_you_mean(written, names.iter().map(|(alias, _)| *alias)))?;
    names
        .iter()
        .find(|(alias, _)| *alias == found)
        .map(|(_, name)| *name)
}

fn usage(rule: &Rule) -> String {
    let mut text = rule.name.to_owned();
    for Argument { name, form, times } in rule.arguments {
        match times {
            _ if *form == Form::Boolean => text.push_str(" #true"),
            Times::Once => text.push_str(&format!(" \"{name}\"")),
            Times::Optional => text.push_str(&format!(" [\"{name}\"]")),
            Times::Many => text.push_str(&format!(" \"{name}\" …")),
        }
    }
    text
}

/// The part of a form's example from its first quote on.
fn quoted_example(form: Form) -> String {
    let example = form.example();
    match example.find('"') {
        Some(at) => example[at..].to_owned(),
        None => format!("\"…\" ({example})"),
    }
}

/// The parser's span in our terms; it counts bytes.
pub(super) fn span_of(span: miette::SourceSpan) -> Span {
    Span::new(span.offset(), span.len())
}
