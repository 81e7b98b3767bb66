//! Strict reader of the structure of a zip file (PKWARE APPNOTE 6.3.10): which bytes of it are which entry.
//!
//! It hands out ranges of raw deflate data and never writes anything. What the central directory says is believed only
//! as far as the local headers, and later the data, confirm it; where two readers could disagree, the file is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::error::WheelError;
use super::fields::{Fields, Zip64, cp437, unicode_path};

/// The most entries that a wheel may have.
const MAX_ENTRIES: u64 = 1_000_000;
/// The largest central directory that is read, in bytes.
const MAX_DIRECTORY: u64 = 256 << 20;
/// The most bytes that all entries together may unpack to.
const MAX_UNPACKED: u64 = 64 << 30;
/// No deflate stream expands further than this (RFC 1951: 258 bytes from two bits).
const MAX_RATIO: u64 = 1032;

/// How an entry's data is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As it is.
    Stored,
    /// A raw deflate stream.
    Deflate,
}

/// One entry, as the central directory tells it.
#[derive(Clone, Debug)]
pub struct ZipEntry {
    /// Relative, `/` between components, no `.` or `..`; folders without the trailing `/`.
    pub name: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// How its data is kept.
    pub method: Method,
    /// CRC-32 of the content.
    pub crc: u32,
    /// Bytes of data in the file.
    pub compressed: u64,
    /// Bytes of content.
    pub size: u64,
    /// Whether any of the Unix execution bits is set.
    pub executable: bool,
    raw_name: Vec<u8>,
    header: u64,
    flags: u16,
}

/// An open zip file.
#[derive(Debug)]
pub struct Archive {
    /// Its file name, for messages.
    pub label: Arc<str>,
    /// In the order of the central directory.
    pub entries: Vec<ZipEntry>,
    file: File,
    directory: u64,
    prefix: u64,
}

impl Archive {
    /// Reads the central directory of the zip file at `path`, called `label` in messages.
    ///
    /// # Errors
    /// When it is no zip file, or its directory is not acceptable.
    pub fn open(path: &Path, label: &str) -> Result<Self, WheelError> {
        let label: Arc<str> = label.into();
        let file = File::open(path).map_err(WheelError::io(&label))?;
        let meta = file.metadata().map_err(WheelError::io(&label))?;
        if !meta.is_file() {
            return Err(WheelError::wheel(&label, "it is not a file"));
        }
        let mut archive = Self {
            label,
            entries: Vec::new(),
            file,
            directory: 0,
            prefix: 0,
        };
        archive.read_directory(meta.len())?;
        Ok(archive)
    }

    fn fail(&self, reason: impl Into<String>) -> WheelError {
        WheelError::wheel(&self.label, reason)
    }

