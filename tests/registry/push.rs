//! `push`: what is sent and what is not, and what is recorded of it.

use std::fs;

use imagewright::digest::Digest;
use serde_json::{Value, json};

use crate::lab::{self, PREFIX, Request, Server};
use crate::pushing::{
    LOGIN, ONE, TWO, blob, counts, digest, documents, manifest, push, uploaded, writes,
};
use crate::story::put_base;
use crate::wares;

#[test]
fn an_image_that_shares_all_but_one_wheel_sends_that_wheel() {
    let server = Server::docker_registry(LOGIN);
    // Large enough for a layer of its own.
    let own = wares::wheel("epsilon", "1.0", &[], 40, 50_000);
    let index = lab::index();
    index.add(&own);
    let two = r#"image "two" base="small" { pip "alpha"; pip "epsilon"; }"#;
    let lab = lab::project(server.address(), &index, &format!("{ONE}\n{two}"));
    let (first, requests) = server.during(|| push(&lab, &["one"]));
    let first = &first["images"][0];
    assert_eq!(server.layer_bytes(&requests), (0, uploaded(first)));
    let [sent, 0, 0] = counts(first) else {
        panic!("{first:#}");
    };
    let (second, requests) = server.during(|| push(&lab, &["two"]));
    let second = &second["images"][0];
    assert_eq!(counts(second), [1, 0, sent], "{second:#}");
    let cache = format!("{PREFIX}/cache");
    let records = documents(&server, &cache, "record-");
    let record = records.values().find(|record| record["name"] == "two");
    let layers = record.unwrap()["layers"].as_array().unwrap();
    let added = layers
        .iter()
        .find(|layer| layer["comment"] == "epsilon 1.0")
        .unwrap();
    let all = server.layers();
    let sent_layers: Vec<String> = requests
        .iter()
        .filter_map(Request::uploaded)
        .filter(|blob| all.contains(blob))
        .map(|blob| blob.to_string())
        .collect();
    assert_eq!(json!(sent_layers), json!([added["digest"]]));
    assert_eq!(json!(uploaded(second)), added["size"]);
    assert_counted(&server, &requests, &[second]);
    server.assert_whole();

    // Under another name and with another tag nothing moves but documents.
    for (number, more) in ["", "tag \"stable\";"].iter().enumerate() {
        let renamed = ONE.replace("\"one\"", "\"three\"");
        let renamed = renamed.replace("pip", &format!("{more} pip"));
        lab.write("imagewright.kdl", manifest(&server, "", &renamed));
        let (third, requests) = server.during(|| push(&lab, &[]));
        let third = &third["images"][0];
        assert_eq!(server.layer_bytes(&requests), (0, 0));
        assert_eq!(
            (counts(third), digest(third)),
            ([0, 0, sent], digest(first))
        );
        assert_counted(&server, &requests, &[third]);
        let records = documents(&server, &cache, "record-");
        assert_eq!(records.len(), 3 + number);
        for (tag, record) in &records {
            let text = serde_json_canonicalizer::to_vec(record).unwrap();
            assert_eq!(*tag, format!("record-{}", Digest::of(text).hex()));
        }
    }
    let tags = server.tags(PREFIX);
    let names: Vec<&str> = tags.iter().map(|(tag, _)| tag.as_str()).collect();
    assert_eq!(
        names
            .iter()
            .filter(|tag| !tag.starts_with("sha256-"))
            .count(),
        4,
        "{names:?}"
    );
    let (again, requests) = server.during(|| push(&lab, &[]));
    assert_eq!(again["images"][0]["records"], json!([]));
    assert!(writes(&requests).is_empty(), "{requests:#?}");
}

