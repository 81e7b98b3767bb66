//! The software bill of materials of an image: SPDX 2.3 as JSON, made of the lock.
//!
//! It is a function of the image, the lock and the licences alone: no clock, no random identifier, no name that somebody
//! gave the image. The image contains its layers, a layer the packages that it brings, so that a finding in a package
//! leads to the blob. Packages of a `from` base are not known here: its layers stand as they are.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{Image, Packages, Placed};
use crate::digest::Digest;
use crate::identity;
use crate::layer::wheel::Wheel;
use crate::layer::{Layer, Told};
use crate::lock::{Lock, LockedBase, LockedDeb, LockedImage, LockedWheel, WheelOrigin};
use crate::store::Store;

/// The media type of the document, and the artifact type under which it refers to its image.
pub const MEDIA_TYPE: &str = "application/spdx+json";

/// `created` has to be there; no machine decides it.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What is not known.
const NO_ASSERTION: &str = "NOASSERTION";

/// What a package URL leaves as it is (package-url specification, "Character encoding").
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    document_describes: [&'static str; 1],
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<ExtractedLicence>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: &'static str,
    creators: [String; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_file_name: Option<String>,
    primary_package_purpose: &'static str,
    download_location: String,
    files_analyzed: bool,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    checksums: [Checksum; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtractedLicence {
    license_id: String,
    extracted_text: &'static str,
}

/// The licences that the wheels of an image declare, as far as the store has the wheels or they are told: SHA-256 of the
/// wheel → SPDX expression.
pub fn licences(
    store: &Store,
    lock: &Lock,
    locked: &LockedImage,
    told: &Told,
) -> BTreeMap<Digest, String> {
    let wheels = locked
        .wheels
        .iter()
        .filter_map(|file| lock.wheels.get_key_value(file));
    let licence = |(file, wheel): (&String, &LockedWheel)| {
        let expression = match store.artifact(&wheel.sha256) {
            Some(path) => Wheel::open(&path, file).ok()?.licence().ok()??,
            None => told.get(&wheel.sha256)?.licence.clone()?,
        };
        is_expression(&expression).then_some((wheel.sha256, expression))
    };
    wheels.filter_map(licence).collect()
}

/// Whether a text has the form of an SPDX expression: identifiers, operators, parentheses.
fn is_expression(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || " ().-+".contains(c);
    text.len() <= 500 && text.chars().all(fits)
}

/// The document of the image that `locked` became.
pub fn document(
    image: &Image,
    lock: &Lock,
    locked: &LockedImage,
    licences: &BTreeMap<Digest, String>,
) -> Vec<u8> {
    let found = Packages::of(image, lock, locked);
    let distribution = match &locked.base {
        LockedBase::Debian { suite, .. } => Some(suite.as_str()),
        LockedBase::From { .. } => None,
    };
    let mut parts = Parts::of(image);
    for wheel in &found.wheels {
        let licence = licences.get(&wheel.locked.sha256);
        parts.add(image, wheel.layer, wheel_package(wheel, licence));
    }
    for deb in &found.debs {
        parts.add(image, deb.layer, deb_package(deb, distribution));
    }
    let short = image.key.short();
    identity::canonical_json(&Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: "SPDXRef-DOCUMENT",
        name: format!("image {short}"),
        document_namespace: format!("urn:imagewright:sbom:{}", image.digest()),
        creation_info: CreationInfo {
            created: CREATED,
            creators: [format!("Tool: imagewright-{}", env!("CARGO_PKG_VERSION"))],
        },
        document_describes: [IMAGE],
        packages: parts.packages,
        relationships: parts.relationships,
        has_extracted_licensing_infos: extracted(licences),
    })
}

/// The identifier of the image in the document.
const IMAGE: &str = "SPDXRef-Image";

/// The document's elements as they come together.
struct Parts {
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

impl Parts {
    fn of(image: &Image) -> Self {
        let described = Package {
            version_info: Some(image.digest().to_string()),
            primary_package_purpose: "CONTAINER",
            source_info: Some(format!("image key {}", image.key)),
            ..plain(IMAGE.into(), "image".into(), &image.digest())
        };
        let mut parts = Self {
            packages: vec![described],
            relationships: vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)],
        };
        for (index, layer) in image.layers.iter().enumerate() {
            let package = layer_package(index, layer);
            parts
                .relationships
                .push(relationship(IMAGE, "CONTAINS", &package.id));
            parts.packages.push(package);
        }
        parts
    }

    fn add(&mut self, image: &Image, layer: Option<usize>, package: Package) {
        let within = layer.and_then(|index| Some((index, image.layers.get(index)?)));
        let container = within.map_or(IMAGE.into(), |(index, _)| layer_id(index));
        self.relationships
            .push(relationship(&container, "CONTAINS", &package.id));
        self.packages.push(Package {
            source_info: within.map(|(_, layer)| {
                format!("in the layer {} (diff ID {})", layer.digest, layer.diff_id)
            }),
            ..package
        });
    }
}

fn relationship(from: &str, kind: &'static str, to: &str) -> Relationship {
    Relationship {
        spdx_element_id: from.into(),
        relationship_type: kind,
        related_spdx_element: to.into(),
    }
}

fn layer_id(index: usize) -> String {
    format!("SPDXRef-Layer-{index}")
}

fn layer_package(index: usize, layer: &Layer) -> Package {
    Package {
        primary_package_purpose: "ARCHIVE",
        source_info: Some(format!("{}; diff ID {}", layer.comment, layer.diff_id)),
        ..plain(layer_id(index), format!("layer {index}"), &layer.digest)
    }
}

fn wheel_package(wheel: &Placed<'_, LockedWheel>, licence: Option<&String>) -> Package {
    let LockedWheel {
        name,
        version,
        sha256,
        origin,
        ..
    } = wheel.locked;
    let encoded = utf8_percent_encode(version, PLAIN);
    Package {
        version_info: Some(version.clone()),
        package_file_name: Some(wheel.file.to_owned()),
        download_location: match origin {
            WheelOrigin::Url(url) => url.clone(),
            _ => NO_ASSERTION.into(),
        },
        license_declared: licence.map_or(NO_ASSERTION.into(), Clone::clone),
        external_refs: vec![package_url(format!("pkg:pypi/{name}@{encoded}"))],
        ..plain(
            format!("SPDXRef-Wheel-{}", sha256.hex()),
            name.clone(),
            sha256,
        )
    }
}

fn deb_package(deb: &Placed<'_, LockedDeb>, distribution: Option<&str>) -> Package {
    let LockedDeb {
        package,
        version,
        architecture,
        sha256,
        path,
        ..
    } = deb.locked;
    let (name, encoded) = (
        utf8_percent_encode(package, PLAIN),
        utf8_percent_encode(version, PLAIN),
    );
    let distribution = distribution.map_or(String::new(), |suite| format!("&distro={suite}"));
    let url = format!("pkg:deb/debian/{name}@{encoded}?arch={architecture}{distribution}");
    Package {
        version_info: Some(version.clone()),
        package_file_name: path.rsplit('/').next().map(str::to_owned),
        external_refs: vec![package_url(url)],
        ..plain(
            format!("SPDXRef-Deb-{}", sha256.hex()),
            package.clone(),
            sha256,
        )
    }
}

fn package_url(url: String) -> ExternalRef {
    ExternalRef {
        reference_category: "PACKAGE-MANAGER",
        reference_type: "purl",
        reference_locator: url,
    }
}

/// A package of which only name and bytes are known.
fn plain(id: String, name: String, digest: &Digest) -> Package {
    Package {
        id,
        name,
        version_info: None,
        package_file_name: None,
        primary_package_purpose: "LIBRARY",
        download_location: NO_ASSERTION.into(),
        files_analyzed: false,
        license_concluded: NO_ASSERTION,
        license_declared: NO_ASSERTION.into(),
        copyright_text: NO_ASSERTION,
        checksums: [Checksum {
            algorithm: "SHA256",
            checksum_value: digest.hex(),
        }],
        source_info: None,
        external_refs: Vec::new(),
    }
}

/// SPDX wants the text of every licence that is not on its list.
fn extracted(licences: &BTreeMap<Digest, String>) -> Vec<ExtractedLicence> {
    let words = licences
        .values()
        .flat_map(|text| text.split([' ', '(', ')', '+']));
    let own: BTreeSet<&str> = words
        .filter(|word| word.starts_with("LicenseRef-"))
        .collect();
    own.into_iter()
        .map(|id| ExtractedLicence {
            license_id: id.into(),
            extracted_text: "See the licence files of the packages that declare it.",
        })
        .collect()
}
