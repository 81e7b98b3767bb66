//! Pinned wheels → which layers they become, lowest first, and who wins a path that several wheels bring.
//!
//! A wheel file of [`ALONE`] bytes or more is a layer of its own. The others go into [`BUCKETS`] buckets by a hash of the
//! project's name, so that the layer of a wheel does not depend on which other wheels there are. The size is that of the
//! artifact in the store, which is the same everywhere. Order: wheels alone by normalised name, then the buckets.
//! If that makes more layers than an image may have, the smallest wheels join their buckets.
//!
//! Where two wheels bring one path with different content, the later normalised name wins, with a warning; if the order
//! of layers would let the other one win, a last small layer repeats the winners' files.

use std::collections::BTreeMap;

use super::collisions::Collisions;
use super::contents::Told;
use super::error::LayerError;
use super::wheel::Wheel;
use crate::digest::Digest;
use crate::identity::{self, LayerDocument, PythonDocument, WheelDocument};
use crate::lock::LockedWheel;
use crate::store::Store;

/// Wheel files of this size (1 MB) and more have a layer of their own, in bytes.
pub const ALONE: u64 = 1_000_000;
/// How many layers the smaller wheels share.
pub const BUCKETS: u8 = 8;
/// The most layers that an image has above its base.
pub const MAX_LAYERS: usize = 100;

/// A wheel of the lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinnedWheel {
    /// PEP 503 normalised.
    pub name: String,
    /// PEP 440.
    pub version: String,
    /// Its file name; the store has the file under its digest.
    pub file_name: String,
    /// Of the file.
    pub sha256: Digest,
}

impl PinnedWheel {
    /// The wheel that the lock has under this file name.
    pub fn of(file: &str, wheel: &LockedWheel) -> Self {
        Self {
            name: wheel.name.clone(),
            version: wheel.version.clone(),
            file_name: file.to_owned(),
            sha256: wheel.sha256,
        }
    }
}

/// A layer that wheels become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WheelLayerPlan {
    /// What shapes its bytes: `LayerDocument::Wheels` or `LayerDocument::Collisions`.
    pub document: LayerDocument,
    /// The layer key.
    pub key: Digest,
    /// For the image's history, for example `numpy 1.26.4`.
    pub comment: String,
    /// The wheels whose files it has, sorted by name.
    pub wheels: Vec<PinnedWheel>,
    /// Bytes of wheel files, a measure of the work.
    pub work: u64,
}

impl WheelLayerPlan {
    /// Whether it holds whole wheels, not only files that several bring.
    pub fn is_of_wheels(&self) -> bool {
        matches!(self.document, LayerDocument::Wheels { .. })
    }
}

/// All layers of an image's wheels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WheelPlan {
    /// Lowest first.
    pub layers: Vec<WheelLayerPlan>,
    /// What a person should know: paths that several wheels bring with different content.
    pub warnings: Vec<String>,
}

/// Plans the layers of `wheels` for an image with `other_layers` layers of other kinds above its base. Of wheels that the
/// store does not have, `told` says what has to be known.
///
/// # Errors
/// When a wheel is neither in the store nor told, or is refused, or when two wheels cannot be installed side by side.
pub fn plan(
    store: &Store,
    python: &PythonDocument,
    wheels: &[PinnedWheel],
    told: &Told,
    other_layers: usize,
) -> Result<WheelPlan, LayerError> {
    for wheel in wheels {
        if size(store, told, wheel).is_none() {
            return Err(missing(wheel));
        }
    }
    let sizes = |wheel: &PinnedWheel| size(store, told, wheel).unwrap_or(0);
    let mut layers = groups(python, wheels, sizes, other_layers);
    let collisions = Collisions::find(store, python, &layers, told)?;
    if !collisions.fixes.is_empty() {
        layers.push(collisions_layer(python, collisions.fixes, &layers));
    }
    Ok(WheelPlan {
        layers,
        warnings: collisions.warnings,
    })
}

/// The layers that hold `wheels`, as their `sizes` (bytes of the files) alone decide: those of [`plan`] without the one that
/// repeats files of others.
pub fn groups(
    python: &PythonDocument,
    wheels: &[PinnedWheel],
    sizes: impl Fn(&PinnedWheel) -> u64,
    other_layers: usize,
) -> Vec<WheelLayerPlan> {
    let sized = wheels.iter().map(|wheel| (wheel.clone(), sizes(wheel)));
    let mut sized: Vec<Sized> = sized.collect();
    sized.sort();
    sized.dedup();
    let limit = MAX_LAYERS.saturating_sub(other_layers + 1);
    group(sized, limit.max(BUCKETS.into()))
        .into_iter()
        .map(|group| wheels_layer(python, group))
        .collect()
}

/// Bytes of a wheel's file, if it is in the store or told.
pub fn size(store: &Store, told: &Told, wheel: &PinnedWheel) -> Option<u64> {
    let here = store.artifact(&wheel.sha256);
    let here = here.and_then(|path| std::fs::metadata(path).ok());
    let here = here.map(|meta| meta.len());
    here.or_else(|| told.get(&wheel.sha256).map(|told| told.size))
}

fn missing(wheel: &PinnedWheel) -> LayerError {
    LayerError::MissingWheel {
        name: wheel.file_name.clone(),
        digest: wheel.sha256,
    }
}

/// Where a wheel's file is.
pub(super) fn artifact(
    store: &Store,
    wheel: &PinnedWheel,
) -> Result<std::path::PathBuf, LayerError> {
    store.artifact(&wheel.sha256).ok_or_else(|| missing(wheel))
}

