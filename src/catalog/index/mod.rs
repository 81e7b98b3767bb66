//! The records that were seen, in a SQLite database that answers queries.
//!
//! It may vanish at any time: what it holds is read again from the registry or from the store's state. One index holds
//! the records of several sources (a cache repository, or this store). Images have numbers in the order in which they
//! were seen; what an image has in common with others (a package's version, a base, …) is a *term*, and a term's
//! images are a set of numbers ([`bits`]), so that filters intersect without looking at images. Each source has its
//! images in the order of answers as one blob ([`order`]), so that a page costs what is on it.

mod bits;
mod nearest;
mod order;
mod page;
mod terms;
mod versions;
mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CatalogError, Keys, Record};
use crate::digest::Digest;
use crate::manifest::Platform;
use crate::store::Store;

pub use page::{Found, Keep, Match, Page, Position, Records};
pub use versions::Ecosystem;
pub use write::{Entry, Writer};

/// Version of the database: of its tables, and of what is accepted as a record.
const FORMAT: i64 = 2;

/// How long another process may hold the database.
const PATIENCE: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
    CREATE TABLE generation (number INTEGER NOT NULL) STRICT;
    INSERT INTO generation VALUES (random());
    CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, images BLOB NOT NULL) STRICT;
    CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE images (
        id INTEGER PRIMARY KEY AUTOINCREMENT, source INTEGER NOT NULL, record BLOB NOT NULL, name INTEGER NOT NULL,
        platform TEXT NOT NULL, pushed_ms INTEGER NOT NULL, rank BLOB NOT NULL, until INTEGER, summary TEXT NOT NULL,
        removal INTEGER NOT NULL,
        UNIQUE (source, record)) STRICT;
    CREATE INDEX images_in_order ON images (source, name, platform, pushed_ms, rank, until);
    CREATE INDEX newest_images ON images (source, name, platform) WHERE until IS NULL;
    CREATE TABLE documents (image INTEGER PRIMARY KEY, zstd BLOB NOT NULL) STRICT;
    CREATE TABLE keys (key BLOB NOT NULL, image INTEGER NOT NULL, PRIMARY KEY (key, image)) STRICT, WITHOUT ROWID;
    CREATE TABLE terms (
        id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
        UNIQUE (kind, name, version)) STRICT;
    CREATE TABLE chunks (id INTEGER PRIMARY KEY, bits BLOB NOT NULL) STRICT;
    CREATE TABLE refused (
        source INTEGER NOT NULL, record BLOB NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (source, record)
        ) STRICT, WITHOUT ROWID;
";

/// The name of the source that this store itself is.
pub const LOCAL: &str = "local";

/// What lists and tables say of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Digest of the record's document.
    pub record: Digest,
    /// Declared name.
    pub name: String,
    /// Platform of the image.
    pub platform: Platform,
    /// Repository of the image, without the registry's host; empty for an image of this store.
    pub repository: String,
    /// Tags that were put on it.
    pub tags: Vec<String>,
    /// Digest of the image manifest.
    pub digest: Digest,
    /// Digest of the index that the tags name, if the image has several platforms.
    pub index: Option<Digest>,
    /// The chain of identity.
    pub keys: Keys,
    /// Full Python version.
    pub python: String,
    /// Name of its base.
    pub base: String,
    /// Where the base begins.
    pub root: String,
    /// When it was pushed, in milliseconds since 1970.
    pub pushed_ms: i64,
    /// Digest of what the name stood for before.
    pub supersedes: Option<Digest>,
}

impl Summary {
    /// Of a record whose document has this digest.
    pub fn of(digest: Digest, record: &Record) -> Self {
        Self {
            record: digest,
            name: record.name.clone(),
            platform: record.platform,
            repository: record.repository.clone(),
            tags: record.tags.clone(),
            digest: record.digest,
            index: record.index,
            keys: record.keys,
            python: record.python.clone(),
            base: record.base.name.clone(),
            root: record.base.root.clone(),
            pushed_ms: record.pushed_ms,
            supersedes: record.supersedes,
        }
    }
}

/// A connection to the index.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    connection: Connection,
}

impl Index {
    /// Opens the store's index, or makes an empty one. One that is damaged, or of another program's version, is set
    /// aside (`catalog.sqlite.damaged`).
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn open(store: &Store) -> Result<Self, CatalogError> {
        let path = store.catalog_path();
        match Self::open_at(&path) {
            Err(error) if error.is_damaged() => {
                let _one_at_a_time = store.lock("catalog")?;
                match Self::open_at(&path) {
                    Err(error) if error.is_damaged() => {
                        set_aside(&path)?;
                        Self::open_at(&path)
                    }
                    other => other,
                }
            }
            other => other,
        }
    }

