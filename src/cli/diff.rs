//! `diff`: the packages of two images compared.

use std::process::ExitCode;

use super::context::Context;
use super::failure::Failure;
use super::output;
use crate::diagnostic::{Kind, SourceText};
use crate::lock::{ImageDiff, Lock, LockedImage, diff_images};
use crate::manifest::Platform;

/// Flags of `diff`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// An image of the lock, or `LOCKFILE:IMAGE` for one of another lock file
    before: String,
    /// The same
    after: String,
    /// Compare for this platform
    #[arg(long, default_value = "linux/amd64")]
    platform: String,
}

/// Prints the comparison.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let platform: Platform = arguments.platform.parse().map_err(|message: String| {
        Failure::plain(Kind::Usage, message, "for example linux/amd64")
    })?;
    let (old, before) = find(context, &arguments.before, platform)?;
    let (new, after) = find(context, &arguments.after, platform)?;
    let diff = diff_images(&old, &before, &new, &after);
    if context.global.json {
        output::json(&diff);
        return Ok(ExitCode::SUCCESS);
    }
    if diff.is_empty() {
        output::line("no package differs");
    }
    for line in lines(&diff) {
        output::line(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each difference.
pub fn lines(diff: &ImageDiff) -> Vec<String> {
    let mut lines = diff.other.clone();
    for change in &diff.packages {
        let name = format!("{} {}", change.ecosystem, change.name);
        lines.push(match (&change.before, &change.after) {
            (Some(before), Some(_)) if change.rebuilt => {
                format!("~ {name} {before} (same version, another file)")
            }
            (Some(before), Some(after)) => format!("~ {name} {before} -> {after}"),
            (Some(before), None) => format!("- {name} {before}"),
            (None, after) => format!("+ {name} {}", after.as_deref().unwrap_or("")),
        });
    }
    lines
}

fn find(context: &Context, name: &str, platform: Platform) -> Result<(Lock, LockedImage), Failure> {
    let missing = |what: String, hint: &str| Failure::plain(Kind::NotFound, what, hint);
    let (lock, image) = match name.rsplit_once(':') {
        Some((file, image)) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                missing(
                    format!("cannot read the lock {file}: {error}"),
                    "write LOCKFILE:IMAGE",
                )
            })?;
            (Lock::parse(&SourceText::new(file, text))?, image)
        }
        None => {
            let lock = context.lock()?;
            (
                lock.ok_or_else(|| {
                    missing("there is no lock".into(), "run `imagewright lock` first")
                })?,
                name,
            )
        }
    };
    let found = lock
        .images
        .get(image)
        .and_then(|platforms| platforms.get(&platform))
        .cloned();
    match found {
        Some(found) => Ok((lock, found)),
        None => Err(missing(
            format!("the lock has no image `{image}` for {platform}"),
            "run `imagewright lock`",
        )),
    }
}
