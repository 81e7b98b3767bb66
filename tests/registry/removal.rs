//! `rm` of what a registry has, and `gc` of what only a registry has.

use std::fs;

use imagewright::digest::Digest;
use serde_json::Value;

use crate::lab::{self, Lab, Options, PREFIX, Server};
use crate::platforms;
use crate::pushing::documents;
use crate::reuse::delete;

const DELETES: Options = Options {
    login: false,
    delete: true,
};

/// `twin` is the same image as `one`; `upper` begins with it.
const IMAGES: &str = r#"
image "one" base="small" { pip "beta"; }
image "twin" base="small" { pip "beta"; }
base "on_one" { image "one"; }
image "upper" base="on_one" { pip "delta"; }
image "free" base="small" { pip "delta"; }
"#;

/// What people look at: names and the digests that they stand for, without the lists of referrers.
fn names(server: &Server, repository: &str) -> Vec<(String, Digest)> {
    let mut tags = server.tags(repository);
    tags.retain(|(name, _)| !name.starts_with("sha256-"));
    tags
}

#[track_caller]
fn json(lab: &Lab, arguments: &[&str]) -> Value {
    let ran = lab.run(&[arguments, &["--json"]].concat()).expect(0, &[]);
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn images_go_from_a_registry_unless_others_need_them() {
    let server = Server::docker_registry(DELETES);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, IMAGES);
    lab.run(&["push"]).expect(0, &["upper"]);
    let all = names(&server, PREFIX);
    assert_eq!(all.len(), 4);

    let refuse = |lab: &Lab, images: &[&str], code: i32, words: &[&str]| {
        let ran = lab.run(&[&["rm", "--registry"], images].concat());
        ran.expect(code, words);
        assert_eq!(
            names(&server, PREFIX),
            all,
            "nothing of {images:?} has gone"
        );
    };
    refuse(&lab, &["uper"], 8, &["did you mean `upper`?"]);
    refuse(&lab, &[&Digest::of("none").to_string()], 8, &[]);
    refuse(&lab, &["free", "nothing"], 8, &["nothing"]);
    refuse(
        &lab,
        &["one", "twin"],
        7,
        &["`upper` is built on `one`", "--force"],
    );
    refuse(
        &lab,
        &["one", "upper"],
        7,
        &["`twin` is the same image as `one`"],
    );
    refuse(&lab, &["one", "--now"], 2, &["--now"]);
    // Others can name an image as their base; who knows nothing of them learns of it from the registry's records.
    let from = format!(
        "base \"team\" {{ from \"{}/{PREFIX}:free\"; }}\nimage \"above\" base=\"team\" {{ pip \"beta\"; }}",
        server.address()
    );
    let above = lab::project(server.address(), &index, &from);
    above.run(&["push"]).expect(0, &["above"]);
    let all = names(&server, PREFIX);
    above
        .run(&["rm", "--registry", "free"])
        .expect(7, &["image `above` is built on `free`"]);
    lab.run(&["rm", "--registry", "free"])
        .expect(7, &["the pushed image `above` is built on `free`"]);
    assert_eq!(names(&server, PREFIX), all);

    above.run(&["rm", "--registry", "above"]).expect(0, &[]);
    let free = json(&lab, &["build", "free"])["images"][0]["digest"].clone();
    let free = free.as_str().unwrap();
    let place = format!("the registry ({}/{PREFIX})", server.address());
    lab.run(&["rm", "--registry", free])
        .expect(0, &["removed free", free, &place]);
    lab.run(&["rm", "--registry", "one", "upper", "twin"])
        .expect(0, &["removed one", "removed upper"]);
    assert_eq!(names(&server, PREFIX), []);
    server.assert_whole();

    // Records stay, and tell that their image is gone; this store still has it, and brings it back.
    lab.run(&["show", free]).expect(8, &["GONE"]);
    lab.run(&["build", "free", "--offline"])
        .expect(0, &["already built"]);
    let empty = lab::project(server.address(), &index, IMAGES);
    let lock = fs::read(lab.project().join("imagewright.lock")).unwrap();
    empty.write("imagewright.lock", &lock);
    let made = json(&empty, &["build", "free", "--locked"]);
    assert_eq!(made["images"][0]["digest"], free);
    let (_, requests) = server.during(|| lab.run(&["push"]).expect(0, &["free"]));
    assert_eq!(
        server.layer_bytes(&requests),
        (0, 0),
        "the layers are there"
    );
    server.assert_whole();
    lab.run(&["show", free]).expect(0, &["READY"]);
    // Of a protected name nobody loses sight.
    let protected = IMAGES.replace(
        "\"twin\" base=\"small\" {",
        "\"twin\" base=\"small\" { protected #true;",
    );
    assert_ne!(protected, IMAGES);
    let text = fs::read_to_string(lab.project().join("imagewright.kdl")).unwrap();
    lab.write("imagewright.kdl", text.replace(IMAGES, &protected));
    lab.run(&["rm", "--registry", "one", "--force"]).expect(
        7,
        &["`twin`, which is protected, is the same image as `one`"],
    );
    lab.run(&["rm", "--registry", "one", "upper", "twin"])
        .expect(7, &["`twin` is protected", "--force"]);
    lab.write("imagewright.kdl", text);
    lab.run(&["rm", "--registry", "one", "one", "--force"])
        .expect(0, &["removed one", "removed twin"]);
    let left: Vec<String> = names(&server, PREFIX)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(left, ["free", "upper"], "its other name has gone with it");
    assert_eq!(found(&lab, &[]), ["free", "upper"]);
    let outdated = found(&lab, &["--status", "OUTDATED"]);
    assert!(outdated.contains(&"one".to_owned()), "{outdated:?}");
}

