//! Images and layers that somebody else has built: who is believed, what is moved, and what happens if it is not so.

use std::fs;

use imagewright::catalog::{Catalog, KeyTag, Record};
use imagewright::digest::Digest;
use serde_json::{Value, json};

use crate::lab::{self, Lab, Options, PREFIX, Ran, Server, client};
use crate::{lies, platforms, sample};

const IMAGES: &str = r#"
image "one" base="small" { pip "alpha"; file "app.txt" to="/app/"; }
run "check" image="one" {
    command "sh" "-c" "cat /app/app.txt && ls /opt/venv/lib/python3.11/site-packages/alpha > /results/seen"
    resources ram="64MB" cpu="500m"
    timeout "20s"
}
"#;

/// A registry to which somebody has pushed an image, and that somebody.
struct Scene {
    server: Server,
    first: Lab,
    _index: crate::index::Server,
}

impl Scene {
    fn new() -> Self {
        let server = Server::docker_registry(Options {
            login: false,
            delete: true,
        });
        let index = lab::index();
        let first = lab::project(server.address(), &index, IMAGES);
        first.write("app.txt", "the app\n");
        first.run(&["push"]).expect(0, &["one"]);
        Self {
            server,
            first,
            _index: index,
        }
    }

    /// Somebody with the same files, an empty store and no package index.
    fn colleague(&self) -> Lab {
        lab::colleague(&self.first, self.server.address())
    }

    /// The same, but for the digest in the lock; with the package index.
    fn stranger(&self) -> Lab {
        let lab = lab::project(self.server.address(), &self._index, IMAGES);
        for name in ["imagewright.kdl", "imagewright.lock", "app.txt"] {
            lab.write(name, fs::read(self.first.project().join(name)).unwrap());
        }
        let lock = read(&lab, "imagewright.lock");
        let digest = lock.lines().find(|line| line.trim().starts_with("digest "));
        let digest = digest.expect("the lock has the image's digest");
        lab.write("imagewright.lock", lock.replace(&format!("{digest}\n"), ""));
        lab
    }

    fn catalog(&self) -> Catalog {
        let prefix = format!("{}/{PREFIX}", self.server.address());
        sample::catalog(client(&[]), &prefix)
    }

    /// The set key of the pushed image.
    fn set(&self) -> Digest {
        let built = document(&self.first.run(&["build", "--json"]));
        built["images"][0]["set"].as_str().unwrap().parse().unwrap()
    }
}

fn read(lab: &Lab, name: &str) -> String {
    fs::read_to_string(lab.project().join(name)).unwrap()
}

#[track_caller]
fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
}

/// Builds; what is printed of the image, and all that is said to people.
#[track_caller]
fn build(lab: &Lab, flags: &[&str]) -> (String, String) {
    let ran = lab.run(&[&["build"], flags].concat()).expect(0, &[]);
    (ran.out, ran.err)
}

/// What `build` prints for programs.
#[track_caller]
fn built(lab: &Lab, flags: &[&str]) -> Value {
    let ran = lab.run(&[&["build", "--json"], flags].concat());
    document(&ran.expect(0, &[]))["images"][0].clone()
}

#[test]
fn a_known_image_is_named_without_a_byte_of_its_layers_and_runs() {
    let scene = Scene::new();
    let lab = scene.colleague();
    let lock = read(&lab, "imagewright.lock");
    let (ran, requests) = scene
        .server
        .during(|| lab.run(&["build", "--locked"]).expect(0, &[]));
    assert_eq!(scene.server.layer_bytes(&requests), (0, 0));
    assert!(requests.len() <= 6, "{requests:#?}");
    for word in [
        "substituted from ",
        "the lock has its digest",
        " 0 B of layers",
    ] {
        assert!(ran.out.contains(word), "{}", ran.out);
    }
    assert_eq!(read(&lab, "imagewright.lock"), lock);

    let (again, requests) = scene.server.during(|| built(&lab, &[]));
    assert!(requests.is_empty(), "the store answers: {requests:#?}");
    let absent = "not in this store, and not pulled because of --offline: 6 layers";
    let (out, _) = build(&lab, &["--offline"]);
    assert!(out.contains(absent), "{out}");
    let (out, _) = build(&scene.first, &["--offline"]);
    assert!(!out.contains("not in this store"), "{out}");
    assert_eq!(again["substituted"]["whole"], true);
    assert_eq!(again["built"], false);

    let (ran, requests) = scene.server.during(|| lab.run(&["test"]));
    ran.expect(0, &["SUCCEEDED", "the app"]);
    assert!(scene.server.layer_bytes(&requests).0 > 0);
    let (ran, requests) = scene.server.during(|| lab.run(&["test", "--rerun"]));
    ran.expect(0, &["SUCCEEDED"]);
    assert!(requests.is_empty(), "{requests:#?}");
    lab.run(&["export", "one", "--oci", "layout", "--offline"])
        .expect(0, &["wrote"]);
}

