//! Credentials reach their index, and nothing else: not the lock, the store, the output, exports, records.

use std::os::unix::fs::PermissionsExt;

use crate::lab::{Lab, Ran};
use crate::server::Server;
use crate::wares::{basic, wheel};

const USER: &str = "canary-user";
const PASSWORD: &str = "canary%2Fpass-f3a9";
const PLAIN: &str = "canary/pass-f3a9";

const RUN: &str = "run \"check\" image=\"app\" { command \"sh\" \"-c\" \"env; ls /opt; touch /results/x\"; resources ram=\"64MB\" cpu=\"500m\"; }\n";

fn private() -> Server {
    let server = Server::with(&[
        wheel("alpha", "1.0", &["beta"], 4, 20_000),
        wheel("beta", "1.0", &[], 1, 10),
    ]);
    server.demand(basic(USER, PLAIN));
    server
}

fn manifest(index: &str, pip: &str) -> String {
    format!(
        "{index}base \"small\" {{ from \"oci:../base:busybox\"; }}\nimage \"app\" base=\"small\" {{ {pip} }}\n{RUN}"
    )
}

/// Everything that a canary may look like.
fn forms() -> Vec<String> {
    let encoded = basic(USER, PLAIN);
    let token = encoded.trim_start_matches("Basic ").to_owned();
    vec![PLAIN.into(), PASSWORD.into(), USER.into(), token]
}

#[track_caller]
fn assert_quiet(ran: &Ran) {
    for form in forms() {
        assert!(
            !ran.out.contains(&form) && !ran.err.contains(&form),
            "{form}: {ran:?}"
        );
    }
}

/// No file of the lab has a canary, but the one that it was written into.
#[track_caller]
fn assert_absent(lab: &Lab) {
    let netrc = lab.path("home/.netrc");
    let mut files = 0;
    for entry in walkdir::WalkDir::new(lab.path("."))
        .into_iter()
        .map(Result::unwrap)
    {
        if !entry.file_type().is_file() || entry.path().canonicalize().unwrap() == netrc {
            continue;
        }
        files += 1;
        let bytes = std::fs::read(entry.path()).unwrap();
        for form in forms() {
            let found = bytes
                .windows(form.len())
                .any(|window| window == form.as_bytes());
            assert!(!found, "{form} is in {}", entry.path().display());
        }
    }
    assert!(
        files > 20,
        "the store, the lock, the layout and the runs were looked through"
    );
}

#[track_caller]
fn everything_works(lab: &Lab, server: &Server) {
    let layout = lab.path("layout").display().to_string();
    let archive = lab.path("archive.tar").display().to_string();
    for arguments in [
        &["lock", "--json"][..],
        &["build", "--timings"],
        &["test"],
        &["export", "app", "--oci", &layout],
        &["export", "app", "--docker-archive", &archive],
        &["show", "app"],
        &["why", "app"],
        &["jobs", "--json"],
        &["lock", "--upgrade"],
    ] {
        let ran = lab.run(arguments).expect(0, &[]);
        assert_quiet(&ran);
    }
    assert!(server.counts().1 > 3, "the index was asked with the login");
    assert_absent(lab);
}

#[test]
fn a_login_from_netrc_goes_to_its_index_only() {
    let server = private();
    let lab = Lab::with(&manifest("", "pip \"alpha\";")).env("PIP_INDEX_URL", &server.index());
    let netrc = lab.path("home/.netrc");
    let host = server.address().ip();
    std::fs::write(
        &netrc,
        format!("machine {host}\nlogin {USER}\npassword {PLAIN}\n"),
    )
    .unwrap();
    std::fs::set_permissions(&netrc, std::fs::Permissions::from_mode(0o600)).unwrap();
    everything_works(&lab, &server);
}

#[test]
fn a_login_from_variables_goes_to_its_index_only() {
    let (server, public) = (
        private(),
        Server::with(&[wheel("gamma", "1.0", &[], 1, 10)]),
    );
    let index = format!("index \"x\" \"{}\" explicit=#true\n", server.index());
    let pip = "pip \"alpha\" index=\"x\"; pip \"beta\" index=\"x\"; pip \"gamma\";";
    let lab = Lab::with(&manifest(&index, pip))
        .env("PIP_INDEX_URL", &public.index())
        .env("IMAGEWRIGHT_INDEX_X_USERNAME", USER)
        .env("IMAGEWRIGHT_INDEX_X_PASSWORD", PLAIN);
    everything_works(&lab, &server);
    assert!(public.counts().1 > 0);
    assert_eq!(public.logins(), 0, "the other index has seen no login");
}

#[test]
fn a_login_in_the_index_url_of_the_environment_goes_to_its_index_only() {
    let server = private();
    let url = server
        .index()
        .replace("http://", &format!("http://{USER}:{PASSWORD}@"));
    let lab = Lab::with(&manifest("", "pip \"alpha\";")).env("PIP_INDEX_URL", &url);
    everything_works(&lab, &server);
}

#[test]
fn a_login_that_is_refused_is_not_shown() {
    let server = private();
    server.demand(basic("somebody", "else"));
    let url = server
        .index()
        .replace("http://", &format!("http://{USER}:{PASSWORD}@"));
    let lab = Lab::with(&manifest("", "pip \"alpha\";")).env("PIP_INDEX_URL", &url);
    for arguments in [&["lock"][..], &["--json", "build"]] {
        let ran = lab.run(arguments);
        assert_quiet(&ran);
        ran.expect(6, &["127.0.0.1"]);
    }
}