/// What the registry was sent is what these images of a `push --json` say.
#[track_caller]
fn assert_counted(server: &Server, requests: &[Request], images: &[&Value]) {
    let size = |digest: &Digest| server.blob_size(digest).unwrap();
    let put = |request: &&Request| request.method == "PUT" && request.status == 201;
    let mut manifests = Vec::new();
    for request in requests.iter().filter(put) {
        let path = request.path.trim_start_matches("/v2/");
        // The list of referrers, where the registry has none of its own, is not the image's.
        match path.split_once("/manifests/") {
            Some((_, tag)) if tag.starts_with("sha256-") => {}
            Some((repository, tag)) => manifests.push(match tag.parse::<Digest>() {
                Ok(digest) => digest,
                Err(_) => named(server, repository, tag),
            }),
            None => {}
        }
    }
    let blobs: Vec<Digest> = requests.iter().filter_map(Request::uploaded).collect();
    let layers = server.layers();
    let documents = blobs.iter().filter(|blob| !layers.contains(blob)).count();
    let told = |what: &str, field: &str| -> u64 {
        let traffic = images.iter().map(|image| &image[what]["uploaded"][field]);
        traffic.filter_map(Value::as_u64).sum()
    };
    let bytes: u64 = blobs.iter().chain(&manifests).map(size).sum();
    assert_eq!(
        bytes,
        ["layers", "documents", "sources"]
            .map(|what| told(what, "bytes"))
            .iter()
            .sum::<u64>(),
        "{requests:#?}"
    );
    assert_eq!(
        (documents + manifests.len()) as u64,
        told("documents", "count") + told("sources", "count"),
        "{requests:#?}"
    );
}

fn named(server: &Server, repository: &str, tag: &str) -> Digest {
    let tags = server.tags(repository);
    tags.iter().find(|(found, _)| found == tag).unwrap().1
}

#[test]
fn a_record_says_what_an_image_is_and_what_a_name_stood_for() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, ONE);
    let first = push(&lab, &[]);
    let first = digest(&first["images"][0]);
    lab.write(
        "imagewright.kdl",
        manifest(
            &server,
            "",
            r#"image "one" base="small" { pip "alpha"; env "A" "1"; version "2.0"; tag "v{version}"; }"#,
        ),
    );
    let second = push(&lab, &[]);
    assert_eq!(
        second["images"][0]["supersedes"],
        json!(first.to_string()),
        "{second:#}"
    );
    let cache = format!("{PREFIX}/cache");
    let records = documents(&server, &cache, "record-");
    assert_eq!(records.len(), 2);
    let record = records
        .values()
        .find(|record| record["version"] == "2.0")
        .unwrap();
    assert_eq!(record["supersedes"], json!(first.to_string()));
    assert_eq!(record["tags"], json!(["one", "one-v2.0"]));
    assert_eq!(record["repository"], PREFIX);
    assert_eq!(record["requested"]["pip"], json!(["alpha"]));
    assert_eq!(record["base"]["root"], "oci:../base:busybox");
    let packages = record["pip"].as_array().unwrap();
    let told: Vec<(&str, bool)> = packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().unwrap();
            (name, package["requested"].as_bool().unwrap())
        })
        .collect();
    assert_eq!(told, [("alpha", true), ("beta", false)]);
    let layers = record["layers"].as_array().unwrap();
    for package in packages {
        let layer = &layers[usize::try_from(package["layer"].as_u64().unwrap()).unwrap()];
        let comment = layer["comment"].as_str().unwrap();
        assert!(
            comment.contains(package["name"].as_str().unwrap()),
            "{comment}"
        );
        let key = layer["key"].as_str().unwrap().replace("sha256:", "layer-");
        let known = documents(&server, &cache, &key);
        assert_eq!(known[&key]["layer"]["digest"], layer["digest"]);
        assert_eq!(known[&key]["layer"]["diff_id"], layer["diff_id"]);
    }
    assert_eq!(layers[0]["key"], Value::Null, "the base's layer has no key");
    for (kind, key) in [("image", "image"), ("set", "set")] {
        let key = record["keys"][key].as_str().unwrap();
        let tag = key.replace("sha256", kind).replace(':', "-");
        assert_eq!(&documents(&server, &cache, &tag)[&tag], record, "{tag}");
    }
    // What it refers to is there.
    let config = blob(&server, record["config"].as_str().unwrap());
    assert_eq!(config["architecture"], "amd64");
    let image = blob(&server, record["digest"].as_str().unwrap());
    assert_eq!(image["layers"].as_array().unwrap().len(), layers.len());
    let sbom = blob(&server, record["sbom"].as_str().unwrap());
    assert_eq!(sbom["subject"]["digest"], record["digest"]);
    assert_eq!(
        (&record["python"], &record["index"]),
        (&json!("3.11.2"), &Value::Null)
    );
    // The lock of this image alone lies beside it.
    let lock = record["lock"]["digest"].as_str().unwrap();
    let lock = fs::read_to_string(server.blob_path(&lock.parse().unwrap())).unwrap();
    assert!(
        lock.contains("alpha-1.0-py3-none-any.whl") && !lock.contains("gamma"),
        "{lock}"
    );
    server.assert_whole();
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_the_push_then_does() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    // The third image is the first one under another name.
    let three = ONE.replace("\"one\"", "\"three\"");
    for layout in ["split", "single", "per-image"] {
        let lab = lab::project(server.address(), &index, "");
        lab.write("big.bin", vec![b'x'; 70_000]);
        let layout_of = format!("layout=\"{layout}\"");
        let text = manifest(&server, &layout_of, &format!("{ONE}\n{TWO}\n{three}"));
        lab.write("imagewright.kdl", text.replace(PREFIX, layout));
        let key = lab.path("key").display().to_string();
        lab.run(&["sign", "--new", &key]).expect(0, &[]);
        for more in [&[][..], &["--sign", &key], &["--with-sources"], &[]] {
            let dry = [&["--dry-run"], more].concat();
            let (told, requests) = server.during(|| push(&lab, &dry));
            assert!(writes(&requests).is_empty(), "{requests:#?}");
            let (done, requests) = server.during(|| push(&lab, more));
            assert_eq!(
                (&told["dry_run"], &done["dry_run"]),
                (&json!(true), &json!(false))
            );
            let images = [0, 1, 2].map(|at| &done["images"][at]);
            for (at, done) in images.iter().enumerate() {
                let told = &told["images"][at];
                for field in [
                    "digest",
                    "tags",
                    "layers",
                    "documents",
                    "sources",
                    "supersedes",
                ] {
                    assert_eq!(
                        told[field], done[field],
                        "{layout} {more:?} {field}: {told:#}\n{done:#}"
                    );
                }
            }
            assert_counted(&server, &requests, &images);
        }
        assert_eq!(
            server
                .during(|| push(&lab, &[]))
                .1
                .iter()
                .filter(|request| request.method == "PUT")
                .count(),
            0
        );
    }
    server.assert_whole();
}

