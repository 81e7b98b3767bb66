//! An image that exists, as far as a request asks about it.

use std::collections::BTreeMap;

use crate::catalog::{Record, RequestRecord};
use crate::digest::Digest;
use crate::lock::{Lock, LockedBase, LockedImage, WheelOrigin};
use crate::manifest::Platform;

/// An image that exists, as far as a request asks about it: from its record alone, or from the lock beside that.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its platform.
    pub platform: Platform,
    /// Full Python version.
    pub python: String,
    /// `debian SUITE`, or the reference of the image.
    pub root: String,
    /// Digest of a `from` image's manifest.
    pub base_digest: Option<Digest>,
    /// Key of the base's part of the request, if it is Debian.
    pub base_request: Option<Digest>,
    /// The request key that it answers.
    pub request: Digest,
    /// What it was asked for.
    pub requested: RequestRecord,
    /// Normalised name → Python package.
    pub pip: BTreeMap<String, Offered>,
    /// Name → version of OS packages; of a `from` base only what imagewright added.
    pub os: BTreeMap<String, String>,
}

/// An installed Python package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// PEP 440.
    pub version: String,
    /// Its file: SHA-256 and where that came from; a record does not tell.
    pub wheel: Option<(Digest, WheelOrigin)>,
}

impl Offer {
    /// What the record says.
    pub fn recorded(record: &Record) -> Self {
        let pip = record.pip.iter().map(|package| {
            let offered = Offered {
                version: package.version.clone(),
                wheel: None,
            };
            (package.name.clone(), offered)
        });
        let os = record.os.iter();
        Self {
            platform: record.platform,
            python: record.python.clone(),
            root: record.base.root.clone(),
            base_digest: record.base.digest,
            base_request: record.base.request,
            request: record.keys.request,
            requested: record.requested.clone(),
            pip: pip.collect(),
            os: os
                .map(|package| (package.name.clone(), package.version.clone()))
                .collect(),
        }
    }

    /// What `image` of `lock` pins; what was asked for says the record beside which the lock lies.
    pub fn locked(record: &Record, lock: &Lock, image: &LockedImage) -> Self {
        let wheels = image.wheels.iter().filter_map(|file| lock.wheels.get(file));
        let pip = wheels.map(|wheel| {
            let offered = Offered {
                version: wheel.version.clone(),
                wheel: Some((wheel.sha256, wheel.origin.clone())),
            };
            (wheel.name.clone(), offered)
        });
        let debs = image.base.debs().iter().chain(&image.debs);
        let os = debs.filter_map(|id| lock.debs.get(id));
        let (root, base_digest, base_request) = match &image.base {
            LockedBase::Debian { suite, request, .. } => {
                (format!("debian {suite}"), None, Some(*request))
            }
            LockedBase::From { reference, digest } => (reference.clone(), Some(*digest), None),
        };
        Self {
            platform: record.platform,
            python: image.python.full.clone(),
            root,
            base_digest,
            base_request,
            request: image.request,
            requested: record.requested.clone(),
            pip: pip.collect(),
            os: os
                .map(|deb| (deb.package.clone(), deb.version.clone()))
                .collect(),
        }
    }
}
