//! The solver against apt: the same packages in the same versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use imagewright::resolve::debian::{BaseRequest, resolve_base};

use crate::support::{SUITE, cache, debian, host_ambient, os, run, shared_store, suite};

/// Package sets that users ask for.
const SETS: [&[&str]; 12] = [
    &[],
    &["vim"],
    &["default-jre-headless"],
    &["gcc"],
    &["git"],
    &["postgresql-client"],
    &["libgomp1"],
    &["fontconfig"],
    &["ssl-cert", "dbus"],
    &["texlive-latex-base"],
    &["build-essential", "python3-numpy", "ca-certificates"],
    &["ffmpeg", "libgl1", "openssh-server"],
];

/// apt's options for an own, current index and an empty system.
fn apt() -> Vec<String> {
    let root = cache("apt");
    for folder in ["lists/partial", "archives/partial", "etc"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let mut sources = String::new();
    for (name, mirrors) in host_ambient().debian_mirrors {
        if name == SUITE || name.starts_with(&format!("{SUITE}-")) {
            for mirror in mirrors {
                sources += &format!("deb {mirror} {name} main\n");
            }
        }
    }
    fs::write(root.join("etc/sources.list"), sources).unwrap();
    let at = |option: &str, path: &str| format!("{option}={}", root.join(path).display());
    vec![
        at("Dir::Etc::sourcelist", "etc/sources.list"),
        "Dir::Etc::sourceparts=/dev/null".into(),
        at("Dir::State::lists", "lists"),
        at("Dir::Cache", ""),
        "Dir::State::status=/dev/null".into(),
        "APT::Install-Recommends=false".into(),
        "APT::Sandbox::User=root".into(),
        "Debug::NoLocking=true".into(),
    ]
}

fn apt_get(options: &[String], arguments: &[&str]) -> String {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C").env_remove("APT_CONFIG");
    for option in options {
        command.args(["-o", option]);
    }
    run(command.args(arguments))
}

#[test]
fn chooses_what_apt_chooses() {
    let universe = debian(&shared_store());
    let options = apt();
    apt_get(&options, &["update"]);
    let mut failures = Vec::new();
    for set in SETS {
        let mut arguments = vec!["-s", "install", "?essential", "?priority(required)"];
        arguments.extend(["usr-is-merged", "python3"]);
        arguments.extend(set);
        let expected: BTreeSet<String> = apt_get(&options, &arguments)
            .lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                format!("{} {}", words[0], words[1].trim_start_matches('('))
            })
            .collect();
        assert!(expected.len() > 90, "{expected:?}");
        let request = BaseRequest {
            suite: &suite(),
            os: &os(set),
            python: None,
        };
        let solution = resolve_base(&universe, &request, &BTreeMap::new()).unwrap();
        let found: BTreeSet<String> = solution
            .debs
            .iter()
            .map(|deb| format!("{} {}", deb.package, deb.version))
            .collect();
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| {
            a.difference(b).cloned().collect::<Vec<_>>()
        };
        if found != expected {
            failures.push(format!(
                "{set:?}: only here {:?}, only apt {:?}",
                only(&found, &expected),
                only(&expected, &found)
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
