//! Records put into a registry by hand: right ones, and whatever else.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt as _;
use imagewright::catalog::{KeyTag, PackageRecord, Record, RecordLayer};
use imagewright::digest::Digest;
use imagewright::oci::Descriptor;
use imagewright::registry::{Reference, Registry};
use serde_json::{Value, json};

use crate::lab::{PREFIX, Server, client, wait};
use crate::plain;
use crate::project::{Lab, Ran};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The record of an image with this name, pushed at a second of 2023, with these packages: `name==version`, those of
/// the OS with `os:` before it.
pub fn record(name: &str, second: i64, packages: &[&str]) -> Record {
    let id = format!("{name} at {second}");
    let list = |os: bool| {
        let wanted = packages.iter().filter(|text| text.starts_with("os:") == os);
        let packages = wanted.map(|text| text.trim_start_matches("os:").split_once("==").unwrap());
        packages
            .map(|(name, version)| PackageRecord {
                name: name.into(),
                version: version.into(),
                requested: false,
                layer: Some(0),
            })
            .collect()
    };
    Record {
        name: name.into(),
        repository: PREFIX.into(),
        tags: vec![name.into()],
        pip: list(false),
        os: list(true),
        layers: vec![RecordLayer {
            key: Some(plain::digest("layer key", &id)),
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
            digest: plain::digest("layer", &id),
            size: 10,
            diff_id: plain::digest("diff", &id),
            unpacked: 20,
            comment: "everything".into(),
        }],
        pushed_ms: (1_700_000_000 + second) * 1000,
        ..plain::record(&id)
    }
}

/// The repository of the records.
pub fn cache(server: &Server) -> Reference {
    server.reference(&format!("{PREFIX}/cache"))
}

/// Puts records; returns the digests of their documents.
pub fn put(server: &Server, records: &[Record]) -> Vec<Digest> {
    let documents = records
        .iter()
        .map(|record| serde_json::to_vec(record).unwrap());
    let (client, cache) = (&client(&[]), &cache(server));
    let sent = documents.map(|document| async move {
        let digest = Digest::of(&document);
        let (tag, manifest) = (KeyTag::Record(digest).tag(), manifest(&document));
        send(client, cache, &tag, &manifest, &[document]).await;
        digest
    });
    wait(futures_util::stream::iter(sent).buffered(8).collect())
}

/// The artifact manifest that embeds a document.
pub fn manifest(document: &[u8]) -> Value {
    let mut config = json!(Descriptor::of(Record::MEDIA_TYPE, document));
    config["data"] = BASE64.encode(document).into();
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": Record::ARTIFACT_TYPE, "config": config,
        "layers": [Descriptor::of("application/vnd.oci.empty.v1+json", b"{}")],
    })
}

/// Puts a manifest with the blobs that it names.
pub fn put_manifest(server: &Server, tag: &str, manifest: &Value, blobs: &[Vec<u8>]) -> Digest {
    wait(send(&client(&[]), &cache(server), tag, manifest, blobs))
}

async fn send(
    client: &Registry,
    cache: &Reference,
    tag: &str,
    manifest: &Value,
    blobs: &[Vec<u8>],
) -> Digest {
    let empty = b"{}".to_vec();
    for blob in blobs.iter().chain([&empty]) {
        let at = Descriptor::of("application/octet-stream", blob);
        let sent = client.put_blob(cache, &at, blob, &[], &|_| {});
        sent.await.unwrap();
    }
    let tagged = Reference {
        tag: Some(tag.into()),
        ..cache.clone()
    };
    let manifest = manifest.to_string();
    let sent = client.put_manifest(&tagged, MANIFEST, manifest.as_bytes());
    sent.await.unwrap()
}

/// An image manifest by hand, so that a record's digest is that of something.
pub fn put_image(server: &Server, marker: &str) -> Digest {
    let config = json!({"architecture": "amd64", "os": "linux", "marker": marker}).to_string();
    let config = config.into_bytes();
    let client = client(&[]);
    let repository = server.reference(PREFIX);
    let at = Descriptor::of("application/vnd.oci.image.config.v1+json", &config);
    wait(client.put_blob(&repository, &at, &config, &[], &|_| {})).unwrap();
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": at, "layers": []}).to_string();
    wait(client.put_manifest(&repository, MANIFEST, manifest.as_bytes())).unwrap()
}

/// Removes a manifest of the repository below [`PREFIX`], with its tags; the registry has to allow it.
pub fn remove(server: &Server, repository: &str, digest: &Digest) {
    let url = format!(
        "http://{}/v2/{repository}/manifests/{digest}",
        server.address()
    );
    let status = wait(async {
        reqwest::Client::new()
            .delete(url)
            .send()
            .await
            .unwrap()
            .status()
    });
    assert!(status.is_success(), "{status}");
}

/// Where the records are, for `--registry`.
pub fn place(server: &Server) -> String {
    format!("{}/{PREFIX}", server.address())
}

/// `find --json` with more arguments.
pub fn find(lab: &Lab, server: &Server, arguments: &[&str]) -> Ran {
    let place = place(server);
    let first = ["find", "--json", "--registry", place.as_str()];
    lab.run(&[first.as_slice(), arguments].concat())
}

/// The document that a command printed.
#[track_caller]
pub fn printed(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Names of the images of a `find --json`.
#[track_caller]
pub fn names(ran: &Ran) -> Vec<String> {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let document = printed(ran);
    let images = document["images"].as_array().unwrap().iter();
    images
        .map(|image| image["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The store's index.
pub fn index(lab: &Lab) -> rusqlite::Connection {
    rusqlite::Connection::open(index_path(lab)).unwrap()
}

/// Where it is.
pub fn index_path(lab: &Lab) -> std::path::PathBuf {
    Path::new(&lab.store()).join("catalog.sqlite")
}