#[test]
fn layers_of_a_base_of_the_same_registry_are_mounted_from_it() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, "");
    let source = format!("oci:{}:busybox", wares::base().display());
    put_base(&server, &source, "base/busybox:v1");
    let base = format!("{}/base/busybox:v1", server.address());
    let text = manifest(&server, "", ONE).replace("oci:../base:busybox", &base);
    lab.write("imagewright.kdl", text);
    let told = push(&lab, &["--dry-run"]);
    let (pushed, requests) = server.during(|| push(&lab, &[]));
    let pushed = &pushed["images"][0];
    assert_eq!(told["images"][0]["layers"], pushed["layers"]);
    assert_eq!(pushed["layers"]["mounted"]["count"], 1, "{pushed:#}");
    assert_eq!(server.layer_bytes(&requests).1, uploaded(pushed));
    server.assert_whole();
}

#[test]
fn another_path_of_the_registry_gets_its_layers_by_mounts() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, ONE);
    let first = push(&lab, &[]);
    let other = format!("{}/other/place", server.address());
    let to = ["--to", &other];
    let told = push(&lab, &[&to[..], &["--dry-run"]].concat());
    let (pushed, requests) = server.during(|| push(&lab, &to));
    let pushed = &pushed["images"][0];
    assert_eq!(told["images"][0]["layers"], pushed["layers"]);
    let [sent, 0, 0] = counts(&first["images"][0]) else {
        panic!("{first:#}");
    };
    assert_eq!(counts(pushed), [0, sent, 0], "{pushed:#}");
    assert_eq!(server.layer_bytes(&requests), (0, 0));

    // The second destination mounts what the first one got.
    let text = fs::read_to_string(lab.project().join("imagewright.kdl")).unwrap();
    let two = text.replace("\"alpha\"", "\"gamma\"");
    let declared = format!("push \"{other}\"\n{two}");
    lab.write("imagewright.kdl", declared);
    let told = push(&lab, &["--dry-run"]);
    let pushed = push(&lab, &[]);
    for (told, pushed) in [0, 1].map(|at| (&told["images"][at], &pushed["images"][at])) {
        assert_eq!(told["layers"], pushed["layers"]);
    }
    assert!(uploaded(&pushed["images"][0]) > 0);
    assert_eq!(uploaded(&pushed["images"][1]), 0, "{pushed:#}");
    server.assert_whole();
}
