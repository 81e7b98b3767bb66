//! Lock → images: from the store, from somebody who is believed, or made.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::artifacts::Artifacts;
use super::content::Content;
use super::job::Job;
use super::learning;
use super::materialise::{self, Need};
use super::substitute::{Claim, Sought, Substitutes, Taken};
use crate::catalog::Trust;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::identity::{self, ConfigDocument, SetDocument};
use crate::image::Image;
use crate::layer::{Layer, LayerContent};
use crate::lock::{Lock, LockedImage};
use crate::manifest::{ImageRequest, Platform};
use crate::progress::Progress;
use crate::registry::RegistryError;
use crate::store::{ImageRow, State, Store};

/// Where a build's time went: stage and duration, in order.
pub type Timings = Vec<(String, Duration)>;

/// An image that is known now.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// The set key.
    pub set: Digest,
    /// Whether this call made it.
    pub fresh: bool,
    /// What of it was believed instead of made.
    pub claim: Option<Claim>,
    /// Compressed bytes of layers that the store did not have.
    pub new_bytes: u64,
    /// Of these, what came from a registry that has the layer.
    pub pulled_bytes: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// An image that is wanted.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// As the manifest declares it.
    pub request: &'a ImageRequest,
    /// For this platform.
    pub platform: Platform,
    /// What the project's folder adds.
    pub content: &'a Content,
    /// What the lock pins.
    pub locked: LockedImage,
}

impl<'a> Order<'a> {
    fn of(
        request: &'a ImageRequest,
        platform: Platform,
        content: &'a Content,
        lock: &Lock,
    ) -> Result<Self, Failure> {
        let name = &request.name.value;
        let platforms = lock.images.get(name);
        let Some(locked) = platforms.and_then(|all| all.get(&platform)).cloned() else {
            let message = format!("the lock lost image `{name}`");
            return Err(Failure::plain(Kind::Bug, message, ""));
        };
        Ok(Self {
            request,
            platform,
            content,
            locked,
        })
    }
}

/// Whose work counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Work {
    /// That of everybody who is believed.
    #[default]
    Any,
    /// What this store has made.
    Own,
    /// What is made now.
    New,
}

/// What building works with.
#[derive(Debug)]
pub struct Builder<'a> {
    /// Options, progress, interruption.
    pub context: &'a Context,
    /// Where everything goes.
    pub store: &'a Store,
    artifacts: Artifacts<'a>,
    state: State,
    work: Work,
    trust: Trust,
    substitutes: Option<Substitutes<'a>>,
    locked: bool,
}

/// An image as the state keeps it.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    image: Image,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
}

