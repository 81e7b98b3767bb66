//! One image that is put together from its layers, whatever of them the store or a registry has.

use std::cell::RefCell;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::artifacts::Artifacts;
use super::bases;
use super::building::{Order, Timings};
use super::substitute::{PureLayer, Substitutes, TakenLayer};
use super::wheel_layers::WheelLayers;
use crate::catalog::Accounts;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::digest::Digest;
use crate::identity::{self, ConfigDocument, LayerDocument};
use crate::image::{Image, Parts, assemble};
use crate::layer::files::{self, UserParts};
use crate::layer::{Layer, LayerContent};
use crate::lock::{Lock, LockedBase};
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
    /// Layers that were taken from somebody who is believed.
    pub taken: Vec<TakenLayer>,
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
        let wheels = self.find_wheels(self.other_layers()).await?;
        let downloads = self.find_downloads().await?;
        let begun = self.lap("fetch", begun);
        self.make_os(base.as_ref(), &mut os).await?;
        let begun = self.lap("OS layers", begun);
        let (accounts, layers) = self.accounts(base.as_ref(), &os).await?;
        let mut taken = os.taken();
        taken.extend(wheels.taken());
        taken.extend(downloads.iter().flatten().map(PureLayer::taken));
        let small = self.small_layers(&accounts, downloads)?;
        let image = self.assemble(base.as_ref(), layers, &wheels, small, begun)?;
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
            taken,
            timings: self.timings,
        })
    }

    fn assemble(
        &mut self,
        base: Option<&BaseImage>,
        mut layers: Vec<Layer>,
        wheels: &WheelLayers,
        mut small: Vec<Layer>,
        begun: Instant,
    ) -> Result<Image, Failure> {
        let python = &self.order.locked.python;
        let skeleton = files::skeleton(self.store, python)?;
        let document = LayerDocument::skeleton(files::python_document(python), &python.path);
        self.document(document, &skeleton.comment);
        layers.push(skeleton);
        let begun = self.lap("small layers", begun);
        layers.extend(self.wheel_layers(wheels)?);
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

    /// How many layers the image has above its base that are not of wheels.
    fn other_layers(&self) -> usize {
        let Order {
            request, locked, ..
        } = self.order;
        let os = [
            matches!(locked.base, LockedBase::Debian { .. }),
            !locked.debs.is_empty(),
            !self.order.content.files.entries.is_empty(),
        ];
        let (skeleton, user) = (1, 1);
        let these = os.into_iter().filter(|there| *there).count();
        these + request.fetches.len() + skeleton + user
    }

    /// Layers of downloads that somebody who is trusted has made; the files of the others are fetched.
    async fn find_downloads(&self) -> Result<Vec<Option<PureLayer>>, Failure> {
        let mut found = Vec::new();
        for fetch in &self.order.request.fetches {
            let document = files::fetch_document(fetch)?;
            let key = identity::key(&LayerDocument::fetch(&document));
            let known = files::known(self.store, &key)?.is_some()
                || self.store.artifact(&fetch.sha256).is_some();
            let taken = match self.substitutes.filter(|_| !known) {
                Some(substitutes) => {
                    let comment = files::fetch_comment(&document);
                    substitutes.pure_layer(&key, &comment).await?
                }
                None => None,
            };
            if taken.is_none() && !known {
                self.artifacts.download(fetch).await?;
            }
            found.push(taken);
        }
        Ok(found)
    }

    /// Layers above the wheels: downloads, project files, the user.
    fn small_layers(
        &self,
        accounts: &Accounts,
        downloads: Vec<Option<PureLayer>>,
    ) -> Result<Vec<Layer>, Failure> {
        let store = self.store;
        let mut layers = Vec::new();
        for (fetch, taken) in self.order.request.fetches.iter().zip(downloads) {
            let layer = match taken {
                Some(taken) => taken.layer,
                None => files::fetch(store, fetch)?,
            };
            let document = LayerDocument::fetch(&files::fetch_document(fetch)?);
            self.document(document, &layer.comment);
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
}
