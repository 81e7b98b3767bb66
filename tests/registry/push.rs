//! `push`: what is sent and what is not, names, places.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use imagewright::digest::Digest;
use serde_json::{Value, json};

use crate::bases;
use crate::index;
use crate::lab::{self, Lab, Options, PASSWORD, PREFIX, Request, Server, USER};

const LOGIN: Options = Options {
    login: true,
    delete: false,
};

/// A wheel alone in its layer, and three that are not.
const ONE: &str = r#"image "one" base="small" { pip "alpha"; }"#;
const TWO: &str = r#"image "two" base="small" { pip "alpha"; file "big.bin" to="/opt/"; }"#;

/// A manifest whose `registry` node goes on with `more`.
fn manifest(server: &Server, more: &str, images: &str) -> String {
    format!(
        "registry \"{}/{PREFIX}\" {more}\nbase \"small\" {{ from \"oci:../base:busybox\"; }}\n{images}\n",
        server.address()
    )
}

#[track_caller]
fn push(lab: &Lab, arguments: &[&str]) -> Value {
    let ran = lab
        .run(&[&["push", "--json"], arguments].concat())
        .expect(0, &[]);
    serde_json::from_str(&ran.out).unwrap()
}

fn uploaded(pushed: &Value) -> u64 {
    pushed["layers"]["uploaded"]["bytes"].as_u64().unwrap()
}

fn counts(pushed: &Value) -> [u64; 3] {
    ["uploaded", "mounted", "existing"].map(|what| {
        let count = &pushed["layers"][what]["count"];
        count.as_u64().unwrap()
    })
}

fn digest(pushed: &Value) -> Digest {
    pushed["digest"].as_str().unwrap().parse().unwrap()
}

/// The documents that lie under the tags of a kind in a repository, by tag.
fn documents(server: &Server, repository: &str, kind: &str) -> BTreeMap<String, Value> {
    let tags = server.tags(repository).into_iter();
    tags.filter(|(tag, _)| tag.starts_with(kind))
        .map(|(tag, digest)| {
            let manifest = fs::read(server.blob_path(&digest)).unwrap();
            let manifest: Value = serde_json::from_slice(&manifest).unwrap();
            let config = manifest["config"]["digest"].as_str().unwrap();
            let document = fs::read(server.blob_path(&config.parse().unwrap())).unwrap();
            (tag, serde_json::from_slice(&document).unwrap())
        })
        .collect()
}

