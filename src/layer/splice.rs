//! Entries → gzipped tar, without recompressing what a wheel has compressed already.
//!
//! The blob is a sequence of gzip members (RFC 1952, section 2.2), whose contents in a row are the tar:
//!
//! - an entry of more than [`SMALL`] bytes keeps its deflate stream, as a member of its own;
//! - a stored entry of that size becomes stored deflate blocks, as a member of its own;
//! - all else (headers, padding, small files, made files, the trailer) is compressed by libdeflate in shared members,
//!   cut at [`GROUP`] bytes and before each member of the other kinds.
//!
//! The blob itself is never written: the result is a list of [`Segment`]s, and the literal bytes between ranges of the
//! wheels. Both digests come out of the same pass: one thread reads and inflates, one hashes the tar, one hashes the blob,
//! and where RECORD's hashes are still to be verified, one hashes contents. Bytes depend on none of that. An entry above
//! [`HELD`] bytes is streamed; buffers of smaller ones count against a [`Budget`] that all layers in work share.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use libdeflater::{CompressionLvl, Compressor};
use serde::{Deserialize, Serialize};

use super::entry::{BLOCK, Entry, TRAILER};
use super::error::LayerError;
use super::pack::{GZIP_HEADER, Packed, gzip_member};
use super::wheel::{Hasher, Method, PIECE, Range, RecordHash, Wheel, WheelError, Whole};
use crate::digest::{Digest, HashingWriter};

/// Entries up to this size share gzip members, in bytes.
pub const SMALL: u64 = 32 << 10;
/// Bytes of tar in a shared member.
const GROUP: usize = 1 << 20;
/// Entries up to this size are inflated in one piece, in bytes.
const HELD: u64 = 32 << 20;
/// libdeflate's level for shared members. Level 6 would make the blobs of a typical image 0.06 % smaller.
const LEVEL: i32 = 3;
/// Bytes in a stored deflate block (RFC 1951, section 3.2.4).
pub const STORED_BLOCK: usize = 65_535;
/// Pieces that may wait for a hashing thread.
const QUEUE: usize = 4;

/// One entry of the tar and where its content is.
#[derive(Clone, Debug)]
pub struct Member {
    /// The header.
    pub entry: Entry,
    /// The content.
    pub content: MemberContent,
}

/// Where an entry's content is.
#[derive(Clone, Debug)]
pub enum MemberContent {
    /// Here; empty for what has none.
    Bytes(Vec<u8>),
    /// In a wheel.
    Range {
        /// Index into the wheels of the layer.
        wheel: usize,
        /// Which bytes.
        range: Range,
    },
}

/// A part of a blob, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Segment {
    /// The next so many literal bytes.
    #[serde(rename = "l")]
    Literal(u64),
    /// A gzip member around a deflate stream: wheel index, offset, bytes of data, CRC-32, bytes of content.
    #[serde(rename = "d")]
    Deflate(usize, u64, u64, u32, u64),
    /// A gzip member of stored blocks around plain bytes: wheel index, offset, bytes, CRC-32.
    #[serde(rename = "s")]
    Stored(usize, u64, u64, u32),
}

impl Segment {
    /// Bytes of the blob.
    pub fn len(&self) -> u64 {
        let frame = (GZIP_HEADER.len() + 8) as u64;
        match *self {
            Self::Literal(len) => len,
            Self::Deflate(_, _, compressed, _, _) => frame + compressed,
            Self::Stored(_, _, size, _) => frame + size + 5 * size.div_ceil(STORED_BLOCK as u64),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The 8 bytes at the end of a gzip member.
pub fn gzip_trailer(crc: u32, size: u64) -> [u8; 8] {
    let mut trailer = [0; 8];
    trailer[..4].copy_from_slice(&crc.to_le_bytes());
    trailer[4..].copy_from_slice(&(size as u32).to_le_bytes());
    trailer
}

/// The 5 bytes before the data of a stored block.
pub fn stored_header(len: usize, last: bool) -> [u8; 5] {
    let len = len as u16;
    let [low, high] = len.to_le_bytes();
    let [not_low, not_high] = (!len).to_le_bytes();
    [last.into(), low, high, not_low, not_high]
}

/// How many bytes of buffers may be alive at once, over all layers in work.
#[derive(Debug)]
pub struct Budget {
    used: Mutex<u64>,
    freed: Condvar,
    limit: u64,
}

impl Budget {
    /// At most `limit` bytes (one larger buffer is granted when nothing else is alive).
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            used: Mutex::new(0),
            freed: Condvar::new(),
            limit,
        })
    }

