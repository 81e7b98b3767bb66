//! Bases: which parts an image consists of, from the root of its file system to its own lines.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::bases::{DEFAULT_BASE, builtin_base, builtin_names};
use super::check;
use super::language::{Place, did_you_mean};
use super::node::{Node, Value};
use super::report::Report;
use super::syntax;
use crate::diagnostic::{Problem, SourceText, Span};

/// What kind of node a part of a chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A base that imagewright brings along; it knows only its like.
    Builtin,
    Base,
    Image,
}

/// One declaration of a chain.
#[derive(Clone, Debug)]
pub(super) struct Part<'n> {
    pub(super) kind: Kind,
    pub(super) node: &'n Node,
}

type Key<'n> = (Kind, &'n str);
type Chain<'n> = Option<Rc<Vec<Part<'n>>>>;

/// The images of a chain that are not the one called `own`.
pub(super) fn images(parts: &[Part<'_>], own: &str) -> BTreeSet<String> {
    let images = parts.iter().filter(|part| part.kind == Kind::Image);
    let names = images.filter_map(|part| part.node.argument(0));
    names
        .map(|name| name.text().to_owned())
        .filter(|name| name != own)
        .collect()
}

/// All bases and images that can be built on.
#[derive(Debug)]
pub(super) struct Declarations<'n> {
    nodes: BTreeMap<Key<'n>, &'n Node>,
}

/// The built-in bases as nodes of the language.
pub(super) fn builtin_nodes(report: &mut Report) -> Vec<Node> {
    let mut all = Vec::new();
    for name in builtin_names() {
        let source = SourceText::new(
            format!("base \"{name}\" (built in)"),
            builtin_base(name).unwrap_or_default(),
        );
        if let Some(document) = syntax::read(&source, report) {
            all.extend(check::nodes(&document, Place::Top, &source, report));
        }
    }
    all
}

impl<'n> Declarations<'n> {
    /// The first declaration of a name counts.
    pub(super) fn new(builtin: &'n [Node], declared: &'n [Node]) -> Self {
        let mut nodes = BTreeMap::new();
        let mut add = |kind: Kind, node: &'n Node| {
            if let Some(name) = node.argument(0) {
                nodes.entry((kind, name.text())).or_insert(node);
            }
        };
        builtin.iter().for_each(|node| add(Kind::Builtin, node));
        for node in declared {
            match node.rule.name {
                "base" => add(Kind::Base, node),
                "image" => add(Kind::Image, node),
                _ => {}
            }
        }
        Self { nodes }
    }

    pub(super) fn names(&self, kind: Kind) -> impl Iterator<Item = &'n str> {
        self.nodes
            .keys()
            .filter(move |(found, _)| *found == kind)
            .map(|(_, name)| *name)
    }

    /// Whether that name is declared.
    pub(super) fn contains(&self, kind: Kind, name: &str) -> bool {
        self.nodes.contains_key(&(kind, name))
    }

    fn has(&self, kind: Kind, name: &'n str) -> Option<Key<'n>> {
        self.nodes
            .contains_key(&(kind, name))
            .then_some((kind, name))
    }
}

/// Follows bases; remembers what it has followed.
pub(super) struct Chains<'n, 'r> {
    declarations: &'r Declarations<'n>,
    known: BTreeMap<Key<'n>, Chain<'n>>,
    open: Vec<(Key<'n>, Option<Span>)>,
    cycles: BTreeSet<Vec<Key<'n>>>,
}

/// What a declaration builds on.
enum Parent<'n> {
    /// It has a root of its own, or its parent is wrong (and reported).
    None {
        wrong: bool,
    },
    On(Key<'n>, Option<&'n Value>),
}

impl<'n, 'r> Chains<'n, 'r> {
    pub(super) fn new(declarations: &'r Declarations<'n>) -> Self {
        Self {
            declarations,
            known: BTreeMap::new(),
            open: Vec::new(),
            cycles: BTreeSet::new(),
        }
    }

