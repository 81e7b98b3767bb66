//! Manifest + old lock → lock. Only what no longer answers its request is resolved again.

mod os;
mod python;
mod reuse;

use std::collections::{BTreeMap, BTreeSet};

use super::bases::Universes;
use super::content::{self, Content};
use super::shelf::{Contribution, Shelf};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::{Kind, Problem, Problems};
use crate::digest::Digest;
use crate::http::Http;
use crate::identity::{self, RequestDocument};
use crate::lock::{Lock, LockedBase, LockedImage, LockedPython};
use crate::manifest::{ImageRequest, Manifest, Platform};
use crate::store::Store;
use reuse::Asked;

/// What may change in the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: a lock that does not answer the manifest is an error.
    Locked,
    /// Only what no longer answers the manifest.
    Keep,
    /// Everything, or (if not empty) the packages with these names.
    Upgrade(BTreeSet<String>),
}

/// A lock that answers the manifest.
#[derive(Debug)]
pub struct Locked {
    /// The lock.
    pub lock: Lock,
    /// Whether it differs from the one on disk.
    pub changed: bool,
    /// Per image, what the project's folder adds.
    pub content: BTreeMap<String, Content>,
    /// Per image and platform, what a registry's catalog contributed.
    pub contributions: BTreeMap<(String, Platform), Contribution>,
}

/// Brings the lock up to date; writes nothing.
pub async fn bring_up_to_date(
    context: &Context,
    store: &Store,
    http: &Http,
    manifest: &Manifest,
    previous: Option<&Lock>,
    mode: &Mode,
) -> Result<Locked, Failure> {
    with_catalog(context, store, http, manifest, previous, mode, None).await
}

/// The same, with what a registry's catalog contributes.
pub async fn with_catalog(
    context: &Context,
    store: &Store,
    http: &Http,
    manifest: &Manifest,
    previous: Option<&Lock>,
    mode: &Mode,
    shelf: Option<&Shelf<'_>>,
) -> Result<Locked, Failure> {
    let mut job = Job {
        context,
        store,
        http,
        previous,
        mode,
        shelf,
        lock: Lock::default(),
        universes: Universes::default(),
        bases: BTreeMap::new(),
        contributions: BTreeMap::new(),
    };
    let mut contents = BTreeMap::new();
    for image in &manifest.images {
        let content = content::read(context, image)?;
        for platform in &image.platforms {
            job.image(image, *platform, &content).await?;
        }
        contents.insert(image.name.value.clone(), content);
    }
    let mut lock = job.lock;
    lock.emitter = identity::EMITTER_VERSION;
    Ok(Locked {
        changed: previous != Some(&lock),
        lock,
        content: contents,
        contributions: job.contributions,
    })
}

struct Job<'a> {
    context: &'a Context,
    store: &'a Store,
    http: &'a Http,
    previous: Option<&'a Lock>,
    mode: &'a Mode,
    shelf: Option<&'a Shelf<'a>>,
    lock: Lock,
    universes: Universes,
    /// Debian bases resolved in this pass, by the key of their part of the request.
    bases: BTreeMap<Digest, (LockedBase, LockedPython)>,
    contributions: BTreeMap<(String, Platform), Contribution>,
}

