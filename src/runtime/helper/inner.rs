//! The inner helper: pid 1 of a process namespace, with all capabilities in a user namespace and none outside.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

use super::outer::{REPORT_FD, place_report_fd};
use super::{ARGUMENT, PROGRAM, Report, STAGE, Step, oci, read_job, rootfs};
use crate::runtime::Network;
use crate::runtime::{ContainerSpec, Limits, Privileges, RuntimeError};

/// A container that shows whether containers are possible; it is set up and never started.
pub fn trial_spec() -> ContainerSpec {
    ContainerSpec {
        id: "trial".into(),
        lower: Vec::new(),
        upper: None,
        argv: vec!["true".into()],
        env: BTreeMap::new(),
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        hostname: "trial".into(),
        mounts: Vec::new(),
        limits: Limits::default(),
        network: Network::None,
        privileges: Privileges::Run,
        read_only: false,
    }
}

/// First half, right after the fork: takes up its ids, and executes the program again from a read-only mount. Returns
/// only when that failed and was reported.
pub fn enter(folder: &Path, gate: OwnedFd, report: &OwnedFd, ids: (u32, u32)) {
    let mut go = Vec::new();
    let may_go = File::from(gate).read_to_end(&mut go).is_ok() && !go.is_empty();
    if !may_go {
        return;
    }
    if let Err(error) = execute_again(folder, report, ids)
        && let Ok(report) = report.try_clone()
    {
        send(File::from(report), &Report::Failed(error));
    }
}

fn execute_again(
    folder: &Path,
    report: &OwnedFd,
    (uid, gid): (u32, u32),
) -> Result<(), RuntimeError> {
    take_ids(uid, gid)?;
    die_with_parent()?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(denied("unshare with CLONE_NEWNS"))?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(denied("make mounts private"))?;
    let program = folder.join(PROGRAM);
    mount_program(&program)?;
    if uid != 0 {
        keep_capabilities().step("keep capabilities")?;
    }
    place_report_fd(report).step("pass on the report pipe")?;
    let path = CString::new(program.as_os_str().as_bytes()).step("name the program")?;
    let folder = CString::new(folder.as_os_str().as_bytes()).step("name the folder")?;
    let argument = CString::new(ARGUMENT).step("name the role")?;
    let arguments = [c"imagewright", argument.as_c_str(), c"inner", &folder];
    match nix::unistd::execv(&path, &arguments) {
        Ok(never) => match never {},
        Err(error) => Err(RuntimeError::setup("execute the helper", error.desc())),
    }
}

/// Mounts this program read-only at `target`. A program that was replaced on disk meanwhile is copied instead.
fn mount_program(target: &Path) -> Result<(), RuntimeError> {
    // The link itself leads to a mount of the namespace that was left, which cannot be bound from here.
    let running = Path::new("/proc/self/exe");
    let path = fs::read_link(running).step("find the program")?;
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let there = identity(&path).is_ok_and(|found| identity(running).is_ok_and(|own| own == found));
    if there {
        File::create(target).step("make a mount point for the program")?;
        rootfs::bind(&path, target, false)
    } else {
        fs::copy(running, target).step("copy the program")?;
        rootfs::bind(target, target, false)
    }
}

/// AppArmor may grant the namespace and deny what it is for.
fn denied(step: &'static str) -> impl Fn(Errno) -> RuntimeError {
    move |errno| match errno {
        Errno::EPERM | Errno::EACCES => RuntimeError::NoUserNamespaces {
            reason: format!(
                "one is granted, but without capabilities ({step}: {})",
                errno.desc()
            ),
        },
        _ => RuntimeError::setup(step, errno.desc()),
    }
}

fn take_ids(uid: u32, gid: u32) -> Result<(), RuntimeError> {
    // Denied where the group map is our own single group; then there are no other groups that count either.
    let _ = rustix::thread::set_thread_groups(&[]);
    nix::unistd::setresgid(gid.into(), gid.into(), Gid::from_raw(gid)).step("take the group id")?;
    rustix::thread::set_keep_capabilities(true).step("keep capabilities")?;
    nix::unistd::setresuid(uid.into(), uid.into(), Uid::from_raw(uid)).step("take the user id")
}

fn die_with_parent() -> Result<(), RuntimeError> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .step("bind the inner helper to the outer one")
}

/// Executing a program as another user than 0 drops capabilities unless they are ambient (capabilities(7)).
fn keep_capabilities() -> rustix::io::Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted;
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets)?;
    for capability in CapabilitySet::from_bits_retain(sets.permitted.bits()).iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Second half: builds the root file system, starts the container, waits for it, reports.
pub fn main(folder: &Path) -> bool {
    // SAFETY: the outer helper put the write end of its report pipe at this number, and nothing else owns it.
    #[allow(unsafe_code)]
    let pipe = File::from(unsafe { OwnedFd::from_raw_fd(REPORT_FD) });
    let _ = rustix::io::fcntl_setfd(&pipe, rustix::io::FdFlags::CLOEXEC);
    let report = die_with_parent()
        .and_then(|()| outer_lives(&pipe))
        .and_then(|()| run(folder))
        .unwrap_or_else(Report::Failed);
    send(pipe, &report)
}

fn send(mut pipe: File, report: &Report) -> bool {
    serde_json::to_vec(report).is_ok_and(|text| pipe.write_all(&text).is_ok())
}

/// The outer helper may have ended before the kernel was asked to tell: then nobody reads the pipe.
fn outer_lives(pipe: &File) -> Result<(), RuntimeError> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).step("look at the report pipe")?;
    let closed = fds[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLERR));
    if closed {
        return Err(RuntimeError::setup("report", "nobody listens"));
    }
    Ok(())
}

fn run(folder: &Path) -> Result<Report, RuntimeError> {
    let job = read_job(folder)?;
    let signals = signals()?;
    let spec = job.spec.clone().unwrap_or_else(trial_spec);
    rootfs::build(&folder.join(STAGE), folder, &spec)?;
    if job.spec.is_none() {
        return Ok(Report::Possible);
    }
    let mut container = oci::create(&spec)?;
    let init = container
        .pid
        .ok_or_else(|| RuntimeError::setup("create the container", "it has no process"))?;
    container.start()?;
    let report = wait(&signals, init)?;
    match container.start_error() {
        Some(error) => Err(error),
        None => Ok(report),
    }
}

fn signals() -> Result<SignalFd, RuntimeError> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGCHLD);
    set.thread_block().step("block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .step("make a signal descriptor")
}

/// Reaps every process until `init` ends; passes SIGTERM on to all of them.
fn wait(signals: &SignalFd, init: Pid) -> Result<Report, RuntimeError> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == init => return Ok(Report::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == init => {
                return Ok(Report::Signalled(signal as i32));
            }
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(RuntimeError::setup("wait for the container", error.desc())),
        }
        let _ = poll(
            &mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)],
            PollTimeout::NONE,
        );
        while let Ok(Some(signal)) = signals.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                // To every process of this namespace and those below, but not to this one.
                let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
            }
        }
    }
}