    fn acquire(self: &Arc<Self>, bytes: u64) -> Permit {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used > 0 && *used + bytes > self.limit {
            used = self
                .freed
                .wait(used)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Permit {
            budget: Arc::clone(self),
            bytes,
        }
    }
}

#[derive(Debug)]
struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self
            .budget
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *used -= self.bytes;
        self.budget.freed.notify_all();
    }
}

/// Bytes on their way to a hashing thread. The permit goes when the last of them is hashed.
#[derive(Clone, Debug)]
struct Piece {
    bytes: Arc<Vec<u8>>,
    _permit: Option<Arc<Permit>>,
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(bytes),
            _permit: None,
        }
    }
}

enum Check {
    Begin(RecordHash),
    Data(Piece),
    End(usize, Range),
}

/// What splicing needs besides the entries.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The wheels that ranges refer to.
    pub wheels: &'a [Wheel],
    /// Whether the contents of each wheel are still to be compared with RECORD's hashes.
    pub verify: &'a [bool],
    /// Shared by all layers in work.
    pub budget: &'a Arc<Budget>,
    /// Called with bytes of tar that are done.
    pub advance: &'a (dyn Fn(u64) + Sync),
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// Splices `members` (sorted by path, no path twice); literal bytes go to `literals`.
///
/// # Errors
/// When a wheel's data is not what its directory or its RECORD says, and those of `literals`.
pub fn splice(
    context: Context<'_>,
    members: &[Member],
    literals: &mut impl Write,
) -> Result<(Packed, Vec<Segment>), SpliceError> {
    thread::scope(|scope| {
        let (tar, tar_pieces) = sync_channel(QUEUE);
        let (blob, blob_pieces) = sync_channel(QUEUE);
        let (check, checks) = sync_channel(QUEUE);
        let tar_thread = scope.spawn(|| hash(tar_pieces));
        let blob_thread = scope.spawn(|| hash(blob_pieces));
        let check_thread = context
            .verify
            .contains(&true)
            .then(|| scope.spawn(|| verify(context.wheels, checks)));
        let level = CompressionLvl::new(LEVEL).unwrap_or_default();
        let mut splicer = Splicer {
            context,
            literals,
            tar,
            blob,
            check,
            group: Vec::with_capacity(GROUP),
            compressor: Compressor::new(level),
            inflater: Whole::new(),
            segments: Vec::new(),
        };
        let spliced = splicer.all(members);
        let segments = std::mem::take(&mut splicer.segments);
        drop(splicer);
        let (diff_id, unpacked) = tar_thread.join().map_err(|_| SpliceError::Thread)?;
        let (digest, size) = blob_thread.join().map_err(|_| SpliceError::Thread)?;
        let checked = match check_thread.map(thread::ScopedJoinHandle::join) {
            Some(Err(_)) => return Err(SpliceError::Thread),
            Some(Ok(result)) => result,
            None => Ok(()),
        };
        checked?;
        spliced?;
        let packed = Packed {
            digest,
            size,
            diff_id,
            unpacked,
        };
        Ok((packed, segments))
    })
}

