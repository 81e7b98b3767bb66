//! A user with no privileges where user namespaces are denied, as in many CI jobs.

use std::fs;
use std::os::unix::fs::chown;

use crate::bases::{python_base, run};
use crate::support::{PROGRAM, RELEASES, Ran, TestContext, index, manifest};

/// Calls the program as uid 1000, without capabilities, groups and a Docker socket, where nobody may make a user
/// namespace: the limit holds in the namespace that unshare(1) makes, and nowhere else.
fn denied(context: &TestContext, arguments: &[&str]) -> Ran {
    const USER: &str = "--reuid 1000 --regid 1000 --clear-groups unshare --user --map-user=1000 --map-group=1000 --keep-caps";
    const DENY: &str = "echo 0 > /proc/sys/user/max_user_namespaces && \
        exec setpriv --ambient-caps -all --inh-caps -all \"$@\"";
    let program = context.folder().join("imagewright").display().to_string();
    let words = USER.split(' ').chain(["sh", "-c", DENY, "sh", &program]);
    Ran::of(context.command_of("setpriv", words.chain(arguments.iter().copied())))
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
    assert!(
        ran.stderr.contains("cannot make a user namespace"),
        "{ran:?}"
    );
    assert_eq!(context.digest("a"), digest.trim());
}

#[test]
fn a_debian_base_names_what_is_missing() {
    let context = TestContext::of("image \"a\" base=\"minimal\"\n");
    open(&context);
    denied(&context, &["lock"]).success();
    let ran = denied(&context, &["build"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    for wanted in [
        "cannot make a user namespace",
        "help: run this build as root",
        "(`from`), which needs no privileges",
    ] {
        assert!(ran.stderr.contains(wanted), "{wanted}: {}", ran.stderr);
    }
    assert!(
        !ran.stderr.contains("fetching"),
        "told before anything is downloaded: {ran:?}"
    );
}
