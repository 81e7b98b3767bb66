//! `check`: the manifest alone, no network, no store.

use std::process::ExitCode;

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::output;
use crate::diagnostic::counted;

/// Flags of `check`.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// What `check --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct CheckDocument {
    /// Declared images.
    pub images: Vec<String>,
    /// Declared runs.
    pub runs: Vec<String>,
}

/// Reads the manifest.
pub fn run(context: &Context, _: &Arguments) -> Result<ExitCode, Failure> {
    let manifest = context.manifest()?;
    let document = CheckDocument {
        images: manifest
            .images
            .iter()
            .map(|image| image.name.value.clone())
            .collect(),
        runs: manifest
            .runs
            .iter()
            .map(|run| run.name.value.clone())
            .collect(),
    };
    if context.global.json {
        output::json(&document);
    } else {
        output::line(&format!(
            "{} is right: {}, {}",
            context.manifest_path.display(),
            counted(document.images.len(), "image"),
            counted(document.runs.len(), "run")
        ));
    }
    Ok(ExitCode::SUCCESS)
}
