//! What moves in a lock, what stays, and what is refused.

use crate::bases::{python_base, run};
use crate::index::wheel_tagged;
use crate::support::{RELEASES, TestContext, index, manifest, publish};

/// The lines of a lock about one image.
fn section(lock: &str, image: &str) -> String {
    let start = lock.find(&format!("\nimage \"{image}\"")).unwrap();
    let end = lock[start..].find("\n}\n").unwrap();
    lock[start..start + end].to_owned()
}

#[track_caller]
fn has(lock: &str, files: &[&str]) {
    for file in files {
        assert!(
            lock.contains(&format!("wheel \"{file}-py3-none-any.whl\"")),
            "{file}: {lock}"
        );
    }
}

#[test]
fn pins_stay_until_told_to_move() {
    let server = index(&[
        ("alpha", "1.0", &["beta"]),
        ("beta", "1.0", &[]),
        ("gamma", "1.0", &[]),
    ]);
    let context = TestContext::on_python(&manifest(
        &server,
        "image \"a\" base=\"own\" {\n    pip \"alpha\"\n}\n",
    ));
    let told = context.ok(&["lock"]);
    assert!(
        told.contains("a for linux/amd64: 2 wheels") && told.contains("wrote "),
        "{told}"
    );
    let first = context.lock_text();
    publish(&server, &RELEASES);
    let told = context.ok(&["lock"]);
    assert!(told.contains("imagewright.lock is up to date"), "{told}");
    assert_eq!(context.lock_text(), first);

    // An index that tells lengths one day and not the next does not change what the lock knows.
    let line = first
        .lines()
        .find(|line| line.starts_with("wheel \"beta-1.0"));
    let line = line.unwrap();
    assert!(!line.contains("size="), "{line}");
    let sized = line.replace(" index=", " size=1234 index=");
    context.write("imagewright.lock", first.replace(line, &sized));

    context.edit("pip \"alpha\"", "pip \"alpha\"\n    pip \"gamma\"");
    let told = context.ok(&["lock"]);
    assert!(told.contains("+ pip gamma 1.0"), "{told}");
    assert!(
        context.lock_text().contains(&sized),
        "{}",
        context.lock_text()
    );
    has(
        &context.lock_text(),
        &["alpha-1.0", "beta-1.0", "gamma-1.0"],
    );

    let told = context.ok(&["lock", "--upgrade", "Beta"]);
    assert!(told.contains("~ pip beta 1.0 -> 1.1"), "{told}");
    has(&context.lock_text(), &["alpha-1.0", "beta-1.1"]);
    context.ok(&["lock", "--upgrade"]);
    has(&context.lock_text(), &["alpha-2.0", "beta-1.1"]);
    let told = context.fails(8, &["lock", "--upgrade", "gama"]);
    assert!(told.contains("did you mean `gamma`?"), "{told}");
    let told = context.fails(2, &["lock", "--upgrade", "--locked"]);
    assert!(told.contains("contradict"), "{told}");

    context.edit("pip \"alpha\"", "pip \"alpha\" \"<2\"");
    context.ok(&["lock"]);
    has(&context.lock_text(), &["alpha-1.0", "beta-1.1"]);
}

#[test]
fn locked_refuses_to_change_and_marks_the_image() {
    let server = index(&RELEASES);
    let context = TestContext::on_python(&manifest(
        &server,
        "image \"a\" base=\"own\" {\n    pip \"alpha\"\n}\n",
    ));
    let told = context.fails(5, &["build", "--locked"]);
    assert!(
        told.contains("has nothing for this image") && told.contains("imagewright lock"),
        "{told}"
    );
    assert!(!context.path("imagewright.lock").exists());
    context.ok(&["build"]);
    let lock = context.lock_text();
    for command in ["lock", "build"] {
        context.ok(&[command, "--locked"]);
    }
    context.edit("pip \"alpha\"", "pip \"alpha\" \"<2\"");
    for arguments in [
        &["lock"][..],
        &["build"],
        &["test"],
        &["export", "a", "--oci", "out"],
        &["exec", "a"],
    ] {
        let mut arguments = [arguments, &["--locked"]].concat();
        if arguments[0] == "exec" {
            arguments.extend(["--", "true"]);
        }
        if arguments[0] == "test" {
            context.fails(8, &arguments);
            continue;
        }
        let told = context.fails(5, &arguments);
        assert!(
            told.contains("imagewright.kdl:4:7") && told.contains("another request"),
            "{told}"
        );
    }
    assert_eq!(context.lock_text(), lock);
    assert!(!context.path("out").exists());
}

