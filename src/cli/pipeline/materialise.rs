//! Layers that are in a registry only → layers whose bytes are in the store.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::cli::context::Context;
use crate::digest::Digest;
use crate::layer::recipe::Recipe;
use crate::layer::{Layer, LayerContent};
use crate::oci::Descriptor;
use crate::registry::{Reference, Registry, RegistryError};
use crate::store::Store;

/// How many layers are pulled at a time.
const AT_A_TIME: usize = 4;

/// What is to be done with an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// It is named: nothing of its layers must be here.
    #[default]
    Name,
    /// Its layers are written or sent as they are.
    Bytes,
    /// Its layers are executed: one that is unpacked already need not be here.
    Trees,
}

/// The layer with what the store has of it by now.
pub fn settled(store: &Store, layer: &Layer) -> Layer {
    let mut layer = layer.clone();
    if layer.content != LayerContent::Registry {
        return layer;
    }
    let blob = std::fs::metadata(store.blob_path(&layer.digest));
    let recipe = || Recipe::load(store, &layer.key).ok().flatten();
    if blob.is_ok_and(|meta| meta.is_file() && meta.len() == layer.size) {
        layer.content = LayerContent::Blob;
    } else if recipe().is_some_and(|recipe| recipe.layer.digest == layer.digest) {
        layer.content = LayerContent::Recipe;
    }
    layer
}

/// Whether the bytes of `layer` must be brought for `need`.
pub fn lacks(store: &Store, layer: &Layer, need: Need) -> bool {
    match need {
        Need::Name => false,
        Need::Bytes => !can_be_read(store, layer),
        Need::Trees => !store.tree_path(&layer.diff_id).is_dir() && !can_be_read(store, layer),
    }
}

/// Whether the store has the bytes of a layer. A recipe may have outlived its wheels.
fn can_be_read(store: &Store, layer: &Layer) -> bool {
    match layer.content {
        LayerContent::Registry => false,
        LayerContent::Blob => true,
        LayerContent::Recipe => {
            let wheels = Recipe::wheels_in(&store.recipe_path(&layer.key));
            let here = |wheel: &Digest| store.artifact(wheel).is_some();
            wheels.is_ok_and(|wheels| wheels.iter().all(here))
        }
    }
}

/// `layers` with those that `need` demands pulled into the store from the first of `repositories` that has them; and the
/// bytes that were pulled. Digests are verified here, diff IDs where a tree is unpacked.
///
/// # Errors
/// Those of the registry.
pub async fn layers(
    context: &Context,
    store: &Store,
    registry: &Registry,
    repositories: &[Reference],
    layers: &[Layer],
    need: Need,
) -> Result<(Vec<Layer>, u64), RegistryError> {
    let pulls = layers.iter().map(|layer| async move {
        let mut layer = settled(store, layer);
        if !lacks(store, &layer, need) {
            return Ok((layer, 0));
        }
        pull(context, store, registry, repositories, &layer).await?;
        layer.content = LayerContent::Blob;
        let size = layer.size;
        Ok::<_, RegistryError>((layer, size))
    });
    let pulled: Vec<(Layer, u64)> = stream::iter(pulls)
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    let bytes = pulled.iter().map(|(_, bytes)| bytes).sum();
    Ok((pulled.into_iter().map(|(layer, _)| layer).collect(), bytes))
}

async fn pull(
    context: &Context,
    store: &Store,
    registry: &Registry,
    repositories: &[Reference],
    layer: &Layer,
) -> Result<(), RegistryError> {
    let blob = Descriptor::new(&layer.media_type, layer.digest, layer.size);
    let mut missing = None;
    for repository in repositories {
        let progress = &*context.progress;
        match registry.blob(repository, &blob, store, progress).await {
            Err(error @ RegistryError::NotFound { .. }) => missing = Some(error),
            other => return other,
        }
    }
    Err(missing.unwrap_or_else(|| RegistryError::NotFound {
        what: format!("blob {} of {}", layer.digest, layer.comment),
        message: "no repository of it is known".into(),
    }))
}
