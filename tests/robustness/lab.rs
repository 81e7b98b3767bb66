//! A project, a store and a home of their own, and the program in an environment without anything of the host's.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::wares;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_imagewright");

/// One temporary folder with everything; processes started in it are known by its name.
pub struct Lab {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
    pids: Mutex<BTreeSet<u32>>,
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub elapsed: Duration,
}

impl Ran {
    /// The exit code is this one, nothing panicked, and all the words were said (on either stream).
    #[track_caller]
    pub fn expect(self, code: i32, words: &[&str]) -> Self {
        let said = format!("{}\n{}", self.out, self.err);
        assert_eq!(self.code, Some(code), "{said}");
        for bad in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!said.contains(bad), "{said}");
        }
        for word in words {
            assert!(said.contains(word), "`{word}` is not in:\n{said}");
        }
        self
    }

    /// Digests of the images that `build --json` tells.
    #[track_caller]
    pub fn digests(&self) -> Vec<String> {
        let document: serde_json::Value = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err));
        let images = document["images"].as_array().unwrap();
        images
            .iter()
            .map(|image| image["digest"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Lab {
    /// Empty; the base images lie beside the project.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("robust-")
            .tempdir()
            .unwrap();
        fs::create_dir(folder.path().join("project")).unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        std::os::unix::fs::symlink(wares::base(), folder.path().join("base")).unwrap();
        Self {
            folder,
            env: Vec::new(),
            pids: Mutex::default(),
        }
    }

    /// With a manifest.
    pub fn with(manifest: &str) -> Self {
        let lab = Self::new();
        lab.write("imagewright.kdl", manifest);
        lab
    }

    /// Sets a variable for every command.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The name that stands in the command line or environment of every process of this lab.
    pub fn name(&self) -> &str {
        self.folder.path().file_name().unwrap().to_str().unwrap()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn project(&self) -> PathBuf {
        self.path("project")
    }

    /// The store's folder with the version in its name.
    pub fn store(&self) -> PathBuf {
        self.path("store/store-v1")
    }

    /// Writes a file of the project.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.project().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// What the lab's program is executed with, for wrappers.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("NO_COLOR", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        for (name, path) in [("HOME", "home"), ("IMAGEWRIGHT_STORE", "store")] {
            env.push((name.into(), self.path(path).display().to_string()));
        }
        env.extend(self.env.clone());
        env
    }

    /// The program with these arguments, for the lab's project.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("-C").arg(self.project()).args(arguments);
        self.prepare(&mut command);
        command
    }

    /// Another program in the lab's environment.
    pub fn prepare(&self, command: &mut Command) {
        command
            .env_clear()
            .envs(self.environment())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
    }

    /// Starts; its end is not waited for.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_command(self.command(arguments))
    }

    pub fn start_command(&self, mut command: Command) -> Running {
        let started = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.pids.lock().unwrap().insert(child.id());
        let out = reader(child.stdout.take().unwrap());
        let err = reader(child.stderr.take().unwrap());
        Running {
            child,
            started,
            out,
            err,
        }
    }

    /// Runs to the end, which must come within five minutes.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.start(arguments).wait(Duration::from_secs(300))
    }

    /// Runs a script as root of a mount namespace of its own, in the lab's folder: `$1` is the program.
    #[track_caller]
    pub fn privately(&self, script: &str) -> Ran {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", PROGRAM]);
        self.prepare(&mut command);
        self.start_command(command).wait(Duration::from_secs(120))
    }

    /// Digests of a build that must succeed.
    #[track_caller]
    pub fn build(&self) -> Vec<String> {
        self.run(&["build", "--json"]).expect(0, &[]).digests()
    }

    /// Every process id that a command of this lab had.
    pub fn pids(&self) -> BTreeSet<u32> {
        self.pids.lock().unwrap().clone()
    }

    /// Rows of the state database; none where a command was ended before it made the tables.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let path = self.store().join("state.sqlite");
        let connection = rusqlite::Connection::open(path).unwrap();
        if !connection.table_exists(None, "jobs").unwrap() {
            return Vec::new();
        }
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..columns)
                .map(|column| Ok(row.get::<_, Option<String>>(column)?.unwrap_or_default()))
                .collect()
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Text with what differs from run to run replaced, for snapshots.
    pub fn neutral(&self, text: &str) -> String {
        text.replace(&self.folder.path().display().to_string(), "LAB")
            .replace(
                &std::fs::canonicalize(self.folder.path())
                    .unwrap()
                    .display()
                    .to_string(),
                "LAB",
            )
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        // What is printed without end is not kept without end.
        let mut kept = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            if kept.len() < 16 << 20 {
                kept.extend_from_slice(&buffer[..read]);
            }
        }
        kept
    })
}

/// A command on its way.
pub struct Running {
    child: Child,
    started: Instant,
    out: std::thread::JoinHandle<Vec<u8>>,
    err: std::thread::JoinHandle<Vec<u8>>,
}

impl Running {
    /// Sends a signal, if the process still lives.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = rustix::process::kill_process(pid.unwrap(), signal);
    }

    /// Waits until `done` says so; false if the process ended or half a minute went by before.
    pub fn until(&mut self, done: impl Fn() -> bool) -> bool {
        let limit = Instant::now() + Duration::from_secs(30);
        while Instant::now() < limit {
            if done() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return done();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Ran {
        let status = self.status(limit);
        let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&thread.join().unwrap()).into_owned()
        };
        let elapsed = self.started.elapsed();
        Ran {
            code: status.code(),
            out: text(self.out),
            err: text(self.err),
            elapsed,
        }
    }

    #[track_caller]
    fn status(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > end {
                self.child.kill().unwrap();
                panic!("the command did not end within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Bytes of all files below a folder.
pub fn size_of(folder: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(folder).into_iter().flatten();
    entries
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}
