//! Reads a wheel (binary distribution format) and says what an installation of it consists of.
//!
//! [`Wheel::open`] checks the structure of the archive and who the wheel is; [`Wheel::places`] says where its files go;
//! [`Wheel::install`] is the whole installation as tar entries, RECORD checked and rewritten. Content stays in the wheel
//! and is referred to by range. Nothing here writes to disk, and no wheel can name a path outside of the environment.
//!
//! What is verified when: that RECORD lists every file, with an allowed hash and the right size, and that entries do
//! not overlap or contradict their headers, by `install`; the length and CRC of every entry, while a layer is
//! spliced. The hashes of RECORD cost another pass of SHA-256 over all content, a third of the time of a
//! splice, while the wheel's own SHA-256 is known from the lock: [`Wheel::verify_contents`] checks them once per wheel
//! and store, at best while other wheels still download.

mod error;
mod fields;
mod inflate;
mod install;
mod metadata;
mod record;
mod zip;

use std::io::{self, Write};
use std::path::Path;

pub use error::WheelError;
pub use inflate::{Streaming, Whole};
pub use install::{Content, Item, Place, Range, Source};
pub use metadata::{NameVersion, normalise};
pub use record::{Hasher, RecordHash};
pub use zip::Method;

pub(super) use error::shown;
use metadata::{check_wheel_version, header};
use zip::{Archive, ZipEntry};

use crate::digest::{Digest, HashingWriter};

/// The largest `WHEEL`, `METADATA` or RECORD that is read, in bytes.
const MAX_TEXT: u64 = 256 << 20;
/// The largest script whose first line is rewritten, in bytes.
const MAX_SCRIPT: u64 = 64 << 20;
/// Bytes that are read and inflated at a time where an entry is streamed.
pub const PIECE: usize = 1 << 20;

/// An open wheel.
#[derive(Debug)]
pub struct Wheel {
    /// Who it is, by its file name.
    pub release: NameVersion,
    archive: Archive,
    /// Name of the `.dist-info` folder, without the suffix.
    stem: String,
}

impl Wheel {
    /// Opens the wheel at `path`, whose file name (which may differ from the path's) is `file_name`.
    ///
    /// # Errors
    /// When it cannot be read, or is refused.
    pub fn open(path: &Path, file_name: &str) -> Result<Self, WheelError> {
        let archive = Archive::open(path, &shown(file_name))?;
        let fail = |reason: String| WheelError::wheel(&archive.label, reason);
        let release = NameVersion::of_file_name(file_name).map_err(fail)?;
        let stem = find_dist_info(&archive)?;
        let told = NameVersion::of_dist_info(&stem).map_err(fail)?;
        if !told.fits(&release) {
            return Err(fail(format!(
                "its folder `{stem}.dist-info` belongs to another release"
            )));
        }
        let wheel = Self {
            release,
            archive,
            stem,
        };
        wheel.check_texts()?;
        Ok(wheel)
    }

    fn check_texts(&self) -> Result<(), WheelError> {
        let wheel = self.dist_info("WHEEL");
        check_wheel_version(&self.text(&wheel)?)
            .map_err(|reason| WheelError::entry(&self.archive.label, &wheel, reason))?;
        let path = self.dist_info("METADATA");
        let metadata = self.text(&path)?;
        let fail = |reason: &str| WheelError::entry(&self.archive.label, &path, reason);
        let (Some(name), Some(version)) = (header(&metadata, "Name"), header(&metadata, "Version"))
        else {
            return Err(fail("says no Name or no Version"));
        };
        match NameVersion::of(name, version) {
            Ok(told) if told.fits(&self.release) => Ok(()),
            Ok(_) => Err(fail("belongs to another release than the file name says")),
            Err(reason) => Err(fail(&format!("is not usable: {reason}"))),
        }
    }

