//! Images to destinations: each gets what it can, failures are collected.

use super::{Failures, Prepared, PushedDocument, failed};
use crate::catalog::publish::{Kept, Publication, Publisher};
use crate::catalog::{Catalog, SecretKey};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::pipeline::publishing::Sources;
use crate::diagnostic::Kind;

/// A push to all its destinations.
pub(super) struct Delivery<'a> {
    pub(super) context: &'a Context,
    pub(super) publisher: &'a Publisher<'a>,
    pub(super) sources: &'a Sources<'a>,
    /// Whether wheels and debs are kept too.
    pub(super) with_sources: bool,
    pub(super) signer: Option<&'a SecretKey>,
    /// What was pushed.
    pub(super) images: Vec<PushedDocument>,
    /// What was not, and why.
    pub(super) failures: Failures,
}

impl Delivery<'_> {
    /// Pushes everything to one destination, as far as it can be reached.
    pub(super) fn to(&mut self, catalog: &Catalog, prepared: &[Prepared<'_>]) {
        for image in prepared {
            let Err(failure) = self.one(catalog, image) else {
                continue;
            };
            let unreachable = failure.kind() == Kind::Unavailable;
            let name = &image.request.name.value;
            self.failures.push(failed(catalog, name, failure));
            if unreachable {
                break;
            }
        }
    }

    /// Pushes one image. It counts as pushed also when its sources then cannot be kept.
    fn one(&mut self, catalog: &Catalog, image: &Prepared<'_>) -> Result<(), Failure> {
        let request = image.request;
        let publication = Publication {
            name: &request.name.value,
            editions: &image.editions,
            platforms: &request.platforms,
            tags: &image.tags,
            protected: request.protected,
            signer: self.signer,
        };
        let publish = self.publisher.publish(catalog, &publication);
        let mut pushed = self.context.wait(publish)?;
        let kept = match self.with_sources {
            true => self.context.wait(self.keep(catalog, image)).map(Some),
            false => Ok(None),
        };
        let (kept, failed) = match kept {
            Ok(kept) => (kept, Ok(())),
            Err(failure) => (None, Err(failure)),
        };
        if let Some(kept) = kept {
            pushed.documents += kept.documents;
        }
        let editions = image.editions.iter();
        self.images.push(PushedDocument {
            name: request.name.value.clone(),
            platforms: editions.map(|edition| edition.image.platform).collect(),
            reference: format!("{}@{}", pushed.repository, pushed.digest),
            signed_by: self.signer.map(|signer| signer.public().to_string()),
            sources: kept.map(|kept| kept.files),
            pushed,
        });
        failed
    }

    /// Keeps the wheels and debs of an image.
    async fn keep(&self, catalog: &Catalog, image: &Prepared<'_>) -> Result<Kept, Failure> {
        let Sources {
            artifacts, lock, ..
        } = self.sources;
        let mut all = Kept::default();
        for edition in &image.editions {
            let (key, platform) = (&edition.image.key, edition.image.platform);
            if self.publisher.keeps_sources(catalog, key).await? {
                continue;
            }
            let locked = self.sources.locked(&image.request.name.value, platform)?;
            let files = artifacts.sources(image.request, lock, locked).await?;
            all += self.publisher.keep_sources(catalog, key, &files).await?;
        }
        Ok(all)
    }
}
