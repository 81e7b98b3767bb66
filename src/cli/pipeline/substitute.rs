//! What somebody else has built, in place of building it: whole images by their set key, OS layers by their layer key.
//!
//! Nothing here fails a build. A registry that cannot be asked is told once and asked no more; what is malformed is told
//! and not taken; what nobody vouches for is told with who could.

use std::cell::Cell;

use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::materialise;
use super::places;
use crate::catalog::{
    Accounts, Belief, Catalog, CatalogError, Claims, LayerRecord, LayerStatement, Record,
    Statement, Trust, Wanted,
};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::substitution::SubstitutionFlags;
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::http::Http;
use crate::identity::{self, ConfigDocument};
use crate::image::Image;
use crate::layer::debian::DebianRequest;
use crate::layer::{LAYER_MEDIA_TYPE, Layer, LayerContent, blob};
use crate::lock::{LockedBase, LockedImage};
use crate::manifest::{Manifest, Platform};
use crate::oci::{DOCUMENT_LIMIT, Descriptor};
use crate::progress::Progress;
use crate::registry::{Reference, Registry, RegistryError};
use crate::store::Store;

/// What of an image was believed instead of computed; kept with the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Why; of an image of which only some layers were believed, for each of these.
    pub beliefs: Vec<Belief>,
    /// The repository with its host that has the bytes.
    pub repository: String,
    /// Whether the image was taken as a whole.
    pub whole: bool,
}

impl Claim {
    /// The repository.
    pub fn repository(&self) -> Option<Reference> {
        self.repository.parse().ok()
    }
}

/// An image that is looked for.
#[derive(Clone, Debug)]
pub struct Sought<'a> {
    /// Declared name.
    pub name: &'a str,
    /// Its platform.
    pub platform: Platform,
    /// The set key.
    pub set: Digest,
    /// What the manifest decides of its configuration.
    pub config: ConfigDocument,
    /// What the lock says of it.
    pub locked: &'a LockedImage,
}

impl Sought<'_> {
    /// Diff IDs that the lock has of OS layers.
    pub fn diff_ids(&self) -> Vec<Digest> {
        let base = match &self.locked.base {
            LockedBase::Debian { diff_id, .. } => *diff_id,
            LockedBase::From { .. } => None,
        };
        base.into_iter().chain(self.locked.os_diff_id).collect()
    }

    /// Whether the image has the OS layers that the lock has.
    pub fn has_os_layers(&self, image: &Image) -> bool {
        let has = |wanted: &Digest| image.layers.iter().any(|layer| layer.diff_id == *wanted);
        self.diff_ids().iter().all(has)
    }

    /// Whether the lock has the diff IDs of all OS layers.
    pub fn pins_os_layers(&self) -> bool {
        let debian = matches!(self.locked.base, LockedBase::Debian { .. });
        let own = !self.locked.debs.is_empty();
        self.diff_ids().len() == usize::from(debian) + usize::from(own)
    }

    fn from(&self) -> Option<Digest> {
        match &self.locked.base {
            LockedBase::From { digest, .. } => Some(*digest),
            LockedBase::Debian { .. } => None,
        }
    }
}

/// An OS layer, and how it came.
#[derive(Clone, Debug)]
pub struct OsLayer {
    /// The layer.
    pub layer: Layer,
    /// The accounts that it leaves, if somebody who is believed says so.
    pub accounts: Option<Accounts>,
    /// Why it is believed, if it was not made here.
    pub belief: Option<Belief>,
    /// Compressed bytes that were pulled for it just now.
    pub pulled: u64,
}

/// The manifest's registry as somebody who may have built what is wanted.
#[derive(Debug)]
pub struct Substitutes<'a> {
    context: &'a Context,
    store: &'a Store,
    /// For questions; it does not wait long.
    catalog: Catalog,
    /// For what is pulled.
    registry: Registry,
    trust: Trust,
    down: Cell<bool>,
}

impl<'a> Substitutes<'a> {
    /// `None` where nothing is to be looked up: no registry is declared, or the flags forbid it.
    pub fn new(
        context: &'a Context,
        store: &'a Store,
        http: &Http,
        manifest: &Manifest,
        flags: SubstitutionFlags,
    ) -> Result<Option<Self>, Failure> {
        if flags.no_substitute || context.global.offline {
            return Ok(None);
        }
        let catalog = places::lookup(context, http, manifest)?;
        Ok(catalog.map(|catalog| Self {
            context,
            store,
            registry: catalog.registry().clone(),
            catalog: Catalog::new(catalog.registry().impatient(), catalog.place().clone()),
            trust: places::trust(manifest, flags.trust_registry),
            down: Cell::new(false),
        }))
    }

    /// Where it is looked up.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The client.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The repository that people push to, as messages show it.
    pub fn shown(&self) -> String {
        self.catalog.place().root().to_string()
    }