impl Job<'_> {
    async fn image(
        &mut self,
        image: &ImageRequest,
        platform: Platform,
        content: &Content,
    ) -> Result<(), Failure> {
        let document = RequestDocument::new(image, platform, &content.project)?;
        let request = identity::key(&document);
        self.remember(request, &document)?;
        let asked = Asked {
            image,
            platform,
            content,
            document: &document,
        };
        let old = self.old(&image.name.value, platform).cloned();
        let locked = match (self.answer(old.as_ref(), &request, platform), &old) {
            (Some(answer), _) => {
                self.keep_artifacts(&answer);
                LockedImage {
                    digest: self.kept_digest(Some(&answer), &answer),
                    ..answer
                }
            }
            (None, old) => {
                if *self.mode == Mode::Locked {
                    return Err(out_of_date(image, platform, old.is_some()));
                }
                match self.reuse(asked).await? {
                    Some(locked) => locked,
                    None => {
                        let mut locked = self.resolve(asked, old.as_ref()).await?;
                        locked.digest = self.kept_digest(old.as_ref(), &locked);
                        locked
                    }
                }
            }
        };
        let images = &mut self.lock.images;
        images
            .entry(image.name.value.clone())
            .or_default()
            .insert(platform, locked);
        Ok(())
    }

    /// Keeps the request's document, so that `why` can explain a later difference.
    fn remember(&self, key: Digest, document: &RequestDocument) -> Result<(), Failure> {
        let state = self.store.state()?;
        if state.document(&key)?.is_none() {
            let text = identity::canonical_json(document);
            state.put_document(&key, &String::from_utf8_lossy(&text))?;
        }
        Ok(())
    }

    fn old(&self, name: &str, platform: Platform) -> Option<&LockedImage> {
        self.previous?.images.get(name)?.get(&platform)
    }

    /// What the old lock has for this very request: pins of the image itself, or of one with another name, which is what
    /// an image that is renamed or copied looks like.
    fn answer(
        &self,
        old: Option<&LockedImage>,
        request: &Digest,
        platform: Platform,
    ) -> Option<LockedImage> {
        let answers = |image: &&LockedImage| image.request == *request;
        if let Some(old) = old.filter(answers) {
            return (!matches!(self.mode, Mode::Upgrade(_))).then(|| old.clone());
        }
        if *self.mode != Mode::Keep {
            return None;
        }
        let images = self.previous?.images.values();
        let mut images = images.filter_map(|platforms| platforms.get(&platform));
        images.find(answers).cloned()
    }

    /// Copies the artifacts that a kept image uses.
    fn keep_artifacts(&mut self, image: &LockedImage) {
        if let Some(previous) = self.previous {
            self.lock.copy_artifacts(previous, image);
        }
    }

    async fn resolve(
        &mut self,
        asked: Asked<'_>,
        old: Option<&LockedImage>,
    ) -> Result<LockedImage, Failure> {
        let Asked {
            image, document, ..
        } = asked;
        if self.shelf.is_some() {
            self.contribution(asked).preferred.clear();
        }
        let (base, python) = self.base(asked, old).await?;
        let os_key = (!image.os.is_empty()).then(|| document.os_key());
        let (debs, os_diff_id) = self.own_debs(asked, os_key, &base, old).await?;
        let wheels = self.wheels(asked, &python, old).await?;
        Ok(LockedImage {
            request: identity::key(document),
            base,
            python,
            wheels,
            debs,
            os_request: os_key,
            os_diff_id,
            digest: None,
        })
    }

    /// The digest that the old lock has of this image, if the image is still made of the same things by the same rules.
    fn kept_digest(&self, old: Option<&LockedImage>, new: &LockedImage) -> Option<Digest> {
        let (old, previous) = (old?, self.previous?);
        let pinned = LockedImage {
            digest: old.digest,
            ..new.clone()
        };
        let same_wheel = |file: &String| previous.wheels.get(file) == self.lock.wheels.get(file);
        let same_deb = |id: &String| previous.debs.get(id) == self.lock.debs.get(id);
        let same = pinned == *old
            && previous.emitter == identity::EMITTER_VERSION
            && new.wheels.iter().all(same_wheel)
            && new.base.debs().iter().chain(&new.debs).all(same_deb);
        old.digest.filter(|_| same)
    }

    /// Whether an upgrade lets this package leave the version that the old lock has.
    fn is_free(&self, name: &str) -> bool {
        match self.mode {
            Mode::Upgrade(names) => names.is_empty() || names.contains(name),
            _ => false,
        }
    }
}

fn out_of_date(image: &ImageRequest, platform: Platform, known: bool) -> Failure {
    let what = if known {
        "the lock answers another request than the manifest makes"
    } else {
        "the lock has nothing for this image and platform"
    };
    let problem = Problem::new(
        &image.name.source,
        image.name.span,
        format!(
            "the lock is out of date for image `{}` on {platform}",
            image.name.value
        ),
        what,
    )
    .help("run `imagewright lock` and commit imagewright.lock")
    .kind(Kind::LockOutOfDate);
    Problems(vec![problem]).into()
}
