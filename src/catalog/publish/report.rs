//! What a push moved.

use schemars::JsonSchema;
use serde::Serialize;

use crate::digest::Digest;
use crate::manifest::Platform;
use crate::registry::Put;

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
    /// Configurations, manifests, records, SBOMs. The list of what refers to an image, which registries without the
    /// referrers API have under a tag, is not counted.
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

impl Traffic {
    /// One more.
    pub(super) fn count(&mut self, put: Put, bytes: u64) {
        let count = match put {
            Put::Existing => &mut self.existing,
            Put::Mounted => &mut self.mounted,
            Put::Uploaded => &mut self.uploaded,
        };
        count.add(bytes);
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        for (count, more) in [
            (&mut self.uploaded, more.uploaded),
            (&mut self.mounted, more.mounted),
            (&mut self.existing, more.existing),
        ] {
            count.count += more.count;
            count.bytes += more.bytes;
        }
    }
}

impl Pushed {
    /// Whether nothing had to be written.
    pub fn is_unchanged(&self) -> bool {
        self.layers.uploaded.count + self.layers.mounted.count + self.documents.uploaded.count == 0
    }
}
