//! The part of a lock that is Debian packages: bases and what images add to them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::bases;
use super::super::shelf::Preferred;
use super::reuse::Asked;
use super::{Job, Mode};
use crate::cli::failure::Failure;
use crate::digest::Digest;
use crate::lock::{LockedBase, LockedDeb, LockedImage, LockedPython};
use crate::manifest::{Platform, Root};
use crate::resolve::debian::{AboveRequest, BaseRequest, Installed, resolve_above, resolve_base};

impl Job<'_> {
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

    pub(super) async fn base(
        &mut self,
        asked: Asked<'_>,
        old: Option<&LockedImage>,
    ) -> Result<(LockedBase, LockedPython), Failure> {
        let Asked {
            image,
            platform,
            document,
            ..
        } = asked;
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
        let mut keep = self.kept_versions(old.map(|old| &old.base), &[]);
        let preferred = self.prefer(asked, &mut keep)?;
        let universe = self
            .universes
            .load(self.context, self.store, self.http, debian, platform)
            .await?;
        let solution = resolve_base(universe, &request, &keep)?;
        self.tell(asked, preferred, &solution.debs);
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

    pub(super) async fn own_debs(
        &mut self,
        asked: Asked<'_>,
        key: Option<Digest>,
        base: &LockedBase,
        old: Option<&LockedImage>,
    ) -> Result<(Vec<String>, Option<Digest>), Failure> {
        let Some(key) = key else {
            return Ok((Vec::new(), None));
        };
        let Asked {
            image, platform, ..
        } = asked;
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
        let mut keep = self.kept_versions(None, old.map_or(&[], |old| &old.debs));
        let preferred = self.prefer(asked, &mut keep)?;
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
        self.tell(asked, preferred, &debs);
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

    /// Adds the versions that the registry's images have to `keep`, of packages that neither have a pin nor are to move.
    fn prefer(
        &self,
        asked: Asked<'_>,
        keep: &mut BTreeMap<String, String>,
    ) -> Result<Vec<Preferred>, Failure> {
        let Some(shelf) = self.shelf else {
            return Ok(Vec::new());
        };
        let mut preferred = shelf.preferred_os(asked.platform, asked.document.base.root())?;
        preferred.retain(|name, _| !keep.contains_key(name) && !self.is_free(name));
        let versions = preferred.iter();
        keep.extend(versions.map(|(name, one)| (name.clone(), one.version.clone())));
        Ok(preferred.into_values().collect())
    }

    /// Tells which preferred versions have come.
    fn tell(&mut self, asked: Asked<'_>, mut preferred: Vec<Preferred>, debs: &[LockedDeb]) {
        let chosen: BTreeSet<(&str, &str)> = debs
            .iter()
            .map(|deb| (deb.package.as_str(), deb.version.as_str()))
            .collect();
        preferred.retain(|one| chosen.contains(&(one.name.as_str(), one.version.as_str())));
        if !preferred.is_empty() {
            self.contribution(asked).preferred.extend(preferred);
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
