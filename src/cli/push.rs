//! `push`: images into the declared registries.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::build::{self, Named};
use super::context::Context;
use super::failure::{ErrorBody, Failure};
use super::interrupt::Watched;
use super::metadata;
use super::output::{self, size};
use super::pipeline::artifacts::Artifacts;
use super::pipeline::content::{self, Content};
use super::pipeline::materialise::Need;
use super::pipeline::places;
use super::pipeline::publishing::{self, Sources};
use super::pipeline::records::now_ms;
use super::pipeline::substitute::Claim;
use super::substitution::{BuildFlags, Wish};
use crate::catalog::publish::{Edition, Publication, Publisher, Pushed, Traffic, Uploads};
use crate::catalog::{Belief, Catalog, SecretKey};
use crate::diagnostic::Kind;
use crate::http::Http;
use crate::image::StoreSource;
use crate::manifest::{ImageRequest, Manifest, Platform};
use crate::registry::Reference;

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
    /// Ask the registry what it has, and tell what would be sent; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep the wheels and debs too, for the day when an index or archive has dropped them
    #[arg(long)]
    with_sources: bool,
    /// Sign the records with the key in this file
    #[arg(long, value_name = "KEYFILE", env = "IMAGEWRIGHT_SIGNING_KEY")]
    sign: Option<PathBuf>,
    /// Write what was pushed (digests, keys, references) into this JSON file
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    metadata_file: Option<PathBuf>,
    #[command(flatten)]
    flags: BuildFlags,
}

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Another place than those that the manifest declares; can be given several times
    #[arg(long, value_name = "HOST/PATH")]
    pub to: Vec<String>,
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
    content: Content,
    images: Vec<&'a Named>,
    tags: Vec<String>,
    git: Option<String>,
}

/// Pushes.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let manifest = context.manifest()?;
    let signer = arguments.sign.as_deref().map(read_key).transpose()?;
    let http = context.http()?;
    let catalogs = catalogs(context, &http, &manifest, &arguments.target)?;
    let lookup = places::lookup(context, &http, &manifest)?;
    let store = context.store()?;
    let wish = Wish {
        only: arguments.platform.clone(),
        ..Wish::new(arguments.flags, Need::Name)
    };
    let built = build::images(context, &store, &http, &manifest, &arguments.images, &wish)?;
    let lock = context.lock()?.unwrap_or_default();
    let sources = Sources {
        progress: &*context.progress,
        store: &store,
        lock: &lock,
        lookup: lookup.as_ref(),
        holders: &holders(lookup.as_ref(), &built),
    };
    if signer.is_some() {
        vouched(&built)?;
    }
    let prepared = prepare(context, &manifest, &built)?;
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
        dry_run: arguments.dry_run,
    };
    let artifacts = Artifacts {
        context,
        store: &store,
        http: &http,
        registry: lookup.as_ref(),
    };
    let mut job = Job {
        publisher: &publisher,
        artifacts: arguments.with_sources.then_some(artifacts),
        signer: signer.as_ref(),
        document: PushDocument {
            dry_run: arguments.dry_run,
            images: Vec::new(),
            failures: Vec::new(),
        },
        failed: Vec::new(),
    };
    for catalog in &catalogs {
        job.destination(context, &sources, catalog, &prepared)?;
    }
    if let (Some(path), true) = (&arguments.metadata_file, job.failed.is_empty()) {
        let places: Vec<_> = catalogs.iter().map(|one| one.place().clone()).collect();
        metadata::write(
            path,
            &metadata::of(context, &manifest, &built, Some(&places))?,
        )?;
    }
    job.tell(context)
}

/// The catalogs of `--to`, or else those of the manifest.
pub fn catalogs(
    context: &Context,
    http: &Http,
    manifest: &Manifest,
    target: &Target,
) -> Result<Vec<Catalog>, Failure> {
    let found = match target.to.as_slice() {
        [] => places::destinations(context, http, manifest)?,
        named => named
            .iter()
            .map(|text| places::named(context, http, manifest, text))
            .collect::<Result<_, _>>()?,
    };
    if found.is_empty() {
        return Err(Failure::plain(
            Kind::Usage,
            "nothing says where to push to",
            "declare it in the manifest: registry \"registry.example.com/ml\"; or give --to HOST/PATH",
        ));
    }
    Ok(found)
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

/// Most bytes of a key file.
const KEY_LIMIT: u64 = 4096;

/// Reads a key file.
pub fn read_key(path: &Path) -> Result<SecretKey, Failure> {
    let fail = |reason: String| {
        Failure::plain(
            Kind::Usage,
            format!("cannot read the key file {}: {reason}", path.display()),
            "`imagewright sign --new FILE` writes a key file",
        )
    };
    let meta = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?;
    if !meta.is_file() || meta.len() > KEY_LIMIT {
        return Err(fail("it is not a small file".into()));
    }
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| fail("it is not text".into()))?;
    Ok(SecretKey::parse(&text, path)?)
}

/// Puts together what the images of each name need.
fn prepare<'a>(
    context: &Context,
    manifest: &'a Manifest,
    built: &'a [Named],
) -> Result<Vec<Prepared<'a>>, Failure> {
    let mut commit = None;
    let mut prepared = Vec::new();
    for request in &manifest.images {
        let images: Vec<&Named> = built
            .iter()
            .filter(|named| named.name == request.name.value)
            .collect();
        if images.is_empty() {
            continue;
        }
        if publishing::needs_commit(request) && commit.is_none() {
            commit = Some(publishing::commit(&context.folder)?);
        }
        let git = commit.clone().filter(|_| publishing::needs_commit(request));
        prepared.push(Prepared {
            request,
            content: content::read(context, request)?,
            images,
            tags: publishing::expand(request, git.as_deref())?,
            git,
        });
    }
    Ok(prepared)
}

