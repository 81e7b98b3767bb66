//! Registries that cannot be asked: building and testing go on without them, soon, and say so once.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::faults::{Fault, Weather};
use crate::proxy::Proxy;

use crate::lab::{self, Lab, Options, Ran, Server};

/// More than any of these commands may take, and much less than somebody who waits for an answer would.
const SOON: Duration = Duration::from_secs(45);

const IMAGES: &str = r#"
image "one" base="small" { pip "alpha"; }
image "two" base="small" { pip "gamma"; }
run "check" image="one" {
    command "sh" "-c" "ls /opt/venv/lib/python3.11/site-packages/alpha"
    resources ram="64MB" cpu="500m"
    timeout "20s"
}
"#;

/// Somebody's project, built and pushed to a registry that works.
struct Scene {
    server: Server,
    index: crate::index::Server,
    first: Lab,
}

impl Scene {
    fn new() -> Self {
        let server = Server::docker_registry(Options {
            login: true,
            delete: false,
        });
        let index = lab::index();
        let first = lab::project(server.address(), &index, IMAGES);
        first.run(&["push"]).expect(0, &["one", "two"]);
        Self {
            server,
            index,
            first,
        }
    }

    /// A colleague with the same lock and an empty store, whose registry is at `address`.
    fn colleague(&self, address: &str) -> Lab {
        let lab = lab::project(address, &self.index, IMAGES);
        let lock = fs::read(self.first.project().join("imagewright.lock")).unwrap();
        lab.write("imagewright.lock", lock);
        lab
    }
}

/// Runs a command that must not wait for long; the one thing that it says of the registry has these words.
#[track_caller]
fn soon(lab: &Lab, arguments: &[&str], words: &[&str]) -> Ran {
    let ran = lab.start(arguments).wait(SOON).expect(0, words);
    let told = ran.err.matches("building without it").count();
    assert_eq!(told, 1, "{}", ran.err);
    ran
}

/// Takes connections and never says a word.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// An address where nothing is answered, not even the wish for a connection: the queue of a listener that takes none is
/// full.
fn dropping() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let listener = silent();
    // A listener that listens again has another queue.
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while waiting.len() < 100 {
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(stream) => waiting.push(stream),
            Err(_) => return (address, listener, waiting),
        }
    }
    panic!("the queue of a listener has no end");
}

#[test]
fn a_registry_that_is_silent_or_broken_is_left_alone_soon() {
    let scene = Scene::new();
    let quiet = silent();
    let (full, _listener, _waiting) = dropping();
    let closed = crate::index::closed_port();
    for address in [quiet.local_addr().unwrap(), full, closed] {
        let address = address.to_string();
        let lab = scene.colleague(&address);
        let ran = soon(&lab, &["build"], &["registry out of reach", &address]);
        assert_eq!(ran.out.matches(" new").count(), 2, "{}", ran.out);
        // What is built is known from the store: nobody is asked.
        let again = lab
            .run(&["build", "--locked"])
            .expect(0, &["already built"]);
        assert!(!again.err.contains(&address), "{}", again.err);
    }
    for fault in [
        Fault::Broken,
        Fault::Away,
        Fault::TooMany,
        Fault::ResetAnswer,
    ] {
        let bad = Weather {
            seed: 7,
            permille: 1000,
            faults: vec![fault],
            ..Weather::default()
        };
        let proxy = Proxy::start(scene.server.address(), bad);
        let lab = scene.colleague(proxy.address());
        soon(
            &lab,
            &["build"],
            &["registry out of reach", proxy.address()],
        );
    }
}

#[test]
fn without_a_login_it_is_built_here_and_the_login_is_asked_for() {
    let scene = Scene::new();
    let address = scene.server.address();
    for login in [None, Some("nobody:wrong")] {
        let lab = scene.colleague(address);
        let config = lab.path("home/.docker/config.json");
        match login {
            None => fs::remove_file(config).unwrap(),
            Some(login) => {
                let (user, password) = login.split_once(':').unwrap();
                let basic = crate::wares::basic(user, password);
                let auth = basic.trim_start_matches("Basic ");
                let text = format!("{{\"auths\": {{\"{address}\": {{\"auth\": \"{auth}\"}}}}}}");
                fs::write(config, text).unwrap();
            }
        }
        let ran = soon(&lab, &["build"], &[address]);
        assert!(!ran.err.contains("wrong"), "{}", ran.err);
        assert_eq!(ran.out.matches(" new").count(), 2, "{}", ran.out);
        lab.run(&["build", "--verify-substitutes"])
            .expect(6, &[address]);
    }
}

#[test]
fn a_test_whose_layers_cannot_be_pulled_any_more_builds_them() {
    let scene = Scene::new();
    let proxy = Proxy::start(scene.server.address(), Weather::default());
    let lab = scene.colleague(proxy.address());
    let known = lab.build();
    proxy.set(Weather {
        outage: Some(0),
        ..Weather::default()
    });
    let ran = lab.start(&["test"]).wait(SOON);
    ran.expect(0, &["SUCCEEDED", "building one without it"]);
    assert_eq!(lab.build(), known);

    // The network is switched off: nobody is asked, and what is missing is named.
    let lab = scene.colleague(proxy.address());
    proxy.set(Weather::default());
    lab.build();
    lab.run(&["build", "--offline"]).expect(0, &["substituted"]);
    let ran = lab.run(&["test", "--offline"]);
    assert_ne!(ran.code, Some(0));
    ran.expect(4, &["--offline"]);
    lab.run(&["test"]).expect(0, &["SUCCEEDED"]);
    lab.run(&["test", "--rerun", "--offline"])
        .expect(0, &["SUCCEEDED"]);
}

#[test]
fn a_pull_that_broke_off_or_was_killed_is_made_good() {
    let scene = Scene::new();
    let blobs = "GET /v2/team/ml/blobs/".to_owned();
    let slow = Weather {
        slowness: Duration::from_millis(40),
        ..Weather::default()
    };
    let proxy = Proxy::start(scene.server.address(), slow);
    let lab = scene.colleague(proxy.address());
    let known = lab.build();
    let mut running = lab.start(&["test"]);
    let begun = || {
        let files = walkdir::WalkDir::new(lab.store().join("tmp"));
        let mut files = files.into_iter().flatten();
        files.any(|file| file.file_type().is_file() && file.metadata().is_ok_and(|m| m.len() > 0))
    };
    assert!(running.until(begun), "nothing was pulled");
    running.signal(rustix::process::Signal::KILL);
    let _ = running.wait(SOON);
    for fault in [Fault::Truncated, Fault::ResetAnswer, Fault::WrongAnswer] {
        proxy.set(Weather {
            seed: 11,
            permille: 400,
            faults: vec![fault],
            only: blobs.clone(),
            ..Weather::default()
        });
        let ran = lab.start(&["test", "--rerun"]).wait(SOON);
        ran.expect(0, &["SUCCEEDED"]);
        assert_eq!(lab.build(), known, "{fault:?}");
        fs::remove_dir_all(lab.store().join("trees")).unwrap();
        fs::remove_dir_all(lab.store().join("blobs")).unwrap();
    }
}
