//! What a record tells of an image wherever it is pushed to.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::catalog::{BaseRecord, CatalogError, Keys, PackageRecord, Record, RecordLayer};
use crate::digest::Digest;
use crate::identity::{EMITTER_VERSION, RequestDocument};
use crate::image::{Image, Packages};
use crate::lock::{Lock, LockedBase, LockedImage};
use crate::manifest::{ImageRequest, Root};

use super::own_key;

/// What an image is and was made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The image.
    pub image: &'a Image,
    /// What it answers.
    pub request: &'a ImageRequest,
    /// The canonical form of that.
    pub document: &'a RequestDocument,
    /// What it was made from.
    pub lock: &'a Lock,
    /// The image in the lock.
    pub locked: &'a LockedImage,
    /// The set key.
    pub set: Digest,
    /// What `{git}` stands for.
    pub git: Option<&'a str>,
}

/// The part of an image manifest that says the content key.
#[derive(Deserialize)]
struct Annotated {
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "dev.imagewright.content")]
    content: Digest,
}

/// A record of an image without place, names, time, lock and SBOM, which publishing adds.
///
/// # Errors
/// When the image is not one of ours.
pub fn describe(facts: &Facts<'_>) -> Result<Record, CatalogError> {
    let Facts {
        image,
        request,
        lock,
        locked,
        ..
    } = *facts;
    let annotated: Annotated =
        serde_json::from_str(&image.manifest).map_err(|error| CatalogError::Malformed {
            what: format!("the manifest of {}", request.name.value),
            reason: error.to_string(),
        })?;
    let packages = Packages::of(image, lock, locked);
    Ok(Record {
        v: Record::VERSION,
        name: request.name.value.clone(),
        platform: image.platform,
        repository: String::new(),
        tags: Vec::new(),
        digest: image.digest(),
        index: None,
        config: image.config_digest(),
        keys: Keys {
            request: locked.request,
            set: facts.set,
            content: annotated.annotations.content,
            image: image.key,
        },
        emitter: EMITTER_VERSION,
        python: locked.python.full.clone(),
        base: base(request, locked),
        requested: facts.document.into(),
        pip: pip(request, &packages),
        os: os(request, &packages),
        layers: image
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| RecordLayer::of(layer, own_key(image, index)))
            .collect(),
        base_layers: image.base_layers,
        version: request
            .version
            .as_ref()
            .map(|version| version.value.clone()),
        git: facts.git.map(str::to_owned),
        pushed_ms: 0,
        supersedes: None,
        lock: None,
        sbom: None,
        removed: false,
        signatures: Vec::new(),
    })
}

fn base(request: &ImageRequest, locked: &LockedImage) -> BaseRecord {
    let name = request.base.clone();
    match &locked.base {
        LockedBase::From { reference, digest } => BaseRecord {
            name,
            root: reference.clone(),
            digest: Some(*digest),
            request: None,
        },
        LockedBase::Debian { suite, request, .. } => BaseRecord {
            name,
            root: format!("debian {suite}"),
            digest: None,
            request: Some(*request),
        },
    }
}

fn pip(request: &ImageRequest, packages: &Packages<'_>) -> Vec<PackageRecord> {
    let asked = request.pip.iter().map(|pip| pip.name.as_str());
    let wheels = packages.wheels.iter().map(|wheel| {
        let locked = wheel.locked;
        (&locked.name, &locked.version, wheel.layer)
    });
    installed(asked, wheels)
}

fn os(request: &ImageRequest, packages: &Packages<'_>) -> Vec<PackageRecord> {
    let of_base = match &request.root {
        Root::Debian(debian) => debian.os.as_slice(),
        Root::From(_) => &[],
    };
    let asked = of_base.iter().chain(&request.os).map(|os| os.name.as_str());
    let debs = packages.debs.iter().map(|deb| {
        let locked = deb.locked;
        (&locked.package, &locked.version, deb.layer)
    });
    installed(asked, debs)
}

/// Packages by name, version and layer; each once, sorted.
fn installed<'a>(
    asked: impl Iterator<Item = &'a str>,
    packages: impl Iterator<Item = (&'a String, &'a String, Option<usize>)>,
) -> Vec<PackageRecord> {
    let asked: BTreeSet<&str> = asked.collect();
    let records = packages.map(|(name, version, layer)| PackageRecord {
        name: name.clone(),
        version: version.clone(),
        requested: asked.contains(name.as_str()),
        layer,
    });
    let records: BTreeSet<PackageRecord> = records.collect();
    records.into_iter().collect()
}
