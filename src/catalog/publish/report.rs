//! What a push moved.

use schemars::JsonSchema;
use serde::Serialize;

use crate::digest::Digest;
use crate::manifest::Platform;

/// What a push did at one destination, or, in a dry run, would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Pushed {
    /// Host and repository of the image.
    pub repository: String,
    /// What the names stand for now: an image manifest, or an index if several platforms are declared.
    pub digest: Digest,
    /// The names, the image's own first.
    pub tags: Vec<String>,
    /// Layers.
    pub layers: Traffic,
    /// Configurations, manifests, records, SBOMs.
    pub documents: Traffic,
    /// Digests of the records that were written; none if nothing changed.
    pub records: Vec<Digest>,
    /// What the image's own name stood for before, if that was something else.
    pub supersedes: Option<Digest>,
    /// Declared platforms that were not pushed now and stay as they were.
    pub kept: Vec<Platform>,
}

/// What became of blobs or documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Traffic {
    /// Sent.
    pub uploaded: Count,
    /// Mounted from another repository of the registry.
    pub mounted: Count,
    /// There already.
    pub existing: Count,
}

/// How many, and how large together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// In bytes.
    pub bytes: u64,
}

impl Count {
    /// One more.
    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl Pushed {
    /// Nothing moved yet.
    pub(super) fn new(repository: String, digest: Digest) -> Self {
        Self {
            repository,
            digest,
            tags: Vec::new(),
            layers: Traffic::default(),
            documents: Traffic::default(),
            records: Vec::new(),
            supersedes: None,
            kept: Vec::new(),
        }
    }

    /// Whether nothing had to be written.
    pub fn is_unchanged(&self) -> bool {
        self.layers.uploaded.count + self.layers.mounted.count + self.documents.uploaded.count == 0
    }
}
