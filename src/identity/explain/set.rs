//! What differs between two sets.

use super::request::{fetch_text, file_text};
use super::{Difference, Found, KeyKind, explain_config};
use crate::digest::Digest;
use crate::identity::{SetBase, SetDocument, SetPython, WheelDocument};

const SET: &[KeyKind] = &[KeyKind::Set];
const ALL: &[KeyKind] = &[
    KeyKind::Set,
    KeyKind::Layer,
    KeyKind::Content,
    KeyKind::Image,
];

/// What differs between two sets: the platform, the base, packages, files, settings. Empty exactly if the set keys are
/// equal.
pub fn explain_set(before: &SetDocument, after: &SetDocument) -> Vec<Difference> {
    let SetDocument {
        v,
        emitter,
        cleaning,
        platform,
        base,
        python,
        debs,
        wheels,
        files,
        fetches,
        config,
    } = before;
    let mut found = Found::default();
    let versions = [
        ("the set document's version", v, &after.v),
        ("the emitter's version", emitter, &after.emitter),
        (
            "the version of the cleaning rules",
            cleaning,
            &after.cleaning,
        ),
    ];
    for (what, before, after) in versions {
        found.value(what, before.to_string(), after.to_string(), SET);
    }
    found.value(
        "the platform",
        platform.to_string(),
        after.platform.to_string(),
        &[KeyKind::Set, KeyKind::Content, KeyKind::Image],
    );
    explain_base(&mut found, base, &after.base);
    found.value(
        "the interpreter",
        python_text(python),
        python_text(&after.python),
        SET,
    );
    found.named("the", debs, &after.debs, deb_text, ALL);
    found.named("wheel", wheels, &after.wheels, wheel_text, ALL);
    found.map("file", files, &after.files, file_text, ALL);
    found.named("download", fetches, &after.fetches, fetch_text, ALL);
    for mut difference in explain_config(config, &after.config) {
        difference.changes.insert(0, KeyKind::Set);
        found.0.push(difference);
    }
    found.0
}

fn explain_base(found: &mut Found, before: &SetBase, after: &SetBase) {
    let (
        SetBase::Debian { suite, epoch, debs },
        SetBase::Debian {
            suite: new_suite,
            epoch: new_epoch,
            debs: new_debs,
        },
    ) = (before, after)
    else {
        found.value("the base", base_text(before), base_text(after), SET);
        return;
    };
    found.value("the Debian suite", suite.clone(), new_suite.clone(), SET);
    found.value(
        "the archive's date",
        epoch.to_string(),
        new_epoch.to_string(),
        ALL,
    );
    found.named("the base's", debs, new_debs, deb_text, ALL);
}

fn base_text(base: &SetBase) -> String {
    match base {
        SetBase::From { digest } => format!("the image {digest}"),
        SetBase::Debian { suite, .. } => format!("Debian {suite}"),
    }
}

fn python_text(python: &SetPython) -> String {
    let SetPython { path, minor, full } = python;
    format!("{path} (Python {minor}, {full})")
}

/// Documents hold no names of debs: that some differ is all that can be said of them.
fn deb_text(deb: &Digest) -> (String, String) {
    ("OS packages".into(), deb.to_string())
}

fn wheel_text(wheel: &WheelDocument) -> (String, String) {
    (wheel.name.clone(), wheel.sha256.to_string())
}