#[test]
fn an_image_that_shares_all_but_one_layer_sends_that_layer() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, &format!("{ONE}\n{TWO}"));
    lab.write("big.bin", vec![b'x'; 70_000]);
    let (first, requests) = server.during(|| push(&lab, &["one"]));
    let first = &first["images"][0];
    assert_eq!(server.layer_bytes(&requests), (0, uploaded(first)));
    let [sent, 0, 0] = counts(first) else {
        panic!("{first:#}");
    };
    let (second, requests) = server.during(|| push(&lab, &["two"]));
    let second = &second["images"][0];
    assert_eq!(server.layer_bytes(&requests), (0, uploaded(second)));
    assert_eq!(counts(second), [1, 0, sent], "{second:#}");
    let layer = requests.iter().find_map(Request::uploaded);
    assert!(layer.is_some());
    assert!(uploaded(second) < uploaded(first), "{second:#}");
    server.assert_whole();
    // Under another name nothing moves but a record.
    lab.write(
        "imagewright.kdl",
        manifest(&server, "", &ONE.replace("\"one\"", "\"three\"")),
    );
    let (third, requests) = server.during(|| push(&lab, &[]));
    assert_eq!(server.layer_bytes(&requests), (0, 0));
    assert_eq!(counts(&third["images"][0]), [0, 0, sent]);
    assert_eq!(digest(&third["images"][0]), digest(first));
    let records = documents(&server, &format!("{PREFIX}/cache"), "record-");
    let names: BTreeSet<&str> = records
        .values()
        .map(|record| record["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, BTreeSet::from(["one", "three", "two"]));
    for (tag, record) in &records {
        let text = serde_json_canonicalizer::to_vec(record).unwrap();
        assert_eq!(*tag, format!("record-{}", Digest::of(text).hex()));
    }
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
    for (number, layout) in ["split", "single", "per-image"].iter().enumerate() {
        let lab = lab::project(server.address(), &index, "");
        lab.write("big.bin", vec![b'x'; 70_000]);
        let text = manifest(
            &server,
            &format!("layout=\"{layout}\""),
            &format!("{ONE}\n{TWO}"),
        );
        let prefix = format!("{PREFIX}/{number}");
        lab.write("imagewright.kdl", text.replace(PREFIX, &prefix));
        for more in [&[][..], &["--sign", "../key"]] {
            if !more.is_empty() {
                lab.run(&["sign", "--new", lab.path("key").to_str().unwrap()])
                    .expect(0, &[]);
            }
            let key = lab.path("key").display().to_string();
            let more: Vec<&str> = more
                .iter()
                .map(|word| {
                    if *word == "../key" {
                        key.as_str()
                    } else {
                        word
                    }
                })
                .collect();
            let dry = [&["--dry-run"], more.as_slice()].concat();
            let (told, requests) = server.during(|| push(&lab, &dry));
            let writes: Vec<&Request> = requests
                .iter()
                .filter(|request| !matches!(request.method.as_str(), "GET" | "HEAD"))
                .collect();
            assert!(writes.is_empty(), "{writes:#?}");
            let (done, requests) = server.during(|| push(&lab, &more));
            assert_eq!(told["dry_run"], true);
            for (told, done) in [0, 1].map(|at| (&told["images"][at], &done["images"][at])) {
                for field in ["digest", "tags", "layers", "documents", "supersedes"] {
                    assert_eq!(
                        told[field], done[field],
                        "{layout} {field}: {told:#}\n{done:#}"
                    );
                }
            }
            let moved: u64 = [0, 1]
                .map(|at| uploaded(&done["images"][at]))
                .into_iter()
                .sum();
            assert_eq!(server.layer_bytes(&requests), (0, moved), "{layout}");
        }
        server.assert_whole();
    }
}

#[test]
fn layouts_say_which_repositories_there_are_and_podman_and_skopeo_read_them() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let login = format!("{USER}:{PASSWORD}");
    for (layout, prefix, image, cache) in [
        ("split", "split", "split:one", "split/cache"),
        ("single", "single", "single:one", "single"),
        ("per-image", "many", "many/one:latest", "many/cache"),
    ] {
        let lab = lab::project(server.address(), &index, "");
        let text = manifest(&server, &format!("layout=\"{layout}\""), ONE);
        lab.write("imagewright.kdl", text.replace(PREFIX, prefix));
        let pushed = push(&lab, &[]);
        let reference = format!("docker://{}/{image}", server.address());
        let told = bases::run(
            "skopeo",
            [
                "inspect",
                "--tls-verify=false",
                "--creds",
                &login,
                &reference,
            ],
        );
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["Digest"], pushed["images"][0]["digest"], "{layout}");
        for kind in ["image-", "set-", "layer-", "record-"] {
            assert!(
                !documents(&server, cache, kind).is_empty(),
                "{layout} {kind}"
            );
        }
    }
    server.assert_whole();
    let expected = ["many/cache", "many/one", "single", "split", "split/cache"];
    assert_eq!(server.repositories(), expected);
}

#[test]
fn a_protected_name_is_left_alone_and_nothing_is_sent() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let image = r#"image "one" base="small" { pip "alpha"; version "1"; tag "v{version}"; protected #true; }"#;
    let lab = lab::project(server.address(), &index, image);
    push(&lab, &[]);
    push(&lab, &[]);
    let before = server.tags(PREFIX);
    for (other, name) in [
        (image.replace("alpha", "delta"), ":one "),
        (
            image
                .replace("\"one\"", "\"two\"")
                .replace("pip", "env \"A\" \"1\"; pip"),
            "",
        ),
    ] {
        lab.write("imagewright.kdl", manifest(&server, "", &other));
        if name.is_empty() {
            push(&lab, &[]);
            continue;
        }
        let (ran, requests) = server.during(|| lab.run(&["push"]));
        ran.expect(7, &["protected", name, "version"]);
        let (ran, _) = server.during(|| lab.run(&["push", "--dry-run"]));
        ran.expect(7, &["protected"]);
        let wrote = requests
            .iter()
            .any(|request| !matches!(request.method.as_str(), "GET" | "HEAD"));
        assert!(!wrote, "{requests:#?}");
        assert_eq!(server.tags(PREFIX), before);
    }
    // A tag that is free does not free the name: both are asked before anything is sent.
    lab.write(
        "imagewright.kdl",
        manifest(
            &server,
            "",
            &image.replace("\"1\"", "\"2\"").replace("alpha", "delta"),
        ),
    );
    lab.run(&["push"]).expect(7, &["protected"]);
    assert!(!server.tags(PREFIX).iter().any(|(tag, _)| tag == "one-v2"));
}

