//! The SBOM of a pushed image: where it is found, and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use imagewright::digest::Digest;
use imagewright::registry::Registry;
use serde_json::{Value, json};

use crate::lab::{self, Lab, Options, PREFIX, Server, client, login_file, wait};

const IMAGE: &str = r#"image "one" base="small" { pip "alpha"; }"#;

fn push(lab: &Lab) -> Digest {
    let ran = lab.run(&["push", "--json"]).expect(0, &[]);
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    let digest = document["images"][0]["digest"].as_str().unwrap();
    digest.parse().unwrap()
}

/// The SBOM that refers to an image, as a stranger finds it.
fn found(registry: &Registry, server: &Server, image: &Digest) -> Value {
    let repository = server.reference(PREFIX);
    wait(async {
        let referrers = registry.referrers(&repository, image).await.unwrap();
        let [referrer] = referrers.as_slice() else {
            panic!("{referrers:?}");
        };
        assert_eq!(
            referrer.artifact_type.as_deref(),
            Some("application/spdx+json")
        );
        let pinned = imagewright::registry::Reference {
            digest: Some(referrer.digest),
            ..repository.clone()
        };
        let manifest = registry.manifest(&pinned).await.unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["subject"]["digest"], image.to_string());
        let blob: Digest = manifest["layers"][0]["digest"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let bytes = registry
            .small_blob(&repository, &blob, 1 << 20)
            .await
            .unwrap();
        serde_json::from_slice(&bytes).unwrap()
    })
}

#[test]
fn an_sbom_is_found_by_fallback_tag_and_by_the_referrers_api() {
    let index = lab::index();
    let mut said = Vec::new();
    let fallback = Server::docker_registry(Options {
        login: true,
        delete: false,
    });
    for server in std::iter::once(fallback).chain(Server::olareg()) {
        let lab = lab::project(server.address(), &index, IMAGE);
        let image = push(&lab);
        let login = login_file(&lab.path("login"), &[server.address()]);
        let registry = client(&[login]);
        let sbom = found(&registry, &server, &image);
        // Another push of it under another name adds none.
        let text = lab::manifest(server.address(), &IMAGE.replace("\"one\"", "\"two\""));
        lab.write("imagewright.kdl", text);
        assert_eq!(push(&lab), image);
        assert_eq!(found(&registry, &server, &image), sbom);
        said.push(sbom);
    }
    let [first, others @ ..] = said.as_slice() else {
        panic!("no registry");
    };
    assert!(
        others.iter().all(|other| other == first),
        "an SBOM is a function of the image"
    );
}