#[test]
fn an_image_that_is_not_the_lock_s_is_refused_if_the_lock_must_hold() {
    let server = index(&RELEASES);
    let text = manifest(
        &server,
        "image \"a\" base=\"own\" {\n    pip \"alpha\"\n}\n",
    );
    let context = TestContext::on_python(&text);
    let right = context.digest("a");
    let wrong = format!("sha256:{}", "5".repeat(64));
    let lock = context.lock_text().replace(&right, &wrong);
    assert!(lock.contains(&wrong), "{lock}");
    let words = [
        "image `a` for linux/amd64",
        right.as_str(),
        wrong.as_str(),
        "--verify-substitutes",
        "imagewright build",
    ];
    let other = TestContext::on_python(&text);
    // One that has built it, and one that has not.
    for context in [&context, &other] {
        context.write("imagewright.lock", &lock);
        for arguments in [
            &["build", "--locked"][..],
            &["export", "a", "--oci", "out", "--locked"],
            &["exec", "a", "--locked", "--", "true"],
            &["build", "--locked", "--metadata-file", "made.json"],
        ] {
            let told = context.fails(7, arguments);
            for word in words {
                assert!(told.contains(word), "{word}: {told}");
            }
        }
        for name in ["out", "made.json"] {
            assert!(!context.path(name).exists(), "{name}");
        }
        assert_eq!(context.lock_text(), lock);
    }
    let found = other.json(&["find", "--local"]);
    assert_eq!(found["images"], serde_json::json!([]), "it is not kept");
    // A lock that may change keeps what it has, with a warning.
    let told = other.run(&["build"]).success();
    assert!(
        told.stderr
            .contains(&format!("the lock has {wrong} and keeps it")),
        "{told:?}"
    );
    assert_eq!(other.lock_text(), lock);
    // The advice helps.
    let line = format!("    digest \"{wrong}\"\n");
    other.write("imagewright.lock", lock.replace(&line, ""));
    other.ok(&["build"]);
    assert_eq!(other.lock_text(), lock.replace(&wrong, &right));
    other.ok(&["build", "--locked"]);
}

#[test]
fn the_store_is_enough_offline() {
    let server = index(&RELEASES);
    let run = "run \"says\" image=\"a\" { command \"python\" \"-c\" \"import alpha; print(alpha.version)\"; }\n";
    let images =
        "image \"a\" base=\"own\" {\n    pip \"alpha\"\n    pip \"gamma\"\n}\n".to_owned() + run;
    let mut context = TestContext::on_python(&manifest(&server, &images));
    context.ok(&["build"]);
    let digest = context.digest("a");
    let lock = context.lock_text();
    let before = server.seen().len();
    context.ok(&["lock", "--offline"]);
    assert_eq!(
        context.json(&["build", "--offline"])["images"][0]["digest"],
        digest.as_str()
    );
    let tested = context.ok(&["test", "--offline"]);
    assert!(tested.contains("SUCCEEDED"), "{tested}");
    assert_eq!(context.lock_text(), lock);
    context.edit("    pip \"gamma\"\n", "");
    context.ok(&["lock", "--offline"]);
    assert!(!context.lock_text().contains("gamma"));
    context.ok(&["build", "--offline"]);
    assert_eq!(server.seen().len(), before, "offline asks nobody");

    context.store = context.folder().join("empty");
    let told = context.fails(4, &["build", "--offline"]);
    assert!(
        told.contains("--offline") || told.contains("offline"),
        "{told}"
    );
    std::fs::remove_file(context.path("imagewright.lock")).unwrap();
    context.fails(4, &["lock", "--offline"]);
    assert!(!context.path("imagewright.lock").exists());
}

