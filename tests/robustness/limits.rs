//! Runs that mean harm: each ends within its limits with a clear reason, and the machine stays as it was.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Lab, size_of};
use crate::traces;

/// `(name, limits, script)`.
const RUNS: [(&str, &str, &str); 10] = [
    (
        "forks",
        "timeout \"3s\"",
        "bomb() { bomb | bomb & }; bomb; sleep 100",
    ),
    ("memory", "timeout \"60s\"", "exec tail -c 400m /dev/zero"),
    (
        "stubborn",
        "timeout \"1s\"",
        "trap '' TERM INT HUP; while :; do sleep 0.1; done",
    ),
    (
        "logs",
        "timeout \"8s\"",
        "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 10000000000",
    ),
    (
        "broken",
        "timeout \"60s\"",
        "echo '<testsuites><testsuite name=' > /results/junit.xml",
    ),
    (
        "many",
        "timeout \"100s\"",
        "cd /results; seq 200000 | xargs touch; echo '<testsuite name=\"s\"><testcase name=\"t\"/></testsuite>' > junit.xml",
    ),
    (
        "link",
        "timeout \"60s\"",
        "ln -s /etc/shadow /results/junit.xml",
    ),
    (
        "hard",
        "timeout \"60s\"",
        "echo '<testsuites/>' > /results/x.xml; ln /results/x.xml /results/junit.xml",
    ),
    ("pipe", "timeout \"60s\"", "mkfifo /results/junit.xml"),
    (
        "good",
        "timeout \"60s\"",
        "echo '<testsuite name=\"s\"><testcase name=\"t\"/></testsuite>' > /results/junit.xml",
    ),
];

fn manifest(lab: &Lab) -> String {
    let mut text = String::from(
        "base \"small\" { from \"oci:../base:busybox\"; }\nimage \"app\" base=\"small\"\n",
    );
    for (name, limits, script) in RUNS {
        let script = script
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('{', "{{")
            .replace('}', "}}");
        text += &format!(
            "run \"{name}\" image=\"app\" {{ env \"MARK\" \"{}\"; command \"sh\" \"-c\" \"{script}\"\n {limits}\n \
             resources ram=\"64MB\" cpu=\"1000m\" pids=200; }}\n",
            lab.name()
        );
    }
    text
}

#[test]
fn harmful_runs_fail_with_a_reason_and_leave_the_machine_as_it_was() {
    let lab = Lab::new();
    lab.write("imagewright.kdl", manifest(&lab));
    let expected = lab.build();
    let ran = lab.run(&["--jobs", "3", "test", "--json"]).expect(1, &[]);
    assert!(ran.elapsed < Duration::from_secs(150), "{:?}", ran.elapsed);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let runs: BTreeMap<&str, &Value> = report["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (run["summary"]["name"].as_str().unwrap(), run))
        .collect();
    let told = |name: &str| {
        let run = runs[name];
        format!(
            "{} {} {}",
            run["summary"]["state"], run["summary"]["reason"], run["warnings"]
        )
    };
    for (name, words) in [
        ("forks", "\"FAILED\" \"timed out\""),
        ("memory", "\"FAILED\" \"out of memory\""),
        ("stubborn", "\"FAILED\" \"timed out\""),
        ("logs", "the log of stdout was cut"),
        ("broken", "\"FAILED\" \"unreadable results: junit.xml"),
        (
            "many",
            "\"SUCCEEDED\" null [\" was not taken: the folder has more than 10000 entries",
        ),
        (
            "link",
            "junit.xml was not taken: it is neither a regular file nor a folder",
        ),
        ("hard", "junit.xml was not taken: it is a hard link"),
        (
            "pipe",
            "junit.xml was not taken: it is neither a regular file nor a folder",
        ),
        ("good", "\"SUCCEEDED\" null []"),
    ] {
        assert!(told(name).contains(words), "{name}: {}", told(name));
    }
    for name in ["link", "hard", "pipe"] {
        assert!(
            told(name).starts_with("\"FAILED\" \"unreadable results"),
            "{name}: {}",
            told(name)
        );
    }
    for name in ["many", "good"] {
        assert_eq!(
            runs[name]["cases"].as_array().map(Vec::len),
            Some(1),
            "{name}"
        );
    }
    let kept = size_of(&lab.store().join("runs"));
    assert!(kept < 150 << 20, "{kept} bytes of logs and results");
    traces::assert_none(&lab, "by harmful runs");
    assert_eq!(lab.build(), expected);
}
