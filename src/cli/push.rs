//! `push`: images into the declared registries.

mod delivery;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::build::{self, Named};
use super::context::Context;
use super::failure::{ErrorBody, Failure};
use super::interrupt::Watched;
use super::pipeline::artifacts::Artifacts;
use super::pipeline::materialise::Need;
use super::pipeline::places::{self, Target};
use super::pipeline::publishing::{self, Sources};
use super::pipeline::substitute::Claim;
use super::pipeline::{content, records};
use super::substitution::{BuildFlags, Wish};
use super::{key_file, metadata, output};
use crate::catalog::publish::{Edition, Publisher, Pushed, Traffic, Uploads};
use crate::catalog::{Belief, Catalog};
use crate::diagnostic::Kind;
use crate::image::StoreSource;
use crate::manifest::{ImageRequest, Manifest, Platform};
use crate::registry::Reference;
use delivery::Delivery;

/// Flags of `push`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Images to push; default: all
    images: Vec<String>,
    #[command(flatten)]
    target: Target,
    /// Only these platforms; default: all that the image declares
    #[arg(long, value_name = "PLATFORM", value_parser = super::platforms())]
    platform: Vec<Platform>,
    /// Ask the registry what it has, and tell what would be sent; write nothing there. Images are built, and the lock
    /// is brought up to date, as by `build`
    #[arg(long)]
    dry_run: bool,
    /// Keep the wheels and debs too, for the day when an index or archive has dropped them
    #[arg(long)]
    with_sources: bool,
    /// Sign the records with the key in this file
    #[arg(
        long,
        value_name = "KEYFILE",
        env = "IMAGEWRIGHT_SIGNING_KEY",
        hide_env_values = true
    )]
    sign: Option<PathBuf>,
    /// Write what was pushed (digests, keys, references) into this JSON file
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    metadata_file: Option<PathBuf>,
    #[command(flatten)]
    flags: BuildFlags,
}

/// What `push --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct PushDocument {
    /// Whether this is only what would have been done.
    pub dry_run: bool,
    /// What was pushed: by destination, then in declared order.
    pub images: Vec<PushedDocument>,
    /// What was not.
    pub failures: Vec<FailureDocument>,
}

/// One image at one destination.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct PushedDocument {
    /// Declared name.
    pub name: String,
    /// Platforms that were pushed now.
    pub platforms: Vec<Platform>,
    /// Where it is, by digest.
    pub reference: String,
    /// The public key that signed.
    pub signed_by: Option<String>,
    /// With `--with-sources`: the wheels and debs; all zero if they were kept before.
    pub sources: Option<Traffic>,
    /// What was done.
    #[serde(flatten)]
    pub pushed: Pushed,
}

/// One image that could not be pushed to one destination.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct FailureDocument {
    /// Declared name.
    pub name: String,
    /// Host and repository.
    pub repository: String,
    /// Why.
    pub error: ErrorBody,
}

/// One declared image with everything that is pushed of it.
struct Prepared<'a> {
    request: &'a ImageRequest,
    editions: Vec<Edition<'a>>,
    tags: Vec<String>,
}

/// Pushes.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let manifest = context.manifest()?;
    let signer = arguments.sign.as_deref();
    let signer = signer.map(|path| key_file::read(context, path));
    let signer = signer.transpose()?;
    let http = context.http()?;
    let catalogs = arguments.target.catalogs(context, &http, &manifest)?;
    let lookup = places::lookup(context, &http, &manifest)?;
    let store = context.store()?;
    if let Some(path) = &arguments.metadata_file {
        metadata::check(path)?;
    }
    if let Some(failures) = unanswered(context, &catalogs, &manifest, &arguments.images)? {
        return tell(context, arguments.dry_run, Vec::new(), failures);
    }
    let wish = Wish {
        only: arguments.platform.clone(),
        ..Wish::new(arguments.flags, Need::Name)
    };
    let built = build::images(context, &store, &http, &manifest, &arguments.images, &wish)?;
    if signer.is_some() {
        vouched(&built)?;
    }
    let lock = context.lock()?.unwrap_or_default();
    let sources = Sources {
        artifacts: Artifacts {
            context,
            store: &store,
            http: &http,
            registry: lookup.as_ref(),
        },
        requests: &manifest.images,
        lock: &lock,
        holders: &holders(lookup.as_ref(), &built),
    };
    let prepared = prepare(context, &manifest, &built, &sources)?;
    one_tag_each(&catalogs, &prepared)?;
    let stored = StoreSource::new(&store);
    let publisher = Publisher {
        store: &store,
        source: &Watched {
            source: &stored,
            cancel: &context.cancel,
        },
        materialise: &sources,
        uploads: &Uploads::default(),
        progress: &*context.progress,
        clock: &records::now_ms,
        dry_run: arguments.dry_run,
    };
    let mut delivery = Delivery {
        context,
        publisher: &publisher,
        sources: &sources,
        with_sources: arguments.with_sources,
        signer: signer.as_ref(),
        images: Vec::new(),
        failures: Vec::new(),
    };
    for catalog in &catalogs {
        delivery.to(catalog, &prepared);
    }
    let complete = delivery.failures.is_empty();
    let told = tell(
        context,
        arguments.dry_run,
        delivery.images,
        delivery.failures,
    )?;
    if let (Some(path), true) = (&arguments.metadata_file, complete) {
        let places: Vec<_> = catalogs.iter().map(|one| one.place().clone()).collect();
        let document = metadata::of(context, &manifest, &built, Some(&places))?;
        metadata::write(path, &document)?;
    }
    Ok(told)
}

