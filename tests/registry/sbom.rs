//! The SBOM of a pushed image: where it is found, and what it says.

use std::collections::BTreeMap;
use std::fs;

use imagewright::digest::Digest;
use imagewright::registry::Registry;
use serde_json::Value;

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
    assert_eq!(sbom["spdxVersion"], "SPDX-2.3");
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
