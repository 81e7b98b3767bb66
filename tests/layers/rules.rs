//! The install rules, on hand-made wheels: where files go, with which modes, and what is made beside them.

use crate::support::{DEMO, Demo, Fixture, Node, SITE, Tree};
use crate::zipper::{Zipped, zip_with};

fn file(tree: &Tree, path: &str) -> (u32, String) {
    match tree.get(path) {
        Some(Node::File { mode, content }) => {
            (*mode, String::from_utf8_lossy(content).into_owned())
        }
        other => panic!("{path}: {other:?}"),
    }
}

fn installed(demo: &Demo) -> Tree {
    let fixture = Fixture::new();
    let layer = fixture.build_bytes(DEMO, &demo.bytes()).unwrap();
    fixture.tree(&[layer])
}

#[test]
fn data_folders_are_spread() {
    let data = |path: &str| format!("demo-1.0.data/{path}");
    let demo = Demo::new()
        .with(Zipped::stored(data("purelib/pure.py"), b"p"))
        .with(Zipped::stored(data("platlib/plat.so"), b"q").mode(0o100_755))
        .with(Zipped::stored(data("headers/demo.h"), b"h"))
        .with(Zipped::stored(data("data/share/demo/x.txt"), b"x"))
        .with(Zipped::stored(data("data/lib64/y.txt"), b"y"))
        .with(Zipped::deflated(
            data("scripts/tool"),
            b"#!python -u\nprint(1)\n",
        ))
        .with(Zipped::deflated(data("scripts/tool.sh"), b"#!/bin/sh\n:\n"))
        .with(Zipped::stored(data("scripts/binary"), b"\x7fELF"));
    let tree = installed(&demo);
    assert_eq!(file(&tree, &format!("{SITE}/pure.py")), (0o644, "p".into()));
    assert_eq!(file(&tree, &format!("{SITE}/plat.so")), (0o755, "q".into()));
    assert_eq!(
        file(&tree, "opt/venv/include/site/python3.11/demo/demo.h").1,
        "h"
    );
    assert_eq!(
        file(&tree, "opt/venv/share/demo/x.txt"),
        (0o644, "x".into())
    );
    assert_eq!(file(&tree, "opt/venv/lib/y.txt").1, "y");
    assert_eq!(
        file(&tree, "opt/venv/bin/tool"),
        (0o755, "#!/opt/venv/bin/python\nprint(1)\n".into())
    );
    assert_eq!(
        file(&tree, "opt/venv/bin/tool.sh"),
        (0o755, "#!/bin/sh\n:\n".into())
    );
    assert_eq!(file(&tree, "opt/venv/bin/binary").0, 0o755);
    assert!(!tree.keys().any(|path| path.contains("demo-1.0.data")));
    let record = file(&tree, &format!("{SITE}/demo-1.0.dist-info/RECORD")).1;
    for path in [
        "../../../bin/tool,sha256=",
        "../../../share/demo/x.txt,",
        "../../../include/site/python3.11/demo/demo.h,",
        "pure.py,",
    ] {
        assert!(
            record.lines().any(|line| line.starts_with(path)),
            "{path}: {record}"
        );
    }
    let mut sorted: Vec<&str> = record.lines().collect();
    sorted.sort_by_key(|line| line.split(',').next());
    assert_eq!(sorted, record.lines().collect::<Vec<_>>());
}

