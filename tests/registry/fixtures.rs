//! What the fixtures say of a registry is what is there.

use std::collections::BTreeSet;
use std::fs;

use imagewright::oci::Descriptor;
use imagewright::registry::{Reference, Registry};
use serde_json::json;

use crate::lab::{Options, Server, client, get, login_file, wait};

/// A small image by hand.
async fn put_image(registry: &Registry, repository: &Reference, tag: &str) -> Descriptor {
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#
            .to_vec();
    let layer = vec![7; 70_000];
    let config_at = Descriptor::of("application/vnd.oci.image.config.v1+json", &config);
    let layer_at = Descriptor::of("application/vnd.oci.image.layer.v1.tar", &layer);
    for (blob, content) in [(&config_at, config), (&layer_at, layer)] {
        registry
            .put_blob(repository, blob, &content, &[], &|_| {})
            .await
            .unwrap();
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config_at, "layers": [layer_at]});
    let tagged = Reference {
        tag: Some(tag.into()),
        ..repository.clone()
    };
    let bytes = manifest.to_string();
    registry
        .put_manifest(&tagged, kind, bytes.as_bytes())
        .await
        .unwrap();
    layer_at
}

#[test]
fn a_registry_with_a_login_tells_what_it_was_asked_and_what_it_holds() {
    let server = Server::docker_registry(Options {
        login: true,
        delete: false,
    });
    let folder = tempfile::tempdir().unwrap();
    let login = login_file(folder.path(), &[server.address()]);
    let repository = server.reference("a/b");
    let stranger = wait(client(&[]).tags(&repository)).unwrap_err();
    assert!(
        stranger.to_string().contains(server.address()),
        "{stranger}"
    );
    let client = client(&[login]);
    let (layer, requests) = server.during(|| wait(put_image(&client, &repository, "v1")));
    assert_eq!(server.layer_bytes(&requests), (0, 70_000));
    assert_eq!(server.repositories(), ["a/b"]);
    assert_eq!(server.tags("a/b").len(), 1);
    server.assert_whole();
    assert_eq!(server.layers(), BTreeSet::from([layer.digest]));
    assert_eq!(server.blob_size(&layer.digest), Some(70_000));
    fs::write(server.blob_path(&layer.digest), "other").unwrap();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.assert_whole()));
    assert!(found.is_err(), "a broken blob is noticed");
}

#[test]
fn olareg_has_the_referrers_api() {
    let Some(server) = Server::olareg() else {
        return;
    };
    let repository = server.reference("a/b");
    let layer = wait(put_image(&client(&[]), &repository, "v1"));
    let path = format!("/v2/a/b/referrers/{}", layer.digest);
    let answer = get(server.address(), &path).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.repositories(), ["a/b"]);
    assert_eq!(server.tags("a/b").len(), 1);
    server.assert_whole();
    fs::remove_file(server.blob_path(&layer.digest)).unwrap();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.assert_whole()));
    assert!(found.is_err(), "a missing blob is noticed");
}
