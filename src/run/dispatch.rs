//! Executes cells, some at a time, and keeps what is to be known about each.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::collect::{self, Caps};
use super::event::{Finished, RunEvent, RunObserver, Stream};
use super::log::{LOG_CAP, Log};
use super::results::{BadResults, Results, Summary};
use super::{Cell, RESULTS, RESULTS_VARIABLE, RunError, cases, junit};
use crate::manifest::Network;
use crate::runtime::{
    self, BindMount, Cancel, ContainerSpec, Ended, Limits, Outcome, Output, Privileges, Runtime,
    RuntimeError,
};
use crate::store::{JobRow, JobState, State, Store, StoreError, remove_tree};

/// The default working folder of a run.
const WORKDIR: &str = "/work";
/// The longest host name that every program takes.
const MOST_HOSTNAME: usize = 63;

/// A cell and the container that it is executed in.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to execute.
    pub cell: Cell,
    /// Unpacked layers of the image, lowest first, and above them the run's own.
    pub lower: Vec<PathBuf>,
    /// The image's environment; the run's own wins over it.
    pub env: BTreeMap<String, String>,
    /// The image's user.
    pub uid: u32,
    /// The image's group.
    pub gid: u32,
    /// The image's working folder, which holds where the run declares none.
    pub workdir: Option<String>,
}

/// How jobs are dispatched.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Jobs at one time; at least one.
    pub parallel: usize,
    /// Execute also what has succeeded before.
    pub rerun: bool,
}

/// Executes the jobs, at most `options.parallel` at a time, and returns what came of each, in their order.
///
/// # Errors
/// When the store fails. A job that fails, or that the runtime cannot execute, is an ended job.
pub fn dispatch(
    store: &Store,
    runtime: &dyn Runtime,
    jobs: &[Job],
    options: Options,
    observer: &dyn RunObserver,
    cancel: &Cancel,
) -> Result<Vec<Finished>, RunError> {
    let state = store.state()?;
    cancel_orphans(store, &state)?;
    let tickets = jobs
        .iter()
        .map(|job| Ticket::open(store, &state, job, options))
        .collect::<Result<Vec<_>, _>>()?;
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<Finished, RunError>>>> =
        tickets.iter().map(|_| Mutex::new(None)).collect();
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(ticket) = tickets.get(number) else {
                return;
            };
            let result = ticket.work(store, runtime, observer, cancel);
            if let Ok(finished) = &result {
                observer.event(&RunEvent::Ended(finished));
            }
            if let Ok(mut slot) = done[number].lock() {
                *slot = Some(result);
            }
        }
    };
    let workers = options.parallel.clamp(1, tickets.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
    });
    done.into_iter()
        .filter_map(|slot| slot.into_inner().ok().flatten())
        .collect()
}

/// Jobs whose owner no longer holds their lock were cut off.
fn cancel_orphans(store: &Store, state: &State) -> Result<(), RunError> {
    for (mut job, _) in state.unfinished_jobs()? {
        let folder = store.run_path(&job.id)?;
        if let Some(_lock) = own(&folder) {
            job.state = JobState::Cancelled;
            job.reason = Some("imagewright ended".into());
            job.ended_ms = Some(now());
            state.put_job(&job)?;
        }
    }
    Ok(())
}

/// Holds the lock that says "this job's owner lives". `None`: somebody else does.
fn own(folder: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("owner"))
        .ok()?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// Unique on this machine: time, process, count.
fn new_id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("j{:x}-{:x}-{number:x}", now(), std::process::id())
}

/// A job with its place in the state database.
struct Ticket<'a> {
    job: &'a Job,
    row: JobRow,
    folder: PathBuf,
    earlier: Option<Results>,
    _lock: Option<File>,
}

impl<'a> Ticket<'a> {
    fn open(
        store: &Store,
        state: &State,
        job: &'a Job,
        options: Options,
    ) -> Result<Self, RunError> {
        let cell = &job.cell;
        let repeatable = cell.document.network == Network::None && !options.rerun;
        let earlier = if repeatable {
            state
                .succeeded_job(&cell.key)?
                .and_then(|row| serde_json::from_str(&row.results?).ok())
        } else {
            None
        };
        let row = JobRow {
            id: new_id(),
            name: cell.name.clone(),
            project: cell.project.clone(),
            key: cell.key,
            state: JobState::Pending,
            reason: None,
            started_ms: Some(now()),
            ended_ms: None,
            results: None,
        };
        if earlier.is_some() {
            return Ok(Self {
                job,
                row,
                folder: PathBuf::new(),
                earlier,
                _lock: None,
            });
        }
        let folder = store.run_path(&row.id)?;
        let lock = own(&folder);
        state.put_job(&row)?;
        Ok(Self {
            job,
            row,
            folder,
            earlier,
            _lock: lock,
        })
    }

