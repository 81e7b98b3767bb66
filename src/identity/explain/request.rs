//! What differs between two requests.

use super::{Difference, Found, KeyKind, explain_config};
use crate::identity::{
    BaseDocument, FetchDocument, FileDocument, OsDocument, PipDocument, RequestDocument,
};

const REQUEST: &[KeyKind] = &[KeyKind::Request];
const ALL: &[KeyKind] = &[
    KeyKind::Request,
    KeyKind::Set,
    KeyKind::Layer,
    KeyKind::Content,
    KeyKind::Image,
];

/// What differs between two requests: the platform, the base, requirements, indexes, OS packages, files, settings.
/// Empty exactly if the request keys are equal.
pub fn explain(before: &RequestDocument, after: &RequestDocument) -> Vec<Difference> {
    let RequestDocument {
        v,
        platform,
        base,
        python,
        os,
        pip,
        constraints,
        overrides,
        exclude_newer,
        indexes,
        default_index,
        files,
        fetches,
        config,
    } = before;
    let mut found = Found::default();
    found.value(
        "the request document's version",
        v.to_string(),
        after.v.to_string(),
        REQUEST,
    );
    found.value(
        "the platform",
        platform.to_string(),
        after.platform.to_string(),
        &[
            KeyKind::Request,
            KeyKind::Set,
            KeyKind::Content,
            KeyKind::Image,
        ],
    );
    explain_base(&mut found, base, &after.base);
    found.value(
        "the Python version",
        or(python, "the base's own"),
        or(&after.python, "the base's own"),
        REQUEST,
    );
    found.named("OS package", os, &after.os, os_text, REQUEST);
    found.named("requirement", pip, &after.pip, pip_text, REQUEST);
    found.named(
        "constraint",
        constraints,
        &after.constraints,
        pip_text,
        REQUEST,
    );
    found.named("override", overrides, &after.overrides, pip_text, REQUEST);
    found.option(
        "exclude-newer",
        exclude_newer.clone(),
        after.exclude_newer.clone(),
        REQUEST,
    );
    explain_indexes(&mut found, indexes, &after.indexes);
    found.value(
        "the default index",
        or(default_index, "not declared"),
        or(&after.default_index, "not declared"),
        REQUEST,
    );
    found.map("file", files, &after.files, file_text, ALL);
    found.named("download", fetches, &after.fetches, fetch_text, ALL);
    for mut difference in explain_config(config, &after.config) {
        difference
            .changes
            .splice(..0, [KeyKind::Request, KeyKind::Set]);
        found.0.push(difference);
    }
    found.0
}

fn or(value: &Option<String>, absent: &str) -> String {
    value.clone().unwrap_or_else(|| absent.into())
}

fn explain_base(found: &mut Found, before: &BaseDocument, after: &BaseDocument) {
    let (
        BaseDocument::Debian {
            suite,
            mirror,
            components,
            updates,
            os,
        },
        BaseDocument::Debian {
            suite: new_suite,
            mirror: new_mirror,
            components: new_components,
            updates: new_updates,
            os: new_os,
        },
    ) = (before, after)
    else {
        found.value("the base", base_text(before), base_text(after), REQUEST);
        return;
    };
    found.value(
        "the Debian suite",
        suite.clone(),
        new_suite.clone(),
        REQUEST,
    );
    found.value(
        "the Debian mirror",
        or(mirror, "not declared"),
        or(new_mirror, "not declared"),
        REQUEST,
    );
    let list = |set: &std::collections::BTreeSet<String>| {
        set.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    found.value(
        "the Debian components",
        list(components),
        list(new_components),
        REQUEST,
    );
    let counted = |updates: bool| if updates { "used" } else { "not used" }.to_owned();
    found.value(
        "updates and security suites",
        counted(*updates),
        counted(*new_updates),
        REQUEST,
    );
    found.named("OS package of the base", os, new_os, os_text, REQUEST);
}

fn base_text(base: &BaseDocument) -> String {
    match base {
        BaseDocument::From { reference } => format!("the image {reference}"),
        BaseDocument::Debian { suite, .. } => format!("Debian {suite}"),
    }
}

/// Indexes that came and went, then whether those that stayed stand in another order.
fn explain_indexes(found: &mut Found, before: &[String], after: &[String]) {
    for url in before.iter().filter(|url| !after.contains(url)) {
        found.option("index", Some(url.clone()), None, REQUEST);
    }
    for url in after.iter().filter(|url| !before.contains(url)) {
        found.option("index", None, Some(url.clone()), REQUEST);
    }
    let kept = |own: &[String], other: &[String]| {
        let kept = own.iter().filter(|url| other.contains(url));
        kept.map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    found.value(
        "the order of indexes",
        kept(before, after),
        kept(after, before),
        REQUEST,
    );
}

fn os_text(os: &OsDocument) -> (String, String) {
    let OsDocument { name, version } = os;
    (name.clone(), or(version, "any version"))
}

/// The package's name, and the whole requirement.
fn pip_text(pip: &PipDocument) -> (String, String) {
    let PipDocument {
        requirement,
        index,
        wheel,
        hashes,
    } = pip;
    let end = requirement
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(requirement.len());
    let mut text = format!("`{requirement}`");
    if let Some(url) = index {
        text += &format!(" from index {url}");
    }
    if let Some(wheel) = wheel {
        text += &format!(" as {} ({})", wheel.file, wheel.sha256);
    }
    if !hashes.is_empty() {
        let list: Vec<&str> = hashes.iter().map(String::as_str).collect();
        text += &format!(" with hash {}", list.join(" or "));
    }
    (requirement[..end].to_owned(), text)
}

pub(super) fn file_text(file: &FileDocument) -> String {
    match file {
        FileDocument::File { sha256, mode } => format!("{sha256} (mode {mode:04o})"),
        FileDocument::Link { target } => format!("a link to {target}"),
        FileDocument::Folder { mode } => format!("a folder (mode {mode:04o})"),
    }
}

pub(super) fn fetch_text(fetch: &FetchDocument) -> (String, String) {
    let FetchDocument { sha256, to, mode } = fetch;
    (to.clone(), format!("{sha256} (mode {mode:04o})"))
}
