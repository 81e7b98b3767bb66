//! How a spliced layer is kept: a description from which its blob is streamed, never the blob itself.
//!
//! A recipe is one file of the store, named by the layer key:
//!
//! ```text
//! "imagewright recipe 1\n"       magic and version
//! literal bytes                  what of the blob is in no wheel, in order
//! JSON                           a [`Recipe`]: the layer, its wheels, its segments
//! u64                            length of the JSON in bytes, little-endian
//! 32 bytes                       SHA-256 of the JSON
//! ```
//!
//! Loading verifies the frame and the JSON; the bytes that it leads to are verified against the layer's digest while they
//! are streamed. A file that is not whole, or not of this version, is removed and counts as absent.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Layer;
use super::error::LayerError;
use super::pack::GZIP_HEADER;
use super::splice::{STORED_BLOCK, Segment, gzip_trailer, stored_header};
use crate::digest::Digest;
use crate::store::{Pending, Store};

/// First bytes of a recipe file.
const MAGIC: &[u8] = b"imagewright recipe 1\n";
/// Length of what follows the JSON, in bytes.
const FOOT: u64 = 8 + 32;
/// The largest JSON that is read, in bytes.
const MAX_JSON: u64 = 512 << 20;

/// A wheel that a layer takes bytes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipeWheel {
    /// File name.
    pub name: String,
    /// Of the file.
    pub sha256: Digest,
}

/// How to stream a layer's blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The layer.
    pub layer: Layer,
    /// What segments refer to by index.
    pub wheels: Vec<RecipeWheel>,
    /// The blob, part by part.
    pub segments: Vec<Segment>,
}

/// The part of a [`Recipe`] that [`Recipe::wheels_in`] reads.
#[derive(Deserialize)]
struct Wheels {
    wheels: Vec<RecipeWheel>,
}

/// A recipe file in the making: literal bytes are written to it, then [`RecipeFile::commit`] ends it.
#[derive(Debug)]
pub struct RecipeFile(Pending);

impl RecipeFile {
    /// Begins a file in the store's temporary folder.
    pub fn create(store: &Store) -> Result<Self, LayerError> {
        let mut pending = store.pending()?;
        pending.append(MAGIC)?;
        Ok(Self(pending))
    }

    /// Its temporary path.
    pub fn path(&self) -> std::path::PathBuf {
        self.0.path().to_owned()
    }

    /// Puts the recipe into place.
    pub fn commit(mut self, store: &Store, recipe: &Recipe) -> Result<(), LayerError> {
        let json = serde_json::to_vec(recipe)
            .map_err(|error| LayerError::io("encode", self.0.path())(error.into()))?;
        self.0.append(&json)?;
        self.0.append(&(json.len() as u64).to_le_bytes())?;
        self.0.append(Digest::of(&json).bytes())?;
        self.0.commit(&store.recipe_path(&recipe.layer.key))?;
        Ok(())
    }
}

