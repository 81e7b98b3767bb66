//! A user who is not root: what cannot be done is said before anything is fetched, with ways out that work.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use imagewright::store::Store;

use crate::support::{PROGRAM, locked, project};

/// A user that exists nowhere.
const UID: u32 = 54007;

fn give(path: &Path) {
    chown(path, Some(UID), Some(UID)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

#[test]
fn who_is_not_root_is_told_what_is_missing_and_the_ways_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("imagewright");
    fs::copy(PROGRAM, &program).unwrap();
    fs::copy(
        project().path().join("imagewright.kdl"),
        folder.path().join("imagewright.kdl"),
    )
    .unwrap();
    fs::copy(
        project().path().join("imagewright.lock"),
        folder.path().join("imagewright.lock"),
    )
    .unwrap();
    // The wheels are there; the debs are not, and are not asked for.
    let lock = project().lock();
    let root = folder.path().join("store");
    let store = Store::open(&root).unwrap();
    for file in &locked(&lock, "minimal").wheels {
        let digest = lock.wheels[file].sha256;
        fs::copy(
            project().store().artifact_path(&digest),
            store.artifact_path(&digest),
        )
        .unwrap();
    }
    drop(store);
    give(folder.path());
    let build = |wrapper: &[&str]| {
        let output = Command::new("setpriv")
            .args(["--reuid", &UID.to_string(), "--regid", &UID.to_string()])
            .arg("--clear-groups")
            .args(wrapper)
            .arg(&program)
            .args(["--quiet", "--offline", "--store"])
            .arg(&root)
            .arg("-C")
            .arg(folder.path())
            .args(["build", "--locked", "minimal"])
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(
            told.contains("as root") && told.contains("`from`"),
            "{told}"
        );
        told
    };
    let told = build(&[]);
    assert!(
        told.contains("not root") && told.contains("owners"),
        "{told}"
    );
    // A limit that holds in the namespace that unshare(1) makes, and nowhere else.
    let deny = "echo 0 > /proc/sys/user/max_user_namespaces && \
        exec setpriv --inh-caps=-all --ambient-caps=-all \"$@\"";
    let unshare = ["unshare", "--user", "--map-current-user", "--keep-caps"];
    let told = build(&[&unshare[..], &["sh", "-c", deny, "sh"]].concat());
    assert!(told.contains("user namespace"), "{told}");
}
