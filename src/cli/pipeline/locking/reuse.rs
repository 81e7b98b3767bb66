//! Pins of an image that a registry has.
//!
//! Of an image that is believed (its record and lock are signed by a trusted key, or the registry is trusted) the pins
//! are taken as they are, diff IDs included: the lock then vouches for them as if they had been made here. Of any other
//! image only versions are followed: they are preferred while index and archive still list them, and which file a
//! version is say index and archive.

use std::collections::BTreeMap;

use super::super::bases;
use super::super::content::Content;
use super::super::shelf::{Candidate, Closest, Contribution, Differing, Shelf};
use super::Job;
use crate::catalog::satisfy::{Fragment, Wanted};
use crate::cli::failure::Failure;
use crate::diagnostic::{Explain as _, Kind};
use crate::digest::Digest;
use crate::identity::RequestDocument;
use crate::lock::{Lock, LockedBase, LockedImage, diff_images};
use crate::manifest::{ImageRequest, Platform};
use crate::progress::Progress as _;

/// One image to lock.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) image: &'a ImageRequest,
    pub(super) platform: Platform,
    pub(super) content: &'a Content,
    pub(super) document: &'a RequestDocument,
}

impl Job<'_> {
    /// The pins of an image in the registry that satisfies the request, if that was wished for and there is one.
    pub(super) async fn reuse(&mut self, asked: Asked<'_>) -> Result<Option<LockedImage>, Failure> {
        let Some(shelf) = self.shelf.filter(|shelf| shelf.reuses()) else {
            return Ok(None);
        };
        let wanted = Wanted {
            document: asked.document,
            layout: bases::layout(self.context, self.store, self.http, asked.document).await?,
        };
        let choice = shelf.choose(&wanted)?;
        if choice.seen == 0 {
            let warning = format!("{} has no image for {}", shelf.place(), asked.platform);
            self.context.progress.warn(&warning);
        }
        if let Some((record, reasons)) = choice.closest.into_iter().next() {
            self.contribution(asked).closest = Some(Closest {
                name: record.name,
                digest: record.digest,
                reasons: reasons.iter().map(ToString::to_string).collect(),
            });
        }
        for record in choice.fitting {
            let candidate = match shelf.candidate(record, &wanted).await {
                Ok(Some(candidate)) => candidate,
                Ok(None) => continue,
                Err(error) if error.kind() == Kind::Unavailable => {
                    let warning = format!("the registry's images are not reused: {error}");
                    self.context.progress.warn(&warning);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(locked) = self.take(shelf, &candidate, asked).await {
                return Ok(Some(locked));
            }
        }
        Ok(None)
    }

    pub(super) fn contribution(&mut self, asked: Asked<'_>) -> &mut Contribution {
        let key = (asked.image.name.value.clone(), asked.platform);
        self.contributions.entry(key).or_default()
    }

    async fn take(
        &mut self,
        shelf: &Shelf<'_>,
        candidate: &Candidate,
        asked: Asked<'_>,
    ) -> Option<LockedImage> {
        let fragment = &candidate.fragment;
        let mut told = shelf.reused(candidate, asked.document);
        let taken = match &candidate.belief {
            Some(_) => self.adopt(fragment, asked),
            None => self.follow(fragment, asked).await,
        };
        let locked = match taken {
            Ok(locked) => locked,
            Err(reason) => {
                let named = format!("{} ({})", told.name, told.digest.short());
                let warning = format!("the image {named} is passed over: {reason}");
                self.context.progress.warn(&warning);
                return None;
            }
        };
        let diff = diff_images(&fragment.lock, &fragment.image, &self.lock, &locked);
        let differs = diff.packages.into_iter().map(|change| Differing {
            ecosystem: change.ecosystem,
            name: change.name,
            there: change.before,
            here: change.after,
        });
        told.differs = differs.collect();
        self.contribution(asked).reused = Some(told);
        Some(locked)
    }

    /// The pins as they are.
    fn adopt(&mut self, fragment: &Fragment, asked: Asked<'_>) -> Result<LockedImage, String> {
        let content = &asked.content.project;
        let (locked, lock) = fragment.adopted(asked.image, asked.document, content);
        for known in [Some(&self.lock), self.previous].into_iter().flatten() {
            if let Some(name) = contradiction(known, &lock) {
                return Err(format!(
                    "its lock and this one know different files called {name}"
                ));
            }
        }
        self.lock.copy_artifacts(&lock, &locked);
        if let LockedBase::Debian { request, .. } = &locked.base {
            let base = || (locked.base.clone(), locked.python.clone());
            self.bases.entry(*request).or_insert_with(base);
        }
        Ok(locked)
    }

    /// The versions, as far as they are still to be had.
    async fn follow(
        &mut self,
        fragment: &Fragment,
        asked: Asked<'_>,
    ) -> Result<LockedImage, String> {
        let pins = fragment.versions();
        let mut previous = self.previous.cloned().unwrap_or_default();
        for (file, wheel) in &fragment.lock.wheels {
            let known = previous.wheels.entry(file.clone());
            known.or_insert_with(|| wheel.clone());
        }
        for (id, deb) in &fragment.lock.debs {
            previous
                .debs
                .entry(id.clone())
                .or_insert_with(|| deb.clone());
        }
        let key = asked.document.base_key();
        let new_base = !self.bases.contains_key(&key) && !has_base(&previous, key, asked.platform);
        let before = (self.lock.clone(), self.bases.clone());
        let mut inner = Job {
            context: self.context,
            store: self.store,
            http: self.http,
            previous: Some(&previous),
            mode: self.mode,
            shelf: self.shelf,
            lock: std::mem::take(&mut self.lock),
            universes: std::mem::take(&mut self.universes),
            bases: std::mem::take(&mut self.bases),
            contributions: std::mem::take(&mut self.contributions),
        };
        let resolved = inner.resolve(asked, Some(&pins)).await;
        let Job {
            lock,
            universes,
            bases,
            contributions,
            ..
        } = inner;
        self.universes = universes;
        self.contributions = contributions;
        let mut locked = match resolved {
            Ok(locked) => {
                (self.lock, self.bases) = (lock, bases);
                locked
            }
            Err(failure) => {
                (self.lock, self.bases) = before;
                let text = failure.render(false);
                return Err(format!("its versions cannot be had: {}", text.trim_end()));
            }
        };
        if new_base {
            self.follow_epoch(fragment, &mut locked);
            let base = (locked.base.clone(), locked.python.clone());
            self.bases.insert(key, base);
        }
        Ok(locked)
    }

    /// A base of the same packages is the same base: of the same time, if that was before.
    fn follow_epoch(&self, fragment: &Fragment, locked: &mut LockedImage) {
        let (
            LockedBase::Debian {
                epoch: there,
                debs: theirs,
                ..
            },
            LockedBase::Debian { epoch, debs, .. },
        ) = (&fragment.image.base, &mut locked.base)
        else {
            return;
        };
        let same = |id: &String| self.lock.debs.get(id) == fragment.lock.debs.get(id);
        if theirs == debs && debs.iter().all(same) && (1..*epoch).contains(there) {
            *epoch = *there;
        }
    }
}

/// A file name that stands for one artifact in one lock and for another one in the other.
fn contradiction(known: &Lock, lock: &Lock) -> Option<String> {
    let mut wheels = lock.wheels.iter().filter(|(file, wheel)| {
        let known = known.wheels.get(*file);
        known.is_some_and(|known| known.sha256 != wheel.sha256)
    });
    let mut debs = lock.debs.iter().filter(|(id, deb)| {
        let known = known.debs.get(*id);
        known.is_some_and(|known| known.sha256 != deb.sha256)
    });
    let wheel = wheels.next().map(|(file, _)| file);
    wheel.or_else(|| debs.next().map(|(id, _)| id)).cloned()
}

fn has_base(lock: &Lock, key: Digest, platform: Platform) -> bool {
    let mut images = lock
        .images
        .values()
        .filter_map(|platforms: &BTreeMap<_, _>| platforms.get(&platform));
    images.any(|image: &LockedImage| {
        matches!(&image.base, LockedBase::Debian { request, .. } if *request == key)
    })
}
