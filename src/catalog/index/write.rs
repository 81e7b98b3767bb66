//! Records into the index, and out of it.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::terms::{self, Changes, Interned};
use super::{Index, Summary, order};
use crate::catalog::{CatalogError, Record, checked};
use crate::digest::Digest;

/// How hard documents are compressed.
const LEVEL: i32 = 1;
/// Largest document that is unpacked, in bytes.
const UNPACKED_LIMIT: usize = 4 << 20;

/// A record that was read and checked, ready to be kept.
#[derive(Debug)]
pub struct Entry {
    summary: Summary,
    record: Record,
    packed: Vec<u8>,
}

impl Entry {
    /// Reads an untrusted document.
    ///
    /// # Errors
    /// Why it is no record.
    pub fn read(document: &[u8]) -> Result<Self, String> {
        let record = checked::record(document)?;
        let packed = zstd::bulk::compress(document, LEVEL).map_err(|error| error.to_string())?;
        Ok(Self {
            summary: Summary::of(Digest::of(document), &record),
            record,
            packed,
        })
    }

    /// Digest of the record's document.
    pub fn document(&self) -> Digest {
        self.summary.record
    }
}

/// The record in a packed document of the database.
pub fn unpacked(packed: &[u8]) -> Result<Record, CatalogError> {
    let malformed = |reason: String| CatalogError::Malformed {
        what: "a document of the store's index".into(),
        reason,
    };
    let text = zstd::bulk::decompress(packed, UNPACKED_LIMIT);
    let text = text.map_err(|error| malformed(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))
}

/// Writes the records of one source.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    connection: Connection,
    source: String,
    interned: Interned,
}

impl Index {
    /// Begins to write records of a source.
    pub fn writer(self, source: &str) -> Writer {
        Writer {
            path: self.path,
            connection: self.connection,
            source: source.into(),
            interned: Interned::default(),
        }
    }
}

impl Writer {
    /// Keeps records, all or none; those that are there already stay. Returns how many are new.
    ///
    /// # Errors
    /// Those of the database.
    pub fn put(&mut self, entries: &mut [Entry]) -> Result<usize, CatalogError> {
        // Mostly every record is newer than those before it then.
        entries.sort_by_key(|entry| entry.summary.pushed_ms);
        self.change(true, |writing, source, terms| {
            let mut new = 0;
            for entry in &*entries {
                let Some(image) = put_image(writing, source, entry)? else {
                    continue;
                };
                new += 1;
                if !entry.record.removed {
                    terms.note(writing, &entry.record, image)?;
                }
            }
            Ok(new)
        })
    }

    /// Remembers that documents are no records, and why.
    pub(in crate::catalog) fn refuse(
        &mut self,
        refused: &[(Digest, String)],
    ) -> Result<(), CatalogError> {
        write(
            &mut self.connection,
            &self.path,
            &self.source,
            |writing, source| {
                let mut statement =
                    writing.prepare_cached("INSERT OR REPLACE INTO refused VALUES (?1, ?2, ?3)")?;
                for (record, reason) in refused {
                    statement.execute(params![source, record.bytes(), reason])?;
                }
                Ok(())
            },
        )
    }

    /// Forgets records that are not there any more.
    pub(in crate::catalog) fn remove(&mut self, gone: &[Digest]) -> Result<(), CatalogError> {
        self.change(false, |writing, source, terms| {
            for record in gone {
                let values = params![source, record.bytes()];
                let sql = "DELETE FROM refused WHERE source = ?1 AND record = ?2";
                writing.prepare_cached(sql)?.execute(values)?;
                if let Some((image, Some(record))) = take_image(writing, source, record)? {
                    terms.note(writing, &record, image)?;
                }
            }
            Ok(())
        })
    }

