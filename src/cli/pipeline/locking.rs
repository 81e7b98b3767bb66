//! Manifest + old lock → lock. Only what no longer answers its request is resolved again.

mod reuse;

use std::collections::{BTreeMap, BTreeSet};

use super::bases::{self, Universes};
use super::content::{self, Content};
use super::shelf::{Contribution, Preferred, Shelf};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::{Kind, Problem, Problems};
use crate::digest::Digest;
use crate::http::Http;
use crate::identity::{self, RequestDocument};
use crate::lock::{Lock, LockedBase, LockedDeb, LockedImage, LockedPython};
use crate::manifest::{ImageRequest, Manifest, Platform, Root};
use crate::resolve::debian::{AboveRequest, BaseRequest, Installed, resolve_above, resolve_base};
use crate::resolve::python::{self, PythonRequest, Upgrade};
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

    fn add_debs(&mut self, debs: &[LockedDeb]) -> Vec<String> {
        let ids = debs.iter().map(|deb| {
            let id = format!("{}_{}_{}", deb.package, deb.version, deb.architecture);
            self.lock.debs.insert(id.clone(), deb.clone());
            id
        });
        let mut ids: Vec<String> = ids.collect();
        ids.sort();
        ids
    }

    async fn resolve(
        &mut self,
        asked: Asked<'_>,
        old: Option<&LockedImage>,
    ) -> Result<LockedImage, Failure> {
        let Asked {
            image,
            platform,
            document,
            ..
        } = asked;
        let (base, python) = self.base(image, platform, document, old).await?;
        let os_key = (!image.os.is_empty()).then(|| document.os_key());
        let (debs, os_diff_id) = self.own_debs(image, platform, os_key, &base, old).await?;
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

    async fn base(
        &mut self,
        image: &ImageRequest,
        platform: Platform,
        document: &RequestDocument,
        old: Option<&LockedImage>,
    ) -> Result<(LockedBase, LockedPython), Failure> {
        let debian = match &image.root {
            Root::From(reference) => {
                let pinned = match old.map(|old| &old.base) {
                    Some(LockedBase::From {
                        reference: before,
                        digest,
                    }) if *before == reference.value && !self.frees_all() => Some(*digest),
                    _ => None,
                };
                let base = bases::inspect(
                    self.context,
                    self.store,
                    self.http,
                    &reference.value,
                    pinned,
                    platform,
                )
                .await?;
                let python = base.python(image.python.as_ref().map(|python| python.value))?;
                return Ok((base.locked(), python));
            }
            Root::Debian(debian) => debian,
        };
        let key = document.base_key();
        if let Some(known) = self.bases.get(&key) {
            return Ok(known.clone());
        }
        if let Some(known) = self.kept_base(key, platform) {
            self.bases.insert(key, known.clone());
            return Ok(known);
        }
        let request = BaseRequest {
            suite: &debian.suite,
            os: &debian.os,
            python: image.python.as_ref(),
        };
        let keep = self.kept_versions(old.map(|old| &old.base), &[]);
        let universe = self
            .universes
            .load(self.context, self.store, self.http, debian, platform)
            .await?;
        let solution = resolve_base(universe, &request, &keep)?;
        let debs = self.add_debs(&solution.debs);
        let base = LockedBase::Debian {
            suite: debian.suite.value.clone(),
            mirror: debian.mirror.as_ref().map(|mirror| mirror.value.clone()),
            epoch: solution.epoch,
            request: key,
            debs,
            diff_id: None,
        };
        let known = (base, solution.python);
        self.bases.insert(key, known.clone());
        Ok(known)
    }

    /// A base of the old lock that answers the same part of the request, of whichever image.
    fn kept_base(&mut self, key: Digest, platform: Platform) -> Option<(LockedBase, LockedPython)> {
        let previous = self.previous?;
        let found = previous.images.values().filter_map(|platforms| platforms.get(&platform)).find(
            |image| matches!(&image.base, LockedBase::Debian { request, .. } if *request == key),
        )?;
        if let LockedBase::Debian { debs, .. } = &found.base {
            if self.frees_any(debs) {
                return None;
            }
            for id in debs {
                self.lock
                    .debs
                    .insert(id.clone(), previous.debs.get(id)?.clone());
            }
        }
        Some((found.base.clone(), found.python.clone()))
    }

    async fn own_debs(
        &mut self,
        image: &ImageRequest,
        platform: Platform,
        key: Option<Digest>,
        base: &LockedBase,
        old: Option<&LockedImage>,
    ) -> Result<(Vec<String>, Option<Digest>), Failure> {
        let Some(key) = key else {
            return Ok((Vec::new(), None));
        };
        let reusable = old.filter(|old| {
            old.os_request == Some(key) && same_base(&old.base, base) && !self.frees_any(&old.debs)
        });
        if let (Some(old), Some(previous)) = (reusable, self.previous) {
            let debs = old
                .debs
                .iter()
                .filter_map(|id| previous.debs.get(id))
                .cloned();
            let debs: Vec<LockedDeb> = debs.collect();
            return Ok((self.add_debs(&debs), old.os_diff_id));
        }
        let keep = self.kept_versions(None, old.map_or(&[], |old| &old.debs));
        let base_debs: Vec<LockedDeb>;
        let status: String;
        let mut from = None;
        let installed = match base {
            LockedBase::Debian { debs, .. } => {
                let debs = debs.iter().filter_map(|id| self.lock.debs.get(id));
                base_debs = debs.cloned().collect();
                Installed::Debs(&base_debs)
            }
            LockedBase::From { reference, digest } => {
                let (context, store, http) = (self.context, self.store, self.http);
                let found =
                    bases::inspect(context, store, http, reference, Some(*digest), platform)
                        .await?;
                status = bases::dpkg_status(store, &found)?;
                from = Some(found);
                Installed::Status(&status)
            }
        };
        let debian = bases::archive_of(image, from.as_ref())?;
        let universe = self
            .universes
            .load(self.context, self.store, self.http, &debian, platform)
            .await?;
        let above = AboveRequest {
            installed,
            os: &image.os,
        };
        let debs = resolve_above(universe, &above, &keep)?;
        Ok((self.add_debs(&debs), None))
    }

    /// Whether everything may move.
    fn frees_all(&self) -> bool {
        matches!(self.mode, Mode::Upgrade(names) if names.is_empty())
    }

    /// Whether one of these debs of the old lock may move.
    fn frees_any(&self, debs: &[String]) -> bool {
        let previous = self.previous.into_iter();
        let mut debs = debs
            .iter()
            .flat_map(|id| previous.clone().filter_map(|lock| lock.debs.get(id)));
        self.frees_all() || debs.any(|deb| self.is_free(&deb.package))
    }

    /// Whether an upgrade lets this package leave the version that the old lock has.
    fn is_free(&self, name: &str) -> bool {
        match self.mode {
            Mode::Upgrade(names) => names.is_empty() || names.contains(name),
            _ => false,
        }
    }

    /// name → version of locked debs that an upgrade does not free.
    fn kept_versions(&self, base: Option<&LockedBase>, own: &[String]) -> BTreeMap<String, String> {
        let Some(previous) = self.previous else {
            return BTreeMap::new();
        };
        let base: &[String] = match base {
            Some(LockedBase::Debian { debs, .. }) => debs,
            _ => &[],
        };
        base.iter()
            .chain(own)
            .filter_map(|id| previous.debs.get(id))
            .filter(|deb| !self.is_free(&deb.package))
            .map(|deb| (deb.package.clone(), deb.version.clone()))
            .collect()
    }

    async fn wheels(
        &mut self,
        asked: Asked<'_>,
        python: &LockedPython,
        old: Option<&LockedImage>,
    ) -> Result<Vec<String>, Failure> {
        let Asked {
            image,
            platform,
            content,
            ..
        } = asked;
        let mut pins = self.pins(image, platform, old);
        let preferred = self.preferred(&pins, platform, python)?;
        let versions = preferred.iter();
        pins.extend(versions.map(|one| (one.name.clone(), one.version.clone())));
        let request = PythonRequest {
            requirements: &image.pip,
            constraints: &image.constraints,
            overrides: &image.overrides,
            indexes: &image.indexes,
            exclude_newer: image.exclude_newer.as_ref(),
            platform,
            python,
            project_wheels: &content.wheels,
            pins: &pins,
            upgrade: &Upgrade::None,
        };
        let cache = self.store.cache_path("python");
        let offline = self.context.global.offline;
        let progress = &*self.context.progress;
        let resolution =
            python::resolve(&request, self.context.ambient(), &cache, offline, progress).await?;
        let chosen = resolution.pins();
        let came = |one: &Preferred| chosen.contains(&(one.name.clone(), one.version.clone()));
        let preferred: Vec<Preferred> = preferred.into_iter().filter(came).collect();
        if self.shelf.is_some() {
            self.contribution(asked).preferred = preferred;
        }
        let mut files = Vec::new();
        for (file, wheel) in resolution.wheels {
            files.push((wheel.name.clone(), file.clone()));
            self.lock.wheels.insert(file, wheel);
        }
        files.sort();
        Ok(files.into_iter().map(|(_, file)| file).collect())
    }

    /// Versions of the registry's images, of packages that neither have a pin nor are to move.
    fn preferred(
        &self,
        pins: &[(String, String)],
        platform: Platform,
        python: &LockedPython,
    ) -> Result<Vec<Preferred>, Failure> {
        let Some(shelf) = self.shelf else {
            return Ok(Vec::new());
        };
        let mut preferred = shelf.preferred(platform, python.minor)?;
        for (name, _) in pins {
            preferred.remove(name);
        }
        preferred.retain(|name, _| !self.is_free(name));
        Ok(preferred.into_values().collect())
    }

    /// Versions to prefer: this image's own pins, those of the platform before, then those that other images of this
    /// lock have, so that images share layers. Under `Upgrade` only what this pass has chosen counts for freed names.
    fn pins(
        &self,
        image: &ImageRequest,
        platform: Platform,
        old: Option<&LockedImage>,
    ) -> Vec<(String, String)> {
        let named = |lock: &Lock, files: &[String]| -> Vec<(String, String)> {
            let wheels = files.iter().filter_map(|file| lock.wheels.get(file));
            wheels
                .map(|wheel| (wheel.name.clone(), wheel.version.clone()))
                .collect()
        };
        let before = |lock: &Lock, files: &[String]| -> Vec<(String, String)> {
            let mut pins = named(lock, files);
            pins.retain(|(name, _)| !self.is_free(name));
            pins
        };
        let mut pins = Vec::new();
        let siblings = self.lock.images.get(&image.name.value);
        for sibling in siblings.into_iter().flat_map(BTreeMap::values) {
            pins.extend(named(&self.lock, &sibling.wheels));
        }
        if let (Some(old), Some(previous)) = (old, self.previous) {
            pins.extend(before(previous, &old.wheels));
        }
        let on_platform = |lock: &Lock| -> Vec<LockedImage> {
            let images = lock.images.values();
            images
                .filter_map(|platforms| platforms.get(&platform).cloned())
                .collect()
        };
        for other in on_platform(&self.lock) {
            pins.extend(named(&self.lock, &other.wheels));
        }
        if let Some(previous) = self.previous {
            for other in on_platform(previous) {
                pins.extend(before(previous, &other.wheels));
            }
        }
        pins
    }
}

fn same_base(before: &LockedBase, after: &LockedBase) -> bool {
    match (before, after) {
        (LockedBase::Debian { debs: before, .. }, LockedBase::Debian { debs: after, .. }) => {
            before == after
        }
        (LockedBase::From { digest: before, .. }, LockedBase::From { digest: after, .. }) => {
            before == after
        }
        _ => false,
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
