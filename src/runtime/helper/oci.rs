//! `ContainerSpec` → OCI runtime specification → libcontainer.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};
use libcontainer::syscall::syscall::SyscallType;
use nix::unistd::{Pid, pipe2};

use super::executor::Filtered;
use super::{Step, rootfs, seccomp};
use crate::runtime::{ContainerSpec, Privileges, RuntimeError};

/// What root has in a run: act on files and processes of the container's own ids. Other users have nothing.
const RUN_AS_ROOT: [Capability; 8] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setgid,
    Capability::Setuid,
];

/// What dpkg and maintainer scripts need beyond that: chroots, file capabilities, device nodes, audit records (useradd).
const DPKG: [Capability; 4] = [
    Capability::AuditWrite,
    Capability::Mknod,
    Capability::Setfcap,
    Capability::SysChroot,
];

/// What container engines hide: what tells about the machine, or acts on it.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Writable by uid 0 of the machine whatever its capabilities are.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Size of `/tmp` and `/dev/shm` in bytes where no memory limit is declared; else they may have half of it.
const TMPFS_BYTES: u64 = 1 << 30;

/// A container that libcontainer has prepared and not yet started.
pub struct Created {
    container: Container,
    failure: File,
    program: String,
    /// Its first process.
    pub pid: Option<Pid>,
}

impl Created {
    /// Lets the first process go on to the program.
    pub fn start(&mut self) -> Result<(), RuntimeError> {
        self.container
            .start()
            .map_err(|error| RuntimeError::setup("start the container", chain(&error)))
    }

    /// Why the program could not be executed, once the first process has ended.
    pub fn start_error(&mut self) -> Option<RuntimeError> {
        let mut reason = String::new();
        let _ = self.failure.read_to_string(&mut reason);
        (!reason.is_empty()).then(|| RuntimeError::Start {
            program: self.program.clone(),
            reason,
        })
    }
}

/// Prepares the container; the stage is this process's root.
pub fn create(spec: &ContainerSpec) -> Result<Created, RuntimeError> {
    let (failure, say) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make a pipe")?;
    let filters = seccomp::programs().step("make the system call filter")?;
    runtime_spec(spec)
        .step("write the container's configuration")?
        .save("/bundle/config.json")
        .step("write the container's configuration")?;
    let executor = Filtered {
        filters: Rc::new(filters),
        failure: Rc::new(say),
    };
    let container = build(&spec.id, executor)
        .map_err(|error| RuntimeError::setup("create the container", chain(&error)))?;
    Ok(Created {
        pid: container.pid().map(|pid| Pid::from_raw(pid.as_raw())),
        container,
        failure: File::from(failure),
        program: spec.argv.first().cloned().unwrap_or_default(),
    })
}

fn build(
    id: &str,
    executor: Filtered,
) -> Result<Container, libcontainer::error::LibcontainerError> {
    ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_executor(executor)
        .with_root_path("/state")?
        .validate_id()?
        .as_init("/bundle")
        .with_systemd(false)
        .with_detach(false)
        .build()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text += ": ";
            text += &more;
        }
        next = cause.source();
    }
    text
}

fn runtime_spec(spec: &ContainerSpec) -> Result<Spec, libcontainer::oci_spec::OciSpecError> {
    let capabilities: std::collections::HashSet<Capability> = match (spec.privileges, spec.uid) {
        (Privileges::Run, 0) => RUN_AS_ROOT.into(),
        (Privileges::Run, _) => Default::default(),
        (Privileges::Dpkg, _) => RUN_AS_ROOT.into_iter().chain(DPKG).collect(),
    };
    let held = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities)
        .inheritable(std::collections::HashSet::new())
        .ambient(std::collections::HashSet::new())
        .build()?;
    let user = UserBuilder::default()
        .uid(spec.uid)
        .gid(spec.gid)
        .umask(0o022_u32)
        .build()?;
    let mut rlimits = vec![
        PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitCore)
            .soft(0_u64)
            .hard(0_u64)
            .build()?,
    ];
    // Counted per user and user namespace; stands in where no control group counts processes.
    if let Some(pids) = spec.limits.pids {
        let most = pids.max(2) + 3;
        rlimits.push(
            PosixRlimitBuilder::default()
                .typ(PosixRlimitType::RlimitNproc)
                .soft(most)
                .hard(most)
                .build()?,
        );
    }
    let env: Vec<String> = spec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(spec.argv.clone())
        .env(env)
        .cwd(&spec.cwd)
        .capabilities(held)
        .rlimits(rlimits)
        .no_new_privileges(true)
        .build()?;
    let namespaces = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ]
    .into_iter()
    .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
    .collect::<Result<Vec<_>, _>>()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(MASKED.map(str::to_owned))
        .readonly_paths(READ_ONLY.map(str::to_owned))
        .build()?;
    // The outer helper did this; a default would ask for device rules.
    linux.set_resources(None);
    let root = RootBuilder::default()
        .path("/rootfs")
        .readonly(spec.read_only)
        .build()?;
    SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .hostname(spec.hostname.clone())
        .process(process)
        .mounts(mounts(spec)?)
        .linux(linux)
        .build()
}

fn mounts(spec: &ContainerSpec) -> Result<Vec<Mount>, libcontainer::oci_spec::OciSpecError> {
    let size = spec
        .limits
        .memory_bytes
        .map_or(TMPFS_BYTES, |limit| (limit / 2).max(1 << 20));
    let size = format!("size={size}");
    let mut list = vec![
        ("/proc", "proc", "proc", vec!["nosuid", "noexec", "nodev"]),
        (
            "/dev",
            "tmpfs",
            "tmpfs",
            vec!["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            vec![
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
            ],
        ),
        (
            "/dev/shm",
            "tmpfs",
            "shm",
            vec!["nosuid", "noexec", "nodev", "mode=1777", &size],
        ),
        (
            "/tmp",
            "tmpfs",
            "tmpfs",
            vec!["nosuid", "nodev", "mode=1777", &size],
        ),
    ];
    if rootfs::has_sysfs() {
        let options = vec!["bind", "nosuid", "noexec", "nodev", "ro"];
        list.push(("/sys", "bind", "/sys", options));
    }
    let mut mounts = list
        .into_iter()
        .map(|(target, kind, source, options)| mount(target, kind, source, &options))
        .collect::<Result<Vec<_>, _>>()?;
    for (number, wanted) in spec.mounts.iter().enumerate() {
        let source = format!("/m/{number}");
        mounts.push(mount(&wanted.target, "bind", &source, &["rbind"])?);
    }
    Ok(mounts)
}

fn mount(
    target: &str,
    kind: &str,
    source: &str,
    options: &[&str],
) -> Result<Mount, libcontainer::oci_spec::OciSpecError> {
    MountBuilder::default()
        .destination(Path::new(target))
        .typ(kind)
        .source(Path::new(source))
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
}
