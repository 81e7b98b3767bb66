//! `lock`: resolve and write `imagewright.lock`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde::Serialize;

use super::context::{Context, unknown};
use super::failure::Failure;
use super::output;
use super::pipeline::locking::{self, Locked, Mode};
use super::pipeline::shelf::{Contribution, Preferred, Reused, Shelf, Why, Wishes};
use crate::diagnostic::{Kind, counted};
use crate::identity::CacheDocument;
use crate::lock::{self, ImageDiff, Lock, diff_images};
use crate::manifest::{Manifest, Platform};

/// Most OS packages that are listed one by one.
const SHOWN: usize = 10;

/// Flags of `lock`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Let pins move: all, or those of the packages named
    #[arg(long, num_args = 0.., value_name = "NAME")]
    upgrade: Option<Vec<String>>,
    /// Take the pins of an image in the registry that satisfies the manifest, where the lock has none that do
    #[arg(long)]
    reuse: bool,
    /// Prefer versions that most of the registry's images have, where the lock has no pin
    #[arg(long)]
    prefer_catalog: bool,
    /// With --reuse: believe whoever can write to the registry, as if a trusted key had signed everything in it
    #[arg(long, requires = "reuse")]
    trust_registry: bool,
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
    /// What the registry's images contributed; absent if they were not asked for it.
    pub catalog: Option<Contribution>,
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
    let mode = mode(arguments)?;
    let manifest = context.manifest()?;
    let previous = context.lock()?;
    if let (Mode::Upgrade(names), Some(previous)) = (&mode, &previous) {
        known_packages(&manifest, previous, names)?;
    }
    let store = context.store()?;
    let http = context.http()?;
    let wishes = Wishes {
        reuse: arguments.reuse,
        prefer: arguments.prefer_catalog,
        trust_registry: arguments.trust_registry,
    };
    let (locked, asked) = context.wait(async {
        let shelf = match wishes.reuse || wishes.prefer {
            true => Shelf::open(context, &store, &http, &manifest, wishes).await?,
            false => None,
        };
        let (previous, shelf) = (previous.as_ref(), shelf.as_ref());
        let locked =
            locking::with_catalog(context, &store, &http, &manifest, previous, &mode, shelf);
        Ok::<_, Failure>((locked.await?, shelf.is_some()))
    })?;
    if locked.changed {
        context.write_lock(&locked.lock)?;
    }
    store.state()?.put_root(&context.lock_root())?;
    if asked {
        tell_kept(context, &locked);
    }
    let document = document(previous.as_ref(), &locked);
    if context.global.json {
        output::json(&document);
    } else {
        print(context, &document);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says for which images the registry was not asked: what the lock has for them answers the manifest already.
fn tell_kept(context: &Context, locked: &Locked) {
    let images = locked.lock.images.iter();
    let images = images.flat_map(|(name, all)| all.keys().map(move |platform| (name, platform)));
    let kept: Vec<String> = images
        .filter(|(name, platform)| {
            let image = ((*name).clone(), **platform);
            !locked.contributions.contains_key(&image)
        })
        .map(|(name, platform)| format!("{name} for {platform}"))
        .collect();
    if !kept.is_empty() {
        context.progress.note(&format!(
            "the lock has pins that answer the manifest, and keeps them: {}; to take those of the registry, remove {} and \
             lock again",
            kept.join(", "),
            context.lock_path.display()
        ));
    }
}

/// What may change; flags that contradict each other are a mistake.
fn mode(arguments: &Arguments) -> Result<Mode, Failure> {
    let contradiction = |one: &str, other: &str| {
        Err(Failure::plain(
            Kind::Usage,
            format!("{one} and {other} contradict each other"),
            "give one of them",
        ))
    };
    let locked = arguments.locked.locked;
    let all = arguments.upgrade.as_ref().is_some_and(Vec::is_empty);
    for (given, one, other) in [
        (
            locked && arguments.upgrade.is_some(),
            "--upgrade",
            "--locked",
        ),
        (locked && arguments.reuse, "--reuse", "--locked"),
        (
            locked && arguments.prefer_catalog,
            "--prefer-catalog",
            "--locked",
        ),
        (
            arguments.reuse && arguments.upgrade.is_some(),
            "--reuse",
            "--upgrade",
        ),
        (
            arguments.prefer_catalog && all,
            "--prefer-catalog",
            "--upgrade of everything",
        ),
    ] {
        if given {
            return contradiction(one, other);
        }
    }
    Ok(match &arguments.upgrade {
        Some(names) => Mode::Upgrade(names.iter().map(|name| lock::normalize(name)).collect()),
        None => arguments.locked.mode(),
    })
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

fn document(previous: Option<&Lock>, locked: &Locked) -> LockDocument {
    let (lock, changed) = (&locked.lock, locked.changed);
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
                catalog: locked
                    .contributions
                    .get(&(name.clone(), *platform))
                    .cloned(),
            });
        }
    }
    LockDocument { changed, images }
}

