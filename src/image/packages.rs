//! Which packages an image holds, and in which of its layers each lies.

use std::collections::BTreeMap;

use super::Image;
use crate::digest::Digest;
use crate::identity::WheelDocument;
use crate::layer::{files, holders};
use crate::lock::{Lock, LockedBase, LockedDeb, LockedImage, LockedWheel};

/// A package file and the index of the layer that brings it, where that is known.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a, T> {
    /// File name of a wheel, or the deb's id in the lock.
    pub file: &'a str,
    /// What the lock says of it.
    pub locked: &'a T,
    /// Index into the image's layers.
    pub layer: Option<usize>,
}

/// What imagewright put into an image.
#[derive(Clone, Debug)]
pub struct Packages<'a> {
    /// In the lock's order.
    pub wheels: Vec<Placed<'a, LockedWheel>>,
    /// Those of the base, then the image's own, each in the lock's order.
    pub debs: Vec<Placed<'a, LockedDeb>>,
}

impl<'a> Packages<'a> {
    /// Of the image that `locked` became. Only the lock and the image's layer keys are looked at.
    pub fn of(image: &Image, lock: &'a Lock, locked: &'a LockedImage) -> Self {
        let wheels: Vec<(&str, &LockedWheel)> = locked
            .wheels
            .iter()
            .filter_map(|file| lock.wheels.get_key_value(file))
            .map(|(file, wheel)| (file.as_str(), wheel))
            .collect();
        let layers = wheel_layers(image, locked, &wheels);
        let wheels = wheels.into_iter().map(|(file, locked)| Placed {
            file,
            locked,
            layer: layers.get(&locked.sha256).copied(),
        });
        Self {
            wheels: wheels.collect(),
            debs: debs(image, lock, locked),
        }
    }
}

fn wheel_layers(
    image: &Image,
    locked: &LockedImage,
    wheels: &[(&str, &LockedWheel)],
) -> BTreeMap<Digest, usize> {
    let documents: Vec<WheelDocument> = wheels
        .iter()
        .map(|(_, wheel)| WheelDocument {
            name: wheel.name.clone(),
            sha256: wheel.sha256,
        })
        .collect();
    let keys: Vec<Digest> = image.layers.iter().map(|layer| layer.key).collect();
    holders(&files::python_document(&locked.python), &documents, &keys)
}

/// OS layers are the lowest of ours: first the Debian base, if the root is one, then the image's own packages.
fn debs<'a>(image: &Image, lock: &'a Lock, locked: &'a LockedImage) -> Vec<Placed<'a, LockedDeb>> {
    let lowest = image.base_layers;
    let above = match &locked.base {
        LockedBase::Debian { .. } => lowest + 1,
        LockedBase::From { .. } => lowest,
    };
    let base = locked.base.debs().iter().map(|id| (id, lowest));
    let own = locked.debs.iter().map(|id| (id, above));
    base.chain(own)
        .filter_map(|(id, layer)| {
            Some(Placed {
                file: id.as_str(),
                locked: lock.debs.get(id)?,
                layer: Some(layer).filter(|layer| *layer < image.layers.len()),
            })
        })
        .collect()
}