/// Opens a wheel of the store.
pub(super) fn open(store: &Store, wheel: &PinnedWheel) -> Result<Wheel, LayerError> {
    Ok(Wheel::open(&artifact(store, wheel)?, &wheel.file_name)?)
}

fn bucket(name: &str) -> u8 {
    Digest::of(name).bytes()[0] % BUCKETS
}

type Sized = (PinnedWheel, u64);

/// Wheels by layer, lowest first; at most `limit` layers, but never fewer than the buckets.
fn group(wheels: Vec<Sized>, limit: usize) -> Vec<Vec<Sized>> {
    let (mut alone, small): (Vec<Sized>, Vec<Sized>) =
        wheels.into_iter().partition(|(_, size)| *size >= ALONE);
    let mut buckets: BTreeMap<u8, Vec<Sized>> = BTreeMap::new();
    for wheel in small {
        buckets
            .entry(bucket(&wheel.0.name))
            .or_default()
            .push(wheel);
    }
    while alone.len() + buckets.len() > limit {
        let smallest = (0..alone.len()).min_by_key(|&index| (alone[index].1, index));
        let Some(smallest) = smallest else { break };
        let wheel = alone.remove(smallest);
        buckets
            .entry(bucket(&wheel.0.name))
            .or_default()
            .push(wheel);
    }
    let mut groups: Vec<_> = alone.into_iter().map(|wheel| vec![wheel]).collect();
    for (_, mut wheels) in buckets {
        wheels.sort();
        groups.push(wheels);
    }
    groups
}

/// Wheel → index of the layer that holds it, told by the keys of an image's `layers` alone: neither the wheels nor their
/// sizes are needed. A wheel that no key accounts for is absent.
pub fn holders(
    python: &PythonDocument,
    wheels: &[WheelDocument],
    layers: &[Digest],
) -> BTreeMap<Digest, usize> {
    let index = |group: &[&WheelDocument]| {
        let document = LayerDocument::wheels(python.clone(), group.iter().copied().cloned());
        let key = identity::key(&document);
        layers.iter().position(|layer| *layer == key)
    };
    let mut found = BTreeMap::new();
    let mut buckets: BTreeMap<u8, Vec<&WheelDocument>> = BTreeMap::new();
    for wheel in wheels {
        match index(&[wheel]) {
            Some(layer) => {
                found.insert(wheel.sha256, layer);
            }
            None => buckets.entry(bucket(&wheel.name)).or_default().push(wheel),
        }
    }
    for group in buckets.into_values() {
        if let Some(layer) = index(&group) {
            found.extend(group.iter().map(|wheel| (wheel.sha256, layer)));
        }
    }
    found
}

fn wheels_layer(python: &PythonDocument, group: Vec<Sized>) -> WheelLayerPlan {
    let work = group.iter().map(|(_, size)| size).sum();
    let wheels: Vec<PinnedWheel> = group.into_iter().map(|(wheel, _)| wheel).collect();
    let documents = wheels.iter().map(|wheel| WheelDocument {
        name: wheel.name.clone(),
        sha256: wheel.sha256,
    });
    let document = LayerDocument::wheels(python.clone(), documents);
    let names: Vec<String> = wheels
        .iter()
        .map(|wheel| format!("{} {}", wheel.name, wheel.version))
        .collect();
    WheelLayerPlan {
        key: identity::key(&document),
        document,
        comment: names.join(", "),
        wheels,
        work,
    }
}

fn collisions_layer(
    python: &PythonDocument,
    winners: BTreeMap<String, Digest>,
    layers: &[WheelLayerPlan],
) -> WheelLayerPlan {
    let mut wheels: Vec<PinnedWheel> = layers
        .iter()
        .flat_map(|layer| &layer.wheels)
        .filter(|wheel| winners.values().any(|winner| *winner == wheel.sha256))
        .cloned()
        .collect();
    wheels.sort();
    let document = LayerDocument::collisions(python.clone(), winners);
    WheelLayerPlan {
        key: identity::key(&document),
        document,
        comment: "files that several wheels bring".into(),
        wheels,
        work: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel(name: &str, size: u64) -> Sized {
        let pin = PinnedWheel {
            name: name.into(),
            version: "1".into(),
            file_name: format!("{name}-1-py3-none-any.whl"),
            sha256: Digest::of(name),
        };
        (pin, size)
    }

    #[test]
    fn a_wheel_keeps_its_layer_whatever_its_neighbours_are() {
        let few = group(vec![wheel("a", ALONE), wheel("b", 5)], 99);
        assert_eq!(few.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        let mut wheels = vec![wheel("a", ALONE), wheel("b", 5)];
        wheels.extend((0..60).map(|n| wheel(&format!("big{n:02}"), ALONE + n)));
        wheels.sort();
        let many = group(wheels, 99);
        assert_eq!(many.len(), 62);
        assert!(few.iter().all(|layer| many.contains(layer)));
    }

    #[test]
    fn too_many_layers_send_the_smallest_wheels_to_the_buckets() {
        let mut wheels: Vec<Sized> = (0..200)
            .map(|n| wheel(&format!("w{n:03}"), ALONE + n))
            .collect();
        wheels.sort();
        let layers = group(wheels, 40);
        assert_eq!(layers.len(), 40);
        assert_eq!(layers.iter().map(Vec::len).sum::<usize>(), 200);
        assert!(layers[0].len() == 1 && layers[0][0].1 >= ALONE + 160);
    }

    #[test]
    fn every_bucket_is_used() {
        let used: std::collections::BTreeSet<u8> =
            (0..200).map(|n| bucket(&format!("w{n}"))).collect();
        assert_eq!(used.len(), usize::from(BUCKETS));
    }
}
