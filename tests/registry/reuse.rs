//! Locks made from what a registry has: pins of an image that satisfies the manifest, and versions that images have.

use std::collections::BTreeMap;

use imagewright::catalog::SecretKey;
use serde_json::{Value, json};

use crate::index;
use crate::lab::{self, Lab, Options, PREFIX, Ran, Server};
use crate::wares;

pub const OPEN: Options = Options {
    login: false,
    delete: true,
};

/// The same packages as at the time of the push, and newer ones.
pub fn later_index() -> index::Server {
    index_of(&[
        wares::wheel("alpha", "1.0", &["beta"], 60, 2_000),
        wares::wheel("alpha", "1.1", &["beta"], 3, 100),
        wares::wheel("beta", "2.0", &[], 4, 300_000),
        wares::wheel("beta", "2.1", &[], 3, 100),
        wares::wheel("gamma", "3.0", &["beta", "delta"], 200, 1_000),
        wares::wheel("gamma", "3.1", &["beta", "delta"], 3, 100),
        wares::wheel("delta", "0.1", &[], 2, 100),
        wares::wheel("delta", "0.2", &[], 3, 100),
    ])
}

/// An index whose projects have several files.
fn index_of(wheels: &[(String, Vec<u8>)]) -> index::Server {
    let index = index::Server::with(wheels);
    let mut pages = BTreeMap::<&str, String>::new();
    for (file, bytes) in wheels {
        let page = pages.entry(file.split('-').next().unwrap()).or_default();
        let hash = wares::sha256(bytes);
        *page += &format!("<a href=\"/files/{file}#sha256={hash}\">{file}</a>\n");
    }
    for (project, page) in pages {
        let page = index::Page::new("text/html", format!("<!DOCTYPE html><html><body>{page}"));
        index.put(&format!("/simple/{project}/"), page);
    }
    index
}

pub const FRAUD: &str = "image \"fraud\" base=\"small\" { pip \"alpha\"; }";

/// A registry to which a colleague has pushed these images, and what that colleague has.
pub fn pushed(images: &str, arguments: &[&str]) -> (Server, Lab) {
    let server = Server::docker_registry(OPEN);
    let index = lab::index();
    let colleague = lab::project(server.address(), &index, images);
    colleague
        .run(&[&["push"], arguments].concat())
        .expect(0, &[]);
    (server, colleague)
}

pub fn lock_text(lab: &Lab) -> String {
    std::fs::read_to_string(lab.project().join("imagewright.lock")).unwrap()
}

#[track_caller]
pub fn assert_pins(lab: &Lab, wheels: &[&str]) {
    let text = lock_text(lab);
    let pinned: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("wheel \"")?.split("-py3").next())
        .collect();
    assert_eq!(pinned, wheels, "{text}");
}

pub fn contribution(ran: &Ran) -> Value {
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    document["images"][0]["catalog"].clone()
}

#[test]
fn versions_of_an_image_that_satisfies_are_followed_and_stay() {
    let (server, _colleague) = pushed(FRAUD, &[]);
    let index = later_index();
    let mine = "image \"mine\" base=\"small\" { pip \"alpha\" \">=1\"; env \"A\" \"b\"; }";
    let lab = lab::project(server.address(), &index, mine);
    lab.run(&["lock"]).expect(0, &[]);
    assert_pins(&lab, &["alpha-1.1", "beta-2.1"]);
    std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();

    let words = [
        "as fraud (",
        "has everything that is asked for",
        "versions are followed, but the files are those that the index and the archive have",
        "not looked at: configuration",
    ];
    lab.run(&["lock", "--reuse"]).expect(0, &words);
    assert_pins(&lab, &["alpha-1.0", "beta-2.0"]);
    let text = lock_text(&lab);
    assert!(!text.contains("digest \""), "nobody vouches for it: {text}");
    // From now on the lock decides.
    lab.run(&["lock"]).expect(0, &["is up to date"]);
    for flag in ["--reuse", "--prefer-catalog"] {
        let words = [
            "is up to date",
            "keeps them: mine for linux/amd64;",
            "remove ",
            "imagewright.lock and lock again",
        ];
        lab.run(&["lock", flag]).expect(0, &words);
    }
    let quiet = lab.run(&["lock", "--reuse", "--json"]).expect(0, &[]);
    assert_eq!(quiet.err, "");
    assert_eq!(lock_text(&lab), text);

    // What the index does not list any more cannot be followed, and is told.
    std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    let newer = index::Server::with(&[
        wares::wheel("alpha", "1.0", &["beta"], 60, 2_000),
        wares::wheel("beta", "2.1", &[], 3, 100),
    ]);
    let lab = lab.env("PIP_INDEX_URL", &newer.index());
    lab.run(&["lock", "--reuse"])
        .expect(0, &["but pip beta 2.1, not 2.0"]);
    assert_pins(&lab, &["alpha-1.0", "beta-2.1"]);
}

