//! Layers that are a function of their key alone: wheels and downloads. Only who is trusted is believed, since no lock
//! says what they are.

use futures_util::stream::{self, StreamExt};

use super::{Substitutes, TakenLayer};
use crate::catalog::{Belief, LayerRecord, LayerStatement};
use crate::cli::failure::Failure;
use crate::cli::pipeline::{materialise, told};
use crate::digest::Digest;
use crate::layer::{LAYER_MEDIA_TYPE, Layer, LayerContents, WheelLayerPlan};
use crate::progress::Progress;

/// Layers that are asked for at a time.
const AT_A_TIME: usize = 16;

/// A layer that is taken instead of made.
#[derive(Clone, Debug)]
pub struct PureLayer {
    /// The layer.
    pub layer: Layer,
    /// Why it is believed.
    pub belief: Belief,
}

impl PureLayer {
    /// What is kept of it with the image.
    pub fn taken(&self) -> TakenLayer {
        TakenLayer {
            diff_id: self.layer.diff_id,
            belief: self.belief.clone(),
        }
    }
}

impl Substitutes<'_> {
    /// The layer of this key, if somebody who is trusted has made it. Nothing of it is fetched.
    pub async fn pure_layer(
        &self,
        key: &Digest,
        comment: &str,
    ) -> Result<Option<PureLayer>, Failure> {
        let found = self.vouched(key).await?;
        Ok(found.map(|(record, belief)| self.pure(&record, belief, comment)))
    }

    /// Those of `plans` whose layers somebody who is trusted has made, with what their wheels bring where they hold
    /// wheels. Nothing of the layers is fetched.
    pub async fn wheel_layers(
        &self,
        plans: Vec<WheelLayerPlan>,
    ) -> Result<Vec<(Digest, PureLayer, Option<LayerContents>)>, Failure> {
        let asked = plans.iter().map(|plan| async move {
            let Some((record, belief)) = self.vouched(&plan.key).await? else {
                return Ok(None);
            };
            let contents = match plan.is_of_wheels() {
                false => None,
                true => match self.contents(plan, &record).await? {
                    Some(contents) => Some(contents),
                    None => return Ok(None),
                },
            };
            let layer = self.pure(&record, belief, &plan.comment);
            Ok::<_, Failure>(Some((plan.key, layer, contents)))
        });
        let asked = stream::iter(asked).buffered(AT_A_TIME);
        let found: Vec<_> = asked.collect().await;
        found.into_iter().filter_map(Result::transpose).collect()
    }

    /// What is said of a layer by somebody who is trusted: now, or to an earlier command.
    async fn vouched(&self, key: &Digest) -> Result<Option<(LayerRecord, Belief)>, Failure> {
        let believed = |record: LayerRecord| {
            if record.layer.media_type != LAYER_MEDIA_TYPE {
                return None;
            }
            let statement = LayerStatement::of(*key, &record);
            let belief = self.trust.belief(&statement, &record.signatures)?;
            Some((record, belief))
        };
        let cache = self.catalog.place().cache();
        if let Some(known) = told::record(&self.state, &cache, key)?.and_then(believed) {
            return Ok(Some(known));
        }
        if self.down.get() || !self.trust.trusts_somebody() {
            return Ok(None);
        }
        let answer = self.catalog.trusted_layers(key, &self.trust).await;
        let records = self.heard(answer).unwrap_or_default();
        let found = records.into_iter().find_map(believed);
        if let Some((record, _)) = &found {
            told::keep(&self.state, &cache, key, record)?;
        }
        Ok(found)
    }

    /// The contents of a layer of wheels, as its record names them.
    async fn contents(
        &self,
        plan: &WheelLayerPlan,
        record: &LayerRecord,
    ) -> Result<Option<LayerContents>, Failure> {
        let Some(named) = &record.paths else {
            return Ok(None);
        };
        let bytes = match told::paths(self.store, record)? {
            Some(bytes) => bytes,
            None if self.down.get() || named.size > LayerRecord::PATHS_LIMIT => return Ok(None),
            None => {
                let (registry, cache) = (self.catalog.registry(), self.catalog.place().cache());
                match registry.small_blob(&cache, &named.digest, named.size).await {
                    Ok(bytes) => {
                        self.store.put_blob(&bytes)?;
                        bytes
                    }
                    Err(error) => {
                        self.failed(&error.into());
                        return Ok(None);
                    }
                }
            }
        };
        match LayerContents::parse(&bytes, &plan.wheels) {
            Ok(contents) => Ok(Some(contents)),
            Err(reason) => {
                self.context.progress.warn(&format!(
                    "what {} tells of the layer `{}` is not used: {reason}; building it",
                    self.shown(),
                    plan.comment
                ));
                Ok(None)
            }
        }
    }

    fn pure(&self, record: &LayerRecord, belief: Belief, comment: &str) -> PureLayer {
        let mut layer = record.layer.known();
        comment.clone_into(&mut layer.comment);
        let layer = materialise::settled(self.store, &layer);
        PureLayer { layer, belief }
    }
}
