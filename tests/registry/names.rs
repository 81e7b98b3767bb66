//! Where `push` puts images, and what they are called there.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::bases;
use crate::index;
use crate::lab::{self, PASSWORD, PREFIX, Server, USER};
use crate::pushing::{LOGIN, ONE, digest, documents, manifest, push, writes};

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
        assert!(writes(&requests).is_empty(), "{requests:#?}");
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
    let (ran, requests) = server.during(|| lab.run(&["push"]));
    ran.expect(2, &["{git}", "remove {git} from the tags"]);
    assert!(writes(&requests).is_empty(), "{requests:#?}");
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
    // What `{git}` stands for is known only now.
    let clash = format!(
        "image \"one\" base=\"small\" {{ pip \"alpha\"; tag \"x-{{git}}\"; }}\nimage \"one-x\" base=\"small\" {{ pip \"beta\"; tag \"{}-dirty\"; }}",
        &commit[..12]
    );
    lab.write("imagewright.kdl", manifest(&server, "", &clash));
    lab.run(&["check"]).expect(0, &[]);
    let (ran, requests) = server.during(|| lab.run(&["push"]));
    ran.expect(2, &["`one` and `one-x` would both be pushed as", "-dirty"]);
    assert!(writes(&requests).is_empty(), "{requests:#?}");
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
fn two_images_with_one_tag_are_an_error_before_anything_is_asked() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, "");
    let pair = r#"image "a" base="small" { pip "alpha"; tag "b"; }
image "a-b" base="small" { pip "beta"; }"#;
    let other = format!("push \"{}/{PREFIX}/a\"\n", server.address());
    let apart = r#"image "a" base="small" { pip "alpha"; tag "b"; }
image "b" base="small" { pip "beta"; }"#;
    for (layout, images, tag) in [
        ("split", pair.to_owned(), "`a-b`"),
        ("single", pair.to_owned(), "`a-b`"),
        // The repository that `a` has of its own is the one that `push` names.
        ("per-image", format!("{other}{apart}"), "/a:b`"),
    ] {
        let text = manifest(&server, &format!("layout=\"{layout}\""), &images);
        lab.write("imagewright.kdl", text);
        for command in ["check", "push"] {
            let (ran, requests) = server.during(|| lab.run(&[command]));
            ran.expect(2, &["would both be pushed as", tag]);
            assert!(requests.is_empty(), "{requests:#?}");
        }
    }
    let text = manifest(&server, "layout=\"per-image\"", pair);
    lab.write("imagewright.kdl", text);
    lab.run(&["check"]).expect(0, &[]);
}

#[test]
fn a_metadata_file_that_cannot_be_is_told_before_anything_is_pushed() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, ONE);
    for place in ["no/such/folder.json", "."] {
        let place = lab.path(place).display().to_string();
        for command in ["push", "build"] {
            lab.run(&[command, "--metadata-file", &place])
                .expect(4, &["cannot write", &place, "give --metadata-file"]);
        }
    }
    assert!(server.repositories().is_empty());
}

#[test]
fn metadata_of_a_push_names_every_place() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, "");
    let image = r#"image "one" base="small" { pip "alpha"; version "1.2"; tag "v{version}"; }"#;
    let second = format!("push \"{}/b\" layout=\"per-image\"\n", server.address());
    let text = manifest(&server, "", &format!("{second}{image}"));
    lab.write("imagewright.kdl", &text);
    let path = lab.path("made.json");
    let file = path.to_str().unwrap();
    let pushed = push(&lab, &["--metadata-file", file]);
    let made: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let made = &made["images"][0];
    let expected = [
        format!("{PREFIX}:one"),
        format!("{PREFIX}:one-v1.2"),
        "b/one:latest".into(),
        "b/one:v1.2".into(),
    ]
    .map(|rest| format!("{}/{rest}", server.address()));
    assert_eq!(made["references"], json!(expected));
    assert_eq!(made["containerimage.digest"], pushed["images"][0]["digest"]);
    for (repository, tag) in [(PREFIX, "one-v1.2"), ("b/one", "latest"), ("b/one", "v1.2")] {
        let tags = server.tags(repository);
        let found = tags.iter().find(|(found, _)| found == tag).unwrap();
        assert_eq!(made["containerimage.digest"], json!(found.1), "{tag}");
    }
    // Nothing is written of a push that did not reach every place, nor of a dry run.
    fs::remove_file(&path).unwrap();
    lab.write(
        "imagewright.kdl",
        text.replace(&second, &format!("push \"{}/b\"\n", index::closed_port())),
    );
    lab.run(&["push", "--metadata-file", file]).expect(4, &[]);
    lab.run(&["push", "--dry-run", "--metadata-file", file])
        .expect(2, &["--metadata-file"]);
    assert!(!path.exists());
}
