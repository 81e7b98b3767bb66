//! What is told of an image's layers beside their descriptors: what is in the store is looked at, and else what a registry
//! told when the layer was taken from it.

use std::collections::BTreeMap;

use super::publishing::Sources;
use super::{accounts, told};
use crate::catalog::publish::Extras;
use crate::catalog::{Accounts, LayerRecord};
use crate::cli::failure::Failure;
use crate::digest::Digest;
use crate::image::{Image, Packages};
use crate::layer::{Layer, LayerContent, LayerContents, PinnedWheel, Told, files};
use crate::lock::{LockedBase, LockedImage};
use crate::registry::Reference;
use crate::store::State;

impl Sources<'_> {
    /// What is known of the image's layers beside their descriptors.
    pub fn extras(&self, image: &Image, locked: &LockedImage) -> Result<Vec<Extras>, Failure> {
        let base: Option<Reference> = match &locked.base {
            LockedBase::From { reference, .. } => reference.parse().ok(),
            LockedBase::Debian { .. } => None,
        };
        let state = self.artifacts.store.state()?;
        let mut wheels = self.wheels(image, locked);
        let layers = image.layers.iter().enumerate();
        let extras = layers.map(|(index, layer)| {
            let base = base.iter().filter(|_| index < image.base_layers);
            let told = self.record(&state, layer)?;
            let accounts = match self.accounts(&state, image, locked, index)? {
                None => told.as_ref().and_then(|told| told.accounts.clone()),
                known => known,
            };
            let paths = match wheels.remove(&index) {
                Some(wheels) => self.paths(&wheels, locked, told.as_ref())?,
                None => None,
            };
            Ok(Extras {
                accounts,
                paths,
                elsewhere: base.chain(self.holders).cloned().collect(),
            })
        });
        extras.collect()
    }

    /// What the registry told of a layer that it has and the store has not.
    fn record(&self, state: &State, layer: &Layer) -> Result<Option<LayerRecord>, Failure> {
        let registry = self.artifacts.registry;
        let lookup = registry.filter(|_| layer.content != LayerContent::Recipe);
        let Some(lookup) = lookup else {
            return Ok(None);
        };
        Ok(told::record(state, &lookup.place().cache(), &layer.key)?)
    }

    /// The wheels of each layer that has some, by its index.
    fn wheels(&self, image: &Image, locked: &LockedImage) -> BTreeMap<usize, Vec<PinnedWheel>> {
        let mut layers: BTreeMap<usize, Vec<PinnedWheel>> = BTreeMap::new();
        for placed in Packages::of(image, self.lock, locked).wheels {
            if let Some(index) = placed.layer {
                let pin = PinnedWheel::of(placed.file, placed.locked);
                layers.entry(index).or_default().push(pin);
            }
        }
        layers
    }

    /// The document of a layer's paths: made of its wheels, else as it was told.
    fn paths(
        &self,
        wheels: &[PinnedWheel],
        locked: &LockedImage,
        told: Option<&LayerRecord>,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let here = |pin: &PinnedWheel| self.artifacts.store.artifact(&pin.sha256).is_some();
        if wheels.iter().all(here) {
            let python = files::python_document(&locked.python);
            let contents = LayerContents::of(self.artifacts.store, &python, wheels)?;
            return Ok(Some(contents.to_bytes()));
        }
        match told {
            Some(told) => Ok(told::paths(self.artifacts.store, told)?),
            None => Ok(None),
        }
    }

    /// What was told of wheels that are not here.
    pub(super) fn told(&self, image: &Image, locked: &LockedImage) -> Result<Told, Failure> {
        let state = self.artifacts.store.state()?;
        let mut all = Told::new();
        for (index, wheels) in self.wheels(image, locked) {
            let Some(record) = self.record(&state, &image.layers[index])? else {
                continue;
            };
            let bytes = told::paths(self.artifacts.store, &record)?;
            let contents = bytes.and_then(|bytes| LayerContents::parse(&bytes, &wheels).ok());
            let contents = contents.into_iter().flat_map(|contents| contents.wheels);
            all.extend(contents.map(|wheel| (wheel.sha256, wheel)));
        }
        Ok(all)
    }

    /// The accounts that an OS layer leaves, as far as everything up to it is in the store.
    fn accounts(
        &self,
        state: &State,
        image: &Image,
        locked: &LockedImage,
        index: usize,
    ) -> Result<Option<Accounts>, Failure> {
        let debian = matches!(locked.base, LockedBase::Debian { .. });
        let own = !locked.debs.is_empty();
        let end = image.base_layers + usize::from(debian) + usize::from(own);
        let below = &image.layers[..=index];
        let here = |layer: &Layer| self.artifacts.store.blob(&layer.digest).is_some();
        if !(image.base_layers..end).contains(&index) || !below.iter().all(here) {
            return Ok(None);
        }
        let blobs: Vec<Digest> = below.iter().map(|layer| layer.digest).collect();
        accounts::read(self.artifacts.store, state, &blobs).map(Some)
    }
}
