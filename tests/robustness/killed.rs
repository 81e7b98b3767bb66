//! kill -9 at any moment: the next call succeeds with the same digest, and nothing is left behind.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::Lab;
use crate::server::Server;
use crate::traces;
use crate::wares::{self, Random, wheel};

/// Moments of a Python build, of tests, of building an OS layer: fifty together.
const BUILDS: u32 = 22;
const TESTS: u32 = 18;
const OS_BUILDS: u32 = 10;

const PYTHON: &str = r#"
base "small" { from "oci:../base:busybox"; }
image "killed" base="small" { pip "alpha"; pip "gamma"; file "src/" to="/app"; user "app" uid=1000; }
image "other" base="small" { pip "gamma"; }
"#;

fn index() -> Server {
    Server::with(&[
        wheel("alpha", "1.0", &["beta"], 60, 20_000),
        wheel("beta", "2.0", &[], 4, 900_000),
        wheel("gamma", "3.0", &["beta", "delta"], 200, 1_000),
        wheel("delta", "0.1", &[], 2, 100),
    ])
}

fn python_lab(server: &Server) -> Lab {
    let lab = Lab::with(PYTHON).env("PIP_INDEX_URL", &server.index());
    for number in 0..20 {
        lab.write(
            &format!("src/module_{number}.py"),
            format!("x = {number}\n").repeat(500),
        );
    }
    lab
}

/// Kills a command after a while; false if it had ended before.
fn kill_after(lab: &Lab, arguments: &[&str], moment: Duration) -> bool {
    let running = lab.start(arguments);
    std::thread::sleep(moment);
    running.signal(Signal::KILL);
    running.wait(Duration::from_secs(5)).code.is_none()
}

/// Calls `at` with moments over the whole of a duration until `count` commands were killed: a machine that has become
/// quicker meanwhile gets earlier moments.
fn kills(what: &str, count: u32, whole: Duration, at: impl Fn(Duration) -> bool) {
    let mut missed = 0;
    for mut moment in Random::seeded(what).moments(count, whole) {
        while !at(moment) {
            missed += 1;
            moment = moment.mul_f64(0.7);
        }
    }
    eprintln!("{what}: {count} killed within {whole:?}, {missed} had ended before");
}

#[test]
fn a_killed_build_is_made_up_for_by_the_next() {
    let server = index();
    let lab = python_lab(&server);
    let started = Instant::now();
    let expected = lab.build();
    let whole = started.elapsed();
    kills("build", BUILDS, whole, |moment| {
        let lab = python_lab(&server);
        let killed = kill_after(&lab, &["build"], moment);
        assert_eq!(lab.build(), expected, "killed after {moment:?}");
        traces::assert_none(&lab, &format!("by a build killed after {moment:?}"));
        killed
    });
}

/// Two runs of two cells, each with a child that ignores SIGTERM and one in a session of its own.
fn test_manifest(lab: &Lab) -> String {
    format!(
        r#"
base "small" {{ from "oci:../base:busybox"; }}
image "tested" base="small" {{ pip "delta"; }}
run "family" image="tested" {{
    matrix {{ seed 1 2; }}
    env "MARK" "{}"
    command "sh" "-c" "trap '' TERM; (trap '' TERM; sleep 0.5) & setsid sleep 0.4 & sleep 0.2; echo {{seed}} > /results/note; wait"
    resources ram="64MB" cpu="500m"
    timeout "20s"
}}
"#,
        lab.name()
    )
}

fn test_lab(server: &Server) -> Lab {
    let lab = Lab::new().env("PIP_INDEX_URL", &server.index());
    lab.write("imagewright.kdl", test_manifest(&lab));
    lab
}

#[test]
fn a_killed_test_leaves_no_container_and_no_half_job() {
    let server = index();
    let lab = test_lab(&server);
    let expected = lab.build();
    let started = Instant::now();
    lab.run(&["test"]).expect(0, &["SUCCEEDED"]);
    // Cells that have succeeded are not executed again, so every moment gets a store of its own.
    let whole = started.elapsed();
    kills("test", TESTS, whole, |moment| {
        let lab = test_lab(&server);
        assert_eq!(lab.build(), expected);
        let killed = kill_after(&lab, &["test"], moment);
        let ran = lab.run(&["test", "--json"]).expect(0, &[]);
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(
            report["runs"].as_array().map(Vec::len),
            Some(2),
            "{}",
            ran.out
        );
        let when = format!("by a test killed after {moment:?}");
        traces::assert_none(&lab, &when);
        for job in lab.rows("SELECT state, reason FROM jobs") {
            let known = [["SUCCEEDED", ""], ["CANCELLED", "imagewright ended"]];
            assert!(
                known.iter().any(|known| known[..] == job[..]),
                "{job:?} {when}"
            );
        }
        assert_eq!(lab.build(), expected, "{when}");
        killed
    });
}

#[test]
fn a_killed_build_of_an_os_layer_is_made_up_for_by_the_next() {
    let lab = Lab::with(
        r#"
base "small" { from "oci:../debian:debian"; }
image "own" base="small" { os "tree"; os "ca-certificates"; }
"#,
    );
    std::os::unix::fs::symlink(wares::debian_base(), lab.path("debian")).unwrap();
    lab.run(&["lock"]).expect(0, &[]);
    lab.build();
    let forget = || forget_os_layers(&lab);
    forget();
    let started = Instant::now();
    let expected = lab.build();
    let whole = started.elapsed();
    kills("OS layer", OS_BUILDS, whole, |moment| {
        forget();
        let killed = kill_after(&lab, &["build"], moment);
        assert_eq!(lab.build(), expected, "killed after {moment:?}");
        traces::assert_none(&lab, &format!("by a build killed after {moment:?}"));
        killed
    });
}

/// Makes the store forget what it built, but not what it fetched: the next build configures the packages again.
fn forget_os_layers(lab: &Lab) {
    let connection = rusqlite::Connection::open(lab.store().join("state.sqlite")).unwrap();
    connection
        .execute_batch("DELETE FROM images; DELETE FROM layers;")
        .unwrap();
}
