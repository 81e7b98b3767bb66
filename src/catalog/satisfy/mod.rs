//! Whether an image that exists satisfies a request: it may hold more than was asked for, never less or another thing.
//!
//! Configuration, files and downloads are not looked at: they are the manifest's own and pin nothing. Only what can be
//! proved counts: extras leave no trace in an image, so that somebody must have asked for them; overrides, the
//! indexes and `exclude-newer` shape what was not asked for by name, so that they must be the same; hashes, the
//! project's wheels and `index=` show in the lock beside a record only.

mod choose;
mod fragment;
mod offer;
mod python;
#[cfg(test)]
mod tests;

pub use choose::{Choice, choose, narrowed, nearest, wishes};
pub use fragment::Fragment;
pub use offer::{Offer, Offered};

use std::fmt;

use super::Record;
use crate::digest::Digest;
use crate::identity::{self, BaseDocument, OsDocument, RequestDocument};
use crate::resolve::debian::means_version;

/// A request, and what its project's folder says of it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The request.
    pub document: &'a RequestDocument,
    /// Digest of the image manifest behind an `oci:` base: the folder means something else on every machine.
    pub layout: Option<Digest>,
}

/// Why an image does not satisfy a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// The part of the request, for example `numpy>=2`.
    pub about: String,
    /// A sentence's end.
    pub why: String,
    /// Whether it is not known to be wrong: the lock beside the record can tell.
    pub unproven: bool,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.why)
    }
}

/// Reasons, gathered.
#[derive(Default)]
struct Reasons(Vec<Reason>);

impl Reasons {
    fn wrong(&mut self, about: impl Into<String>, why: impl Into<String>) {
        self.push(about, why, false);
    }

    fn unproven(&mut self, about: impl Into<String>, why: impl Into<String>) {
        self.push(about, why, true);
    }

    fn push(&mut self, about: impl Into<String>, why: impl Into<String>, unproven: bool) {
        let (about, why) = (about.into(), why.into());
        let reason = Reason {
            about,
            why,
            unproven,
        };
        if !self.0.contains(&reason) {
            self.0.push(reason);
        }
    }
}

/// Every reason why the image that `record` describes does not satisfy the request; none: it does. An image that was
/// made for this very request satisfies it also where a record cannot prove it.
pub fn satisfy(wanted: &Wanted<'_>, record: &Record) -> Vec<Reason> {
    let mut reasons = reasons(wanted, &Offer::recorded(record));
    if record.keys.request == identity::key(wanted.document) {
        reasons.retain(|reason| !reason.unproven);
    }
    reasons
}

/// Every reason why `offer` does not satisfy the request.
pub fn reasons(wanted: &Wanted<'_>, offer: &Offer) -> Vec<Reason> {
    let document = wanted.document;
    let mut reasons = Reasons::default();
    if offer.platform != document.platform {
        let why = format!("it is for {}", offer.platform);
        reasons.wrong(format!("platform {}", document.platform), why);
    }
    base(wanted, offer, &mut reasons);
    if let Some(minor) = &document.python {
        let rest = offer.python.strip_prefix(minor.as_str());
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            reasons.wrong(
                format!("Python {minor}"),
                format!("it has {}", offer.python),
            );
        }
    }
    python::check(document, offer, &mut reasons);
    for os in &document.os {
        os_package(os, offer, &mut reasons);
    }
    reasons.0
}

fn base(wanted: &Wanted<'_>, offer: &Offer, reasons: &mut Reasons) {
    let root = wanted.document.base.root();
    let about = format!("base {root}");
    if offer.root != root {
        return reasons.wrong(about, format!("it begins with {}", offer.root));
    }
    match &wanted.document.base {
        BaseDocument::Debian { .. } => {
            if offer.base_request != Some(wanted.document.base_key()) {
                let why = "its base was asked for other packages, components, updates, another mirror or Python";
                reasons.wrong(about, why);
            }
        }
        BaseDocument::From { reference } => {
            let folder = reference.starts_with("oci:") && !reference.contains("@sha256:");
            if folder && (wanted.layout.is_none() || wanted.layout != offer.base_digest) {
                reasons.wrong(about, "that folder holds another image here");
            }
        }
    }
}

fn os_package(os: &OsDocument, offer: &Offer, reasons: &mut Reasons) {
    let about = match &os.version {
        Some(version) => format!("OS package {} {version}", os.name),
        None => format!("OS package {}", os.name),
    };
    match (offer.os.get(&os.name), &os.version) {
        (Some(_), None) => {}
        (Some(found), Some(version)) => {
            if !means_version(version, found) {
                reasons.wrong(about, format!("it has {found}"));
            }
        }
        (None, _) => {
            // What a `from` base itself holds is in no list; an image that was asked the same has it from there.
            let mut asked = offer.requested.os.iter();
            if !asked.any(|asked| asked.name == os.name && asked.version == os.version) {
                reasons.wrong(about, "it is not known to be there");
            }
        }
    }
}
