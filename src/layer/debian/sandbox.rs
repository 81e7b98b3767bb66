//! What making an OS layer needs of a container runtime, as a trait: this module knows no runtime.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::emit::{EmitError, TreeJob, emit_tree};
use crate::diagnostic::{Explain, Kind};

/// One command in a container whose changes are kept. No standard input, no network; the privileges that dpkg and
/// maintainer scripts need: any owner, any mode, chroot-like view, `/proc`, a minimal `/dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxJob {
    /// Unpacked trees, lowest first. Never written to.
    pub lower: Vec<PathBuf>,
    /// Where changes are kept; may hold files already, which lie above all of `lower`.
    pub upper: PathBuf,
    /// Argument vector.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxExit {
    /// Exit code; 128 + n if signal n ended it.
    pub code: i32,
}

/// The sandbox itself failed, not the command in it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SandboxError {
    /// What happened.
    pub message: String,
    /// Ways out.
    pub hint: Option<String>,
    /// Decides the exit code.
    pub kind: Kind,
}

impl Explain for SandboxError {
    fn kind(&self) -> Kind {
        self.kind
    }
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// Runs commands above read-only trees. When the runtime maps user ids, everything that touches `upper` afterwards
/// has to see the ids that the container saw: then `emit` and `remove` are done inside the same mapping.
pub trait Sandbox: Sync {
    /// Runs the job; `output` receives what it writes to standard output and error, in pieces as they come.
    ///
    /// # Errors
    /// When the container cannot be set up; a command that fails is an exit code.
    fn run(
        &self,
        job: &SandboxJob,
        output: &(dyn Fn(&[u8]) + Sync),
    ) -> Result<SandboxExit, SandboxError>;

    /// Writes the tree as an uncompressed layer tar.
    ///
    /// # Errors
    /// See [`EmitError`].
    fn emit(&self, job: &TreeJob, out: &mut dyn Write) -> Result<(), EmitError> {
        emit_tree(job, out)
    }

    /// Removes a folder that the container has written to.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        crate::store::remove_tree(path)
    }
}
