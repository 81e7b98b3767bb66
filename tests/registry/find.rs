//! `find` and the records of `show`: what is found, page by page, and what is said of it.

use std::collections::BTreeSet;

use imagewright::catalog::{Record, SecretKey, Signature};
use imagewright::digest::Digest;
use imagewright::manifest::Platform;

use crate::lab::{self, Options, Server};
use crate::project::{Lab, Ran};
use crate::records::*;

fn server() -> Server {
    Server::docker_registry(Options {
        delete: true,
        ..Options::default()
    })
}

fn team() -> Vec<Record> {
    let with = |mut record: Record, change: &dyn Fn(&mut Record)| {
        change(&mut record);
        record
    };
    vec![
        record(
            "fraud",
            1,
            &[
                "numpy==1.26.4",
                "scikit-learn==1.5.2",
                "os:vim==2:9.0.1378-2",
            ],
        ),
        record(
            "fraud-gpu",
            2,
            &["numpy==2.1.0", "torch==2.4.0+cu121", "os:vim==2:9.1.0-1"],
        ),
        with(
            record("churn", 3, &["numpy==2.0.0rc1", "catboost==1.0.3"]),
            &|record| {
                record.python = "3.12.4".into();
                record.base.name = "nlp".into();
            },
        ),
        with(
            record("churn", 4, &["numpy==1.26.4", "catboost==1.2"]),
            &|record| {
                record.platform = Platform::LinuxArm64;
            },
        ),
        record("text", 5, &["legacy-thing==2004d", "numpy==1.26"]),
        with(record("on-image", 6, &["zope-interface==6.0"]), &|record| {
            record.base.name = "own".into();
            record.base.root = "registry.example.com/python:3.12-slim".into();
        }),
    ]
}

#[test]
fn filters_intersect_and_names_are_normalised() {
    let (server, lab) = (server(), Lab::new());
    put(&server, &team());
    find(&lab, &server, &[]);
    let place = place(&server);
    let cases: &[(&[&str], &[&str])] = &[
        (
            &[],
            &["churn", "churn", "fraud", "fraud-gpu", "on-image", "text"],
        ),
        (
            &["--pip", "numpy"],
            &["churn", "churn", "fraud", "fraud-gpu", "text"],
        ),
        (&["--pip", "NumPy==1.26.4"], &["churn", "fraud"]),
        (&["--pip", "numpy==1.26"], &["text"]),
        (&["--pip", "numpy==1.26.*"], &["churn", "fraud", "text"]),
        (
            &["--pip", "numpy >= 1.26.1, < 3"],
            &["churn", "fraud", "fraud-gpu"],
        ),
        (&["--pip", "numpy>=2.0.0rc1"], &["churn", "fraud-gpu"]),
        (&["--pip", "numpy~=2.0"], &["fraud-gpu"]),
        (&["--pip", "torch==2.4.0"], &["fraud-gpu"]),
        (&["--pip", "torch==2.4.0+cpu"], &[]),
        (&["--pip", "Zope.Interface"], &["on-image"]),
        (&["--pip", "legacy_thing"], &["text"]),
        (&["--pip", "legacy-thing>0"], &[]),
        (&["--pip", "numpy", "--pip", "catboost<1.1"], &["churn"]),
        (&["--pip", "torch", "--pip", "catboost"], &[]),
        (&["--pip", "nothing-like-it"], &[]),
        (&["--os", "vim"], &["fraud", "fraud-gpu"]),
        (&["--os", "vim=9.0"], &["fraud"]),
        (&["--os", "vim=2:9.0.1378-2"], &["fraud"]),
        (&["--os", "vim=9.0.1"], &[]),
        (&["--python", "3.12"], &["churn"]),
        (&["--python", "3.11.2", "--pip", "catboost"], &["churn"]),
        (&["--python", ">=3.12"], &["churn"]),
        (&["--python", "3.1"], &[]),
        (&["--base", "nlp"], &["churn"]),
        (&["--base", "debian bookworm", "--name", "t*"], &["text"]),
        (
            &["--base", "registry.example.com/python:3.12-slim"],
            &["on-image"],
        ),
        (&["--platform", "linux/arm64"], &["churn"]),
        (&["--name", "fraud"], &["fraud"]),
        (&["--name", "fraud*"], &["fraud", "fraud-gpu"]),
        (&["--name", "*-[gi]*"], &["fraud-gpu", "on-image"]),
        (&["--status", "OUTDATED"], &[]),
        (
            &[
                "--name",
                "churn",
                "--platform",
                "linux/amd64",
                "--os",
                "vim",
            ],
            &[],
        ),
    ];
    for (filters, expected) in cases {
        let first = ["find", "--no-sync", "--json", "--registry", &place];
        let ran = lab.run(&[first.as_slice(), filters].concat());
        assert_eq!(names(&ran), *expected, "{filters:?}");
    }
    let told = lab.run(&[
        "find",
        "--registry",
        &place,
        "--pip",
        "catboost",
        "--os",
        "libc6",
    ]);
    assert_eq!((told.code, told.out.as_str()), (Some(0), ""));
    let told = lab.run(&[
        "find",
        "--registry",
        &place,
        "--pip",
        "catboost",
        "--python",
        "3.12",
    ]);
    let digest = team()[2].digest;
    told.expect(
        0,
        &[
            "churn",
            "linux/amd64",
            "3.12.4",
            "catboost 1.0.3",
            &format!("{place}@{digest}"),
        ],
    );
}

