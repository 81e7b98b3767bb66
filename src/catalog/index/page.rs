//! Answers: images that satisfy every filter of a query, page by page.

use rusqlite::{Connection, Transaction, params};

use super::bits::{self, Bits};
use super::order::{Order, Slot};
use super::terms::{self, Kind};
use super::{Index, Summary, write};
use crate::catalog::{CatalogError, Query, Record, Status};

/// An image that satisfies a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The image.
    pub summary: Summary,
    /// Where it stands: ready or outdated.
    pub status: Status,
    /// What it has of the packages that were asked for, in the order of the filters.
    pub matched: Vec<Match>,
}

/// A package that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Match {
    /// `pip` or `os`.
    pub kind: &'static str,
    /// Normalised name.
    pub name: String,
    /// Installed version.
    pub version: String,
}

/// Whether an image with this record is to be in an answer.
pub type Keep<'a> = dyn Fn(&Record) -> Result<bool, CatalogError> + 'a;

/// A part of an answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// In order.
    pub images: Vec<Found>,
    /// Where the next page begins, if there is more.
    pub next: Option<Position>,
}

/// Where an answer goes on: after an image, and as of the moment when the answer began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Tells databases apart: numbers of images are those of one of them.
    pub generation: i64,
    /// The last image that had been seen when the answer began.
    pub last: u32,
    /// Name of the image before.
    pub name: String,
    /// Its platform.
    pub platform: String,
    /// Its time.
    pub pushed_ms: i64,
    /// Its digests.
    pub rank: Vec<u8>,
}

/// The parts of a package filter's answer.
#[derive(Debug)]
struct Loaded {
    kind: &'static str,
    name: String,
    /// Version, chunk, images.
    chunks: Vec<(String, u32, Vec<u8>)>,
}

impl Loaded {
    fn matches(&self, image: u32) -> impl Iterator<Item = Match> {
        let (wanted, offset) = bits::place(image);
        let chunks = self
            .chunks
            .iter()
            .filter(move |(_, chunk, bytes)| *chunk == wanted && bits::holds(bytes, offset));
        chunks.map(|(version, ..)| Match {
            kind: self.kind,
            name: self.name.clone(),
            version: version.clone(),
        })
    }
}

/// What satisfies a query.
#[derive(Debug)]
struct Selection {
    order: Order,
    images: Option<Bits>,
    names: Option<Bits>,
    packages: Vec<Loaded>,
    last: u32,
    ready: bool,
    outdated: bool,
}

impl Selection {
    fn of(
        connection: &Connection,
        source: &str,
        query: &Query,
        last: u32,
    ) -> rusqlite::Result<Self> {
        let mut selection = Self {
            order: Order::read(connection, source)?,
            images: None,
            names: None,
            packages: Vec::new(),
            last,
            ready: query.wants(Status::Ready),
            outdated: query.wants(Status::Outdated),
        };
        for filter in &query.pip {
            let meant = |version: &str| filter.matches(version);
            selection.package(connection, Kind::Pip, &filter.name, &meant)?;
        }
        for filter in &query.os {
            let meant = |version: &str| filter.matches(version);
            selection.package(connection, Kind::Os, &filter.name, &meant)?;
        }
        if let Some(filter) = &query.python {
            selection.other(connection, &[Kind::Python], &|python| {
                filter.matches(python)
            })?;
        }
        if let Some(base) = &query.base {
            selection.other(connection, &[Kind::Base, Kind::Root], &|name| name == base)?;
        }
        if let Some(platform) = &query.platform {
            let platform = platform.to_string();
            selection.other(connection, &[Kind::Platform], &|name| name == platform)?;
        }
        if let Some(filter) = &query.name {
            let mut statement =
                connection.prepare_cached("SELECT id FROM names WHERE name GLOB ?1")?;
            let rows = statement.query_map([&filter.0], |row| row.get::<_, u32>(0))?;
            let mut names = Bits::default();
            for name in rows {
                names.insert(name?);
            }
            selection.names = Some(names);
        }
        Ok(selection)
    }

    fn package(
        &mut self,
        connection: &Connection,
        kind: Kind,
        name: &str,
        meant: &dyn Fn(&str) -> bool,
    ) -> rusqlite::Result<()> {
        let mut loaded = Loaded {
            kind: if kind == Kind::Pip { "pip" } else { "os" },
            name: name.into(),
            chunks: Vec::new(),
        };
        let mut images = Bits::default();
        for term in terms::matching(connection, kind, Some(name), meant)? {
            for (chunk, bytes) in terms::chunks(connection, term.id)? {
                images.add_chunk(chunk, &bytes);
                loaded.chunks.push((term.version.clone(), chunk, bytes));
            }
        }
        self.packages.push(loaded);
        self.intersect(images);
        Ok(())
    }

    fn other(
        &mut self,
        connection: &Connection,
        kinds: &[Kind],
        meant: &dyn Fn(&str) -> bool,
    ) -> rusqlite::Result<()> {
        let mut images = Bits::default();
        for kind in kinds {
            images.unite(&terms::images(connection, *kind, None, meant)?);
        }
        self.intersect(images);
        Ok(())
    }

    fn intersect(&mut self, images: Bits) {
        match &mut self.images {
            Some(before) => before.intersect(&images),
            none => *none = Some(images),
        }
    }

    /// The first image from a place on that satisfies the query, and its place.
    fn from(&self, mut at: usize) -> Option<(usize, Slot)> {
        loop {
            let slot = self.order.get(at)?;
            let fits =
                |set: &Option<Bits>, number| set.as_ref().is_none_or(|set| set.contains(number));
            let stands = if slot.is_ready(self.last) {
                self.ready
            } else {
                self.outdated
            };
            let seen = slot.image <= self.last;
            if seen && stands && fits(&self.images, slot.image) && fits(&self.names, slot.name) {
                return Some((at, slot));
            }
            at += 1;
        }
    }