    /// Does `work`, and puts the images that it notes among those of their terms, or takes them from there.
    fn change<T>(
        &mut self,
        put: bool,
        work: impl FnOnce(&Transaction<'_>, i64, &mut Terms<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, CatalogError> {
        let interned = &mut self.interned;
        let change = |writing: &Transaction<'_>, source: i64| {
            let mut terms = Terms {
                interned,
                changes: Changes::default(),
            };
            let result = work(writing, source, &mut terms)?;
            terms.changes.write(writing, put)?;
            Ok(result)
        };
        write(&mut self.connection, &self.path, &self.source, change)
            .inspect_err(|_| self.interned = Interned::default())
    }
}

/// The terms of images that come or go.
struct Terms<'a> {
    interned: &'a mut Interned,
    changes: Changes,
}

impl Terms<'_> {
    fn note(
        &mut self,
        writing: &Transaction<'_>,
        record: &Record,
        image: u32,
    ) -> rusqlite::Result<()> {
        terms::of_record(record, &mut |kind, name, version| {
            let term = self.interned.number(writing, kind, name, version)?;
            self.changes.note(term, image);
            Ok(())
        })
    }
}

/// Does `work` and brings the source's order up to date, all or nothing.
fn write<T>(
    connection: &mut Connection,
    path: &Path,
    source: &str,
    work: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<T>,
) -> Result<T, CatalogError> {
    let write = || {
        let writing = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let id = source_number(&writing, source)?;
        let result = work(&writing, id)?;
        order::write(&writing, id)?;
        writing.commit()?;
        Ok(result)
    };
    write().map_err(|source| CatalogError::Index {
        path: path.into(),
        source,
    })
}

fn source_number(writing: &Connection, source: &str) -> rusqlite::Result<i64> {
    writing.execute(
        "INSERT OR IGNORE INTO sources (name, images) VALUES (?1, x'')",
        [source],
    )?;
    writing.query_row("SELECT id FROM sources WHERE name = ?1", [source], |row| {
        row.get(0)
    })
}

fn name_number(writing: &Connection, name: &str) -> rusqlite::Result<i64> {
    let mut known = writing.prepare_cached("SELECT id FROM names WHERE name = ?1")?;
    match known.query_row([name], |row| row.get(0)).optional()? {
        Some(number) => Ok(number),
        None => writing
            .prepare_cached("INSERT INTO names (name) VALUES (?1)")?
            .insert([name]),
    }
}

/// What images with the same name, platform and time are ordered by.
fn rank(summary: &Summary) -> Vec<u8> {
    [summary.digest, summary.record]
        .iter()
        .flat_map(|digest| *digest.bytes())
        .collect()
}

/// What an image can be asked for by.
fn keys(digest: &Digest, record: &Record) -> impl Iterator<Item = Digest> {
    let keys = &record.keys;
    let own = [*digest, record.digest, record.config];
    let own = own.into_iter().chain(record.index);
    own.chain([keys.request, keys.set, keys.content, keys.image])
}

/// Inserts an image with its document and keys; `None` if it is there already.
fn put_image(writing: &Connection, source: i64, entry: &Entry) -> rusqlite::Result<Option<u32>> {
    let summary = &entry.summary;
    let text = serde_json::to_string(summary)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let (name, platform) = (
        name_number(writing, &summary.name)?,
        summary.platform.to_string(),
    );
    let rank = rank(summary);
    let inserted = writing
        .prepare_cached(
            "INSERT OR IGNORE INTO images (source, record, name, platform, pushed_ms, rank, until, summary, removal)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8)",
        )?
        .execute(params![
            source,
            summary.record.bytes(),
            name,
            platform,
            summary.pushed_ms,
            rank,
            text,
            entry.record.removed
        ])?;
    if inserted == 0 {
        return Ok(None);
    }
    let image = u32::try_from(writing.last_insert_rowid())
        .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, i64::MAX))?;
    supersede(
        writing,
        &Group {
            source,
            name,
            platform,
        },
        image,
        summary.pushed_ms,
        &rank,
    )?;
    writing
        .prepare_cached("INSERT INTO documents VALUES (?1, ?2)")?
        .execute(params![image, entry.packed])?;
    if entry.record.removed {
        // Nobody asks for it.
        return Ok(Some(image));
    }
    let mut statement = writing.prepare_cached("INSERT OR IGNORE INTO keys VALUES (?1, ?2)")?;
    for key in keys(&summary.record, &entry.record) {
        statement.execute(params![key.bytes(), image])?;
    }
    Ok(Some(image))
}