#[test]
fn both_lines_of_a_conflict_are_marked() {
    let server = index(&RELEASES);
    let images = "image \"ä\" base=\"own\" {\n}\n".replace('ä', "a");
    let context = TestContext::on_python(&manifest(&server, &images));
    context.edit("{\n}", "{\n    env \"ÜMLAUT\" \"ü\"\n    pip \"alpha\" \"==2.0\"\n    pip \"gamma\"\n    pip \"beta\" \"==1.0\"\n}");
    context.edit("env \"ÜMLAUT\"", "env \"UMLAUT\"");
    let told = context.fails(3, &["lock"]);
    assert!(
        told.contains("pip \"alpha\" \"==2.0\"") && told.contains("pip \"beta\" \"==1.0\""),
        "{told}"
    );
    assert!(
        told.contains("beta>=1.1") && !told.contains("gamma 1.0"),
        "{told}"
    );
    let document = context.run(&["lock", "--json"]);
    assert_eq!((document.code, document.stdout.as_str()), (Some(3), ""));
    let document: serde_json::Value = serde_json::from_str(&document.stderr).unwrap();
    assert_eq!(
        (&document["error"]["code"], &document["error"]["kind"]),
        (&3.into(), &"NoResolution".into())
    );
    assert!(!context.path("imagewright.lock").exists());

    context.edit("pip \"gamma\"", "pip \"no-such-package\"");
    context.edit("pip \"beta\" \"==1.0\"", "");
    let told = context.fails(3, &["lock"]);
    assert!(told.contains("no-such-package"), "{told}");
}

#[test]
fn images_do_not_disturb_each_other() {
    let server = index(&RELEASES);
    let images = "image \"a\" base=\"own\" {\n    pip \"beta\" \"==1.0\"\n}\nimage \"b\" base=\"own\" {\n    pip \"gamma\"\n}\nimage \"c\" base=\"own\" {\n    pip \"alpha\"\n}\n";
    let context = TestContext::on_python(&manifest(&server, images));
    context.ok(&["lock"]);
    let first = context.lock_text();
    context.edit("pip \"gamma\"", "pip \"alpha\" \"==1.0\"");
    context.ok(&["lock"]);
    let second = context.lock_text();
    for image in ["a", "c"] {
        assert_eq!(section(&first, image), section(&second, image));
    }
    assert_ne!(section(&first, "b"), section(&second, "b"));

    let digest = context.digest("b");
    let before = context.lock_text();
    context.edit("image \"b\"", "image \"b-renamed\"");
    let document = context.json(&["build", "b-renamed"]);
    assert_eq!(
        context.lock_text(),
        before.replace("image \"b\"", "image \"b-renamed\"")
    );
    assert_eq!(document["images"][0]["digest"], digest.as_str());
    assert_eq!(document["images"][0]["built"], false);

    let other = TestContext::on_python(&context.read("imagewright.kdl"));
    other.ok(&["lock"]);
    let fresh = other.lock_text();
    other.ok(&["lock", "--upgrade"]);
    assert_eq!(other.lock_text(), fresh, "resolving again changes nothing");
    let third = TestContext::on_python(&context.read("imagewright.kdl"));
    third.ok(&["lock"]);
    assert_eq!(third.lock_text(), fresh, "another store changes nothing");
}