    /// The bytes `at..at + len` of the file.
    pub fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, WheelError> {
        let mut bytes = vec![0; len];
        self.read_into(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from offset `at` of the file.
    pub fn read_into(&self, at: u64, bytes: &mut [u8]) -> Result<(), WheelError> {
        self.file
            .read_exact_at(bytes, at)
            .map_err(WheelError::io(&self.label))
    }

    fn read_directory(&mut self, length: u64) -> Result<(), WheelError> {
        let end = self.end_record(length)?;
        let (count, size) = (end.count, end.size);
        if count > MAX_ENTRIES || size > MAX_DIRECTORY {
            return Err(self.fail(format!(
                "its directory of {count} entries and {size} bytes is larger than any wheel needs"
            )));
        }
        let start = end.position.checked_sub(size);
        let prefix = start.and_then(|start| start.checked_sub(end.offset));
        let (Some(start), Some(prefix)) = (start, prefix) else {
            return Err(self.fail("its directory lies outside of the file"));
        };
        (self.directory, self.prefix) = (start, prefix);
        let bytes = self.read(start, size as usize)?;
        let mut fields = Fields::new(&bytes);
        let mut names = BTreeMap::new();
        let mut unpacked = 0_u64;
        for _ in 0..count {
            let entry = self.directory_entry(&mut fields)?;
            unpacked = unpacked.saturating_add(entry.size);
            if unpacked > MAX_UNPACKED {
                return Err(self.fail("its entries declare more than 64 GiB of content"));
            }
            if names.insert(entry.name.clone(), entry.folder).is_some() {
                return Err(WheelError::entry(
                    &self.label,
                    &entry.name,
                    "stands in it twice",
                ));
            }
            self.entries.push(entry);
        }
        if !fields.is_empty() {
            return Err(self.fail("its directory has more bytes than entries"));
        }
        self.check_tree(&names)
    }

    /// No file may be the folder of another entry.
    fn check_tree(&self, names: &BTreeMap<String, bool>) -> Result<(), WheelError> {
        for name in names.keys() {
            for (at, _) in name.match_indices('/') {
                if names.get(&name[..at]) == Some(&false) {
                    let reason = "is a file and the folder of another entry";
                    return Err(WheelError::entry(&self.label, &name[..at], reason));
                }
            }
        }
        Ok(())
    }

    fn end_record(&self, length: u64) -> Result<EndRecord, WheelError> {
        const SIZE: usize = 22;
        let not_a_zip = || self.fail("it is not a zip file, or its end is missing");
        if length < SIZE as u64 {
            return Err(not_a_zip());
        }
        let tail_len = length.min(SIZE as u64 + u64::from(u16::MAX));
        let tail = self.read(length - tail_len, tail_len as usize)?;
        let fits = |at: usize| {
            let comment = u16::from_le_bytes([tail[at + 20], tail[at + 21]]);
            tail[at..].starts_with(b"PK\x05\x06") && at + SIZE + comment as usize == tail.len()
        };
        let mut found = (0..=tail.len() - SIZE).rev().filter(|&at| fits(at));
        let at = found.next().ok_or_else(not_a_zip)?;
        if found.next().is_some() {
            return Err(self.fail("it has two directories, one in the comment of the other"));
        }
        let position = length - tail_len + at as u64;
        let mut fields = Fields::new(&tail[at + 4..at + 20]);
        let disks = (fields.u16(), fields.u16());
        let (here, count) = (fields.u16(), fields.u16());
        let (size, offset) = (fields.u32(), fields.u32());
        let (Some(here), Some(count), Some(size), Some(offset)) = (here, count, size, offset)
        else {
            return Err(not_a_zip());
        };
        let saturated = here == u16::MAX || count == u16::MAX || size == u32::MAX;
        if (saturated || offset == u32::MAX)
            && let Some(end) = self.zip64_end_record(position)?
        {
            return Ok(end);
        }
        if disks != (Some(0), Some(0)) || here != count {
            return Err(self.fail("it is a part of a zip file that spans several"));
        }
        Ok(EndRecord {
            position,
            count: count.into(),
            size: size.into(),
            offset: offset.into(),
        })
    }

    fn zip64_end_record(&self, end: u64) -> Result<Option<EndRecord>, WheelError> {
        const LOCATOR: u64 = 20;
        const RECORD: u64 = 56;
        let Some(locator) = end.checked_sub(LOCATOR) else {
            return Ok(None);
        };
        if !self
            .read(locator, LOCATOR as usize)?
            .starts_with(b"PK\x06\x07")
        {
            return Ok(None);
        }
        let broken = || self.fail("its zip64 directory cannot be found");
        let position = locator.checked_sub(RECORD).ok_or_else(broken)?;
        let bytes = self.read(position, RECORD as usize)?;
        if !bytes.starts_with(b"PK\x06\x06") {
            return Err(broken());
        }
        let mut fields = Fields::new(&bytes[4..]);
        let record_size = fields.u64();
        let _versions = fields.u32();
        let disks = (fields.u32(), fields.u32());
        let counts = (fields.u64(), fields.u64());
        let (size, offset) = (fields.u64(), fields.u64());
        match (counts, size, offset) {
            ((Some(here), Some(count)), Some(size), Some(offset))
                if here == count
                    && record_size == Some(RECORD - 12)
                    && disks == (Some(0), Some(0)) =>
            {
                Ok(Some(EndRecord {
                    position,
                    count,
                    size,
                    offset,
                }))
            }
            _ => Err(broken()),
        }
    }

    fn directory_entry(&self, fields: &mut Fields<'_>) -> Result<ZipEntry, WheelError> {
        let read = read_directory_entry(fields);
        let raw = read.ok_or_else(|| self.fail("its directory is truncated or broken"))?;
        let name = self.decode_name(&raw)?;
        let fail = |reason: &str| WheelError::entry(&self.label, &name, reason);
        let zip64 = Zip64::parse(raw.extra, raw.size, raw.compressed, raw.header);
        let zip64 = zip64.ok_or_else(|| fail("has a broken zip64 field"))?;
        if raw.flags & (1 | 1 << 6 | 1 << 13) != 0 {
            return Err(fail("is encrypted"));
        }
        if raw.disk != 0 {
            return Err(fail("lies in another file of a set"));
        }
        let method = match raw.method {
            0 => Method::Stored,
            8 => Method::Deflate,
            other => {
                return Err(fail(&format!(
                    "uses the compression method {other}; wheels use 0 or 8"
                )));
            }
        };
        let unix = matches!(raw.made_by >> 8, 3 | 19);
        let mode = if unix { raw.attributes >> 16 } else { 0 };
        let folder = name.ends_with('/');
        self.check_kind(&name, mode, folder)?;
        let clean = self.clean_name(&name)?;
        let entry = ZipEntry {
            name: clean,
            folder,
            method,
            crc: raw.crc,
            compressed: zip64.compressed,
            size: zip64.size,
            executable: mode & 0o111 != 0,
            raw_name: raw.name.to_vec(),
            header: zip64.header,
            flags: raw.flags,
        };
        match method {
            _ if folder && entry.size != 0 => Err(fail("is a folder with content")),
            Method::Stored if entry.size != entry.compressed => {
                Err(fail("is stored, but declares two different sizes"))
            }
            Method::Deflate if entry.size / MAX_RATIO > entry.compressed => {
                Err(fail("declares a size that its data cannot inflate to"))
            }
            _ => Ok(entry),
        }
    }

    fn decode_name(&self, raw: &RawEntry<'_>) -> Result<String, WheelError> {
        let name = match std::str::from_utf8(raw.name) {
            Ok(name) if raw.flags & (1 << 11) != 0 || name.is_ascii() => name.to_owned(),
            _ if raw.flags & (1 << 11) == 0 => cp437(raw.name),
            _ => {
                let lossy = String::from_utf8_lossy(raw.name);
                return Err(WheelError::entry(
                    &self.label,
                    &lossy,
                    "has a name that is not UTF-8",
                ));
            }
        };
        match unicode_path(raw.extra, raw.name) {
            Some(other) if other != name.as_bytes() => Err(WheelError::entry(
                &self.label,
                &name,
                "has two different names",
            )),
            _ => Ok(name),
        }
    }

    fn check_kind(&self, name: &str, mode: u32, folder: bool) -> Result<(), WheelError> {
        let reason = match (mode >> 12 & 0o17, folder) {
            (0o0 | 0o10, false) | (0o0 | 0o4, true) => return Ok(()),
            (0o12, _) => "is a symbolic link",
            (0o2 | 0o6, _) => "is a device",
            (0o1, _) => "is a named pipe",
            (0o14, _) => "is a socket",
            _ => "has a name and a mode that contradict each other",
        };
        Err(WheelError::entry(&self.label, name, reason))
    }

    fn clean_name(&self, name: &str) -> Result<String, WheelError> {
        let path = name.strip_suffix('/').unwrap_or(name);
        let fail = |reason: &str| Err(WheelError::entry(&self.label, name, reason));
        if path.contains('\0') {
            return fail("has a NUL character in its name");
        }
        if path.contains('\\') {
            return fail("has a backslash in its name");
        }
        let drive =
            path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
        if path.starts_with('/') || drive {
            return fail("has an absolute path");
        }
        let mut parts = Vec::new();
        for part in path.split('/') {
            match part {
                "" => return fail("has an empty component in its path"),
                "." => {}
                ".." => return fail("leads out of the wheel with `..`"),
                _ if part.len() > 255 => return fail("has a component of more than 255 bytes"),
                _ => parts.push(part),
            }
        }
        if parts.is_empty() || path.len() > 4000 {
            return fail("has no usable name");
        }
        Ok(parts.join("/"))
    }

    /// Where the data of an entry begins, after checking its local header against the directory, and where the entry
    /// ends (its data descriptor included).
    pub fn locate(&self, entry: &ZipEntry) -> Result<(u64, u64), WheelError> {
        const SIZE: u64 = 30;
        let fail = |reason: &str| WheelError::entry(&self.label, &entry.name, reason);
        let at = self.prefix.saturating_add(entry.header);
        let header_end = at.checked_add(SIZE).filter(|&end| end <= self.directory);
        if header_end.is_none() {
            return Err(fail("lies outside of the file"));
        }
        let bytes = self.read(at, SIZE as usize)?;
        let Some(local) = read_local(&bytes) else {
            return Err(fail("has no local header"));
        };
        let variable = u64::from(local.name_len) + u64::from(local.extra_len);
        let start = at + SIZE + variable;
        let end = start
            .checked_add(entry.compressed)
            .filter(|&end| end <= self.directory);
        let Some(end) = end else {
            return Err(fail("has data beyond the end of the file"));
        };
        let variable = self.read(at + SIZE, variable as usize)?;
        let (name, extra) = variable.split_at(local.name_len.into());
        if name != entry.raw_name {
            return Err(fail("has another name in its local header"));
        }
        let descriptor = local.flags & (1 << 3) != 0;
        if local.method != entry.method.code() || (local.flags ^ entry.flags) & !(1 << 11 | 6) != 0
        {
            return Err(fail("has a local header that contradicts the directory"));
        }
        let zip64 = Zip64::parse(extra, local.size, local.compressed, 0);
        let zip64 = zip64.ok_or_else(|| fail("has a broken zip64 field"))?;
        let told = (local.crc, zip64.compressed, zip64.size);
        let right = (entry.crc, entry.compressed, entry.size);
        let untold = descriptor && [told.1, told.2].iter().all(|&size| size == 0) && told.0 == 0;
        if told != right && !untold {
            return Err(fail(
                "declares other sizes or another CRC in its local header",
            ));
        }
        if !descriptor {
            return Ok((start, end));
        }
        let length = self.descriptor_length(entry, end)?;
        Ok((start, end + length))
    }

    /// Length of the data descriptor at `at`, which must repeat what the directory says.
    fn descriptor_length(&self, entry: &ZipEntry, at: u64) -> Result<u64, WheelError> {
        let room = (self.directory - at).min(24) as usize;
        let bytes = self.read(at, room)?;
        let crc = entry.crc.to_le_bytes();
        let sizes = [entry.compressed, entry.size];
        let mut short = crc.to_vec();
        let mut long = crc.to_vec();
        for size in sizes {
            short.extend_from_slice(&(size as u32).to_le_bytes());
            long.extend_from_slice(&size.to_le_bytes());
        }
        let fits_short = sizes.iter().all(|&size| size <= u32::MAX.into());
        for signature in [&b"PK\x07\x08"[..], b""] {
            let Some(rest) = bytes.strip_prefix(signature) else {
                continue;
            };
            if rest.starts_with(&long) {
                return Ok((signature.len() + long.len()) as u64);
            }
            if fits_short && rest.starts_with(&short) {
                return Ok((signature.len() + short.len()) as u64);
            }
        }
        let reason = "has a data descriptor that contradicts the directory";
        Err(WheelError::entry(&self.label, &entry.name, reason))
    }

    /// Where the data of every entry begins, in the order of `entries`; refuses entries that overlap.
    pub fn locate_all(&self) -> Result<Vec<u64>, WheelError> {
        let mut starts = Vec::with_capacity(self.entries.len());
        let mut extents = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            let (start, end) = self.locate(entry)?;
            starts.push(start);
            extents.push((self.prefix + entry.header, end, index));
        }
        extents.sort_unstable();
        for pair in extents.windows(2) {
            if pair[1].0 < pair[0].1 {
                let name = &self.entries[pair[1].2].name;
                return Err(WheelError::entry(
                    &self.label,
                    name,
                    "overlaps another entry",
                ));
            }
        }
        Ok(starts)
    }
}

impl Method {
    fn code(self) -> u16 {
        match self {
            Self::Stored => 0,
            Self::Deflate => 8,
        }
    }
}

struct EndRecord {
    /// Where the directory ends.
    position: u64,
    count: u64,
    size: u64,
    offset: u64,
}

struct RawEntry<'a> {
    made_by: u16,
    flags: u16,
    method: u16,
    crc: u32,
    compressed: u32,
    size: u32,
    disk: u16,
    attributes: u32,
    header: u32,
    name: &'a [u8],
    extra: &'a [u8],
}