#[test]
fn an_sbom_names_every_package_with_its_file_and_the_layer_that_brings_it() {
    let server = Server::docker_registry(Options::default());
    let index = lab::index();
    let lab = lab::project(server.address(), &index, IMAGE);
    let image = push(&lab);
    let sbom = found(&client(&[]), &server, &image);
    assert_spdx(&sbom);
    assert_eq!(sbom["creationInfo"]["created"], "1970-01-01T00:00:00Z");
    let packages: BTreeMap<&str, &Value> = sbom["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["SPDXID"].as_str().unwrap(), package))
        .collect();
    let manifest = fs::read(server.blob_path(&image)).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    for (at, layer) in layers.iter().enumerate() {
        let told = packages[format!("SPDXRef-Layer-{at}").as_str()];
        let digest = format!(
            "sha256:{}",
            told["checksums"][0]["checksumValue"].as_str().unwrap()
        );
        assert_eq!(digest, layer["digest"].as_str().unwrap());
    }
    assert_eq!(packages.len(), 1 + layers.len() + 2);
    for (name, purl) in [
        ("alpha", "pkg:pypi/alpha@1.0"),
        ("beta", "pkg:pypi/beta@2.0"),
    ] {
        let (id, package) = packages
            .iter()
            .find(|(_, package)| package["name"] == name)
            .unwrap();
        assert_eq!(package["externalRefs"][0]["referenceLocator"], purl);
        let file = package["packageFileName"].as_str().unwrap();
        let sha256 = package["checksums"][0]["checksumValue"].as_str().unwrap();
        let lock = fs::read_to_string(lab.project().join("imagewright.lock")).unwrap();
        let line = lock.lines().find(|line| line.contains(file)).unwrap();
        assert!(line.contains(sha256), "{line}");
        let container = sbom["relationships"]
            .as_array()
            .unwrap()
            .iter()
            .find(|relation| {
                relation["relatedSpdxElement"] == **id && relation["relationshipType"] == "CONTAINS"
            })
            .unwrap();
        let layer = packages[container["spdxElementId"].as_str().unwrap()];
        assert!(
            layer["sourceInfo"].as_str().unwrap().contains(name),
            "{layer}"
        );
        let blob = layer["checksums"][0]["checksumValue"].as_str().unwrap();
        assert!(package["sourceInfo"].as_str().unwrap().contains(blob));
    }
}

/// What SPDX 2.3 demands of a document of packages, clause by clause.
#[track_caller]
fn assert_spdx(sbom: &Value) {
    let text = |value: &Value| {
        value
            .as_str()
            .unwrap_or_else(|| panic!("{value}"))
            .to_owned()
    };
    // 6: document creation information.
    assert_eq!(sbom["spdxVersion"], "SPDX-2.3");
    assert_eq!(sbom["dataLicense"], "CC0-1.0");
    assert_eq!(sbom["SPDXID"], "SPDXRef-DOCUMENT");
    assert!(!text(&sbom["name"]).is_empty());
    let namespace = url::Url::parse(&text(&sbom["documentNamespace"])).unwrap();
    assert_eq!(namespace.fragment(), None);
    let created = text(&sbom["creationInfo"]["created"]);
    assert!(created.len() == 20 && created.ends_with('Z'), "{created}");
    let creators = sbom["creationInfo"]["creators"].as_array().unwrap();
    assert!(text(&creators[0]).starts_with("Tool: imagewright-"));
    // 3.2, 7: packages.
    let is_id = |id: &str| {
        let rest = id.strip_prefix("SPDXRef-").unwrap_or_default();
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
        !rest.is_empty() && rest.chars().all(fits)
    };
    let mut ids = BTreeSet::from(["SPDXRef-DOCUMENT".to_owned()]);
    for package in sbom["packages"].as_array().unwrap() {
        let id = text(&package["SPDXID"]);
        assert!(is_id(&id) && ids.insert(id.clone()), "{id}");
        assert!(!text(&package["name"]).is_empty());
        let place = text(&package["downloadLocation"]);
        assert!(
            place == "NOASSERTION" || url::Url::parse(&place).is_ok(),
            "{place}"
        );
        assert_eq!(package["filesAnalyzed"], false);
        assert!(package.get("packageVerificationCode").is_none());
        assert!(package.get("licenseInfoFromFiles").is_none());
        for licence in ["licenseConcluded", "licenseDeclared", "copyrightText"] {
            assert!(!text(&package[licence]).is_empty(), "{licence} of {id}");
        }
        let purpose = text(&package["primaryPackagePurpose"]);
        assert!(["CONTAINER", "ARCHIVE", "LIBRARY"].contains(&purpose.as_str()));
        for checksum in package["checksums"].as_array().unwrap() {
            assert_eq!(checksum["algorithm"], "SHA256");
            assert!(Digest::from_hex(&text(&checksum["checksumValue"])).is_ok());
        }
        for reference in package["externalRefs"].as_array().into_iter().flatten() {
            assert_eq!(reference["referenceCategory"], "PACKAGE-MANAGER");
            assert_eq!(reference["referenceType"], "purl");
            assert!(text(&reference["referenceLocator"]).starts_with("pkg:"));
        }
    }
    // 10: the licences that are not on the list of SPDX.
    for licence in sbom["hasExtractedLicensingInfos"]
        .as_array()
        .into_iter()
        .flatten()
    {
        assert!(text(&licence["licenseId"]).starts_with("LicenseRef-"));
        assert!(!text(&licence["extractedText"]).is_empty());
    }
    // 11: relationships; from the document everything is reached.
    assert_eq!(sbom["documentDescribes"], json!(["SPDXRef-Image"]));
    let mut reached = BTreeSet::from(["SPDXRef-DOCUMENT".to_owned()]);
    for relation in sbom["relationships"].as_array().unwrap() {
        let (from, to) = (
            text(&relation["spdxElementId"]),
            text(&relation["relatedSpdxElement"]),
        );
        assert!(["DESCRIBES", "CONTAINS"].contains(&text(&relation["relationshipType"]).as_str()));
        assert!(
            reached.contains(&from),
            "{from} is told of before it is reached"
        );
        reached.insert(to);
    }
    assert_eq!(reached, ids);
}
