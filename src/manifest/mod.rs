//! KDL text → [`Manifest`], with every mistake reported at once.
//!
//! `syntax` reads KDL, `check` holds it against the table in `rules`, `chain` follows bases, `merge` and `runs` put
//! images and runs together. This module sees text alone: it never reads a file (requirements files come through
//! [`ProjectFiles`]), a clock or the environment, and never panics on any text.

mod axes;
mod bases;
mod chain;
mod check;
mod destinations;
mod language;
mod marker;
mod merge;
mod mistake;
mod model;
mod node;
mod packages;
mod paths;
mod report;
mod requirement;
mod requirements_file;
mod rules;
mod runs;
mod scalars;
mod schema;
mod secrets;
mod syntax;
mod tag_conflicts;
pub mod tags;
mod template;
mod units;
mod urls;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use bases::{DEFAULT_BASE, builtin_base, builtin_names};
pub use model::*;
pub use requirement::normalise;
pub use schema::kdl_schema;
pub use template::{cells, expand};
pub use units::{age, bytes};

use crate::diagnostic::{Problems, SourceText};
use chain::{Chains, Declarations, Kind};
use language::Place;
use merge::Merger;
use node::Node;
use report::Report;

/// Reads a manifest. `files` gives the requirements files that it names.
///
/// # Errors
///
/// All mistakes of the manifest and its requirements files, in the order of the text. Secrets are blotted out of the
/// texts that the problems show.
pub fn parse(source: &Arc<SourceText>, files: &dyn ProjectFiles) -> Result<Manifest, Problems> {
    let mut report = Report::default();
    let Some(document) = syntax::read(source, &mut report) else {
        return Err(report.finish());
    };
    let nodes = check::nodes(&document, Place::Top, source, &mut report);
    let manifest = assemble(source, &nodes, files, &mut report);
    report.finish().or(manifest)
}

fn assemble(
    source: &Arc<SourceText>,
    nodes: &[Node],
    files: &dyn ProjectFiles,
    report: &mut Report,
) -> Manifest {
    let builtin = chain::builtin_nodes(report);
    let declarations = Declarations::new(&builtin, nodes);
    let mut chains = Chains::new(&declarations);
    for name in declarations.names(Kind::Base) {
        chains.of(Kind::Base, name, report);
    }
    let settings: Vec<Node> = nodes
        .iter()
        .filter(|node| is_setting(node))
        .cloned()
        .collect();
    let mut merger = Merger {
        files,
        report,
        cache: BTreeMap::new(),
        top: &settings,
    };
    for node in nodes {
        merger.examine(node);
        if matches!(node.rule.name, "base" | "image") {
            node.children.iter().for_each(|child| merger.examine(child));
            let kind = if node.rule.name == "base" {
                Kind::Base
            } else {
                Kind::Image
            };
            if node.argument(0).is_none() {
                chains.nameless(kind, node, merger.report);
            }
        }
    }
    let mut images = Vec::new();
    let mut parents = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for name in of(nodes, "image").filter_map(|node| node.argument(0)) {
        if seen.insert(name.text())
            && let Some(parts) = chains.of(Kind::Image, name.text(), merger.report)
        {
            parents.insert(name.text().to_owned(), chain::images(&parts, name.text()));
            images.extend(merger.image(name, &parts));
        }
    }
    let mut projects = projects(nodes);
    let runs: Vec<RunSpec> = of(nodes, "run")
        .filter_map(|node| runs::run(node, &declarations, &projects, report))
        .collect();
    for run in &runs {
        projects.entry(run.project.clone()).or_default();
    }
    let (registry, pushes) = destinations::read(nodes, report);
    let everywhere: Vec<_> = registry.iter().chain(&pushes).collect();
    tag_conflicts::conflicts(&images, &everywhere, report);
    Manifest {
        source: Arc::clone(source),
        registry,
        pushes,
        trust: destinations::trusted(nodes),
        images,
        runs,
        projects,
        parents,
    }
}

/// Whether a node of the top level holds for every image.
fn is_setting(node: &Node) -> bool {
    language::rule(node.rule.name, Place::Image).is_some() && node.rule.places.contains(&Place::Top)
}

fn of<'n>(nodes: &'n [Node], name: &'n str) -> impl Iterator<Item = &'n Node> {
    nodes.iter().filter(move |node| node.rule.name == name)
}

fn projects(nodes: &[Node]) -> BTreeMap<String, String> {
    of(nodes, "project")
        .filter_map(|node| {
            let description = node
                .property("description")
                .map_or("", |value| value.text());
            Some((node.argument(0)?.text().to_owned(), description.to_owned()))
        })
        .collect()
}