#[test]
fn a_lock_that_is_none_is_refused_and_left_alone() {
    let server = index(&RELEASES);
    let context = TestContext::on_python(&manifest(
        &server,
        "image \"a\" base=\"own\" {\n    pip \"alpha\"\n}\n",
    ));
    context.ok(&["lock"]);
    let lock = context.lock_text();
    let conflict = lock.replacen("wheel \"alpha", "<<<<<<< ours\nwheel \"alpha", 1)
        + "=======\n>>>>>>> theirs\n";
    let newer = lock.replacen("lock 1 ", "lock 99 ", 1);
    assert_ne!(newer, lock);
    let cut = lock[..lock.len() - 40].to_owned();
    let hash = lock.replacen("sha256=\"", "sha256=\"zz", 1);
    let request = lock.lines().find(|line| line.starts_with("    request"));
    let request = format!("{}\n", request.unwrap());
    let twice = lock.replacen(&request, &[request.as_str(), &request].concat(), 1);
    let cases: [(Vec<u8>, &str); 7] = [
        (twice.into(), "`request` stands twice"),
        (conflict.into(), "conflict"),
        (newer.into(), "99"),
        (cut.into(), "imagewright.lock"),
        (hash.into(), "zz"),
        (b"\xff\xfe\x00garbage".to_vec(), "UTF-8"),
        (b"{\"not\": \"a lock\"}".to_vec(), "imagewright.lock"),
    ];
    for (text, wanted) in cases {
        context.write("imagewright.lock", &text);
        for arguments in [
            &["lock"][..],
            &["lock", "--upgrade"],
            &["build"],
            &["show", "a"],
            &["why", "a"],
        ] {
            let told = context.fails(2, arguments);
            assert!(
                told.contains(wanted) && told.contains("imagewright.lock"),
                "{wanted}: {told}"
            );
        }
        assert_eq!(
            std::fs::read(context.path("imagewright.lock")).unwrap(),
            text
        );
    }
}

#[test]
fn an_upgrade_by_name_leaves_the_base() {
    let server = index(&[("beta", "1.0", &[])]);
    let text = manifest(&server, "image \"a\" base=\"own\" {\n    pip \"beta\"\n}\n");
    let context = TestContext::of(&text);
    let base = context.path("base");
    run(
        "cp",
        [
            "--recursive",
            python_base().to_str().unwrap(),
            base.to_str().unwrap(),
        ],
    );
    context.ok(&["lock"]);
    let first = context.lock_text();
    publish(&server, &RELEASES);
    let tag = format!("{}:python", base.display());
    run(
        "umoci",
        ["config", "--image", &tag, "--config.env", "NEW=1"],
    );
    context.ok(&["lock"]);
    assert_eq!(context.lock_text(), first, "the base is pinned by digest");
    let line = |lock: &str| {
        lock.lines()
            .find(|line| line.trim().starts_with("base from="))
            .unwrap()
            .to_owned()
    };
    context.ok(&["lock", "--upgrade", "beta"]);
    let second = context.lock_text();
    has(&second, &["beta-1.1"]);
    assert_eq!(line(&second), line(&first));
    let told = context.ok(&["lock", "--upgrade"]);
    assert_ne!(line(&context.lock_text()), line(&first), "{told}");
}

#[test]
fn platforms_of_an_image_have_the_same_versions_also_after_an_upgrade() {
    let server = index(&[("alpha", "1.0", &["beta"]), ("beta", "1.0", &[])]);
    let both = "base \"own\" { debian \"bookworm\"; python \"3.11\"; }\nimage \"a\" base=\"own\" {\n    pip \"alpha\"\n    platform \"linux/amd64\" \"linux/arm64\"\n}\n";
    let context = TestContext::of(&format!(
        "index \"local\" \"{}\" default=#true\n{both}",
        server.index()
    ));
    context.ok(&["lock"]);
    publish(&server, &RELEASES);
    // The newest release has no wheel for one of the platforms.
    let only = wheel_tagged("beta", "3.0", "cp311-cp311-manylinux_2_17_aarch64", &[], 10);
    let common = crate::wheels::wheel("beta", "1.1", &[], &[]);
    server.project("beta", &[common, only]);
    context.ok(&["lock", "--upgrade"]);
    let lock = context.lock_text();
    has(&lock, &["alpha-2.0", "beta-1.1"]);
    assert!(!lock.contains("beta-3.0"), "{lock}");
}