    /// The SPDX expression of `License-Expression` (core metadata 2.4), if the wheel has one.
    ///
    /// # Errors
    /// When `METADATA` cannot be read.
    pub fn licence(&self) -> Result<Option<String>, WheelError> {
        let metadata = self.text(&self.dist_info("METADATA"))?;
        let found = header(&metadata, "License-Expression");
        Ok(found.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    fn dist_info(&self, name: &str) -> String {
        format!("{}.dist-info/{name}", self.stem)
    }

    fn find(&self, name: &str) -> Option<&ZipEntry> {
        let mut entries = self.archive.entries.iter();
        entries.find(|entry| entry.name == name && !entry.folder)
    }

    /// A text that must be there.
    fn text(&self, name: &str) -> Result<String, WheelError> {
        let Some(entry) = self.find(name) else {
            return Err(WheelError::wheel(
                &self.archive.label,
                format!("it has no `{}`", shown(name)),
            ));
        };
        let bytes = self.content(entry, MAX_TEXT)?;
        String::from_utf8(bytes)
            .map_err(|_| WheelError::entry(&self.archive.label, name, "is not UTF-8 text"))
    }

    /// The whole content of an entry of at most `limit` bytes.
    fn content(&self, entry: &ZipEntry, limit: u64) -> Result<Vec<u8>, WheelError> {
        if entry.size.max(entry.compressed) > limit {
            let reason = format!("has more than {limit} bytes");
            return Err(WheelError::entry(&self.archive.label, &entry.name, reason));
        }
        let mut content = Vec::new();
        let (start, _) = self.archive.locate(entry)?;
        self.stream(&Range::of(entry, start), |piece| {
            content.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(content)
    }

    /// Hands the content of `range` to `emit`, piece by piece; its length and CRC are checked.
    ///
    /// # Errors
    /// When the data is not what the range says, and those of `emit`.
    pub fn stream(
        &self,
        range: &Range,
        mut emit: impl FnMut(&[u8]) -> Result<(), WheelError>,
    ) -> Result<(), WheelError> {
        let mut crc = crc32fast::Hasher::new();
        self.stream_raw(
            range,
            |_| Ok(()),
            |piece| {
                crc.update(&piece);
                emit(&piece)
            },
        )?;
        self.check_crc(range, crc.finalize())
    }

    /// Hands the data of `range` to `raw` and its content to `emit`, piece by piece. The CRC is the caller's to check.
    pub fn stream_raw(
        &self,
        range: &Range,
        mut raw: impl FnMut(Vec<u8>) -> Result<(), WheelError>,
        mut emit: impl FnMut(Vec<u8>) -> Result<(), WheelError>,
    ) -> Result<(), WheelError> {
        let fail = |reason: &str| self.refuse(range, reason);
        let mut inflater = Streaming::new(range.size);
        let mut done = 0;
        while done < range.compressed {
            let length = (range.compressed - done).min(PIECE as u64) as usize;
            let data = self.read(range.offset + done, length)?;
            done += length as u64;
            match range.method {
                Method::Stored => emit(data.clone())?,
                Method::Deflate => inflater
                    .feed(&data, PIECE, |piece| emit(piece).map_err(Stop::Emit))
                    .map_err(|stop| match stop {
                        Stop::Data(reason) => fail(reason),
                        Stop::Emit(error) => error,
                    })?,
            }
            raw(data)?;
        }
        match range.method {
            Method::Stored => Ok(()),
            Method::Deflate => inflater.finish().map_err(fail),
        }
    }

    /// Bytes of the wheel file.
    pub fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, WheelError> {
        self.archive.read(at, len)
    }

    /// Refuses the entry of `range` unless `found` is its CRC.
    pub fn check_crc(&self, range: &Range, found: u32) -> Result<(), WheelError> {
        if found == range.crc {
            return Ok(());
        }
        Err(self.refuse(range, "has content that contradicts its CRC"))
    }

    /// The error that names the entry of `range`.
    pub fn refuse(&self, range: &Range, reason: &str) -> WheelError {
        WheelError::entry(&self.archive.label, &range.name, reason)
    }

    /// The file name, as messages show it.
    pub fn label(&self) -> &str {
        &self.archive.label
    }

    /// The SHA-256 of what a place of this wheel holds, before a script's first line is rewritten.
    ///
    /// # Errors
    /// When the wheel is refused.
    pub fn content_digest(&self, place: &Place) -> Result<Digest, WheelError> {
        let index = match &place.source {
            Source::Folder | Source::Record => return Ok(Digest::of("")),
            Source::Made(text) => return Ok(Digest::of(text)),
            Source::Entry(index) | Source::Script(index) => *index,
        };
        let entry = &self.archive.entries[index];
        let (start, _) = self.archive.locate(entry)?;
        let mut hasher = HashingWriter::new(io::sink());
        self.stream(&Range::of(entry, start), |piece| {
            hasher
                .write_all(piece)
                .map_err(WheelError::io(&self.archive.label))
        })?;
        Ok(hasher.finish().1)
    }

    /// The same for all of `places`, taken from RECORD where it has SHA-256: the wheel's contents must have been checked
    /// against RECORD before.
    ///
    /// # Errors
    /// When the wheel is refused.
    pub fn content_digests(&self, places: &[Place]) -> Result<Vec<Digest>, WheelError> {
        let record = self.record()?;
        let told = |place: &Place| match place.source {
            Source::Entry(index) | Source::Script(index) => {
                let line = record.get(&self.archive.entries[index].name)?;
                line.hash.as_ref()?.sha256()
            }
            Source::Folder | Source::Made(_) | Source::Record => None,
        };
        let digests = places.iter().map(|place| match told(place) {
            Some(digest) => Ok(digest),
            None => self.content_digest(place),
        });
        digests.collect()
    }

    /// Checks the content of every file against the hash that RECORD has of it.
    ///
    /// # Errors
    /// When the wheel is refused; the entry is named.
    pub fn verify_contents(&self) -> Result<(), WheelError> {
        let record = self.record()?;
        let starts = self.archive.locate_all()?;
        for (entry, start) in self.archive.entries.iter().zip(starts) {
            let line = record.get(&entry.name);
            let hash = line.and_then(|line| line.hash.as_ref());
            let range = Range::of(entry, start);
            let Some(hash) = hash.filter(|_| !entry.folder) else {
                self.stream(&range, |_| Ok(()))?;
                continue;
            };
            let mut hasher = hash.hasher();
            self.stream(&range, |piece| {
                hasher.update(piece);
                Ok(())
            })?;
            self.check_hash(&range, hash, hasher)?;
        }
        Ok(())
    }

    /// Refuses the entry of `range` unless `hasher` saw the content that RECORD means.
    pub fn check_hash(
        &self,
        range: &Range,
        expected: &RecordHash,
        hasher: Hasher,
    ) -> Result<(), WheelError> {
        if hasher.finish() == *expected {
            return Ok(());
        }
        Err(self.refuse(range, "has content that contradicts its hash in RECORD"))
    }
}

enum Stop {
    Data(&'static str),
    Emit(WheelError),
}

impl From<&'static str> for Stop {
    fn from(reason: &'static str) -> Self {
        Self::Data(reason)
    }
}

/// The one `.dist-info` folder at the root, without the suffix.
fn find_dist_info(archive: &Archive) -> Result<String, WheelError> {
    let mut found: Option<&str> = None;
    for entry in &archive.entries {
        let top = entry.name.split('/').next().unwrap_or_default();
        let Some(stem) = top.strip_suffix(".dist-info") else {
            continue;
        };
        match found {
            Some(other) if other != stem => {
                let reason = format!(
                    "it has two metadata folders, `{}.dist-info` and `{}.dist-info`",
                    shown(other),
                    shown(stem)
                );
                return Err(WheelError::wheel(&archive.label, reason));
            }
            _ => found = Some(stem),
        }
    }
    match found {
        Some(stem) => Ok(stem.into()),
        None => Err(WheelError::wheel(
            &archive.label,
            "it has no .dist-info folder",
        )),
    }
}
