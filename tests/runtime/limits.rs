//! Memory, processes, time, cancelling: a container is held to its limits and leaves nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use imagewright::runtime::{Cancel, Embedded, Outcome, Runtime};

use crate::support::{Bench, Recorder};

const MIB: u64 = 1 << 20;

#[test]
fn memory_beyond_the_limit_is_told_as_such() {
    let bench = Bench::new();
    let mut spec = bench.spec("head -c 200m /dev/zero | tail -c 190m | wc -c");
    spec.limits.memory_bytes = Some(64 * MIB);
    let (ended, said) = bench.run(&spec).unwrap();
    // The shell's own end depends on which process of the pipe the kernel chose.
    assert_ne!(said.out(), "199229440\n");
    assert!(ended.peak_memory_bytes.unwrap() >= 60 * MIB);
    let mut spec = bench.spec("exec tail -c 190m /dev/zero");
    spec.limits.memory_bytes = Some(64 * MIB);
    assert_eq!(bench.run(&spec).unwrap().0.outcome, Outcome::OutOfMemory);
}

#[test]
fn files_in_tmp_count_and_are_capped() {
    let bench = Bench::new();
    let mut spec = bench.spec("head -c 100m /dev/zero > /tmp/big; stat -c %s /tmp/big");
    spec.limits.memory_bytes = Some(64 * MIB);
    assert_eq!(bench.says(&spec), format!("{}\n", 32 * MIB));
}

#[test]
fn a_fork_bomb_is_contained_and_ends_at_the_time_limit() {
    let bench = Bench::new();
    let mut spec = bench.spec("bomb() { bomb | bomb & }; bomb; sleep 100");
    spec.limits.pids = Some(50);
    spec.limits.timeout_ms = Some(1500);
    let started = Instant::now();
    let (ended, _) = bench.run(&spec).unwrap();
    assert_eq!(ended.outcome, Outcome::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(8));
    assert_nothing_left(&spec.id);
}

#[test]
fn processes_beyond_the_limit_are_refused() {
    let bench = Bench::new();
    let mut spec = bench.spec("for i in $(seq 40); do sleep 5 & done; echo started");
    spec.limits.pids = Some(20);
    let (ended, said) = bench.run(&spec).unwrap();
    assert_ne!(ended.outcome, Outcome::Exited(0), "{}", said.out());
    assert!(said.err().contains("fork"), "{}", said.err());
}

#[test]
fn cpu_time_is_limited() {
    let bench = Bench::new();
    let mut spec = bench
        .spec("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; cat /proc/self/stat >/dev/null");
    let free = bench.run(&spec).unwrap().0.elapsed;
    spec.limits.cpu_millis = Some(100);
    let held = bench.run(&spec).unwrap().0.elapsed;
    assert!(held > free * 3, "{held:?} is not much more than {free:?}");
}

