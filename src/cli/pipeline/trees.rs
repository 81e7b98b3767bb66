//! Unpacked layers for the embedded runtime.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::layer::{Layer, tree};
use crate::store::Store;

/// The trees of `layers`, lowest first; those that are missing are unpacked in parallel.
pub fn unpack_all(
    context: &Context,
    store: &Store,
    layers: &[Layer],
) -> Result<Vec<PathBuf>, Failure> {
    let layers = uppermost(layers);
    Ok(tree::unpack_all(
        store,
        &layers,
        context.jobs(),
        &*context.progress,
    )?)
}

/// A layer that stands twice (an image built on one of ours may repeat one) is mounted once, where it stands last: the
/// kernel refuses a folder that is below itself, and the upper one hides the lower one anyway.
fn uppermost(layers: &[Layer]) -> Vec<Layer> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<Layer> = layers
        .iter()
        .rev()
        .filter(|layer| seen.insert(layer.diff_id))
        .cloned()
        .collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::layer::LayerContent;

    fn layer(name: &str) -> Layer {
        Layer {
            key: Digest::of(name),
            media_type: crate::layer::LAYER_MEDIA_TYPE.into(),
            digest: Digest::of(name),
            size: 1,
            diff_id: Digest::of(name),
            unpacked: 1,
            comment: name.into(),
            content: LayerContent::Blob,
        }
    }

    #[test]
    fn a_layer_that_stands_twice_counts_where_it_stands_last() {
        let layers = [
            "base", "skeleton", "numpy", "user", "skeleton", "numpy", "pandas",
        ]
        .map(layer);
        let kept = uppermost(&layers);
        let names: Vec<&str> = kept.iter().map(|layer| layer.comment.as_str()).collect();
        assert_eq!(names, ["base", "user", "skeleton", "numpy", "pandas"]);
    }
}