    /// The image of a set, if somebody who is believed has built it. Of its layers nothing is fetched.
    pub async fn image(&self, sought: &Sought<'_>) -> Result<Option<(Image, Claim)>, Failure> {
        if self.down.get() {
            return Ok(None);
        }
        let answer = self.catalog.images(&sought.set, &self.trust.keys).await;
        let Some(records) = self.heard(answer) else {
            return Ok(None);
        };
        let mut strangers = Vec::new();
        for record in &records {
            let Some(belief) = self.belief(record, sought.locked.digest) else {
                strangers.push(record);
                continue;
            };
            let found = match self.adopt(record, sought).await {
                Ok(found) => found,
                Err(error) => {
                    self.failed(&error);
                    continue;
                }
            };
            if let Some((image, repository)) = found {
                self.store.put_blob(image.config.as_bytes())?;
                self.store.put_blob(image.manifest.as_bytes())?;
                let claim = Claim {
                    beliefs: vec![belief],
                    repository: repository.to_string(),
                    whole: true,
                };
                return Ok(Some((image, claim)));
            }
        }
        if let Some(record) = strangers.first() {
            self.tell_stranger(sought, record);
        }
        Ok(None)
    }

    /// The OS layer that `request` wants, if somebody who is believed has made it. Its blob is pulled, and its diff ID
    /// verified, where only the lock vouches for it.
    pub async fn os_layer(&self, request: &DebianRequest<'_>) -> Result<Option<OsLayer>, Failure> {
        let key = request.key();
        if let Some(layer) = self.verified_before(&key, request)? {
            return Ok(Some(layer));
        }
        if self.down.get() {
            return Ok(None);
        }
        let answer = self.catalog.layers(&key, &self.trust.keys).await;
        for record in self.heard(answer).unwrap_or_default() {
            let contradicts = |wanted: Digest| wanted != record.layer.diff_id;
            if record.layer.media_type != LAYER_MEDIA_TYPE
                || request.expected.is_some_and(contradicts)
            {
                continue;
            }
            let statement = LayerStatement::of(key, &record);
            let found = match self.trust.belief(&statement, &record.signatures) {
                Some(belief) => Some(self.claimed(&record, request, belief)),
                None if request.expected.is_some() => self.pulled(&key, &record, request).await?,
                None => {
                    self.context.progress.note(&format!(
                        "{} has the layer `{}`, but nobody vouches for it: {VOUCH}",
                        self.shown(),
                        request.comment
                    ));
                    None
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn belief(&self, record: &Record, locked: Option<Digest>) -> Option<Belief> {
        match locked {
            Some(digest) => (digest == record.digest).then_some(Belief::Lock),
            None => self
                .trust
                .belief(&Statement::of(record), &record.signatures),
        }
    }

    /// The record's image, verified; `None` if it has been deleted, or does not fit the lock.
    async fn adopt(
        &self,
        record: &Record,
        sought: &Sought<'_>,
    ) -> Result<Option<(Image, Reference)>, CatalogError> {
        let repository = self.catalog.place().image(&record.name);
        let is_one = repository.to_string().parse::<Reference>().is_ok();
        if !is_one || repository.repository != record.repository {
            return Err(CatalogError::Malformed {
                what: format!("the record of {}", sought.set),
                reason: "it names a repository where no image of this registry is".into(),
            });
        }
        let pinned = Reference {
            digest: Some(record.digest),
            ..repository.clone()
        };
        let registry = self.catalog.registry();
        let documents = try_join(
            registry.manifest(&pinned),
            registry.small_blob(&repository, &record.config, DOCUMENT_LIMIT),
        );
        let (manifest, config) = match documents.await {
            Ok(documents) => documents,
            Err(RegistryError::NotFound { .. }) => {
                self.context.progress.note(&format!(
                    "{pinned} was known, but is not in the registry any more: building it"
                ));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let wanted = Wanted {
            platform: sought.platform,
            config: &sought.config,
            from: sought.from(),
        };
        let image = record.image(wanted, manifest, config)?;
        if !sought.has_os_layers(&image) {
            self.context.progress.note(&format!(
                "{pinned} has other OS layers than the lock: building {}",
                sought.name
            ));
            return Ok(None);
        }
        let layers = image.layers.iter();
        let layers = layers.map(|layer| materialise::settled(self.store, layer));
        let layers = layers.collect();
        Ok(Some((Image { layers, ..image }, repository)))
    }

    fn tell_stranger(&self, sought: &Sought<'_>, record: &Record) {
        let (registry, name) = (self.shown(), sought.name);
        let text = match sought.locked.digest {
            Some(digest) => format!(
                "{registry} has {} of these packages, the lock has {digest}: building {name}",
                record.digest
            ),
            None => format!(
                "{registry} has {name} as {}, but nobody vouches for it: {VOUCH}",
                record.digest
            ),
        };
        self.context.progress.note(&text);
    }

    fn claimed(
        &self,
        record: &LayerRecord,
        request: &DebianRequest<'_>,
        belief: Belief,
    ) -> OsLayer {
        let mut layer = record.layer.known();
        layer.comment.clone_from(&request.comment);
        OsLayer {
            layer: materialise::settled(self.store, &layer),
            accounts: record.accounts.clone(),
            belief: Some(belief),
            pulled: 0,
        }
    }

    /// The layer whose diff ID the lock has: the blob is here then and has it.
    async fn pulled(
        &self,
        key: &Digest,
        record: &LayerRecord,
        request: &DebianRequest<'_>,
    ) -> Result<Option<OsLayer>, Failure> {
        let mut layer = self.claimed(record, request, Belief::Lock).layer;
        let debs: u64 = request.debs.iter().map(|deb| deb.size).sum();
        let (most, longest) = (
            debs.saturating_mul(16).saturating_add(256 << 20),
            debs.saturating_mul(64).saturating_add(1 << 30),
        );
        if layer.size > most || layer.unpacked > longest {
            self.context.progress.warn(&format!(
                "the layer `{}` of {} is larger than its packages can be: not believed, building it",
                layer.comment,
                self.shown()
            ));
            return Ok(None);
        }
        if layer.content == LayerContent::Registry {
            let blob = Descriptor::new(&layer.media_type, layer.digest, layer.size);
            let cache = self.catalog.place().cache();
            let progress = &*self.context.progress;
            let pull = self.registry().blob(&cache, &blob, self.store, progress);
            if let Err(error) = pull.await {
                self.failed(&error.into());
                return Ok(None);
            }
        }
        let pulled = match layer.content {
            LayerContent::Registry => layer.size,
            LayerContent::Blob | LayerContent::Recipe => 0,
        };
        layer.content = LayerContent::Blob;
        match self.length_of(&layer) {
            Ok(length) => layer.unpacked = length,
            Err(reason) => {
                self.context.progress.warn(&format!(
                    "the layer `{}` of {} is not what the lock has ({reason}): building it",
                    layer.comment,
                    self.shown()
                ));
                return Ok(None);
            }
        }
        if let Ok(document) = serde_json::to_string(&layer) {
            let state = self.store.state()?;
            state.put_document(&verified_key(key, &layer.diff_id), &document)?;
        }
        Ok(Some(OsLayer {
            layer,
            accounts: None,
            belief: Some(Belief::Lock),
            pulled,
        }))
    }

    /// The length of the tar, if it has the layer's diff ID.
    fn length_of(&self, layer: &Layer) -> Result<u64, String> {
        let file = std::fs::File::open(self.store.blob_path(&layer.digest));
        let file = file.map_err(|error| error.to_string())?;
        // One byte more than it may have shows that it is longer.
        let limit = layer.unpacked.saturating_add(1);
        let found = blob::diff_id(file, limit).map_err(|error| error.to_string())?;
        match found {
            (diff_id, length) if diff_id == layer.diff_id => Ok(length),
            (diff_id, _) => Err(format!("its diff ID is {diff_id}")),
        }
    }

    /// A layer of the lock's diff ID that was pulled and verified by an earlier command, if its blob is still here.
    fn verified_before(
        &self,
        key: &Digest,
        request: &DebianRequest<'_>,
    ) -> Result<Option<OsLayer>, Failure> {
        let Some(diff_id) = request.expected else {
            return Ok(None);
        };
        let document = self.store.state()?.document(&verified_key(key, &diff_id))?;
        let layer = document.and_then(|document| serde_json::from_str::<Layer>(&document).ok());
        let layer = layer.filter(|layer| self.store.blob(&layer.digest).is_some());
        Ok(layer.map(|layer| OsLayer {
            layer: Layer {
                comment: request.comment.clone(),
                ..layer
            },
            accounts: None,
            belief: Some(Belief::Lock),
            pulled: 0,
        }))
    }

    /// What a registry said; what it should not have said is told.
    fn heard<T>(&self, answer: Result<Claims<T>, CatalogError>) -> Option<Vec<T>> {
        match answer {
            Ok(claims) => {
                claims.refused.iter().for_each(|error| self.failed(error));
                Some(claims.records)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// Tells why the registry is of no use: for this one thing if what it has is wrong, else for the whole command.
    fn failed(&self, error: &CatalogError) {
        let progress = &*self.context.progress;
        match error.kind() {
            Kind::Refused => progress.warn(&format!("{error}: not believed, building without it")),
            Kind::NotFound => progress.note(&format!("{error}: building without it")),
            _ if self.down.replace(true) => {}
            Kind::Unauthorised => progress.note(&format!("{error}: building without it")),
            _ => progress.note(&format!(
                "registry out of reach: {error}; building without it"
            )),
        }
    }
}

/// What would make a stranger's work believed.
const VOUCH: &str =
    "building it; a key named in `trust` can sign it, or --trust-registry believes the registry";

/// Under which key the state keeps the layer of this key whose blob was seen to have this diff ID.
fn verified_key(key: &Digest, diff_id: &Digest) -> Digest {
    identity::key(&serde_json::json!({ "layer": key, "diff_id": diff_id, "v": 1 }))
}
