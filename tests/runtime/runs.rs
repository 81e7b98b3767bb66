//! Dispatching runs: states, logs, results, and results that attack.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use imagewright::digest::Digest;
use imagewright::manifest::{Network, Platform, Resources};
use imagewright::run::{
    Cell, Finished, Job, LOG_CAP, Options, RunDocument, RunEvent, RunObserver, Stream, dispatch,
};
use imagewright::runtime::{Cancel, Embedded};
use imagewright::store::{JobRow, JobState, Store};

use crate::support::{PROGRAM, busybox_root};

struct Shop {
    folder: tempfile::TempDir,
    store: Store,
    runtime: Embedded,
}

#[derive(Default)]
struct Events(Mutex<Vec<String>>);

impl RunObserver for Events {
    fn event(&self, event: &RunEvent<'_>) {
        let line = match event {
            RunEvent::Started { name, .. } => format!("started {name}"),
            RunEvent::Output {
                name,
                stream,
                bytes,
                ..
            } => {
                let stream = if *stream == Stream::Stdout {
                    "out"
                } else {
                    "err"
                };
                format!(
                    "{name} {stream}: {}",
                    String::from_utf8_lossy(&bytes[..bytes.len().min(50)])
                )
            }
            RunEvent::Ended(finished) => format!(
                "ended {} {}{}",
                finished.results.summary.name,
                finished.results.summary.state.as_str(),
                if finished.reused { " reused" } else { "" }
            ),
        };
        self.0.lock().unwrap().push(line);
    }
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        busybox_root(&folder.path().join("root"));
        let store = Store::open(folder.path()).unwrap();
        let runtime = Embedded::with_helper(store.scratch().path(), Path::new(PROGRAM));
        Self {
            folder,
            store,
            runtime,
        }
    }

    fn job(&self, name: &str, script: &str) -> Job {
        let document = RunDocument {
            v: RunDocument::VERSION,
            image: Digest::of("image"),
            files: None,
            command: vec!["sh".into(), "-c".into(), script.into()],
            env: BTreeMap::new(),
            workdir: None,
            resources: Resources::default(),
            timeout_ms: 60_000,
            platform: Platform::LinuxAmd64,
            network: Network::None,
            cell: BTreeMap::new(),
        };
        Job {
            cell: Cell {
                name: name.into(),
                project: "default".into(),
                key: document.key(),
                document,
            },
            lower: vec![self.folder.path().join("root")],
            env: BTreeMap::from([("PATH".into(), "/bin".into())]),
            uid: 1000,
            gid: 1000,
            workdir: None,
        }
    }

    fn dispatch(&self, jobs: &[Job], events: &Events) -> Vec<Finished> {
        let options = Options {
            parallel: 2,
            rerun: false,
        };
        dispatch(
            &self.store,
            &self.runtime,
            jobs,
            options,
            events,
            &Cancel::new(),
        )
        .unwrap()
    }

    fn one(&self, script: &str) -> Finished {
        self.dispatch(&[self.job("one", script)], &Events::default())
            .remove(0)
    }
}

#[test]
fn keeps_states_logs_and_results_and_reuses_what_succeeded() {
    let shop = Shop::new();
    let jobs = [
        shop.job("good", "echo hello; printf '{\"name\":\"t\",\"status\":\"PASS\"}' > $IMAGEWRIGHT_RESULTS/cases.jsonl"),
        shop.job("bad", "echo oops >&2; exit 3"),
        shop.job("missing", "exec nothing"),
    ];
    let events = Events::default();
    let done = shop.dispatch(&jobs, &events);
    let states: Vec<_> = done
        .iter()
        .map(|f| (f.results.summary.state, f.results.summary.reason.as_deref()))
        .collect();
    assert_eq!(
        states,
        [
            (JobState::Succeeded, None),
            (JobState::Failed, Some("exit code 3")),
            (JobState::Failed, Some("exit code 127"))
        ]
    );
    assert_eq!(
        (done[0].results.summary.total, done[0].results.summary.pass),
        (1, 1)
    );
    let id = &done[0].results.summary.test_run_id;
    let folder = shop.store.run_path(id).unwrap();
    assert_eq!(
        std::fs::read_to_string(folder.join("stdout.log")).unwrap(),
        "hello\n"
    );
    let row = shop.store.state().unwrap().job(id).unwrap().unwrap();
    assert_eq!(row.state, JobState::Succeeded);
    assert!(row.ended_ms.unwrap() >= row.started_ms.unwrap());
    let seen = events.0.into_inner().unwrap();
    for wanted in [
        "started good",
        "good out: hello\n",
        "bad err: oops\n",
        "ended bad FAILED",
    ] {
        assert!(
            seen.iter().any(|line| line == wanted),
            "{wanted:?} in {seen:?}"
        );
    }
    let again = shop.dispatch(&jobs[..2], &Events::default());
    assert!(again[0].reused && !again[1].reused);
    assert_eq!(&again[0].results.summary.test_run_id, id);
    let options = Options {
        parallel: 1,
        rerun: true,
    };
    let forced = dispatch(
        &shop.store,
        &shop.runtime,
        &jobs[..1],
        options,
        &Events::default(),
        &Cancel::new(),
    );
    assert!(!forced.unwrap()[0].reused);
    let mut online = jobs[0].clone();
    online.cell.document.network = Network::Host;
    for _ in 0..2 {
        assert!(!shop.dispatch(&[online.clone()], &Events::default())[0].reused);
    }
}

