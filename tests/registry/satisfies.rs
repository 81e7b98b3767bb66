//! `find --satisfies`: which images a declared image's request could be answered with, and why others could not.

use imagewright::catalog::Record;
use imagewright::manifest::Platform;
use serde_json::{Value, json};

use crate::lab::{self, Options, Server};
use crate::project::Lab;
use crate::records::{find, names, printed, put, record};
use crate::wares;

const PUSHED: &str = "image \"one\" base=\"small\" { pip \"alpha\"; }
image \"two\" base=\"small\" { pip \"gamma\"; }
";

const WANTED: &str = "base \"small\" { from \"oci:../base:busybox\"; }
base \"other\" { from \"registry.example.com/python:3.11\"; }
base \"third\" { from \"registry.example.com/python:3.12\"; }
image \"needed\" base=\"small\" { pip \"beta\"; }
image \"both\" base=\"small\" { pip \"Beta\" \">=1,<3\"; pip \"delta\"; env \"A\" \"b\"; }
image \"newer\" base=\"small\" { pip \"beta\" \">2\"; pip \"alpha\"; }
image \"nowhere\" base=\"small\" { pip \"delta\" \">1\"; pip \"unheard-of\"; python \"3.12\"; }
image \"above\" base=\"third\" { pip \"beta\"; }
image \"anywhere\" base=\"other\" { pip \"beta\"; platform \"linux/amd64\" \"linux/arm64\"; }
image \"arm\" base=\"other\" { pip \"beta\"; platform \"linux/arm64\"; }
image \"file\" base=\"small\" { pip \"beta\" wheel=\"beta-2.0-py3-none-any.whl\"; }
";

/// A registry with two images and the project that pushed them; beside that, a project with what is wanted.
fn pushed() -> (Server, Lab) {
    let server = Server::docker_registry(Options::default());
    let lab = lab::project(server.address(), &lab::index(), PUSHED);
    lab.run(&["push"]).expect(0, &["one", "two"]);
    lab.write("../wanted/imagewright.kdl", WANTED);
    let (file, wheel) = wares::wheel("beta", "2.0", &[], 4, 300_000);
    lab.write(&format!("../wanted/{file}"), wheel);
    (server, lab)
}

fn nearest(document: &Value) -> Vec<(String, Value)> {
    let all = document["nearest"].as_array().into_iter().flatten();
    let named = all.map(|near| {
        (
            near["name"].as_str().unwrap().to_owned(),
            near["reasons"].clone(),
        )
    });
    named.collect()
}

/// An image on another base, for each platform.
fn on_other() -> Vec<Record> {
    let platforms = [
        ("on-other", Platform::LinuxAmd64),
        ("on-other-arm", Platform::LinuxArm64),
    ];
    let records = platforms.map(|(name, platform)| {
        let mut record = record(name, 1, &["beta==2.0"]);
        record.base.root = "registry.example.com/python:3.11".into();
        record.platform = platform;
        record
    });
    records.into()
}

#[test]
fn images_that_satisfy_a_request_are_found_and_others_are_explained() {
    let (server, lab) = pushed();
    put(&server, &on_other());
    let wanted = |image: &str, filters: &[&str]| {
        let text = format!("wanted:{image}");
        find(&lab, &server, &[&["--satisfies", &text], filters].concat())
    };
    for (image, filters, expected) in [
        ("needed", &[][..], &["one", "two"][..]),
        ("anywhere", &[], &["on-other", "on-other-arm"]),
        ("both", &[], &["two"]),
        ("file", &[], &["one", "two"]),
        ("needed", &["--pip", "alpha"], &["one"]),
        ("needed", &["--pip", "beta==2.0", "--name", "t*"], &["two"]),
        (
            "anywhere",
            &["--platform", "linux/arm64"],
            &["on-other-arm"],
        ),
        ("needed", &["--platform", "linux/arm64"], &[]),
        ("needed", &["--status", "OUTDATED"], &[]),
        ("arm", &[], &["on-other-arm"]),
        ("newer", &[], &[]),
    ] {
        let ran = wanted(image, filters);
        assert_eq!(names(&ran), expected, "{image} {filters:?}");
        let empty = expected.is_empty();
        let asked = empty && filters.is_empty();
        assert_eq!(
            printed(&ran).get("nearest").is_some(),
            asked,
            "{image} {filters:?}"
        );
    }
    let found = printed(&wanted("both", &[]));
    let package =
        |name: &str, version: &str| json!({"kind": "pip", "name": name, "version": version});
    let packages = json!([package("beta", "2.0"), package("delta", "0.1")]);
    assert_eq!(
        found["images"][0]["packages"], packages,
        "what was asked for is told"
    );

    let told = nearest(&printed(&wanted("newer", &[])));
    let expected = [
        ("one".to_owned(), json!(["beta>2: it has 2.0"])),
        (
            "two".into(),
            json!(["alpha: it has no alpha", "beta>2: it has 2.0"]),
        ),
    ];
    assert_eq!(told[..2], expected, "the nearest first");
    let told = nearest(&printed(&wanted("newer", &["--name", "two"])));
    assert_eq!(told, expected[1..], "among those that pass the filters");
    let told = nearest(&printed(&wanted("nowhere", &[])));
    assert_eq!(told.len(), 3);
    let (_, reasons) = told.iter().find(|(name, _)| name == "two").unwrap();
    for word in [
        "Python 3.12: it has 3.1",
        "delta>1: it has 0.1",
        "unheard-of: it has no unheard-of",
    ] {
        assert!(reasons.to_string().contains(word), "{reasons}");
    }
    let told = nearest(&printed(&wanted("above", &[])));
    assert!(
        told[0].1[0]
            .as_str()
            .unwrap()
            .contains("base registry.example.com/python:3.12: it begins with "),
        "{told:?}"
    );

    // The same for people: on standard error, so that the answer is empty.
    let place = crate::records::place(&server);
    let ran = lab.run(&["find", "--registry", &place, "--satisfies", "wanted:newer"]);
    assert_eq!(ran.out, "");
    let words = [
        "no image satisfies this",
        "one for linux/amd64 (",
        ") comes near, but:",
        "  beta>2: it has 2.0",
    ];
    ran.expect(0, &words);
}

