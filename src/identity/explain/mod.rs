//! Why a key changed: two documents in, differences in words out.
//!
//! A [`Difference`] says what was and what is, and which keys that changes for certain. Resolution may make more keys
//! change (a requirement changes the image key only when it leads to another wheel): those follow from the layers.

mod layers;
mod request;
mod set;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ConfigDocument, ContentDocument, UserDocument};

pub use layers::{LayerComparison, explain_layers};
pub use request::explain;
pub use set::explain_set;

/// One link of the chain of identity.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// What was asked for.
    Request,
    /// What is pinned.
    Set,
    /// One layer's bytes.
    Layer,
    /// All layers.
    Content,
    /// All layers and the configuration.
    Image,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request key",
            Self::Set => "set key",
            Self::Layer => "layer key",
            Self::Content => "content key",
            Self::Image => "image key",
        })
    }
}

/// One thing that differs. `Display` makes a sentence of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Difference {
    /// What differs, for example `requirement numpy`.
    pub what: String,
    /// How it was; absent if it was not there.
    pub before: Option<String>,
    /// How it is; absent if it is gone.
    pub after: Option<String>,
    /// The keys that it changes for certain, in the order of the chain.
    pub changes: Vec<KeyKind>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{what} was {before}, is {after}"),
            (None, Some(after)) => write!(f, "{what} is new: {after}"),
            (Some(before), None) => write!(f, "{what} is gone, was {before}"),
            (None, None) => f.write_str(what),
        }
    }
}

/// What differs between two configurations. `changes` names the image key, and for user and working folder, which
/// have a layer, the keys below it.
pub fn explain_config(before: &ConfigDocument, after: &ConfigDocument) -> Vec<Difference> {
    const CONFIG: &[KeyKind] = &[KeyKind::Image];
    const LAYERED: &[KeyKind] = &[KeyKind::Layer, KeyKind::Content, KeyKind::Image];
    let ConfigDocument {
        env,
        user,
        workdir,
        entrypoint,
        cmd,
        labels,
        annotations,
    } = before;
    let mut found = Found::default();
    found.map(
        "environment variable",
        env,
        &after.env,
        |text| quoted(text),
        CONFIG,
    );
    found.value("the user", user_text(user), user_text(&after.user), LAYERED);
    let path = |path: &Option<String>| path.as_deref().map_or("not set".into(), quoted);
    found.value(
        "the working folder",
        path(workdir),
        path(&after.workdir),
        LAYERED,
    );
    let list = |list: &Option<Vec<String>>| list.as_deref().map_or("not set".into(), listed);
    found.value(
        "the entry point",
        list(entrypoint),
        list(&after.entrypoint),
        CONFIG,
    );
    found.value("the default command", list(cmd), list(&after.cmd), CONFIG);
    found.map("label", labels, &after.labels, |text| quoted(text), CONFIG);
    found.map(
        "annotation",
        annotations,
        &after.annotations,
        |text| quoted(text),
        CONFIG,
    );
    found.0
}

/// What differs between two contents beside the layers themselves, which [`explain_layers`] tells.
pub fn explain_content(before: &ContentDocument, after: &ContentDocument) -> Vec<Difference> {
    const CONTENT: &[KeyKind] = &[KeyKind::Content, KeyKind::Image];
    let ContentDocument {
        v,
        platform,
        from,
        layers,
    } = before;
    let mut found = Found::default();
    found.value(
        "the content document's version",
        v.to_string(),
        after.v.to_string(),
        CONTENT,
    );
    found.value(
        "the platform",
        platform.to_string(),
        after.platform.to_string(),
        CONTENT,
    );
    found.option(
        "the base image's digest",
        from.map(|digest| digest.to_string()),
        after.from.map(|digest| digest.to_string()),
        CONTENT,
    );
    let kept = |own: &[crate::digest::Digest], other: &[crate::digest::Digest]| -> Vec<String> {
        let kept = own.iter().filter(|layer| other.contains(layer));
        kept.map(|layer| layer.short()).collect()
    };
    found.value(
        "the order of layers",
        kept(layers, &after.layers).join(", "),
        kept(&after.layers, layers).join(", "),
        CONTENT,
    );
    found.0
}

fn user_text(user: &UserDocument) -> String {
    let UserDocument {
        name,
        uid,
        gid,
        home,
    } = user;
    format!("{name} (uid {uid}, gid {gid}, home {home})")
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn listed(list: &[String]) -> String {
    list.iter()
        .map(|text| quoted(text))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Collects differences.
#[derive(Default)]
struct Found(Vec<Difference>);

impl Found {
    fn value(&mut self, what: &str, before: String, after: String, changes: &[KeyKind]) {
        self.option(what, Some(before), Some(after), changes);
    }

    fn option(
        &mut self,
        what: &str,
        before: Option<String>,
        after: Option<String>,
        changes: &[KeyKind],
    ) {
        if before != after {
            self.0.push(Difference {
                what: what.into(),
                before,
                after,
                changes: changes.to_vec(),
            });
        }
    }

    /// Compares two maps entry by entry.
    fn map<T>(
        &mut self,
        what: &str,
        before: &BTreeMap<String, T>,
        after: &BTreeMap<String, T>,
        show: impl Fn(&T) -> String,
        changes: &[KeyKind],
    ) {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let side = |map: &BTreeMap<String, T>| map.get(name).map(&show);
            self.option(
                &format!("{what} {name}"),
                side(before),
                side(after),
                changes,
            );
        }
    }

    /// Compares two sets whose members have a name each, several of them perhaps the same one.
    fn named<T: Ord>(
        &mut self,
        what: &str,
        before: &BTreeSet<T>,
        after: &BTreeSet<T>,
        describe: impl Fn(&T) -> (String, String),
        changes: &[KeyKind],
    ) {
        let mut names: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for gone in before.difference(after) {
            let (name, text) = describe(gone);
            names.entry(name).or_default().0.push(text);
        }
        for new in after.difference(before) {
            let (name, text) = describe(new);
            names.entry(name).or_default().1.push(text);
        }
        let joined = |list: Vec<String>| (!list.is_empty()).then(|| list.join(" and "));
        for (name, (gone, new)) in names {
            self.option(
                &format!("{what} {name}"),
                joined(gone),
                joined(new),
                changes,
            );
        }
    }
}
