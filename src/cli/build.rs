//! `build`: images into the store.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::metadata;
use super::output::{self, size};
use super::pipeline::artifacts::Artifacts;
use super::pipeline::building::{Builder, Built, Work};
use super::pipeline::materialise::Need;
use super::pipeline::substitute::{Claim, Substitutes};
use super::pipeline::{locking, places, records, verify};
use super::substitution::{BuildFlags, Wish};
use crate::catalog::{Catalog, Trust};
use crate::diagnostic::{Kind, counted};
use crate::digest::Digest;
use crate::http::Http;
use crate::image::Image;
use crate::layer::LayerContent;
use crate::lock::{Lock, diff_images};
use crate::manifest::{Manifest, Platform};
use crate::store::Store;

/// Flags of `build`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Images to build; default: all
    images: Vec<String>,
    #[command(flatten)]
    flags: BuildFlags,
    /// Build everything in full and compare it with what the registry has of the same keys; exit code 7 if it differs
    #[arg(long, conflicts_with = "no_substitute")]
    verify_substitutes: bool,
    /// Print where the time went
    #[arg(long)]
    timings: bool,
    /// Write what was built (digests, keys, references) into this JSON file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
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
    /// The set key: what the lock pins and the manifest configures.
    pub set: Digest,
    /// What of it was believed instead of made here; absent if nothing was.
    pub substituted: Option<SubstitutedDocument>,
    /// Bytes of layers that were pulled for it.
    pub pulled_bytes: u64,
    /// Where the time went.
    pub timings: Vec<Timing>,
}

/// What of an image was believed instead of made here.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct SubstitutedDocument {
    /// The repository that has the bytes.
    pub repository: String,
    /// Why it is believed.
    pub because: Vec<String>,
    /// Whether it is the whole image; else some of its layers.
    pub whole: bool,
    /// Diff IDs of the layers, if it is some.
    pub layers: Vec<Digest>,
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
    /// Its request key.
    pub request: Option<Digest>,
}