#[test]
fn tags_have_the_commit_of_the_project() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let image = r#"image "one" base="small" { pip "alpha"; tag "{git}"; }"#;
    let lab = lab::project(server.address(), &index, image);
    let before = server.requests().len();
    lab.run(&["push"])
        .expect(2, &["{git}", "remove {git} from the tags"]);
    let writes = server.requests().split_off(before);
    assert!(writes.iter().all(|request| request.method != "PUT"));
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args([
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.com",
            "-c",
            "init.defaultBranch=main",
        ]);
        command.arg("-C").arg(lab.project()).args(arguments);
        lab.prepare(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    lab.run(&["push"]).expect(2, &["{git}"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "all"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let pushed = push(&lab, &[]);
    assert_eq!(
        pushed["images"][0]["tags"],
        json!(["one", format!("one-{}", &commit[..12])])
    );
    lab.write(
        "imagewright.kdl",
        manifest(&server, "", &format!("{image}\n")),
    );
    let pushed = push(&lab, &[]);
    assert_eq!(
        pushed["images"][0]["tags"][1],
        format!("one-{}-dirty", &commit[..12])
    );
    let records = documents(&server, &format!("{PREFIX}/cache"), "record-");
    let known: BTreeSet<&str> = records
        .values()
        .map(|record| record["git"].as_str().unwrap())
        .collect();
    assert_eq!(known.len(), 2, "{known:?}");
}

#[test]
fn every_destination_gets_what_it_can_and_the_first_failure_is_told() {
    let [server, other] = [(); 2].map(|()| Server::docker_registry(LOGIN));
    let index = lab::index();
    let lab = lab::project(server.address(), &index, "");
    lab::login_file(
        &lab.path("home/.docker"),
        &[server.address(), other.address()],
    );
    let closed = index::closed_port();
    let pushes = format!(
        "push \"{closed}/away\"\npush \"{}/b\" layout=\"single\"\n",
        other.address()
    );
    lab.write(
        "imagewright.kdl",
        manifest(&server, "", &format!("{pushes}{ONE}")),
    );
    let ran = lab
        .run(&["push", "--json"])
        .expect(4, &[&closed.to_string()]);
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    let images = document["images"].as_array().unwrap();
    assert_eq!(images.len(), 2, "{document:#}");
    assert_eq!(digest(&images[0]), digest(&images[1]));
    assert_eq!(document["failures"][0]["name"], "one");
    assert_eq!(document["failures"][0]["error"]["code"], 4);
    server.assert_whole();
    other.assert_whole();
    assert_eq!(other.repositories(), ["b"]);
    // Elsewhere, and without a place at all.
    let place = format!("{}/elsewhere", other.address());
    let pushed = push(&lab, &["--to", &place]);
    assert_eq!(pushed["images"].as_array().unwrap().len(), 1);
    assert!(other.repositories().contains(&"elsewhere".to_owned()));
    lab.run(&["push", "--to", "nohost"]).expect(2, &["nohost"]);
    lab.run(&["push", "--to", "https://u:p@a.example.com/x"])
        .expect(2, &["a.example.com"]);
    lab.write(
        "imagewright.kdl",
        format!("base \"small\" {{ from \"oci:../base:busybox\"; }}\n{ONE}\n"),
    );
    lab.run(&["push"]).expect(2, &["registry", "--to"]);
    lab.run(&["push", "--offline", "--to", &place])
        .expect(4, &[]);
}

#[test]
fn a_wheel_that_has_left_the_store_is_told_and_nothing_is_tagged() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, ONE);
    lab.build();
    for entry in fs::read_dir(lab.store().join("artifacts")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    lab.run(&["push"])
        .expect(4, &["cannot be read", "alpha", "build the image again"]);
    assert!(server.repositories().iter().all(|name| name != PREFIX));
    server.assert_whole();
}

#[test]
fn layers_of_a_base_of_the_same_registry_are_mounted_from_it() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, "");
    let base = format!("{}/base/busybox:v1", server.address());
    bases::run(
        "skopeo",
        [
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            "--dest-creds",
            &format!("{USER}:{PASSWORD}"),
            &format!("oci:{}:busybox", crate::wares::base().display()),
            &format!("docker://{base}"),
        ],
    );
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