    fn found(&self, connection: &Connection, slot: Slot) -> rusqlite::Result<Found> {
        let sql = "SELECT summary, until FROM images WHERE id = ?1";
        let found = connection
            .prepare_cached(sql)?
            .query_row([slot.image], found)?;
        let matched = self
            .packages
            .iter()
            .flat_map(|package| package.matches(slot.image));
        Ok(Found {
            matched: matched.collect(),
            status: status(slot.is_ready(self.last)),
            ..found
        })
    }
}

fn status(ready: bool) -> Status {
    if ready {
        Status::Ready
    } else {
        Status::Outdated
    }
}

/// A row of summary and `until`.
pub fn found(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    let text: String = row.get(0)?;
    let summary = serde_json::from_str(&text).map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error))
    })?;
    Ok(Found {
        summary,
        status: status(row.get::<_, Option<u32>>(1)?.is_none()),
        matched: Vec::new(),
    })
}

impl Index {
    /// At most `limit` images that satisfy the query, from `after` on. An answer of several pages is that of the moment
    /// of its first page: later images are not in it, and what was current then is. (When the database was made anew
    /// meanwhile, only the order still holds.) With `keep`, images whose record it does not accept are left out.
    ///
    /// # Errors
    /// Those of the database, and of `keep`.
    pub fn page(
        &self,
        source: &str,
        query: &Query,
        after: Option<&Position>,
        limit: usize,
        keep: Option<&Keep<'_>>,
    ) -> Result<Page, CatalogError> {
        let mut records = self.select(source, query, after)?;
        let mut images = Vec::new();
        let mut end = None;
        while let Some((slot, found)) = records.next_found()? {
            if let Some(keep) = keep
                && !keep(&records.document(slot.image)?)?
            {
                continue;
            }
            if images.len() == limit {
                return Ok(Page { images, next: end });
            }
            images.push(found);
            if images.len() == limit {
                end = Some(records.position(slot)?);
            }
        }
        Ok(Page { images, next: None })
    }

    /// Every image that satisfies the query with its record, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub fn records(&self, source: &str, query: &Query) -> Result<Records<'_>, CatalogError> {
        self.select(source, query, None)
    }

    pub(super) fn select(
        &self,
        source: &str,
        query: &Query,
        after: Option<&Position>,
    ) -> Result<Records<'_>, CatalogError> {
        let reading = self.reading()?;
        let select = || {
            let number = |sql: &str| reading.query_row(sql, [], |row| row.get(0));
            let generation: i64 = number("SELECT number FROM generation")?;
            let now = number("SELECT coalesce(max(id), 0) FROM images")? as u32;
            let last = after
                .filter(|after| after.generation == generation)
                .map_or(now, |after| after.last);
            let selection = Selection::of(&reading, source, query, last)?;
            let at = match after {
                Some(after) => selection.order.after(&reading, after)?,
                None => 0,
            };
            Ok((generation, selection, at))
        };
        let (generation, selection, at) = select().map_err(self.fail())?;
        Ok(Records {
            index: self,
            reading,
            selection,
            generation,
            at,
        })
    }
}

/// Images that satisfy a query, one after the other.
#[derive(Debug)]
pub struct Records<'a> {
    index: &'a Index,
    reading: Transaction<'a>,
    selection: Selection,
    generation: i64,
    at: usize,
}

impl Records<'_> {
    /// The numbers of all of them.
    pub(super) fn images(&self) -> Bits {
        let mut images = Bits::default();
        let mut at = self.at;
        while let Some((found, slot)) = self.selection.from(at) {
            images.insert(slot.image);
            at = found + 1;
        }
        images
    }

    /// The state of the database that they are of.
    pub(super) fn reading(&self) -> &Connection {
        &self.reading
    }

    /// The number of the next one.
    pub(super) fn next_image(&mut self) -> Option<u32> {
        let (at, slot) = self.selection.from(self.at)?;
        self.at = at + 1;
        Some(slot.image)
    }

    fn next_found(&mut self) -> Result<Option<(Slot, Found)>, CatalogError> {
        let Some((at, slot)) = self.selection.from(self.at) else {
            return Ok(None);
        };
        self.at = at + 1;
        let found = self.selection.found(&self.reading, slot);
        Ok(Some((slot, found.map_err(self.index.fail())?)))
    }

    /// The record of one of them.
    pub(super) fn document(&self, image: u32) -> Result<Record, CatalogError> {
        let sql = "SELECT zstd FROM documents WHERE image = ?1";
        let statement = self.reading.prepare_cached(sql);
        let packed = statement.and_then(|mut found| found.query_row([image], |row| row.get(0)));
        let packed: Vec<u8> = packed.map_err(self.index.fail())?;
        write::unpacked(&packed)
    }

    fn position(&self, slot: Slot) -> Result<Position, CatalogError> {
        let sql = "SELECT n.name, i.platform, i.pushed_ms, i.rank FROM images i JOIN names n ON n.id = i.name
                   WHERE i.id = ?1";
        let found = self.reading.query_row(sql, params![slot.image], |row| {
            Ok(Position {
                generation: self.generation,
                last: self.selection.last,
                name: row.get(0)?,
                platform: row.get(1)?,
                pushed_ms: row.get(2)?,
                rank: row.get(3)?,
            })
        });
        found.map_err(self.index.fail())
    }
}

impl Iterator for Records<'_> {
    type Item = Result<(Found, Record), CatalogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (slot, found) = match self.next_found() {
            Ok(found) => found?,
            Err(error) => return Some(Err(error)),
        };
        Some(self.document(slot.image).map(|record| (found, record)))
    }
}
