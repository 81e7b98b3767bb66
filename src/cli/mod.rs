//! The command: reads flags, the environment and the project's files, wires the stages, prints. One file per command.
//!
//! Results go to standard output, progress and warnings to standard error. The only domain knowledge here is the
//! order of the stages (`pipeline`).

mod ambient;
mod bars;
mod build;
mod check;
mod context;
mod diff;
mod exec;
mod export;
mod failure;
mod find;
mod gc;
mod init;
mod interrupt;
mod jobs;
mod key_file;
mod load;
mod lock;
mod metadata;
mod output;
mod pipeline;
mod push;
mod record;
mod rm;
mod schema;
mod show;
mod sign;
mod substitution;
mod test;
mod why;

use std::process::ExitCode;

use clap::builder::{Resettable, TypedValueParser as _};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::diagnostic::Kind;
use crate::manifest::Platform;
use context::{Context, Global};
use failure::Failure;

pub use failure::{ErrorDocument, Plain};

/// From a KDL manifest to container images and stress-test runs, with no Dockerfile and no daemon.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write an example manifest into a folder that has none
    Init(init::Arguments),
    /// Read the manifest and report every mistake
    Check(check::Arguments),
    /// Resolve what the manifest asks for and write imagewright.lock
    Lock(lock::Arguments),
    /// Build images into the store
    Build(build::Arguments),
    /// Push images to the declared registries, with what they are found by
    Push(push::Arguments),
    /// Sign what the registry has of images, or make a key
    Sign(sign::Arguments),
    /// Build images and execute the declared runs
    Test(test::Arguments),
    /// Write an image as an OCI layout or archive
    Export(export::Arguments),
    /// Load an image into a Docker Engine or Podman
    Load(load::Arguments),
    /// Execute a command in an image
    Exec(exec::Arguments),
    /// Find images by what is in them
    Find(find::Arguments),
    /// Show a built-in base, what an image consists of, or what a registry's record says of one
    Show(show::Arguments),
    /// Explain which requirement, artifact or setting changed an image's keys
    Why(why::Arguments),
    /// Compare the packages of two images
    Diff(diff::Arguments),
    /// List the jobs that were dispatched
    Jobs(jobs::JobsArguments),
    /// Print a job's log
    Logs(jobs::LogsArguments),
    /// Print the test cases of jobs
    Results(jobs::ResultsArguments),
    /// Remove images from the store, or from the declared registry
    Rm(rm::Arguments),
    /// Remove from the store what nothing roots and nobody has used for a while
    Gc(gc::Arguments),
    /// Print the JSON Schema of what a command prints under --json
    Schema(schema::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Reads a platform; a wrong one is answered with those that there are.
fn platforms() -> impl clap::builder::TypedValueParser<Value = Platform> {
    let all = Platform::ALL.map(Platform::as_str);
    clap::builder::PossibleValuesParser::new(all).try_map(|text| text.parse::<Platform>())
}

/// Reads the command line.
fn parse() -> Result<Arguments, clap::Error> {
    let mut grammar = without_empty_variables(Arguments::command());
    let mut found = grammar.try_get_matches_from_mut(std::env::args_os())?;
    Arguments::from_arg_matches_mut(&mut found).map_err(|error| error.format(&mut grammar))
}

/// A variable that is set to nothing counts as one that is not set, for every flag that has one.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|flag| {
        let value = flag.get_env().and_then(std::env::var_os);
        match value.is_some_and(|value| value.is_empty()) {
            true => flag.env(Resettable::Reset),
            false => flag,
        }
    });
    command.mut_subcommands(without_empty_variables)
}

/// Runs the command; the exit code is that of [`Kind`].
pub fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            let wrong = error.exit_code() != 0;
            return ExitCode::from(if wrong { Kind::Usage.exit_code() } else { 0 });
        }
    };
    let json = arguments.global.json;
    let cancel = interrupt::watch();
    match run(arguments, cancel.clone()) {
        Ok(code) => code,
        Err(failure) => {
            output::failure(&failure, json);
            // Whatever failed after an interrupt failed because of it.
            let interrupted = cancel.is_cancelled().then_some(Kind::Interrupted);
            ExitCode::from(interrupted.unwrap_or_else(|| failure.kind()).exit_code())
        }
    }
}

fn run(arguments: Arguments, cancel: crate::runtime::Cancel) -> Result<ExitCode, Failure> {
    if let Command::Completions { shell } = &arguments.command {
        return Ok(output::completions::<Arguments>(*shell));
    }
    if let Command::Schema(schema) = &arguments.command {
        return schema::run(schema);
    }
    let context = Context::new(arguments.global, cancel)?;
    match arguments.command {
        Command::Init(arguments) => init::run(&context, &arguments),
        Command::Check(arguments) => check::run(&context, &arguments),
        Command::Lock(arguments) => lock::run(&context, &arguments),
        Command::Build(arguments) => build::run(&context, &arguments),
        Command::Push(arguments) => push::run(&context, &arguments),
        Command::Sign(arguments) => sign::run(&context, &arguments),
        Command::Test(arguments) => test::run(&context, &arguments),
        Command::Export(arguments) => export::run(&context, &arguments),
        Command::Load(arguments) => load::run(&context, &arguments),
        Command::Exec(arguments) => exec::run(&context, &arguments),
        Command::Find(arguments) => find::run(&context, &arguments),
        Command::Show(arguments) => show::run(&context, &arguments),
        Command::Why(arguments) => why::run(&context, &arguments),
        Command::Diff(arguments) => diff::run(&context, &arguments),
        Command::Jobs(arguments) => jobs::list(&context, &arguments),
        Command::Logs(arguments) => jobs::logs(&context, &arguments),
        Command::Results(arguments) => jobs::results(&context, &arguments),
        Command::Rm(arguments) => rm::run(&context, &arguments),
        Command::Gc(arguments) => gc::run(&context, &arguments),
        Command::Schema(_) | Command::Completions { .. } => Ok(ExitCode::SUCCESS),
    }
}
