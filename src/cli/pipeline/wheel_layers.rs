//! The layers of an image's wheels: which there are, which somebody who is trusted has made, and making the others. A wheel
//! is fetched only if a layer that has to be made holds it.

use std::collections::{BTreeMap, BTreeSet};

use super::job::Job;
use super::substitute::{PureLayer, Substitutes, TakenLayer};
use crate::cli::failure::Failure;
use crate::digest::Digest;
use crate::identity::PythonDocument;
use crate::layer::plan::{self, PinnedWheel, WheelLayerPlan};
use crate::layer::{Layer, LayerContent, Told, WheelPlan, build_wheel_layers, files};
use crate::progress::Progress;

/// The layers of an image's wheels; every wheel is here that making the ones that were not taken needs.
#[derive(Debug)]
pub(super) struct WheelLayers {
    plan: WheelPlan,
    taken: BTreeMap<Digest, PureLayer>,
}

impl WheelLayers {
    /// Those that were taken instead of made.
    pub fn taken(&self) -> Vec<TakenLayer> {
        let layers = self.plan.layers.iter();
        layers
            .filter_map(|layer| self.taken.get(&layer.key))
            .map(PureLayer::taken)
            .collect()
    }
}

/// The wheels of one image while it is found out which layers they become.
struct Search<'a> {
    job: &'a Job<'a>,
    python: PythonDocument,
    pins: Vec<PinnedWheel>,
    /// How many layers of other kinds the image has.
    others: usize,
    told: Told,
    taken: BTreeMap<Digest, PureLayer>,
    asked: BTreeSet<Digest>,
}

impl Job<'_> {
    /// Finds out which layers the wheels become, takes those that somebody has made, and fetches the wheels of the rest.
    pub async fn find_wheels(&self, others: usize) -> Result<WheelLayers, Failure> {
        let locked = &self.order.locked;
        let files = locked.wheels.iter();
        let pins = files.filter_map(|file| {
            let wheel = self.lock.wheels.get(file)?;
            Some(PinnedWheel::of(file, wheel))
        });
        let search = Search {
            job: self,
            python: files::python_document(&locked.python),
            pins: pins.collect(),
            others,
            told: Told::new(),
            taken: BTreeMap::new(),
            asked: BTreeSet::new(),
        };
        search.run().await
    }

    /// The layers, lowest first; those that were not taken are made.
    pub fn wheel_layers(&self, wheels: &WheelLayers) -> Result<Vec<Layer>, Failure> {
        let store = self.store;
        for layer in &wheels.plan.layers {
            self.document(layer.document.clone(), &layer.comment);
        }
        for warning in &wheels.plan.warnings {
            self.context.progress.warn(warning);
        }
        let missing = |layer: &&WheelLayerPlan| !wheels.taken.contains_key(&layer.key);
        let missing: Vec<WheelLayerPlan> =
            wheels.plan.layers.iter().filter(missing).cloned().collect();
        let known = missing
            .iter()
            .map(|layer| store.recipe_path(&layer.key).is_file());
        let known: Vec<bool> = known.collect();
        let progress = &*self.context.progress;
        let made = build_wheel_layers(store, &missing, self.context.jobs(), progress)?;
        let mut present = self.present.borrow_mut();
        let before = made.iter().zip(known).filter(|(_, known)| *known);
        present.extend(before.map(|(layer, _)| layer.digest));
        let mut made = made.into_iter();
        let layers = wheels.plan.layers.iter();
        let layers = layers.filter_map(|plan| match wheels.taken.get(&plan.key) {
            Some(taken) => Some(taken.layer.clone()),
            None => made.next(),
        });
        let layers: Vec<Layer> = layers.collect();
        let here = |layer: &&Layer| layer.content == LayerContent::Blob;
        present.extend(layers.iter().filter(here).map(|layer| layer.digest));
        Ok(layers)
    }
}

