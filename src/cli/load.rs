//! `load`: an image into a Docker Engine or Podman.

use std::process::ExitCode;

use serde::Serialize;

use super::build;
use super::context::Context;
use super::failure::Failure;
use super::output;
use super::pipeline::materialise::Need;
use super::substitution::{BuildFlags, Wish};
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::image::{Engine, EngineKind, StoreSource, load};
use crate::manifest::Platform;

/// Flags of `load`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The image
    image: String,
    /// The engine, by way of its command; default: docker if it is there, else podman
    #[arg(long, value_enum)]
    into: Option<Into>,
    /// The name in the engine; default: the image's, with the tag `latest`
    #[arg(long)]
    name: Option<String>,
    /// Of an image for several platforms, load this one
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    flags: BuildFlags,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Into {
    Docker,
    Podman,
}

/// What `load --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct LoadDocument {
    /// The name in the engine.
    pub name: String,
    /// The image ID there: the digest of its configuration.
    pub id: Digest,
}

/// Loads.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let platform = platform(arguments.platform.as_deref())?;
    let store = context.store()?;
    let http = context.http()?;
    let image = build::one(
        context,
        &store,
        &http,
        &arguments.image,
        platform,
        Wish::new(arguments.flags, Need::Bytes),
    )?;
    let kind = match arguments.into {
        Some(Into::Docker) => EngineKind::Docker,
        Some(Into::Podman) => EngineKind::Podman,
        None if in_path("docker") => EngineKind::Docker,
        None => EngineKind::Podman,
    };
    let name = arguments.name.as_deref().unwrap_or(&arguments.image);
    let source = StoreSource::new(&store);
    let id = load(
        &Engine::new(kind),
        name,
        &image,
        &source,
        &*context.progress,
    )?;
    if context.global.json {
        output::json(&LoadDocument {
            name: name.to_owned(),
            id,
        });
    } else {
        output::line(&format!("loaded {name} ({id})"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a `--platform` flag.
pub fn platform(text: Option<&str>) -> Result<Option<Platform>, Failure> {
    text.map(str::parse)
        .transpose()
        .map_err(|message: String| Failure::plain(Kind::Usage, message, "for example linux/amd64"))
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
