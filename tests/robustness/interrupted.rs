//! SIGINT and SIGTERM: exit code 130, soon, and nothing left behind.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::{Lab, Ran, Running};
use crate::server::Server;
use crate::traces;
use crate::wares::{self, Random, wheel};

const SOON: Duration = Duration::from_secs(5);

/// Sends the signal and waits for the end.
#[track_caller]
fn interrupt(running: Running, signal: Signal) -> Ran {
    let sent = Instant::now();
    running.signal(signal);
    let ran = running.wait(Duration::from_secs(30));
    assert!(sent.elapsed() < SOON, "it took {:?}", sent.elapsed());
    ran
}

#[test]
fn an_interrupted_build_cleans_up_at_once() {
    let server = Server::with(&[
        wheel("alpha", "1.0", &[], 60, 20_000),
        wheel("beta", "1.0", &[], 4, 900_000),
    ]);
    let make = || {
        Lab::with(
            "base \"small\" { from \"oci:../base:busybox\"; }\nimage \"app\" base=\"small\" { pip \"alpha\"; pip \"beta\"; }",
        )
        .env("PIP_INDEX_URL", &server.index())
    };
    let lab = make();
    let started = Instant::now();
    let expected = lab.build();
    let whole = started.elapsed();
    let mut interrupted = 0;
    for (number, moment) in Random::seeded("interrupt")
        .moments(8, whole)
        .into_iter()
        .enumerate()
    {
        let lab = make();
        let running = lab.start(&["build"]);
        // Before a program has asked for signals they end it as they end any.
        std::thread::sleep(moment.max(Duration::from_millis(60)));
        let signal = if number % 2 == 0 {
            Signal::INT
        } else {
            Signal::TERM
        };
        let ran = interrupt(running, signal);
        if ran.code != Some(0) {
            interrupted += 1;
            ran.expect(130, &[]);
        }
        traces::assert_none(&lab, &format!("by a build interrupted after {moment:?}"));
        assert_eq!(lab.build(), expected);
    }
    assert!(interrupted > 3);
}

#[test]
fn an_interrupted_os_layer_cleans_up_at_once() {
    let lab = Lab::with(
        "base \"small\" { from \"oci:../debian:debian\"; }\nimage \"own\" base=\"small\" { os \"tree\"; }",
    );
    std::os::unix::fs::symlink(wares::debian_base(), lab.path("debian")).unwrap();
    lab.run(&["lock"]).expect(0, &[]);
    let mut running = lab.start(&["build"]);
    let dpkg = || {
        traces::groups(&lab)
            .iter()
            .any(|line| line.contains("dpkg-"))
    };
    assert!(running.until(dpkg), "no container was seen");
    interrupt(running, Signal::INT).expect(130, &["interrupted while dpkg ran"]);
    traces::assert_none(&lab, "by an interrupted build");
    lab.build();
}

#[test]
fn an_interrupted_test_ends_children_that_ignore_signals() {
    let lab = Lab::new();
    let script = "trap '' TERM INT; (trap '' TERM INT; sleep 300) & setsid sleep 300 & echo up; sleep 300; sleep 300";
    lab.write(
        "imagewright.kdl",
        format!(
            "base \"small\" {{ from \"oci:../base:busybox\"; }}\nimage \"app\" base=\"small\"\n\
             run \"stubborn\" image=\"app\" {{ matrix {{ seed 1 2 3; }}\n env \"MARK\" \"{}\"\n command \"sh\" \"-c\" \"{script}\"\n \
             resources ram=\"64MB\" cpu=\"500m\"; env \"SEED\" \"{{seed}}\"; }}",
            lab.name()
        ),
    );
    for signal in [Signal::INT, Signal::TERM] {
        let mut running = lab.start(&["--jobs", "2", "test"]);
        let sleeping = || {
            traces::processes(&lab)
                .iter()
                .filter(|line| line.contains("sleep 300"))
                .count()
                >= 6
        };
        assert!(running.until(sleeping), "{:#?}", traces::processes(&lab));
        interrupt(running, signal).expect(130, &["CANCELLED"]);
        traces::assert_none(&lab, "by an interrupted test");
    }
    let states = lab.rows("SELECT DISTINCT state FROM jobs");
    assert_eq!(states, [["CANCELLED"]]);
}

#[test]
fn an_interrupted_exec_ends_what_it_executes() {
    let lab =
        Lab::with("base \"small\" { from \"oci:../base:busybox\"; }\nimage \"app\" base=\"small\"");
    lab.build();
    let script = format!("trap '' TERM; : {}; sleep 300; sleep 300", lab.name());
    let mut running = lab.start(&["exec", "app", "--", "sh", "-c", &script]);
    let up = || {
        traces::processes(&lab)
            .iter()
            .any(|line| line.contains("trap") && !line.contains("exec app"))
    };
    assert!(running.until(up));
    interrupt(running, Signal::TERM).expect(130, &[]);
    traces::assert_none(&lab, "by an interrupted exec");
}

#[test]
fn an_interrupted_export_leaves_no_half_archive() {
    let server = Server::with(&[wheel("alpha", "1.0", &[], 40, 1_000_000)]);
    let lab = Lab::with(
        "base \"small\" { from \"oci:../base:busybox\"; }\nimage \"app\" base=\"small\" { pip \"alpha\"; }",
    )
    .env("PIP_INDEX_URL", &server.index());
    lab.build();
    std::fs::create_dir(lab.path("out")).unwrap();
    let target = lab.path("out/app.tar").display().to_string();
    let mut running = lab.start(&["export", "app", "--docker-archive", &target]);
    let begun = || std::fs::read_dir(lab.path("out")).unwrap().count() > 0;
    assert!(running.until(begun));
    interrupt(running, Signal::INT).expect(130, &["interrupted"]);
    assert_eq!(std::fs::read_dir(lab.path("out")).unwrap().count(), 0);
    traces::assert_none(&lab, "by an interrupted export");
    lab.run(&["export", "app", "--docker-archive", &target])
        .expect(0, &[]);
}
