//! A user with no privileges where user namespaces are denied, as in many CI jobs.

use std::fs;
use std::os::unix::fs::chown;

use crate::bases::{python_base, run};
use crate::support::{PROGRAM, RELEASES, Ran, TestContext, index, manifest};

/// Somebody without a home, without groups, without namespaces.
fn denied(context: &TestContext, arguments: &[&str]) -> Ran {
    // A limit that holds in the namespace that unshare(1) makes, and nowhere else.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --reuid 1000 --regid 1000 --clear-groups \"$@\"";
    let program = context.folder().join("imagewright").display().to_string();
    let words = [
        "--user",
        "--map-users",
        "0,0,65536",
        "--map-groups",
        "0,0,65536",
        "--setuid",
        "0",
        "--setgid",
        "0",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        &program,
    ];
    Ran::of(context.command_of("unshare", words.iter().chain(arguments)))
}

fn open(context: &TestContext) {
    fs::copy(PROGRAM, context.folder().join("imagewright")).unwrap();
    let all = walkdir::WalkDir::new(context.folder());
    for entry in all.into_iter().flatten() {
        let _ = chown(entry.path(), Some(1000), Some(1000));
    }
}

#[test]
fn a_from_base_is_locked_built_and_exported() {
    let server = index(&RELEASES);
    let context = TestContext::of(&manifest(
        &server,
        "image \"a\" base=\"own\" { pip \"alpha\"; }\nrun \"r\" image=\"a\" { command \"true\"; }\n",
    ));
    run(
        "cp",
        [
            "--recursive",
            python_base().to_str().unwrap(),
            context.path("base").to_str().unwrap(),
        ],
    );
    open(&context);
    for arguments in [&["lock"][..], &["build"], &["export", "a", "--oci", "out"]] {
        denied(&context, arguments).success();
    }
    let digest = run(
        "skopeo",
        [
            "inspect",
            "--format",
            "{{.Digest}}",
            &format!("oci:{}:a", context.path("out").display()),
        ],
    );
    let ran = denied(&context, &["test"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("user namespaces"), "{ran:?}");
    assert_eq!(context.digest("a"), digest.trim());
}

#[test]
fn a_debian_base_names_what_is_missing() {
    let context = TestContext::of("image \"a\" base=\"minimal\"\n");
    open(&context);
    denied(&context, &["lock"]).success();
    let ran = denied(&context, &["build"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    for wanted in ["user namespaces", "max_user_namespaces", "help:"] {
        assert!(ran.stderr.contains(wanted), "{wanted}: {}", ran.stderr);
    }
    assert!(
        !ran.stderr.contains("fetching"),
        "told before anything is downloaded: {ran:?}"
    );
}
