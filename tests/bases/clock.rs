//! The same packages under another clock, in another store: the same layer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use imagewright::digest::Digest;
use imagewright::layer::debian::{
    DebianRequest, Sandbox, SandboxError, SandboxExit, SandboxJob, build_base, build_os,
};
use imagewright::layer::tree;
use imagewright::layer::{Layer, debian};
use imagewright::manifest::builtin_names;
use imagewright::progress::Silent;
use imagewright::runtime::{
    Cancel, ContainerSpec, Embedded, Limits, Network, Outcome, Output, Privileges, Runtime,
};
use imagewright::store::Store;

use crate::support::{
    LockedLayer, PROGRAM, WITH_OWN, base_layer, locked, project, share_downloads,
};

const HOUR: u64 = 3600;
const FORTY_DAYS: u64 = 40 * 24 * HOUR;

/// The embedded runtime with a clock that is ahead: every program in it loads libfaketime.
struct Shifted {
    runtime: Embedded,
    /// Holds the library where the layer's own tools lie, in a folder that is part of no layer.
    library: tempfile::TempDir,
    ahead: u64,
    output: Mutex<Vec<u8>>,
}

const FOLDER: &str = ".imagewright";
const LIBRARY: &str = "libfaketime.so.1";

impl Shifted {
    fn new(store: &Store, ahead: u64) -> Self {
        let library = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(library.path().join(FOLDER)).unwrap();
        let installed = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
            .map(|triplet| format!("/usr/lib/{triplet}/faketime/{LIBRARY}"))
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("these tests need the package faketime");
        fs::copy(installed, library.path().join(FOLDER).join(LIBRARY)).unwrap();
        Self {
            runtime: Embedded::with_helper(store.scratch().path(), Path::new(PROGRAM)),
            library,
            ahead,
            output: Mutex::default(),
        }
    }

    /// Fails unless the programs in the sandbox saw the other clock, from the first to the last.
    fn assert_shifted(&self, begun: u64) {
        let output = self.output.lock().unwrap();
        let text = String::from_utf8_lossy(&output);
        for moment in ["first", "last"] {
            let seen = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("clock {moment} ")));
            let seen: u64 = seen.expect(&text).parse().unwrap();
            let wanted = begun + self.ahead..=now() + self.ahead;
            assert!(wanted.contains(&seen), "{moment}: {seen}, not {wanted:?}");
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

struct Both<'a>(&'a (dyn Fn(&[u8]) + Sync));

impl Output for Both<'_> {
    fn stdout(&self, bytes: &[u8]) {
        (self.0)(bytes);
    }
    fn stderr(&self, bytes: &[u8]) {
        (self.0)(bytes);
    }
}

impl Sandbox for Shifted {
    fn run(
        &self,
        job: &SandboxJob,
        output: &(dyn Fn(&[u8]) + Sync),
    ) -> Result<SandboxExit, SandboxError> {
        let script = "echo clock first $(date +%s); \"$@\"; code=$?; echo clock last $(date +%s); exit $code";
        let mut argv: Vec<String> = ["/bin/sh", "-c", script, "sh"].map(Into::into).into();
        argv.extend(job.argv.iter().cloned());
        let mut lower = job.lower.clone();
        lower.push(self.library.path().into());
        let mut env = job.env.clone();
        for (name, value) in [
            ("LD_PRELOAD", format!("/{FOLDER}/{LIBRARY}")),
            ("FAKETIME", format!("+{}", self.ahead)),
            // The kernel stamps files by its own clock, and programs shall see those stamps.
            ("NO_FAKE_STAT", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ] {
            env.insert(name.into(), value);
        }
        let spec = ContainerSpec {
            id: format!("clock-{}-{}", std::process::id(), self.ahead),
            lower,
            upper: Some(job.upper.clone()),
            argv,
            env,
            cwd: "/".into(),
            uid: 0,
            gid: 0,
            hostname: "imagewright".into(),
            mounts: Vec::new(),
            limits: Limits::default(),
            network: Network::None,
            privileges: Privileges::Dpkg,
            read_only: false,
        };
        let keep = |bytes: &[u8]| {
            self.output.lock().unwrap().extend_from_slice(bytes);
            output(bytes);
        };
        let ended = self.runtime.run(&spec, &Both(&keep), &Cancel::new());
        match ended.unwrap().outcome {
            Outcome::Exited(code) => Ok(SandboxExit { code }),
            other => panic!("{other:?}"),
        }
    }
}

fn empty_store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Store::open(folder.path()).unwrap();
    share_downloads(&project().store(), &store);
    (folder, store)
}

