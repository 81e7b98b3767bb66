//! What somebody else has built, in place of building it: whole images by their set key, layers by their layer key.
//!
//! Nothing here fails a build. A registry that cannot be asked is told once and asked no more; what is malformed is told
//! and not taken; what nobody vouches for is told with who could.

mod claim;
mod image;
mod layers;
mod os;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

pub use claim::{Claim, Taken, TakenLayer};
pub use image::Sought;
pub use layers::PureLayer;
pub use os::OsLayer;

use super::places;
use crate::catalog::{Catalog, CatalogError, Claims, Trust};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::substitution::SubstitutionFlags;
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::http::Http;
use crate::image::Image;
use crate::layer::Layer;
use crate::manifest::Manifest;
use crate::oci::Descriptor;
use crate::progress::Progress;
use crate::registry::{Reference, Registry};
use crate::store::{State, Store};

/// Set key and the lock's digest → the image.
type Ahead = BTreeMap<(Digest, Option<Digest>), Option<(Image, Claim)>>;

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
    state: State,
    down: Cell<bool>,
    /// What was found of images that were asked for ahead.
    ahead: RefCell<Ahead>,
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
        let Some(catalog) = catalog else {
            return Ok(None);
        };
        Ok(Some(Self {
            context,
            store,
            state: store.state()?,
            registry: catalog.registry().clone(),
            catalog: Catalog::new(catalog.registry().impatient(), catalog.place().clone()),
            trust: places::trust(manifest, flags.trust_registry),
            down: Cell::new(false),
            ahead: RefCell::default(),
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

    /// Why the registry cannot be asked now, if so: work that waits longer for an answer is not begun then.
    pub async fn silence(&self, repository: &Reference, layer: &Layer) -> Option<String> {
        let blob = Descriptor::new(&layer.media_type, layer.digest, layer.size);
        let answer = self.catalog.registry().has_blob(repository, &blob);
        match answer.await {
            Err(error) if error.kind() == Kind::Unavailable => Some(error.to_string()),
            _ => None,
        }
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
            Kind::Refused => {
                let hint = error.hint().unwrap_or_default();
                progress.warn(&format!(
                    "{error}: not believed, building without it; {hint}"
                ));
            }
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
