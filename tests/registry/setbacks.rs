//! Pushes that something is in the way of: the user, the store, the registry.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::faults::Weather;
use crate::index;
use crate::lab::{self, Lab, PREFIX, Server};
use crate::proxy::Proxy;
use crate::pushing::{LOGIN, ONE, TWO, digest, push, writes};

/// Removes all wheels from the store.
fn lose_wheels(lab: &Lab) {
    for entry in fs::read_dir(lab.store().join("artifacts")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[test]
fn a_wheel_that_has_left_the_store_is_fetched_again_or_told() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, ONE);
    let built = lab.build();
    lose_wheels(&lab);
    let away = format!("http://{}/simple", index::closed_port());
    let mut command = lab.command(&["push"]);
    command.env("PIP_INDEX_URL", &away);
    let ran = lab.start_command(command).wait(Duration::from_secs(120));
    let words = ["cannot be read", "is not in the store", ".whl", &away];
    ran.expect(4, &words);
    assert!(server.repositories().iter().all(|name| name != PREFIX));
    server.assert_whole();
    lab.run(&["push"]).expect(0, &["brought again"]);
    server.assert_whole();
    let tags = server.tags(PREFIX);
    let named = tags.iter().find(|(tag, _)| tag == "one").unwrap();
    assert_eq!(named.1.to_string(), built[0]);
    // What others need of the image comes back as well.
    lose_wheels(&lab);
    let out = lab.path("out").display().to_string();
    lab.run(&["export", "one", "--oci", &out]).expect(0, &[]);
    assert_eq!(lab.build(), built);
}

#[test]
fn a_registry_that_refuses_or_is_away_is_told_by_the_exit_code() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = lab::project(server.address(), &index, ONE);
    let away = index::closed_port().to_string();
    // It is told before anything is made.
    let place = format!("{away}/team");
    lab.run(&["push", "--to", &place]).expect(4, &[&away]);
    lab.run(&["push", "--to", &place, "nothing"])
        .expect(8, &["no image `nothing`"]);
    assert!(!lab.project().join("imagewright.lock").exists());
    lab.build();
    let logins = lab.path("home/.docker/config.json");
    let login = fs::read(&logins).unwrap();
    fs::write(&logins, "{}").unwrap();
    let (ran, requests) = server.during(|| lab.run(&["push"]));
    ran.expect(6, &[server.address(), "log in"]);
    assert!(writes(&requests).is_empty(), "{requests:#?}");
    lab.run(&["push", "--dry-run"]).expect(6, &[]);
    fs::write(&logins, login).unwrap();
    lab.write("imagewright.kdl", lab::manifest(&away, ONE));
    for dry in [&["push"][..], &["push", "--dry-run"]] {
        lab.run(dry).expect(4, &[&away]);
    }
    lab.write("imagewright.kdl", lab::manifest(server.address(), ONE));
    push(&lab, &[]);
    server.assert_whole();
}

#[test]
fn an_interrupted_push_leaves_nothing_partial_and_the_next_completes() {
    let server = Server::docker_registry(LOGIN);
    let slow = || Weather {
        slowness: Duration::from_millis(4),
        ..Weather::default()
    };
    let proxy = Proxy::start(server.address(), slow());
    let index = lab::index();
    let lab = lab::project(proxy.address(), &index, "");
    let declare = |number: u8| {
        lab.write("big.bin", vec![number; 300_000]);
        let own = format!("{PREFIX}/interrupted-{number}");
        let text = lab::manifest(proxy.address(), &format!("{ONE}\n{TWO}"));
        lab.write("imagewright.kdl", text.replace(PREFIX, &own));
        (own, lab.build())
    };
    declare(0);
    push(&lab, &[]);
    let all = proxy.pieces();
    for number in 1..5 {
        let (repository, built) = declare(number);
        let pieces = all * u64::from(number) / 6;
        let when = format!("interrupted after {pieces} of {all} pieces");
        proxy.set(slow());
        let mut running = lab.start(&["push"]);
        running.until(|| proxy.pieces() >= pieces);
        running.signal([Signal::INT, Signal::TERM][usize::from(number % 2)]);
        let ran = running.wait(Duration::from_secs(30));
        ran.expect(130, &[]);
        let left = fs::read_dir(lab.store().join("tmp")).unwrap().count();
        assert_eq!(left, 0, "temporary files are left, {when}");
        server.assert_whole_below(&repository, &when);
        proxy.set(Weather::default());
        let pushed = push(&lab, &[]);
        server.assert_whole_below(&repository, &when);
        let tags = server.tags(&repository);
        for (at, name) in ["one", "two"].iter().enumerate() {
            let found = tags.iter().find(|(tag, _)| tag == name).unwrap();
            assert_eq!(found.1, digest(&pushed["images"][at]), "{name} {when}");
            assert_eq!(found.1.to_string(), built[at], "{name} {when}");
        }
    }
}