#[test]
fn a_program_that_does_not_exist_is_an_ended_job_that_says_so() {
    let shop = Shop::new();
    let mut job = shop.job("typo", "");
    job.cell.document.command = vec!["pytset".into()];
    let done = shop.dispatch(&[job], &Events::default()).remove(0);
    assert_eq!(done.results.summary.state, JobState::Failed);
    assert!(done.results.summary.reason.unwrap().contains("`pytset`"));
    assert!(done.error.is_some());
}

#[test]
fn limits_and_time_are_reasons() {
    let shop = Shop::new();
    let mut slow = shop.job("slow", "sleep 100");
    slow.cell.document.timeout_ms = 200;
    let mut big = shop.job("big", "exec tail -c 190m /dev/zero");
    big.cell.document.resources.ram_limit_bytes = 64 << 20;
    let done = shop.dispatch(&[slow, big], &Events::default());
    let reasons: Vec<_> = done
        .iter()
        .map(|f| f.results.summary.reason.as_deref().unwrap())
        .collect();
    assert_eq!(reasons, ["timed out", "out of memory"]);
}

#[test]
fn ten_gigabytes_of_output_end_in_a_small_log() {
    let shop = Shop::new();
    let done = shop.one("dd if=/dev/zero bs=1M count=10240; echo end >&2");
    let summary = &done.results.summary;
    assert_eq!(summary.state, JobState::Succeeded);
    assert!(
        done.results.warnings[0].contains("stdout was cut"),
        "{:?}",
        done.results.warnings
    );
    let log = shop
        .store
        .run_path(&summary.test_run_id)
        .unwrap()
        .join("stdout.log");
    let size = std::fs::metadata(log).unwrap().len();
    assert!(size > LOG_CAP && size < LOG_CAP + 1000, "{size}");
}

#[test]
fn links_pipes_and_deep_or_many_files_are_not_taken() {
    let shop = Shop::new();
    let script = "cd /results
        ln -s /etc/shadow junit.xml
        ln -s / everything
        mkfifo pipe
        echo a > real; echo b > once; ln once twice
        mkdir ok; echo c > ok/file
        d=.; for i in $(seq 30); do d=$d/d; done; mkdir -p $d; echo deep > $d/file
        head -c 300m /dev/zero > huge
        chmod 000 real";
    let done = shop.one(script);
    let results = &done.results;
    assert_eq!(results.summary.state, JobState::Failed);
    assert_eq!(
        results.summary.reason.as_deref(),
        Some(
            "unreadable results: junit.xml was not taken: it is neither a regular file nor a folder"
        )
    );
    assert_eq!(results.files, ["ok/file", "real"]);
    let warned = results.warnings.join("\n");
    for name in ["everything", "pipe", "once", "twice", "huge", "16 deep"] {
        assert!(warned.contains(name), "{name} in {warned}");
    }
    let folder = shop
        .store
        .run_path(&results.summary.test_run_id)
        .unwrap()
        .join("results");
    assert!(!folder.join("junit.xml").exists());
}

#[test]
fn a_flood_of_files_keeps_the_results_and_is_cut() {
    let shop = Shop::new();
    let script = "cd /results; i=0; while [ $i -lt 30000 ]; do : > f$i; i=$((i+1)); done
        printf '<testsuite><testcase name=\"a\"/></testsuite>' > junit.xml";
    let done = shop.one(script);
    assert_eq!(
        done.results.summary.state,
        JobState::Succeeded,
        "{:?}",
        done.results.warnings
    );
    assert_eq!(done.results.summary.total, 1);
    assert!(done.results.files.len() <= 10_000);
    assert!(
        done.results.warnings[0].contains("more than 10000"),
        "{:?}",
        done.results.warnings
    );
    let scratch = std::fs::read_dir(shop.store.scratch().path())
        .unwrap()
        .count();
    assert_eq!(scratch, 0, "nothing stays behind");
}

#[test]
fn broken_results_fail_the_run_and_name_the_line() {
    let shop = Shop::new();
    let done = shop.one("printf '<testsuite>\\n<testcase' > /results/junit.xml");
    assert_eq!(done.results.summary.state, JobState::Failed);
    let reason = done.results.summary.reason.unwrap();
    assert!(reason.contains("junit.xml, line 2"), "{reason}");
}

#[test]
fn jobs_of_dead_owners_are_cancelled() {
    let shop = Shop::new();
    let state = shop.store.state().unwrap();
    let row = JobRow {
        id: "jdead".into(),
        name: "dead".into(),
        project: "default".into(),
        key: Digest::of("dead"),
        state: JobState::Running,
        reason: None,
        started_ms: Some(1),
        ended_ms: None,
        results: None,
    };
    state.put_job(&row).unwrap();
    shop.one("true");
    let row = state.job("jdead").unwrap().unwrap();
    assert_eq!(
        (row.state, row.reason.as_deref()),
        (JobState::Cancelled, Some("imagewright ended"))
    );
}

#[test]
fn cancelling_ends_running_jobs_and_starts_no_others() {
    let shop = Shop::new();
    let jobs: Vec<_> = (0..4)
        .map(|n| shop.job(&format!("r{n}"), "sleep 300"))
        .collect();
    let cancel = Cancel::new();
    let options = Options {
        parallel: 2,
        rerun: false,
    };
    let events = Events::default();
    let done = std::thread::scope(|scope| {
        let work =
            scope.spawn(|| dispatch(&shop.store, &shop.runtime, &jobs, options, &events, &cancel));
        std::thread::sleep(std::time::Duration::from_millis(500));
        cancel.cancel();
        work.join().unwrap().unwrap()
    });
    assert!(
        done.iter()
            .all(|f| f.results.summary.state == JobState::Cancelled)
    );
    assert_eq!(
        events
            .0
            .lock()
            .unwrap()
            .iter()
            .filter(|l| l.starts_with("started"))
            .count(),
        2
    );
}
