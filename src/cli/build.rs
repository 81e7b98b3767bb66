//! `build`: images into the store.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::lock::LockedFlag;
use super::output::{self, size};
use super::pipeline::building::{Builder, Built};
use super::pipeline::{locking, records};
use crate::digest::Digest;
use crate::http::Http;
use crate::image::Image;
use crate::lock::{Lock, diff_images};
use crate::manifest::{Manifest, Platform};
use crate::store::Store;

/// Flags of `build`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Images to build; default: all
    images: Vec<String>,
    #[command(flatten)]
    locked: LockedFlag,
    /// Print where the time went
    #[arg(long)]
    timings: bool,
}

/// What `build --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct BuildDocument {
    /// In declared order, platform by platform.
    pub images: Vec<BuiltDocument>,
}

/// One image that is in the store now.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct BuiltDocument {
    /// Declared name.
    pub name: String,
    /// Its platform.
    pub platform: Platform,
    /// Digest of the image manifest.
    pub digest: Digest,
    /// The image key.
    pub key: Digest,
    /// Number of layers.
    pub layers: usize,
    /// Length of all tars in bytes.
    pub unpacked_bytes: u64,
    /// Length of all blobs in bytes.
    pub compressed_bytes: u64,
    /// Of these, what the store did not have.
    pub new_bytes: u64,
    /// Whether this call made it.
    pub built: bool,
    /// Where the time went.
    pub timings: Vec<Timing>,
}

/// One stage's time.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Timing {
    /// The stage.
    pub stage: String,
    /// Milliseconds.
    pub ms: f64,
}

/// An image, its name, and how building it went.
#[derive(Debug)]
pub struct Named {
    /// Declared name.
    pub name: String,
    /// The image.
    pub built: Built,
}

/// Builds.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let manifest = context.manifest()?;
    let store = context.store()?;
    let http = context.http()?;
    let built = images(
        context,
        &store,
        &http,
        &manifest,
        &arguments.images,
        arguments.locked,
    )?;
    let document = BuildDocument {
        images: built.iter().map(document).collect(),
    };
    if context.global.json {
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    for image in &document.images {
        output::line(&text(image));
        if arguments.timings {
            for timing in &image.timings {
                output::line(&format!("  {:<14} {:>9.1} ms", timing.stage, timing.ms));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Locks as far as needed, then builds the images with these names (all, if none) for all their platforms.
pub fn images(
    context: &Context,
    store: &Store,
    http: &Http,
    manifest: &Manifest,
    names: &[String],
    locked: LockedFlag,
) -> Result<Vec<Named>, Failure> {
    images_for(context, store, http, manifest, names, &[], locked)
}

/// As [`images`], for these platforms only; all, if none is given.
pub fn images_for(
    context: &Context,
    store: &Store,
    http: &Http,
    manifest: &Manifest,
    names: &[String],
    platforms: &[Platform],
    locked: LockedFlag,
) -> Result<Vec<Named>, Failure> {
    let wanted: BTreeSet<&str> = context
        .select(manifest, names)?
        .into_iter()
        .map(|image| image.name.as_str())
        .collect();
    let previous = context.lock()?;
    let mode = locked.mode();
    let stage = locking::bring_up_to_date(context, store, http, manifest, previous.as_ref(), &mode);
    let mut current = context.wait(stage)?;
    if current.changed && !locked.locked {
        context.write_lock(&current.lock)?;
        tell(context, previous.as_ref(), &current.lock);
    }
    let before = current.lock.clone();
    let builder = Builder::new(context, store, http)?;
    let state = store.state()?;
    let mut all = Vec::new();
    for image in &manifest.images {
        let Some(content) = current
            .content
            .get(image.name.as_str())
            .filter(|_| wanted.contains(image.name.as_str()))
        else {
            continue;
        };
        let declared = image.platforms.iter();
        for platform in declared.filter(|one| platforms.is_empty() || platforms.contains(one)) {
            let built = context.wait(builder.build(image, *platform, content, &mut current.lock));
            // Diff IDs learned so far are kept also when a later image fails.
            if current.lock != before && !locked.locked {
                context.write_lock(&current.lock)?;
            }
            let built = built?;
            records::remember(
                &state,
                image,
                content,
                &current.lock,
                &built.image,
                now_ms(),
            )?;
            all.push(Named {
                name: image.name.value.clone(),
                built,
            });
        }
    }
    state.put_root(&context.lock_root())?;
    Ok(all)
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// Says that the lock was written, and what moved in it.
fn tell(context: &Context, previous: Option<&Lock>, lock: &Lock) {
    context
        .progress
        .note(&format!("wrote {}", context.lock_path.display()));
    for (name, platforms) in &lock.images {
        for (platform, after) in platforms {
            let before = previous.and_then(|old| Some((old, old.images.get(name)?.get(platform)?)));
            let Some((old, before)) = before else {
                continue;
            };
            for line in super::diff::lines(&diff_images(old, before, lock, after)) {
                context
                    .progress
                    .note(&format!("  {name} {platform}: {line}"));
            }
        }
    }
}

/// One image of the manifest for one platform, built if need be.
pub fn one(
    context: &Context,
    store: &Store,
    http: &Http,
    name: &str,
    platform: Option<Platform>,
    locked: LockedFlag,
) -> Result<Image, Failure> {
    let manifest = context.manifest()?;
    let built = images(context, store, http, &manifest, &[name.to_owned()], locked)?;
    let mut images = built.into_iter().map(|named| named.built.image);
    let found = match platform {
        Some(platform) => images.find(|image| image.platform == platform),
        None => images.next(),
    };
    found.ok_or_else(|| {
        Failure::plain(
            crate::diagnostic::Kind::NotFound,
            format!("image `{name}` is not declared for that platform"),
            "add it to the image's `platform` node",
        )
    })
}

fn document(named: &Named) -> BuiltDocument {
    let built = &named.built;
    let image = &built.image;
    let ms = |duration: &Duration| duration.as_secs_f64() * 1000.0;
    BuiltDocument {
        name: named.name.clone(),
        platform: image.platform,
        digest: image.digest(),
        key: image.key,
        layers: image.layers.len(),
        unpacked_bytes: image.layers.iter().map(|layer| layer.unpacked).sum(),
        compressed_bytes: image.layers.iter().map(|layer| layer.size).sum(),
        new_bytes: built.new_bytes,
        built: built.fresh,
        timings: built
            .timings
            .iter()
            .map(|(stage, duration)| Timing {
                stage: stage.clone(),
                ms: ms(duration),
            })
            .collect(),
    }
}

fn text(image: &BuiltDocument) -> String {
    let sizes = format!(
        "{} layers, {} unpacked, {} compressed",
        image.layers,
        size(image.unpacked_bytes),
        size(image.compressed_bytes)
    );
    let news = if image.built {
        format!("{} new", size(image.new_bytes))
    } else {
        "already built".into()
    };
    format!(
        "{} {} {}\n  {sizes}, {news}",
        image.name, image.platform, image.digest
    )
}
