//! Whole images by their set key.

use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Claim, Substitutes, Taken, VOUCH};
use crate::catalog::{Belief, CatalogError, Record, Statement, Wanted};
use crate::cli::failure::Failure;
use crate::cli::pipeline::materialise;
use crate::digest::Digest;
use crate::identity::ConfigDocument;
use crate::image::Image;
use crate::lock::{LockedBase, LockedImage};
use crate::manifest::Platform;
use crate::oci::DOCUMENT_LIMIT;
use crate::registry::{Reference, RegistryError};

/// Images that are asked for at a time.
const AT_A_TIME: usize = 8;

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

    fn from(&self) -> Option<Digest> {
        match &self.locked.base {
            LockedBase::From { digest, .. } => Some(*digest),
            LockedBase::Debian { .. } => None,
        }
    }
}

impl Substitutes<'_> {
    /// Asks for all these images at once; [`Substitutes::image`] knows them then.
    pub async fn look_ahead(&self, all: &[Sought<'_>]) -> Result<(), Failure> {
        let asked = all.iter().map(|sought| async move {
            let found = self.ask(sought).await?;
            Ok::<_, Failure>(((sought.set, sought.locked.digest), found))
        });
        let asked = stream::iter(asked).buffered(AT_A_TIME);
        let found: Vec<_> = asked.try_collect().await?;
        self.ahead.borrow_mut().extend(found);
        Ok(())
    }

    /// The image of a set, if somebody who is believed has built it. Of its layers nothing is fetched.
    pub async fn image(&self, sought: &Sought<'_>) -> Result<Option<(Image, Claim)>, Failure> {
        let key = (sought.set, sought.locked.digest);
        let known = self.ahead.borrow().get(&key).cloned();
        match known {
            // The lock may have learned of OS layers since.
            Some(known) => Ok(known.filter(|(image, _)| sought.has_os_layers(image))),
            None => self.ask(sought).await,
        }
    }

    async fn ask(&self, sought: &Sought<'_>) -> Result<Option<(Image, Claim)>, Failure> {
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
                    repository: repository.to_string(),
                    taken: Taken::Image(belief),
                };
                return Ok(Some((image, claim)));
            }
        }
        if let Some(record) = strangers.first() {
            self.tell_stranger(sought, record);
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
}
