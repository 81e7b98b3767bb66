//! One image that is put together from its layers, whatever of them the store or a registry has.

use std::cell::RefCell;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::artifacts::Artifacts;
use super::bases;
use super::building::{Order, Timings};
use super::substitute::Substitutes;
use crate::catalog::{Accounts, Belief};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::digest::Digest;
use crate::identity::{ConfigDocument, FetchDocument, LayerDocument};
use crate::image::{Image, Parts, assemble};
use crate::layer::files::{self, UserParts};
use crate::layer::{Layer, LayerContent, PinnedWheel, build_wheel_layers, plan};
use crate::lock::{Lock, LockedBase};
use crate::progress::Progress;
use crate::resolve::base::BaseImage;
use crate::store::{State, Store};

/// The documents behind a built image's keys; kept under its image key for `why`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// The configuration.
    pub config: ConfigDocument,
    /// Each layer above the base with the name that people know it by, lowest first.
    pub layers: Vec<(LayerDocument, String)>,
}

/// What putting an image together gave.
#[derive(Debug)]
pub struct Made {
    /// The image.
    pub image: Image,
    /// Compressed bytes of layers that the store did not have.
    pub new_bytes: u64,
    /// Of these, what was pulled as a layer.
    pub pulled_bytes: u64,
    /// Why each layer is believed that was not made here.
    pub beliefs: Vec<Belief>,
    /// Where the time went.
    pub timings: Timings,
}

/// An image in the making.
pub(super) struct Job<'a> {
    pub context: &'a Context,
    pub store: &'a Store,
    pub artifacts: Artifacts<'a>,
    pub state: &'a State,
    pub substitutes: Option<&'a Substitutes<'a>>,
    pub order: &'a Order<'a>,
    pub lock: &'a Lock,
    pub timings: Timings,
    /// Digests of layers that were there before.
    pub present: RefCell<Vec<Digest>>,
    /// What the layers' keys are made of.
    documents: RefCell<Vec<(LayerDocument, String)>>,
}

impl<'a> Job<'a> {
    /// Begins; nothing is done yet.
    pub fn new(
        artifacts: Artifacts<'a>,
        state: &'a State,
        substitutes: Option<&'a Substitutes<'a>>,
        order: &'a Order<'a>,
        lock: &'a Lock,
    ) -> Self {
        Self {
            context: artifacts.context,
            store: artifacts.store,
            artifacts,
            state,
            substitutes,
            order,
            lock,
            timings: Timings::new(),
            present: RefCell::default(),
            documents: RefCell::default(),
        }
    }

    /// Makes the image and puts its documents into the store.
    pub async fn run(mut self) -> Result<Made, Failure> {
        let begun = Instant::now();
        let base = self.base().await?;
        let begun = self.lap("base", begun);
        let mut os = self.find_os(base.as_ref()).await?;
        self.check_sandbox(&os)?;
        let begun = self.lap("OS layers", begun);
        let (request, locked) = (self.order.request, &self.order.locked);
        self.artifacts.fetch(request, self.lock, locked).await?;
        let begun = self.lap("fetch", begun);
        self.make_os(base.as_ref(), &mut os).await?;
        let begun = self.lap("OS layers", begun);
        let (accounts, layers) = self.accounts(base.as_ref(), &os).await?;
        let image = self.assemble(base.as_ref(), layers, &accounts, begun)?;
        let present = self.present.into_inner();
        let new_bytes = image
            .layers
            .iter()
            .filter(|layer| layer.content != LayerContent::Registry)
            .filter(|layer| !present.contains(&layer.digest))
            .map(|layer| layer.size)
            .sum();
        Ok(Made {
            image,
            new_bytes,
            pulled_bytes: os.pulled(),
            beliefs: os.beliefs(),
            timings: self.timings,
        })
    }

    fn assemble(
        &mut self,
        base: Option<&BaseImage>,
        mut layers: Vec<Layer>,
        accounts: &Accounts,
        begun: Instant,
    ) -> Result<Image, Failure> {
        let mut small = self.small_layers(accounts)?;
        let python = &self.order.locked.python;
        let skeleton = files::skeleton(self.store, python)?;
        let document = LayerDocument::skeleton(files::python_document(python), &python.path);
        self.document(document, &skeleton.comment);
        layers.push(skeleton);
        let begun = self.lap("small layers", begun);
        layers.extend(self.wheel_layers(layers.len() + small.len())?);
        let begun = self.lap("wheel layers", begun);
        layers.append(&mut small);
        let image = assemble(Parts {
            platform: self.order.platform,
            base,
            layers,
            config: &self.order.request.config,
        })?;
        self.store.put_blob(image.config.as_bytes())?;
        self.store.put_blob(image.manifest.as_bytes())?;
        self.remember(&image)?;
        self.lap("assemble", begun);
        Ok(image)
    }