    /// The parts of an image or base, its root first; `None` if a mistake (reported) makes them unknown.
    pub(super) fn of(&mut self, kind: Kind, name: &'n str, report: &mut Report) -> Chain<'n> {
        self.follow((kind, name), report)
    }

    /// Reports an unknown parent of a declaration that has no name to be followed by.
    pub(super) fn nameless(&self, kind: Kind, node: &'n Node, report: &mut Report) {
        self.parent((kind, ""), node, report);
    }

    fn follow(&mut self, key: Key<'n>, report: &mut Report) -> Chain<'n> {
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let node = *self.declarations.nodes.get(&key)?;
        let parent = self.parent(key, node, report);
        let chain = match parent {
            Parent::None { wrong: true } => None,
            Parent::None { wrong: false } => Some(vec![Part { kind: key.0, node }]),
            Parent::On(parent, value) => self.on(key, node, parent, value, report),
        };
        let chain = chain
            .filter(|parts| one_root(parts, node, report))
            .map(Rc::new);
        self.known.insert(key, chain.clone());
        chain
    }

    fn on(
        &mut self,
        key: Key<'n>,
        node: &'n Node,
        parent: Key<'n>,
        value: Option<&'n Value>,
        report: &mut Report,
    ) -> Option<Vec<Part<'n>>> {
        self.open.push((key, value.map(|value| value.span)));
        let start = self.open.iter().position(|(open, _)| *open == parent);
        let above = match start {
            Some(start) => {
                self.cycle(start, node, report);
                None
            }
            None => self.follow(parent, report),
        };
        self.open.pop();
        let mut parts = above?.as_ref().clone();
        parts.push(Part { kind: key.0, node });
        Some(parts)
    }

    fn cycle(&mut self, start: usize, node: &Node, report: &mut Report) {
        let members = &self.open[start..];
        let mut set: Vec<Key<'n>> = members.iter().map(|(key, _)| *key).collect();
        let mut path: Vec<String> = set.iter().map(|(_, name)| format!("`{name}`")).collect();
        path.extend(path.first().cloned());
        set.sort_unstable();
        if !self.cycles.insert(set) {
            return;
        }
        let mut spans = members.iter().rev().filter_map(|(_, span)| *span);
        let first = spans.next().unwrap_or(node.span);
        let mut problem = Problem::new(
            &node.source,
            first,
            format!(
                "bases build on each other in a circle: {}",
                path.join(" → ")
            ),
            "closes the circle",
        )
        .help("let one of them begin with `debian`, `from` or another base");
        for span in spans {
            problem = problem.also(span, "part of the circle");
        }
        report.push(problem);
    }

    fn parent(&self, key: Key<'n>, node: &'n Node, report: &mut Report) -> Parent<'n> {
        let on = node.first("image").filter(|_| key.0 != Kind::Image);
        match (node.property("base"), on) {
            (Some(base), Some(image)) => {
                let problem = Problem::new(
                    &node.source,
                    image.span,
                    "the base builds on two things",
                    "and on this image",
                )
                .also(base.span, "on this base")
                .help("keep one of the two");
                report.push(problem);
                Parent::None { wrong: true }
            }
            (Some(base), None) => self.base(key, base, report),
            (None, Some(image)) => match image.argument(0) {
                Some(value) => self.image(value, report),
                None => Parent::None { wrong: true },
            },
            (None, None)
                if key.0 == Kind::Image
                    && node.first("debian").or(node.first("from")).is_none() =>
            {
                let kind = if self.declarations.has(Kind::Base, DEFAULT_BASE).is_some() {
                    Kind::Base
                } else {
                    Kind::Builtin
                };
                Parent::On((kind, DEFAULT_BASE), None)
            }
            (None, None) => Parent::None { wrong: false },
        }
    }

