//! The lock of one image alone, which lies beside its record in a registry.

use std::collections::BTreeMap;

use super::{Lock, LockedBase, LockedImage};
use crate::manifest::Platform;

impl Lock {
    /// The media type of the text of [`Lock::only`] as a blob.
    pub const MEDIA_TYPE: &'static str = "application/vnd.imagewright.lock.v1+kdl";

    /// The lock of one image for one platform: its pins and the artifacts that it uses, nothing else. `None` if the
    /// lock does not have it.
    pub fn only(&self, name: &str, platform: Platform) -> Option<Self> {
        let image = self.images.get(name)?.get(&platform)?;
        let mut only = Self {
            emitter: self.emitter,
            ..Self::default()
        };
        only.copy_artifacts(self, image);
        let platforms = BTreeMap::from([(platform, image.clone())]);
        only.images.insert(name.to_owned(), platforms);
        Some(only)
    }

    /// Copies the artifacts that `image` uses from `other`, as far as it has them.
    pub fn copy_artifacts(&mut self, other: &Self, image: &LockedImage) {
        for file in &image.wheels {
            if let Some(wheel) = other.wheels.get(file) {
                self.wheels.insert(file.clone(), wheel.clone());
            }
        }
        for id in image.base.debs().iter().chain(&image.debs) {
            if let Some(deb) = other.debs.get(id) {
                self.debs.insert(id.clone(), deb.clone());
            }
        }
    }
}

impl LockedBase {
    /// Keys into `Lock::debs` of what the base itself consists of; none of an image.
    pub fn debs(&self) -> &[String] {
        match self {
            Self::Debian { debs, .. } => debs,
            Self::From { .. } => &[],
        }
    }
}