#[test]
fn what_is_no_filter_is_a_mistake_with_advice() {
    let lab = Lab::new();
    for (filter, words) in [
        (
            ["--pip", "catboost 1.0.3"],
            ["no operator", "catboost==1.0.3"],
        ),
        (
            ["--pip", "catboost=1.0.3"],
            ["not a PEP 440 operator", "catboost==1.0.3"],
        ),
        (
            ["--pip", "catboost==="],
            ["not a PEP 440 specifier", "help: "],
        ),
        (["--pip", ">=1"], ["name", "numpy"]),
        (
            ["--pip", "numpy[extra]"],
            ["more than a name", "leave them out"],
        ),
        (["--pip", "numpy\n"], ["filter", "control characters"]),
        (["--os", "vim 9.0"], ["not an OS package", "vim=9.0"]),
        (["--os", "vim=="], ["not an OS package", "vim=9.0"]),
        (["--python", "three"], ["not a version of Python", "3.11"]),
        (["--name", "a b"], ["pattern", "fraud-*"]),
        (
            ["--status", "READY,GREAT"],
            ["`GREAT` is not a status", "OUTDATED"],
        ),
        (["--page-size", "0"], ["0", "1..=1000"]),
        (["--page-size", "1001"], ["1001", "1..=1000"]),
        (["--page-token", "Zm9v"], ["page token", "--page-token"]),
        (["--platform", "windows"], ["windows", "linux/amd64"]),
    ] {
        lab.run(&["find", "--local", filter[0], filter[1]])
            .expect(2, &words);
    }
}

/// Every page of an answer; `between` is called after each.
fn pages(
    lab: &Lab,
    server: &Server,
    filters: &[&str],
    mut between: impl FnMut(usize),
) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut token = None;
    for page in 0.. {
        let mut arguments = [&["--page-size", "3"], filters].concat();
        arguments.extend(
            token
                .iter()
                .flat_map(|token: &String| ["--page-token", token]),
        );
        let document = printed(&find(lab, server, &arguments));
        let images = document["images"].as_array().unwrap();
        assert!(images.len() == 3 || document["next_page_token"].is_null());
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        all.extend(
            images
                .iter()
                .map(|image| (text(&image["name"]), text(&image["digest"]))),
        );
        token = document["next_page_token"].as_str().map(Into::into);
        if token.is_none() {
            break;
        }
        between(page);
    }
    all
}

