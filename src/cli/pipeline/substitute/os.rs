//! OS layers by their layer key.

use super::{Substitutes, VOUCH};
use crate::catalog::{Accounts, Belief, LayerRecord, LayerStatement};
use crate::cli::failure::Failure;
use crate::cli::pipeline::materialise;
use crate::digest::Digest;
use crate::identity;
use crate::layer::debian::DebianRequest;
use crate::layer::{LAYER_MEDIA_TYPE, Layer, LayerContent, blob};
use crate::oci::Descriptor;
use crate::progress::Progress;

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

impl Substitutes<'_> {
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
            self.state
                .put_document(&verified_key(key, &layer.diff_id), &document)?;
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
        let document = self.state.document(&verified_key(key, &diff_id))?;
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
}

/// Under which key the state keeps the layer of this key whose blob was seen to have this diff ID.
fn verified_key(key: &Digest, diff_id: &Digest) -> Digest {
    identity::key(&serde_json::json!({ "layer": key, "diff_id": diff_id, "v": 1 }))
}
