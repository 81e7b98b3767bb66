//! What may stand only once in a lock.

use std::collections::{BTreeMap, BTreeSet};

use kdl::{KdlDocument, KdlNode, KdlValue};

use super::read::{HELP, Reader};
use crate::diagnostic::Problem;

impl Reader {
    /// Of two lines about the same thing nobody can say which one counts: none stands twice in its block, nor does a
    /// line say one thing twice.
    pub(super) fn check_once(&mut self, document: &KdlDocument) {
        let mut first = BTreeMap::new();
        for node in document.nodes() {
            self.check_entries(node);
            let subject = subject(node);
            if let Some(first) = first.get(&subject) {
                let message = format!("`{subject}` stands twice, and only one line can count");
                let problem = Problem::new(&self.source, self.span(node), message, "again here")
                    .also(*first, "first here");
                self.problems.0.push(problem.help(HELP));
            } else {
                first.insert(subject, self.span(node));
            }
            if let Some(children) = node.children() {
                self.check_once(children);
            }
        }
    }

    fn check_entries(&mut self, node: &KdlNode) {
        let mut seen = BTreeSet::new();
        for entry in node.entries() {
            let name = entry.name().map(|name| name.value());
            if !seen.insert(name) {
                let name = name.map_or("its argument".into(), |name| format!("`{name}=`"));
                self.wrong(
                    self.span(node),
                    format!("`{}` says {name} twice", node.name().value()),
                );
            }
        }
    }
}

/// What a line is about: there is one of it in its block.
fn subject(node: &KdlNode) -> String {
    let name = node.name().value();
    let text = |value: Option<&KdlValue>| value.and_then(KdlValue::as_string).map(str::to_owned);
    let which = match name {
        "wheel" | "deb" | "debian" => [text(node.get(0)), None],
        "image" => [text(node.get(0)), text(node.get("platform"))],
        _ => [None, None],
    };
    let parts = std::iter::once(name.to_owned()).chain(which.into_iter().flatten());
    parts.collect::<Vec<_>>().join(" ")
}
