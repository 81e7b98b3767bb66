//! The command line: help, exit codes, names that nothing has, manifests that are none.

use std::fs;

use crate::support::{PROGRAM, Ran, TestContext};

/// The commands that the help lists, in its order.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = lines.take_while(|line| !line.is_empty());
    // What a command does can take more lines, which are indented further.
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|name| !name.is_empty())
        .map(Into::into)
        .collect()
}

#[test]
fn help_of_every_command() {
    let mut context = TestContext::new();
    // The help shows the value, and breaks lines after it.
    context.variables = vec![("IMAGEWRIGHT_STORE".into(), "/store".into())];
    let mut commands = commands(&context.ok(&["--help"]));
    assert!(commands.len() > 20, "{commands:?}");
    // Its own help adds nothing; the program's comes last.
    commands.retain(|command| command != "help");
    commands.push(String::new());
    let mut all = String::new();
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = context.ok(&arguments);
        all += &format!("$ imagewright {}\n{help}\n", arguments.join(" "));
    }
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!("help", all);
    });
    assert_eq!(
        context.ok(&["--version"]),
        format!("imagewright {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_command_lines_end_with_two() {
    let context = TestContext::of("image \"a\" base=\"minimal\"\n");
    let cases: [(&[&str], &str); 12] = [
        (&[], "Usage"),
        (&["biuld"], "build"),
        (&["build", "--lockd"], "--locked"),
        (&["exec", "a"], "COMMAND"),
        (&["export", "a"], "--oci"),
        (
            &["export", "a", "--oci", "x", "--oci-archive", "y"],
            "cannot be used with",
        ),
        (&["load", "a", "--into", "lxc"], "podman"),
        (&["logs"], "ID"),
        (&["results"], "IDS"),
        (&["jobs", "--status", "done"], "succeeded"),
        (&["build", "--jobs", "many"], "--jobs"),
        (&["completions", "cmd"], "bash"),
    ];
    for (arguments, wanted) in cases {
        let told = context.fails(2, arguments);
        assert!(told.contains(wanted), "{arguments:?}: {told}");
    }
    assert!(context.ok(&["completions", "bash"]).contains("imagewright"));
}

#[test]
fn a_variable_that_is_empty_is_not_set() {
    let mut context = TestContext::of("image \"a\" base=\"minimal\"\n");
    for name in ["IMAGEWRIGHT_STORE", "IMAGEWRIGHT_SIGNING_KEY"] {
        context.variables.push((name.into(), String::new()));
    }
    context.ok(&["find", "--local"]);
    let store = context.folder().join("home/.cache/imagewright");
    assert!(store.is_dir());
    let told = context.fails(2, &["sign", "a"]);
    assert!(told.contains("nothing says which key signs"), "{told}");
    let told = context.fails(2, &["push", "a"]);
    assert!(told.contains("nothing says where to push to"), "{told}");
    // One that is said is meant.
    let told = context.fails(2, &["find", "--local", "--store", ""]);
    assert!(told.contains("--store"), "{told}");
}

#[test]
fn a_place_has_neither_tag_nor_digest() {
    let context = TestContext::of("image \"a\" base=\"minimal\"\n");
    let digest = format!("sha256:{}", "5".repeat(64));
    for place in [
        "registry.example.com/ml:v1".to_owned(),
        format!("registry.example.com/ml@{digest}"),
        format!("registry.example.com/ml:v1@{digest}"),
    ] {
        for arguments in [
            ["push", "--to", &place],
            ["sign", "--to", &place],
            ["find", "--registry", &place],
        ] {
            let mut command = context.command(arguments);
            command.env("IMAGEWRIGHT_SIGNING_KEY", "");
            if arguments[0] == "sign" {
                context.run(&["sign", "--new", "../key"]);
                command.args(["--key", "../key"]);
            }
            let ran = Ran::of(command);
            assert_eq!(ran.code, Some(2), "{ran:?}");
            for word in [
                place.as_str(),
                "HOST/PATH without tag or digest",
                "write `registry.example.com/ml`",
            ] {
                assert!(ran.stderr.contains(word), "{word}: {ran:?}");
            }
        }
    }
    for short in ["ml", "registry"] {
        let told = context.fails(2, &["find", "--registry", short]);
        assert!(
            told.contains("is not a registry's host and a path")
                && told.contains("write HOST/PATH")
                && !told.contains("python"),
            "{told}"
        );
    }
}

#[test]
fn unknown_names_end_with_eight_and_a_suggestion() {
    let context = TestContext::of(
        "image \"credit-model\" base=\"minimal\"\nrun \"stress\" image=\"credit-model\" { command \"true\"; }\n",
    );
    let cases: [(&[&str], &str); 9] = [
        (&["build", "credit-modle"], "did you mean `credit-model`?"),
        (&["build", "nothing-like-it"], "there are: credit-model"),
        (&["test", "strss"], "did you mean `stress`?"),
        (&["show", "credit-modl"], "did you mean `credit-model`?"),
        (
            &["export", "credit-modl", "--oci", "x"],
            "did you mean `credit-model`?",
        ),
        (
            &["exec", "credit-modl", "--", "true"],
            "did you mean `credit-model`?",
        ),
        (&["logs", "j1"], "there is no job `j1`"),
        (&["results", "j1"], "there is no job `j1`"),
        (&["show", "credit-model"], "imagewright lock"),
    ];
    for (arguments, wanted) in cases {
        let told = context.fails(8, arguments);
        assert!(told.contains(wanted), "{arguments:?}: {told}");
    }
    assert!(!context.path("imagewright.lock").exists());
    let told = context.fails(8, &["--project", "/no/such/folder", "check"]);
    assert!(
        told.contains("/no/such/folder") && told.contains("imagewright init"),
        "{told}"
    );
}

#[test]
fn manifests_that_are_none_are_refused() {
    let context = TestContext::new();
    let check = |wanted: &str| {
        for command in ["check", "lock", "build", "test"] {
            let told = context.fails(2, &[command]);
            assert!(told.contains(wanted), "{wanted}: {told}");
            assert!(!context.path("imagewright.lock").exists());
        }
    };
    fs::create_dir(context.path("imagewright.kdl")).unwrap();
    check("is not a file");
    fs::remove_dir(context.path("imagewright.kdl")).unwrap();
    context.write("imagewright.kdl", b"\x7fELF\x02\x01\x01\x00\xff\xfe");
    check("not UTF-8");
    context.write("imagewright.kdl", b"// \n".repeat(12_500_000));
    check("50 MB");
    context.write("imagewright.kdl", "image \"a\" {");
    check("imagewright.kdl:1");
    context.write(
        "imagewright.kdl",
        "imgae \"a\"\nimage \"B\"\nimage \"a\" base=\"tabluar\"\n",
    );
    let told = context.fails(2, &["check"]);
    for wanted in ["did you mean", "`tabular`", "3 mistakes"] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    context.write("imagewright.kdl", "");
    let told = context.fails(2, &["check"]);
    assert!(told.contains("declares no image"), "{told}");
}

#[test]
fn init_makes_an_example_once() {
    let context = TestContext::new();
    assert!(context.ok(&["init"]).contains("imagewright test"));
    assert!(context.ok(&["check"]).contains("1 image, 1 run\n"));
    let text = context.read("imagewright.kdl");
    context.write("imagewright.kdl", text.clone() + "// mine\n");
    assert!(context.fails(2, &["init"]).contains("there already"));
    assert_eq!(context.read("imagewright.kdl"), text + "// mine\n");
}

#[test]
fn results_go_to_stdout_and_a_reader_may_leave() {
    let context = TestContext::of("image \"a\" base=\"minimal\"\n");
    let ran = context.run(&["check"]).success();
    assert_eq!(ran.stderr, "");
    assert!(
        ran.stdout.starts_with("./imagewright.kdl is right")
            || ran.stdout.starts_with("imagewright.kdl is right"),
        "{ran:?}"
    );
    let script = format!("{PROGRAM} schema results | head -c 1; exit ${{PIPESTATUS[0]}}");
    let ran = crate::support::Ran::of(context.command_of("bash", ["-c", &script]));
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let context = TestContext::of("image \"a\" base=\"minimal\"\n");
    fs::create_dir_all(context.store.join("store-v1")).unwrap();
    fs::write(context.store.join("store-v1/format"), "2").unwrap();
    for arguments in [&["lock"][..], &["build"], &["jobs"]] {
        let told = context.fails(7, arguments);
        assert!(told.contains("format 2"), "{told}");
    }
    let inside: Vec<_> = fs::read_dir(context.store.join("store-v1"))
        .unwrap()
        .collect();
    assert_eq!(inside.len(), 1);
}
