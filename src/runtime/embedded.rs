//! The runtime that needs nothing but this machine's kernel.
//!
//! Starts the helper (this program again, see [`super::helper`]), passes its output on, and waits. Never unshares,
//! mounts or forks itself: it may have many threads.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::cgroup::{self, Parents};
use super::helper::{self, ARGUMENT, Caller, JOB, Job, STATUS, Status};
use super::{Cancel, ContainerSpec, Ended, Output, Runtime, RuntimeError};
use crate::store::remove_tree;

/// How often a waiting run looks whether it is cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// Runs containers in user namespaces, as any user.
#[derive(Debug)]
pub struct Embedded {
    program: PathBuf,
    scratch: PathBuf,
    next: AtomicU64,
}

/// What this machine grants to this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// Whether ids are mapped one to one (root) or the user has a single one.
    pub many_ids: bool,
    /// Limits that are not enforced by the kernel, and what stands in for them; for people.
    pub warnings: Vec<String>,
}

impl Embedded {
    /// Works in the folder `scratch` (see `store::Scratch`), which must be on a file system that overlay accepts as
    /// upper folder. Removes the control groups that killed predecessors left.
    pub fn new(scratch: &Path) -> Self {
        Self::with_helper(scratch, Path::new("/proc/self/exe"))
    }

    /// Like `new`, with another program as helper: one whose `main` calls [`helper::main`] on [`helper::ARGUMENT`].
    pub fn with_helper(scratch: &Path, program: &Path) -> Self {
        Self::sweep();
        Self {
            program: program.into(),
            scratch: scratch.into(),
            next: AtomicU64::new(0),
        }
    }

    /// Removes the control groups whose helper was killed; everything else vanishes with its processes.
    pub fn sweep() {
        cgroup::sweep(&helper::parents());
    }

    /// Finds out by trying whether containers can be set up, and what will not be enforced.
    ///
    /// # Errors
    /// The same that `run` would give.
    pub fn probe(&self) -> Result<Support, RuntimeError> {
        self.execute(None, &Discard, &Cancel::new())?;
        Ok(self.support())
    }

    /// What this machine grants, without trying.
    pub fn support(&self) -> Support {
        let warnings = match helper::parents() {
            Parents::None(reason) => vec![format!(
                "{reason}: memory is watched and the container killed when it uses too much, processes are limited \
                 per user, CPU time is not limited"
            )],
            _ => Vec::new(),
        };
        Support {
            many_ids: Caller::this() == Caller::Root,
            warnings,
        }
    }

    fn execute(
        &self,
        spec: Option<&ContainerSpec>,
        output: &dyn Output,
        cancel: &Cancel,
    ) -> Result<Ended, RuntimeError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = Folder::create(self.scratch.join(format!("container-{number}")))?;
        let job = Job {
            caller: std::process::id(),
            spec: spec.cloned(),
        };
        let text = serde_json::to_vec(&job).map_err(|e| RuntimeError::setup("write the job", e))?;
        fs::write(folder.0.join(JOB), text).map_err(|e| RuntimeError::setup("write the job", e))?;
        let work = spec
            .and_then(|spec| spec.upper.as_deref())
            .map(helper::work_of);
        let _work = work.map(Folder);
        let mut child = Command::new(&self.program)
            .arg0("imagewright")
            .args([ARGUMENT, "outer"])
            .arg(&folder.0)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| RuntimeError::setup("start the helper", error))?;
        let exit = follow(&mut child, output, cancel)?;
        let status = fs::read(folder.0.join(STATUS)).ok();
        let status: Option<Status> = status.and_then(|text| serde_json::from_slice(&text).ok());
        match status {
            Some(status) => status.end,
            None => Err(RuntimeError::Helper {
                reason: exit.to_string(),
            }),
        }
    }
}

impl Runtime for Embedded {
    fn run(
        &self,
        spec: &ContainerSpec,
        output: &dyn Output,
        cancel: &Cancel,
    ) -> Result<Ended, RuntimeError> {
        check(spec)?;
        self.execute(Some(spec), output, cancel)
    }
}

/// What neither the kernel nor libcontainer would refuse with a clear word.
fn check(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let bad = |reason: String| Err(RuntimeError::BadSpec { reason });
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if spec.id.is_empty() || spec.id.len() > 100 || !spec.id.chars().all(plain) {
        return bad(format!("`{}` is not a container id", spec.id));
    }
    if spec.argv.first().is_none_or(String::is_empty) {
        return bad("there is no command".into());
    }
    let values = spec.env.iter().flat_map(|(name, value)| [name, value]);
    if spec
        .argv
        .iter()
        .chain(values)
        .any(|text| text.contains('\0'))
    {
        return bad("the command or the environment has a NUL byte".into());
    }
    if spec
        .env
        .keys()
        .any(|name| name.is_empty() || name.contains('='))
    {
        return bad("a variable's name is empty or has a `=`".into());
    }
    let targets = spec.mounts.iter().map(|mount| &mount.target);
    for path in targets.chain([&spec.cwd]) {
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return bad(format!("`{path}` is not an absolute path without `..`"));
        }
    }
    Ok(())
}

/// Passes output on until the helper has ended; every process of the container is gone by then.
fn follow(
    child: &mut Child,
    output: &dyn Output,
    cancel: &Cancel,
) -> Result<std::process::ExitStatus, RuntimeError> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| pump(stdout, |bytes| output.stdout(bytes)));
        scope.spawn(|| pump(stderr, |bytes| output.stderr(bytes)));
        wait(child, cancel)
    })
}

fn pump(pipe: Option<impl Read>, to: impl Fn(&[u8])) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => to(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn wait(child: &mut Child, cancel: &Cancel) -> Result<std::process::ExitStatus, RuntimeError> {
    let failed = |error: std::io::Error| RuntimeError::setup("wait for the helper", error);
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    let look = Timespec::try_from(LOOK).ok();
    let mut told = false;
    loop {
        if cancel.is_cancelled() && !told {
            told = true;
            // The helper has not been waited for, so the number is still its own.
            let _ = kill_process(pid, Signal::TERM);
        }
        let timeout = if told { None } else { look.as_ref() };
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout);
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
    }
}

struct Discard;

impl Output for Discard {
    fn stdout(&self, _: &[u8]) {}
    fn stderr(&self, _: &[u8]) {}
}

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn create(path: PathBuf) -> Result<Self, RuntimeError> {
        fs::create_dir(&path)
            .map_err(|error| RuntimeError::setup(format!("make {}", path.display()), error))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}
