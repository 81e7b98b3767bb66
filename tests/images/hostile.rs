//! Layouts that are damaged, or lie.

use std::fs;
use std::path::Path;

use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::image::export_layout;
use imagewright::progress::Silent;
use imagewright::resolve::base::BaseError;
use serde_json::json;

use super::support::*;

fn layout(dir: &Path) -> Layout {
    let layout = Layout::new(dir);
    layout.add(
        "x",
        &[tar(&[Item::File("etc/passwd", b"root:x:0:0::/:\n")])],
        "amd64",
        &[],
    );
    layout
}

fn manifest_of(layout: &Layout) -> (Digest, serde_json::Value) {
    let digest: Digest = layout.index()["manifests"][0]["digest"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let manifest = serde_json::from_slice(&fs::read(layout.path(&digest)).unwrap()).unwrap();
    (digest, manifest)
}

/// Damages a layout; inspecting it must fail, keep nothing wrong in the store, and say `words`.
#[track_caller]
fn refused(words: &str, damage: impl FnOnce(&Layout)) -> BaseError {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path());
    let test = store();
    damage(&layout);
    let error = layout.inspect(&test.store, "x").unwrap_err();
    let source = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    let text = format!("{error}: {source}");
    assert!(text.contains(words), "{text}");
    for blob in fs::read_dir(test.store.base().join("blobs")).unwrap() {
        let path = blob.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(Digest::of(fs::read(&path).unwrap()).hex(), name);
    }
    error
}

#[test]
fn wrong_digests_are_refused() {
    let error = refused("the manifest of", |layout| {
        let (digest, _) = manifest_of(layout);
        let text = fs::read_to_string(layout.path(&digest)).unwrap();
        fs::write(layout.path(&digest), format!("{text} ")).unwrap();
    });
    assert_eq!(error.kind(), Kind::Refused);
    let error = refused("expected", |layout| {
        let (_, manifest) = manifest_of(layout);
        let layer: Digest = manifest["layers"][0]["digest"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let mut bytes = fs::read(layout.path(&layer)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(layout.path(&layer), bytes).unwrap();
    });
    assert_eq!(error.kind(), Kind::Refused);
    refused("lacks the blob", |layout| {
        let (_, manifest) = manifest_of(layout);
        let layer: Digest = manifest["layers"][0]["digest"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        fs::remove_file(layout.path(&layer)).unwrap();
    });
}

/// Replaces the image by one whose configuration or layers are `change`d.
fn replace(
    layout: &Layout,
    change: impl FnOnce(&mut serde_json::Value, &mut Vec<serde_json::Value>),
) {
    let (_, manifest) = manifest_of(layout);
    let config: Digest = manifest["config"]["digest"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let mut config = serde_json::from_slice(&fs::read(layout.path(&config)).unwrap()).unwrap();
    let mut layers = manifest["layers"].as_array().unwrap().clone();
    change(&mut config, &mut layers);
    layout.write_index(&json!({"schemaVersion": 2, "manifests": []}));
    layout.add_parts("x", config.to_string().as_bytes(), &layers);
}

#[test]
fn documents_that_lie_are_refused() {
    refused("the content of layer", |layout| {
        replace(layout, |config, _| {
            config["rootfs"]["diff_ids"] = json!([Digest::of("other")])
        });
    });
    refused("another number of layers", |layout| {
        replace(layout, |config, _| config["rootfs"]["diff_ids"] = json!([]));
    });
    refused("foreign", |layout| {
        replace(layout, |_, layers| {
            layers[0]["mediaType"] =
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
        });
    });
    refused("larger than its", |layout| {
        replace(layout, |_, layers| layers[0]["size"] = 20.into());
    });
    refused("configuration is not valid", |layout| {
        replace(layout, |config, _| *config = json!("text"));
    });
    refused("is not a SHA-256 digest", |layout| {
        let name = json!({"org.opencontainers.image.ref.name": "x"});
        layout.write_index(
            &json!({"manifests": [{"digest": "md5:00", "size": 1, "annotations": name}]}),
        );
    });
    refused("cannot be read", |layout| {
        replace(layout, |config, layers| {
            let blob = layout.blob(b"this is no tar, but it is longer than nothing");
            config["rootfs"]["diff_ids"] = json!([blob]);
            layers[0]["digest"] = json!(blob);
            layers[0]["size"] = 45.into();
        });
    });
}

#[test]
fn oversized_and_foreign_folders_are_refused() {
    refused("larger than", |layout| {
        let padding = " ".repeat(5 << 20);
        let text = format!("{}{padding}", layout.index());
        fs::write(layout.dir.join("index.json"), text).unwrap();
    });
    refused("its version is `2.0.0`", |layout| {
        fs::write(
            layout.dir.join("oci-layout"),
            r#"{"imageLayoutVersion":"2.0.0"}"#,
        )
        .unwrap();
    });
    refused("not an OCI image layout", |layout| {
        fs::remove_file(layout.dir.join("oci-layout")).unwrap()
    });
    refused("not an OCI image layout", |layout| {
        fs::remove_dir_all(&layout.dir).unwrap()
    });
    refused("not a regular file", |layout| {
        fs::remove_file(layout.dir.join("index.json")).unwrap();
        run("mkfifo", [layout.dir.join("index.json")]);
    });
    refused("contain each other", |layout| {
        let mut inner = manifest_of(layout).0;
        for _ in 0..8 {
            let size = fs::metadata(layout.path(&inner)).unwrap().len();
            let index = json!({"schemaVersion": 2, "manifests": [{"digest": inner, "size": size}]});
            inner = layout.blob(index.to_string().as_bytes());
        }
        let name = json!({"org.opencontainers.image.ref.name": "x"});
        layout.write_index(
            &json!({"manifests": [{"digest": inner, "size": 1, "annotations": name}]}),
        );
    });
}

#[test]
fn a_damaged_store_never_gets_into_a_layout() {
    let (test, project, out) = (store(), sample_project(), tempfile::tempdir().unwrap());
    let image = sample_image(&test.store, project.path());
    let small = image.layers.last().unwrap();
    let mut bytes = fs::read(test.store.blob_path(&small.digest)).unwrap();
    bytes[30] ^= 1;
    fs::write(test.store.blob_path(&small.digest), bytes).unwrap();
    let source = imagewright::image::StoreSource::new(&test.store);
    let images = [image.clone()];
    let error = export_layout(out.path(), "x", &images, &source, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("user app"), "{error}");
    assert!(!out.path().join("index.json").exists());
    assert!(
        !out.path()
            .join("blobs/sha256")
            .join(small.digest.hex())
            .exists()
    );

    fs::write(out.path().join("file"), "").unwrap();
    fs::remove_file(out.path().join("oci-layout")).unwrap();
    let error = export_layout(out.path(), "x", &images, &source, &Silent).unwrap_err();
    assert!(
        error.to_string().contains("it holds other files"),
        "{error}"
    );
}
