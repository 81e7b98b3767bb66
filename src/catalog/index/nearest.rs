//! Images that have most of some packages.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Index;
use super::terms::{self, Kind};
use crate::catalog::{CatalogError, PipFilter, Query, Record};

impl Index {
    /// Records of at most `limit` images that satisfy the query: those that have most of these packages, and of equal
    /// ones those that were seen last.
    ///
    /// # Errors
    /// Those of the database.
    pub fn nearest(
        &self,
        source: &str,
        query: &Query,
        packages: &[PipFilter],
        limit: usize,
    ) -> Result<Vec<Record>, CatalogError> {
        let mut records = self.select(source, query, None)?;
        let sets = packages.iter().map(|filter| {
            let meant = |version: &str| filter.matches(version);
            terms::images(records.reading(), Kind::Pip, Some(&filter.name), &meant)
        });
        let sets = sets.collect::<Result<Vec<_>, _>>().map_err(self.fail())?;
        let mut best = BinaryHeap::new();
        while let Some(image) = records.next_image() {
            let has = sets.iter().filter(|set| set.contains(image)).count();
            best.push(Reverse((has, image)));
            if best.len() > limit {
                best.pop();
            }
        }
        let best = best.into_sorted_vec().into_iter();
        best.map(|Reverse((_, image))| records.document(image))
            .collect()
    }
}