impl Search<'_> {
    /// Which layers there are depends on the sizes of wheels, which the lock does not always have: what is learned by
    /// asking or fetching may change the groups, until nothing is learned any more.
    async fn run(mut self) -> Result<WheelLayers, Failure> {
        loop {
            let groups = self.groups();
            if let Some(substitutes) = self.job.substitutes
                && self.ask(substitutes, self.questions(&groups)).await?
            {
                continue;
            }
            if !self.fetch(&groups).await? {
                break;
            }
        }
        let (store, told) = (self.job.store, &self.told);
        let planned = plan::plan(store, &self.python, &self.pins, told, self.others)?;
        if let Some(last) = planned.layers.last().filter(|last| !last.is_of_wheels()) {
            let last = std::slice::from_ref(last);
            if let Some(substitutes) = self.job.substitutes {
                self.ask(substitutes, self.unknown(last)).await?;
            }
            self.fetch(last).await?;
        }
        Ok(WheelLayers {
            plan: planned,
            taken: self.taken,
        })
    }

    /// The layers, as far as the sizes of wheels are known; others count as small.
    fn groups(&self) -> Vec<WheelLayerPlan> {
        let sizes = |pin: &PinnedWheel| self.size(pin).unwrap_or(0);
        plan::groups(&self.python, &self.pins, sizes, self.others)
    }

    fn size(&self, pin: &PinnedWheel) -> Option<u64> {
        let known = plan::size(self.job.store, &self.told, pin);
        known.or_else(|| self.job.lock.wheels.get(&pin.file_name)?.size)
    }

    /// Layers worth asking for: of `groups`, and of every wheel of unknown size alone.
    fn questions(&self, groups: &[WheelLayerPlan]) -> Vec<WheelLayerPlan> {
        let unknown = self.pins.iter().filter(|pin| self.size(pin).is_none());
        let alone = unknown.flat_map(|pin| {
            let pin = std::slice::from_ref(pin);
            plan::groups(&self.python, pin, |_| plan::ALONE, 0)
        });
        let alone: Vec<WheelLayerPlan> = alone.collect();
        let mut questions = self.unknown(groups);
        questions.extend(self.unknown(&alone));
        questions.sort_by_key(|plan| plan.key);
        questions.dedup_by_key(|plan| plan.key);
        questions
    }

    /// Layers that nobody was asked for and that cannot be made from what is here.
    fn unknown(&self, plans: &[WheelLayerPlan]) -> Vec<WheelLayerPlan> {
        let here = |pin: &PinnedWheel| self.job.store.artifact(&pin.sha256).is_some();
        let unknown = plans
            .iter()
            .filter(|plan| !self.asked.contains(&plan.key) && !plan.wheels.iter().all(here));
        unknown.cloned().collect()
    }

    /// Asks for layers; whether something was learned.
    async fn ask(
        &mut self,
        substitutes: &Substitutes<'_>,
        plans: Vec<WheelLayerPlan>,
    ) -> Result<bool, Failure> {
        self.asked.extend(plans.iter().map(|plan| plan.key));
        let found = substitutes.wheel_layers(plans).await?;
        let learned = !found.is_empty();
        for (key, layer, contents) in found {
            self.taken.insert(key, layer);
            let wheels = contents.into_iter().flat_map(|contents| contents.wheels);
            self.told.extend(wheels.map(|wheel| (wheel.sha256, wheel)));
        }
        Ok(learned)
    }

    /// Brings the wheels of layers that have to be made; whether there were any to be brought.
    async fn fetch(&self, layers: &[WheelLayerPlan]) -> Result<bool, Failure> {
        let store = self.job.store;
        let made = layers
            .iter()
            .filter(|layer| !self.taken.contains_key(&layer.key));
        let missing = made
            .flat_map(|layer| &layer.wheels)
            .filter(|pin| store.artifact(&pin.sha256).is_none());
        let missing: BTreeSet<&String> = missing.map(|pin| &pin.file_name).collect();
        if missing.is_empty() {
            return Ok(false);
        }
        let (job, request) = (self.job, self.job.order.request);
        job.artifacts.wheels(request, job.lock, missing).await?;
        Ok(true)
    }
}
