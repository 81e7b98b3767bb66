//! What images have in common: terms, and the sets of their images.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params};

use super::bits::{self, Bits};
use crate::catalog::Record;
use crate::manifest::normalise;

/// Chunks that a term can have: its chunk's row is `term << CHUNK_BITS | chunk`.
pub const CHUNK_BITS: u32 = 20;

/// What a term is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Python package: name and version.
    Pip = 1,
    /// An OS package: name and version.
    Os = 2,
    /// A full Python version.
    Python = 3,
    /// Name of a base.
    Base = 4,
    /// Where a base begins.
    Root = 5,
    /// A platform.
    Platform = 6,
    /// Digest of a base image, as hexadecimal digits.
    BaseDigest = 7,
}

/// A term of the database.
#[derive(Clone, Debug)]
pub struct Term {
    /// Its number.
    pub id: i64,
    /// For packages.
    pub version: String,
}

/// The terms of a kind (and name) whose version is one of those meant. Without a name it is the name that is judged.
pub fn matching(
    connection: &Connection,
    kind: Kind,
    name: Option<&str>,
    meant: &dyn Fn(&str) -> bool,
) -> rusqlite::Result<Vec<Term>> {
    let sql = match name {
        Some(_) => "SELECT id, version FROM terms WHERE kind = ?1 AND name = ?2",
        None => "SELECT id, name FROM terms WHERE kind = ?1 AND ?2 IS NULL",
    };
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![kind as i64, name], |row| {
        Ok(Term {
            id: row.get(0)?,
            version: row.get(1)?,
        })
    })?;
    let mut found = rows.collect::<Result<Vec<Term>, _>>()?;
    found.retain(|term| meant(&term.version));
    Ok(found)
}

/// The images that have one of the terms that [`matching`] finds.
pub fn images(
    connection: &Connection,
    kind: Kind,
    name: Option<&str>,
    meant: &dyn Fn(&str) -> bool,
) -> rusqlite::Result<Bits> {
    let mut images = Bits::default();
    for term in matching(connection, kind, name, meant)? {
        for (chunk, bytes) in chunks(connection, term.id)? {
            images.add_chunk(chunk, &bytes);
        }
    }
    Ok(images)
}

/// The chunks of a term's images, ascending.
pub fn chunks(connection: &Connection, term: i64) -> rusqlite::Result<Vec<(u32, Vec<u8>)>> {
    let sql = "SELECT id & ?3, bits FROM chunks WHERE id BETWEEN ?1 AND ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let (first, mask) = (term << CHUNK_BITS, (1 << CHUNK_BITS) - 1);
    let rows = statement.query_map(params![first, first | mask, mask], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    rows.collect()
}

/// Calls `each` for every term of a record.
pub fn of_record(
    record: &Record,
    each: &mut dyn FnMut(Kind, &str, &str) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    for package in &record.pip {
        each(Kind::Pip, &normalise(&package.name), &package.version)?;
    }
    for package in &record.os {
        each(Kind::Os, &package.name, &package.version)?;
    }
    each(Kind::Python, &record.python, "")?;
    each(Kind::Base, &record.base.name, "")?;
    each(Kind::Root, &record.base.root, "")?;
    each(Kind::Platform, &record.platform.to_string(), "")?;
    match &record.base.digest {
        Some(digest) => each(Kind::BaseDigest, &digest.hex(), ""),
        None => Ok(()),
    }
}

/// Numbers of terms that were looked up before. Terms are never removed, so that they stay right.
#[derive(Debug, Default)]
pub struct Interned {
    numbers: HashMap<String, i64>,
    key: String,
}

impl Interned {
    /// Most terms that are kept.
    const LIMIT: usize = 500_000;

    /// The number of a term; a new one if there is none.
    pub fn number(
        &mut self,
        connection: &Connection,
        kind: Kind,
        name: &str,
        version: &str,
    ) -> rusqlite::Result<i64> {
        self.key.clear();
        self.key.push(char::from(b'0' + kind as u8));
        self.key.push_str(name);
        self.key.push('\0');
        self.key.push_str(version);
        if let Some(number) = self.numbers.get(&self.key) {
            return Ok(*number);
        }
        let values = params![kind as i64, name, version];
        let known = connection
            .prepare_cached("SELECT id FROM terms WHERE kind = ?1 AND name = ?2 AND version = ?3")?
            .query_row(values, |row| row.get(0))
            .optional()?;
        let number = match known {
            Some(number) => number,
            None => connection
                .prepare_cached("INSERT INTO terms (kind, name, version) VALUES (?1, ?2, ?3)")?
                .insert(values)?,
        };
        if self.numbers.len() >= Self::LIMIT {
            self.numbers.clear();
        }
        self.numbers.insert(self.key.clone(), number);
        Ok(number)
    }
}

/// Changes of terms' sets, written together.
#[derive(Debug, Default)]
pub struct Changes(BTreeMap<i64, Vec<u32>>);

impl Changes {
    /// Notes that `image` has, or had, the term.
    pub fn note(&mut self, term: i64, image: u32) {
        self.0.entry(term).or_default().push(image);
    }

    /// Puts the images into their terms' sets, or takes them out.
    pub fn write(self, connection: &Connection, put: bool) -> rusqlite::Result<()> {
        let mut read = connection.prepare_cached("SELECT bits FROM chunks WHERE id = ?1")?;
        let mut write =
            connection.prepare_cached("INSERT OR REPLACE INTO chunks VALUES (?1, ?2)")?;
        let mut remove = connection.prepare_cached("DELETE FROM chunks WHERE id = ?1")?;
        for (term, images) in self.0 {
            let mut by_chunk: BTreeMap<u32, Vec<u16>> = BTreeMap::new();
            for image in images {
                let (chunk, offset) = bits::place(image);
                by_chunk.entry(chunk).or_default().push(offset);
            }
            for (chunk, offsets) in by_chunk {
                let id = term << CHUNK_BITS | i64::from(chunk);
                let before = read.query_row([id], |row| row.get(0)).optional()?;
                let before: Vec<u8> = before.unwrap_or_default();
                match bits::changed(&before, &offsets, put) {
                    Some(bytes) => write.execute(params![id, bytes])?,
                    None => remove.execute([id])?,
                };
            }
        }
        Ok(())
    }
}
