//! Which versions of packages the images of an answer have, counted.

use std::collections::BTreeMap;

use rusqlite::params;

use super::Index;
use super::bits::Bits;
use super::terms::Kind;
use crate::catalog::{CatalogError, Query};

/// Where packages are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecosystem {
    /// Python packages.
    Pip,
    /// OS packages.
    Os,
}

impl Index {
    /// Name → version → how many of the images that satisfy the query have it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn versions(
        &self,
        source: &str,
        query: &Query,
        ecosystem: Ecosystem,
    ) -> Result<BTreeMap<String, BTreeMap<String, usize>>, CatalogError> {
        let records = self.records(source, query)?;
        let images = records.images();
        let kind = match ecosystem {
            Ecosystem::Pip => Kind::Pip,
            Ecosystem::Os => Kind::Os,
        };
        let count = || {
            let mut statement = records.reading().prepare_cached(
                "SELECT t.name, t.version, c.id & ?2, c.bits FROM terms t
                 JOIN chunks c ON c.id BETWEEN t.id << ?3 AND (t.id << ?3) | ?2 WHERE t.kind = ?1",
            )?;
            let mask = (1_i64 << super::terms::CHUNK_BITS) - 1;
            let values = params![kind as i64, mask, super::terms::CHUNK_BITS];
            let mut rows = statement.query(values)?;
            let mut found = BTreeMap::<String, BTreeMap<String, usize>>::new();
            while let Some(row) = rows.next()? {
                let mut have = Bits::default();
                have.add_chunk(row.get(2)?, &row.get::<_, Vec<u8>>(3)?);
                have.intersect(&images);
                let count = have.iter().count();
                if count > 0 {
                    let versions = found.entry(row.get(0)?).or_default();
                    *versions.entry(row.get(1)?).or_default() += count;
                }
            }
            Ok(found)
        };
        count().map_err(self.fail())
    }
}
