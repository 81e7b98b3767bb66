//! Bad input at the command: the exit code, a clear word, and a store that a following good build works in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::gnupg::GnuPg;
use crate::lab::{Lab, PROGRAM, Ran};
use crate::server::{Page, Server, closed_port};
use crate::traces;
use crate::wares::{sha256, wheel};

/// A manifest of an image with wheels.
pub const GOOD: &str = "base \"small\" { from \"oci:../base:busybox\"; }\nimage \"app\" base=\"small\" { pip \"alpha\"; }\n";

/// The wheels that it needs.
pub fn good_wheels() -> Vec<(String, Vec<u8>)> {
    vec![
        wheel("alpha", "1.0", &["beta"], 30, 40_000),
        wheel("beta", "1.0", &[], 1, 10),
    ]
}

/// What a good build gives.
pub fn expected() -> Vec<String> {
    let server = Server::with(&good_wheels());
    Lab::with(GOOD)
        .env("PIP_INDEX_URL", &server.index())
        .build()
}

/// The lab's store still serves a good build.
#[track_caller]
fn assert_intact(lab: &Lab) {
    let server = Server::with(&good_wheels());
    let manifest = lab.project().join("imagewright.kdl");
    let _ = fs::remove_dir_all(&manifest);
    let _ = fs::remove_file(&manifest);
    let _ = fs::remove_file(lab.project().join("imagewright.lock"));
    lab.write("imagewright.kdl", GOOD);
    let mut command = lab.command(&["build", "--json"]);
    command
        .env("PIP_INDEX_URL", server.index())
        .env_remove("http_proxy");
    let ran = lab.start_command(command).wait(Duration::from_secs(60));
    assert_eq!(ran.expect(0, &[]).digests(), expected());
    traces::assert_none(lab, "by bad input");
}

