//! What happens between "run this" and the container's first instruction, in processes with one thread.
//!
//! ```text
//! imagewright            Embedded::run: writes job.json, starts the helper, reads its pipes, later status.json
//! └ helper, outer        host's namespaces: control group, id maps, time limit, cancelling; reports the end
//!   └ helper, inner      own user, mount, process and network namespace: builds the root file system; pid 1
//!     └ container        own nested process, IPC, UTS, control group namespaces, made by libcontainer
//! ```
//!
//! Each level dies with the one above it: the outer helper is sent SIGTERM when the thread that started it ends and
//! then takes everything down; the inner one is sent SIGKILL when the outer one ends; and the kernel kills all of a
//! process namespace when its pid 1 ends. Mounts live in the inner helper's mount namespace and vanish with it.
//!
//! The inner helper is executed from a read-only mount of the program, so that a container cannot reach the program
//! through `/proc` and overwrite it. Nothing here prints: errors go into the status.

mod executor;
mod idmap;
mod inner;
mod oci;
mod outer;
mod rootfs;
mod seccomp;

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::cgroup::Parents;
use super::{ContainerSpec, Ended, RuntimeError};

pub(crate) use idmap::Caller;
pub(super) use rootfs::work_of;

/// The first command-line argument that makes the program a helper.
pub const ARGUMENT: &str = "__container";

/// File names in the folder that the caller and the helper share.
pub(super) const JOB: &str = "job.json";
pub(super) const STATUS: &str = "status.json";
const PROGRAM: &str = "program";
const STAGE: &str = "stage";

/// What the caller asks of the outer helper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// The process that asks; when it is gone, so is the reason for the container.
    pub caller: u32,
    /// The container; `None` only tries whether a container could be set up.
    pub spec: Option<ContainerSpec>,
}

/// What the outer helper answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Status {
    pub end: Result<Ended, RuntimeError>,
}

/// What the inner helper tells the outer one, at its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    /// The container's first process exited.
    Exited(i32),
    /// The container's first process was ended by a signal.
    Signalled(i32),
    /// It never started.
    Failed(RuntimeError),
    /// The trial succeeded.
    Possible,
}

/// The helper's whole life. The arguments are `__container <role> <folder>`.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    let (Some(role), Some(folder)) = (arguments.next(), arguments.next()) else {
        return ExitCode::from(2);
    };
    let folder = Path::new(&folder);
    let done = match role.to_str() {
        Some("outer") => outer::main(folder),
        Some("inner") => inner::main(folder),
        _ => return ExitCode::from(2),
    };
    if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn read_job(folder: &Path) -> Result<Job, RuntimeError> {
    let text = fs::read(folder.join(JOB)).step("read the job")?;
    serde_json::from_slice(&text).step("read the job")
}

/// Names the step that an error belongs to.
trait Step<T> {
    fn step(self, step: impl Into<String>) -> Result<T, RuntimeError>;
}

impl<T, E: Display> Step<T> for Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T, RuntimeError> {
        self.map_err(|error| RuntimeError::setup(step, error))
    }
}

/// Where limits are enforced on this machine, for callers outside of the helper.
pub(super) fn parents() -> Parents {
    Parents::detect()
}
