//! Which layers differ between two images, and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::request::file_text;
use super::{Difference, Found, KeyKind, user_text};
use crate::digest::Digest;
use crate::identity::{LayerDocument, PythonDocument, WheelDocument, key};

const LAYER: &[KeyKind] = &[KeyKind::Layer, KeyKind::Content, KeyKind::Image];
const CONTENT: &[KeyKind] = &[KeyKind::Content, KeyKind::Image];

/// The layers of two images compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LayerComparison {
    /// Layers with the same key on both sides.
    pub unchanged: usize,
    /// Layers that have a counterpart with another key.
    pub changed: usize,
    /// Layers without a counterpart before.
    pub added: usize,
    /// Layers without a counterpart after.
    pub removed: usize,
    /// What made the keys differ.
    pub differences: Vec<Difference>,
}

/// Compares the layers of two images, each with the name that people know it by (`numpy 1.26.4`).
///
/// A layer's counterpart is the one that has the same role: the layer of the same wheel (or the bucket that shares most
/// wheels), the download to the same path, the skeleton, the user's, the files', the base's, the own OS packages'.
pub fn explain_layers(
    before: &[(LayerDocument, String)],
    after: &[(LayerDocument, String)],
) -> LayerComparison {
    let mut comparison = LayerComparison::default();
    let mut found = Found::default();
    let mut new: Vec<_> = after.iter().map(|layer| (key(&layer.0), layer)).collect();
    let mut old = Vec::new();
    for layer in before {
        let own = key(&layer.0);
        match new.iter().position(|(other, _)| *other == own) {
            Some(at) => {
                new.remove(at);
                comparison.unchanged += 1;
            }
            None => old.push(layer),
        }
    }
    for layer in old {
        let counterpart = (0..new.len())
            .map(|at| (closeness(&layer.0, &new[at].1.0), std::cmp::Reverse(at)))
            .filter(|(shared, _)| *shared > 0)
            .max();
        match counterpart {
            Some((_, std::cmp::Reverse(at))) => {
                let (_, other) = new.remove(at);
                comparison.changed += 1;
                compare(&mut found, layer, other);
            }
            None => {
                comparison.removed += 1;
                let text = Some(summary(&layer.0));
                found.option(&format!("layer {}", layer.1), text, None, CONTENT);
            }
        }
    }
    for (_, layer) in new {
        comparison.added += 1;
        let text = Some(summary(&layer.0));
        found.option(&format!("layer {}", layer.1), None, text, CONTENT);
    }
    comparison.differences = found.0;
    comparison
}

/// How much two layers have the same role; 0 means not at all.
fn closeness(a: &LayerDocument, b: &LayerDocument) -> usize {
    use LayerDocument as L;
    match (a, b) {
        (L::Wheels { wheels: a, .. }, L::Wheels { wheels: b, .. }) => a
            .iter()
            .filter(|wheel| b.iter().any(|other| other.name == wheel.name))
            .count(),
        (L::Fetch { to: a, .. }, L::Fetch { to: b, .. }) => usize::from(a == b),
        (L::Debian { parents: a, .. }, L::Debian { parents: b, .. }) => {
            usize::from(a.is_empty() == b.is_empty())
        }
        (L::Collisions { .. }, L::Collisions { .. })
        | (L::Skeleton { .. }, L::Skeleton { .. })
        | (L::User { .. }, L::User { .. })
        | (L::Files { .. }, L::Files { .. }) => 1,
        _ => 0,
    }
}

/// What a layer holds, for one that has no counterpart.
fn summary(layer: &LayerDocument) -> String {
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    match layer {
        LayerDocument::Wheels { wheels, .. } => count(wheels.len(), "wheel"),
        LayerDocument::Collisions { winners, .. } => count(winners.len(), "collision"),
        LayerDocument::Skeleton { python, .. } => format!("the environment {}", python.prefix),
        LayerDocument::User { user, .. } => user_text(user),
        LayerDocument::Files { entries, .. } => count(entries.len(), "file"),
        LayerDocument::Fetch { to, .. } => format!("a download to {to}"),
        LayerDocument::Debian { debs, .. } => count(debs.len(), "OS package"),
    }
}

