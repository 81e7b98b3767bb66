//! The part of a request that asks for Python packages.

use std::collections::{BTreeMap, BTreeSet};

use super::{Offer, Offered, Reasons};
use crate::identity::{PipDocument, RequestDocument, canonical_url};
use crate::lock::WheelOrigin;
use crate::resolve::python::{Asked, Environment, is_prerelease};

/// One line of the request.
struct Line<'a> {
    document: &'a PipDocument,
    asked: Asked,
}

/// The lines of a request that matter on the image's platform and Python.
struct Lines<'a> {
    requirements: Vec<Line<'a>>,
    constraints: Vec<Line<'a>>,
    overrides: Vec<Line<'a>>,
}

pub(super) fn check(document: &RequestDocument, offer: &Offer, reasons: &mut Reasons) {
    let Some(environment) = Environment::new(offer.platform, &offer.python) else {
        let why = format!("its version, `{}`, cannot be read", offer.python);
        return reasons.wrong("Python", why);
    };
    let lines = Lines {
        requirements: lines(&environment, &document.pip, reasons),
        constraints: lines(&environment, &document.constraints, reasons),
        overrides: lines(&environment, &document.overrides, reasons),
    };
    same_settings(document, offer, reasons);
    let asked_for = extras_asked_for(&environment, offer);
    for line in lines.requirements.iter().filter(|line| line.asked.applies) {
        extras(line, &asked_for, reasons);
        for effective in lines.in_force(line) {
            requirement(effective, &lines, offer, reasons);
        }
    }
    let limits = lines.constraints.iter().chain(&lines.overrides);
    for line in limits.filter(|line| line.asked.applies) {
        if let Some(found) = offer.pip.get(&line.asked.name) {
            allowed(line, found, reasons);
        }
    }
    for (name, found) in &offer.pip {
        origin(name, found, document, &lines, reasons);
    }
}

fn lines<'a>(
    environment: &Environment,
    documents: &'a BTreeSet<PipDocument>,
    reasons: &mut Reasons,
) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for document in documents {
        match environment.asked(&document.requirement) {
            Ok(asked) => lines.push(Line { document, asked }),
            Err(error) => reasons.wrong(&document.requirement, error),
        }
    }
    lines
}

impl<'a> Lines<'a> {
    /// What counts instead of a requirement: the overrides of its package, or itself.
    fn in_force<'s>(&'s self, line: &'s Line<'a>) -> Vec<&'s Line<'a>> {
        let named = |other: &&Line<'a>| other.asked.name == line.asked.name;
        let overrides: Vec<_> = self.overrides.iter().filter(named).collect();
        if overrides.is_empty() {
            return vec![line];
        }
        overrides
            .into_iter()
            .filter(|line| line.asked.applies)
            .collect()
    }

    /// All that name a package and apply.
    fn of(&self, name: &str) -> impl Iterator<Item = &Line<'a>> {
        let all = self.requirements.iter().chain(&self.constraints);
        all.chain(&self.overrides)
            .filter(move |line| line.asked.applies && line.asked.name == name)
    }
}

/// What shapes the packages that nobody asked for by name.
fn same_settings(document: &RequestDocument, offer: &Offer, reasons: &mut Reasons) {
    let requested = &offer.requested;
    let ours: BTreeSet<&str> = document
        .overrides
        .iter()
        .map(|line| line.requirement.as_str())
        .collect();
    let theirs: BTreeSet<&str> = requested.overrides.iter().map(String::as_str).collect();
    if ours != theirs {
        let why = if theirs.is_empty() {
            "it was made without them".into()
        } else {
            let theirs: Vec<&str> = theirs.into_iter().collect();
            format!("it was made with {}", theirs.join(", "))
        };
        reasons.wrong("overrides", why);
    }
    if document.exclude_newer.is_some() && document.exclude_newer != requested.exclude_newer {
        let why = match &requested.exclude_newer {
            Some(instant) => format!("it was made with {instant}"),
            None => "it was made without".into(),
        };
        reasons.wrong("exclude-newer", why);
    }
    if (&document.indexes, &document.default_index)
        != (&requested.indexes, &requested.default_index)
    {
        let why =
            "its packages were looked for in other ones, where a name may mean another package";
        reasons.wrong("indexes", why);
    }
}

