//! `find`: what is found by which filters, and what is said of it.

use imagewright::catalog::{PackageRecord, Record};
use imagewright::manifest::Platform;

use crate::lab::{Options, Server};
use crate::project::Lab;
use crate::records::*;

fn server() -> Server {
    Server::docker_registry(Options::default())
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
        with(record("on-image", 6, &["Zope_Interface==6.0"]), &|record| {
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
    assert!(told.err.contains("no image satisfies this"), "{told:?}");
    let found = printed(&find(
        &lab,
        &server,
        &["--pip", "catboost", "--python", "3.12"],
    ));
    let (image, digest) = (&found["images"][0], team()[2].digest);
    assert_eq!(image["reference"], format!("{place}@{digest}"));
    assert_eq!(image["digest"], digest.to_string());
    assert_eq!(image["pushed"], "2023-11-14T22:13:23Z");
    let packages = serde_json::json!([{"kind": "pip", "name": "catboost", "version": "1.0.3"}]);
    assert_eq!(image["packages"], packages);
}

#[test]
fn tables_fit_a_terminal() {
    let (server, lab) = (server(), Lab::new());
    let team = team();
    put(&server, &team);
    let place = place(&server);
    let table = |filters: &[&str]| {
        let ran = lab.run(&[&["find", "--registry", &place], filters].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let wide = ran.out.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None);
        ran.out
    };
    let digest = |at: usize| team[at].digest.short();
    let head = "NAME   DIGEST        BASE     PYTHON  PLATFORM     STATUS  PUSHED";
    let expected = format!(
        "{head}\nfraud  {}  tabular  3.11.2  linux/amd64  READY   2023-11-14\n",
        digest(0)
    );
    assert_eq!(table(&["--name", "fraud"]), expected);
    let below = "    vim 2:9.0.1378-2\n";
    let expected = format!("{expected}{below}");
    assert_eq!(table(&["--name", "fraud", "--os", "vim=9.0"]), expected);
    let expected = format!(
        "{head}\nchurn  {}  nlp      3.12.4  linux/amd64  READY   2023-11-14\n    numpy 2.0.0rc1, \
         catboost 1.0.3\nchurn  {}  tabular  3.11.2  linux/arm64  READY   2023-11-14\n    numpy 1.26.4, \
         catboost 1.2\n",
        digest(2),
        digest(3)
    );
    assert_eq!(table(&["--pip", "numpy", "--pip", "catboost"]), expected);
    // Narrow names leave room for a column.
    let mut narrow = record("a", 9, &["x==1"]);
    narrow.base.name = "b".into();
    put(&server, &[narrow.clone()]);
    let expected = format!(
        "NAME  DIGEST        BASE  PYTHON  PLATFORM     STATUS  PUSHED      PACKAGES\na     {}  b     3.11.2  \
         linux/amd64  READY   2023-11-14  x 1\n",
        narrow.digest.short()
    );
    assert_eq!(table(&["--pip", "x"]), expected);
}

#[test]
fn what_strangers_write_cannot_spoil_a_table() {
    let (server, lab) = (server(), Lab::new());
    let mut large = record("large", 1, &[]);
    large.pip = (0..10_000)
        .map(|at| PackageRecord {
            name: format!("package-{at}"),
            version: "1.0".into(),
            requested: false,
            layer: None,
        })
        .collect();
    let wide = record(&"n".repeat(100), 2, &["numpy==1.0"]);
    let mut long = record("long", 3, &["numpy==1.0"]);
    long.base.name = "b".repeat(300);
    long.python = "3.11.2\u{4e16}".repeat(20);
    long.pip[0].version = "1".repeat(300);
    let mut wild = record("wild", 4, &["numpy==1.0"]);
    wild.pip[0].version = "1.0\u{2066}\n\u{1b}[2J".into();
    let mut hidden = record("hidden", 5, &["numpy==1.0"]);
    hidden.base.root = "a\u{2060}b".into();
    put(&server, &[large, wide, long, wild, hidden]);
    let place = place(&server);
    let ran = lab.run(&["find", "--registry", &place, "--pip", "numpy"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.err.matches("control characters").count(), 2, "{ran:?}");
    let hostile = |c: char| (c.is_control() && c != '\n') || "\u{2066}\u{2060}".contains(c);
    for text in [&ran.out, &ran.err] {
        assert!(!text.contains(hostile), "{text:?}");
    }
    let widest = ran.out.lines().map(|line| line.chars().count()).max();
    assert!(widest < Some(180), "{}", ran.out);
    let rows = ran.out.lines().filter(|line| line.contains("READY"));
    assert_eq!(rows.count(), 2, "{}", ran.out);
    let found = find(
        &lab,
        &server,
        &["--pip", "package-9999==1", "--pip", "Package_0"],
    );
    assert_eq!(names(&found), ["large"]);
    let shown = lab.run(&["show", "large", "--no-sync", "--registry", &place]);
    assert_eq!(shown.out.matches(" 1.0\n").count(), 10_000);
}

#[test]
fn nothing_found_is_told_apart_from_nothing_there() {
    let (server, lab) = (server(), Lab::new());
    let place = place(&server);
    let arguments = ["find", "--registry", &place];
    let none = format!("{place} has no records yet: nothing was pushed there");
    lab.run(&arguments)
        .expect(0, &[&none, "the path is another one"]);
    let ran = lab.run(&[&arguments[..], &["--json"]].concat());
    assert_eq!((names(&ran).len(), ran.err.as_str()), (0, ""));
    lab.run(&["find", "--registry", &place, "--no-sync"])
        .expect(0, &["nothing was read of", &place]);
    lab.run(&["show", "fraud", "--registry", &place])
        .expect(8, &[&none]);

    put(&server, &[record("fraud", 1, &["numpy==1.26.4"])]);
    let ran = lab.run(&[&arguments[..], &["--pip", "torch"]].concat());
    let ran = ran.expect(0, &["no image satisfies this", "read 1 new record\n"]);
    assert!(!ran.err.contains("no records yet"), "{ran:?}");
    put(&server, &[record("fraud-gpu", 2, &[])]);
    // That there is more is no progress.
    let more = lab.run(&[&arguments[..], &["-q", "--page-size", "1"]].concat());
    assert!(
        more.err.contains("there are more: --page-token "),
        "{more:?}"
    );
    assert!(!more.err.contains("new record"), "{more:?}");

    // Neither a project nor a flag says which registry.
    let own = "these are this store's own images";
    lab.write("imagewright.kdl", "image \"a\" base=\"minimal\"\n");
    lab.run(&["find"]).expect(
        0,
        &[own, "--registry HOST/PATH", "this store has no image yet"],
    );
    let ran = lab.run(&["find", "--local"]).expect(0, &[]);
    assert!(!ran.err.contains(own), "{ran:?}");
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
        (
            ["--pip", "six=>1,<2"],
            ["`=>` in `six=>1,<2` is not", "write `six>=1,<2`"],
        ),
        (["--pip", "six=!1"], ["`=!` in", "write `six!=1`"]),
        (["--pip", "six="], ["`=` in `six=`", "`six>=1.2,<2`"]),
        (["--pip", ">=1"], ["name", "numpy"]),
        (["--pip", ""], ["name of a Python package", "numpy"]),
        (["--os", ""], ["not an OS package", "vim=9.0"]),
        (["--python", ""], ["not a version of Python", "3.11"]),
        (["--base", ""], ["is empty", "debian bookworm"]),
        (["--base", " "], ["is empty", "debian bookworm"]),
        (["--name", ""], ["pattern", "fraud-*"]),
        (["--status", ""], ["is not a status", "READY, OUTDATED"]),
        (["--satisfies", ""], ["not a manifest", "`.:model`"]),
        (["--page-token", ""], ["page token", "--page-token"]),
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
            ["`GREAT` is not a status", "READY, OUTDATED"],
        ),
        (
            ["--status", "failed"],
            ["recorded when it is complete", "READY, OUTDATED"],
        ),
        (
            ["--satisfies", "fraud"],
            ["not a manifest and an image's name", "`.:model`"],
        ),
        (
            ["--satisfies", ":fraud"],
            ["not a manifest and an image's name", "`.:model`"],
        ),
        (["--page-size", "0"], ["0", "1..=1000"]),
        (["--page-size", "1001"], ["1001", "1..=1000"]),
        (["--page-token", "Zm9v"], ["page token", "--page-token"]),
        (["--platform", "windows"], ["windows", "linux/amd64"]),
    ] {
        lab.run(&["find", "--local", filter[0], filter[1]])
            .expect(2, &words);
    }
    // A word without a flag.
    for (word, advice) in [
        ("fraud", "--name fraud finds"),
        (
            "registry.example.com/ml",
            "--registry registry.example.com/ml finds",
        ),
        (
            "registry.example.com/ml:fraud",
            "`imagewright show registry.example.com/ml:fraud` shows",
        ),
    ] {
        lab.run(&["find", word]).expect(2, &[word, advice]);
    }
}