impl Write for RecipeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Recipe {
    /// The recipe of layer `key`, if the store has a whole one. One that is not whole is removed.
    ///
    /// # Errors
    /// When the file exists but cannot be read.
    pub fn load(store: &Store, key: &Digest) -> Result<Option<Self>, LayerError> {
        let path = store.recipe_path(key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LayerError::io("read", path)(error)),
        };
        match Self::read(&file, key).map_err(LayerError::io("read", &path))? {
            Some(recipe) => Ok(Some(recipe)),
            None => {
                fs::remove_file(&path).map_err(LayerError::io("remove the broken", path))?;
                Ok(None)
            }
        }
    }

    /// The wheels that the recipe in this file streams from; none if the file is not a whole recipe. For who looks at
    /// recipes without using them.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn wheels_in(path: &Path) -> io::Result<Vec<Digest>> {
        let json = Self::read_json(&File::open(path)?)?;
        let wheels = json.and_then(|(json, _)| serde_json::from_slice::<Wheels>(&json).ok());
        Ok(wheels.map_or(Vec::new(), |found| {
            found.wheels.iter().map(|wheel| wheel.sha256).collect()
        }))
    }

    fn read(file: &File, key: &Digest) -> io::Result<Option<Self>> {
        let Some((json, literals)) = Self::read_json(file)? else {
            return Ok(None);
        };
        let recipe = serde_json::from_slice::<Self>(&json).ok();
        Ok(recipe.filter(|recipe| recipe.layer.key == *key && recipe.is_whole(literals)))
    }

    /// The verified JSON of a recipe's file, and how many literal bytes stand before it.
    fn read_json(file: &File) -> io::Result<Option<(Vec<u8>, u64)>> {
        let meta = file.metadata()?;
        let room = meta.len().checked_sub(MAGIC.len() as u64 + FOOT);
        let Some(room) = room.filter(|_| meta.is_file()) else {
            return Ok(None);
        };
        let mut magic = vec![0; MAGIC.len()];
        file.read_exact_at(&mut magic, 0)?;
        let mut foot = [0; FOOT as usize];
        file.read_exact_at(&mut foot, meta.len() - FOOT)?;
        let length = foot[..8]
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        if magic != MAGIC || length > room.min(MAX_JSON) {
            return Ok(None);
        }
        let mut json = vec![0; length as usize];
        file.read_exact_at(&mut json, meta.len() - FOOT - length)?;
        if Digest::of(&json).bytes() != &foot[8..] {
            return Ok(None);
        }
        Ok(Some((json, room - length)))
    }

    fn is_whole(&self, literals: u64) -> bool {
        let (mut told, mut size) = (0_u64, 0_u64);
        for segment in &self.segments {
            match *segment {
                Segment::Literal(len) => told = told.saturating_add(len),
                Segment::Deflate(wheel, ..) | Segment::Stored(wheel, ..)
                    if wheel >= self.wheels.len() =>
                {
                    return false;
                }
                _ => {}
            }
            size = size.saturating_add(segment.len());
        }
        told == literals && size == self.layer.size
    }

    /// Streams the blob; at its end, the digest is verified.
    ///
    /// # Errors
    /// When a wheel or the recipe's own file is missing. While reading: when the bytes are not the layer's any more.
    pub fn reader(&self, store: &Store) -> Result<RecipeReader<'_>, LayerError> {
        Self::open(Cow::Borrowed(self), store, 0)
    }

    /// Like [`Recipe::reader`], with a reader that stands alone.
    ///
    /// # Errors
    /// The same.
    pub fn into_reader(self, store: &Store) -> Result<RecipeReader<'static>, LayerError> {
        self.into_reader_at(store, 0)
    }

    /// Like [`Recipe::into_reader`], from byte `from` of the blob on; only a whole blob is verified.
    ///
    /// # Errors
    /// The same.
    pub fn into_reader_at(
        self,
        store: &Store,
        from: u64,
    ) -> Result<RecipeReader<'static>, LayerError> {
        Self::open(Cow::Owned(self), store, from)
    }

    /// The blob's bytes `from..from + len`, clipped to its end. Not verified: the receiver of all ranges does that.
    pub fn read_range(&self, store: &Store, from: u64, len: usize) -> Result<Vec<u8>, LayerError> {
        let reader = Self::open(Cow::Borrowed(self), store, from)?;
        let mut bytes = Vec::with_capacity(len);
        reader
            .take(len as u64)
            .read_to_end(&mut bytes)
            .map_err(LayerError::io("stream", store.recipe_path(&self.layer.key)))?;
        Ok(bytes)
    }

    fn open<'a>(
        recipe: Cow<'a, Self>,
        store: &Store,
        from: u64,
    ) -> Result<RecipeReader<'a>, LayerError> {
        let path = store.recipe_path(&recipe.layer.key);
        let literals = File::open(&path).map_err(LayerError::io("read", &path))?;
        let (mut wheels, mut paths) = (Vec::new(), Vec::new());
        for wheel in &recipe.wheels {
            let path = store.artifact_path(&wheel.sha256);
            wheels.push(File::open(&path).map_err(|_| LayerError::MissingWheel {
                name: wheel.name.clone(),
                digest: wheel.sha256,
            })?);
            paths.push(path);
        }
        let mut reader = RecipeReader {
            recipe,
            literals,
            path,
            wheels,
            paths,
            next: 0,
            literal_at: MAGIC.len() as u64,
            within: 0,
            hasher: (from == 0).then(Sha256::new),
        };
        reader.seek(from);
        Ok(reader)
    }
}

/// Streams a blob.
#[derive(Debug)]
pub struct RecipeReader<'a> {
    recipe: Cow<'a, Recipe>,
    literals: File,
    path: PathBuf,
    wheels: Vec<File>,
    paths: Vec<PathBuf>,
    /// Index of the segment being read.
    next: usize,
    /// Where that segment's literals begin in the recipe's file, or would.
    literal_at: u64,
    /// Bytes of it that were read.
    within: u64,
    /// Absent when only a part is read.
    hasher: Option<Sha256>,
}

