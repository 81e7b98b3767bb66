//! OS layers that somebody else has made: who is believed, what is moved, and what happens if it is not so.

use std::fs;
use std::path::Path;

use imagewright::catalog::{Catalog, KeyTag};
use imagewright::digest::Digest;
use serde_json::{Value, json};

use crate::lab::{self, Lab, Options, PREFIX, Server, client};
use crate::{lies, sample, wares};

const IMAGES: &str = r#"
base "os" { from "oci:../debian:debian"; }
image "one" base="os" { os "tree"; pip "alpha"; }
image "two" base="os" { os "tree"; pip "delta"; }
"#;

/// Somebody who has built both images and pushed `one`.
struct Scene {
    server: Server,
    index: crate::index::Server,
    first: Lab,
    two: Value,
}

impl Scene {
    fn new() -> Self {
        let server = Server::docker_registry(Options {
            login: false,
            delete: true,
        });
        let index = lab::index();
        let first = lab::project(server.address(), &index, IMAGES);
        debian(&first);
        first.run(&["push", "one"]).expect(0, &["one"]);
        let two = built(&first, &["two"]);
        Self {
            server,
            index,
            first,
            two,
        }
    }

    /// A colleague with the same lock, an empty store and no archive.
    fn colleague(&self) -> Lab {
        let lab = lab::colleague(&self.first, self.server.address());
        debian(&lab);
        // An archive that has nothing.
        let nowhere = format!("http://{}/debian", self.index.address());
        lab.env("PIP_INDEX_URL", &self.index.index())
            .env("IMAGEWRIGHT_DEBIAN_MIRROR", &nowhere)
    }

    fn catalog(&self) -> Catalog {
        sample::catalog(client(&[]), &format!("{}/{PREFIX}", self.server.address()))
    }
}

fn debian(lab: &Lab) {
    std::os::unix::fs::symlink(wares::debian_base(), lab.path("debian")).unwrap();
}

/// What `build` prints for programs of the one image.
#[track_caller]
fn built(lab: &Lab, arguments: &[&str]) -> Value {
    let ran = lab.run(&[&["build", "--json"], arguments].concat());
    let ran = ran.expect(0, &[]);
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    document["images"][0].clone()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn an_os_layer_comes_from_the_registry_if_somebody_vouches_for_it() {
    let scene = Scene::new();
    let set = built(&scene.first, &["one"])["set"].clone();
    let set: Digest = set.as_str().unwrap().parse().unwrap();
    let record = lies::record(&scene.catalog(), &set);
    let mut layers = record.layers.iter();
    let os = layers
        .find(|layer| layer.comment.starts_with("OS packages: tree"))
        .unwrap();
    let key = os.key.unwrap();

    // The lock has its diff ID: it is pulled and looked at.
    let lab = scene.colleague();
    let (image, requests) = scene.server.during(|| built(&lab, &["two", "--locked"]));
    assert_eq!(image["digest"], scene.two["digest"]);
    assert_eq!(
        image["substituted"]["because"],
        json!(["the lock has its digest"])
    );
    assert_eq!(image["substituted"]["layers"], json!([os.diff_id]));
    assert_eq!(scene.server.layer_bytes(&requests), (os.size, 0));
    let (again, requests) = scene.server.during(|| built(&lab, &["two", "--locked"]));
    assert_eq!(again["digest"], image["digest"]);
    assert!(requests.is_empty(), "{requests:#?}");

    // Somebody who is trusted has signed it: no byte of it is needed.
    let file = scene.first.path("signing.key");
    let file = file.to_str().unwrap();
    scene.first.run(&["sign", "--new", file]).expect(0, &[]);
    let ran = scene.first.run(&["sign", "one", "--key", file, "--json"]);
    let signed: Value = serde_json::from_str(&ran.expect(0, &[]).out).unwrap();
    let lab = scene.colleague();
    let trust = format!("trust {}\n", signed["key"]);
    let manifest = read(&lab.project().join("imagewright.kdl"));
    lab.write("imagewright.kdl", trust + &manifest);
    let (image, requests) = scene.server.during(|| built(&lab, &["two", "--locked"]));
    assert_eq!(image["digest"], scene.two["digest"]);
    assert_eq!(scene.server.layer_bytes(&requests), (0, 0), "{requests:#?}");

    // Other bytes than the lock's are not taken, whoever names them: then packages would be needed.
    let catalog = scene.catalog();
    let honest = lies::layer(&catalog, &key);
    let alpha = record.layers.last().unwrap();
    let tag = KeyTag::Layer(key).tag();
    let refused = |what: &str, words: &[&str]| {
        let lab = scene.colleague();
        let ran = lab.run(&["build", "two", "--locked"]);
        assert_ne!(ran.code, Some(0), "{what}: {}{}", ran.out, ran.err);
        for word in words {
            assert!(ran.err.contains(word), "{what}: {word}: {}", ran.err);
        }
        let told = ran.err.matches("warning:").count();
        assert!(told <= 1, "{what}: {}", ran.err);
    };
    lies::put_layer(&catalog, &tag, &honest, |layer| {
        for field in ["digest", "size", "unpacked"] {
            layer["layer"][field] = serde_json::to_value(alpha).unwrap()[field].clone();
        }
    });
    refused("another layer", &["is not what the lock has", "tree"]);
    lies::put_layer(&catalog, &tag, &honest, |layer| {
        layer["layer"]["diff_id"] = json!(alpha.diff_id);
    });
    refused("another diff ID", &["tree"]);
    lies::put_layer(&catalog, &tag, &honest, |layer| {
        layer["layer"]["size"] = json!(1u64 << 30);
        layer["layer"]["unpacked"] = json!(1u64 << 35);
    });
    refused("a bomb", &["larger than its packages can be"]);
    lies::put_layer(&catalog, &tag, &honest, |_| {});
    let path = scene.server.blob_path(&os.digest);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    refused("damaged bytes", &[&os.digest.to_string()]);
}
