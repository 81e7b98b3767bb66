//! The part of a lock that is Python packages.

use std::collections::BTreeMap;

use super::super::shelf::Preferred;
use super::Job;
use super::reuse::Asked;
use crate::cli::failure::Failure;
use crate::digest::Digest;
use crate::lock::{Lock, LockedImage, LockedPython};
use crate::manifest::{ImageRequest, Platform};
use crate::resolve::python::{self, PythonRequest, Upgrade};

impl Job<'_> {
    pub(super) async fn wheels(
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
            self.contribution(asked).preferred.extend(preferred);
        }
        let mut files = Vec::new();
        for (file, mut wheel) in resolution.wheels {
            wheel.size = self.known_size(&file, &wheel.sha256).or(wheel.size);
            files.push((wheel.name.clone(), file.clone()));
            self.lock.wheels.insert(file, wheel);
        }
        files.sort();
        Ok(files.into_iter().map(|(_, file)| file).collect())
    }

    /// The length of a wheel, if an image of this lock or the old one has it: an index need not tell it each time.
    fn known_size(&self, file: &str, sha256: &Digest) -> Option<u64> {
        let locks = std::iter::once(&self.lock).chain(self.previous);
        let known = locks.filter_map(|lock| lock.wheels.get(file));
        let known = known.filter(|wheel| wheel.sha256 == *sha256);
        known.filter_map(|wheel| wheel.size).next()
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