#[test]
fn entry_points_become_launchers_that_run() {
    let entry_points = b"[console_scripts]\ndemo = demo:main\ndemo-sub = demo:Tool.run [extra]\n[gui_scripts]\ndemo-gui = demo:main\n";
    let code = b"import sys\ndef main():\n    print('ran', sys.argv)\n    return 3\nclass Tool:\n    @staticmethod\n    def run():\n        return 4\n";
    let demo = Demo::new()
        .without("demo/__init__.py")
        .with(Zipped::deflated("demo/__init__.py", code))
        .with(Zipped::deflated(
            "demo-1.0.dist-info/entry_points.txt",
            entry_points,
        ))
        .with(Zipped::stored(
            "demo-1.0.data/scripts/demo",
            b"#!python\nold wrapper",
        ));
    let tree = installed(&demo);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("demo")).unwrap();
    std::fs::write(folder.path().join("demo/__init__.py"), code).unwrap();
    for (name, expected) in [("demo", 3), ("demo-gui", 3), ("demo-sub", 4)] {
        let (mode, text) = file(&tree, &format!("opt/venv/bin/{name}"));
        assert_eq!(mode, 0o755);
        assert!(text.starts_with("#!/opt/venv/bin/python\n"), "{text}");
        let script = folder.path().join(format!("{name}.exe"));
        std::fs::write(&script, text).unwrap();
        let output = std::process::Command::new("python3")
            .arg(&script)
            .arg("a b")
            .env("PYTHONPATH", folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(expected), "{output:?}");
        if expected == 3 {
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                printed.contains(&format!("{name}'")) && !printed.contains(".exe"),
                "{printed}"
            );
        }
    }
}

#[test]
fn nothing_tells_who_asked() {
    let mut demo = Demo::new();
    for name in ["REQUESTED", "direct_url.json", "INSTALLER"] {
        demo = demo.with(Zipped::stored(format!("demo-1.0.dist-info/{name}"), b"pip"));
    }
    demo = demo.with(Zipped::stored(
        "demo-1.0.dist-info/licenses/LICENSE",
        b"mine",
    ));
    demo = demo.with(Zipped::stored(
        "demo-1.0.dist-info/sboms/demo.cdx.json",
        b"{}",
    ));
    let tree = installed(&demo);
    let dist_info = |name: &str| format!("{SITE}/demo-1.0.dist-info/{name}");
    assert_eq!(
        file(&tree, &dist_info("INSTALLER")),
        (0o644, "imagewright\n".into())
    );
    assert!(
        !tree.contains_key(&dist_info("REQUESTED"))
            && !tree.contains_key(&dist_info("direct_url.json"))
    );
    assert_eq!(file(&tree, &dist_info("licenses/LICENSE")).1, "mine");
    assert_eq!(file(&tree, &dist_info("sboms/demo.cdx.json")).1, "{}");
}

#[test]
fn odd_but_lawful_archives_are_read() {
    let odd = Demo::new()
        .with(Zipped::folder("demo/empty folder/"))
        .with(Zipped::stored("./demo/dotted.py", b"d"))
        .with(Zipped::stored("demo/ünï, \"quoted\".txt", b"u"))
        .with(Zipped::stored("demo/nothing", b""))
        .with(Zipped::deflated("demo/nothing.z", b""))
        .with(Zipped::deflated("demo/late.py", b"late").with_descriptor())
        .with(Zipped::deflated("demo/wide.py", b"wide").zip64())
        .with(
            Zipped::stored("demo/both.py", b"both")
                .zip64()
                .with_descriptor(),
        );
    let mut legacy = Zipped::stored(b"demo/caf\x82.txt", b"c");
    legacy.flags = 0;
    let record = odd.right_record().replace("./demo/dotted", "demo/dotted")
        + &format!(
            "demo/café.txt,{},1\n",
            imagewright::layer::wheel::RecordHash::of(b"c")
        );
    let odd = odd.with(legacy).record(&record);
    let bytes = zip_with(b"#!/bin/sh\nexit 1\n", &odd.all(), b"a comment");
    let fixture = Fixture::new();
    let layer = fixture.build_bytes(DEMO, &bytes).unwrap();
    let tree = fixture.tree(&[layer]);
    for (path, content) in [
        ("dotted.py", "d"),
        ("ünï, \"quoted\".txt", "u"),
        ("nothing", ""),
        ("nothing.z", ""),
        ("late.py", "late"),
        ("wide.py", "wide"),
        ("both.py", "both"),
        ("café.txt", "c"),
    ] {
        assert_eq!(file(&tree, &format!("{SITE}/demo/{path}")).1, content);
    }
    assert_eq!(tree[&format!("{SITE}/demo/empty folder")], Node::Folder);
}