#[test]
fn pages_hold_everything_once_while_others_push() {
    let (server, lab) = (server(), Lab::new());
    let first: Vec<Record> = (0..20)
        .map(|at| record(&format!("image-{:02}", at * 2), at, &["numpy==1.0"]))
        .collect();
    put(&server, &first);
    let all: Vec<(String, String)> = first
        .iter()
        .map(|record| (record.name.clone(), record.digest.to_string()))
        .collect();
    assert_eq!(pages(&lab, &server, &["--pip", "numpy"], |_| {}), all);
    // New names before and behind the position, and new images of names that were shown and that were not.
    let found = pages(&lab, &server, &["--pip", "numpy"], |page| {
        let second = 100 + page as i64;
        let names = [
            "aaa".to_owned(),
            format!("image-{:02}", page * 4 + 1),
            "zzz".into(),
        ];
        let again = [
            "image-00".to_owned(),
            "image-38".into(),
            format!("image-{:02}", 36 - page * 4),
        ];
        let news = names.iter().chain(&again);
        let news: Vec<Record> = news
            .map(|name| record(name, second, &["numpy==2.0"]))
            .collect();
        put(&server, &news);
    });
    assert_eq!(found, all, "the answer is that of its first page");
    let after = printed(&find(&lab, &server, &["--all"]));
    let names: BTreeSet<&str> = after["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["name"].as_str().unwrap())
        .collect();
    assert!(names.contains("aaa") && names.contains("zzz") && names.len() > 22);
    assert_eq!(after["next_page_token"], serde_json::Value::Null);
}

#[test]
fn a_token_belongs_to_its_question() {
    let (server, lab) = (server(), Lab::new());
    let records: Vec<Record> = (0..5)
        .map(|at| record(&format!("image-{at}"), at, &["numpy==1.0"]))
        .collect();
    put(&server, &records);
    let page = printed(&find(
        &lab,
        &server,
        &["--pip", "numpy", "--page-size", "2"],
    ));
    let token = page["next_page_token"].as_str().unwrap().to_owned();
    let with = |filters: &[&str], token: &str| {
        find(&lab, &server, &[filters, &["--page-token", token]].concat())
    };
    assert_eq!(
        names(&with(&["--pip", "NumPy", "--page-size", "1"], &token)),
        ["image-2"]
    );
    assert_eq!(
        names(&with(&["--pip", "numpy", "--all"], &token)),
        ["image-2", "image-3", "image-4"]
    );
    let wrong = |ran: Ran| ran.expect(2, &["page token"]);
    wrong(with(&["--pip", "numpy>1"], &token));
    wrong(with(&[], &token));
    wrong(with(&["--pip", "numpy", "--status", "OUTDATED"], &token));
    wrong(lab.run(&["find", "--local", "--pip", "numpy", "--page-token", &token]));
    for at in [0, 5, token.len() / 2, token.len() - 1] {
        let mut mangled = token.clone().into_bytes();
        mangled[at] = if mangled[at] == b'A' { b'B' } else { b'A' };
        wrong(with(
            &["--pip", "numpy"],
            &String::from_utf8(mangled).unwrap(),
        ));
    }
    wrong(with(&["--pip", "numpy"], &token[..token.len() - 3]));
    wrong(with(&["--pip", "numpy"], "é"));
    wrong(with(&["--pip", "numpy"], &"A".repeat(5000)));
    // Another machine, or an index that was made anew: the order still holds.
    let elsewhere = Lab::new();
    let ran = find(
        &elsewhere,
        &server,
        &["--pip", "numpy", "--page-token", &token],
    );
    assert_eq!(names(&ran), ["image-2", "image-3", "image-4"]);
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
    show("parant").expect(8, &["there is no", "parant", "did you mean `parent`?"]);
    show(&Digest::of("unknown").to_string()).expect(8, &["there is no"]);

    remove(&server, lab::PREFIX, &parent.digest);
    let ran = lab.run(&["show", "parent", "--json", "--registry", &place]);
    assert_eq!(
        (ran.code, printed(&ran)["records"][0]["status"].as_str()),
        (Some(8), Some("GONE"))
    );
    drop(server);
    let ran = lab.run(&["show", "parent", "--registry", &place]);
    ran.expect(0, &["READY", "warning: ", "not known"]);
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

    lab.run(&["push"]).expect(0, &["one", "two"]);
    let ran = lab.run(&["find", "--pip", "beta==2.0", "--pip", "delta"]);
    ran.expect(
        0,
        &["two", "beta 2.0, delta 0.1", "READY", server.address()],
    );
    assert_eq!(
        names(&lab.run(&["find", "--json", "--python", "3"])),
        ["one", "two"]
    );
    lab.run(&["show", "two", "--registry", &place(&server)])
        .expect(0, &["READY", "gamma"]);
}
