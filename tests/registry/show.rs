//! What `show` says of records, and both commands of this store's own images.

use imagewright::catalog::{SecretKey, Signature};
use imagewright::digest::Digest;

use crate::lab::{self, Options, Server};
use crate::project::Lab;
use crate::records::*;

fn server() -> Server {
    Server::docker_registry(Options {
        delete: true,
        ..Options::default()
    })
}

#[test]
fn show_prints_a_record_and_says_when_its_image_is_gone() {
    let (server, lab) = (server(), Lab::new());
    let secret = SecretKey::generate().unwrap();
    let mut parent = record("parent", 1, &["numpy==1.26.4", "os:vim==2:9.0-1"]);
    parent.digest = put_image(&server, "parent");
    parent.supersedes = Some(Digest::of("the one before"));
    parent.requested.pip = vec!["numpy<2".into()];
    let signature = secret.sign_record(&parent).signatures.remove(0);
    let other = Signature {
        signature: "AAAA".into(),
        ..signature.clone()
    };
    parent.signatures = vec![signature, other];
    let mut child = record("child", 2, &["numpy==1.26.4", "torch==2.0"]);
    child.base.digest = Some(parent.digest);
    let documents = put(&server, &[parent.clone(), child]);
    let place = place(&server);
    let show = |what: &str| lab.run(&["show", what, "--registry", &place]);
    let digest = parent.digest.to_string();
    let key = parent.keys.image.to_string();
    for what in [
        "parent",
        &format!("{place}:parent"),
        &format!("{place}@{digest}"),
        &format!("{place}:parent@{digest}"),
        &digest,
        &key,
        &key[7..20],
        &documents[0].to_string(),
    ] {
        show(what).expect(
            0,
            &[
                "parent for linux/amd64",
                "READY",
                &format!("{place}@{digest}"),
                &key,
                "numpy<2",
                "numpy 1.26.4",
                "vim 2:9.0-1",
                "everything",
                &Digest::of("the one before").to_string(),
                "2023-11-14T22:13:21Z",
                "child linux/amd64",
                "3.11.2",
                "tabular (debian bookworm)",
            ],
        );
    }
    let document = printed(&lab.run(&["show", "parent", "--json", "--registry", &place]));
    let record = &document["records"][0];
    assert_eq!(
        record["signers"],
        serde_json::json!([secret.public().to_string()])
    );
    assert_eq!(record["children"][0]["name"], "child");
    assert_eq!(record["record"]["pip"][0]["name"], "numpy");
    show("child").expect(8, &["GONE"]);
    // The image says where its record is.
    lab.run(&["show", &format!("{place}:parent")])
        .expect(0, &["parent for linux/amd64", "READY"]);
    let missing = format!("{place}:paren");
    show(&missing).expect(8, &["there is no", &missing]);
    show(&place).expect(2, &["names no image", &format!("{place}:NAME")]);
    show("other.example.com/ml:parent").expect(2, &["other.example.com/ml:parent", &place]);
    show("parant").expect(8, &["there is no", "parant", "did you mean `parent`?"]);
    show(&Digest::of("unknown").to_string()).expect(8, &["there is no"]);

    remove(&server, lab::PREFIX, &parent.digest);
    let ran = lab.run(&["show", "parent", "--json", "--registry", &place]);
    assert_eq!(
        (ran.code, printed(&ran)["records"][0]["status"].as_str()),
        (Some(8), Some("GONE"))
    );
    drop(server);
    let arguments = ["show", "parent", "--registry", &place];
    let ran = lab
        .run(&arguments)
        .expect(4, &["cannot be read", "help: ", "--no-sync"]);
    assert_eq!(ran.out, "");
    let before = [&arguments[..], &["--no-sync"]].concat();
    lab.run(&before).expect(0, &["READY", &digest]);
    let offline = [&arguments[..], &["--offline"]].concat();
    lab.run(&offline)
        .expect(0, &["READY", "warning: ", "before"]);
}