impl RecipeReader<'_> {
    fn seek(&mut self, mut from: u64) {
        while let Some(&segment) = self.recipe.segments.get(self.next) {
            if from < segment.len() {
                self.within = from;
                return;
            }
            from -= segment.len();
            self.leave(segment);
        }
    }

    fn leave(&mut self, segment: Segment) {
        if let Segment::Literal(len) = segment {
            self.literal_at += len;
        }
        self.next += 1;
        self.within = 0;
    }

    fn read_segment(&self, segment: Segment, out: &mut [u8]) -> io::Result<usize> {
        let room = (segment.len() - self.within).min(out.len() as u64) as usize;
        let out = &mut out[..room];
        match segment {
            Segment::Literal(_) => self.literals.read_at(out, self.literal_at + self.within),
            Segment::Deflate(wheel, offset, compressed, crc, size) => {
                let body = |at: u64, out: &mut [u8]| self.wheels[wheel].read_at(out, offset + at);
                framed(self.within, compressed, crc, size, out, body)
            }
            Segment::Stored(wheel, offset, size, crc) => {
                let body = |at: u64, out: &mut [u8]| {
                    stored_body(&self.wheels[wheel], offset, size, at, out)
                };
                let length = segment.len() - (GZIP_HEADER.len() + 8) as u64;
                framed(self.within, length, crc, size, out, body)
            }
        }
    }

    /// Removes what is not what it was, so that the next build makes or fetches it anew.
    fn set_aside(&self) {
        let _ = fs::remove_file(&self.path);
        for (file, (path, wheel)) in self
            .wheels
            .iter()
            .zip(self.paths.iter().zip(&self.recipe.wheels))
        {
            let mut file = file;
            let found = file.rewind().and_then(|()| Digest::of_reader(file));
            if found.is_ok_and(|(digest, _)| digest != wheel.sha256) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn finish(&mut self) -> io::Result<usize> {
        if let Some(hasher) = self.hasher.take() {
            let found = Digest::from_bytes(hasher.finalize().into());
            let layer = &self.recipe.layer;
            if found != layer.digest {
                self.set_aside();
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    LayerError::Damaged {
                        comment: layer.comment.clone(),
                        expected: layer.digest,
                        found,
                        reason: "a wheel or the recipe in the store was changed",
                    },
                ));
            }
        }
        Ok(0)
    }
}

impl Read for RecipeReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let Some(&segment) = self.recipe.segments.get(self.next) else {
            return self.finish();
        };
        let read = self.read_segment(segment, out)?;
        if read == 0 {
            self.set_aside();
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a wheel in the store is shorter than it was",
            ));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&out[..read]);
        }
        self.within += read as u64;
        if self.within == segment.len() {
            self.leave(segment);
        }
        Ok(read)
    }
}

/// Reads at `at` of a gzip member whose deflate data of `length` bytes is read by `body`.
fn framed(
    at: u64,
    length: u64,
    crc: u32,
    size: u64,
    out: &mut [u8],
    body: impl Fn(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let head = GZIP_HEADER.len() as u64;
    if at < head {
        return Ok(copy(&GZIP_HEADER[at as usize..], out));
    }
    let at = at - head;
    if at < length {
        let room = (length - at).min(out.len() as u64) as usize;
        return body(at, &mut out[..room]);
    }
    Ok(copy(
        &gzip_trailer(crc, size)[(at - length) as usize..],
        out,
    ))
}

/// Reads at `at` of the stored blocks around the bytes `offset..offset + size` of `file`.
fn stored_body(file: &File, offset: u64, size: u64, at: u64, out: &mut [u8]) -> io::Result<usize> {
    const FRAME: u64 = STORED_BLOCK as u64 + 5;
    let (block, within) = (at / FRAME, at % FRAME);
    let begin = block * STORED_BLOCK as u64;
    let len = (size - begin).min(STORED_BLOCK as u64);
    if within < 5 {
        let header = stored_header(len as usize, begin + len == size);
        return Ok(copy(&header[within as usize..], out));
    }
    let room = (len - (within - 5)).min(out.len() as u64) as usize;
    file.read_at(&mut out[..room], offset + begin + within - 5)
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}