    /// `base=`: a declared base before a built-in one. In a base, its own name means the built-in one.
    fn base(&self, key: Key<'n>, value: &'n Value, report: &mut Report) -> Parent<'n> {
        let name = value.text();
        let own = key.0 == Kind::Base && key.1 == name;
        let order: &[Kind] = match key.0 {
            Kind::Builtin => &[Kind::Builtin],
            _ if own && builtin_base(name).is_some() => &[Kind::Builtin],
            _ => &[Kind::Base, Kind::Builtin],
        };
        if let Some(found) = order
            .iter()
            .find_map(|kind| self.declarations.has(*kind, name))
        {
            return Parent::On(found, Some(value));
        }
        let help = if self.declarations.has(Kind::Image, name).is_some() {
            format!(
                "`{name}` is an image; to build on it declare a base: base \"{name}_base\" {{ image \"{name}\" }}"
            )
        } else {
            let mut known: Vec<&str> = self.declarations.names(Kind::Base).collect();
            for builtin in builtin_names() {
                known.push(builtin);
            }
            meant(name, &known, "bases are")
        };
        report.push(
            Problem::new(
                &value.source,
                value.span,
                format!("there is no base `{name}`"),
                "unknown base",
            )
            .help(help),
        );
        Parent::None { wrong: true }
    }

    fn image(&self, value: &'n Value, report: &mut Report) -> Parent<'n> {
        let name = value.text();
        if let Some(found) = self.declarations.has(Kind::Image, name) {
            return Parent::On(found, Some(value));
        }
        let known: Vec<&str> = self.declarations.names(Kind::Image).collect();
        let help = match known.is_empty() {
            true => "no image is declared".to_owned(),
            false => meant(name, &known, "declared images are"),
        };
        report.push(
            Problem::new(
                &value.source,
                value.span,
                format!("there is no image `{name}`"),
                "unknown image",
            )
            .help(help),
        );
        Parent::None { wrong: true }
    }
}

/// "did you mean", else the list of what there is.
pub(super) fn meant(name: &str, known: &[&str], list: &str) -> String {
    match did_you_mean(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("{list} {}", known.join(", ")),
    }
}

/// The `debian` and `from` nodes of a part.
pub(super) fn roots(node: &Node) -> impl Iterator<Item = &Node> {
    node.all("debian").chain(node.all("from"))
}

/// A chain has exactly one root; what `node` adds to its parents' is to blame.
fn one_root(parts: &[Part<'_>], node: &Node, report: &mut Report) -> bool {
    let all: Vec<&Node> = parts.iter().flat_map(|part| roots(part.node)).collect();
    let spelled = |root: &Node| format!("`{}`", root.rule.name);
    match all.as_slice() {
        [_] => true,
        [] => {
            let (span, name) = node
                .argument(0)
                .map_or((node.span, ""), |name| (name.span, name.text()));
            let help = match builtin_base(name) {
                Some(_) => format!("write base=\"{name}\" behind the name to add to the built-in base, or begin with `debian` or `from`"),
                None => "add `debian \"bookworm\"`, `from \"HOST/IMAGE:TAG\"` or `image \"NAME\"` to it, or base=\"NAME\"".into(),
            };
            let message = "the base does not say where the file system begins";
            report.push(Problem::new(&node.source, span, message, "has no root").help(help));
            false
        }
        [first, .., last] => {
            let message = format!(
                "the file system begins twice: {} and {}",
                spelled(first),
                spelled(last)
            );
            let mut problem = Problem::new(&last.source, last.span, message, "a second root")
                .help("keep one of the two, or name another base");
            if Arc::ptr_eq(&first.source, &last.source) {
                problem = problem.also(first.span, "the first root");
            } else {
                problem = problem.help(format!(
                    "the base begins with {} already ({}); name another base or remove this",
                    spelled(first),
                    first.source.name
                ));
            }
            report.push(problem);
            false
        }
    }
}