#[test]
fn a_process_that_ignores_sigterm_is_killed() {
    let bench = Bench::new();
    let mut spec = bench.spec("trap '' TERM; while :; do sleep 0.1; done");
    spec.limits.timeout_ms = Some(300);
    let started = Instant::now();
    assert_eq!(bench.run(&spec).unwrap().0.outcome, Outcome::TimedOut);
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(2) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[test]
fn a_process_that_minds_sigterm_may_clean_up() {
    let bench = Bench::new();
    let mut spec = bench.spec("trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.1; done");
    // Long enough for a shell on a busy machine to get to its trap.
    spec.limits.timeout_ms = Some(1000);
    let started = Instant::now();
    let (ended, said) = bench.run(&spec).unwrap();
    assert_eq!(
        (ended.outcome, said.out().as_str()),
        (Outcome::TimedOut, "cleaned\n")
    );
    assert!(
        started.elapsed() < Duration::from_millis(2900),
        "nobody waits for it to be killed"
    );
}

#[test]
fn cancelling_ends_it() {
    let bench = Bench::new();
    let spec = bench.spec("sleep 1000 & sleep 1000");
    let cancel = Cancel::new();
    let ended = std::thread::scope(|scope| {
        let run = scope.spawn(|| bench.runtime.run(&spec, &Recorder::default(), &cancel));
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel();
        run.join().unwrap().unwrap()
    });
    assert_eq!(ended.outcome, Outcome::Cancelled);
    assert_nothing_left(&spec.id);
}

#[test]
fn a_background_process_does_not_outlive_the_first_one() {
    let bench = Bench::new();
    let spec = bench.spec("(trap '' TERM HUP; sleep 98765) & echo on");
    let started = Instant::now();
    assert_eq!(bench.says(&spec), "on\n");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_nothing_left(&spec.id);
}

/// What this test binary does when it is started by the next test: runs a container until it is killed.
#[test]
#[ignore = "a helper of `killing_the_caller_leaves_nothing`"]
fn runs_forever() {
    let Ok(ready) = std::env::var("RUNTIME_TEST_READY") else {
        return;
    };
    let bench = Bench::new();
    let mut spec = bench.spec("touch /ready/now; sleep 54321 & sleep 54321");
    spec.id = "killed-caller".into();
    spec.uid = 0;
    spec.limits.memory_bytes = Some(64 * MIB);
    spec.mounts = vec![imagewright::runtime::BindMount {
        host: ready.into(),
        target: "/ready".into(),
        writable: true,
    }];
    let _ = bench.run(&spec);
}

#[test]
fn killing_the_caller_leaves_nothing() {
    let ready = tempfile::tempdir().unwrap();
    let caller = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "limits::runs_forever"])
        .env("RUNTIME_TEST_READY", ready.path())
        .env("TMPDIR", ready.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .map(Killed)
        .unwrap();
    wait_until(|| ready.path().join("now").exists());
    wait_until(|| processes_with("54321") > 0);
    drop(caller);
    wait_until(|| processes_with("54321") == 0 && groups_of("killed-caller").is_empty());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(ready.path().to_str().unwrap()));
}

/// Killed with SIGKILL when dropped.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "waited too long"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn processes_with(argument: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| {
            line.split(|b| *b == 0)
                .any(|word| word == argument.as_bytes())
        })
        .count()
}

fn groups_of(id: &str) -> Vec<std::path::PathBuf> {
    walkdir::WalkDir::new("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .map(walkdir::DirEntry::into_path)
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("imagewright-") && name.ends_with(id))
        })
        .collect()
}

fn assert_nothing_left(id: &str) {
    assert_eq!(groups_of(id), Vec::<std::path::PathBuf>::new());
    assert_eq!(processes_with("98765"), 0);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts
            .lines()
            .any(|line| Path::new(line).ends_with("rootfs"))
    );
}

/// Bounded loosely, because machines differ and debug builds are slow.
#[test]
fn starting_is_quick() {
    let bench = Bench::new();
    let mut spec = bench.spec("");
    spec.argv = vec!["true".into()];
    let mut times: Vec<_> = (0..20)
        .map(|_| {
            let started = Instant::now();
            assert_eq!(bench.run(&spec).unwrap().0.outcome, Outcome::Exited(0));
            started.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[10] < Duration::from_millis(250), "{times:?}");
}

#[test]
fn killing_the_helper_is_told_and_swept() {
    let bench = Bench::new();
    let mut spec = bench.spec("sleep 43219");
    spec.limits.memory_bytes = Some(64 * MIB);
    let error = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            bench
                .runtime
                .run(&spec, &Recorder::default(), &Cancel::new())
        });
        wait_until(|| processes_with("43219") > 0);
        let folder = bench.folder.path().join("container-0");
        let helper = process_with_all(&["outer", folder.to_str().unwrap()]);
        rustix::process::kill_process(helper, rustix::process::Signal::KILL).unwrap();
        run.join().unwrap().unwrap_err()
    });
    assert!(error.to_string().contains("signal: 9"), "{error}");
    wait_until(|| processes_with("43219") == 0);
    Embedded::sweep();
    assert_nothing_left(&spec.id);
}

fn process_with_all(words: &[&str]) -> rustix::process::Pid {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let has = |word: &&str| line.split(|b| *b == 0).any(|part| part == word.as_bytes());
            words.iter().all(has).then_some(())?;
            rustix::process::Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)
        })
        .unwrap()
}
