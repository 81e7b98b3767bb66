//! The end of a name, as a record.

use crate::catalog::artifact::{Artifact, IMAGE_MANIFEST};
use crate::catalog::place::name_tag;
use crate::catalog::{Catalog, CatalogError, KeyTag, Record};

impl Catalog {
    /// Records that the image which `record` is of was removed, at `now_ms` (milliseconds since 1970). Whoever reads
    /// records knows then that the name does not stand for it any more.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn record_removal(&self, record: Record, now_ms: i64) -> Result<(), CatalogError> {
        let record = Record {
            // Also where clocks differ it is later than what it ends.
            pushed_ms: now_ms.max(record.pushed_ms.saturating_add(1)),
            supersedes: Some(record.index.unwrap_or(record.digest)),
            removed: true,
            lock: None,
            sbom: None,
            signatures: Vec::new(),
            ..record
        };
        let artifact = Artifact::of_record(&record);
        let cache = self.place.cache();
        let document = artifact.document().to_vec();
        self.registry
            .put_blob(&cache, artifact.config(), &document, &[], &|_| {})
            .await?;
        let own = KeyTag::Record(artifact.config().digest).tag();
        let name = name_tag(&record.repository, &record.name, record.platform);
        for tag in [own, name] {
            let tagged = self.tagged(&tag);
            self.registry
                .put_manifest(&tagged, IMAGE_MANIFEST, artifact.manifest())
                .await?;
        }
        Ok(())
    }
}
