//! x
use super::context::Context;
use super::failure::Failure;
use std::process::ExitCode;
/// x
#[derive(Debug, clap::Args)]
pub struct Arguments {}
/// x
pub fn run(_: &Context, _: &Arguments) -> Result<ExitCode, Failure> {
    Ok(ExitCode::SUCCESS)
}
