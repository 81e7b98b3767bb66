//! What of an image was believed instead of computed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Sought;
use crate::catalog::{Belief, Trust};
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::Layer;
use crate::registry::Reference;

/// What of an image was believed instead of computed; kept with the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The repository with its host that has the bytes.
    pub repository: String,
    /// What was taken.
    pub taken: Taken,
}

/// What was taken from somebody who is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// The image as a whole.
    Image(Belief),
    /// Some of its layers.
    Layers(Vec<TakenLayer>),
}

/// A layer that was taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TakenLayer {
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// Why it is believed.
    pub belief: Belief,
}

impl Claim {
    /// The repository.
    pub fn repository(&self) -> Option<Reference> {
        self.repository.parse().ok()
    }

    /// Whether the image was taken as a whole.
    pub fn is_whole(&self) -> bool {
        matches!(self.taken, Taken::Image(_))
    }

    /// Whether `layer` of the image was taken.
    pub fn covers(&self, layer: &Layer) -> bool {
        match &self.taken {
            Taken::Image(_) => true,
            Taken::Layers(taken) => taken.iter().any(|taken| taken.diff_id == layer.diff_id),
        }
    }

    /// Why it is believed, every reason once.
    pub fn beliefs(&self) -> BTreeSet<&Belief> {
        match &self.taken {
            Taken::Image(belief) => BTreeSet::from([belief]),
            Taken::Layers(layers) => layers.iter().map(|layer| &layer.belief).collect(),
        }
    }

    /// The diff IDs of layers, if some were taken.
    pub fn layers(&self) -> Vec<Digest> {
        match &self.taken {
            Taken::Image(_) => Vec::new(),
            Taken::Layers(layers) => layers.iter().map(|layer| layer.diff_id).collect(),
        }
    }

    /// Whether what was believed of `image` is believed still.
    pub fn holds(&self, trust: &Trust, sought: &Sought<'_>, image: &Image) -> bool {
        let locked = sought.locked.digest == Some(image.digest());
        match &self.taken {
            Taken::Image(belief) => trust.still(belief, locked),
            Taken::Layers(layers) => {
                let pinned = sought.diff_ids();
                layers.iter().all(|layer| {
                    let locked = locked || pinned.contains(&layer.diff_id);
                    trust.still(&layer.belief, locked)
                })
            }
        }
    }
}