    fn remember(&self, image: &Image) -> Result<(), Failure> {
        let recorded = Recorded {
            config: ConfigDocument::new(&self.order.request.config),
            layers: self.documents.borrow().clone(),
        };
        if let Ok(text) = serde_json::to_string(&recorded) {
            self.state.put_document(&image.key, &text)?;
        }
        Ok(())
    }

    pub fn document(&self, document: LayerDocument, name: &str) {
        self.documents
            .borrow_mut()
            .push((document, name.to_owned()));
    }

    /// A stage that is told in two parts counts once.
    fn lap(&mut self, stage: &str, begun: Instant) -> Instant {
        let known = self.timings.iter_mut().find(|(known, _)| known == stage);
        match known {
            Some((_, duration)) => *duration += begun.elapsed(),
            None => self.timings.push((stage.into(), begun.elapsed())),
        }
        Instant::now()
    }

    async fn base(&self) -> Result<Option<BaseImage>, Failure> {
        let LockedBase::From { reference, digest } = &self.order.locked.base else {
            return Ok(None);
        };
        let (context, store, http) = (self.context, self.store, self.artifacts.http);
        let platform = self.order.platform;
        let base = bases::inspect(context, store, http, reference, Some(*digest), platform).await?;
        Ok(Some(base))
    }

    /// Layers above the wheels: downloads, project files, the user.
    fn small_layers(&self, accounts: &Accounts) -> Result<Vec<Layer>, Failure> {
        let store = self.store;
        let mut layers = Vec::new();
        for fetch in &self.order.request.fetches {
            let layer = files::fetch(store, fetch)?;
            let document = FetchDocument {
                sha256: fetch.sha256,
                to: fetch.to.clone(),
                mode: fetch.mode.unwrap_or(FetchDocument::DEFAULT_MODE),
            };
            self.document(LayerDocument::fetch(&document), &layer.comment);
            layers.push(layer);
        }
        let content = self.order.content;
        if let Some(layer) = files::project(store, &content.files)? {
            let entries = content.files.entries.clone();
            self.document(LayerDocument::files(entries), &layer.comment);
            layers.push(layer);
        }
        let config = &self.order.request.config;
        let user = config.user.clone().unwrap_or_default();
        let parts = UserParts {
            user: &user,
            workdir: config.workdir.as_deref(),
            passwd: &accounts.passwd,
            group: &accounts.group,
        };
        let layer = files::user(store, parts)?;
        self.document(parts.document(), &layer.comment);
        layers.push(layer);
        Ok(layers)
    }

    fn wheel_layers(&self, others: usize) -> Result<Vec<Layer>, Failure> {
        let store = self.store;
        let locked = &self.order.locked;
        let wheels: Vec<PinnedWheel> = locked
            .wheels
            .iter()
            .filter_map(|file| Some((file, self.lock.wheels.get(file)?)))
            .map(|(file, wheel)| PinnedWheel {
                name: wheel.name.clone(),
                version: wheel.version.clone(),
                file_name: file.clone(),
                sha256: wheel.sha256,
            })
            .collect();
        let python = files::python_document(&locked.python);
        let planned = plan(store, &python, &wheels, others)?;
        for layer in &planned.layers {
            self.document(layer.document.clone(), &layer.comment);
        }
        for warning in &planned.warnings {
            self.context.progress.warn(warning);
        }
        let before: Vec<bool> = planned
            .layers
            .iter()
            .map(|layer| store.recipe_path(&layer.key).is_file())
            .collect();
        let layers = build_wheel_layers(
            store,
            &planned.layers,
            self.context.jobs(),
            &*self.context.progress,
        )?;
        let known = layers.iter().zip(before).filter(|(_, known)| *known);
        self.present
            .borrow_mut()
            .extend(known.map(|(layer, _)| layer.digest));
        Ok(layers)
    }
}