fn print(context: &Context, document: &LockDocument) {
    for image in &document.images {
        output::line(&format!(
            "{} for {}: {}, {} above the base",
            image.name,
            image.platform,
            counted(image.wheels, "wheel"),
            counted(image.debs, "OS package")
        ));
        for line in image.diff.iter().flat_map(super::diff::lines) {
            output::line(&format!("  {line}"));
        }
        for line in image.catalog.iter().flat_map(contribution) {
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

/// What is told of the registry's part.
fn contribution(found: &Contribution) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reused) = &found.reused {
        lines.extend(reuse(reused));
    }
    if let Some(closest) = &found.closest {
        let (name, digest) = (&closest.name, closest.digest.short());
        lines.push(format!(
            "no image in the registry satisfies this; {name} ({digest}) comes closest:"
        ));
        lines.extend(closest.reasons.iter().map(|reason| format!("  {reason}")));
    }
    lines.extend(preferred(&found.preferred));
    lines
}

/// Versions that were preferred; OS packages, of which a base has hundreds, are counted where they are many.
fn preferred(all: &[Preferred]) -> Vec<String> {
    let (os, pip): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.ecosystem == "os");
    let mut lines: Vec<String> = Vec::new();
    if os.len() > SHOWN {
        lines.push(format!(
            "{} OS packages in versions that most images have",
            os.len()
        ));
    }
    let shown = os.into_iter().filter(|_| lines.is_empty());
    let told = pip.into_iter().chain(shown).map(|one| {
        let (name, version) = (&one.name, &one.version);
        match one.images {
            1 => format!("{name} {version}, which one image has"),
            images => format!("{name} {version}, which {images} images have"),
        }
    });
    let told: Vec<String> = told.collect();
    lines.extend(told);
    lines
}

fn reuse(reused: &Reused) -> Vec<String> {
    let (name, repository, digest) = (&reused.name, &reused.repository, reused.digest.short());
    let why = match reused.why {
        Why::SameRequest => "was asked for the same",
        Why::Satisfies => "has everything that is asked for",
    };
    let how = match &reused.believed {
        Some(who) => format!("its pins are taken, by {who}"),
        None => {
            "its versions are followed, but the files are those that the index and the archive \
                 have, because nobody who is trusted vouches for this image"
                .into()
        }
    };
    let mut lines = vec![
        format!("as {name} ({digest}) in {repository}, which {why}: {how}"),
        "  not looked at: configuration, files and downloads, which are this manifest's own".into(),
    ];
    for one in &reused.differs {
        let (ecosystem, name) = (one.ecosystem, &one.name);
        lines.push(match (&one.there, &one.here) {
            (Some(there), Some(here)) => {
                format!("  but {ecosystem} {name} {here}, not {there}")
            }
            (Some(there), None) => format!("  without {ecosystem} {name} {there}, not needed here"),
            (None, here) => format!(
                "  and {ecosystem} {name} {}",
                here.as_deref().unwrap_or_default()
            ),
        });
    }
    lines
}