#[test]
fn what_a_record_cannot_prove_the_lock_beside_it_does() {
    let (server, lab) = pushed();
    let file = "wanted:file";
    let before = server.requests().len();
    assert_eq!(
        names(&find(&lab, &server, &["--satisfies", file])),
        ["one", "two"]
    );
    let blobs =
        |requests: &[lab::Request]| requests.iter().filter(|one| one.blob().is_some()).count();
    assert_eq!(blobs(&server.requests()[before..]), 2, "a lock for each");
    let (ran, requests) = server.during(|| find(&lab, &server, &["--satisfies", file]));
    assert_eq!(
        (names(&ran).len(), blobs(&requests)),
        (2, 0),
        "they are kept"
    );
    // Without the registry there is no proof.
    let ran = find(&lab, &server, &["--satisfies", file, "--no-sync"]);
    assert_eq!(names(&ran), [""; 0]);
    let told = nearest(&printed(&ran));
    let unproven = json!(["beta: which file was installed, only its lock can tell"]);
    assert_eq!(told[0].1, unproven);
    let (name, other) = wares::wheel("beta", "2.0", &[], 5, 100);
    lab.write(&format!("../wanted/{name}"), other);
    let ran = find(&lab, &server, &["--satisfies", file]);
    assert_eq!(names(&ran), [""; 0]);
    let told = nearest(&printed(&ran));
    assert_eq!(
        told[0].1,
        json!([format!("beta: it has another file than {name}")])
    );
}

#[test]
fn answers_to_a_request_have_pages_and_the_store_s_own_images_too() {
    let (server, lab) = pushed();
    for place in [
        &["--local"][..],
        &["--registry", &crate::records::place(&server)],
    ] {
        let page = |arguments: &[&str]| {
            let first = ["find", "--json", "--page-size", "1", "--satisfies"];
            lab.run(&[&first, arguments, place].concat())
        };
        let first = page(&["wanted:needed"]);
        assert_eq!(names(&first), ["one"]);
        let token = printed(&first)["next_page_token"]
            .as_str()
            .unwrap()
            .to_owned();
        let second = page(&["wanted/imagewright.kdl:needed", "--page-token", &token]);
        assert_eq!(names(&second), ["two"]);
        assert!(printed(&second)["next_page_token"].is_null());
        let other = page(&["wanted:both", "--page-token", &token]);
        other.expect(2, &["page token"]);
        assert_eq!(names(&page(&["wanted:both"])), ["two"]);
        assert_eq!(nearest(&printed(&page(&["wanted:newer"])))[0].0, "one");
    }

    // Elsewhere than in a project, the registry is that of the manifest which is asked about.
    let mut command = std::process::Command::new(crate::project::PROGRAM);
    command.args(["find", "--json", "--satisfies", "project:two"]);
    lab.prepare(&mut command);
    let ran = lab
        .start_command(command)
        .wait(std::time::Duration::from_secs(60));
    assert_eq!(names(&ran), ["two"]);
    let reference = printed(&ran)["images"][0]["reference"].clone();
    assert!(reference.as_str().unwrap().starts_with(server.address()));

    for (text, code, word) in [
        ("nowhere:model", 8, "there is no nowhere/imagewright.kdl"),
        ("wanted:neded", 8, "did you mean `needed`?"),
        ("wanted/beta-2.0-py3-none-any.whl:x", 2, "is not UTF-8 text"),
    ] {
        lab.run(&["find", "--local", "--satisfies", text])
            .expect(code, &[word]);
    }
    lab.write(
        "../wanted/imagewright.kdl",
        WANTED.replace("pip \"Beta\"", "pib \"Beta\""),
    );
    lab.run(&["find", "--local", "--satisfies", "wanted:needed"])
        .expect(2, &["`pib`", "wanted/imagewright.kdl"]);
}
