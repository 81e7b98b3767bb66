//! `registry`, `push` and `trust` nodes: where images go, and who is believed.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::VerifyingKey;

use super::merge::is_true;
use super::mistake::Mistake;
use super::model::{Destination, Layout, Spanned, TrustedKey};
use super::node::Node;
use super::report::Report;
use crate::diagnostic::Problem;

impl fmt::Display for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", BASE64.encode(self.0))
    }
}

impl FromStr for TrustedKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text
            .strip_prefix("ed25519:")
            .and_then(|text| BASE64.decode(text).ok());
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        match bytes.filter(|bytes| VerifyingKey::from_bytes(bytes).is_ok()) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err("a public key is `ed25519:` and 32 bytes in base64".into()),
        }
    }
}

/// The key that a text says. What is no key is not shown: it may be the private one.
pub(super) fn public_key(text: &str) -> Result<TrustedKey, Mistake> {
    text.parse().map_err(|_| {
        Mistake::whole("this is not a public key", "not `ed25519:` and 32 bytes in base64")
            .help("write the public key that the signer gave you, for example as `imagewright sign` prints it; never the private one")
            .secret()
    })
}

/// The `registry` or `push` that a node declares.
fn destination(node: &Node) -> Option<Spanned<Destination>> {
    let value = node.argument(0)?;
    let layout = match node.property("layout").map(|layout| layout.text()) {
        Some("single") => Layout::Single,
        Some("per-image") => Layout::PerImage,
        _ => Layout::Split,
    };
    Some(value.spanned(Destination {
        registry: value.text().to_owned(),
        layout,
        plain_http: node.property("plain-http").is_some_and(is_true),
    }))
}

/// What the `registry` and `push` nodes declare; one that stands twice is reported.
pub(super) fn read(
    nodes: &[Node],
    report: &mut Report,
) -> (Option<Spanned<Destination>>, Vec<Spanned<Destination>>) {
    let declared = |name: &'static str| {
        let named = nodes.iter().filter(move |node| node.rule.name == name);
        named.filter_map(destination)
    };
    let registry = declared("registry").next();
    let pushes: Vec<_> = declared("push").collect();
    let mut seen: Vec<&Spanned<Destination>> = registry.iter().collect();
    for push in &pushes {
        let same =
            |other: &&&Spanned<Destination>| other.registry.eq_ignore_ascii_case(&push.registry);
        match seen.iter().find(same) {
            None => seen.push(push),
            Some(first) => {
                let message = format!("images are pushed to {} twice", push.registry);
                let problem = Problem::new(&push.source, push.span, message, "again here")
                    .also(first.span, "first here");
                report.push(problem.help("keep one of the two; images are pushed to `registry` as well as to every `push`"));
            }
        }
    }
    (registry, pushes)
}

/// The keys of the `trust` nodes.
pub(super) fn trusted(nodes: &[Node]) -> Vec<Spanned<TrustedKey>> {
    let named = nodes.iter().filter(|node| node.rule.name == "trust");
    let values = named.filter_map(|node| node.argument(0));
    values
        .filter_map(|value| Some(value.spanned(public_key(value.text()).ok()?)))
        .collect()
}
