//! `exec`: a command in an image, in the embedded runtime.

use std::io::Write;
use std::process::ExitCode;

use super::build;
use super::context::Context;
use super::failure::Failure;
use super::interrupt::Graceful;
use super::pipeline::materialise::Need;
use super::pipeline::trees;
use super::substitution::{BuildFlags, Wish};
use crate::diagnostic::Kind;
use crate::manifest::Resources;
use crate::runtime::{
    ContainerSpec, Embedded, Limits, Network, Outcome, Output, Privileges, Runtime,
};

/// Flags of `exec`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The image
    image: String,
    /// The network that the command has
    #[arg(long, value_enum, default_value = "none")]
    network: NetworkFlag,
    #[command(flatten)]
    flags: BuildFlags,
    /// The command and its arguments; its standard input is empty
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum NetworkFlag {
    None,
    Host,
}

struct Through;

impl Output for Through {
    fn stdout(&self, bytes: &[u8]) {
        super::output::raw(bytes);
    }
    fn stderr(&self, bytes: &[u8]) {
        let _ = std::io::stderr().write_all(bytes);
    }
}

/// Executes; the exit code is the command's, 128 + n if signal n ended it.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let store = context.store()?;
    let runtime = Embedded::new(store.scratch().path());
    // Before minutes of building: can anything be executed here at all?
    runtime.probe()?;
    let http = context.http()?;
    let image = build::one(
        context,
        &store,
        &http,
        &arguments.image,
        None,
        Wish::new(arguments.flags, Need::Trees),
    )?;
    let lower = trees::unpack_all(context, &store, &image.layers)?;
    let settings = image.settings()?;
    let spec = ContainerSpec {
        id: format!("exec-{}", std::process::id()),
        lower,
        upper: None,
        argv: arguments.command.clone(),
        env: settings.env,
        cwd: settings.workdir.unwrap_or_else(|| "/".into()),
        uid: settings.uid,
        gid: settings.gid,
        hostname: "imagewright".into(),
        mounts: Vec::new(),
        limits: Limits {
            pids: Some(Resources::default().pids_limit),
            ..Limits::default()
        },
        network: match arguments.network {
            NetworkFlag::None => Network::None,
            NetworkFlag::Host => Network::Host,
        },
        privileges: Privileges::Run,
        read_only: false,
    };
    let _graceful = Graceful::begin();
    let ended = runtime.run(&spec, &Through, &context.cancel)?;
    match ended.outcome {
        Outcome::Exited(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(255))),
        Outcome::Signalled(signal) => Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(255))),
        Outcome::Cancelled => Ok(ExitCode::from(Kind::Interrupted.exit_code())),
        Outcome::OutOfMemory | Outcome::TimedOut => Err(Failure::plain(
            Kind::RunFailed,
            "the machine ran out of memory while the command ran",
            "give it less data",
        )),
    }
}