/// A user's error is told in words that do not change.
#[track_caller]
fn snapshot(name: &str, lab: &Lab, ran: &Ran) {
    let settings = || {
        let mut settings = insta::Settings::clone_current();
        settings.add_filter(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT");
        settings.add_filter(r"session-\w+/\d+", "session-X/N");
        settings.add_filter(r"robust-\w+", "LAB");
        settings
    };
    let text = format!(
        "exit code {}\n{}",
        ran.code.unwrap_or(-1),
        lab.neutral(&ran.err)
    );
    settings().bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn manifests_that_are_none_are_refused_by_name() {
    let lab = Lab::new();
    let path = lab.project().join("imagewright.kdl");
    let cases: [(&str, i32, Option<Vec<u8>>); 6] = [
        ("missing", 8, None),
        ("broken", 2, Some(b"image \"app\" { pip \"numpy\n".to_vec())),
        ("empty", 2, Some(Vec::new())),
        (
            "binary",
            2,
            Some((0..4096u32).map(|at| (at * 7 % 256) as u8).collect()),
        ),
        (
            "latin_1",
            2,
            Some(b"image \"app\" { // caf\xe9\n}\n".to_vec()),
        ),
        ("large", 2, Some(b"// a comment\n".repeat(4_000_000))),
    ];
    for (name, code, content) in cases {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        for command in ["check", "lock", "build", "test"] {
            let ran = lab.run(&[command]).expect(code, &["imagewright.kdl"]);
            assert!(
                ran.elapsed < Duration::from_secs(5),
                "{name}: {:?}",
                ran.elapsed
            );
            if command == "build" {
                snapshot(&format!("manifest_{name}"), &lab, &ran);
            }
        }
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let ran = lab.run(&["build"]).expect(2, &["is not a file"]);
    snapshot("manifest_folder", &lab, &ran);
    fs::remove_dir(&path).unwrap();
    assert_intact(&lab);
}

#[test]
fn an_unreadable_manifest_is_named() {
    let lab = Lab::with(GOOD);
    let program = lab.path("imagewright");
    fs::copy(PROGRAM, &program).unwrap();
    let mode = fs::Permissions::from_mode;
    fs::set_permissions(lab.path("."), mode(0o777)).unwrap();
    fs::set_permissions(lab.project().join("imagewright.kdl"), mode(0o600)).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=1000", "--regid=1000", "--clear-groups"])
        .arg(&program)
        .arg("-C")
        .arg(lab.project())
        .arg("build");
    lab.prepare(&mut command);
    let ran = lab
        .start_command(command)
        .wait(Duration::from_secs(20))
        .expect(2, &["Permission denied"]);
    snapshot("manifest_unreadable", &lab, &ran);
}

#[test]
fn without_network_the_index_is_named() {
    let closed = closed_port();
    for (name, variables) in [
        (
            "closed_port",
            vec![("PIP_INDEX_URL", format!("http://{closed}/simple"))],
        ),
        (
            "proxy",
            vec![
                ("PIP_INDEX_URL", "http://index.example/simple".into()),
                ("http_proxy", format!("http://{closed}")),
            ],
        ),
        (
            "dns",
            vec![("PIP_INDEX_URL", "http://index.invalid/simple".into())],
        ),
    ] {
        let mut lab = Lab::with(GOOD);
        for (name, value) in variables {
            lab = lab.env(name, &value);
        }
        let ran = lab.run(&["build"]).expect(4, &["/simple"]);
        assert!(
            ran.elapsed < Duration::from_secs(60),
            "{name}: {:?}",
            ran.elapsed
        );
        assert!(!lab.project().join("imagewright.lock").exists());
        if name != "dns" {
            snapshot(&format!("network_{name}"), &lab, &ran);
        }
        lab.run(&["--offline", "build"]).expect(4, &["offline"]);
        assert_intact(&lab);
    }
}

#[test]
fn an_index_that_serves_nonsense_is_refused() {
    let good = good_wheels();
    let (file, bytes) = good[0].clone();
    let path = format!("/files/{file}");
    let binary = |body: Vec<u8>| Page::new("application/octet-stream", body);
    let other = wheel("alpha", "1.0", &["beta"], 31, 40_000).1;
    let html = b"<html><body>please log in</body></html>".to_vec();
    type Damage<'a> = Box<dyn Fn(&Server) + 'a>;
    let cases: Vec<(&str, &[i32], Damage<'_>)> = vec![
        (
            "other_bytes",
            &[7],
            Box::new(|server| server.put(&path, binary(other.clone()))),
        ),
        (
            "truncated",
            &[4],
            Box::new(|server| {
                server.put(
                    &path,
                    Page {
                        cut: Some(bytes.len() / 2),
                        ..binary(bytes.clone())
                    },
                )
            }),
        ),
        (
            "no_wheel",
            &[3],
            Box::new(|server| {
                server.page("alpha", &file, &sha256(&html));
                server.put(&path, binary(html.clone()));
            }),
        ),
        (
            "garbage_page",
            &[3],
            Box::new(|server| {
                server.put("/simple/alpha/", Page::new("text/html", vec![0xff; 5000]))
            }),
        ),
        (
            "errors",
            &[4],
            Box::new(|server| server.put("/simple/alpha/", Page::status(500))),
        ),
        (
            "file_errors",
            &[4],
            Box::new(|server| server.put(&path, Page::status(503))),
        ),
        (
            "gone",
            &[3, 4, 8],
            Box::new(|server| server.put(&path, Page::status(404))),
        ),
    ];
    for (name, codes, damage) in cases {
        let server = Server::with(&good);
        damage(&server);
        let lab = Lab::with(GOOD).env("PIP_INDEX_URL", &server.index());
        let ran = lab.run(&["build"]);
        let code = ran.code.unwrap_or(-1);
        assert!(codes.contains(&code), "{name}: {code}\n{}", ran.err);
        let ran = ran.expect(code, &["alpha"]);
        assert!(
            ran.elapsed < Duration::from_secs(60),
            "{name}: {:?}",
            ran.elapsed
        );
        snapshot(&format!("index_{name}"), &lab, &ran);
        assert_intact(&lab);
    }
}

#[test]
fn a_file_that_changes_after_locking_is_refused_with_both_hashes() {
    let good = good_wheels();
    let server = Server::with(&good);
    let lab = Lab::with(GOOD).env("PIP_INDEX_URL", &server.index());
    lab.run(&["lock"]).expect(0, &[]);
    let other = wheel("alpha", "1.0", &["beta"], 31, 40_000);
    server.add(&other);
    lab.run(&["build", "--locked"])
        .expect(7, &["alpha", &sha256(&good[0].1), &sha256(&other.1)]);
    assert_intact(&lab);
}

/// A Debian archive of one suite, signed by a key that gpg makes, served on loopback.
struct Archive {
    gnupg: GnuPg,
    text: String,
    server: Server,
}

impl Archive {
    fn new(valid_until: &str) -> Self {
        let server = Server::start();
        let packages = "Package: tiny\nVersion: 1.0-1\nArchitecture: amd64\nFilename: pool/tiny.deb\nSize: 3\n\
                        SHA256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n";
        server.put(
            "/dists/bookworm/main/binary-amd64/Packages",
            Page::new("text/plain", packages),
        );
        let date = |when: &str| {
            let out = Command::new("date")
                .args(["-u", "-d", when, "+%a, %d %b %Y %H:%M:%S UTC"])
                .env("LC_ALL", "C")
                .output();
            String::from_utf8(out.unwrap().stdout)
                .unwrap()
                .trim()
                .to_owned()
        };
        let text = format!(
            "Suite: oldstable\nCodename: bookworm\nDate: {}\nValid-Until: {}\nArchitectures: amd64\nComponents: main\nSHA256:\n \
             {} {} main/binary-amd64/Packages\n",
            date("now - 10 days"),
            date(valid_until),
            sha256(packages.as_bytes()),
            packages.len()
        );
        let gnupg = GnuPg::new();
        gnupg.run(
            &[
                "--quick-gen-key",
                "archive <archive@example.com>",
                "ed25519",
                "sign",
                "0",
            ],
            "",
        );
        Self {
            gnupg,
            text,
            server,
        }
    }

    fn sign(&self) -> String {
        String::from_utf8(self.gnupg.run(&["--clearsign"], &self.text)).unwrap()
    }

    fn lab(&self, in_release: &str) -> Lab {
        self.server.put(
            "/dists/bookworm/InRelease",
            Page::new("text/plain", in_release),
        );
        let mirror = format!("http://{}", self.server.address());
        let lab = Lab::with(&format!(
            "base \"os\" {{ debian \"bookworm\" mirror=\"{mirror}\" keyring=\"archive.gpg\"; python \"3.11\"; }}\nimage \"app\" base=\"os\"\n"
        ));
        lab.write("archive.gpg", self.gnupg.run(&["--export"], ""));
        lab
    }
}

#[test]
fn releases_that_cannot_be_trusted_are_refused() {
    let stale = Archive::new("now - 2 days");
    let fresh = Archive::new("now + 5 days");
    let good = fresh.sign();
    let tampered = good.replace("oldstable", "oldstabl3");
    assert_ne!(good, tampered);
    for (archive, in_release, words) in [
        (&stale, stale.sign(), "valid until"),
        (&fresh, fresh.text.clone(), "sign"),
        (&fresh, tampered, "sign"),
        (&fresh, stale.sign(), "sign"),
        (&fresh, "<html>please log in</html>".into(), "sign"),
    ] {
        let lab = archive.lab(&in_release);
        let ran = lab.run(&["lock"]).expect(7, &["InRelease", words]);
        let mirror = archive.server.address().to_string();
        assert!(ran.err.contains(&mirror), "{}", ran.err);
        assert!(!lab.project().join("imagewright.lock").exists());
        assert_intact(&lab);
    }
    // The same archive with a good signature gets as far as its packages do.
    fresh
        .lab(&good)
        .run(&["lock"])
        .expect(3, &["no essential packages"]);
}

#[test]
fn stores_that_cannot_be_used_are_named_with_the_variable() {
    let lab = Lab::with(GOOD);
    fs::create_dir_all(lab.store()).unwrap();
    fs::write(lab.store().join("format"), "2\n").unwrap();
    snapshot(
        "store_newer",
        &lab,
        &lab.run(&["build"])
            .expect(7, &["format 2", "IMAGEWRIGHT_STORE"]),
    );
    assert_eq!(
        fs::read_dir(lab.store()).unwrap().count(),
        1,
        "nothing was written into it"
    );

    let lab = Lab::with(GOOD);
    fs::write(lab.path("store"), "a file").unwrap();
    snapshot(
        "store_file",
        &lab,
        &lab.run(&["build"]).expect(4, &["IMAGEWRIGHT_STORE"]),
    );

    let server = Server::with(&good_wheels());
    let lab = Lab::with(GOOD).env("PIP_INDEX_URL", &server.index());
    lab.build();
    let script = "mount --bind store store && mount -o remount,bind,ro store && exec \"$1\" -C project build";
    snapshot(
        "store_read_only",
        &lab,
        &lab.privately(script).expect(4, &["IMAGEWRIGHT_STORE"]),
    );
    assert_intact(&lab);

    let lab = Lab::with(GOOD);
    fs::create_dir_all(lab.store()).unwrap();
    fs::write(lab.store().join("state.sqlite"), "no database".repeat(1000)).unwrap();
    snapshot(
        "store_state_broken",
        &lab,
        &lab.run(&["build"])
            .expect(4, &["state.sqlite", "move this file away"]),
    );
    fs::remove_file(lab.store().join("state.sqlite")).unwrap();
    assert_intact(&lab);
}

#[test]
fn without_a_home_the_store_must_be_named() {
    let server = Server::with(&good_wheels());
    let lab = Lab::with(GOOD).env("PIP_INDEX_URL", &server.index());
    let without = |store: bool| {
        let mut command = lab.command(&["build", "--json"]);
        command.env_remove("HOME");
        if !store {
            command.env_remove("IMAGEWRIGHT_STORE");
        }
        lab.start_command(command).wait(Duration::from_secs(30))
    };
    without(false).expect(2, &["HOME", "IMAGEWRIGHT_STORE"]);
    assert_eq!(without(true).expect(0, &[]).digests(), expected());
}
