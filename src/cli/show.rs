//! `show`: a built-in base's text, what an image of the lock consists of, or a record.

use std::process::ExitCode;

use serde::Serialize;

use super::context::{Context, unknown};
use super::failure::Failure;
use super::output;
use super::pipeline::records::Target;
use super::record;
use crate::diagnostic::{Kind, counted};
use crate::digest::Digest;
use crate::lock::{Lock, LockedBase, LockedImage};
use crate::manifest::{self, Platform};

/// Flags of `show`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The word `base` and a built-in base's name; an image's name; a digest or key of a record; or where an image is in a
    /// registry, as `push` and `find` print it
    #[arg(num_args = 1..=2, required = true, value_names = ["base|IMAGE|DIGEST|KEY|REFERENCE", "BASE"])]
    what: Vec<String>,
    #[command(flatten)]
    target: Target,
}

/// What `show base NAME --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct BaseDocument {
    /// Its name.
    pub name: String,
    /// Its definition, KDL.
    pub text: String,
}

/// What `show IMAGE --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ShowDocument {
    /// Declared name.
    pub name: String,
    /// One entry per platform.
    pub platforms: Vec<ShowPlatform>,
}

/// An image on one platform.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ShowPlatform {
    /// The platform.
    pub platform: Platform,
    /// The request key.
    pub request: Digest,
    /// Digest of the image manifest, if this store has built it.
    pub digest: Option<Digest>,
    /// Where its file system begins.
    pub base: String,
    /// Full Python version.
    pub python: String,
    /// Installed Python packages.
    pub pip: Vec<ShowPackage>,
    /// Installed OS packages; of a `from` base only those that imagewright added.
    pub os: Vec<ShowPackage>,
}

/// One installed package.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ShowPackage {
    /// Normalised name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Whether the manifest asks for it by name.
    pub requested: bool,
}

/// Prints it.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    match arguments.what.as_slice() {
        [word, name] if word == "base" => base(context, name),
        [name] if is_record(context, arguments, name)? => {
            record::run(context, &arguments.target, name)
        }
        [name] => image(context, name),
        _ => Err(Failure::plain(
            Kind::Usage,
            "`show` takes an image's name, or the word `base` and a built-in base's name",
            "for example: imagewright show base tabular",
        )),
    }
}

/// Whether a record is meant: one place of them is named, it is a digest or key, or what the manifest does not declare.
fn is_record(context: &Context, arguments: &Arguments, name: &str) -> Result<bool, Failure> {
    if arguments.target.is_given() || record::is_reference(name) || !context.has_project() {
        return Ok(true);
    }
    let manifest = context.manifest()?;
    let declared = manifest.image(name).is_some();
    Ok(!declared && (manifest.registry.is_some() || record::key_digits(name).is_some()))
}

fn base(context: &Context, name: &str) -> Result<ExitCode, Failure> {
    match manifest::builtin_base(name) {
        Some(text) => {
            if context.global.json {
                output::json(&BaseDocument {
                    name: name.into(),
                    text: text.into(),
                });
            } else {
                output::raw(text.as_bytes());
            }
            Ok(ExitCode::SUCCESS)
        }
        None => Err(unknown("built-in base", name, manifest::builtin_names())),
    }
}

fn image(context: &Context, name: &str) -> Result<ExitCode, Failure> {
    let manifest = context.manifest()?;
    let request = manifest.image(name).ok_or_else(|| {
        unknown(
            "image",
            name,
            manifest.images.iter().map(|image| image.name.as_str()),
        )
    })?;
    let Some(lock) = context.lock()? else {
        return Err(not_locked(name));
    };
    let Some(platforms) = lock.images.get(name) else {
        return Err(not_locked(name));
    };
    let state = context.store()?.state()?;
    let built = state.all_images()?;
    let platforms = platforms
        .iter()
        .map(|(platform, locked)| {
            let row = built
                .iter()
                .rev()
                .find(|row| row.request == locked.request && row.platform == platform.to_string());
            platform_document(&lock, request, *platform, locked, row.map(|row| row.digest))
        })
        .collect();
    let document = ShowDocument {
        name: name.into(),
        platforms,
    };
    if context.global.json {
        output::json(&document);
    } else {
        output::raw(text(&document).as_bytes());
    }
    Ok(ExitCode::SUCCESS)
}

fn not_locked(name: &str) -> Failure {
    Failure::plain(
        Kind::NotFound,
        format!("image `{name}` is not in the lock"),
        "run `imagewright lock` first",
    )
}

fn platform_document(
    lock: &Lock,
    request: &manifest::ImageRequest,
    platform: Platform,
    locked: &LockedImage,
    digest: Option<Digest>,
) -> ShowPlatform {
    let asked = |name: &str| request.pip.iter().any(|pip| pip.name == name);
    let asked_os = |name: &str| request.os.iter().any(|os| os.name == name);
    let (base, base_debs): (String, &[String]) = match &locked.base {
        LockedBase::From { reference, digest } => (format!("{reference} ({digest})"), &[]),
        LockedBase::Debian { suite, debs, .. } => {
            let packages = counted(debs.len(), "package");
            (format!("Debian {suite}, {packages}"), debs)
        }
    };
    let wheels = locked
        .wheels
        .iter()
        .filter_map(|file| lock.wheels.get(file));
    let debs = base_debs
        .iter()
        .chain(&locked.debs)
        .filter_map(|id| lock.debs.get(id));
    ShowPlatform {
        platform,
        request: locked.request,
        digest,
        base,
        python: locked.python.full.clone(),
        pip: wheels
            .map(|wheel| ShowPackage {
                name: wheel.name.clone(),
                version: wheel.version.clone(),
                requested: asked(&wheel.name),
            })
            .collect(),
        os: debs
            .map(|deb| ShowPackage {
                name: deb.package.clone(),
                version: deb.version.clone(),
                requested: asked_os(&deb.package),
            })
            .collect(),
    }
}

fn text(document: &ShowDocument) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for platform in &document.platforms {
        line(format!("{} for {}", document.name, platform.platform));
        line(format!("  base     {}", platform.base));
        line(format!("  python   {}", platform.python));
        line(format!("  request  {}", platform.request));
        let digest = platform
            .digest
            .map_or("not built in this store".into(), |digest| {
                digest.to_string()
            });
        line(format!("  digest   {digest}"));
        for (title, packages) in [("pip", &platform.pip), ("os", &platform.os)] {
            line(format!(
                "  {title} ({}; * = asked for)",
                counted(packages.len(), "package")
            ));
            for package in packages {
                let mark = if package.requested { '*' } else { ' ' };
                line(format!("  {mark} {} {}", package.name, package.version));
            }
        }
    }
    out
}
