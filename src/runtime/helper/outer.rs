//! The outer helper: stays in the host's namespaces, holds the container to its limits, and reports its end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid, pipe2};

use super::idmap::{self, Caller};
use super::{Job, Report, STATUS, Status, Step, inner, read_job};
use crate::runtime::cgroup::{Cgroup, Parents};
use crate::runtime::{ContainerSpec, Ended, Limits, Outcome, RuntimeError};

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How often memory is added up where no control group does it.
const WATCH: Duration = Duration::from_millis(50);

/// Runs the job in `folder` and writes its status; whether that worked.
pub fn main(folder: &Path) -> bool {
    let end = read_job(folder).and_then(|job| supervise(folder, &job));
    let Ok(text) = serde_json::to_vec(&Status { end }) else {
        return false;
    };
    std::fs::write(folder.join(STATUS), text).is_ok()
}

fn supervise(folder: &Path, job: &Job) -> Result<Ended, RuntimeError> {
    let signals = block_signals()?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .step("bind the helper to its caller")?;
    let spec = job.spec.clone().unwrap_or_else(inner::trial_spec);
    let (group, missing) = Cgroup::create(&Parents::detect(), &spec.id, &spec.limits)
        .step("make the control group")?;
    let (child, mut reports) = start(folder, &spec, &group)?;
    let mut watch = Watch {
        child,
        caller: job.caller,
        signals,
        started: Instant::now(),
        limits: spec.limits,
        add_up_memory: missing.iter().any(|name| name == "memory"),
        peak: 0,
        stopping: None,
    };
    watch.until_end()?;
    let mut report = Vec::new();
    reports.read_to_end(&mut report).step("read the report")?;
    watch.ended(&group, serde_json::from_slice(&report).ok())
}

fn block_signals() -> Result<SignalFd, RuntimeError> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        set.add(signal);
    }
    set.thread_block().step("block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .step("make a signal descriptor")
}

/// Starts the inner helper in its namespaces and groups; returns it and the pipe that it will report into.
fn start(folder: &Path, spec: &ContainerSpec, group: &Cgroup) -> Result<(Pid, File), RuntimeError> {
    let caller = Caller::this();
    let (go, gate) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)
        .map(|(read, write)| (write, read))
        .step("make a pipe")?;
    let (reports, report) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make a pipe")?;
    let child = match clone_into_namespaces() {
        Ok(Some(child)) => child,
        Ok(None) => {
            drop((go, reports));
            let ids = idmap::setup_ids(caller, spec);
            inner::enter(folder, gate, &report, ids);
            // Only reached when the program could not be executed again; the report says why.
            std::process::exit(1);
        }
        Err(errno) => {
            return Err(RuntimeError::NoUserNamespaces {
                reason: format!("clone with CLONE_NEWUSER: {}", errno.desc()),
            });
        }
    };
    drop((gate, report));
    let prepared = idmap::write(caller, spec, child.as_raw())
        .and_then(|()| group.add(child.as_raw()).step("join the control group"))
        .and_then(|()| {
            File::from(go)
                .write_all(b"g")
                .step("start the inner helper")
        });
    if let Err(error) = prepared {
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
        return Err(error);
    }
    Ok((child, File::from(reports)))
}

/// Forks into a new user and process namespace. `None` in the child.
fn clone_into_namespaces() -> Result<Option<Pid>, Errno> {
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and without a stack this is fork(2): the child has a copy of everything. The process
    // has one thread, so no lock can be held by a thread that the child does not have.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    Errno::result(result).map(|pid| match pid {
        0 => None,
        pid => Some(Pid::from_raw(pid as i32)),
    })
}

/// The inner helper while it lives.
struct Watch {
    child: Pid,
    caller: u32,
    signals: SignalFd,
    started: Instant,
    limits: Limits,
    add_up_memory: bool,
    peak: u64,
    stopping: Option<(Outcome, Instant)>,
}

impl Watch {
    fn until_end(&mut self) -> Result<(), RuntimeError> {
        let deadline = self
            .limits
            .timeout_ms
            .and_then(|ms| self.started.checked_add(Duration::from_millis(ms)));
        // The caller may have ended before the kernel was asked to tell.
        if !self.caller_lives() {
            self.kill();
        }
        loop {
            match waitpid(self.child, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(RuntimeError::setup("wait for the container", error)),
            }
            let now = Instant::now();
            match self.stopping {
                None if deadline.is_some_and(|deadline| deadline <= now) => {
                    self.stop(Outcome::TimedOut);
                }
                Some((_, until)) if until <= now => self.kill(),
                _ => {}
            }
            if self.add_up_memory {
                self.check_memory();
            }
            self.sleep(deadline);
            self.take_signals();
        }
    }