/// Why splicing stopped.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// A wheel is to blame.
    #[error(transparent)]
    Wheel(#[from] WheelError),
    /// Literal bytes cannot be written.
    #[error("cannot write a layer's bytes")]
    Write(#[from] io::Error),
    /// A hashing thread ended early.
    #[error("a hashing thread ended early")]
    Thread,
}

impl SpliceError {
    /// As a layer's error; `path` is where literals were written.
    pub fn at(self, path: &std::path::Path) -> LayerError {
        match self {
            Self::Wheel(error) => error.into(),
            Self::Write(source) => LayerError::io("write", path)(source),
            Self::Thread => LayerError::io("hash", path)(io::Error::other("a thread ended early")),
        }
    }
}

fn hash(pieces: Receiver<Piece>) -> (Digest, u64) {
    let mut hasher = HashingWriter::new(io::sink());
    for piece in pieces {
        // A sink accepts everything.
        let _ = hasher.write_all(&piece.bytes);
    }
    let (_, digest, size) = hasher.finish();
    (digest, size)
}

fn verify(wheels: &[Wheel], checks: Receiver<Check>) -> Result<(), WheelError> {
    let mut current: Option<(RecordHash, Hasher)> = None;
    let mut result = Ok(());
    for check in checks {
        match (check, &mut current) {
            (Check::Begin(expected), _) => {
                let hasher = expected.hasher();
                current = Some((expected, hasher));
            }
            (Check::Data(piece), Some((_, hasher))) => hasher.update(&piece.bytes),
            (Check::End(wheel, range), _) => {
                if let Some((expected, hasher)) = current.take() {
                    result = result.and(wheels[wheel].check_hash(&range, &expected, hasher));
                }
            }
            (Check::Data(_), None) => {}
        }
    }
    result
}

struct Splicer<'a, W> {
    context: Context<'a>,
    literals: &'a mut W,
    tar: SyncSender<Piece>,
    blob: SyncSender<Piece>,
    check: SyncSender<Check>,
    /// Tar bytes of the shared member in the making.
    group: Vec<u8>,
    compressor: Compressor,
    inflater: Whole,
    segments: Vec<Segment>,
}

fn send<T>(channel: &SyncSender<T>, value: T) -> Result<(), SpliceError> {
    channel.send(value).map_err(|_| SpliceError::Thread)
}

