//! The embedded runtime as the sandbox that OS layers are made in.

use std::path::Path;

use crate::cli::failure::Failure;
use crate::cli::interrupt::Graceful;
use crate::diagnostic::{Explain, Kind};
use crate::layer::debian::{Sandbox, SandboxError, SandboxExit, SandboxJob};
use crate::runtime::{
    Cancel, ContainerSpec, Embedded, Limits, Network, Outcome, Output, Privileges, Runtime,
};

/// What helps a user without privileges.
const BECOME_ROOT: &str = "run this build as root, also in a container, and pass on what it made (`export --oci DIR`, then \
     `from \"oci:DIR\"`); or begin with any other image that has the packages (`from`), which needs no privileges";

/// Runs dpkg in the embedded runtime.
#[derive(Debug)]
pub struct Dpkg {
    runtime: Embedded,
    cancel: Cancel,
}

impl Dpkg {
    /// Works in `scratch`.
    pub fn new(scratch: &Path, cancel: Cancel) -> Self {
        Self {
            runtime: Embedded::new(scratch),
            cancel,
        }
    }
}

impl Dpkg {
    /// Finds out whether OS packages can be configured here, before anything is downloaded for it.
    ///
    /// # Errors
    /// What is missing, and the ways out.
    pub fn check(&self) -> Result<(), Failure> {
        let is_root = self.runtime.support().many_ids;
        match self.runtime.probe() {
            Ok(_) if is_root => Ok(()),
            Ok(_) => Err(Failure::plain(
                Kind::Unavailable,
                "OS packages cannot be configured by a user who is not root: dpkg gives files to many users and \
                 groups, and the layer has to keep these owners",
                BECOME_ROOT,
            )),
            Err(error) if is_root => {
                let hint = error.hint().map_or(String::new(), |hint| hint + ", ");
                Err(Failure::plain(
                    error.kind(),
                    error.to_string(),
                    format!(
                        "{hint}or begin with an image that has the OS packages (`from`), which needs none"
                    ),
                ))
            }
            Err(error) => Err(Failure::plain(
                error.kind(),
                format!("OS packages cannot be configured here: {error}"),
                BECOME_ROOT,
            )),
        }
    }
}

struct Both<'a>(&'a (dyn Fn(&[u8]) + Sync));

impl Output for Both<'_> {
    fn stdout(&self, bytes: &[u8]) {
        (self.0)(bytes);
    }
    fn stderr(&self, bytes: &[u8]) {
        (self.0)(bytes);
    }
}

impl Sandbox for Dpkg {
    fn run(
        &self,
        job: &SandboxJob,
        output: &(dyn Fn(&[u8]) + Sync),
    ) -> Result<SandboxExit, SandboxError> {
        let spec = ContainerSpec {
            id: format!("dpkg-{}", std::process::id()),
            lower: job.lower.clone(),
            upper: Some(job.upper.clone()),
            argv: job.argv.clone(),
            env: job.env.clone(),
            cwd: "/".into(),
            uid: 0,
            gid: 0,
            hostname: "imagewright".into(),
            mounts: Vec::new(),
            limits: Limits::default(),
            network: Network::None,
            privileges: Privileges::Dpkg,
            read_only: false,
        };
        let failed = |message: String, kind| SandboxError {
            message,
            hint: None,
            kind,
        };
        let _graceful = Graceful::begin();
        let ended = self
            .runtime
            .run(&spec, &Both(output), &self.cancel)
            .map_err(|error| SandboxError {
                message: error.to_string(),
                hint: error.hint(),
                kind: error.kind(),
            })?;
        if self.cancel.is_cancelled() {
            return Err(failed(
                "interrupted while dpkg ran".into(),
                Kind::Interrupted,
            ));
        }
        match ended.outcome {
            Outcome::Exited(code) => Ok(SandboxExit { code }),
            Outcome::Signalled(signal) => Ok(SandboxExit { code: 128 + signal }),
            Outcome::OutOfMemory => Err(failed(
                "the machine ran out of memory while dpkg ran".into(),
                Kind::Unavailable,
            )),
            Outcome::TimedOut | Outcome::Cancelled => Err(failed(
                "interrupted while dpkg ran".into(),
                Kind::Interrupted,
            )),
        }
    }
}