/// Builds the layer `ahead` seconds later, in a store of its own, and compares it with the one that the program built.
fn assert_same(wanted: &DebianRequest<'_>, recorded: Digest, lower: &[PathBuf], ahead: u64) {
    let first = debian::known(&project().store(), &wanted.key())
        .unwrap()
        .expect("the program's key of this layer");
    assert_eq!(first.diff_id, recorded);
    let (_folder, store) = empty_store();
    let sandbox = Shifted::new(&store, ahead);
    let begun = now();
    let built = if lower.is_empty() {
        build_base(&store, &sandbox, wanted, &Silent)
    } else {
        build_os(&store, &sandbox, wanted, lower, &Silent)
    };
    let second = built.unwrap().layer;
    sandbox.assert_shifted(begun);
    if (second.diff_id, second.digest) != (first.diff_id, first.digest) {
        let differing = difference(&project().store(), &first, &store, &second);
        panic!("{} s ahead, {}:\n{differing}", ahead, wanted.comment);
    }
}

/// What diff says of the contents of both layers, and the lines in which their listings differ.
fn difference(store: &Store, first: &Layer, other: &Store, second: &Layer) -> String {
    let trees = [tree::unpack(store, first), tree::unpack(other, second)].map(Result::unwrap);
    let output = Command::new("diff")
        .args(["-r", "--no-dereference", "--brief"])
        .args(&trees)
        .output();
    let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
    let listing = |store: &Store, layer: &Layer| {
        let output = Command::new("tar")
            .args(["--numeric-owner", "--full-time", "--utc", "-tvzf"])
            .arg(store.blob_path(&layer.digest))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (a, b) = (listing(store, first), listing(other, second));
    let only = |a: &str, b: &str, mark: &str| {
        let known: std::collections::BTreeSet<&str> = b.lines().collect();
        a.lines()
            .filter(|line| !known.contains(line))
            .map(|line| format!("{mark} {line}\n"))
            .collect::<String>()
    };
    text + &only(&a, &b, "-") + &only(&b, &a, "+")
}

fn request<'a>(layer: &LockedLayer<'a>) -> DebianRequest<'a> {
    DebianRequest {
        architecture: "amd64",
        comment: format!("{} packages", layer.debs.len()),
        debs: layer.debs.clone(),
        epoch: layer.epoch,
        parents: Vec::new(),
        expected: None,
    }
}

#[test]
fn no_built_in_base_shows_the_clock() {
    let lock = project().lock();
    let mut done: Vec<Digest> = Vec::new();
    for base in builtin_names() {
        let layer = base_layer(&lock, base);
        let request = request(&layer);
        // Bases of the same packages are one layer.
        if done.contains(&request.key()) {
            continue;
        }
        done.push(request.key());
        for ahead in [HOUR, FORTY_DAYS] {
            assert_same(&request, layer.diff_id, &[], ahead);
        }
    }
    assert_eq!(
        done.len(),
        1,
        "the built-in bases share their layer of Debian"
    );
}

#[test]
fn own_packages_do_not_show_the_clock() {
    let lock = project().lock();
    let image = locked(&lock, WITH_OWN);
    let base = base_layer(&lock, WITH_OWN);
    let debs: Vec<_> = image.debs.iter().map(|id| &lock.debs[id]).collect();
    let request = DebianRequest {
        architecture: "amd64",
        comment: format!("{} packages above the base", debs.len()),
        debs,
        epoch: base.epoch,
        parents: vec![base.diff_id],
        expected: None,
    };
    let store = project().store();
    let below = debian::known(&store, &self::request(&base).key());
    let lower = [tree::unpack(&store, &below.unwrap().unwrap()).unwrap()];
    let recorded = image.os_diff_id.unwrap();
    for ahead in [HOUR, FORTY_DAYS] {
        assert_same(&request, recorded, &lower, ahead);
    }
}
