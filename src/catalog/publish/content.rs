//! The bytes of a layer as a blob to send.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::image::LayerSource;
use crate::layer::Layer;
use crate::registry::BlobContent;

/// A layer's blob; knows whether somebody asked for its bytes.
pub(super) struct LayerBlob<'a> {
    source: &'a dyn LayerSource,
    layer: &'a Layer,
    opened: AtomicBool,
}

impl<'a> LayerBlob<'a> {
    pub(super) fn new(source: &'a dyn LayerSource, layer: &'a Layer) -> Self {
        Self {
            source,
            layer,
            opened: AtomicBool::new(false),
        }
    }

    pub(super) fn was_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }
}

impl BlobContent for LayerBlob<'_> {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        self.opened.store(true, Ordering::Relaxed);
        self.source.open_at(self.layer, from)
    }
}
