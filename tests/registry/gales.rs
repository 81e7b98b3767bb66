//! Bad weather around the whole program: what it says, what it ends with, and what is in the registry then.

use std::time::Duration;

use serde_json::Value;

use crate::faults::Weather;
use crate::lab::{self, Lab, PREFIX, Ran, Server};
use crate::weather::{Run, Storm};

/// Of pushes, builds and queries together.
const RUNS: u64 = 48;

const PATIENCE: Duration = Duration::from_secs(120);

const IMAGE: &str =
    "image \"one\" base=\"small\" { pip \"alpha\"; file \"noise.bin\" to=\"/opt/\"; }";

/// What all runs work with.
struct Team {
    index: crate::index::Server,
    /// Has the image, and so has every registry.
    first: Lab,
    digest: String,
}

impl Team {
    fn new(servers: &[Server]) -> Self {
        let index = lab::index();
        let first = project(servers[0].address(), &index, PREFIX);
        let digest = first.build().remove(0);
        for server in servers {
            let place = format!("{}/{PREFIX}", server.address());
            first.run(&["push", "--to", &place]).expect(0, &[]);
        }
        Self {
            index,
            first,
            digest,
        }
    }

    /// A project with the lock of the first, whose registry is behind the proxy of a run.
    fn member(&self, run: &Run<'_>, prefix: &str) -> Lab {
        let lab = project(run.proxy.address(), &self.index, prefix);
        let lock = std::fs::read(self.first.project().join("imagewright.lock")).unwrap();
        lab.write("imagewright.lock", lock);
        lab
    }
}

fn project(address: &str, index: &crate::index::Server, prefix: &str) -> Lab {
    let lab = lab::project(address, index, "");
    let manifest = lab::manifest(address, IMAGE).replace(PREFIX, prefix);
    lab.write("imagewright.kdl", manifest);
    let noise: Vec<u8> = (0..300_000u64).map(|n| ((n * n) >> 7) as u8).collect();
    lab.write("noise.bin", noise);
    lab
}

fn end(lab: &Lab, arguments: &[&str]) -> Ran {
    lab.start(arguments).wait(PATIENCE)
}

/// Ended well, or with what the exit codes stand for and words that say it. Returns those.
#[track_caller]
fn judge(run: &Run<'_>, ran: &Ran) -> Option<String> {
    let when = run.when();
    for bad in ["panicked", "backtrace", lab::PASSWORD, "token-", "_state"] {
        assert!(!ran.err.contains(bad), "{when}: {}", ran.err);
    }
    if ran.code == Some(0) {
        return None;
    }
    let code = ran.code.unwrap_or(-1);
    assert!([4, 6, 7].contains(&code), "{when}: {code}: {}", ran.err);
    assert!(ran.err.contains("127.0.0.1:"), "{when}: {}", ran.err);
    Some(ran.err.lines().take(4).collect::<Vec<_>>().join(" / "))
}

/// A push to a repository of its own, out of a store that has the image already.
fn push(team: &Team, run: &Run<'_>) {
    let prefix = format!("gale/{}", run.seed);
    let store = team.first.path("store").display().to_string();
    let lab = team.member(run, &prefix).env("IMAGEWRIGHT_STORE", &store);
    let ran = end(&lab, &["push"]);
    let error = judge(run, &ran);
    let stands = |server: &Server| {
        let tags = server.tags(&prefix).into_iter();
        let mut one = tags.filter(|(tag, _)| tag == "one");
        one.next().map(|(_, digest)| digest.to_string())
    };
    if error.is_none() {
        assert_eq!(stands(run.server).as_ref(), Some(&team.digest));
    }
    run.count(error);
    run.assert_whole(&prefix);
    run.proxy.set(Weather::default());
    end(&lab, &["push"]).expect(0, &[]);
    run.assert_whole(&prefix);
    assert_eq!(stands(run.server).as_ref(), Some(&team.digest));
}

/// A colleague's build on an empty store: whatever the registry does, it ends with the right image.
fn build(team: &Team, run: &Run<'_>) {
    let lab = team.member(run, PREFIX);
    let ran = end(&lab, &["build", "--json"]);
    assert_eq!(judge(run, &ran), None, "{}", run.when());
    assert_eq!(ran.digests().join(" "), team.digest, "{}", run.when());
    run.count(None);
}

/// A query on an empty store: the image is found, or it is said that not everything could be read.
fn find(team: &Team, run: &Run<'_>) {
    let lab = team.member(run, PREFIX);
    let ran = end(&lab, &["find", "--json"]);
    let error = judge(run, &ran);
    if error.is_none() {
        let document: Value = serde_json::from_str(&ran.out).unwrap();
        let images = document["images"].as_array().unwrap();
        let found = images.iter().any(|image| image["digest"] == *team.digest);
        let when = run.when();
        assert!(found || !ran.err.is_empty(), "{when}: {}", ran.out);
    }
    run.count(error);
    run.proxy.set(Weather::default());
    let ran = end(&lab, &["find", "--json"]).expect(0, &[]);
    assert!(ran.out.contains(&team.digest), "{}", ran.out);
}

#[test]
fn the_program_ends_right_or_says_why_not_and_nothing_partial_is_tagged() {
    let storm = Storm::new();
    let team = Team::new(storm.servers());
    storm.blow(RUNS, (0, false), move |storm, seed| {
        let run = storm.run(seed);
        match (seed / 8) % 4 {
            0 | 1 => push(&team, &run),
            2 => build(&team, &run),
            _ => find(&team, &run),
        }
    });
}
