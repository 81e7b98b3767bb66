//! One lock, one image: whoever builds it, wherever, whenever, and in whatever environment.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use imagewright::digest::Digest;

use crate::bases::{python_base, run};
use crate::support::{PROGRAM, Ran, TestContext, index, manifest};
use crate::wheels::{noise, wheel};

/// How a build differs from the others.
#[derive(Default)]
struct Variation {
    umask: Option<&'static str>,
    variables: Vec<(&'static str, String)>,
    jobs: Option<&'static str>,
    /// Starts in another folder and names the project.
    elsewhere: bool,
    /// Name of the store's folder.
    store: &'static str,
    uid: Option<u32>,
}

/// A project that anybody may read, locked, and the program where anybody may execute it.
struct Locked {
    context: TestContext,
    program: PathBuf,
}

impl Locked {
    fn new() -> Self {
        let server = index(&[]);
        let module = "def main():\n    print('hello')\n"
            .repeat(4000)
            .into_bytes();
        let scripts = b"[console_scripts]\nhello = tools.cli:main\n".to_vec();
        let script = b"#!python\nprint('script')\n".to_vec();
        let tools = wheel(
            "tools",
            "1.0",
            &["large>=1"],
            &[
                ("tools/cli.py", module),
                ("tools-1.0.dist-info/entry_points.txt", scripts),
                ("tools-1.0.data/scripts/say", script),
                ("tools-1.0.data/data/share/tools/note.txt", b"note".to_vec()),
            ],
        );
        let large = wheel(
            "large",
            "2.0",
            &[],
            &[("large/weights.bin", noise(1_500_000, 3))],
        );
        for (name, file) in [("tools", tools), ("large", large)] {
            server.project(name, &[file]);
        }
        let image = "image \"pure\" base=\"own\" {\n    pip \"tools\"\n    file \"src/\" to=\"/app\"\n    env \"A\" \"b\"\n    label \"x\" \"y\"\n}\n";
        let context = TestContext::of(&manifest(&server, image));
        context.write("src/main.py", "print('main')\n");
        context.write("src/ünïcode.txt", "ü\n");
        context.write("src/run.sh", "#!/bin/sh\n");
        fs::set_permissions(
            context.path("src/run.sh"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        run(
            "cp",
            [
                "--recursive",
                python_base().to_str().unwrap(),
                context.path("base").to_str().unwrap(),
            ],
        );
        context.ok(&["build"]);
        let program = context.folder().join("imagewright");
        fs::copy(PROGRAM, &program).unwrap();
        run(
            "chmod",
            ["--recursive", "a+rX", context.folder().to_str().unwrap()],
        );
        Self { context, program }
    }

    /// Builds in a new store; the image's digest and that of the exported archive.
    fn build(&self, variation: &Variation) -> (String, Digest) {
        let folder = self
            .context
            .folder()
            .join(format!("{} for this", variation.store));
        let out = folder.join("out");
        fs::create_dir_all(&out).unwrap();
        let project = self.context.project();
        let (archive, place) = (
            out.join("image.tar"),
            if variation.elsewhere { &out } else { &project },
        );
        if let Some(uid) = variation.uid {
            for path in [&folder, &out] {
                chown(path, Some(uid), Some(uid)).unwrap();
            }
        }
        let mut words: Vec<String> = Vec::new();
        if let Some(uid) = variation.uid.map(|uid| uid.to_string()) {
            words.extend(
                [
                    "setpriv",
                    "--reuid",
                    &uid,
                    "--regid",
                    &uid,
                    "--clear-groups",
                    "env",
                ]
                .map(String::from),
            );
            words.push(format!("HOME={}", out.display()));
        } else {
            words.push("env".into());
        }
        words.extend(
            variation
                .variables
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        let umask = variation.umask.unwrap_or("022");
        let script = format!("umask {umask} && exec \"$@\"");
        let mut arguments = vec!["-c".to_owned(), script, "sh".into()];
        arguments.extend(words);
        arguments.extend([
            self.program.display().to_string(),
            "--store".into(),
            folder.join("störe").display().to_string(),
        ]);
        arguments.extend([
            "--project".into(),
            if variation.elsewhere {
                project.display().to_string()
            } else {
                ".".into()
            },
        ]);
        arguments.extend(
            variation
                .jobs
                .iter()
                .flat_map(|jobs| ["--jobs".to_owned(), (*jobs).to_owned()]),
        );
        arguments
            .extend(["export", "pure", "--locked", "--json", "--oci-archive"].map(String::from));
        arguments.push(archive.display().to_string());
        let mut command = self.context.command_of("sh", &arguments);
        command.current_dir(place);
        let ran = Ran::of(command).success();
        let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let bytes = fs::read(&archive).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        (
            document["digest"].as_str().unwrap().to_owned(),
            Digest::of(bytes),
        )
    }
}

/// libfaketime, which makes a process believe another clock.
fn faketime() -> String {
    let found = run("sh", ["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]);
    found.lines().next().unwrap().to_owned()
}

#[test]
fn nothing_but_the_lock_decides_the_bytes() {
    let locked = Locked::new();
    let lock = locked.context.lock_text();
    let first = locked.build(&Variation {
        store: "first",
        ..Variation::default()
    });
    assert_eq!(first.0, locked.context.digest("pure"));
    let variables = |time: &str, others: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        let clock = [
            ("LD_PRELOAD", faketime()),
            ("FAKETIME", time.to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
        let others = others
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        clock.into_iter().chain(others).collect()
    };
    // Each differs from the first in everything that it names: one build for all of that.
    let variations = [
        Variation {
            store: "later, closed, elsewhere, one at a time",
            umask: Some("077"),
            variables: variables(
                "@2039-05-06 07:08:09",
                &[("TZ", "Pacific/Kiritimati"), ("SOURCE_DATE_EPOCH", "12345")],
            ),
            elsewhere: true,
            jobs: Some("1"),
            ..Variation::default()
        },
        Variation {
            store: "earlier, open, turkish, eight at a time",
            umask: Some("000"),
            variables: variables("@1985-01-01 00:00:00", &[("LC_ALL", "tr_TR.UTF-8")]),
            jobs: Some("8"),
            ..Variation::default()
        },
        Variation {
            store: "somebody without a language",
            umask: Some("027"),
            variables: vec![("LC_ALL", "C".into())],
            uid: Some(1000),
            ..Variation::default()
        },
    ];
    for variation in &variations {
        assert_eq!(locked.build(variation), first, "{}", variation.store);
    }
    assert_eq!(locked.context.lock_text(), lock);
}

#[test]
fn another_clock_is_believed() {
    let mut command = std::process::Command::new("date");
    command
        .arg("+%Y")
        .env("LD_PRELOAD", faketime())
        .env("FAKETIME", "@2039-05-06 07:08:09");
    assert_eq!(
        Ran::of(command).success().stdout,
        "2039\n",
        "else the test above says nothing about clocks"
    );
    assert!(Path::new(&faketime()).is_file());
}
