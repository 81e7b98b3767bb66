//! Images into a registry, with the records by which they are found again.
//!
//! The order is what makes an interrupted push harmless: layers, the artifacts that pin them under their keys, image
//! configuration and manifest (by digest), SBOM, records, and the names last. Whoever sees a name sees everything below
//! it. Nothing is locked in the registry: blobs and manifests are content-addressed, a tag with a key in its name is
//! written only where it is absent, and a record has a tag of its own.

mod content;
mod describe;
mod layers;
mod names;
mod records;
mod removal;
mod report;
mod sender;
mod sign;
mod sources;
mod uploads;

use futures_util::future::BoxFuture;

pub use describe::{Facts, describe};
pub use report::{Count, Pushed, Traffic};
pub use sign::{Evidence, Signed, ToSign};
pub use sources::{Kept, SourceFile};
pub use uploads::Uploads;

use super::{Accounts, Catalog, CatalogError, Record, SecretKey};
use crate::digest::Digest;
use crate::image::{Image, LayerSource};
use crate::layer::Layer;
use crate::manifest::Platform;
use crate::oci::ReadError;
use crate::progress::Progress;
use crate::registry::Reference;
use crate::store::Store;
use names::Top;
use sender::Sender;

/// What is to be published: one declared image.
#[derive(Debug)]
pub struct Publication<'a> {
    /// Declared name.
    pub name: &'a str,
    /// One for each platform that is pushed now, sorted by platform; not empty.
    pub editions: &'a [Edition<'a>],
    /// The platforms that the manifest declares. With several, the names stand for an index.
    pub platforms: &'a [Platform],
    /// Declared tags beside the name's own, their words replaced.
    pub tags: &'a [String],
    /// Whether a name or tag that stands for another image is left alone.
    pub protected: bool,
    /// Who signs.
    pub signer: Option<&'a SecretKey>,
}

/// An image for one platform and what is told of it.
#[derive(Debug)]
pub struct Edition<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its record as far as it does not depend on where it is pushed to ([`describe`]).
    pub record: Record,
    /// The lock of this image alone, as text.
    pub lock: String,
    /// The SBOM ([`crate::image::sbom::document`]).
    pub sbom: Vec<u8>,
    /// What else is known of its layers, index by index; may be shorter than they.
    pub extras: Vec<Extras>,
}

/// What is known of a layer beside its descriptor.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// For OS layers: the accounts that it leaves.
    pub accounts: Option<Accounts>,
    /// For layers of wheels: the document of the paths that they bring.
    pub paths: Option<Vec<u8>>,
    /// Repositories that are known to have the blob.
    pub elsewhere: Vec<Reference>,
}

/// Brings layers that only a registry has into the store's `blobs`.
pub trait Materialise: Send + Sync {
    /// Brings this one, verified.
    fn bring<'a>(&'a self, layer: &'a Layer) -> BoxFuture<'a, Result<(), ReadError>>;
}

/// What publishing works with.
pub struct Publisher<'a> {
    /// Whose locks keep two processes from sending the same blob.
    pub store: &'a Store,
    /// The bytes of layers.
    pub source: &'a dyn LayerSource,
    /// Brings layers that the store does not have.
    pub materialise: &'a dyn Materialise,
    /// Shared by everything that this process publishes.
    pub uploads: &'a Uploads,
    /// Told of every layer that is sent.
    pub progress: &'a dyn Progress,
    /// The pusher's clock, in milliseconds since 1970.
    pub clock: &'a (dyn Fn() -> i64 + Sync),
    /// Asks the same questions, and writes nothing.
    pub dry_run: bool,
}

impl std::fmt::Debug for Publisher<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("store", &self.store)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

impl Publisher<'_> {
    /// Publishes one image to one destination. Of what is there already everything is asked for, so that publishing again
    /// mends what the registry has lost.
    ///
    /// # Errors
    /// When a protected name stands for another image (before anything is sent); those of the registry; when the bytes
    /// of a layer cannot be read.
    pub async fn publish(
        &self,
        catalog: &Catalog,
        publication: &Publication<'_>,
    ) -> Result<Pushed, CatalogError> {
        let sender = Sender::new(self, catalog);
        let top = Top::of(catalog, publication).await?;
        let mut names = top.names(catalog, publication).await?;
        let repository = catalog.place().image(publication.name);
        let known = sender.known(publication, &repository).await?;
        let whole = names.stand_for(&top) && known.iter().all(|known| *known);
        let mut supersedes = names.supersedes(&top);
        let mut records = Vec::new();
        if whole && sender.is_recorded(publication).await? {
            sender.existing_layers(publication);
        } else {
            sender.images(publication, &repository, &known).await?;
            records = sender.records(publication, &top, &names).await?;
        }
        if let Some(signer) = publication.signer {
            for (index, edition) in publication.editions.iter().enumerate() {
                let written = records.get(index).map(|(record, _)| record);
                sender.sign(edition, signer, written).await?;
            }
        }
        if !records.is_empty() && !self.dry_run {
            let now = top.names(catalog, publication).await?;
            let other = now.supersedes(&top);
            if other.is_some() && other != supersedes {
                // Somebody else has pushed meanwhile; the last name has the last record.
                records = sender.records(publication, &top, &now).await?;
                supersedes = other;
            }
            names = now;
        }
        sender.put_names(&top, &names).await?;
        Ok(Pushed {
            repository: repository.to_string(),
            digest: top.digest,
            layers: sender.layer_traffic(),
            documents: sender.document_traffic(),
            records: records.into_iter().map(|(_, digest)| digest).collect(),
            supersedes,
            tags: names.tags(),
            kept: top.kept,
        })
    }
}

/// The key of a layer's own tag; those of a `from` base have none.
fn own_key(image: &Image, index: usize) -> Option<Digest> {
    (index >= image.base_layers).then(|| image.layers[index].key)
}
