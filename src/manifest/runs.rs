//! `run` nodes → [`RunSpec`]s.

use std::collections::BTreeMap;

use super::chain::{Declarations, Kind, meant};
use super::language::did_you_mean;
use super::merge::{file, texts};
use super::mistake::Mistake;
use super::model::{Network, Resources, RunSpec};
use super::node::{Axis, Node, Scalar, Value};
use super::report::Report;
use super::template::{Piece, pieces};
use super::{paths, units, values};
use crate::diagnostic::Problem;

/// The project of runs that name none.
const DEFAULT_PROJECT: &str = "default";

/// An hour, in milliseconds.
const DEFAULT_TIMEOUT: u64 = 3_600_000;

/// Reads a run; mistakes go into the report.
pub(super) fn run(
    node: &Node,
    declarations: &Declarations<'_>,
    projects: &BTreeMap<String, String>,
    report: &mut Report,
) -> Option<RunSpec> {
    let axes: &[Axis] = node
        .first("matrix")
        .map_or(&[], |matrix| matrix.axes.as_slice());
    let name = node.argument(0);
    if let Some(name) = name {
        run_name(name, axes, report);
    }
    let templates = node
        .all("command")
        .flat_map(|command| command.arguments.iter().flatten());
    let values = node.all("env").filter_map(|env| env.argument(1));
    for value in templates.chain(values) {
        template(value, axes, report);
    }
    let image = node.property("image");
    if let Some(image) = image {
        known_image(image, declarations, report);
    }
    let project = project(node, projects, report);
    let command = command(node, report);
    let resources = resources(node, report);
    let child = |name: &str| node.first(name).and_then(|child| child.argument(0));
    let env = node.all("env").filter_map(|env| {
        Some((
            env.argument(0)?.text().to_owned(),
            env.argument(1)?.text().to_owned(),
        ))
    });
    let (name, image) = (name?, image?);
    Some(RunSpec {
        name: name.spanned(name.text().to_owned()),
        image: image.spanned(image.text().to_owned()),
        project,
        files: node.all("file").filter_map(file).collect(),
        matrix: axes
            .iter()
            .map(|axis| (axis.name.clone(), axis.values.clone()))
            .collect(),
        command,
        env: env.collect(),
        workdir: child("workdir").and_then(|path| paths::absolute(path.text()).ok()),
        resources,
        timeout_ms: child("timeout")
            .and_then(|value| units::duration(value.text()).ok())
            .unwrap_or(DEFAULT_TIMEOUT),
        network: match child("network").map(Value::text) {
            Some("host") => Network::Host,
            _ => Network::None,
        },
    })
}

/// A name that may hold axes: what is left without them is a name.
fn run_name(name: &Value, axes: &[Axis], report: &mut Report) {
    let mut plain = String::new();
    let mut stray = false;
    for piece in pieces(name.text()) {
        match piece {
            Piece::Literal(text) => plain.push_str(text),
            Piece::Axis(..) => plain.push('x'),
            Piece::Stray(_) => stray = true,
        }
    }
    template(name, axes, report);
    if !stray && let Err(mistake) = values::name(&plain, "-_") {
        let exact = plain == name.text();
        let mistake = if exact {
            mistake
        } else {
            Mistake {
                range: None,
                message: format!("`{}` is not a name", values::shorten(name.text())),
                ..mistake
            }
        };
        name.report(mistake, report);
    }
}

fn template(value: &Value, axes: &[Axis], report: &mut Report) {
    for piece in pieces(value.text()) {
        match piece {
            Piece::Literal(_) => {}
            Piece::Axis(name, range) => {
                if axes.iter().any(|axis| axis.name == name) {
                    continue;
                }
                let known = axes.iter().map(|axis| axis.name.as_str());
                let help = match did_you_mean(name, known) {
                    Some(meant) => format!("did you mean `{{{meant}}}`?"),
                    None => format!(
                        "declare it, for example `matrix {{ {name} 1 2 3 }}`, or write `{{{{{name}}}}}` for the braces themselves"
                    ),
                };
                value.report(
                    Mistake::at(
                        range,
                        format!("the axis `{name}` is not declared"),
                        "not in the run's matrix",
                    )
                    .help(help),
                    report,
                );
            }
            Piece::Stray(range) => {
                let brace = &value.text()[range.clone()];
                let help = format!(
                    "write `{brace}{brace}` for the brace itself, or `{{axis}}` for an axis of the matrix"
                );
                value.report(
                    Mistake::at(range, "a single brace belongs to no axis", "a single brace")
                        .help(help),
                    report,
                );
            }
        }
    }
}

