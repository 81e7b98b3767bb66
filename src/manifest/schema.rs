//! The language table as a document of the KDL schema language, for editors.

use std::fmt::Write as _;

use super::language::{Argument, Children, Form, Place, Property, Rule, Times, rules_of};

/// The text of `schemas/imagewright.kdl-schema`, in the KDL schema language 1.0 written as KDL 2.
pub fn kdl_schema() -> String {
    let mut out = String::from(
        "// Made from the language table of imagewright; a test fails when the two differ.\n\
         document {\n    info {\n        title \"imagewright manifest\" lang=\"en\"\n        \
         description \"Images and stress-test runs, declared.\" lang=\"en\"\n    }\n",
    );
    place(&mut out, Place::Top, 1);
    out.push_str("}\n");
    out
}

fn place(out: &mut String, place: Place, depth: usize) {
    let indent = "    ".repeat(depth);
    let _ = writeln!(
        out,
        "{indent}node-names {{\n{indent}    enum {}\n{indent}}}",
        names(place)
    );
    for rule in rules_of(place) {
        node(out, rule, depth);
    }
}

fn names(place: Place) -> String {
    let quoted: Vec<String> = rules_of(place).map(|rule| quote(rule.name)).collect();
    quoted.join(" ")
}

fn node(out: &mut String, rule: &Rule, depth: usize) {
    let indent = "    ".repeat(depth);
    let _ = writeln!(
        out,
        "{indent}node {} description={} {{",
        quote(rule.name),
        quote(rule.doc)
    );
    if rule.single {
        let _ = writeln!(out, "{indent}    max 1");
    }
    for argument in rule.arguments {
        value(out, argument, depth + 1);
    }
    if !rule.properties.is_empty() {
        let quoted: Vec<String> = rule.properties.iter().map(|p| quote(p.name)).collect();
        let _ = writeln!(
            out,
            "{indent}    prop-names {{\n{indent}        enum {}\n{indent}    }}",
            quoted.join(" ")
        );
    }
    for property in rule.properties {
        prop(out, property, depth + 1);
    }
    children(out, rule, depth + 1);
    let _ = writeln!(out, "{indent}}}");
}

fn children(out: &mut String, rule: &Rule, depth: usize) {
    let indent = "    ".repeat(depth);
    match rule.children {
        Children::None => return,
        Children::Of(inner) => {
            let _ = writeln!(out, "{indent}children {{");
            place(out, inner, depth + 1);
        }
        Children::Axes => {
            let _ = writeln!(
                out,
                "{indent}children {{\n{indent}    node-names {{\n{indent}        pattern \"^[a-z][a-z0-9_]*$\"\n\
                 {indent}    }}\n{indent}    node description=\"An axis and its values.\" {{\n\
                 {indent}        value {{\n{indent}            min 1\n{indent}            \
                 type \"string\" \"number\" \"boolean\"\n{indent}        }}\n{indent}    }}"
            );
        }
    }
    let _ = writeln!(out, "{indent}}}");
}

fn value(out: &mut String, argument: &Argument, depth: usize) {
    let indent = "    ".repeat(depth);
    let _ = writeln!(out, "{indent}value description={} {{", quote(argument.name));
    let (min, max) = match argument.times {
        Times::Once => (1, Some(1)),
        Times::Optional => (0, Some(1)),
        Times::Many => (1, None),
    };
    let _ = writeln!(out, "{indent}    min {min}");
    if let Some(max) = max {
        let _ = writeln!(out, "{indent}    max {max}");
    }
    form(out, argument.form, depth + 1);
    let _ = writeln!(out, "{indent}}}");
}

fn prop(out: &mut String, property: &Property, depth: usize) {
    let indent = "    ".repeat(depth);
    let _ = writeln!(
        out,
        "{indent}prop {} description={} {{",
        quote(property.name),
        quote(property.doc)
    );
    if property.required {
        let _ = writeln!(out, "{indent}    required #true");
    }
    form(out, property.form, depth + 1);
    let _ = writeln!(out, "{indent}}}");
}

fn form(out: &mut String, form: Form, depth: usize) {
    let indent = "    ".repeat(depth);
    let list = |names: &[&str]| {
        names
            .iter()
            .map(|name| quote(name))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let _ = writeln!(out, "{indent}type {}", list(form.types()));
    if !form.choices().is_empty() {
        let _ = writeln!(out, "{indent}enum {}", list(form.choices()));
    }
    if let Some(pattern) = form.pattern() {
        let _ = writeln!(out, "{indent}pattern {}", quote(pattern));
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