    /// Sets the store's index aside after it was found damaged.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn abandon(store: &Store) -> Result<(), CatalogError> {
        let _one_at_a_time = store.lock("catalog")?;
        set_aside(&store.catalog_path())
    }

    /// Another connection to the same database.
    pub(super) fn again(&self) -> Result<Self, CatalogError> {
        Self::open_at(&self.path)
    }

    fn open_at(path: &Path) -> Result<Self, CatalogError> {
        let fail = |source| CatalogError::Index {
            path: path.into(),
            source,
        };
        let mut connection = Connection::open(path).map_err(fail)?;
        let prepare = |connection: &mut Connection| {
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "cache_size", -65_536)?;
            connection.pragma_update(None, "wal_autocheckpoint", 8000)?;
            connection.set_prepared_statement_cache_capacity(64);
            let version = |connection: &Connection| {
                connection.pragma_query_value(None, "user_version", |row| row.get(0))
            };
            if version(connection)? == 0 {
                let making =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                if version(&making)? == 0 {
                    making.execute_batch(SCHEMA)?;
                    making.pragma_update(None, "user_version", FORMAT)?;
                }
                making.commit()?;
            }
            version(connection)
        };
        let version: i64 = prepare(&mut connection).map_err(fail)?;
        if version != FORMAT {
            return Err(CatalogError::OtherIndex { path: path.into() });
        }
        Ok(Self {
            path: path.into(),
            connection,
        })
    }

    fn fail(&self) -> impl Fn(rusqlite::Error) -> CatalogError + use<> {
        let path = self.path.clone();
        move |source| CatalogError::Index {
            path: path.clone(),
            source,
        }
    }

    /// Digests of the records that this source has, and of those that were refused.
    ///
    /// # Errors
    /// Those of the database.
    pub fn seen(&self, source: &str) -> Result<BTreeSet<Digest>, CatalogError> {
        let sql = "SELECT record FROM images WHERE source = (SELECT id FROM sources WHERE name = ?1)
                   UNION ALL SELECT record FROM refused WHERE source = (SELECT id FROM sources WHERE name = ?1)";
        self.list(sql, [source], |row| digest(row, 0))
            .map(|found| found.into_iter().collect())
    }

    /// Records that were refused, and why.
    ///
    /// # Errors
    /// Those of the database.
    pub fn refused(&self, source: &str) -> Result<Vec<(Digest, String)>, CatalogError> {
        let sql = "SELECT record, reason FROM refused WHERE source = (SELECT id FROM sources WHERE name = ?1)";
        self.list(sql, [source], |row| Ok((digest(row, 0)?, row.get(1)?)))
    }

    /// All of a record by the digest of its document.
    ///
    /// # Errors
    /// Those of the database.
    pub fn record(&self, source: &str, record: &Digest) -> Result<Option<Record>, CatalogError> {
        let sql =
            "SELECT zstd FROM documents WHERE image = (SELECT id FROM images WHERE record = ?2
                   AND source = (SELECT id FROM sources WHERE name = ?1))";
        let found = self.connection.prepare_cached(sql);
        let found = found.and_then(|mut statement| {
            let values = params![source, record.bytes()];
            statement
                .query_row(values, |row| row.get::<_, Vec<u8>>(0))
                .optional()
        });
        let found = found.map_err(self.fail())?;
        found.map(|packed| write::unpacked(&packed)).transpose()
    }

    /// Names of the source's images, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub fn names(&self, source: &str) -> Result<Vec<String>, CatalogError> {
        let sql = "SELECT name FROM names WHERE id IN (SELECT DISTINCT name FROM images
                   WHERE source = (SELECT id FROM sources WHERE name = ?1)) ORDER BY name";
        self.list(sql, [source], |row| row.get(0))
    }

    /// Images that one of these digests or keys (of a record, an image, an index, a configuration, or the chain of
    /// identity) belongs to, beginning with these hexadecimal digits; newest first, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub fn by_key(
        &self,
        source: &str,
        hex: &str,
        limit: usize,
    ) -> Result<Vec<Found>, CatalogError> {
        let bounds = |filling: char| {
            let digits = hex.chars().chain(std::iter::repeat(filling)).take(64);
            Digest::from_hex(&digits.collect::<String>()).ok()
        };
        let (Some(from), Some(to)) = (bounds('0'), bounds('f')) else {
            return Ok(Vec::new());
        };
        let sql = "SELECT summary, until FROM images WHERE source = (SELECT id FROM sources WHERE name = ?1)
                   AND id IN (SELECT image FROM keys WHERE key BETWEEN ?2 AND ?3)
                   ORDER BY pushed_ms DESC, rank DESC LIMIT ?4";
        let values = params![source, from.bytes(), to.bytes(), limit as i64];
        self.list(sql, values, page::found)
    }

    /// Images above one of these images (by digest of manifest or index), newest first, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub fn above(
        &self,
        source: &str,
        bases: &[Digest],
        limit: usize,
    ) -> Result<Vec<Found>, CatalogError> {
        let reading = self.reading()?;
        let mut all = bits::Bits::default();
        for base in bases {
            let kind = terms::Kind::BaseDigest;
            let above = terms::images(&reading, kind, Some(&base.hex()), &|_| true);
            all.unite(&above.map_err(self.fail())?);
        }
        let numbers: Vec<u32> = all.iter().collect();
        let list = serde_json::to_string(&numbers).unwrap_or_default();
        let sql = "SELECT summary, until FROM images WHERE source = (SELECT id FROM sources WHERE name = ?1)
                   AND id IN (SELECT value FROM json_each(?2)) ORDER BY pushed_ms DESC, rank DESC LIMIT ?3";
        self.list(sql, params![source, list, limit as i64], page::found)
    }

    /// Begins to read: what follows sees one state of the database.
    fn reading(&self) -> Result<rusqlite::Transaction<'_>, CatalogError> {
        self.connection.unchecked_transaction().map_err(self.fail())
    }

    fn list<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, CatalogError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map(values, row)?;
            rows.collect::<Result<Vec<T>, _>>()
        };
        read().map_err(self.fail())
    }
}

/// A digest that a column holds as 32 bytes.
fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    Ok(Digest::from_bytes(row.get::<_, [u8; 32]>(column)?))
}

fn set_aside(path: &Path) -> Result<(), CatalogError> {
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    for gone in ["-wal", "-shm"].map(beside) {
        // What belongs to a damaged database is of no use without it.
        let _ = std::fs::remove_file(gone);
    }
    match std::fs::rename(path, beside(".damaged")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(crate::store::StoreError::io("set aside", path)(error).into())
        }
        _ => Ok(()),
    }
}
