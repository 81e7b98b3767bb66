//! A source's images in the order of answers: by name, platform, time, digests. Kept as one blob, so that a page is
//! found without asking the database for every image before it.

use rusqlite::{Connection, OptionalExtension, params};

use super::page::Position;

/// Bytes of an image in the blob: three 32-bit little-endian numbers.
const SLOT: usize = 12;

/// Stands for "until now".
const ALWAYS: u32 = u32::MAX;

/// An image in the order.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its number.
    pub image: u32,
    /// Its name's number.
    pub name: u32,
    /// Number of the first image after which it was not the newest of its name and platform any more.
    until: u32,
}

impl Slot {
    /// Whether it was the newest of its name and platform when `last` was the last image seen.
    pub fn is_ready(&self, last: u32) -> bool {
        self.until > last
    }
}

/// The images of a source in order.
#[derive(Debug)]
pub struct Order(Vec<u8>);

impl Order {
    /// Reads it; it is empty for a source that is not known.
    pub fn read(connection: &Connection, source: &str) -> rusqlite::Result<Self> {
        let sql = "SELECT images FROM sources WHERE name = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let found = statement.query_row([source], |row| row.get(0)).optional()?;
        Ok(Self(found.unwrap_or_default()))
    }

    /// The image at a place.
    pub fn get(&self, at: usize) -> Option<Slot> {
        let bytes = self.0.get(at * SLOT..(at + 1) * SLOT)?;
        let number = |at: usize| {
            let mut number = [0; 4];
            number.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(number)
        };
        Some(Slot {
            image: number(0),
            name: number(4),
            until: number(8),
        })
    }

    /// The first place after a position, which need not be there any more.
    pub fn after(&self, connection: &Connection, position: &Position) -> rusqlite::Result<usize> {
        let mut statement = connection.prepare_cached(
            "SELECT (n.name, i.platform, i.pushed_ms, i.rank) > (?2, ?3, ?4, ?5)
             FROM images i JOIN names n ON n.id = i.name WHERE i.id = ?1",
        )?;
        let (mut low, mut high) = (0, self.0.len() / SLOT);
        while low < high {
            let middle = low.midpoint(high);
            let Some(slot) = self.get(middle) else { break };
            let values = params![
                slot.image,
                position.name,
                position.platform,
                position.pushed_ms,
                position.rank
            ];
            match statement.query_row(values, |row| row.get(0))? {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(low)
    }
}

/// Brings a source's order up to date with its images. Records of removals are none: they only end what came before.
pub fn write(connection: &Connection, source: i64) -> rusqlite::Result<()> {
    let mut names = connection.prepare_cached("SELECT id FROM names ORDER BY name")?;
    let mut ranks: Vec<u32> = Vec::new();
    let ids = names.query_map([], |row| row.get::<_, u32>(0))?;
    for (rank, id) in ids.enumerate() {
        let id = id? as usize;
        if id >= ranks.len() {
            ranks.resize(id + 1, 0);
        }
        ranks[id] = rank as u32;
    }
    let sql = "SELECT id, name, until FROM images INDEXED BY images_in_order WHERE source = ?1 AND NOT removal
               ORDER BY name, platform, pushed_ms, rank";
    let mut images = connection.prepare_cached(sql)?;
    let rows = images.query_map([source], |row| {
        Ok(Slot {
            image: row.get(0)?,
            name: row.get(1)?,
            until: row.get::<_, Option<u32>>(2)?.unwrap_or(ALWAYS),
        })
    })?;
    let mut slots = rows.collect::<Result<Vec<Slot>, _>>()?;
    slots.sort_by_key(|slot| ranks.get(slot.name as usize).copied());
    let bytes: Vec<u8> = slots
        .iter()
        .flat_map(|slot| [slot.image, slot.name, slot.until])
        .flat_map(u32::to_le_bytes)
        .collect();
    connection
        .prepare_cached("UPDATE sources SET images = ?2 WHERE id = ?1")?
        .execute(params![source, bytes])?;
    Ok(())
}
