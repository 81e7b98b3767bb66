//! kill -9 at any moment of a push: no tag ever names what is not there, and the next push completes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use crate::faults::Weather;
use crate::lab::{self, Lab, Options, Server};
use crate::proxy::{Asked, Proxy};
use crate::wares::Random;

/// Pushes that are killed, by each of the threads.
const KILLS: u64 = 25;
const THREADS: usize = 2;

/// Slow enough that kills hit every phase of a push.
fn slow() -> Weather {
    Weather {
        slowness: Duration::from_millis(4),
        ..Weather::default()
    }
}

/// What a push was about when it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Nothing had been written.
    Looking,
    /// The content of a blob was on its way.
    Sending,
    /// Some manifests were there, some not.
    Between,
    /// What people look at was there, at least of one image.
    Named,
    /// Else.
    Other,
}

impl Phase {
    fn of(asked: &[Asked]) -> Self {
        let named = |asked: &Asked| {
            let ends = ["/manifests/one", "/manifests/two"];
            asked.puts_manifest() && ends.iter().any(|end| asked.target.ends_with(end))
        };
        if asked
            .iter()
            .all(|asked| matches!(asked.method.as_str(), "GET" | "HEAD"))
        {
            Self::Looking
        } else if asked.iter().any(Asked::is_sending) {
            Self::Sending
        } else if asked.iter().any(named) {
            Self::Named
        } else if asked.iter().any(Asked::puts_manifest) {
            Self::Between
        } else {
            Self::Other
        }
    }
}

/// A project that pushes to a repository of its own each time.
struct Bench<'a> {
    server: &'a Server,
    proxy: Proxy,
    lab: Lab,
}

impl Bench<'_> {
    /// Makes the images, and therefore all that is to be pushed, others than those of every other number. Returns where
    /// they go, and what they are.
    fn declare(&self, number: u64) -> (String, Vec<String>) {
        let mut random = Random(number * 31 + 7);
        let noise: Vec<u8> = (0..40_000)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        self.lab.write("src/noise.bin", noise);
        self.lab.write("src/number.txt", number.to_string());
        let images = "image \"one\" base=\"small\" { pip \"alpha\"; file \"src/\" to=\"/app\"; }\nimage \"two\" base=\"small\" { pip \"gamma\"; file \"src/number.txt\" to=\"/app/\"; }";
        let manifest = lab::manifest(self.proxy.address(), images);
        let own = format!("{}/killed-{number}", lab::PREFIX);
        self.lab
            .write("imagewright.kdl", manifest.replace(lab::PREFIX, &own));
        (own, self.lab.build())
    }

    /// Kills a push once so many pieces have passed; `None` if it ended before.
    fn kill(&self, pieces: u64) -> Option<Phase> {
        self.proxy.set(slow());
        let mut running = self.lab.start(&["push"]);
        running.until(|| self.proxy.pieces() >= pieces);
        running.signal(Signal::KILL);
        let asked = self.proxy.asked();
        let ran = running.wait(Duration::from_secs(5));
        ran.code.is_none().then(|| Phase::of(&asked))
    }

    /// One push that is killed, and what comes after.
    fn round(&self, number: u64, pieces: u64) -> Option<Phase> {
        let (repository, built) = self.declare(number);
        let phase = self.kill(pieces)?;
        let when = format!("push {number}, killed after {pieces} pieces, {phase:?}");
        self.server.assert_whole_below(&repository, &when);
        self.proxy.set(Weather::default());
        self.lab.run(&["push"]).expect(0, &[]);
        self.server.assert_whole_below(&repository, &when);
        let tags = self.server.tags(&repository);
        for (name, digest) in ["one", "two"].iter().zip(&built) {
            let tag = tags.iter().find(|(tag, _)| tag == name);
            let named = tag.map(|tag| tag.1.to_string());
            assert_eq!(named.as_ref(), Some(digest), "{name} {when}");
        }
        let ran = self.lab.run(&["find", "--json"]).expect(0, &[]);
        for digest in &built {
            assert!(ran.out.contains(digest), "{when}: {}", ran.out);
        }
        assert_eq!(self.lab.build(), built, "the store is as it was, {when}");
        Some(phase)
    }
}

#[test]
fn a_killed_push_is_made_up_for_by_the_next() {
    let server = Server::docker_registry(Options {
        login: true,
        delete: false,
    });
    let index = lab::index();
    let seed = Random::seeded("killed pushes").0;
    let phases: Mutex<BTreeMap<Phase, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let proxy = Proxy::start(server.address(), slow());
            let lab = lab::project(proxy.address(), &index, "");
            let bench = Bench {
                server: &server,
                proxy,
                lab,
            };
            let phases = &phases;
            scope.spawn(move || {
                let mut numbers = (thread as u64..).step_by(THREADS);
                bench.declare(numbers.next().unwrap());
                bench.lab.run(&["push"]).expect(0, &[]);
                let all = bench.proxy.pieces();
                let mut random = Random(seed ^ thread as u64 | 1);
                for kill in 0..KILLS {
                    // One in each equal part of a push; earlier, if that one has fewer pieces.
                    let mut pieces = all * kill / KILLS + random.next() % (all / KILLS).max(1);
                    let phase = loop {
                        match bench.round(numbers.next().unwrap(), pieces) {
                            Some(phase) => break phase,
                            None => pieces = pieces * 9 / 10,
                        }
                    };
                    *phases.lock().unwrap().entry(phase).or_default() += 1;
                }
            });
        }
    });
    let phases = phases.into_inner().unwrap();
    eprintln!("killed: {phases:?}");
    assert_eq!(phases.values().sum::<u64>(), KILLS * THREADS as u64);
    for (phase, least) in [(Phase::Sending, 10), (Phase::Between, 1), (Phase::Named, 1)] {
        let count = phases.get(&phase).copied().unwrap_or_default();
        assert!(count >= least, "{phase:?}: {phases:?}");
    }
}