#[test]
fn a_tag_shows_the_image_that_got_it_last() {
    let (server, lab) = (server(), Lab::new());
    let place = place(&server);
    let tagged = |name: &str, second: i64, repository: &str, tags: &[&str]| {
        let mut record = record(name, second, &[]);
        record.repository = repository.into();
        record.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        record
    };
    let below = format!("{}/one", lab::PREFIX);
    let records = [
        tagged("one", 1, lab::PREFIX, &["one", "one-1.0"]),
        tagged("one", 2, lab::PREFIX, &["one", "one-1.1", "one-next"]),
        tagged("one", 3, lab::PREFIX, &["one", "one-next"]),
        // A name that begins with another one.
        tagged("one-next", 4, lab::PREFIX, &["one-next"]),
        tagged("one", 5, &below, &["latest"]),
    ];
    put(&server, &records);
    let pushed = |image: &str| {
        let ran = lab.run(&["show", image, "--json"]);
        assert_eq!(ran.code, Some(8), "their images are not there: {ran:?}");
        let document = printed(&ran);
        let records = document["records"].as_array().unwrap().iter();
        let pushed = records.map(|record| record["record"]["pushed_ms"].as_i64().unwrap());
        let mut pushed: Vec<i64> = pushed.map(|ms| ms / 1000 - 1_700_000_000).collect();
        pushed.sort_unstable();
        pushed
    };
    for (tag, expected) in [
        ("one", &[3][..]),
        ("one-1.0", &[1]),
        ("one-1.1", &[2]),
        ("one-next", &[4]),
    ] {
        assert_eq!(pushed(&format!("{place}:{tag}")), expected, "{tag}");
    }
    // Each image in a repository of its own, as the manifest says.
    let manifest =
        format!("registry \"{place}\" layout=\"per-image\"\nimage \"a\" base=\"minimal\"\n");
    lab.write("imagewright.kdl", manifest);
    assert_eq!(pushed(&format!("{place}/one:latest")), [5]);
    let digest = records[4].digest;
    assert_eq!(pushed(&format!("{place}/one@{digest}")), [5]);
}

#[test]
fn this_store_s_own_images_are_found_without_a_registry() {
    let index = lab::index();
    let server = server();
    let images = "image \"one\" base=\"small\" { pip \"alpha\"; }\nimage \"two\" base=\"small\" { pip \"gamma\"; }\n";
    let lab = lab::project(server.address(), &index, images);
    lab.run(&["build"]).expect(0, &["one", "two"]);
    let local =
        |filters: &[&str]| names(&lab.run(&[&["find", "--local", "--json"], filters].concat()));
    assert_eq!(
        local(&["--pip", "beta"]),
        ["one", "two"],
        "transitive ones count"
    );
    assert_eq!(local(&["--pip", "alpha"]), ["one"]);
    assert_eq!(
        names(&lab.run(&["find", "--json"])),
        [""; 0],
        "nothing was pushed"
    );
    lab.run(&["show", "one", "--local"])
        .expect(0, &["one for linux/amd64", "alpha", "beta 2.0"]);

    let changed = images.replace("pip \"alpha\";", "pip \"alpha\"; pip \"delta\";");
    lab.write("imagewright.kdl", lab::manifest(server.address(), &changed));
    lab.run(&["build"]).expect(0, &["one"]);
    lab.run(&["build"]).expect(0, &["already built"]);
    assert_eq!(local(&["--pip", "delta", "--name", "one"]), ["one"]);
    assert_eq!(local(&["--status", "OUTDATED"]), ["one"]);
    assert_eq!(
        local(&["--status", "READY,OUTDATED"]),
        ["one", "one", "two"]
    );
    lab.write("imagewright.kdl", lab::manifest(server.address(), images));
    lab.run(&["build"]).expect(0, &["already built"]);
    assert_eq!(
        local(&["--name", "one", "--pip", "delta"]),
        [""; 0],
        "the first one is current again"
    );

    let page = |arguments: &[&str]| {
        let all = [
            &["find", "--local", "--json", "--page-size", "1"],
            arguments,
        ]
        .concat();
        printed(&lab.run(&all))
    };
    let first = page(&[]);
    let token = first["next_page_token"].as_str().unwrap();
    lab.run(&["rm", "one", "--now"]).expect(0, &[]);
    let second = page(&["--page-token", token]);
    assert_eq!(second["images"][0]["name"], "two");
    assert!(second["next_page_token"].is_null());
    assert_eq!(
        local(&[]),
        ["two"],
        "an image that was removed is not found"
    );
    lab.run(&["show", "one", "--local"])
        .expect(8, &["there is no", "there are: two"]);

    lab.run(&["push"]).expect(0, &["one", "two"]);
    let ran = lab.run(&["find", "--pip", "beta==2.0", "--pip", "delta"]);
    ran.expect(0, &["two", "beta 2.0, delta 0.1", "READY"]);
    assert_eq!(
        names(&lab.run(&["find", "--json", "--python", "3"])),
        ["one", "two"]
    );
    lab.run(&["show", "two", "--registry", &place(&server)])
        .expect(0, &["READY", "gamma"]);
    // What a push prints can be shown.
    let ran = lab.run(&["push"]).expect(0, &[]);
    let printed: Vec<&str> = ran.out.lines().collect();
    let two = printed
        .iter()
        .find(|line| line.starts_with("two "))
        .unwrap();
    let (_, two) = two.split_once(": ").unwrap();
    lab.run(&["show", two])
        .expect(0, &["two for linux/amd64", "READY", "gamma"]);
    lab.run(&["show", two, "--local"])
        .expect(2, &[two, "this store"]);
    let ran = lab.run(&["push", "--json"]).expect(0, &[]);
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let reference = document["images"][1]["reference"].as_str().unwrap();
    lab.run(&["show", reference])
        .expect(0, &["two for linux/amd64"]);
}