    fn work(
        &self,
        store: &Store,
        runtime: &dyn Runtime,
        observer: &dyn RunObserver,
        cancel: &Cancel,
    ) -> Result<Finished, RunError> {
        if let Some(mut results) = self.earlier.clone() {
            // The same key under another name is the same run.
            results.summary.name.clone_from(&self.row.name);
            results.summary.project.clone_from(&self.row.project);
            return Ok(Finished {
                results,
                reused: true,
                error: None,
            });
        }
        let state = store.state()?;
        let mut row = self.row.clone();
        let mut results = empty(&row);
        let mut error = None;
        if cancel.is_cancelled() {
            row.state = JobState::Cancelled;
            row.reason = Some("cancelled before it started".into());
        } else {
            row.state = JobState::Running;
            row.started_ms = Some(now());
            state.put_job(&row)?;
            observer.event(&RunEvent::Started {
                job: &row.id,
                name: &row.name,
            });
            match self.execute(store, runtime, observer, cancel, &mut results)? {
                Ok(ended) => {
                    results.summary.peak_memory_bytes = ended.peak_memory_bytes;
                    (row.state, row.reason) = verdict(&ended);
                    self.read(&mut row, &mut results)?;
                }
                Err(failed) => {
                    row.state = JobState::Failed;
                    row.reason = Some(failed.to_string());
                    error = Some(failed);
                }
            }
        }
        row.ended_ms = Some(now());
        let summary = &mut results.summary;
        summary.state = row.state;
        summary.reason.clone_from(&row.reason);
        summary.started_ms = row.started_ms;
        summary.ended_ms = row.ended_ms;
        row.results = serde_json::to_string(&results).ok();
        state.put_job(&row)?;
        Ok(Finished {
            results,
            reused: false,
            error,
        })
    }

    /// Runs the container and takes over its results folder.
    fn execute(
        &self,
        store: &Store,
        runtime: &dyn Runtime,
        observer: &dyn RunObserver,
        cancel: &Cancel,
        results: &mut Results,
    ) -> Result<Result<Ended, RuntimeError>, RunError> {
        // Not in the job's own folder: what is not collected must vanish, however much it is.
        let left = Temporary(store.scratch().new_folder()?);
        // Only root can and needs to: the single id of another user is the container's.
        let _ = std::os::unix::fs::chown(&left.0, Some(self.job.uid), Some(self.job.gid));
        let spec = self.spec(&left.0);
        let logs = Logs::create(&self.folder, &self.row, observer)?;
        let ended = runtime.run(&spec, &logs, cancel);
        results.warnings.extend(logs.finish());
        let target = self.folder.join("results");
        match collect::collect(&left.0, &target, Caps::default()) {
            Ok(collected) => {
                results.warnings.extend(collected.warnings);
                results.files = collected
                    .files
                    .iter()
                    .map(|path| path.to_string_lossy().into_owned())
                    .collect();
            }
            Err(error) => return Err(StoreError::io("collect results into", target)(error).into()),
        }
        Ok(ended)
    }

    fn spec(&self, results: &Path) -> ContainerSpec {
        let document = &self.job.cell.document;
        let mut env = self.job.env.clone();
        env.extend(document.env.clone());
        env.insert(RESULTS_VARIABLE.into(), RESULTS.into());
        let workdir = document
            .workdir
            .clone()
            .or_else(|| self.job.workdir.clone());
        ContainerSpec {
            id: self.row.id.clone(),
            lower: self.job.lower.clone(),
            upper: None,
            argv: document.command.clone(),
            env,
            cwd: workdir.unwrap_or_else(|| WORKDIR.into()),
            uid: self.job.uid,
            gid: self.job.gid,
            hostname: hostname(&self.row.name),
            mounts: vec![BindMount {
                host: results.into(),
                target: RESULTS.into(),
                writable: true,
            }],
            limits: Limits {
                memory_bytes: Some(document.resources.ram_limit_bytes),
                cpu_millis: Some(document.resources.cpu_limit_millis),
                pids: Some(document.resources.pids_limit),
                timeout_ms: Some(document.timeout_ms),
            },
            network: match document.network {
                Network::None => runtime::Network::None,
                Network::Host => runtime::Network::Host,
            },
            privileges: Privileges::Run,
            read_only: false,
        }
    }