#[test]
fn without_the_lock_only_trust_makes_it_believed() {
    let scene = Scene::new();
    let (out, told) = build(&scene.stranger(), &[]);
    assert!(!out.contains("substituted"), "{out}");
    for word in ["nobody vouches for it", "--trust-registry", "`trust`"] {
        assert!(told.contains(word), "{told}");
    }
    let lab = scene.stranger();
    let (out, told) = build(&lab, &["--trust-registry", "--locked"]);
    assert!(out.contains("(the registry is trusted)"), "{out}");
    assert!(!told.contains("nobody"), "{told}");
    let trusted = built(&lab, &["--trust-registry", "--locked"]);
    // What was trusted once is not trusted for ever.
    let after = built(&lab, &["--locked"]);
    assert_eq!(after["digest"], trusted["digest"]);
    assert_eq!(after["substituted"], Value::Null);
    assert_eq!(after["built"], true);
    let own = built(&lab, &["--locked"]);
    let said = (&own["built"], &own["substituted"]);
    assert_eq!(said, (&json!(false), &Value::Null));
    // Without --locked, the lock keeps what was trusted.
    let lab = scene.stranger();
    build(&lab, &["--trust-registry"]);
    let because = &built(&lab, &[])["substituted"]["because"];
    assert_eq!(because[0], "the registry is trusted");
}

