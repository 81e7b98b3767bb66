//! x
use std::process::ExitCode;
use super::context::Context;
use super::failure::Failure;
/// x
#[derive(Debug, clap::Args)]
pub struct Arguments {}
/// x
pub fn run(_: &Context, _: &Arguments) -> Result<ExitCode, Failure> { Ok(ExitCode::SUCCESS) }