/// What was not pushed, and why.
type Failures = Vec<(FailureDocument, Failure)>;

/// Before anything is made: why no destination answers, or takes our credentials. One is enough to begin with.
fn unanswered(
    context: &Context,
    catalogs: &[Catalog],
    manifest: &Manifest,
    images: &[String],
) -> Result<Option<Failures>, Failure> {
    let images = context.select(manifest, images)?;
    let mut failures = Vec::new();
    for (catalog, image) in catalogs.iter().zip(images.iter().cycle()) {
        let (place, name) = (catalog.place(), image.name.as_str());
        let reference = Reference {
            tag: Some(place.tag(name, None)),
            ..place.image(name)
        };
        match context.wait(catalog.registry().head_manifest(&reference)) {
            Ok(_) => return Ok(None),
            Err(error) => failures.push(failed(catalog, name, error.into())),
        }
    }
    Ok(Some(failures))
}

/// An image that a destination did not get.
fn failed(catalog: &Catalog, name: &str, failure: Failure) -> (FailureDocument, Failure) {
    let told = FailureDocument {
        name: name.into(),
        repository: catalog.place().image(name).to_string(),
        error: failure.to_json().error,
    };
    (told, failure)
}

/// Repositories that have what was believed instead of made.
fn holders(lookup: Option<&Catalog>, built: &[Named]) -> Vec<Reference> {
    let claims = built.iter().filter_map(|named| named.built.claim.as_ref());
    let mut holders: Vec<Reference> = claims.filter_map(Claim::repository).collect();
    holders.extend(lookup.map(|lookup| lookup.place().cache()));
    holders.sort();
    holders.dedup();
    holders
}

/// Nobody signs what only the registry says.
fn vouched(built: &[Named]) -> Result<(), Failure> {
    for named in built {
        let mut beliefs = named.built.claim.iter().flat_map(Claim::beliefs);
        if beliefs.any(|belief| *belief == Belief::Registry) {
            return Err(Failure::plain(
                Kind::Refused,
                format!(
                    "image `{}` is only what the registry says: it is not signed",
                    named.name
                ),
                "push with --no-substitute, which builds it here; or sign it with `imagewright sign --trust-registry`",
            ));
        }
    }
    Ok(())
}

/// Puts together what the images of each name need.
fn prepare<'a>(
    context: &Context,
    manifest: &'a Manifest,
    built: &'a [Named],
    sources: &Sources<'_>,
) -> Result<Vec<Prepared<'a>>, Failure> {
    let mut commit = None;
    let mut prepared = Vec::new();
    for request in &manifest.images {
        let name = &request.name.value;
        let images: Vec<&Named> = built.iter().filter(|named| named.name == *name).collect();
        if images.is_empty() {
            continue;
        }
        let needed = publishing::needs_commit(request);
        if needed && commit.is_none() {
            commit = Some(publishing::commit(&context.folder)?);
        }
        let git = commit.as_deref().filter(|_| needed);
        let content = content::read(context, request)?;
        let editions = images.iter().map(|named| {
            let found = (&named.built.image, named.built.set);
            sources.edition(request, &content, found, git)
        });
        prepared.push(Prepared {
            request,
            editions: editions.collect::<Result<_, _>>()?,
            tags: publishing::expand(request, git)?,
        });
    }
    Ok(prepared)
}

/// No two images write one tag: what `{git}` stands for is not known before.
fn one_tag_each(catalogs: &[Catalog], prepared: &[Prepared<'_>]) -> Result<(), Failure> {
    let mut writers: BTreeMap<Reference, &str> = BTreeMap::new();
    for (catalog, image) in catalogs
        .iter()
        .flat_map(|catalog| prepared.iter().map(move |image| (catalog, image)))
    {
        let name = image.request.name.as_str();
        for reference in catalog.place().names(name, &image.tags) {
            let shown = reference.to_string();
            let other = *writers.entry(reference).or_insert(name);
            if other != name {
                return Err(Failure::plain(
                    Kind::Usage,
                    format!("the images `{other}` and `{name}` would both be pushed as {shown}"),
                    "rename one of the two, or choose other tags",
                ));
            }
        }
    }
    Ok(())
}

/// Prints what was done; the first failure is the command's.
fn tell(
    context: &Context,
    dry_run: bool,
    images: Vec<PushedDocument>,
    failures: Failures,
) -> Result<ExitCode, Failure> {
    let (told, failures): (Vec<FailureDocument>, Vec<Failure>) = failures.into_iter().unzip();
    let json = context.global.json;
    match json {
        true => output::json(&PushDocument {
            dry_run,
            images,
            failures: told,
        }),
        false => {
            for image in &images {
                output::line(&text::of(image, dry_run));
            }
        }
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    for other in failures.filter(|_| !json) {
        output::failure(&other, false);
    }
    first.map_or(Ok(ExitCode::SUCCESS), Err)
}