#[test]
fn a_key_in_the_manifest_vouches_and_another_one_does_not() {
    let scene = Scene::new();
    let key = |name: &str| {
        let file = scene.first.path(name);
        let file = file.to_str().unwrap();
        let ran = scene.first.run(&["sign", "--new", file, "--json"]);
        document(&ran.expect(0, &[]))["key"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (ours, other) = (key("ours.key"), key("other.key"));
    let file = scene.first.path("ours.key");
    let push = ["push", "--sign", file.to_str().unwrap()];
    scene.first.run(&push).expect(0, &[]);
    for (trusted, believed) in [(ours, true), (other, false)] {
        let lab = scene.stranger();
        let manifest = read(&lab, "imagewright.kdl");
        lab.write(
            "imagewright.kdl",
            format!("trust \"{trusted}\"\n{manifest}"),
        );
        let (out, told) = build(&lab, &[]);
        assert_eq!(out.contains("signed it"), believed, "{out}{told}");
        assert_eq!(told.contains("nobody vouches"), !believed, "{told}");
    }
}

#[test]
fn no_substitute_forces_the_work_also_after_a_substitution() {
    let scene = Scene::new();
    let lab = scene.stranger();
    let lock = read(&scene.first, "imagewright.lock");
    lab.write("imagewright.lock", &lock);
    let image = built(&lab, &[]);
    assert_eq!(image["substituted"]["whole"], true);
    let (own, requests) = scene.server.during(|| built(&lab, &["--no-substitute"]));
    assert!(requests.is_empty(), "{requests:#?}");
    assert_eq!(
        (&own["built"], &own["substituted"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(own["digest"], image["digest"]);
}

#[test]
fn images_for_several_platforms_and_on_other_images_are_named_too() {
    let server = Server::docker_registry(Options::default());
    let index = lab::index();
    let image = platforms::IMAGE.replace("small", "both");
    let images =
        |more: &str| format!("base \"both\" {{ from \"oci:../both:both\"; }}\n{image}\n{more}");
    let first = lab::project(server.address(), &index, &images(""));
    platforms::two_platforms(&first);
    first.run(&["push"]).expect(0, &["one"]);
    let below = format!("{}/{PREFIX}:one", server.address());
    let three = format!("image \"three\" {{ from \"{below}\"; pip \"delta\"; }}");
    first.write(
        "imagewright.kdl",
        lab::manifest(server.address(), &images(&three)),
    );
    first.run(&["push"]).expect(0, &["three"]);
    let built = first.build();
    assert_eq!(built.len(), 3);

    let lab = lab::colleague(&first, server.address());
    platforms::two_platforms(&lab);
    let (found, requests) = server.during(|| lab.build());
    assert_eq!(found, built);
    assert_eq!(server.layer_bytes(&requests), (0, 0));
    let writes = requests.iter().filter(|request| request.method != "GET");
    assert_eq!(writes.count(), 0, "{requests:#?}");
    assert!(requests.len() <= 12, "{requests:#?}");
}

#[test]
fn a_registry_out_of_reach_is_told_once_and_the_build_goes_on() {
    let scene = Scene::new();
    let lab = scene.stranger();
    lab.write("imagewright.lock", read(&scene.first, "imagewright.lock"));
    let address = scene.server.address().to_owned();
    drop(scene.server);
    let ran = lab.run(&["build"]).expect(0, &["out of reach", &address]);
    assert_eq!(ran.err.matches("out of reach").count(), 1, "{}", ran.err);
    assert!(ran.out.contains(" new"), "{}", ran.out);
    lab.run(&["build", "--verify-substitutes"])
        .expect(4, &[&address]);
}

#[test]
fn what_is_malformed_hostile_or_of_another_key_is_told_and_not_believed() {
    let scene = Scene::new();
    let set = scene.set();
    let record = lies::record(&scene.catalog(), &set);
    let changed = |change: fn(&mut Value)| {
        let mut document = serde_json::to_value(&record).unwrap();
        change(&mut document);
        document.to_string()
    };
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let hostile = [
        ("not JSON", "{".to_owned(), true),
        ("recursive", deep, true),
        (
            "another set",
            changed(|d| d["keys"]["set"] = json!(Digest::of("x"))),
            true,
        ),
        (
            "another image key",
            changed(|d| d["keys"]["image"] = json!(Digest::of("x"))),
            true,
        ),
        (
            "another layer key",
            changed(|d| d["layers"][1]["key"] = json!(Digest::of("x"))),
            true,
        ),
        (
            "another diff ID",
            changed(|d| d["layers"][1]["diff_id"] = json!(Digest::of("x"))),
            true,
        ),
        (
            "another size",
            changed(|d| d["layers"][1]["size"] = json!(1)),
            true,
        ),
        (
            "a size that cannot be",
            changed(|d| d["layers"][1]["unpacked"] = json!(u64::MAX)),
            true,
        ),
        (
            "more base layers than layers",
            changed(|d| d["base_layers"] = json!(99)),
            true,
        ),
        (
            "another platform",
            changed(|d| d["platform"] = json!("linux/arm64")),
            true,
        ),
        (
            "another emitter",
            changed(|d| d["emitter"] = json!(99)),
            true,
        ),
        (
            "another repository",
            changed(|d| d["repository"] = json!("team/secret")),
            true,
        ),
        ("a later version", changed(|d| d["v"] = json!(2)), false),
        (
            "a deleted image",
            changed(|d| d["digest"] = json!(Digest::of("gone"))),
            false,
        ),
    ];
    for (what, document, warned) in hostile {
        let tag = KeyTag::Set(set).tag();
        lies::put(&scene.catalog(), &tag, Record::MEDIA_TYPE, &document);
        let lab = scene.stranger();
        // Even whoever is trusted must not contradict himself.
        let (out, told) = build(&lab, &["--trust-registry", "--locked"]);
        assert!(!out.contains("substituted"), "{what} is believed: {told}");
        assert_eq!(told.contains("warning:"), warned, "{what}: {told}");
    }
}