/// Images of one name and platform.
struct Group {
    source: i64,
    name: i64,
    platform: String,
}

/// Settles which image of the group is the newest after `image` has come.
fn supersede(
    writing: &Connection,
    group: &Group,
    image: u32,
    pushed_ms: i64,
    rank: &[u8],
) -> rusqlite::Result<()> {
    let newest = writing
        .prepare_cached(
            "SELECT id, (pushed_ms, rank) > (?4, ?5) FROM images
             WHERE source = ?1 AND name = ?2 AND platform = ?3 AND until IS NULL",
        )?
        .query_row(
            params![group.source, group.name, group.platform, pushed_ms, rank],
            |row| Ok((row.get::<_, u32>(0)?, row.get::<_, bool>(1)?)),
        )
        .optional()?;
    let mut set = writing.prepare_cached("UPDATE images SET until = ?2 WHERE id = ?1")?;
    match newest {
        Some((_, true)) => settle(writing, image)?,
        Some((before, false)) => {
            set.execute(params![before, image])?;
            set.execute(params![image, None::<u32>])?;
        }
        None => {
            set.execute(params![image, None::<u32>])?;
        }
    }
    Ok(())
}

/// Finds out anew since which image another one is not the newest of its group.
fn settle(writing: &Connection, image: u32) -> rusqlite::Result<()> {
    writing
        .prepare_cached(
            "UPDATE images SET until = (SELECT min(later.id) FROM images later
                 WHERE later.source = images.source AND later.name = images.name AND later.platform = images.platform
                 AND (later.pushed_ms, later.rank) > (images.pushed_ms, images.rank))
             WHERE id = ?1",
        )?
        .execute([image])?;
    Ok(())
}

/// Removes an image; returns its number, and its record where that can still be read.
fn take_image(
    writing: &Connection,
    source: i64,
    digest: &Digest,
) -> rusqlite::Result<Option<(u32, Option<Record>)>> {
    let sql =
        "SELECT i.id, d.zstd, i.name, i.platform FROM images i JOIN documents d ON d.image = i.id
               WHERE i.source = ?1 AND i.record = ?2";
    let mut statement = writing.prepare_cached(sql)?;
    let found = statement.query_row(params![source, digest.bytes()], |row| {
        let packed: Vec<u8> = row.get(1)?;
        Ok((
            row.get::<_, u32>(0)?,
            packed,
            row.get::<_, i64>(2)?,
            row.get::<_, String>(3)?,
        ))
    });
    let Some((image, packed, name, platform)) = found.optional()? else {
        return Ok(None);
    };
    let record = unpacked(&packed).ok();
    let mut forget = writing.prepare_cached("DELETE FROM keys WHERE key = ?1 AND image = ?2")?;
    for key in record.iter().flat_map(|record| keys(digest, record)) {
        forget.execute(params![key.bytes(), image])?;
    }
    for sql in [
        "DELETE FROM documents WHERE image = ?1",
        "DELETE FROM images WHERE id = ?1",
    ] {
        writing.prepare_cached(sql)?.execute([image])?;
    }
    let sql =
        "SELECT id FROM images WHERE source = ?1 AND name = ?2 AND platform = ?3 AND until = ?4";
    let mut superseded = writing.prepare_cached(sql)?;
    let superseded =
        superseded.query_map(params![source, name, platform, image], |row| row.get(0))?;
    for image in superseded.collect::<Result<Vec<u32>, _>>()? {
        settle(writing, image)?;
    }
    Ok(Some((image, record)))
}
