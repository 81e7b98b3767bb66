//! Many processes on one store.

use std::time::Duration;

use crate::lab::Lab;
use crate::server::Server;
use crate::traces;
use crate::wares::wheel;

const PATIENCE: Duration = Duration::from_secs(120);

fn index() -> Server {
    Server::with(&[
        wheel("alpha", "1.0", &["beta"], 60, 20_000),
        wheel("beta", "2.0", &[], 4, 900_000),
        wheel("gamma", "3.0", &["beta", "delta"], 200, 1_000),
        wheel("delta", "0.1", &[], 2, 100),
    ])
}

const IMAGES: [&str; 3] = [
    "image \"one\" base=\"small\" { pip \"alpha\"; }",
    "image \"two\" base=\"small\" { pip \"gamma\"; }",
    "image \"three\" base=\"small\" { pip \"alpha\"; pip \"gamma\"; }",
];

fn manifest(number: usize) -> String {
    // Each has two of the images, in another order.
    let (first, second) = (IMAGES[number % 3], IMAGES[(number + 1) % 3]);
    format!("base \"small\" {{ from \"oci:../base:busybox\"; }}\n{first}\n{second}\n")
}

/// A lab that works in the store of another.
fn beside(lab: &Lab, server: &Server, manifest: &str) -> Lab {
    Lab::with(manifest)
        .env("PIP_INDEX_URL", &server.index())
        .env(
            "IMAGEWRIGHT_STORE",
            &lab.path("store").display().to_string(),
        )
}

#[test]
fn six_builds_at_a_time_on_an_empty_store_agree() {
    let server = index();
    let expected: Vec<Vec<String>> = (0..3)
        .map(|number| {
            Lab::with(&manifest(number))
                .env("PIP_INDEX_URL", &server.index())
                .build()
        })
        .collect();
    for _ in 0..3 {
        let lab = Lab::new();
        let labs: Vec<Lab> = (0..3)
            .map(|number| beside(&lab, &server, &manifest(number)))
            .collect();
        // Two in each project: they write the same lock as well.
        let running: Vec<_> = (0..6)
            .map(|number| labs[number % 3].start(&["build", "--json"]))
            .collect();
        for (number, running) in running.into_iter().enumerate() {
            let digests = running.wait(PATIENCE).expect(0, &[]).digests();
            assert_eq!(digests, expected[number % 3], "process {number}");
        }
        for other in &labs {
            traces::assert_none(other, "by builds at the same time");
        }
        traces::assert_none(&lab, "by builds at the same time");
    }
}

#[test]
fn builds_and_tests_at_the_same_time_do_not_disturb_each_other() {
    let server = index();
    let lab = Lab::new();
    let run = format!(
        "{}run \"check\" image=\"one\" {{ matrix {{ seed 1 2 3; }}\n env \"MARK\" \"{}\"\n command \"sh\" \"-c\" \"sleep 0.3; ls /opt; : {{seed}}\"\n \
         resources ram=\"64MB\" cpu=\"500m\"; }}",
        manifest(0),
        lab.name()
    );
    let tester = beside(&lab, &server, &run);
    let builder = beside(&lab, &server, &manifest(1));
    let tests: Vec<_> = (0..2)
        .map(|_| tester.start(&["test", "--json", "--rerun"]))
        .collect();
    let builds: Vec<_> = (0..3)
        .map(|_| builder.start(&["build", "--json"]))
        .collect();
    let digests: Vec<_> = builds
        .into_iter()
        .map(|build| build.wait(PATIENCE).expect(0, &[]).digests())
        .collect();
    assert!(digests.iter().all(|found| *found == digests[0]));
    for test in tests {
        let ran = test.wait(PATIENCE).expect(0, &[]);
        assert_eq!(ran.out.matches("\"SUCCEEDED\"").count(), 3, "{}", ran.out);
    }
    for lab in [&lab, &tester, &builder] {
        traces::assert_none(lab, "by builds and tests at the same time");
    }
}
