//! Starts, measures, bounds and ends every process of the harness.
//!
//! A measured command runs below a small helper (this program again), so that wall time, CPU time and peak memory are
//! those of the command alone: Linux counts the memory of whoever forks into the child's peak. Each command has a
//! process group and a deadline of its own. Nothing is ever ended by name.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The first argument that turns this program into the measuring helper.
const HELPER: &str = "measure-one-command";
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a step gives: a value, or why there is none, in words for the report.
pub type Outcome<T> = Result<T, String>;

/// Commands in the foreground: process group, and when it must have ended.
static LIVE: Mutex<BTreeMap<i32, Instant>> = Mutex::new(BTreeMap::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// True after SIGINT, SIGTERM or SIGHUP.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Watches deadlines and signals for as long as the program lives; ends the groups of overdue or interrupted commands.
pub fn watch() {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut int), Ok(mut term), Ok(mut hup)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            ) else {
                return;
            };
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hup.recv() => {} }
            INTERRUPTED.store(true, Ordering::SeqCst);
        });
    });
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_millis(100));
            let live = LIVE.lock().unwrap_or_else(|poison| poison.into_inner());
            for (group, deadline) in live.iter() {
                if interrupted() || Instant::now() > *deadline {
                    // Gone already is as good.
                    let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
                }
            }
        }
    });
}

/// What one command cost.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Cost {
    wall_ns: u64,
    cpu_us: u64,
    peak_kib: u64,
}

/// A command that ended well.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the start of the process to its end.
    pub wall: Duration,
    /// User and system time of it and of the children that it waited for.
    pub cpu: Duration,
    /// The largest resident set of it or of one such child, in KiB.
    pub peak_kib: u64,
    /// What it wrote to stdout, unless that went to a file.
    pub stdout: String,
}

/// A command about to be run.
#[derive(Debug)]
pub struct Call {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    stdin: Option<PathBuf>,
    stdout: Option<PathBuf>,
}

impl Call {
    /// A command without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            stdin: None,
            stdout: None,
        }
    }
    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }
    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.into(), value.as_ref().to_owned()));
        self
    }
    /// Reads stdin from a file.
    pub fn stdin(mut self, path: &Path) -> Self {
        self.stdin = Some(path.to_owned());
        self
    }
    /// Writes stdout into a file.
    pub fn stdout(mut self, path: &Path) -> Self {
        self.stdout = Some(path.to_owned());
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, fails, or is ended for its deadline or an interruption.
    pub fn run(self) -> Outcome<Measured> {
        let name = Path::new(&self.program)
            .file_name()
            .unwrap_or(&self.program)
            .to_string_lossy()
            .into_owned();
        let shown = format!(
            "{name} {}",
            self.args
                .iter()
                .map(|arg| arg.to_string_lossy())
                .collect::<Vec<_>>()
                .join(" ")
        );
        if interrupted() {
            return Err("interrupted".into());
        }
        let scratch = Scratch::new()?;
        let out = self
            .stdout
            .clone()
            .unwrap_or_else(|| scratch.0.join("stdout"));
        let mut command = Command::new(env::current_exe().map_err(|error| error.to_string())?);
        command
            .arg(HELPER)
            .arg(scratch.0.join("cost"))
            .arg(&self.program)
            .args(&self.args)
            .envs(self.envs)
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("no_proxy", "127.0.0.1,localhost")
            .stdout(create(&out)?)
            .stderr(create(&scratch.0.join("stderr"))?)
            .process_group(0);
        match &self.stdin {
            Some(path) => command
                .stdin(File::open(path).map_err(|error| format!("{}: {error}", path.display()))?),
            None => command.stdin(Stdio::null()),
        };
        let mut child = command
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let deadline = Instant::now() + PATIENCE;
        let status = wait_for(&mut child, deadline)?;
        let read = |path: PathBuf| {
            String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
        };
        if !status.success() {
            if interrupted() {
                return Err("interrupted".into());
            }
            let why = match status.signal() {
                Some(_) if Instant::now() > deadline => {
                    format!("not done after {} s", PATIENCE.as_secs())
                }
                Some(signal) => format!("ended by signal {signal}"),
                None => format!("exit code {}", status.code().unwrap_or(-1)),
            };
            let stderr = read(scratch.0.join("stderr"));
            return Err(format!("`{shown}`: {why}: {}", tail(&stderr, 600)));
        }
        let cost: Cost = serde_json::from_str(&read(scratch.0.join("cost")))
            .map_err(|error| format!("`{shown}`: cost not measured: {error}"))?;
        let stdout = match self.stdout {
            Some(_) => String::new(),
            None => read(out),
        };
        Ok(Measured {
            wall: Duration::from_nanos(cost.wall_ns),
            cpu: Duration::from_micros(cost.cpu_us),
            peak_kib: cost.peak_kib,
            stdout,
        })
    }
}