struct Job<'a> {
    publisher: &'a Publisher<'a>,
    /// Where wheels and debs come from that are kept too.
    artifacts: Option<Artifacts<'a>>,
    signer: Option<&'a SecretKey>,
    document: PushDocument,
    failed: Vec<Failure>,
}

impl Job<'_> {
    /// Pushes everything to one destination, as far as it can be reached.
    fn destination(
        &mut self,
        context: &Context,
        sources: &Sources<'_>,
        catalog: &Catalog,
        prepared: &[Prepared<'_>],
    ) -> Result<(), Failure> {
        for image in prepared {
            let editions = image
                .images
                .iter()
                .map(|named| {
                    let git = image.git.as_deref();
                    let found = (&named.built.image, named.built.set);
                    sources.edition(image.request, &image.content, found, git)
                })
                .collect::<Result<Vec<Edition<'_>>, _>>()?;
            let publication = Publication {
                name: &image.request.name.value,
                editions,
                platforms: &image.request.platforms,
                tags: image.tags.clone(),
                protected: image.request.protected,
                pushed_ms: now_ms(),
                signer: self.signer,
            };
            let publish = self.publisher.publish(catalog, &publication);
            match context.wait(publish) {
                Ok(pushed) => {
                    let kept = context.wait(self.keep(sources, catalog, image));
                    let (kept, failure) = match kept {
                        Ok(kept) => (kept, None),
                        Err(failure) => (None, Some(failure)),
                    };
                    self.pushed(&publication, pushed, kept);
                    if let Some(failure) = failure {
                        self.failed(catalog, publication.name, failure);
                    }
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    let unreachable = failure.kind() == Kind::Unavailable;
                    self.failed(catalog, publication.name, failure);
                    if unreachable {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps the wheels and debs of an image too, if that is asked for.
    async fn keep(
        &self,
        sources: &Sources<'_>,
        catalog: &Catalog,
        image: &Prepared<'_>,
    ) -> Result<Option<Traffic>, Failure> {
        let Some(artifacts) = self.artifacts else {
            return Ok(None);
        };
        let mut all = Traffic::default();
        for named in &image.images {
            let built = &named.built.image;
            if catalog.has_sources(&built.key).await? {
                continue;
            }
            let locked = sources.locked(&named.name, built.platform)?;
            let files = artifacts
                .sources(image.request, sources.lock, locked)
                .await?;
            all += self
                .publisher
                .keep_sources(catalog, &built.key, &files)
                .await?;
        }
        Ok(Some(all))
    }

    fn failed(&mut self, catalog: &Catalog, name: &str, failure: Failure) {
        self.document.failures.push(FailureDocument {
            name: name.into(),
            repository: catalog.place().image(name).to_string(),
            error: failure.to_json().error,
        });
        self.failed.push(failure);
    }

    fn pushed(&mut self, publication: &Publication<'_>, pushed: Pushed, sources: Option<Traffic>) {
        self.document.images.push(PushedDocument {
            name: publication.name.into(),
            platforms: publication
                .editions
                .iter()
                .map(|edition| edition.image.platform)
                .collect(),
            reference: format!("{}@{}", pushed.repository, pushed.digest),
            signed_by: self.signer.map(|signer| signer.public().to_string()),
            sources,
            pushed,
        });
    }

    /// Prints what was done; the first failure is the command's.
    fn tell(self, context: &Context) -> Result<ExitCode, Failure> {
        if context.global.json {
            output::json(&self.document);
        } else {
            for image in &self.document.images {
                output::line(&text(image, self.document.dry_run));
            }
        }
        let mut failed = self.failed.into_iter();
        let first = failed.next();
        if !context.global.json {
            for other in failed {
                output::failure(&other, false);
            }
        }
        first.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}

fn text(image: &PushedDocument, dry_run: bool) -> String {
    let pushed = &image.pushed;
    let tags: Vec<String> = pushed
        .tags
        .iter()
        .map(|tag| format!("{}:{tag}", pushed.repository))
        .collect();
    let done = match (pushed.is_unchanged(), dry_run) {
        (true, _) => "already pushed",
        (false, true) => "would be pushed",
        (false, false) => "pushed",
    };
    let mut lines = vec![
        format!("{} {done}: {}", image.name, tags.join(", ")),
        format!("  {}", pushed.digest),
        format!(
            "  layers: {}; documents: {}",
            moved(&pushed.layers),
            moved(&pushed.documents)
        ),
    ];
    if let Some(sources) = &image.sources {
        let told = match *sources == Traffic::default() {
            true => "kept already".into(),
            false => moved(sources),
        };
        lines.push(format!("  sources: {told}"));
    }
    if let Some(before) = pushed.supersedes {
        lines.push(format!("  supersedes {before}"));
    }
    for platform in &pushed.kept {
        lines.push(format!("  {platform} stays as it was"));
    }
    if let Some(key) = &image.signed_by {
        lines.push(format!("  signed by {key}"));
    }
    lines.join("\n")
}

/// `2 uploaded (1.2 MB), 3 there already (40 MB)`
fn moved(traffic: &Traffic) -> String {
    let parts = [
        (traffic.uploaded, "uploaded"),
        (traffic.mounted, "mounted"),
        (traffic.existing, "there already"),
    ];
    let told: Vec<String> = parts
        .iter()
        .filter(|(count, _)| count.count > 0)
        .map(|(count, what)| format!("{} {what} ({})", count.count, size(count.bytes)))
        .collect();
    match told.is_empty() {
        true => "none".into(),
        false => told.join(", "),
    }
}
