//! Other users than root, and machines that deny user namespaces.
//!
//! Each test starts this test binary again as somebody else, who executes the ignored test of the same name.

use std::path::Path;
use std::process::{Command, Output};

use imagewright::diagnostic::{Explain, Kind};
use imagewright::runtime::{Embedded, Outcome, Privileges, RuntimeError};

use crate::support::{Bench, PROGRAM};

/// A user that exists nowhere.
const UID: &str = "54007";

/// Executes an ignored test of this file behind `wrapper`, in a folder of user 54007.
fn again(wrapper: &[&str], test: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let uid = UID.parse().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(uid), Some(uid)).unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), all).unwrap();
    // The build folder may be out of that user's reach.
    let copy = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        std::fs::copy(from, &to).unwrap();
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let program = copy(Path::new(PROGRAM), "program");
    Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(tests)
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            &format!("rootless::{test}"),
        ])
        .env("TMPDIR", folder.path())
        .env("RUNTIME_TEST_PROGRAM", program)
        .output()
        .unwrap()
}

fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("1 passed"), "{text}");
}

const AS_USER: [&str; 6] = ["setpriv", "--reuid", UID, "--regid", UID, "--clear-groups"];

#[test]
fn another_user_can_run_and_is_limited() {
    assert_passed(&again(&AS_USER, "as_user"));
}

#[test]
#[ignore = "executed by `another_user_can_run_and_is_limited`"]
fn as_user() {
    let bench = Bench::new();
    let mut spec =
        bench.spec("id -u; id -g; pwd; touch made; stat -c %u made; grep CapEff /proc/self/status");
    assert_eq!(
        bench.says(&spec),
        "1000\n1000\n/work\n1000\nCapEff:\t0000000000000000\n"
    );
    spec.argv[2] = "ls /sys/class/net; id -u".into();
    (spec.uid, spec.gid) = (0, 0);
    assert_eq!(bench.says(&spec), "lo\n0\n");
    let support = bench.runtime.probe().unwrap();
    assert!(!support.many_ids);

    let mut spec = bench.spec("exec tail -c 190m /dev/zero");
    spec.limits.memory_bytes = Some(64 << 20);
    assert_eq!(bench.run(&spec).unwrap().0.outcome, Outcome::OutOfMemory);

    let mut spec = bench.spec("for i in $(seq 60); do sleep 5 & done; echo started");
    spec.limits.pids = Some(20);
    let (ended, said) = bench.run(&spec).unwrap();
    assert_ne!(ended.outcome, Outcome::Exited(0), "{}", said.out());

    let mut spec = bench.spec("trap '' TERM; while :; do sleep 0.1; done");
    spec.limits.timeout_ms = Some(200);
    assert_eq!(bench.run(&spec).unwrap().0.outcome, Outcome::TimedOut);

    let mut spec = bench.spec("true");
    spec.privileges = Privileges::Dpkg;
    let error = bench.run(&spec).err().unwrap();
    assert!(
        matches!(error, RuntimeError::NoSubordinateIds { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("/etc/subuid"), "{error}");

    let leftovers = std::fs::read_dir(bench.folder.path()).unwrap().count();
    assert_eq!(leftovers, 1, "only the root");
}

#[test]
fn another_user_with_subordinate_ids_can_configure_packages() {
    // Files that hold in the mount namespace that unshare(1) makes, and nowhere else.
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("ids"), "tester:3000000:65536\n").unwrap();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = format!("tester:x:{UID}:{UID}::/:/bin/sh\n");
    std::fs::write(files.path().join("passwd"), passwd + &user).unwrap();
    let script = format!(
        "touch /etc/subuid /etc/subgid; cd {}; mount --bind ids /etc/subuid && mount --bind ids /etc/subgid && \
         mount --bind passwd /etc/passwd && cd / && exec {} \"$@\"",
        files.path().display(),
        AS_USER.join(" "),
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    assert_passed(&again(&wrapper, "with_ids"));
}

#[test]
#[ignore = "executed by `another_user_with_subordinate_ids_can_configure_packages`"]
fn with_ids() {
    let bench = Bench::new();
    let upper = bench.folder.path().join("upper");
    let mut spec = bench
        .spec("echo a > /a; chown 33:33 /a; stat -c %u:%g /a /; chown 65534:65534 /a && id -u");
    spec.upper = Some(upper.clone());
    (spec.uid, spec.gid, spec.cwd) = (0, 0, "/".into());
    spec.privileges = Privileges::Dpkg;
    assert_eq!(bench.says(&spec), "33:33\n0:0\n0\n");
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(upper.join("a")).unwrap().uid();
    assert_eq!(owner, 3_000_000 + 65_533);
}

#[test]
fn denied_user_namespaces_are_named_with_ways_out() {
    // A limit that holds in the namespace that unshare(1) makes, and nowhere else.
    let deny = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let wrapper = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        deny,
        "sh",
    ];
    assert_passed(&again(&wrapper, "denied"));
}

#[test]
#[ignore = "executed by `denied_user_namespaces_are_named_with_ways_out`"]
fn denied() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::var_os("RUNTIME_TEST_PROGRAM").unwrap();
    let error = Embedded::with_helper(folder.path(), Path::new(&program))
        .probe()
        .unwrap_err();
    assert!(
        matches!(error, RuntimeError::NoUserNamespaces { .. }),
        "{error:?}"
    );
    assert_eq!(error.kind(), Kind::Unavailable);
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("max_user_namespaces") && hint.contains("another runtime"),
        "{hint}"
    );
}

#[test]
fn root_finds_everything_supported() {
    let bench = Bench::new();
    let support = bench.runtime.probe().unwrap();
    assert!(support.many_ids);
}