/// Waits with the process known to the watcher, which must not see a number that somebody else may have by now.
fn wait_for(child: &mut Child, deadline: Instant) -> Outcome<std::process::ExitStatus> {
    let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
    let live = || LIVE.lock().unwrap_or_else(|poison| poison.into_inner());
    live().insert(pid, deadline);
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(Pid::from_raw(pid)), ended) == Err(Errno::EINTR) {}
    live().remove(&pid);
    child.wait().map_err(|error| error.to_string())
}

/// The helper: runs the command that the arguments name and writes its cost. None when this process is not the helper.
pub fn helper() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    if args.next()? != HELPER {
        return None;
    }
    let (Some(cost), Some(program)) = (args.next(), args.next()) else {
        return Some(ExitCode::from(127));
    };
    let started = Instant::now();
    let mut child = match Command::new(&program).args(args).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{}: {error}", program.to_string_lossy());
            return Some(ExitCode::from(127));
        }
    };
    let status = child.wait();
    let wall = started.elapsed();
    let (Ok(status), Ok(usage)) = (status, getrusage(UsageWho::RUSAGE_CHILDREN)) else {
        return Some(ExitCode::from(126));
    };
    let measured = Cost {
        wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
        cpu_us: u64::try_from(cpu_of(&usage).as_micros()).unwrap_or(u64::MAX),
        peak_kib: u64::try_from(usage.max_rss()).unwrap_or(0),
    };
    let written = serde_json::to_vec(&measured).map(|json| fs::write(cost, json));
    let Ok(Ok(())) = written else {
        return Some(ExitCode::from(126));
    };
    Some(match status.code() {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(125)),
        None => ExitCode::from(
            128_u8.saturating_add(
                status
                    .signal()
                    .and_then(|signal| u8::try_from(signal).ok())
                    .unwrap_or(0),
            ),
        ),
    })
}

/// User and system time.
pub fn cpu_of(usage: &Usage) -> Duration {
    let micros = [usage.user_time(), usage.system_time()]
        .map(|time| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0));
    Duration::from_micros(micros.iter().sum())
}

/// A server of ours; ended, with a deadline, when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program that stays; what it writes goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        name: &'static str,
        program: &Path,
        args: &[String],
        log: PathBuf,
    ) -> Outcome<Self> {
        // Where it can be had, the kernel ends the server should this program be killed.
        let mut command = match find("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        create(&log)?;
        let append = || File::options().append(true).open(&log);
        let text = |error: std::io::Error| format!("{}: {error}", log.display());
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(append().map_err(text)?)
            .stderr(append().map_err(text)?)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        Ok(Self { name, child, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` holds.
    ///
    /// # Errors
    /// When the server ends or is not ready in time; with the end of its log.
    pub fn await_ready(&mut self, patience: Duration, ready: impl Fn() -> bool) -> Outcome<()> {
        let deadline = Instant::now() + patience;
        while !ready() {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            let what = match ended {
                Some(status) => format!("ended with {status}"),
                None if interrupted() => return Err("interrupted".into()),
                None if Instant::now() > deadline => "is not ready".to_owned(),
                None => {
                    thread::sleep(Duration::from_millis(50));
                    continue;
                }
            };
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            return Err(format!("{} {what}: {}", self.name, tail(&log, 400)));
        }
        Ok(())
    }

    /// The largest resident set that it had so far, in KiB.
    pub fn peak_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// The processor time that it has used so far.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // Behind the name, which may hold anything: state is field 3, user and system time are 14 and 15.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map_while(|field| field.parse::<u64>().ok()).sum();
        // In hundredths of a second (`USER_HZ`), on every architecture that this runs on.
        Some(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()).map(Pid::from_raw) else {
            return;
        };
        for (signal, patience) in [(Signal::SIGTERM, 40), (Signal::SIGKILL, 10)] {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            let _ = kill(pid, signal);
            let deadline = Instant::now() + Duration::from_secs(patience);
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The machine's load average of the last minute, as text: what others do disturbs the figures.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// What the names of a harness's temporary folders start with.
pub fn temp_prefix(pid: u32) -> String {
    format!("imagewright-compare-{pid}-")
}

/// A folder for one command's output.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Outcome<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("{}{number}", temp_prefix(std::process::id())));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The path of a program; also looked for where servers are kept.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// The path of a program that a step cannot do without.
///
/// # Errors
/// When it is not installed.
pub fn need(program: &str) -> Outcome<PathBuf> {
    find(program).ok_or_else(|| format!("{program} is not installed"))
}

fn create(path: &Path) -> Outcome<File> {
    File::create(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The last `limit` characters, on one line.
fn tail(text: &str, limit: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skip = line.chars().count().saturating_sub(limit);
    line.chars().skip(skip).collect()
}
