//! Executes one container. Knows nothing of manifests and prints nothing.
//!
//! [`Runtime`] is the interface; [`Embedded`] runs containers in this machine's kernel without a daemon, in a
//! re-executed single-threaded helper process ([`helper`]). `cgroup` holds them to their limits.

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod embedded;
#[cfg(target_os = "linux")]
pub mod helper;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Explain, Kind};

#[cfg(target_os = "linux")]
pub use embedded::{Embedded, Support};

/// Executes containers.
pub trait Runtime: Send + Sync {
    /// Executes one container from start to end; blocks. What it leaves behind is its `upper` and what it wrote
    /// into writable mounts, nothing else.
    ///
    /// # Errors
    /// When the container could not be started or watched. However its process ends is an [`Outcome`], not an error.
    fn run(
        &self,
        spec: &ContainerSpec,
        output: &dyn Output,
        cancel: &Cancel,
    ) -> Result<Ended, RuntimeError>;
}

/// Why a container could not be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeError {
    /// The kernel or its configuration denies user namespaces to this user.
    #[error(
        "this user cannot make a user namespace with the rights that containers need: {reason}"
    )]
    NoUserNamespaces {
        /// What was tried and refused.
        reason: String,
    },
    /// Configuring OS packages needs a range of ids, and this user has one.
    #[error("configuring OS packages needs a range of subordinate user and group ids: {reason}")]
    NoSubordinateIds {
        /// What is missing.
        reason: String,
    },
    /// The program is not in the container or cannot be executed there.
    #[error("`{program}` cannot be started in the container: {reason}")]
    Start {
        /// `argv[0]`.
        program: String,
        /// The operating system's reason.
        reason: String,
    },
    /// The specification contradicts itself.
    #[error("the container cannot be started: {reason}")]
    BadSpec {
        /// What is wrong.
        reason: String,
    },
    /// A step of preparing the container failed.
    #[error("the container cannot be set up: {step}: {reason}")]
    Setup {
        /// What was being done.
        step: String,
        /// The operating system's reason.
        reason: String,
    },
    /// The helper process ended without a word.
    #[error("the helper process of the container ended unexpectedly ({reason})")]
    Helper {
        /// How it ended.
        reason: String,
    },
}

impl RuntimeError {
    /// A failed step.
    pub(crate) fn setup(step: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Setup {
            step: step.into(),
            reason: reason.to_string(),
        }
    }
}

impl Explain for RuntimeError {
    fn kind(&self) -> Kind {
        match self {
            Self::Start { .. } | Self::BadSpec { .. } => Kind::Usage,
            _ => Kind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoUserNamespaces { .. } => Some(
                "allow them (sysctl user.max_user_namespaces > 0, kernel.unprivileged_userns_clone=1, on Ubuntu \
                 kernel.apparmor_restrict_unprivileged_userns=0; in a container: --security-opt seccomp=unconfined or \
                 --privileged), or run as root, or use another runtime, or pull what another machine has built"
                    .into(),
            ),
            Self::NoSubordinateIds { .. } => Some(
                "install newuidmap and newgidmap (package `uidmap`) and give this user a range in /etc/subuid and \
                 /etc/subgid, or run as root, or use a base from a registry"
                    .into(),
            ),
            Self::Start { .. } => {
                Some("check the command, and PATH in the image's environment".into())
            }
            _ => None,
        }
    }
}

/// What to execute, and in what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Unique among live containers of this machine; letters, digits and `-`.
    pub id: String,
    /// Unpacked layers, lowest first. Never written to.
    pub lower: Vec<PathBuf>,
    /// Where changes are kept, as an overlay's upper folder: a removed path is a character device 0:0, an opaque
    /// folder has the attribute `user.overlay.opaque`. `None`: in a temporary folder that is removed. A folder named
    /// like it with `.work` appended must not exist; it is used meanwhile.
    pub upper: Option<PathBuf>,
    /// Argument vector; `argv[0]` is looked up in the container's PATH.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working folder; made if missing.
    pub cwd: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// Host name.
    pub hostname: String,
    /// Folders of the host that appear in the container.
    pub mounts: Vec<BindMount>,
    /// Limits.
    pub limits: Limits,
    /// Loopback only, or the machine's network.
    pub network: Network,
    /// What the processes may do.
    pub privileges: Privileges,
    /// The root file system cannot be written (but for mounts and /tmp).
    pub read_only: bool,
}

/// A container's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Loopback only.
    #[default]
    None,
    /// The machine's own.
    Host,
}

/// A folder of the host in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Whether the container may write there.
    pub writable: bool,
}

/// What a container may use at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory; swap is not granted.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Wall-clock time in milliseconds; then SIGTERM, and SIGKILL two seconds later.
    pub timeout_ms: Option<u64>,
}

/// What the processes of a container may do. Both forms run in a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privileges {
    /// Minimal capabilities, no new privileges, seccomp filter: for declared runs and `exec`.
    Run,
    /// The named, longer list that dpkg and maintainer scripts need.
    Dpkg,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The first process exited with this code.
    Exited(i32),
    /// The first process was ended by this signal.
    Signalled(i32),
    /// The memory limit was hit and the kernel killed a process of it.
    OutOfMemory,
    /// The time limit was reached.
    TimedOut,
    /// Somebody asked for it.
    Cancelled,
}

/// A container's end, and what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// From start to end.
    pub elapsed: Duration,
    /// Highest memory use in bytes, where the machine counts it.
    pub peak_memory_bytes: Option<u64>,
}

/// Receives a container's output as it comes. Called from one thread per stream.
pub trait Output: Send + Sync {
    /// Bytes of standard output.
    fn stdout(&self, bytes: &[u8]);
    /// Bytes of standard error.
    fn stderr(&self, bytes: &[u8]);
}

/// Asks containers to end; cheap to clone, can be set from a signal handler's thread.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Not cancelled.
    pub fn new() -> Self {
        Self::default()
    }
    /// Asks for the end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