    /// Until a signal comes or something is due.
    fn sleep(&self, deadline: Option<Instant>) {
        let due = match self.stopping {
            Some((_, until)) => Some(until),
            None => deadline,
        };
        let watch = self.add_up_memory.then(|| Instant::now() + WATCH);
        let wait = due.into_iter().chain(watch).min().map(|at| {
            // Rounded up, so that the deadline has passed when the call returns.
            at.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        let timeout = wait.map_or(PollTimeout::NONE, |wait| {
            PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(
            &mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)],
            timeout,
        );
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            if number != libc::SIGCHLD && self.stopping.is_none() {
                self.stop(Outcome::Cancelled);
            }
            if !self.caller_lives() {
                self.kill();
            }
        }
    }

    fn caller_lives(&self) -> bool {
        u32::try_from(getppid().as_raw()) == Ok(self.caller)
    }

    /// Asks the container's processes to end; the inner helper passes SIGTERM on to all of them.
    fn stop(&mut self, why: Outcome) {
        self.stopping = Some((why, Instant::now() + GRACE));
        let _ = kill(self.child, Signal::SIGTERM);
    }

    /// pid 1 of the namespace dies, and the kernel kills all others in it.
    fn kill(&mut self) {
        let _ = kill(self.child, Signal::SIGKILL);
        let why = self.stopping.map_or(Outcome::Cancelled, |(why, _)| why);
        self.stopping = Some((why, Instant::now() + GRACE));
    }

    fn check_memory(&mut self) {
        let used = memory_of_descendants(self.child.as_raw());
        self.peak = self.peak.max(used);
        if self.limits.memory_bytes.is_some_and(|limit| used > limit) {
            self.stopping = Some((Outcome::OutOfMemory, Instant::now()));
            self.kill();
        }
    }

    fn ended(&self, group: &Cgroup, report: Option<Report>) -> Result<Ended, RuntimeError> {
        let stopped = self.stopping.map(|(why, _)| why);
        let outcome = match (stopped, report) {
            (_, Some(Report::Failed(error))) if stopped.is_none() => return Err(error),
            (Some(why), _) => why,
            (None, Some(Report::Exited(0) | Report::Possible)) => Outcome::Exited(0),
            (None, _) if group.oom_killed() => Outcome::OutOfMemory,
            (None, Some(Report::Exited(code))) => Outcome::Exited(code),
            (None, Some(Report::Signalled(signal))) => Outcome::Signalled(signal),
            (None, _) => {
                return Err(RuntimeError::Helper {
                    reason: "the inner helper did not report".into(),
                });
            }
        };
        let counted = group.peak_memory();
        Ok(Ended {
            outcome,
            elapsed: self.started.elapsed(),
            peak_memory_bytes: counted.or(self.add_up_memory.then_some(self.peak)),
        })
    }
}

/// Bytes of anonymous and shared memory of all processes below `pid` (proc(5): `children`, `status`).
fn memory_of_descendants(pid: i32) -> u64 {
    let mut sum = 0;
    let mut open = vec![pid];
    while let Some(pid) = open.pop() {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            let Ok(child) = child.parse() else { continue };
            open.push(child);
            let status = std::fs::read_to_string(format!("/proc/{child}/status"));
            sum += status
                .unwrap_or_default()
                .lines()
                .filter_map(|line| {
                    line.strip_prefix("RssAnon:")
                        .or_else(|| line.strip_prefix("RssShmem:"))
                })
                .filter_map(|value| value.trim().split(' ').next()?.parse::<u64>().ok())
                .map(|kib| kib * 1024)
                .sum::<u64>();
        }
    }
    sum
}

/// The descriptor that the inner helper finds its report pipe at.
pub(super) const REPORT_FD: i32 = 3;

/// Puts `fd` at [`REPORT_FD`], where it survives the execution of a program.
pub(super) fn place_report_fd(fd: &OwnedFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == REPORT_FD {
        return rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())
            .map_err(|error| Errno::from_raw(error.raw_os_error()));
    }
    // SAFETY: dup2 takes two numbers; whatever was open at 3 belongs to this process, which is about to execute
    // another program and uses none of its other descriptors again.
    #[allow(unsafe_code)]
    let placed = unsafe { libc::dup2(fd.as_raw_fd(), REPORT_FD) };
    Errno::result(placed).map(|_| ())
}