fn known_image(image: &Value, declarations: &Declarations<'_>, report: &mut Report) {
    let name = image.text();
    if declarations.contains(Kind::Image, name) {
        return;
    }
    let known: Vec<&str> = declarations.names(Kind::Image).collect();
    let is_base = [Kind::Base, Kind::Builtin]
        .iter()
        .any(|kind| declarations.contains(*kind, name));
    let help = match (known.is_empty(), is_base) {
        (_, true) => format!(
            "`{name}` is a base; declare an image on it: image \"{name}_image\" base=\"{name}\""
        ),
        (true, _) => format!("declare it: image \"{name}\" {{ … }}"),
        _ => meant(name, &known, "declared images are"),
    };
    report.push(
        Problem::new(
            &image.source,
            image.span,
            format!("there is no image `{name}`"),
            "unknown image",
        )
        .help(help),
    );
}

/// Once projects are declared, a run may name only those.
fn project(node: &Node, projects: &BTreeMap<String, String>, report: &mut Report) -> String {
    let Some(project) = node.property("project") else {
        return DEFAULT_PROJECT.into();
    };
    let name = project.text();
    if name != DEFAULT_PROJECT && !projects.is_empty() && !projects.contains_key(name) {
        let known: Vec<&str> = projects.keys().map(String::as_str).collect();
        let help = format!(
            "declare it: project \"{name}\"; {}",
            meant(name, &known, "declared projects are")
        );
        report.push(
            Problem::new(
                &project.source,
                project.span,
                format!("there is no project `{name}`"),
                "unknown project",
            )
            .help(help),
        );
    }
    name.to_owned()
}

fn command(node: &Node, report: &mut Report) -> Vec<String> {
    let Some(command) = node.first("command") else {
        let span = node.argument(0).map_or(node.span, |name| name.span);
        report.push(
            Problem::new(
                &node.source,
                span,
                "the run has no command",
                "nothing to execute",
            )
            .help("add for example `command \"python\" \"-m\" \"pytest\" \"stress\"`"),
        );
        return Vec::new();
    };
    if let Some(program) = command.argument(0)
        && program.text().trim().is_empty()
    {
        program.report(
            Mistake::whole("the command is empty", "no program")
                .help("write the program first: command \"python\" \"-m\" \"pytest\""),
            report,
        );
    }
    texts(command)
}

fn resources(node: &Node, report: &mut Report) -> Resources {
    let mut all = Resources::default();
    let Some(node) = node.first("resources") else {
        return all;
    };
    let ram = |name: &str| {
        node.property(name)
            .and_then(|value| units::size(value.text()).ok())
    };
    let cpu = |name: &str| {
        node.property(name)
            .and_then(|value| units::cpu(&scalar_text(value)).ok())
    };
    (all.ram_bytes, all.ram_limit_bytes) = amounts(ram("ram"), ram("ram-limit"), all.ram_bytes);
    (all.cpu_millis, all.cpu_limit_millis) = amounts(cpu("cpu"), cpu("cpu-limit"), all.cpu_millis);
    if let Some(Scalar::Integer(pids)) = node.property("pids").map(|value| &value.scalar) {
        all.pids_limit = u64::try_from(*pids).unwrap_or(all.pids_limit);
    }
    for (name, below) in [
        ("ram", all.ram_limit_bytes < all.ram_bytes),
        ("cpu", all.cpu_limit_millis < all.cpu_millis),
    ] {
        let limit = format!("{name}-limit");
        if let (true, Some(limit_value), Some(request)) =
            (below, node.property(&limit), node.property(name))
        {
            report.push(
                Problem::new(&node.source, limit_value.span, format!("`{limit}` is below `{name}`"), "less than requested")
                    .also(request.span, "requested")
                    .help(format!("raise {limit}=, or lower {name}=; without {limit}= the limit is twice the request")),
            );
        }
    }
    all
}

/// Request and limit: the limit is twice the request unless declared; a lone limit bounds the default request.
fn amounts(request: Option<u64>, limit: Option<u64>, default: u64) -> (u64, u64) {
    match (request, limit) {
        (Some(request), None) => (request, request.saturating_mul(2)),
        (Some(request), Some(limit)) => (request, limit),
        (None, Some(limit)) => (default.min(limit), limit),
        (None, None) => (default, default * 2),
    }
}

fn scalar_text(value: &Value) -> String {
    match &value.scalar {
        Scalar::Text(text) | Scalar::Float(text) => text.clone(),
        Scalar::Integer(number) => number.to_string(),
        _ => String::new(),
    }
}
