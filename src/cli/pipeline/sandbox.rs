//! The embedded runtime as the sandbox that OS layers are made in.

use std::path::Path;

use crate::cli::failure::Failure;
use crate::cli::interrupt::Graceful;
use crate::diagnostic::{Explain, Kind};
use crate::layer::debian::{Sandbox, SandboxError, SandboxExit, SandboxJob};
use crate::runtime::{
    Cancel, ContainerSpec, Embedded, Limits, Network, Outcome, Output, Privileges, Runtime, RuntimeError,
};

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
        let missing = match self.runtime.probe() {
            Ok(support) if support.many_ids => return Ok(()),
            Ok(_) => RuntimeError::NoSubordinateIds {
                reason: "this user has one id only".into(),
            },
            Err(error) => error,
        };
        let message =
            format!("the image's OS packages are configured in a container, and {missing}");
        let hint = missing.hint().map(|hint| {
            format!("{hint}; or begin with an image that has the packages (`from`), whose layers need no container")
        });
        Err(Failure::plain(
            missing.kind(),
            message,
            hint.unwrap_or_default(),
        ))
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