/// Builds.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let manifest = context.manifest()?;
    let store = context.store()?;
    let http = context.http()?;
    let wish = Wish {
        verify: arguments.verify_substitutes,
        ..Wish::new(arguments.flags, Need::Name)
    };
    if let Some(path) = &arguments.metadata_file {
        metadata::check(path)?;
    }
    let built = images(context, &store, &http, &manifest, &arguments.images, &wish)?;
    if let Some(path) = &arguments.metadata_file {
        metadata::write(path, &metadata::of(context, &manifest, &built, None)?)?;
    }
    let document = BuildDocument {
        images: built.iter().map(document).collect(),
    };
    if context.global.json {
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    for (image, named) in document.images.iter().zip(&built) {
        output::line(&text(image));
        if context.global.offline {
            tell_absent(named);
        }
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
    wish: &Wish,
) -> Result<Vec<Named>, Failure> {
    let wanted: BTreeSet<&str> = context
        .select(manifest, names)?
        .into_iter()
        .map(|image| image.name.as_str())
        .collect();
    let previous = context.lock()?;
    let locked = wish.flags.locked;
    let mode = locked.mode();
    let stage = locking::bring_up_to_date(context, store, http, manifest, previous.as_ref(), &mode);
    let mut current = context.wait(stage)?;
    if current.changed && !locked.locked {
        context.write_lock(&current.lock)?;
        tell(context, previous.as_ref(), &current.lock);
    }
    let before = current.lock.clone();
    let flags = wish.flags.substitution;
    let substitutes = Substitutes::new(context, store, http, manifest, flags)?;
    let verifier = match wish.verify {
        true => Some(verifier(context, http, manifest)?),
        false => None,
    };
    let work = match (wish.verify, flags.no_substitute) {
        (true, _) => Work::New,
        (false, true) => Work::Own,
        (false, false) => Work::Any,
    };
    let trust = places::trust(manifest, flags.trust_registry);
    let registry = places::lookup(context, http, manifest)?;
    let artifacts = Artifacts {
        context,
        store,
        http,
        registry: registry.as_ref(),
    };
    let builder = Builder::new(artifacts, work, trust.clone(), substitutes)?;
    let builder = builder.held_to_the_lock(locked.locked);
    let state = store.state()?;
    let only = |platform: &&Platform| wish.only.is_empty() || wish.only.contains(platform);
    let mut orders = Vec::new();
    for image in manifest
        .images
        .iter()
        .filter(|image| wanted.contains(image.name.as_str()))
    {
        let Some(content) = current.content.get(image.name.as_str()) else {
            continue;
        };
        for platform in image.platforms.iter().filter(only) {
            orders.push((image, *platform, content));
        }
    }
    let ahead = builder.look_ahead(&orders, &current.lock);
    context.wait(ahead)?;
    let mut all = Vec::new();
    for (image, platform, content) in orders {
        let need = match wish.platform {
            Some(wanted) if wanted != platform => Need::Name,
            _ => wish.need,
        };
        let building = builder.build(image, platform, content, need, &mut current.lock);
        let built = context.wait(building);
        // Diff IDs learned so far are kept also when a later image fails.
        if current.lock != before && !locked.locked {
            context.write_lock(&current.lock)?;
        }
        let built = built?;
        let made = (&built.image, built.set);
        records::remember(&state, image, content, &current.lock, made)?;
        if let Some(catalog) = &verifier {
            verify(context, catalog, &trust, &image.name.value, &built)?;
        }
        let name = &image.name.value;
        let locked = current.lock.images.get(name);
        let locked = locked.and_then(|platforms| platforms.get(&platform));
        all.push(Named {
            name: name.clone(),
            built,
            request: locked.map(|locked| locked.request),
        });
    }
    state.put_root(&context.lock_root())?;
    Ok(all)
}

/// The registry that `--verify-substitutes` compares with.
fn verifier(context: &Context, http: &Http, manifest: &Manifest) -> Result<Catalog, Failure> {
    places::lookup(context, http, manifest)?.ok_or_else(|| {
        Failure::plain(
            Kind::Usage,
            "the manifest declares no registry to compare with",
            "declare one: registry \"HOST/REPOSITORY\"",
        )
    })
}

fn verify(
    context: &Context,
    catalog: &Catalog,
    trust: &Trust,
    name: &str,
    built: &Built,
) -> Result<(), Failure> {
    let agreeing = context.wait(verify::agreeing(catalog, &trust.keys, name, built))?;
    context.progress.note(&match agreeing {
        0 => format!(
            "{name}: {} has nothing to compare with",
            catalog.place().root()
        ),
        _ => format!("{name}: {} has the same", catalog.place().root()),
    });
    Ok(())
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
    wish: Wish,
) -> Result<Image, Failure> {
    let manifest = context.manifest()?;
    let wish = Wish { platform, ..wish };
    let built = images(context, store, http, &manifest, &[name.to_owned()], &wish)?;
    let mut images = built.into_iter().map(|named| named.built.image);
    let found = match platform {
        Some(platform) => images.find(|image| image.platform == platform),
        None => images.next(),
    };
    found.ok_or_else(|| {
        Failure::plain(
            Kind::NotFound,
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
        set: built.set,
        substituted: built.claim.as_ref().map(substituted),
        pulled_bytes: built.pulled_bytes,
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

fn substituted(claim: &Claim) -> SubstitutedDocument {
    SubstitutedDocument {
        repository: claim.repository.clone(),
        because: claim.beliefs().iter().map(ToString::to_string).collect(),
        whole: claim.is_whole(),
        layers: claim.layers(),
    }
}

/// Says which layers are to be had from a registry alone, which is not asked for them now.
fn tell_absent(named: &Named) {
    let layers = named.built.image.layers.iter();
    let absent = layers.filter(|layer| layer.content == LayerContent::Registry);
    let absent = absent.count();
    if absent > 0 {
        output::line(&format!(
            "  not in this store, and not pulled because of --offline: {}",
            counted(absent, "layer")
        ));
    }
}

fn text(image: &BuiltDocument) -> String {
    let sizes = format!(
        "{}, {} unpacked, {} compressed",
        counted(image.layers, "layer"),
        size(image.unpacked_bytes),
        size(image.compressed_bytes)
    );
    let news = match (&image.substituted, image.built) {
        (_, true) => format!("{} new", size(image.new_bytes)),
        (Some(substituted), false) => format!(
            "substituted from {} ({}), {} of layers pulled",
            substituted.repository,
            substituted.because.join(", "),
            size(image.pulled_bytes)
        ),
        (None, false) => "already built".into(),
    };
    let layers = match &image.substituted {
        Some(substituted) if image.built => format!(
            "\n  {} of its layers from {} ({})",
            substituted.layers.len(),
            substituted.repository,
            substituted.because.join(", ")
        ),
        _ => String::new(),
    };
    format!(
        "{} {} {}\n  {sizes}, {news}{layers}",
        image.name, image.platform, image.digest
    )
}
