//! Record → image: everything that a record and the documents that it names say of an image, held against each other.

use serde::Deserialize;

use super::{CatalogError, Record, RecordLayer};
use crate::digest::Digest;
use crate::identity::{self, ConfigDocument, ContentDocument, EMITTER_VERSION, ImageDocument};
use crate::image::Image;
use crate::layer::{Layer, LayerContent};
use crate::manifest::Platform;
use crate::oci::Descriptor;

/// No layer is larger, in bytes: 16 TiB.
const LARGEST: u64 = 1 << 44;
/// No tar is longer, in bytes: 1 PiB.
const LONGEST: u64 = 1 << 50;
/// Most bytes that deflate makes of one (RFC 1951 allows 1032), and what may come on top.
const DEFLATED: (u64, u64) = (1040, 64 << 10);
/// No image of ours has more layers: Docker's graph driver takes no more.
const MOST_LAYERS: usize = 125;

/// What the image must be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its platform.
    pub platform: Platform,
    /// What the manifest decides of its configuration.
    pub config: &'a ConfigDocument,
    /// Digest of its `from` image's manifest, if it has one.
    pub from: Option<Digest>,
}

/// The part of an image manifest that is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// The part of an image configuration that is read.
#[derive(Deserialize)]
struct ImageConfig {
    os: String,
    architecture: String,
    rootfs: RootFs,
    #[serde(default)]
    history: Vec<History>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct History {
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

impl Record {
    /// The image of this record, from its manifest and configuration as they were fetched. All its layers are in the
    /// registry. Whether the record may be believed is another question ([`super::Trust`]).
    ///
    /// # Errors
    /// When anything contradicts anything: digests, sizes, diff IDs, platform, keys.
    pub fn image(
        &self,
        wanted: Wanted<'_>,
        manifest: Vec<u8>,
        config: Vec<u8>,
    ) -> Result<Image, CatalogError> {
        let fail = |reason: String| CatalogError::Malformed {
            what: format!("the record of {} {}", self.repository, self.digest),
            reason,
        };
        check_digest("the image manifest", &manifest, self.digest)?;
        check_digest("the image configuration", &config, self.config)?;
        let parsed: ImageManifest =
            serde_json::from_slice(&manifest).map_err(|error| fail(error.to_string()))?;
        let settings: ImageConfig =
            serde_json::from_slice(&config).map_err(|error| fail(error.to_string()))?;
        self.check_keys(wanted)
            .map_err(|reason| fail(reason.into()))?;
        self.check_parts(wanted.platform, &parsed, &settings)
            .map_err(|reason| fail(reason.into()))?;
        let comments = comments(&settings, self.layers.len());
        let layers = self.layers.iter().zip(comments).enumerate();
        let layers = layers.map(|(index, (layer, comment))| {
            let mut layer = layer.known();
            if index < self.base_layers {
                (layer.key, layer.comment) = (layer.diff_id, "base".into());
            } else if let Some(comment) = comment {
                layer.comment = comment;
            }
            layer
        });
        let layers = layers.collect();
        let text = |bytes| String::from_utf8(bytes).map_err(|error| fail(error.to_string()));
        Ok(Image {
            platform: self.platform,
            key: self.keys.image,
            config: text(config)?,
            manifest: text(manifest)?,
            layers,
            base_layers: self.base_layers,
        })
    }

    /// The chain of identity follows from the layers' keys and what the manifest configures.
    fn check_keys(&self, wanted: Wanted<'_>) -> Result<(), &'static str> {
        if self.platform != wanted.platform {
            return Err("it is for another platform");
        }
        if self.emitter != EMITTER_VERSION {
            return Err("its layers were emitted by other rules");
        }
        if self.base_layers > self.layers.len() {
            return Err("it has fewer layers than its base");
        }
        let keys: Option<Vec<Digest>> = self.layers[self.base_layers..]
            .iter()
            .map(|layer| layer.key)
            .collect();
        let keys = keys.ok_or("a layer has no key")?;
        let content = ContentDocument::new(wanted.platform, wanted.from, keys);
        if identity::key(&content) != self.keys.content {
            return Err("its content key does not follow from its layers");
        }
        let image = ImageDocument::new(&content, wanted.config.clone());
        match identity::key(&image) == self.keys.image {
            true => Ok(()),
            false => Err("its image key does not follow from what the manifest configures"),
        }
    }

    /// The documents that it names say the same of its layers.
    fn check_parts(
        &self,
        platform: Platform,
        manifest: &ImageManifest,
        config: &ImageConfig,
    ) -> Result<(), &'static str> {
        if manifest.config.digest != self.config {
            return Err("the image manifest names another configuration");
        }
        if config.os != "linux" || config.architecture != platform.architecture() {
            return Err("the image configuration is for another platform");
        }
        if self.layers.len() > MOST_LAYERS {
            return Err("it has more layers than an image may have");
        }
        if manifest.layers.len() != self.layers.len()
            || config.rootfs.diff_ids.len() != self.layers.len()
        {
            return Err("it has another number of layers than the image");
        }
        let parts = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        for (layer, (blob, diff_id)) in self.layers.iter().zip(parts) {
            let same = blob.digest == layer.digest
                && blob.size == layer.size
                && blob.media_type == layer.media_type
                && *diff_id == layer.diff_id;
            if !same {
                return Err("it describes a layer otherwise than the image does");
            }
            layer.check_size()?;
        }
        Ok(())
    }
}

impl RecordLayer {
    /// The layer; its bytes are in the registry. One of a base is called by its diff ID.
    pub fn known(&self) -> Layer {
        Layer {
            key: self.key.unwrap_or(self.diff_id),
            media_type: self.media_type.clone(),
            digest: self.digest,
            size: self.size,
            diff_id: self.diff_id,
            unpacked: self.unpacked,
            comment: self.comment.clone(),
            content: LayerContent::Registry,
        }
    }

    /// Sizes that no layer can have are refused before anything is counted with them.
    pub(super) fn check_size(&self) -> Result<(), &'static str> {
        let longest = match self.media_type.contains("gzip") {
            true => self
                .size
                .saturating_mul(DEFLATED.0)
                .saturating_add(DEFLATED.1),
            false => LONGEST,
        };
        match self.size <= LARGEST && self.unpacked <= longest.min(LONGEST) {
            true => Ok(()),
            false => Err("a layer has a size that cannot be"),
        }
    }
}

fn check_digest(what: &str, bytes: &[u8], expected: Digest) -> Result<(), CatalogError> {
    let found = Digest::of(bytes);
    match found == expected {
        true => Ok(()),
        false => Err(CatalogError::WrongDigest {
            what: what.into(),
            expected,
            found,
        }),
    }
}

/// What the image's history says of each layer, if it has an entry for each; nothing that could write to a terminal.
fn comments(config: &ImageConfig, layers: usize) -> Vec<Option<String>> {
    let entries = config.history.iter().filter(|entry| !entry.empty_layer);
    let plain = |text: &String| text.chars().filter(|c| !c.is_control()).collect();
    let comments: Vec<Option<String>> = entries
        .map(|entry| entry.created_by.as_ref().map(plain))
        .collect();
    match comments.len() == layers {
        true => comments,
        false => vec![None; layers],
    }
}