#[test]
fn pins_of_a_trusted_registry_are_taken_without_an_index() {
    let (server, colleague) = pushed(FRAUD, &[]);
    let digest = colleague.build().remove(0);
    let theirs = lock_text(&colleague);
    for (mine, same) in [
        (FRAUD.replace("fraud", "mine"), true),
        (
            "image \"mine\" base=\"small\" { pip \"beta\"; env \"A\" \"b\"; }".into(),
            false,
        ),
    ] {
        let lab = lab::colleague(&colleague, server.address());
        lab.write("imagewright.kdl", lab::manifest(server.address(), &mine));
        std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
        // Without trust somebody else must know the files, and there is nobody.
        lab.run(&["lock", "--reuse"])
            .expect(4, &["is passed over: its versions cannot be had"]);
        let ran = lab
            .run(&["lock", "--reuse", "--trust-registry", "--json"])
            .expect(0, &[]);
        let told = contribution(&ran);
        let reused = &told["reused"];
        assert_eq!(reused["name"], "fraud");
        assert_eq!(reused["digest"], digest.as_str());
        assert_eq!(
            reused["repository"],
            format!("{}/{PREFIX}", server.address())
        );
        assert_eq!(reused["believed"], "--trust-registry");
        assert_eq!(reused["differs"], json!([]));
        assert_eq!(reused["why"] == "same-request", same);
        // `beta` brings `alpha` along: that is the image.
        assert_pins(&lab, &["alpha-1.0", "beta-2.0"]);
        let text = lock_text(&lab);
        let kept = format!("digest \"{digest}\"");
        assert_eq!(
            text.contains(&kept),
            same,
            "another configuration is another image: {text}"
        );
        let wheels = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.starts_with("wheel"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(wheels(&text), wheels(&theirs));
        lab.run(&["lock", "--locked"]).expect(0, &[]);
    }
}

#[test]
fn a_trusted_signature_is_enough_and_another_is_not() {
    let keys: Vec<SecretKey> = (0..2).map(|_| SecretKey::generate().unwrap()).collect();
    let server = Server::docker_registry(OPEN);
    let colleague = lab::project(server.address(), &lab::index(), FRAUD);
    let file = colleague.path("key");
    std::fs::write(&file, keys[0].to_text()).unwrap();
    colleague
        .run(&["push", "--sign", file.to_str().unwrap()])
        .expect(0, &[]);
    for (key, believed) in [(&keys[0], true), (&keys[1], false)] {
        let lab = lab::project(server.address(), &later_index(), "");
        let manifest = lab::manifest(server.address(), &FRAUD.replace("fraud", "mine"));
        lab.write(
            "imagewright.kdl",
            format!("trust \"{}\"\n{manifest}", key.public()),
        );
        let ran = lab.run(&["lock", "--reuse", "--json"]).expect(0, &[]);
        let told = contribution(&ran)["reused"]["believed"].clone();
        match believed {
            true => assert_eq!(told, format!("the key {}", key.public().id())),
            false => assert_eq!(told, Value::Null),
        }
        assert_pins(&lab, &["alpha-1.0", "beta-2.0"]);
        assert_eq!(lock_text(&lab).contains("digest \"sha256"), believed);
    }
}

#[test]
fn a_signer_vouches_for_no_lock_but_the_own_one() {
    let key = SecretKey::generate().unwrap();
    let (server, colleague) = pushed(FRAUD, &[]);
    colleague.build();
    let mine = FRAUD.replace("fraud", "mine");
    let renamed = lab::project(server.address(), &lab::index(), &mine);
    renamed
        .run(&["lock", "--reuse", "--trust-registry"])
        .expect(0, &[]);
    let reader = lab::project(server.address(), &later_index(), "");
    let manifest = lab::manifest(server.address(), &mine);
    reader.write(
        "imagewright.kdl",
        format!("trust \"{}\"\n{manifest}", key.public()),
    );
    // The second one vouches for the lock too, though the key has signed the image before.
    for (signer, name, believed) in [(&renamed, "mine", false), (&colleague, "fraud", true)] {
        let file = signer.path("key");
        std::fs::write(&file, key.to_text()).unwrap();
        let file = file.to_str().unwrap();
        for done in ["signed in", "signed before in"] {
            signer
                .run(&["sign", name, "--key", file])
                .expect(0, &[done]);
        }
        let ran = reader.run(&["lock", "--reuse", "--json"]).expect(0, &[]);
        let told = contribution(&ran)["reused"]["believed"].clone();
        assert_eq!(told.is_string(), believed, "{name}");
        assert_pins(&reader, &["alpha-1.0", "beta-2.0"]);
        std::fs::remove_file(reader.project().join("imagewright.lock")).unwrap();
    }
}

#[test]
fn what_does_not_satisfy_is_told_and_the_lock_is_made_without() {
    let (server, _colleague) = pushed(FRAUD, &[]);
    let wants = |lines: &str| {
        let image = format!("image \"mine\" base=\"small\" {{ {lines} }}");
        lab::project(server.address(), &later_index(), &image)
    };
    for (lines, reason) in [
        ("pip \"beta\" \">2\"", "beta>2: it has 2.0"),
        ("pip \"delta\"", "delta: it has no delta"),
        (
            "pip \"alpha[x]\"",
            "alpha[x]: it was not asked for alpha[x]",
        ),
        ("os \"jq\"", "OS package jq: it is not known to be there"),
    ] {
        let lab = wants(lines);
        let ran = lab.run(&["lock", "--reuse"]);
        if lines.starts_with("os") {
            // This base has no dpkg; the sentence is about that.
            ran.expect(2, &[]);
            continue;
        }
        ran.expect(0, &["fraud (", "comes closest:", reason]);
    }
    let lab = wants("pip \"beta\" \">2\"");
    let ran = lab.run(&["lock", "--reuse", "--json"]).expect(0, &[]);
    let told = contribution(&ran);
    assert_eq!(told["closest"]["reasons"], json!(["beta>2: it has 2.0"]));
    assert_eq!(told["reused"], Value::Null);

    // An image that is gone is not taken.
    let lab = wants("pip \"alpha\"");
    let tags = server.tags(PREFIX);
    let (_, digest) = tags.iter().find(|(tag, _)| tag == "fraud").unwrap();
    let path = format!("/v2/{PREFIX}/manifests/{digest}");
    delete(&server, &path);
    lab.run(&["lock", "--reuse"])
        .expect(0, &["is passed over: it is not in the registry any more"]);
    assert_pins(&lab, &["alpha-1.1", "beta-2.1"]);
}

pub fn delete(server: &Server, path: &str) {
    let url = format!("http://{}{path}", server.address());
    let answer = lab::wait(reqwest::Client::new().delete(url).send());
    assert!(answer.unwrap().status().is_success());
}

#[test]
fn without_the_registry_it_is_as_without_the_flag() {
    let (server, _colleague) = pushed(FRAUD, &[]);
    let address = server.address().to_owned();
    let lab = lab::project(&address, &later_index(), FRAUD);
    lab.run(&["lock", "--reuse", "--offline"])
        .expect(4, &["is not asked, because of --offline"]);
    drop(server);
    lab.run(&["lock", "--reuse", "--prefer-catalog"])
        .expect(0, &["made without the registry", &address]);
    assert_pins(&lab, &["alpha-1.1", "beta-2.1"]);

    for (arguments, word) in [
        (&["--reuse", "--locked"][..], "contradict"),
        (&["--prefer-catalog", "--locked"], "contradict"),
        (&["--reuse", "--upgrade"], "contradict"),
        (&["--reuse", "--upgrade", "beta"], "contradict"),
        (&["--prefer-catalog", "--upgrade"], "contradict"),
        (&["--trust-registry"], "--reuse"),
    ] {
        lab.run(&[&["lock"], arguments].concat()).expect(2, &[word]);
    }
    let manifest = lab::manifest(&address, FRAUD);
    let (_, without) = manifest.split_once('\n').unwrap();
    lab.write("imagewright.kdl", without);
    lab.run(&["lock", "--reuse"])
        .expect(2, &["names no registry"]);
}

#[test]
fn every_image_takes_the_one_that_has_its_extras_and_heeds_its_markers() {
    let alpha = |version| {
        let requires = ["beta", "delta; extra == 'x'", "delta; extra == 'y'"];
        wares::wheel("alpha", version, &requires, 3, 100)
    };
    let beta = |version| wares::wheel("beta", version, &[], 3, 100);
    let delta = |version| wares::wheel("delta", version, &[], 3, 100);
    let then = [alpha("1.0"), beta("2.0"), delta("0.1")];
    let now = [alpha("1.1"), beta("2.1"), delta("0.2")];
    let server = Server::docker_registry(OPEN);
    let theirs = "image \"plain\" base=\"small\" { pip \"alpha\"; }\n\
                  image \"extra\" base=\"small\" { pip \"alpha[x]\"; pip \"gamma; python_version < '3'\"; }";
    let colleague = lab::project(server.address(), &index_of(&then), theirs);
    colleague.run(&["push"]).expect(0, &[]);

    let mine = "image \"first\" base=\"small\" { pip \"alpha[x]\"; pip \"gamma>99; sys_platform == 'win32'\"; }\n\
                image \"second\" base=\"small\" { pip \"alpha\" \">=1\"; }\n\
                image \"third\" base=\"small\" { pip \"alpha[y]\"; }";
    let index = index_of(&[then, now].concat());
    let lab = lab::project(server.address(), &index, mine);
    let lock = || {
        let ran = lab.run(&["lock", "--reuse", "--json"]).expect(0, &[]);
        let document: Value = serde_json::from_str(&ran.out).unwrap();
        let images = document["images"].as_array().unwrap().iter();
        let told: Vec<Value> = images.map(|image| image["catalog"].clone()).collect();
        (told, lock_text(&lab))
    };
    let first = lock();
    let [one, two, three] = first.0.as_slice() else {
        panic!("{first:?}");
    };
    assert_eq!(one["reused"]["name"], "extra");
    assert_eq!(two["reused"]["name"], "plain");
    assert_eq!(three["reused"], Value::Null);
    let reasons = three["closest"]["reasons"].to_string();
    assert!(
        reasons.contains("it was not asked for alpha[y]"),
        "{reasons}"
    );
    std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    assert_eq!(lock(), first, "the same images make the same lock");

    // What moves is told line by line.
    let newest = |specifier: &str| {
        let image = format!("image \"mine\" base=\"small\" {{ pip \"alpha\" \"{specifier}\"; }}");
        lab.write("imagewright.kdl", lab::manifest(server.address(), &image));
    };
    std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    newest(">1");
    lab.run(&["lock"]).expect(0, &[]);
    assert_pins(&lab, &["alpha-1.1", "beta-2.1"]);
    newest(">=1");
    let words = [
        "as plain (",
        "  ~ pip alpha 1.1 -> 1.0\n",
        "  ~ pip beta 2.1 -> 2.0\n",
    ];
    lab.run(&["lock", "--reuse"]).expect(0, &words);
    assert_pins(&lab, &["alpha-1.0", "beta-2.0"]);

    // Another image's newer version moves nothing.
    let images = "image \"mine\" base=\"small\" { pip \"alpha\"; }\n\
                  image \"newer\" base=\"small\" { pip \"alpha\" \">1\"; }";
    for (lines, pins) in [
        (
            images.to_owned(),
            &["alpha-1.0", "alpha-1.1", "beta-2.0"][..],
        ),
        (
            images.replacen("pip", "pip \"delta\"; pip", 1),
            &["alpha-1.0", "alpha-1.1", "beta-2.0", "delta-0.2"],
        ),
    ] {
        lab.write("imagewright.kdl", lab::manifest(server.address(), &lines));
        lab.run(&["lock"]).expect(0, &[]);
        assert_pins(&lab, pins);
    }
}
