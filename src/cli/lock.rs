//! `lock`: resolve and write `imagewright.lock`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde::Serialize;

use super::context::{Context, unknown};
use super::failure::Failure;
use super::output;
use super::pipeline::locking::{self, Mode};
use crate::diagnostic::Kind;
use crate::identity::CacheDocument;
use crate::lock::{self, ImageDiff, Lock, diff_images};
use crate::manifest::{Manifest, Platform};

/// Flags of `lock`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Let pins move: all, or those of the packages named
    #[arg(long, num_args = 0.., value_name = "NAME")]
    upgrade: Option<Vec<String>>,
    #[command(flatten)]
    locked: LockedFlag,
    /// Print a key for a copy of the store between jobs; reads only the lock, and changes nothing
    #[arg(long, conflicts_with = "upgrade")]
    print_cache_key: bool,
}

/// The flag that forbids changes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LockedFlag {
    /// Fail (exit code 5) if the lock does not answer the manifest, instead of changing it
    #[arg(long)]
    pub locked: bool,
}

impl LockedFlag {
    /// What may change.
    pub fn mode(self) -> Mode {
        if self.locked {
            Mode::Locked
        } else {
            Mode::Keep
        }
    }
}

/// What `lock --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct LockDocument {
    /// Whether the file was written.
    pub changed: bool,
    /// What differs from the lock before, per image and platform.
    pub images: Vec<LockedImageDocument>,
}

/// One image of a lock.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct LockedImageDocument {
    /// Declared name.
    pub name: String,
    /// Its platform.
    pub platform: Platform,
    /// Number of wheels.
    pub wheels: usize,
    /// Number of OS packages above the base.
    pub debs: usize,
    /// What differs; absent if the lock had no such image.
    pub diff: Option<ImageDiff>,
}

/// What `lock --print-cache-key --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct CacheKeyDocument {
    /// 64 hexadecimal digits: equal for locks of the same artifacts, whatever their images are called.
    pub key: String,
    /// Number of wheels that the key stands for.
    pub wheels: usize,
    /// Number of Debian packages.
    pub debs: usize,
    /// Number of base images.
    pub bases: usize,
}

/// Locks.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.print_cache_key {
        return cache_key(context);
    }
    let mode = match (&arguments.upgrade, arguments.locked.locked) {
        (Some(_), true) => {
            return Err(Failure::plain(
                Kind::Usage,
                "--upgrade and --locked contradict each other",
                "give one of them",
            ));
        }
        (Some(names), false) => {
            Mode::Upgrade(names.iter().map(|name| lock::normalize(name)).collect())
        }
        (None, _) => arguments.locked.mode(),
    };
    let manifest = context.manifest()?;
    let previous = context.lock()?;
    if let (Mode::Upgrade(names), Some(previous)) = (&mode, &previous) {
        known_packages(&manifest, previous, names)?;
    }
    let store = context.store()?;
    let http = context.http()?;
    let stage =
        locking::bring_up_to_date(context, &store, &http, &manifest, previous.as_ref(), &mode);
    let locked = context.wait(stage)?;
    if locked.changed {
        context.write_lock(&locked.lock)?;
    }
    store.state()?.put_root(&context.lock_root())?;
    let document = document(previous.as_ref(), &locked.lock, locked.changed);
    if context.global.json {
        output::json(&document);
    } else {
        print(context, &document);
    }
    Ok(ExitCode::SUCCESS)
}

fn cache_key(context: &Context) -> Result<ExitCode, Failure> {
    let Some(lock) = context.lock()? else {
        return Err(Failure::plain(
            Kind::NotFound,
            format!("there is no {}", context.lock_path.display()),
            "run `imagewright lock` and commit the file: the key says what it pins",
        ));
    };
    let document = CacheDocument::new(&lock);
    let key = document.key().hex();
    if context.global.json {
        output::json(&CacheKeyDocument {
            key,
            wheels: document.wheels.len(),
            debs: document.debs.len(),
            bases: document.bases.len(),
        });
    } else {
        output::line(&key);
    }
    Ok(ExitCode::SUCCESS)
}

/// A name that no package has is a mistake, not an upgrade of nothing.
fn known_packages(
    manifest: &Manifest,
    lock: &Lock,
    names: &BTreeSet<String>,
) -> Result<(), Failure> {
    let wheels = lock.wheels.values().map(|wheel| wheel.name.as_str());
    let debs = lock.debs.values().map(|deb| deb.package.as_str());
    let asked = manifest.images.iter().flat_map(|image| {
        let pip = image.pip.iter().map(|pip| pip.name.as_str());
        pip.chain(image.os.iter().map(|os| os.name.as_str()))
    });
    let known: BTreeSet<&str> = wheels.chain(debs).chain(asked).collect();
    match names.iter().find(|name| !known.contains(name.as_str())) {
        Some(name) => Err(unknown("package", name, known.into_iter())),
        None => Ok(()),
    }
}

fn document(previous: Option<&Lock>, lock: &Lock, changed: bool) -> LockDocument {
    let mut images = Vec::new();
    for (name, platforms) in &lock.images {
        for (platform, image) in platforms {
            let before = previous.and_then(|old| Some((old, old.images.get(name)?.get(platform)?)));
            images.push(LockedImageDocument {
                name: name.clone(),
                platform: *platform,
                wheels: image.wheels.len(),
                debs: image.debs.len(),
                diff: before.map(|(old, before)| diff_images(old, before, lock, image)),
            });
        }
    }
    LockDocument { changed, images }
}

fn print(context: &Context, document: &LockDocument) {
    for image in &document.images {
        output::line(&format!(
            "{} for {}: {} wheels, {} OS packages above the base",
            image.name, image.platform, image.wheels, image.debs
        ));
        for line in image.diff.iter().flat_map(super::diff::lines) {
            output::line(&format!("  {line}"));
        }
    }
    let path = context.lock_path.display();
    output::line(&if document.changed {
        format!("wrote {path}")
    } else {
        format!("{path} is up to date")
    });
}