#[test]
fn of_two_wheels_the_later_name_wins_whatever_the_layers_are() {
    let fixture = Fixture::new();
    let wheel = |name: &str, content: &[u8], filler: usize| {
        let mut demo = Demo::new();
        for entry in &mut demo.entries {
            let path = String::from_utf8(entry.name.clone())
                .unwrap()
                .replace("demo-1.0", &format!("{name}-1.0"));
            *entry = if path.ends_with("METADATA") {
                Zipped::stored(path, format!("Name: {name}\nVersion: 1.0\n").as_bytes())
            } else {
                Zipped {
                    name: path.into_bytes(),
                    ..entry.clone()
                }
            };
        }
        demo = demo
            .without("demo/__init__.py")
            .with(Zipped::stored("shared/clash.txt", content))
            .with(Zipped::stored("shared/same.txt", b"same"))
            .with(Zipped::stored(
                format!("{name}.bin"),
                &crate::support::noise(filler, 1),
            ));
        let record = demo
            .right_record()
            .replace("demo-1.0", &format!("{name}-1.0"));
        let mut entries = demo.entries;
        entries.push(Zipped::stored(
            format!("{name}-1.0.dist-info/RECORD"),
            record.as_bytes(),
        ));
        fixture.add_bytes(
            &format!("{name}-1.0-py3-none-any.whl"),
            &crate::zipper::zip(&entries),
        )
    };
    // `zeta` is large: a layer of its own, below the bucket of `alpha`.
    let pins = [
        wheel("zeta", b"of zeta", 1_200_000),
        wheel("alpha", b"of alpha", 10),
    ];
    let plan = fixture.plan(&pins).unwrap();
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(
        plan.warnings[0].contains("shared/clash.txt")
            && plan.warnings[0].ends_with("zeta-1.0-py3-none-any.whl: the latter wins")
    );
    assert_eq!(plan.layers.len(), 3);
    let layers = fixture.build(&pins, 2).unwrap();
    assert_eq!(
        file(&fixture.tree(&layers), &format!("{SITE}/shared/clash.txt")).1,
        "of zeta"
    );
    assert_eq!(
        file(
            &fixture.tree(&layers[2..]),
            &format!("{SITE}/shared/clash.txt")
        )
        .1,
        "of zeta"
    );
    assert_eq!(
        fixture
            .tree(&layers[2..])
            .values()
            .filter(|node| matches!(node, Node::File { .. }))
            .count(),
        1
    );
    // Both in buckets, or in an order that is right by itself: no layer is needed for it.
    let pins = [
        wheel("omega", b"of omega", 10),
        wheel("beta", b"of beta", 1_200_000),
    ];
    let plan = fixture.plan(&pins).unwrap();
    assert_eq!((plan.layers.len(), plan.warnings.len()), (2, 1));
    let layers = fixture.build(&pins, 2).unwrap();
    assert_eq!(
        file(&fixture.tree(&layers), &format!("{SITE}/shared/clash.txt")).1,
        "of omega"
    );
}

#[test]
fn a_file_where_another_wheel_has_a_folder_is_refused() {
    let fixture = Fixture::new();
    let one = Demo::new().with(Zipped::stored("clash/inner.py", b"1"));
    let mut entries = Demo::new().with(Zipped::stored("clash", b"2")).all();
    for entry in &mut entries {
        entry.name = String::from_utf8(entry.name.clone())
            .unwrap()
            .replace("demo-1.0", "other-1.0")
            .replace("demo/", "other/")
            .into_bytes();
        if entry.name.ends_with(b"METADATA") {
            *entry = Zipped::stored(&entry.name, b"Name: other\nVersion: 1.0\n");
        }
    }
    let pins = [
        fixture.add_bytes(DEMO, &one.bytes()),
        fixture.add_bytes("other-1.0-py3-none-any.whl", &crate::zipper::zip(&entries)),
    ];
    let error = fixture.plan(&pins).unwrap_err().to_string();
    assert!(
        error.contains("clash` is a file in other-1.0") && error.contains("folder in demo-1.0"),
        "{error}"
    );
}