impl<W: Write> Splicer<'_, W> {
    fn all(&mut self, members: &[Member]) -> Result<(), SpliceError> {
        let mut header = Vec::new();
        for member in members {
            header.clear();
            member.entry.write_header(&mut header);
            self.share(&header)?;
            match &member.content {
                MemberContent::Bytes(bytes) => self.share(bytes)?,
                MemberContent::Range { wheel, range } if range.size <= SMALL => {
                    self.small(*wheel, range)?;
                }
                MemberContent::Range { wheel, range } => {
                    self.flush()?;
                    self.large(*wheel, range)?;
                }
            }
            self.share(&[0; BLOCK][..member.entry.padding()])?;
            (self.context.advance)(header.len() as u64 + member.entry.size());
        }
        self.share(&TRAILER)?;
        self.flush()
    }

    /// Adds tar bytes to the shared member.
    fn share(&mut self, mut bytes: &[u8]) -> Result<(), SpliceError> {
        while !bytes.is_empty() {
            let take = bytes.len().min(GROUP - self.group.len());
            self.group.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.group.len() == GROUP {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SpliceError> {
        if self.group.is_empty() {
            return Ok(());
        }
        let member = gzip_member(&mut self.compressor, &self.group)?;
        let group = std::mem::replace(&mut self.group, Vec::with_capacity(GROUP));
        send(&self.tar, group.into())?;
        self.literals.write_all(&member)?;
        let length = member.len() as u64;
        match self.segments.last_mut() {
            Some(Segment::Literal(len)) => *len += length,
            _ => self.segments.push(Segment::Literal(length)),
        }
        send(&self.blob, member.into())
    }

    fn small(&mut self, wheel: usize, range: &Range) -> Result<(), SpliceError> {
        let source = &self.context.wheels[wheel];
        let mut content = Vec::new();
        // Honest data of so small a file is not longer than this; other data is streamed past.
        if range.compressed <= 2 * SMALL && range.method == Method::Deflate {
            let raw = source.read(range.offset, range.compressed as usize)?;
            self.inflater
                .inflate(&raw, range.size as usize, &mut content)
                .map_err(|reason| source.refuse(range, reason))?;
            source.check_crc(range, crc32fast::hash(&content))?;
        } else {
            source.stream(range, |piece| {
                content.extend_from_slice(piece);
                Ok(())
            })?;
        }
        if let Some(expected) = range.hash.as_ref().filter(|_| self.context.verify[wheel]) {
            let mut hasher = expected.hasher();
            hasher.update(&content);
            source.check_hash(range, expected, hasher)?;
        }
        self.share(&content)
    }

    fn large(&mut self, wheel: usize, range: &Range) -> Result<(), SpliceError> {
        let verify = range.hash.clone().filter(|_| self.context.verify[wheel]);
        let verified = verify.is_some();
        if let Some(expected) = verify {
            send(&self.check, Check::Begin(expected))?;
        }
        let &Range {
            offset,
            size,
            crc,
            compressed,
            ..
        } = range;
        match range.method {
            Method::Stored => {
                self.stored(wheel, range, verified)?;
                self.segments
                    .push(Segment::Stored(wheel, offset, size, crc));
            }
            Method::Deflate => {
                if size.max(compressed) <= HELD {
                    self.held(wheel, range, verified)?;
                } else {
                    self.streamed(wheel, range, verified)?;
                }
                self.segments
                    .push(Segment::Deflate(wheel, offset, compressed, crc, size));
            }
        }
        if verified {
            send(&self.check, Check::End(wheel, range.clone()))?;
        }
        Ok(())
    }

    fn content(&self, piece: Piece, verified: bool) -> Result<(), SpliceError> {
        if verified {
            send(&self.check, Check::Data(piece.clone()))?;
        }
        send(&self.tar, piece)
    }

    fn held(&mut self, wheel: usize, range: &Range, verified: bool) -> Result<(), SpliceError> {
        let source = &self.context.wheels[wheel];
        let permit = self.context.budget.acquire(range.size + range.compressed);
        let permit = Some(Arc::new(permit));
        let raw = source.read(range.offset, range.compressed as usize)?;
        let mut content = Vec::with_capacity(range.size as usize);
        self.inflater
            .inflate(&raw, range.size as usize, &mut content)
            .map_err(|reason| source.refuse(range, reason))?;
        source.check_crc(range, crc32fast::hash(&content))?;
        let piece = |bytes: Vec<u8>| Piece {
            bytes: Arc::new(bytes),
            _permit: permit.clone(),
        };
        send(&self.blob, GZIP_HEADER.to_vec().into())?;
        send(&self.blob, piece(raw))?;
        send(
            &self.blob,
            gzip_trailer(range.crc, range.size).to_vec().into(),
        )?;
        self.content(piece(content), verified)
    }

    fn streamed(&mut self, wheel: usize, range: &Range, verified: bool) -> Result<(), SpliceError> {
        let source = &self.context.wheels[wheel];
        let ended = || source.refuse(range, "cannot be hashed: a thread ended early");
        let mut crc = crc32fast::Hasher::new();
        send(&self.blob, GZIP_HEADER.to_vec().into())?;
        source.stream_raw(
            range,
            |raw| send(&self.blob, raw.into()).map_err(|_| ended()),
            |content| {
                crc.update(&content);
                self.content(content.into(), verified).map_err(|_| ended())
            },
        )?;
        source.check_crc(range, crc.finalize())?;
        send(
            &self.blob,
            gzip_trailer(range.crc, range.size).to_vec().into(),
        )
    }

    fn stored(&mut self, wheel: usize, range: &Range, verified: bool) -> Result<(), SpliceError> {
        const CHUNK: usize = PIECE / STORED_BLOCK * STORED_BLOCK;
        let source = &self.context.wheels[wheel];
        let mut crc = crc32fast::Hasher::new();
        send(&self.blob, GZIP_HEADER.to_vec().into())?;
        let mut done = 0;
        while done < range.size {
            let length = (range.size - done).min(CHUNK as u64) as usize;
            let content = source.read(range.offset + done, length)?;
            done += length as u64;
            crc.update(&content);
            send(
                &self.blob,
                stored_blocks(&content, done == range.size).into(),
            )?;
            self.content(content.into(), verified)?;
        }
        source.check_crc(range, crc.finalize())?;
        send(
            &self.blob,
            gzip_trailer(range.crc, range.size).to_vec().into(),
        )
    }
}

/// Stored deflate blocks around `content`; the last one ends the stream if `last`.
pub fn stored_blocks(content: &[u8], last: bool) -> Vec<u8> {
    let blocks = content.len().div_ceil(STORED_BLOCK);
    let mut out = Vec::with_capacity(content.len() + 5 * blocks);
    for (index, block) in content.chunks(STORED_BLOCK).enumerate() {
        out.extend_from_slice(&stored_header(block.len(), last && index + 1 == blocks));
        out.extend_from_slice(block);
    }
    out
}
