//! A chain of bases and an image's own lines → one [`ImageRequest`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chain::{Kind, Part, meant, roots};
use super::model::*;
use super::node::{Node, Value};
use super::report::Report;
use super::requirements_file::Cache;
use super::{paths, tags, units, values};
use crate::diagnostic::Problem;

/// Python of the Debian releases that are known to us.
const DEBIAN_PYTHON: &[(&str, u8)] = &[
    ("buster", 7),
    ("bullseye", 9),
    ("bookworm", 11),
    ("trixie", 13),
];

/// Puts images together.
pub(super) struct Merger<'a> {
    pub(super) files: &'a dyn ProjectFiles,
    pub(super) report: &'a mut Report,
    pub(super) cache: Cache,
    /// The nodes of the top level: settings for every image.
    pub(super) top: &'a [Node],
}

impl Merger<'_> {
    /// The request of the image whose chain this is; `None` if mistakes (reported) leave it without root.
    pub(super) fn image(&mut self, name: &Value, parts: &[Part<'_>]) -> Option<ImageRequest> {
        let root = self.root(parts)?;
        let python = self.python(parts, &root);
        let mut request = ImageRequest {
            name: name.spanned(name.text().to_owned()),
            base: base_name(parts, name),
            root,
            python,
            platforms: self.platforms(parts),
            os: Vec::new(),
            pip: Vec::new(),
            constraints: Vec::new(),
            overrides: Vec::new(),
            exclude_newer: self.exclude_newer(parts),
            indexes: self.indexes(parts),
            files: Vec::new(),
            fetches: Vec::new(),
            config: Config::default(),
            tags: Vec::new(),
            version: None,
            protected: false,
        };
        for node in self.top {
            self.add(node, &mut request, false);
        }
        tags::read(&mut request, parts, self.top, self.report);
        for part in parts {
            let base = part.kind != Kind::Image;
            for node in &part.node.children {
                self.add(node, &mut request, base);
            }
        }
        self.index_names(&request);
        tidy(&mut request);
        Some(request)
    }

    /// Reports the mistakes of one node that do not depend on the image that it ends up in.
    pub(super) fn examine(&mut self, node: &Node) {
        match node.rule.name {
            "pip" | "override" => drop(self.pip(node)),
            "constraint" => drop(self.constraint(node)),
            "pip-from" => drop(self.requirements(node)),
            "fetch" => drop(self.fetch(node)),
            "user" => drop(self.user(node)),
            _ => {}
        }
    }

    fn root(&mut self, parts: &[Part<'_>]) -> Option<Root> {
        let node = parts.iter().flat_map(|part| roots(part.node)).next()?;
        let value = node.argument(0)?;
        if node.rule.name == "from" {
            return Some(Root::From(value.spanned(value.text().to_owned())));
        }
        let text = |name: &str| {
            node.property(name)
                .map(|value| value.spanned(value.text().to_owned()))
        };
        let components = node
            .property("components")
            .and_then(|value| values::components(value.text()).ok());
        let keyring = node
            .property("keyring")
            .and_then(|value| Some(value.spanned(paths::source(value.text()).ok()?)));
        Some(Root::Debian(Debian {
            suite: value.spanned(value.text().to_owned()),
            mirror: text("mirror"),
            components: components.unwrap_or_else(|| vec!["main".into()]),
            keyring,
            updates: node.property("updates").is_some_and(is_true),
            snapshot: text("snapshot"),
            os: Vec::new(),
        }))
    }

    /// The innermost `python`; it must be the Debian suite's own.
    fn python(&mut self, parts: &[Part<'_>], root: &Root) -> Option<Spanned<PythonMinor>> {
        let declared = innermost(parts, self.top, "python").and_then(|node| node.argument(0));
        let declared =
            declared.and_then(|value| Some(value.spanned(values::python(value.text()).ok()?)));
        let Root::Debian(debian) = root else {
            return declared;
        };
        let Some((suite, minor)) = DEBIAN_PYTHON
            .iter()
            .find(|(suite, _)| *suite == debian.suite.value)
        else {
            return declared;
        };
        let own = PythonMinor {
            major: 3,
            minor: *minor,
        };
        if let Some(declared) = &declared
            && declared.value != own
        {
            let help = match DEBIAN_PYTHON
                .iter()
                .find(|(_, minor)| *minor == declared.value.minor)
            {
                Some((other, _)) => format!(
                    "write python \"{own}\", or build on debian \"{other}\" or on a `from` image with Python {}",
                    declared.value
                ),
                None => format!(
                    "write python \"{own}\", or build on a `from` image with Python {}",
                    declared.value
                ),
            };
            let problem = Problem::new(
                &declared.source,
                declared.span,
                format!("Debian {suite} has Python {own}, not {}", declared.value),
                "not in this suite",
            );
            self.report.push(problem.help(help));
        }
        let suite = &debian.suite;
        declared.or_else(|| {
            Some(Spanned {
                value: own,
                source: Arc::clone(&suite.source),
                span: suite.span,
            })
        })
    }

    fn platforms(&self, parts: &[Part<'_>]) -> Vec<Platform> {
        let node = innermost(parts, self.top, "platform");
        let named = node
            .into_iter()
            .flat_map(|node| node.arguments.iter().flatten());
        let set: BTreeSet<Platform> = named
            .filter_map(|value| value.text().parse().ok())
            .collect();
        if set.is_empty() {
            vec![Platform::LinuxAmd64]
        } else {
            set.into_iter().collect()
        }
    }

    fn exclude_newer(&self, parts: &[Part<'_>]) -> Option<Spanned<String>> {
        let value = innermost(parts, self.top, "exclude-newer")?.argument(0)?;
        Some(value.spanned(units::instant(value.text()).ok()?))
    }

    /// Indexes, the innermost first; an inner declaration of a name hides outer ones.
    fn indexes(&mut self, parts: &[Part<'_>]) -> Vec<Spanned<Index>> {
        let mut all: Vec<Spanned<Index>> = Vec::new();
        let scopes = parts
            .iter()
            .rev()
            .map(|part| part.node.children.as_slice())
            .chain([self.top]);
        for node in scopes.flatten().filter(|node| node.rule.name == "index") {
            let (Some(name), Some(url)) = (node.argument(0), node.argument(1)) else {
                continue;
            };
            if all.iter().any(|index| index.name == name.text()) {
                continue;
            }
            let flag = |name: &str| node.property(name).is_some_and(is_true);
            let (default, explicit) = (flag("default"), flag("explicit"));
            if default && explicit {
                let problem = Problem::new(
                    &node.source,
                    node.span,
                    format!("the index `{}` is default and explicit", name.text()),
                    "cannot be both",
                );
                self.report.push(problem.help("a default index serves everything, an explicit one only what names it; keep one of the two"));
            }
            if let Some(other) = all.iter().find(|index| default && index.default) {
                let problem = Problem::new(
                    &node.source,
                    node.span,
                    "two indexes are the default",
                    "a second default index",
                );
                let problem = if Arc::ptr_eq(&other.source, &node.source) {
                    problem.also(other.span, "the first one")
                } else {
                    problem
                };
                self.report
                    .push(problem.help("keep default=#true at one of the two"));
            }
            let index = Index {
                name: name.text().to_owned(),
                url: url.text().to_owned(),
                default,
                explicit,
            };
            all.push(name.spanned(index));
        }
        all
    }

    fn index_names(&mut self, request: &ImageRequest) {
        for pip in &request.pip {
            let Some(name) = &pip.index else { continue };
            let known: Vec<&str> = request
                .indexes
                .iter()
                .map(|index| index.name.as_str())
                .collect();
            if known.contains(&name.as_str()) {
                continue;
            }
            let help = match known.is_empty() {
                true => format!(
                    "declare it: index \"{name}\" \"https://packages.example.com/simple\" explicit=#true"
                ),
                false => meant(name, &known, "declared indexes are"),
            };
            let problem = Problem::new(
                &pip.source,
                pip.span,
                format!("there is no index `{name}`"),
                "names an index that is not declared",
            );
            self.report.push(problem.help(help));
        }
    }

    fn add(&mut self, node: &Node, request: &mut ImageRequest, base: bool) {
        match node.rule.name {
            "os" => os(node, request, base),
            "pip" => request.pip.extend(self.pip(node)),
            "pip-from" => {
                let read = self.requirements(node).unwrap_or_default();
                request.pip.extend(read.pip);
                request.constraints.extend(read.constraints);
            }
            "constraint" => request.constraints.extend(self.constraint(node)),
            "override" => request.overrides.extend(self.pip(node)),
            "file" => request.files.extend(file(node)),
            "fetch" => {
                let fetch = self.fetch(node);
                request
                    .fetches
                    .retain(|other| fetch.as_ref().is_none_or(|fetch| fetch.to != other.to));
                request.fetches.extend(fetch);
            }
            "env" | "label" | "annotation" => pair(node, &mut request.config),
            "user" => request.config.user = self.user(node),
            "workdir" => {
                request.config.workdir = node
                    .argument(0)
                    .and_then(|path| paths::absolute(path.text()).ok())
            }
            "entrypoint" => request.config.entrypoint = Some(texts(node)),
            "cmd" => request.config.cmd = Some(texts(node)),
            _ => {}
        }
    }

    fn fetch(&mut self, node: &Node) -> Option<Spanned<FetchSpec>> {
        let (url, to) = (node.argument(0)?, node.property("to")?);
        let digest = values::sha256(node.property("sha256")?.text()).ok()?;
        let target = paths::target(to.text()).ok()?;
        let path = url.text().split(['?', '#']).next().unwrap_or_default();
        let to = paths::placed(path, &target);
        if to == "/" || (path.ends_with('/') && target.ends_with('/')) {
            let problem = Problem::new(
                &node.source,
                node.span,
                "the download has no file name",
                "a folder's URL into a folder",
            );
            self.report
                .push(problem.help("write the whole path, for example to=\"/opt/model.bin\""));
            return None;
        }
        let spec = FetchSpec {
            url: url.text().to_owned(),
            sha256: digest,
            to,
            mode: mode(node),
        };
        Some(url.spanned(spec))
    }

    fn user(&mut self, node: &Node) -> Option<User> {
        let name = node.argument(0)?.text().to_owned();
        if name == "root" {
            let problem = Problem::new(
                &node.source,
                node.arguments_span(),
                "images do not run as root",
                "the super user",
            );
            self.report.push(problem.help(
                "name another user, for example user \"app\" uid=1000; building needs no user",
            ));
            return None;
        }
        let uid = node.property("uid").map_or(Some(1000), id)?;
        let gid = node.property("gid").map_or(Some(uid), id)?;
        let home = node
            .property("home")
            .and_then(|home| paths::absolute(home.text()).ok());
        Some(User {
            uid,
            gid,
            home: home.unwrap_or_else(|| format!("/home/{name}")),
            name,
        })
    }
}

fn base_name(parts: &[Part<'_>], own: &Value) -> String {
    let above = parts
        .iter()
        .rev()
        .nth(1)
        .and_then(|part| part.node.argument(0));
    above.unwrap_or(own).text().to_owned()
}

/// The node of that name in the innermost scope that has one.
pub(super) fn innermost<'n>(parts: &[Part<'n>], top: &'n [Node], name: &str) -> Option<&'n Node> {
    let scopes = parts
        .iter()
        .rev()
        .map(|part| part.node.children.as_slice())
        .chain([top]);
    scopes.flatten().find(|node| node.rule.name == name)
}

/// Whether it is `#true`.
pub(super) fn is_true(value: &Value) -> bool {
    value.scalar == super::node::Scalar::Boolean(true)
}

fn id(value: &Value) -> Option<u32> {
    match value.scalar {
        super::node::Scalar::Integer(number) => u32::try_from(number).ok(),
        _ => None,
    }
}

/// OS packages of a Debian base belong to the base layer; all others to the image's own.
fn os(node: &Node, request: &mut ImageRequest, base: bool) {
    let Some(name) = node.argument(0) else { return };
    let version = node.argument(1).map(|value| value.text().to_owned());
    let spec = OsRequirement {
        name: name.text().to_owned(),
        version,
    };
    let spanned = Spanned {
        value: spec,
        source: Arc::clone(&node.source),
        span: node.arguments_span(),
    };
    match &mut request.root {
        Root::Debian(debian) if base => debian.os.push(spanned),
        _ => request.os.push(spanned),
    }
}

/// A `file` node.
pub(super) fn file(node: &Node) -> Option<Spanned<FileSpec>> {
    let (path, to) = (node.argument(0)?, node.property("to")?);
    let from = paths::source(path.text()).ok()?;
    let to = paths::placed(&from, &paths::target(to.text()).ok()?);
    Some(path.spanned(FileSpec {
        from,
        to,
        mode: mode(node),
    }))
}

fn mode(node: &Node) -> Option<u32> {
    match &node.property("mode")?.scalar {
        super::node::Scalar::Integer(number) => u32::try_from(*number).ok(),
        super::node::Scalar::Text(text) => values::mode(text).ok(),
        _ => None,
    }
}

fn pair(node: &Node, config: &mut Config) {
    let (Some(key), Some(value)) = (node.argument(0), node.argument(1)) else {
        return;
    };
    let map = match node.rule.name {
        "env" => &mut config.env,
        "label" => &mut config.labels,
        _ => &mut config.annotations,
    };
    map.insert(key.text().to_owned(), value.text().to_owned());
}

/// The texts of all arguments.
pub(super) fn texts(node: &Node) -> Vec<String> {
    node.arguments
        .iter()
        .flatten()
        .map(|value| value.text().to_owned())
        .collect()
}

/// What was asked for twice counts once.
fn tidy(request: &mut ImageRequest) {
    let key = |pip: &PipRequirement| {
        (
            pip.pep508.clone(),
            pip.index.clone(),
            pip.wheel.clone(),
            pip.hashes.clone(),
        )
    };
    for list in [
        &mut request.pip,
        &mut request.constraints,
        &mut request.overrides,
    ] {
        let mut seen = BTreeSet::new();
        list.retain(|pip| seen.insert(key(pip)));
    }
    let mut seen = BTreeSet::new();
    request.os.retain(|os| seen.insert(os.value.clone()));
    if let Root::Debian(debian) = &mut request.root {
        let mut seen = BTreeSet::new();
        debian.os.retain(|os| seen.insert(os.value.clone()));
    }
    let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut keep = vec![true; request.files.len()];
    for (at, file) in request.files.iter().enumerate() {
        if let Some(earlier) = places.insert((file.from.clone(), file.to.clone()), at) {
            keep[earlier] = false;
        }
    }
    let mut keep = keep.into_iter();
    request.files.retain(|_| keep.next().unwrap_or(true));
    let mut seen = BTreeSet::new();
    request
        .fetches
        .retain(|fetch| seen.insert(fetch.to.clone()));
}
