//! kill -9 at any moment of a push: no tag ever names what is not there, and the next push completes.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::faults::{Proxy, Weather};
use crate::lab::{self, Lab, Options, Server};
use crate::wares::Random;

const KILLS: u32 = 50;

/// Slow enough that kills hit every phase of a push.
fn slow() -> Weather {
    Weather {
        slowness: Duration::from_millis(4),
        ..Weather::default()
    }
}

/// Makes the images, and therefore all that is to be pushed, others than those of every other number.
fn renew(lab: &Lab, number: u32) {
    let mut random = Random(u64::from(number) * 31 + 7);
    let noise: Vec<u8> = (0..40_000)
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    lab.write("src/noise.bin", noise);
    lab.write("src/number.txt", number.to_string());
}

#[test]
fn a_killed_push_is_made_up_for_by_the_next() {
    let server = Server::docker_registry(Options {
        login: true,
        delete: false,
    });
    let proxy = Proxy::start(server.address(), slow());
    let index = lab::index();
    let lab = lab::project(proxy.address(), &index, "");
    let declare = |number: u32| {
        renew(&lab, number);
        let images = "image \"one\" base=\"small\" { pip \"alpha\"; file \"src/\" to=\"/app\"; }\nimage \"two\" base=\"small\" { pip \"gamma\"; file \"src/number.txt\" to=\"/app/\"; }";
        let manifest = lab::manifest(proxy.address(), images);
        // A repository of its own: everything has to be pushed again.
        let own = format!("{}/killed-{number}", lab::PREFIX);
        lab.write("imagewright.kdl", manifest.replace(lab::PREFIX, &own));
        let built = lab.build();
        (own, built)
    };
    declare(KILLS);
    let started = Instant::now();
    lab.run(&["push"]).expect(0, &[]);
    let whole = started.elapsed();

    let mut random = Random::seeded("push");
    let (mut killed, mut missed) = (0, 0);
    for (number, mut moment) in (0..).zip(random.moments(KILLS, whole)) {
        let (repository, built) = declare(number);
        let when = format!("killed after {moment:?}");
        loop {
            proxy.set(slow());
            let running = lab.start(&["push"]);
            std::thread::sleep(moment);
            running.signal(Signal::KILL);
            if running.wait(Duration::from_secs(5)).code.is_none() {
                killed += 1;
                break;
            }
            // It had ended: an earlier moment, and the same again in another repository would be one more build.
            missed += 1;
            moment = moment.mul_f64(0.6);
            if missed > KILLS {
                break;
            }
        }
        let below = |name: &String| name.starts_with(&repository);
        for found in server.repositories().iter().filter(|name| below(name)) {
            server.assert_whole_repository(found, &when);
        }
        proxy.set(Weather::default());
        lab.run(&["push"]).expect(0, &[]);
        for found in server.repositories().iter().filter(|name| below(name)) {
            server.assert_whole_repository(found, &when);
        }
        let tags = server.tags(&repository);
        for (name, digest) in ["one", "two"].iter().zip(&built) {
            let tag = tags.iter().find(|(tag, _)| tag == name);
            let named = tag.map(|tag| tag.1.to_string());
            assert_eq!(named.as_ref(), Some(digest), "{name} {when}");
        }
        let ran = lab.run(&["find", "--json"]).expect(0, &[]);
        for digest in &built {
            assert!(ran.out.contains(digest), "{when}: {}", ran.out);
        }
    }
    assert!(
        killed >= KILLS * 4 / 5,
        "{killed} killed, {missed} had ended before"
    );
}