    /// Reads the files of results; a job whose results cannot be read has failed.
    fn read(&self, row: &mut JobRow, results: &mut Results) -> Result<(), RunError> {
        let folder = self.folder.join("results");
        for file in &results.files {
            let parse: fn(&str, &[u8], &str) -> Result<_, BadResults> = match file.as_str() {
                "cases.jsonl" => cases::parse,
                name if is_junit(name) => junit::parse,
                _ => continue,
            };
            let path = folder.join(file);
            let text = fs::read(&path).map_err(StoreError::io("read", path))?;
            match parse(file, &text, &row.id) {
                Ok(found) => results.cases.extend(found),
                Err(bad) => {
                    results.warnings.push(bad.to_string());
                    if row.state == JobState::Succeeded {
                        row.state = JobState::Failed;
                        row.reason = Some(format!("unreadable results: {bad}"));
                    }
                }
            }
        }
        let refused = results.warnings.iter().find(|warning| {
            collect::FIRST
                .iter()
                .any(|first| warning.starts_with(first))
        });
        if let (Some(warning), JobState::Succeeded) = (refused, row.state) {
            row.state = JobState::Failed;
            row.reason = Some(format!("unreadable results: {warning}"));
        }
        results.summary.count(&results.cases);
        Ok(())
    }
}

/// `junit.xml`, `junit-<anything>.xml`, at the top.
fn is_junit(name: &str) -> bool {
    let stem = name
        .strip_prefix("junit")
        .and_then(|rest| rest.strip_suffix(".xml"));
    stem.is_some_and(|rest| !rest.contains('/') && (rest.is_empty() || rest.starts_with('-')))
}

fn verdict(ended: &Ended) -> (JobState, Option<String>) {
    match ended.outcome {
        Outcome::Exited(0) => (JobState::Succeeded, None),
        Outcome::Exited(code) => (JobState::Failed, Some(format!("exit code {code}"))),
        Outcome::Signalled(signal) => (JobState::Failed, Some(format!("signal {signal}"))),
        Outcome::OutOfMemory => (JobState::Failed, Some("out of memory".into())),
        Outcome::TimedOut => (JobState::Failed, Some("timed out".into())),
        Outcome::Cancelled => (JobState::Cancelled, Some("cancelled".into())),
    }
}

fn empty(row: &JobRow) -> Results {
    Results {
        version: Results::VERSION,
        summary: Summary::new(&row.id, &row.name, &row.project, row.state),
        cases: Vec::new(),
        files: Vec::new(),
        warnings: Vec::new(),
    }
}

/// The run's name as far as a host name can tell it.
fn hostname(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = name.chars().map(plain).take(MOST_HOSTNAME).collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "run".into()
    } else {
        name.into()
    }
}

/// Both streams' files, and the observer.
struct Logs<'a> {
    row: &'a JobRow,
    observer: &'a dyn RunObserver,
    stdout: Mutex<Log>,
    stderr: Mutex<Log>,
}

impl<'a> Logs<'a> {
    fn create(
        folder: &Path,
        row: &'a JobRow,
        observer: &'a dyn RunObserver,
    ) -> Result<Self, RunError> {
        let open = |name: &str| {
            let path = folder.join(name);
            Log::create(&path, LOG_CAP)
                .map(Mutex::new)
                .map_err(StoreError::io("create", path))
        };
        Ok(Self {
            row,
            observer,
            stdout: open("stdout.log")?,
            stderr: open("stderr.log")?,
        })
    }

    fn append(&self, log: &Mutex<Log>, stream: Stream, bytes: &[u8]) {
        let Ok(mut log) = log.lock() else { return };
        let bytes = log.append(bytes);
        if !bytes.is_empty() {
            self.observer.event(&RunEvent::Output {
                job: &self.row.id,
                name: &self.row.name,
                stream,
                bytes,
            });
        }
    }

    fn finish(self) -> Vec<String> {
        [(self.stdout, "stdout"), (self.stderr, "stderr")]
            .into_iter()
            .filter_map(|(log, name)| log.into_inner().ok()?.finish(name))
            .collect()
    }
}

impl Output for Logs<'_> {
    fn stdout(&self, bytes: &[u8]) {
        self.append(&self.stdout, Stream::Stdout, bytes);
    }
    fn stderr(&self, bytes: &[u8]) {
        self.append(&self.stderr, Stream::Stderr, bytes);
    }
}

/// A folder that is removed with everything in it.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}