/// The names that `find` tells.
#[track_caller]
fn found(lab: &Lab, arguments: &[&str]) -> Vec<String> {
    let found = json(lab, &[&["find"], arguments].concat());
    let images = found["images"].as_array().unwrap().iter();
    images
        .map(|image| image["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_was_removed_is_not_found_by_anybody_until_it_is_pushed_again() {
    let server = Server::docker_registry(DELETES);
    let index = lab::index();
    let images = "image \"one\" base=\"small\" { pip \"beta\"; }\n\
                  image \"free\" base=\"small\" { pip \"delta\"; }";
    let lab = lab::project(server.address(), &index, images);
    let pushed = json(&lab, &["push"]);
    let digest = pushed["images"][0]["digest"].as_str().unwrap().to_owned();
    let colleague = lab::colleague(&lab, server.address());
    assert_eq!(found(&colleague, &[]), ["free", "one"]);
    for (word, words) in [
        (
            "sha256:0123",
            &["no image in the registry called `sha256:0123`", "free, one"][..],
        ),
        ("on/e", &["no image in the registry called `on/e`"]),
        ("sha256:", &["no image in the registry called"]),
    ] {
        lab.run(&["rm", "--registry", word]).expect(8, words);
    }

    // By the first digits, and named twice.
    lab.run(&["rm", "--registry", &digest.to_uppercase()[7..12], "one"])
        .expect(0, &["removed one", &digest]);
    assert_eq!(names(&server, PREFIX).len(), 1);
    let last = documents(&server, &format!("{PREFIX}/cache"), "name-");
    for record in last.values() {
        assert_eq!(record["removed"], record["name"] == "one", "{record:#}");
    }
    for lab in [&lab, &colleague] {
        assert_eq!(found(lab, &[]), ["free"]);
        assert_eq!(found(lab, &["--status", "OUTDATED"]), ["one"]);
        lab.run(&["show", &digest]).expect(8, &["GONE"]);
        let request = format!("{}:one", lab.project().display());
        assert!(found(lab, &["--satisfies", &request]).is_empty());
    }
    lab.run(&["rm", "--registry", "one"]).expect(
        8,
        &["no image in the registry called `one`", "there are: free"],
    );
    lab.run(&["push"]).expect(0, &["one"]);
    for lab in [&lab, &colleague] {
        assert_eq!(found(lab, &[]), ["free", "one"]);
    }

    // What somebody has deleted without us can be recorded as removed.
    let manifest = format!("/v2/{PREFIX}/manifests/{digest}");
    delete(&server, &manifest);
    assert_eq!(found(&colleague, &[]), ["free", "one"]);
    lab.run(&["rm", "--registry", "one"])
        .expect(0, &["removed one", &digest]);
    assert_eq!(found(&colleague, &[]), ["free"]);
    server.assert_whole();
}

#[test]
fn an_image_of_several_platforms_goes_but_for_what_another_name_needs() {
    let server = Server::docker_registry(DELETES);
    let index = lab::index();
    let images = r#"
        base "two" { from "oci:../both:both"; }
        image "own" base="two" { pip "beta"; platform "linux/amd64" "linux/arm64"; }
        image "half" base="two" { pip "beta"; }
    "#;
    let lab = lab::project(server.address(), &index, images);
    platforms::two_platforms(&lab);
    lab.run(&["push"]).expect(0, &["own", "half"]);
    let all = names(&server, PREFIX);
    let [(_, half), (_, own)] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_ne!(own, half, "an index, and one of its platforms");
    lab.run(&["rm", "--registry", "half"])
        .expect(7, &[&half.to_string(), "is one platform of `own`"]);
    lab.run(&["rm", "--registry", "own"])
        .expect(0, &["removed own", &own.to_string()]);
    assert_eq!(names(&server, PREFIX), all[..1]);
    server.assert_whole();
    lab.run(&["show", &half.to_string()]).expect(0, &["READY"]);
    lab.run(&["push"]).expect(0, &["own"]);
    assert_eq!(names(&server, PREFIX), all);
    lab.run(&["rm", "--registry", "own", "half"]).expect(0, &[]);
    assert_eq!(names(&server, PREFIX), []);
    server.assert_whole();
}

#[test]
fn a_registry_that_does_not_delete_or_answer_is_told_as_such() {
    let server = Server::docker_registry(Options::default());
    let index = lab::index();
    let images = "image \"one\" base=\"small\" { pip \"beta\"; }";
    let lab = lab::project(server.address(), &index, images);
    lab.run(&["push"]).expect(0, &[]);
    let all = names(&server, PREFIX);
    let ran = lab.run(&["rm", "--registry", "one"]);
    ran.expect(7, &["does not offer", "deleting", "switched it off"]);
    assert_eq!(names(&server, PREFIX), all);
    drop(server);
    lab.run(&["rm", "--registry", "one"]).expect(4, &[]);
    let nowhere =
        Lab::with("base \"small\" { from \"oci:../base:busybox\"; }\nimage \"one\" base=\"small\"");
    nowhere
        .run(&["rm", "--registry", "one"])
        .expect(2, &["declares no registry"]);
}

fn blobs(lab: &Lab) -> usize {
    fs::read_dir(lab.store().join("blobs")).unwrap().count()
}

#[test]
fn an_image_whose_layers_only_a_registry_has_is_collected_like_any_other() {
    let server = Server::docker_registry(DELETES);
    let index = lab::index();
    let images = "image \"one\" base=\"small\" { pip \"alpha\"; }";
    let lab = lab::project(server.address(), &index, images);
    lab.run(&["push"]).expect(0, &[]);
    let colleague = lab::colleague(&lab, server.address());
    let digest = |ran: &Value| ran["images"][0]["digest"].clone();
    let known = digest(&json(&colleague, &["build", "--locked"]));
    assert_eq!(blobs(&colleague), 2, "its configuration and manifest");

    // Rooted by the lock: it stays, and works without the registry being asked.
    let gone = json(&colleague, &["gc", "--older-than", "0s"]);
    assert_eq!(gone["things"], Value::Array(Vec::new()));
    let (built, requests) = server.during(|| json(&colleague, &["build", "--locked"]));
    assert_eq!((digest(&built), requests.len()), (known.clone(), 0));
    colleague
        .run(&["exec", "one", "--", "ls", "/opt/venv"])
        .expect(0, &["bin"]);
    json(&colleague, &["gc", "--max-size", "0B"]);
    colleague
        .run(&["exec", "one", "--offline", "--", "ls", "/opt/venv"])
        .expect(0, &["bin"]);

    // Everything that was pulled goes; what only the registry has comes from there again.
    json(&colleague, &["gc", "--all"]);
    assert_eq!(blobs(&colleague), 0);
    let rows = colleague.rows("SELECT count(*) || '' FROM images");
    assert_eq!(rows, [["0"]], "an image of which the store has nothing");
    assert_eq!(digest(&json(&colleague, &["build", "--locked"])), known);
    let archive = colleague.path("one.tar").display().to_string();
    colleague
        .run(&["export", "one", "--oci-archive", &archive])
        .expect(0, &[]);

    // Without its lock nothing of it is rooted.
    fs::remove_file(colleague.project().join("imagewright.lock")).unwrap();
    json(&colleague, &["gc", "--older-than", "0s"]);
    assert_eq!(blobs(&colleague), 0);
    for table in ["images", "records"] {
        let rows = colleague.rows(&format!("SELECT count(*) || '' FROM {table}"));
        assert_eq!(rows, [["0"]], "{table}");
    }
}

#[test]
fn collections_beside_pushes_take_nothing_that_these_need() {
    let server = Server::docker_registry(DELETES);
    let index = lab::index();
    let images = "image \"one\" base=\"small\" { pip \"alpha\"; }\n\
                  image \"two\" base=\"small\" { pip \"gamma\"; }";
    let lab = lab::project(server.address(), &index, images);
    lab.run(&["build"]).expect(0, &[]);
    let collector = Lab::new().env(
        "IMAGEWRIGHT_STORE",
        &lab.path("store").display().to_string(),
    );
    let prefix = |round: usize| format!("{}/round-{round}", server.address());
    let ended = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut things = 0;
            while !ended.load(relaxed) {
                let gone = json(&collector, &["gc", "--all"]);
                things += gone["things"].as_array().unwrap().len();
            }
            things
        });
        let pushing = scope.spawn(|| {
            for round in 0..6 {
                lab.run(&["push", "--to", &prefix(round), "--with-sources"])
                    .expect(0, &["two pushed"]);
            }
        });
        let pushed = pushing.join();
        ended.store(true, relaxed);
        let things = collecting.join().unwrap();
        pushed.unwrap();
        assert!(things > 0, "there was something to collect");
    });
    server.assert_whole();
    assert_eq!(names(&server, "round-5").len(), 2);
}