fn read_directory_entry<'a>(fields: &mut Fields<'a>) -> Option<RawEntry<'a>> {
    if fields.take(4)? != b"PK\x01\x02" {
        return None;
    }
    let made_by = fields.u16()?;
    let _needed = fields.u16()?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    let _time_and_date = fields.u32()?;
    let (crc, compressed, size) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (name_len, extra_len) = (fields.u16()?, fields.u16()?);
    let (comment_len, disk) = (fields.u16()?, fields.u16()?);
    let _internal = fields.u16()?;
    let (attributes, header) = (fields.u32()?, fields.u32()?);
    let name = fields.take(name_len.into())?;
    let extra = fields.take(extra_len.into())?;
    fields.take(comment_len.into())?;
    Some(RawEntry {
        made_by,
        flags,
        method,
        crc,
        compressed,
        size,
        disk,
        attributes,
        header,
        name,
        extra,
    })
}

struct Local {
    flags: u16,
    method: u16,
    crc: u32,
    compressed: u32,
    size: u32,
    name_len: u16,
    extra_len: u16,
}

fn read_local(bytes: &[u8]) -> Option<Local> {
    let mut fields = Fields::new(bytes);
    if fields.take(4)? != b"PK\x03\x04" {
        return None;
    }
    let _needed = fields.u16()?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    let _time_and_date = fields.u32()?;
    Some(Local {
        flags,
        method,
        crc: fields.u32()?,
        compressed: fields.u32()?,
        size: fields.u32()?,
        name_len: fields.u16()?,
        extra_len: fields.u16()?,
    })
}
