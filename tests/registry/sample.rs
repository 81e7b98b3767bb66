//! Images made of noise, to be published without a manifest.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use imagewright::catalog::publish::{
    Edition, Materialise, Publication, Publisher, Pushed, Uploads,
};
use imagewright::catalog::{BaseRecord, Catalog, CatalogError, Keys, Place, Record, RecordLayer};
use imagewright::digest::Digest;
use imagewright::image::{Image, StoreSource};
use imagewright::layer::{LAYER_MEDIA_TYPE, Layer, LayerContent};
use imagewright::manifest::{Destination, Layout, Platform};
use imagewright::oci::{Descriptor, ReadError};
use imagewright::progress::Silent;
use imagewright::registry::Registry;
use imagewright::store::Store;
use serde_json::json;

use crate::plain;
use crate::wares::Random;

const PLATFORM: Platform = Platform::LinuxAmd64;

/// An image in a store of its own.
pub struct Sample {
    pub image: Image,
    pub record: Record,
    store: Store,
    _folder: tempfile::TempDir,
}

/// All layers are in the store.
struct Nothing;

impl Materialise for Nothing {
    fn bring<'a>(&'a self, layer: &'a Layer) -> BoxFuture<'a, Result<(), ReadError>> {
        async { unreachable!("{} is in the store", layer.comment) }.boxed()
    }
}

impl Sample {
    /// With a base layer and layers of up to 2 MB, some of which the samples of other seeds have too.
    pub fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let most = if seed.is_multiple_of(10) {
            2_000_000
        } else {
            300_000
        };
        let own = 40_000 + seed * 61_007 % most;
        let layers = vec![
            layer(&store, "base", 300_000, 1),
            layer(&store, "own", own, seed + 1_000),
            layer(&store, "shared", 120_000, seed / 8 + 2_000),
            layer(&store, "small", 700, seed + 3_000_000),
        ];
        let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let descriptors: Vec<Descriptor> = layers
            .iter()
            .map(|layer| Descriptor::new(&layer.media_type, layer.digest, layer.size))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "layers": descriptors,
            "config": Descriptor::of("application/vnd.oci.image.config.v1+json", &config),
        });
        let image = Image {
            platform: PLATFORM,
            key: Digest::of(format!("image {seed}")),
            config,
            manifest: manifest.to_string(),
            layers,
            base_layers: 1,
        };
        Self {
            record: record(&image, seed),
            image,
            store,
            _folder: folder,
        }
    }

    /// Publishes it.
    pub async fn publish(&self, catalog: &Catalog) -> Result<Pushed, CatalogError> {
        self.publish_by(&|| 1, catalog).await
    }

    /// The same by another clock.
    pub async fn publish_by(
        &self,
        clock: &(dyn Fn() -> i64 + Sync),
        catalog: &Catalog,
    ) -> Result<Pushed, CatalogError> {
        let uploads = Uploads::default();
        let publisher = Publisher {
            store: &self.store,
            source: &StoreSource::new(&self.store),
            materialise: &Nothing,
            uploads: &uploads,
            progress: &Silent,
            clock,
            dry_run: false,
        };
        let edition = Edition {
            image: &self.image,
            record: self.record.clone(),
            lock: "one line\n".into(),
            sbom: br#"{"spdxVersion": "SPDX-2.3"}"#.to_vec(),
            extras: Vec::new(),
        };
        let publication = Publication {
            name: &self.record.name,
            editions: &[edition],
            platforms: &[PLATFORM],
            tags: &["stable".into()],
            protected: false,
            signer: None,
        };
        publisher.publish(catalog, &publication).await
    }
}

/// The catalog of a repository prefix, `HOST/PATH`.
pub fn catalog(registry: Registry, prefix: &str) -> Catalog {
    let destination = Destination {
        registry: prefix.into(),
        layout: Layout::Split,
        plain_http: false,
    };
    Catalog::new(registry, Place::new(&destination).unwrap())
}

fn layer(store: &Store, comment: &str, size: u64, seed: u64) -> Layer {
    let mut random = Random(seed);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    let digest = store.put_blob(&bytes).unwrap();
    Layer {
        key: Digest::of(format!("key of {digest}")),
        media_type: LAYER_MEDIA_TYPE.into(),
        digest,
        size: bytes.len() as u64,
        diff_id: Digest::of(format!("tar of {digest}")),
        unpacked: 0,
        comment: comment.into(),
        content: LayerContent::Blob,
    }
}

fn record(image: &Image, seed: u64) -> Record {
    let own = |index: usize, layer: &Layer| (index >= image.base_layers).then_some(layer.key);
    let layers = image.layers.iter().enumerate();
    let plain = plain::record(&format!("sample {seed}"));
    Record {
        name: "sample".into(),
        platform: image.platform,
        digest: image.digest(),
        config: image.config_digest(),
        keys: Keys {
            image: image.key,
            ..plain.keys
        },
        base: BaseRecord {
            name: "small".into(),
            root: "oci:base".into(),
            digest: Some(Digest::of("base")),
            request: None,
        },
        layers: layers
            .map(|(index, layer)| RecordLayer::of(layer, own(index, layer)))
            .collect(),
        base_layers: image.base_layers,
        ..plain
    }
}
