//! Tar bytes → gzip blob, for layers that exist as bytes.
//!
//! The tar is cut into pieces of [`PIECE`] bytes; each is one gzip member (RFC 1952), compressed by libdeflate at a
//! fixed level. So the blob is a function of the tar alone, however many threads compress it.

use std::io::{self, Write};

use libdeflater::{CompressionLvl, Compressor};

use crate::digest::{Digest, HashingWriter};

/// Bytes of tar per gzip member.
const PIECE: usize = 4 << 20;

/// libdeflate's level for blobs.
const LEVEL: i32 = 6;

/// A gzip member's header: deflate, no name, no time, unknown system.
pub const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// What a packed layer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Of the gzip blob.
    pub digest: Digest,
    /// Of the gzip blob, in bytes.
    pub size: u64,
    /// Of the tar.
    pub diff_id: Digest,
    /// Of the tar, in bytes.
    pub unpacked: u64,
}

/// Takes the bytes of a tar, writes the gzip blob to `out`.
pub struct Packer<W: Write> {
    out: HashingWriter<W>,
    tar: HashingWriter<io::Sink>,
    piece: Vec<u8>,
    compressor: Compressor,
}

impl<W: Write> std::fmt::Debug for Packer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer")
            .field("tar", &self.tar)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Packer<W> {
    /// Packs into `out`.
    pub fn new(out: W) -> Self {
        let level = CompressionLvl::new(LEVEL).unwrap_or_default();
        Self {
            out: HashingWriter::new(out),
            tar: HashingWriter::new(io::sink()),
            piece: Vec::with_capacity(PIECE),
            compressor: Compressor::new(level),
        }
    }

    fn flush_piece(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            let member = gzip_member(&mut self.compressor, &self.piece)?;
            self.out.write_all(&member)?;
            self.piece.clear();
        }
        Ok(())
    }

    /// Writes what is left (the caller has written the tar's trailer); gives `out` back.
    pub fn finish(mut self) -> io::Result<(W, Packed)> {
        self.flush_piece()?;
        let (_, diff_id, unpacked) = self.tar.finish();
        let (out, digest, size) = self.out.finish();
        Ok((
            out,
            Packed {
                digest,
                size,
                diff_id,
                unpacked,
            },
        ))
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let take = buf.len().min(PIECE - self.piece.len());
        self.tar.write_all(&buf[..take])?;
        self.piece.extend_from_slice(&buf[..take]);
        if self.piece.len() == PIECE {
            self.flush_piece()?;
        }
        Ok(take)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One gzip member that holds `data`.
pub fn gzip_member(compressor: &mut Compressor, data: &[u8]) -> io::Result<Vec<u8>> {
    let bound = compressor.deflate_compress_bound(data.len());
    let mut member = Vec::with_capacity(GZIP_HEADER.len() + bound + 8);
    member.extend_from_slice(&GZIP_HEADER);
    member.resize(GZIP_HEADER.len() + bound, 0);
    let written = compressor
        .deflate_compress(data, &mut member[GZIP_HEADER.len()..])
        .map_err(io::Error::other)?;
    member.truncate(GZIP_HEADER.len() + written);
    member.extend_from_slice(&crc32fast::hash(data).to_le_bytes());
    member.extend_from_slice(&(data.len() as u32).to_le_bytes());
    Ok(member)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn unpacks_to_what_was_packed_and_does_not_depend_on_how_it_was_written() {
        let data: Vec<u8> = (0..PIECE as u32 / 2)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let pack = |step: usize| {
            let mut packer = Packer::new(Vec::new());
            for part in data.chunks(step) {
                packer.write_all(part).unwrap();
            }
            packer.finish().unwrap()
        };
        let (blob, packed) = pack(data.len());
        let (other, same) = pack(4097);
        assert!(blob == other && packed == same);
        assert_eq!(packed.digest, Digest::of(&blob));
        assert_eq!(packed.diff_id, Digest::of(&data));
        let mut found = Vec::new();
        flate2::read::MultiGzDecoder::new(blob.as_slice())
            .read_to_end(&mut found)
            .unwrap();
        assert!(found == data);
    }
}
