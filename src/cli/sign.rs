//! `sign`: key files, and signatures on what a registry has.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::key_file;
use super::output;
use super::pipeline::artifacts::Artifacts;
use super::pipeline::building::{Builder, Order, Work};
use super::pipeline::content;
use super::pipeline::places::Target;
use super::pipeline::publishing::Sources;
use super::pipeline::records;
use crate::catalog::publish::{Evidence, Publisher, Signed, ToSign, Uploads};
use crate::catalog::{Catalog, SecretKey, Trust, Wanted};
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::identity::ConfigDocument;
use crate::image::StoreSource;
use crate::lock::LockedBase;
use crate::manifest::{ImageRequest, Platform};

/// Flags of `sign`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Images whose records in the registry are signed; default: all
    #[arg(conflicts_with = "new")]
    images: Vec<String>,
    /// Write a new secret key into this file, and print its public key
    #[arg(long, value_name = "KEYFILE")]
    new: Option<PathBuf>,
    /// The secret key
    #[arg(
        long,
        value_name = "KEYFILE",
        env = "IMAGEWRIGHT_SIGNING_KEY",
        hide_env_values = true
    )]
    key: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    /// Sign what the registry says, also where neither this store nor the lock vouches for it
    #[arg(long)]
    trust_registry: bool,
}

/// What `sign --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct SignDocument {
    /// The public key, as `trust` names it.
    pub key: String,
    /// Its short name: the first 16 digits of its SHA-256, as tags and messages have it.
    pub id: String,
    /// Where the new secret key was written.
    pub written: Option<String>,
    /// What was signed, by destination, then in declared order.
    pub images: Vec<SignedDocument>,
}

/// One image at one destination.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct SignedDocument {
    /// Declared name.
    pub name: String,
    /// Its platform.
    pub platform: Platform,
    /// Host and repository of the records.
    pub repository: String,
    /// What was done.
    #[serde(flatten)]
    pub signed: Signed,
}

/// Signs, or makes a key.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let document = match &arguments.new {
        Some(path) => new_key(path)?,
        None => sign(context, arguments)?,
    };
    if context.global.json {
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &document.written {
        let id = &document.id;
        output::line(&format!(
            "wrote {path}: keep it secret; what it signs is told as signed by {id}; for the manifest:"
        ));
        output::line(&format!("trust \"{}\"", document.key));
    }
    for image in &document.images {
        let done = match image.signed.documents.uploaded.count {
            0 => "signed before",
            _ => "signed",
        };
        output::line(&format!(
            "{} {} {done} in {}\n  {}",
            image.name, image.platform, image.repository, image.signed.digest
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn new_key(path: &Path) -> Result<SignDocument, Failure> {
    let key = SecretKey::generate()?;
    key_file::write(path, &key)?;
    Ok(SignDocument {
        key: key.public().to_string(),
        id: key.public().id(),
        written: Some(path.display().to_string()),
        images: Vec::new(),
    })
}

fn sign(context: &Context, arguments: &Arguments) -> Result<SignDocument, Failure> {
    let manifest = context.manifest()?;
    let Some(path) = &arguments.key else {
        return Err(Failure::plain(
            Kind::Usage,
            "nothing says which key signs",
            "give --key KEYFILE, or set IMAGEWRIGHT_SIGNING_KEY; `imagewright sign --new KEYFILE` makes one",
        ));
    };
    let signer = key_file::read(context, path)?;
    let requests = context.select(&manifest, &arguments.images)?;
    let http = context.http()?;
    let catalogs = arguments.target.catalogs(context, &http, &manifest)?;
    let store = context.store()?;
    let lock = context.lock()?.unwrap_or_default();
    let artifacts = Artifacts {
        context,
        store: &store,
        http: &http,
        registry: None,
    };
    let sources = Sources {
        artifacts,
        requests: &manifest.images,
        lock: &lock,
        holders: &[],
    };
    let job = Job {
        context,
        builder: Builder::new(artifacts, Work::Own, Trust::default(), None)?,
        sources: &sources,
        publisher: Publisher {
            store: &store,
            source: &StoreSource::new(&store),
            materialise: &sources,
            uploads: &Uploads::default(),
            progress: &*context.progress,
            clock: &records::now_ms,
            dry_run: false,
        },
        signer: &signer,
        trust_registry: arguments.trust_registry,
    };
    let mut images = Vec::new();
    for catalog in &catalogs {
        for request in &requests {
            for platform in &request.platforms {
                images.push(job.image(catalog, request, *platform)?);
            }
        }
    }
    Ok(SignDocument {
        key: signer.public().to_string(),
        id: signer.public().id(),
        written: None,
        images,
    })
}

struct Job<'a> {
    context: &'a Context,
    builder: Builder<'a>,
    sources: &'a Sources<'a>,
    publisher: Publisher<'a>,
    signer: &'a SecretKey,
    trust_registry: bool,
}

impl Job<'_> {
    fn image(
        &self,
        catalog: &Catalog,
        request: &ImageRequest,
        platform: Platform,
    ) -> Result<SignedDocument, Failure> {
        let name = &request.name.value;
        let lock = self.sources.lock;
        let locked = self.sources.locked(name, platform)?;
        let content = content::read(self.context, request)?;
        let order = Order {
            request,
            platform,
            content: &content,
            locked: locked.clone(),
        };
        let (set, built) = self.builder.stored(&order, lock)?;
        let extras = match &built {
            Some(image) => self.sources.extras(image, locked)?,
            None => Vec::new(),
        };
        let evidence = match (&built, locked.digest) {
            (Some(image), _) => Evidence::Built(image, &extras),
            (None, Some(digest)) => Evidence::Lock(digest),
            (None, None) if self.trust_registry => Evidence::Registry,
            (None, None) => Evidence::None,
        };
        let to_sign = ToSign {
            name,
            set,
            wanted: Wanted {
                platform,
                config: &ConfigDocument::new(&request.config),
                from: match &locked.base {
                    LockedBase::From { digest, .. } => Some(*digest),
                    LockedBase::Debian { .. } => None,
                },
            },
            evidence,
            lock: Digest::of(lock.only(name, platform).unwrap_or_default().to_text()),
        };
        let sign = self.publisher.sign(catalog, &to_sign, self.signer);
        Ok(SignedDocument {
            name: name.clone(),
            platform,
            repository: catalog.place().cache().to_string(),
            signed: self.context.wait(sign)?,
        })
    }
}