/// Package → the extras that the image was asked for, where that counted.
fn extras_asked_for(
    environment: &Environment,
    offer: &Offer,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    for text in &offer.requested.pip {
        if let Ok(asked) = environment.asked(text)
            && asked.applies
        {
            found.entry(asked.name).or_default().extend(asked.extras);
        }
    }
    found
}

fn extras(line: &Line<'_>, asked_for: &BTreeMap<String, BTreeSet<String>>, reasons: &mut Reasons) {
    let none = BTreeSet::new();
    let has = asked_for.get(&line.asked.name).unwrap_or(&none);
    let missing: Vec<&str> = line
        .asked
        .extras
        .difference(has)
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let why = format!(
            "it was not asked for {}[{}], so what that brings need not be there",
            line.asked.name,
            missing.join(",")
        );
        reasons.wrong(&line.document.requirement, why);
    }
}

fn requirement(line: &Line<'_>, lines: &Lines<'_>, offer: &Offer, reasons: &mut Reasons) {
    let about = &line.document.requirement;
    let Some(found) = offer.pip.get(&line.asked.name) else {
        return reasons.wrong(about, format!("it has no {}", line.asked.name));
    };
    if line.asked.url && !offer.requested.pip.contains(about) {
        return reasons.wrong(about, "it was not asked for this file");
    }
    allowed(line, found, reasons);
    let named = || {
        lines
            .of(&line.asked.name)
            .any(|line| line.asked.names_prerelease())
    };
    if is_prerelease(&found.version) && !named() {
        let why = format!("{} is a pre-release, which it does not name", found.version);
        reasons.wrong(about, why);
    }
}

/// Version, file, index and hash of an installed package that a line names.
fn allowed(line: &Line<'_>, found: &Offered, reasons: &mut Reasons) {
    let PipDocument {
        requirement: about,
        index,
        wheel,
        hashes,
    } = line.document;
    if !line.asked.contains(&found.version) {
        reasons.wrong(about, format!("it has {}", found.version));
    }
    if index.is_none() && wheel.is_none() && hashes.is_empty() {
        return;
    }
    let Some((sha256, origin)) = &found.wheel else {
        return reasons.unproven(about, "which file was installed, only its lock can tell");
    };
    if let Some(wheel) = wheel
        && *sha256 != wheel.sha256
    {
        reasons.wrong(about, format!("it has another file than {}", wheel.file));
    }
    if let Some(index) = index
        && !matches!(origin, WheelOrigin::Index(url) if canonical_url(url) == *index)
    {
        reasons.wrong(about, format!("it is not from {index}"));
    }
    if !hashes.is_empty() && !hashes.contains(&sha256.to_string()) {
        reasons.wrong(about, format!("its file, {sha256}, has none of the hashes"));
    }
}

/// A file may come from where the request lets it come from, nowhere else.
fn origin(
    name: &str,
    found: &Offered,
    document: &RequestDocument,
    lines: &Lines<'_>,
    reasons: &mut Reasons,
) {
    let Some((sha256, origin)) = &found.wheel else {
        return;
    };
    let good = match origin {
        WheelOrigin::DefaultIndex => document.default_index.is_none(),
        WheelOrigin::Index(url) => {
            let url = canonical_url(url);
            let mut named = lines
                .of(name)
                .filter_map(|line| line.document.index.as_ref());
            document.indexes.contains(&url)
                || document.default_index.as_ref() == Some(&url)
                || named.any(|index| *index == url)
        }
        WheelOrigin::Path(_) => lines.of(name).any(|line| {
            let wheel = line.document.wheel.as_ref();
            wheel.is_some_and(|wheel| wheel.sha256 == *sha256)
        }),
        WheelOrigin::Url(_) => false,
    };
    if good {
        return;
    }
    let why = match origin {
        WheelOrigin::DefaultIndex => {
            "it is from the default index, which the manifest replaces".into()
        }
        WheelOrigin::Index(url) => {
            format!("it is from {url}, which the manifest does not declare for it")
        }
        WheelOrigin::Path(path) => format!("it is the file {path} of another project"),
        WheelOrigin::Url(url) => format!("it is from {url}, which the manifest does not name"),
    };
    reasons.wrong(name, why);
}
