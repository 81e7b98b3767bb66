//! Layers + configuration → OCI image, and the places an image can be written to.
//!
//! [`Image`] is immutable and complete: two byte strings and a list of layers whose bytes a [`LayerSource`] can
//! stream. `config` makes it; `layout` and `archive` write it, `load` hands it to a container engine;
//! `layout_reader` reads what others wrote. Nothing here knows the network or KDL.

mod archive;
mod config;
mod error;
mod layout;
mod layout_reader;
mod load;
mod packages;
pub mod sbom;
mod settings;

use std::io::{self, Read, Seek, Write};

use serde::{Deserialize, Serialize};

pub use archive::{DockerArchive, OciArchive, write_file};
pub use config::{DEFAULT_WORKDIR, Parts, assemble};
pub use error::ImageError;
pub use layout::export_layout;
pub use layout_reader::{LayoutError, LayoutReader, LayoutReference};
pub use load::{Engine, EngineKind, load};
pub use packages::{Packages, Placed};
pub use settings::Settings;

use crate::digest::{Digest, HashingWriter};
use crate::layer::recipe::Recipe;
use crate::layer::{Layer, LayerContent};
use crate::manifest::Platform;
use crate::progress::Progress;
use crate::resolve::base::BaseLayer;
use crate::store::Store;

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its platform.
    pub platform: Platform,
    /// The image key.
    pub key: Digest,
    /// The OCI image configuration, JSON.
    pub config: String,
    /// The OCI image manifest, JSON.
    pub manifest: String,
    /// Lowest first, those of a `from` base included.
    pub layers: Vec<Layer>,
    /// How many of `layers`, from the lowest on, belong to the base.
    pub base_layers: usize,
}

impl Image {
    /// The digest of the image manifest: the image's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The digest of the configuration, which Docker calls the image ID.
    pub fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }
}

/// A layer of a `from` image as a layer of ours.
pub fn base_layer(layer: &BaseLayer) -> Layer {
    Layer {
        key: layer.diff_id,
        media_type: layer.media_type.clone(),
        digest: layer.digest,
        size: layer.size,
        diff_id: layer.diff_id,
        unpacked: layer.unpacked,
        comment: "base".into(),
        content: LayerContent::Blob,
    }
}

/// Streams the compressed bytes of layers.
pub trait LayerSource: Send + Sync {
    /// A reader of the layer's blob. Who reads it verifies it ([`copy_layer`]).
    fn open(&self, layer: &Layer) -> io::Result<Box<dyn Read + Send>> {
        self.open_at(layer, 0)
    }

    /// A reader of the layer's blob from byte `from` on; it stands alone.
    fn open_at(&self, layer: &Layer, from: u64) -> io::Result<Box<dyn Read + Send>>;
}

/// Layers of the store: blobs as they are, recipes streamed.
#[derive(Clone, Copy, Debug)]
pub struct StoreSource<'a> {
    store: &'a Store,
}

impl<'a> StoreSource<'a> {
    /// Layers of `store`.
    pub fn new(store: &'a Store) -> Self {
        Self { store }
    }

    fn recipe(&self, layer: &Layer, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let recipe = Recipe::load(self.store, &layer.key).map_err(io::Error::other)?;
        let Some(recipe) = recipe else {
            let gone = format!(
                "the store has no recipe of {}; build the image again",
                layer.comment
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, gone));
        };
        let reader = recipe.into_reader_at(self.store, from);
        let reader = reader.map_err(io::Error::other)?;
        Ok(Box::new(reader))
    }
}

impl LayerSource for StoreSource<'_> {
    fn open_at(&self, layer: &Layer, from: u64) -> io::Result<Box<dyn Read + Send>> {
        match layer.content {
            LayerContent::Blob => {
                let mut file = std::fs::File::open(self.store.blob_path(&layer.digest))?;
                file.seek(io::SeekFrom::Start(from))?;
                Ok(Box::new(file))
            }
            LayerContent::Recipe => self.recipe(layer, from),
            LayerContent::Registry => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the bytes of {} are in the registry only", layer.comment),
            )),
        }
    }
}

/// Copies a layer's blob to `out` and verifies it on the way. On an error, what was written must not be used.
///
/// # Errors
/// Those of both ends; bytes that are not the layer's.
pub fn copy_layer(
    source: &dyn LayerSource,
    layer: &Layer,
    out: impl Write,
    advance: &dyn Fn(u64),
) -> Result<(), ImageError> {
    let fail = |source| ImageError::Layer {
        digest: layer.digest,
        comment: layer.comment.clone(),
        source,
    };
    let mut reader = source.open(layer).map_err(fail)?;
    let mut hashing = HashingWriter::new(out);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(fail(error)),
        };
        if hashing.size() + n as u64 > layer.size {
            return Err(fail(io::Error::other(
                "it is longer than its descriptor says",
            )));
        }
        hashing.write_all(&buffer[..n]).map_err(ImageError::Write)?;
        advance(n as u64);
    }
    let (_, found, size) = hashing.finish();
    if found != layer.digest || size != layer.size {
        return Err(ImageError::WrongDigest {
            what: layer.comment.clone(),
            expected: layer.digest,
            found,
        });
    }
    Ok(())
}

/// Reports bytes of one piece of work until dropped.
struct Meter<'a> {
    progress: &'a dyn Progress,
    id: u64,
}

impl<'a> Meter<'a> {
    fn new(progress: &'a dyn Progress, name: &str, total: u64) -> Self {
        let id = progress.begin(crate::progress::Stage::Export, name, Some(total));
        Self { progress, id }
    }

    fn advance(&self, bytes: u64) {
        self.progress.advance(self.id, bytes);
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.progress.end(self.id);
    }
}