/// Compares two layers of one role.
fn compare(found: &mut Found, old: &(LayerDocument, String), new: &(LayerDocument, String)) {
    use LayerDocument as L;
    let mut layer = InLayer {
        name: &new.1,
        found,
    };
    layer.versions(&old.0, &new.0);
    match (&old.0, &new.0) {
        (
            L::Wheels {
                v: _,
                emitter: _,
                python: p,
                wheels: w,
            },
            L::Wheels {
                v: _,
                emitter: _,
                python,
                wheels,
            },
        ) => {
            layer.python(p, python);
            let text = |wheel: &WheelDocument| (wheel.name.clone(), wheel.sha256.to_string());
            let what = layer.what("wheel");
            layer.found.named(&what, w, wheels, text, LAYER);
        }
        (
            L::Collisions {
                v: _,
                emitter: _,
                python: p,
                winners: w,
            },
            L::Collisions {
                v: _,
                emitter: _,
                python,
                winners,
            },
        ) => {
            layer.python(p, python);
            let what = layer.what("winner of");
            layer.found.map(&what, w, winners, Digest::to_string, LAYER);
        }
        (
            L::Skeleton {
                v: _,
                emitter: _,
                python: p,
                interpreter: i,
            },
            L::Skeleton {
                v: _,
                emitter: _,
                python,
                interpreter,
            },
        ) => {
            layer.python(p, python);
            layer.value("the interpreter", i, interpreter);
        }
        (
            L::User {
                v: _,
                emitter: _,
                user: u,
                passwd: p,
                group: g,
                workdir: w,
            },
            L::User {
                v: _,
                emitter: _,
                user,
                passwd,
                group,
                workdir,
            },
        ) => {
            layer.value("the user", user_text(u), user_text(user));
            layer.value("/etc/passwd of the layers below", p, passwd);
            layer.value("/etc/group of the layers below", g, group);
            let folder = |w: &Option<String>| w.clone().unwrap_or_else(|| "not set".into());
            layer.value("the working folder", folder(w), folder(workdir));
        }
        (
            L::Files {
                v: _,
                emitter: _,
                entries: e,
            },
            L::Files {
                v: _,
                emitter: _,
                entries,
            },
        ) => {
            let what = layer.what("file");
            layer.found.map(&what, e, entries, file_text, LAYER);
        }
        (
            L::Fetch {
                v: _,
                emitter: _,
                sha256: s,
                to: t,
                mode: m,
            },
            L::Fetch {
                v: _,
                emitter: _,
                sha256,
                to,
                mode,
            },
        ) => {
            layer.value("the content", s, sha256);
            layer.value("the path", t, to);
            layer.value("the mode", format!("{m:04o}"), format!("{mode:04o}"));
        }
        (
            L::Debian {
                v: _,
                emitter: _,
                cleaning: c,
                architecture: a,
                debs: d,
                epoch: e,
                parents: p,
            },
            L::Debian {
                v: _,
                emitter: _,
                cleaning,
                architecture,
                debs,
                epoch,
                parents,
            },
        ) => {
            layer.value("the version of the cleaning rules", c, cleaning);
            layer.value("the architecture", a, architecture);
            let gone = list(d.difference(debs));
            let come = list(debs.difference(d));
            let what = layer.what("OS package files");
            layer.found.option(&what, gone, come, LAYER);
            layer.value("the archive's date (seconds since 1970)", e, epoch);
            let layers = |parents: &[Digest]| list(parents.iter()).unwrap_or_default();
            layer.value("the layers below", layers(p), layers(parents));
        }
        _ => {}
    }
}

fn list<'d>(digests: impl Iterator<Item = &'d Digest>) -> Option<String> {
    let texts: Vec<String> = digests.map(Digest::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// Collects differences of one layer.
struct InLayer<'f> {
    name: &'f str,
    found: &'f mut Found,
}

impl InLayer<'_> {
    fn what(&self, what: &str) -> String {
        format!("layer {}: {what}", self.name)
    }

    fn value(&mut self, what: &str, before: impl ToString, after: impl ToString) {
        let what = self.what(what);
        self.found
            .value(&what, before.to_string(), after.to_string(), LAYER);
    }

    fn python(&mut self, before: &PythonDocument, after: &PythonDocument) {
        let PythonDocument { minor, prefix } = before;
        self.value("the Python version", minor, &after.minor);
        self.value("the environment's root", prefix, &after.prefix);
    }

    fn versions(&mut self, before: &LayerDocument, after: &LayerDocument) {
        let (old, new) = (versions(before), versions(after));
        for (what, version) in &old {
            self.value(what, version, new[what]);
        }
    }
}

/// The versions that every layer document begins with.
fn versions(layer: &LayerDocument) -> BTreeMap<&'static str, u32> {
    use LayerDocument as L;
    let (v, emitter) = match layer {
        L::Wheels { v, emitter, .. }
        | L::Collisions { v, emitter, .. }
        | L::Skeleton { v, emitter, .. }
        | L::User { v, emitter, .. }
        | L::Files { v, emitter, .. }
        | L::Fetch { v, emitter, .. }
        | L::Debian { v, emitter, .. } => (*v, *emitter),
    };
    BTreeMap::from([
        ("the document's version", v),
        ("the version of the emitter's rules", emitter),
    ])
}
