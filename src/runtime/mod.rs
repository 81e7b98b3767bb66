//! Executes one container. Knows nothing of manifests and prints nothing.
//!
//! [`Runtime`] is the interface; `embedded` runs containers in this machine's kernel without a daemon, in a
//! re-executed single-threaded helper (`helper`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What to execute, and in what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Unique among live containers of this machine; letters, digits and `-`.
    pub id: String,
    /// Unpacked layers, lowest first. Never written to.
    pub lower: Vec<PathBuf>,
    /// Where changes are kept; `None`: in a temporary folder that is removed.
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
    pub network: crate::manifest::Network,
    /// What the processes may do.
    pub privileges: Privileges,
    /// The root file system cannot be written (but for mounts and /tmp).
    pub read_only: bool,
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
