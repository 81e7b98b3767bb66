//! What is inside of a layer's blob.

use std::io::{self, BufReader, Read};

use crate::digest::Digest;

/// Bytes that are read at a time.
const CHUNK: usize = 512 << 10;

/// The tar inside of a blob, by its first bytes: gzip, zstd, or a tar as it is. Media types are not consulted.
///
/// # Errors
/// Those of reading.
pub fn decoder<'a>(blob: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let mut blob = BufReader::with_capacity(CHUNK, blob);
    let mut magic = Vec::new();
    blob.by_ref().take(4).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(blob);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(
            BufReader::with_capacity(CHUNK, whole),
        )),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            Box::new(zstd::stream::read::Decoder::new(whole)?)
        }
        _ => Box::new(whole),
    })
}

/// The diff ID of a blob and the length of its tar; of one that is longer than `limit` bytes, those of its beginning.
///
/// # Errors
/// When it cannot be read or decompressed.
pub fn diff_id(blob: impl Read + Send, limit: u64) -> io::Result<(Digest, u64)> {
    Digest::of_reader(decoder(Box::new(blob))?.take(limit))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_compression_has_the_diff_id_of_its_tar() {
        let tar = vec![5; 100_000];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let mut members = gzip.finish().unwrap();
        let one = members.clone();
        members.extend(&one);
        let zstd = zstd::stream::encode_all(tar.as_slice(), 1).unwrap();
        for blob in [&tar, &one, &zstd] {
            let found = diff_id(blob.as_slice(), u64::MAX).unwrap();
            assert_eq!(found, (Digest::of(&tar), 100_000));
        }
        let twice = diff_id(members.as_slice(), u64::MAX).unwrap();
        assert_eq!(twice.1, 200_000);
        assert_eq!(diff_id(members.as_slice(), 70).unwrap().1, 70);
        assert!(diff_id(&one[..50], u64::MAX).is_err(), "cut off");
    }
}