impl<'a> Builder<'a> {
    /// Opens the state. Without `substitutes` nobody is asked.
    pub fn new(
        artifacts: Artifacts<'a>,
        work: Work,
        trust: Trust,
        substitutes: Option<Substitutes<'a>>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            state: artifacts.store.state()?,
            context: artifacts.context,
            store: artifacts.store,
            artifacts,
            work,
            trust,
            substitutes: substitutes.filter(|_| work == Work::Any),
            locked: false,
        })
    }

    /// Whether an image that is not the one which the lock names is refused.
    #[must_use]
    pub fn held_to_the_lock(self, locked: bool) -> Self {
        Self { locked, ..self }
    }

    /// Finds one image built, takes it from somebody who is believed, or builds it. What is learned by that goes into
    /// `lock`.
    pub async fn build(
        &self,
        request: &ImageRequest,
        platform: Platform,
        content: &Content,
        need: Need,
        lock: &mut Lock,
    ) -> Result<Built, Failure> {
        let name = &request.name.value;
        let order = Order::of(request, platform, content, lock)?;
        let sought = self.sought(&order, lock)?;
        let mut built = match self.find(&sought).await? {
            Some(found) => found,
            None => {
                let substitutes = self.substitutes.as_ref();
                self.make(&order, &sought, substitutes, lock).await?
            }
        };
        if let Some(reason) = self.bring(&mut built, need).await? {
            let note = format!("{reason}; building {name} without it");
            self.context.progress.note(&note);
            let known = built.image.digest();
            built = self.make(&order, &sought, None, lock).await?;
            if built.image.digest() != known {
                self.context.progress.warn(&format!(
                    "{name}: this build is {}, what was known is {known}",
                    built.image.digest()
                ));
            }
        }
        if self.locked {
            learning::hold(&order, &built.image)?;
        }
        self.record(&order, &built)?;
        learning::learn(self.context, &order, &built.image, lock);
        Ok(built)
    }

    /// Asks for all images at once that the store does not have as the lock has them.
    pub async fn look_ahead(
        &self,
        wanted: &[(&ImageRequest, Platform, &Content)],
        lock: &Lock,
    ) -> Result<(), Failure> {
        let Some(substitutes) = self.substitutes.as_ref().filter(|_| wanted.len() > 1) else {
            return Ok(());
        };
        let orders = wanted
            .iter()
            .map(|(request, platform, content)| Order::of(request, *platform, content, lock));
        let orders: Vec<Order<'_>> = orders.collect::<Result<_, _>>()?;
        let mut all = Vec::new();
        for order in &orders {
            let sought = self.sought(order, lock)?;
            if !fits(self.known(&sought)?.as_ref(), &sought) {
                all.push(sought);
            }
        }
        substitutes.look_ahead(&all).await
    }

    fn sought<'b>(&self, order: &'b Order<'_>, lock: &Lock) -> Result<Sought<'b>, Failure> {
        let files = &order.content.files.entries;
        let (request, platform) = (order.request, order.platform);
        let document = SetDocument::new(request, platform, lock, &order.locked, files);
        let set = identity::key(&document);
        let text = identity::canonical_json(&document);
        self.state
            .put_document(&set, &String::from_utf8_lossy(&text))?;
        Ok(Sought {
            name: &order.request.name.value,
            platform,
            set,
            config: ConfigDocument::new(&request.config),
            locked: &order.locked,
        })
    }

    /// The image as the store or somebody who is believed has it; at best the one that the lock names.
    async fn find(&self, sought: &Sought<'_>) -> Result<Option<Built>, Failure> {
        let begun = Instant::now();
        let stored = self.known(sought)?;
        let fits = fits(stored.as_ref(), sought);
        let taken = match &self.substitutes {
            Some(substitutes) if !fits => substitutes.image(sought).await?,
            _ => None,
        };
        let taken = taken.map(|(image, claim)| Stored {
            image,
            claim: Some(claim),
        });
        Ok(taken.or(stored).map(|Stored { image, claim }| Built {
            image,
            set: sought.set,
            fresh: false,
            claim,
            new_bytes: 0,
            pulled_bytes: 0,
            timings: vec![("look up".into(), begun.elapsed())],
        }))
    }

    /// The set key of an image, and the image if the work that counts has made it before. Nobody else is asked.
    pub fn stored(
        &self,
        order: &Order<'_>,
        lock: &Lock,
    ) -> Result<(Digest, Option<Image>), Failure> {
        let sought = self.sought(order, lock)?;
        let found = self.known(&sought)?;
        Ok((sought.set, found.map(|stored| stored.image)))
    }

    /// The image of a set that this store has: what the lock names first, else whichever. All its layers can be
    /// streamed or pulled, and what was believed of it is believed still.
    fn known(&self, sought: &Sought<'_>) -> Result<Option<Stored>, Failure> {
        let rows = self
            .state
            .images_by_inputs(&sought.set, &sought.platform.to_string())?;
        let images = rows
            .iter()
            .filter_map(|row| serde_json::from_str::<Stored>(&row.document).ok());
        let mut images: Vec<Stored> = images
            .map(|stored| self.settled(stored))
            .filter(|stored| self.counts(stored, sought))
            .collect();
        images.sort_by_key(|stored| Some(stored.image.digest()) == sought.locked.digest);
        Ok(images.pop())
    }

    fn settled(&self, mut stored: Stored) -> Stored {
        for layer in &mut stored.image.layers {
            *layer = materialise::settled(self.store, layer);
        }
        stored
    }

    fn counts(&self, stored: &Stored, sought: &Sought<'_>) -> bool {
        let Stored { image, claim } = stored;
        let ours = match (claim, self.work) {
            (_, Work::New) | (Some(_), Work::Own) => false,
            (None, _) => true,
            (Some(claim), Work::Any) => claim.holds(&self.trust, sought, image),
        };
        ours && sought.has_os_layers(image) && image.layers.iter().all(|layer| self.has(layer))
    }

    fn has(&self, layer: &Layer) -> bool {
        match layer.content {
            LayerContent::Blob => std::fs::metadata(self.store.blob_path(&layer.digest))
                .is_ok_and(|meta| meta.len() == layer.size),
            LayerContent::Recipe => self.store.recipe_path(&layer.key).is_file(),
            LayerContent::Registry => true,
        }
    }

    async fn make(
        &self,
        order: &Order<'_>,
        sought: &Sought<'_>,
        substitutes: Option<&Substitutes<'_>>,
        lock: &Lock,
    ) -> Result<Built, Failure> {
        let job = Job::new(self.artifacts, &self.state, substitutes, order, lock);
        let made = job.run().await?;
        let cache = substitutes.map(|substitutes| substitutes.catalog().place().cache());
        let claim = cache.filter(|_| !made.taken.is_empty());
        Ok(Built {
            image: made.image,
            set: sought.set,
            fresh: true,
            claim: claim.map(|cache| Claim {
                repository: cache.to_string(),
                taken: Taken::Layers(made.taken),
            }),
            new_bytes: made.new_bytes,
            pulled_bytes: made.pulled_bytes,
            timings: made.timings,
        })
    }

    /// Brings what `need` demands of the image's layers into the store; or tells why it cannot be had.
    async fn bring(&self, built: &mut Built, need: Need) -> Result<Option<String>, Failure> {
        let lacks = |layer: &Layer| materialise::lacks(self.store, layer, need);
        if !built.image.layers.iter().any(lacks) {
            return Ok(None);
        }
        let Some(substitutes) = &self.substitutes else {
            let reason = "the store does not have the bytes of its layers, and there is no registry to pull them from";
            return Ok(Some(reason.into()));
        };
        let begun = Instant::now();
        let (context, store) = (self.context, self.store);
        let registry = substitutes.registry();
        let claimed = built.claim.as_ref().and_then(Claim::repository);
        let repositories: Vec<_> = claimed.into_iter().collect();
        let layers = &built.image.layers;
        let first = layers.iter().find(|layer| lacks(layer));
        if let (Some(repository), Some(first)) = (repositories.first(), first)
            && let Some(reason) = substitutes.silence(repository, first).await
        {
            return Ok(Some(reason));
        }
        let pulled =
            materialise::layers(context, store, registry, &repositories, layers, need).await;
        match pulled {
            Ok((layers, bytes)) => {
                built.image.layers = layers;
                built.new_bytes += bytes;
                built.pulled_bytes += bytes;
                built.timings.push(("pull".into(), begun.elapsed()));
                Ok(None)
            }
            // Bytes that are not what they should be are no fault of the store.
            Err(RegistryError::Store(error)) if error.kind() != Kind::Refused => Err(error.into()),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    fn record(&self, order: &Order<'_>, built: &Built) -> Result<(), Failure> {
        let mut image = built.image.clone();
        let claim = built.claim.clone();
        // What of layers that were taken is here is seen each time anew; what is not can be pulled.
        for layer in &mut image.layers {
            if claim.as_ref().is_some_and(|claim| claim.covers(layer)) {
                layer.content = LayerContent::Registry;
            }
        }
        let stored = Stored { image, claim };
        let document = serde_json::to_string(&stored).map_err(|error| {
            Failure::plain(Kind::Bug, format!("cannot record the image: {error}"), "")
        })?;
        let row = ImageRow {
            name: order.request.name.value.clone(),
            platform: order.platform.to_string(),
            request: order.locked.request,
            inputs: built.set,
            key: built.image.key,
            digest: built.image.digest(),
            document,
        };
        Ok(self.state.put_image(&row)?)
    }
}

/// Whether the store has the image that the lock names; any, if it names none.
fn fits(stored: Option<&Stored>, sought: &Sought<'_>) -> bool {
    let wanted = sought.locked.digest;
    stored.is_some_and(|stored| wanted.is_none_or(|wanted| wanted == stored.image.digest()))
}
