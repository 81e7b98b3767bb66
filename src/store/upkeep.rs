//! What collection and removal ask of the state database.

use std::path::{Path, PathBuf};

use rusqlite::params;

use super::gc::Row;
use super::{State, StoreError};

impl State {
    /// The registered locks.
    pub fn roots(&self) -> Result<Vec<PathBuf>, StoreError> {
        let rows = self.pairs("SELECT path, '' FROM roots ORDER BY path")?;
        Ok(rows.into_iter().map(|(path, _)| path.into()).collect())
    }

    /// Forgets a registered lock.
    pub fn remove_root(&self, lock: &Path) -> Result<(), StoreError> {
        let sql = "DELETE FROM roots WHERE path = ?1";
        self.change(sql, [lock.to_string_lossy()])
    }

    /// All layers that exist as blobs: key and document.
    pub fn layers(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.pairs("SELECT key, document FROM layers ORDER BY key")
    }

    /// All base images that were read: digest and document.
    pub fn bases(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.pairs("SELECT digest, document FROM bases ORDER BY digest")
    }

    /// Forgets what a row says. An image's record goes with its row, its documents go with its last row.
    pub fn remove_row(&self, row: &Row) -> Result<(), StoreError> {
        match row {
            Row::Image {
                name,
                platform,
                key,
            } => {
                let row = params![name, platform, key];
                let inputs = "DELETE FROM documents WHERE key IN
                    (SELECT inputs FROM images WHERE name = ?1 AND platform = ?2 AND key = ?3)
                    AND 1 = (SELECT count(*) FROM images WHERE inputs = documents.key)";
                self.change(inputs, row)?;
                for table in ["images", "records"] {
                    let sql = format!(
                        "DELETE FROM {table} WHERE name = ?1 AND platform = ?2 AND key = ?3"
                    );
                    self.change(&sql, row)?;
                }
                self.change(
                    "DELETE FROM documents WHERE key = ?1 AND key NOT IN (SELECT key FROM images)",
                    [key],
                )
            }
            Row::Layer(key) => self.change("DELETE FROM layers WHERE key = ?1", [key]),
            Row::Base(digest) => self.change("DELETE FROM bases WHERE digest = ?1", [digest]),
        }
    }

    /// Forgets a job.
    pub fn remove_job(&self, id: &str) -> Result<(), StoreError> {
        self.change("DELETE FROM jobs WHERE id = ?1", [id])
    }

    fn change(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
        let changed = self.connection.execute(sql, values);
        changed.map(|_| ()).map_err(self.fail())
    }

    fn pairs(&self, sql: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut statement = self.connection.prepare(sql).map_err(self.fail())?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }
}
