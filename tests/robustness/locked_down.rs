//! Another user, without user namespaces, without a container engine: what needs neither works, the rest says so.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::Duration;

use crate::lab::{Lab, PROGRAM, Ran};
use crate::server::Server;
use crate::wares::{self, wheel};

const UID: u32 = 1000;

/// A limit that holds in the namespace that unshare(1) makes, and nowhere else: who comes from there gets no more.
const DENY: &str = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";

struct Locked {
    lab: Lab,
    program: std::path::PathBuf,
}

impl Locked {
    fn new(lab: Lab) -> Self {
        // The build folder may be out of that user's reach.
        let program = lab.path("imagewright");
        std::fs::copy(PROGRAM, &program).unwrap();
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(lab.path("."), all).unwrap();
        std::fs::remove_file(lab.path("base")).unwrap();
        copy(wares::base(), &lab.path("base"));
        for path in [".", "project", "home", "project/imagewright.kdl"] {
            chown(lab.path(path), Some(UID), Some(UID)).unwrap();
        }
        Self { lab, program }
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        let id = UID.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .args([
                "unshare",
                "--user",
                "--map-current-user",
                "--keep-caps",
                "sh",
                "-c",
                DENY,
                "sh",
            ])
            .args([
                "setpriv",
                "--no-new-privs",
                "--inh-caps=-all",
                "--ambient-caps=-all",
            ])
            .arg(&self.program)
            .arg("-C")
            .arg(self.lab.project())
            .args(arguments);
        self.lab.prepare(&mut command);
        self.lab
            .start_command(command)
            .wait(Duration::from_secs(120))
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done = Command::new("cp")
        .args(["-r", "--no-preserve=all"])
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(done.success());
}

#[test]
fn images_on_a_given_base_need_no_privileges() {
    let server = Server::with(&[
        wheel("alpha", "1.0", &["beta"], 10, 20_000),
        wheel("beta", "1.0", &[], 1, 10),
    ]);
    let manifest = "base \"small\" { from \"oci:../base:busybox\"; }\nimage \"app\" base=\"small\" { pip \"alpha\"; }\n\
                    run \"check\" image=\"app\" { command \"true\"; }";
    let lab = Lab::with(manifest).env("PIP_INDEX_URL", &server.index());
    let expected = lab.build();
    let locked = Locked::new(Lab::with(manifest).env("PIP_INDEX_URL", &server.index()));
    locked.run(&["lock"]).expect(0, &["2 wheels", "wrote"]);
    assert_eq!(
        locked.run(&["build", "--json"]).expect(0, &[]).digests(),
        expected
    );
    for format in ["--oci", "--oci-archive", "--docker-archive"] {
        let target = locked.lab.path("home").join(format.trim_start_matches('-'));
        locked
            .run(&["export", "app", format, target.to_str().unwrap()])
            .expect(0, &["wrote"]);
    }
    // What runs containers says at once what is missing, and what to do.
    for arguments in [&["test"][..], &["exec", "app", "--", "true"]] {
        let ran = locked.run(arguments).expect(
            4,
            &["user namespace", "max_user_namespaces", "another runtime"],
        );
        assert!(ran.elapsed < Duration::from_secs(5));
    }
}

#[test]
fn an_os_layer_says_what_is_missing_before_anything_is_downloaded() {
    let server = Server::with(&[wheel("alpha", "1.0", &[], 1, 10)]);
    let manifest = "base \"os\" { debian \"bookworm\"; python \"3.11\"; }\nimage \"app\" base=\"os\" { pip \"alpha\"; }\nrun \"check\" image=\"app\" { command \"true\"; }";
    let locked = Locked::new(Lab::with(manifest).env("PIP_INDEX_URL", &server.index()));
    locked.run(&["lock"]).expect(0, &["wrote"]);
    let ran = locked
        .run(&["build"])
        .expect(4, &["user namespace", "as root", "from"]);
    assert!(ran.elapsed < Duration::from_secs(20), "{:?}", ran.elapsed);
    insta::assert_snapshot!("os_layer_denied", locked.lab.neutral(&ran.err));
    let kept = walkdir::WalkDir::new(locked.lab.store().join("artifacts"));
    let debs = kept.into_iter().flatten().filter(|entry| {
        entry.file_type().is_file() && std::fs::read(entry.path()).unwrap().starts_with(b"!<arch>")
    });
    assert_eq!(debs.count(), 0, "nothing was downloaded in vain");
    locked.run(&["test"]).expect(4, &["user namespace"]);
    locked
        .run(&["exec", "app", "--", "true"])
        .expect(4, &["user namespace"]);
}
