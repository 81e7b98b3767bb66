//! Java's own key store format (JKS), of which `/etc/ssl/certs/java/cacerts` is one: every certificate carries the
//! time it was added.
//!
//! Big-endian: magic, version 2, number of entries; per entry a tag (2: trusted certificate), the alias, milliseconds
//! since 1970, the certificate's type, its length and its bytes; at the end the SHA-1 of the password in UTF-16,
//! the words `Mighty Aphrodite`, and all before. The password of Debian's store is Java's customary one.

use sha1::{Digest as _, Sha1};

const MAGIC: u32 = 0xfeed_feed;
const TRUSTED: u32 = 2;
const PASSWORD: &str = "changeit";
const CHECKSUM: usize = 20;

/// The store with the epoch (seconds since 1970) as the time of every certificate. What is not such a store, or holds
/// anything but certificates, stays as it is.
pub fn with_time(content: Vec<u8>, epoch: i64) -> Vec<u8> {
    let Some(body_length) = content.len().checked_sub(CHECKSUM) else {
        return content;
    };
    let (body, checksum) = content.split_at(body_length);
    let Some(times) = times(body).filter(|_| checksum_of(body) == checksum) else {
        return content;
    };
    let milliseconds = (epoch * 1000).to_be_bytes();
    let mut body = body.to_vec();
    for at in times {
        body[at..at + 8].copy_from_slice(&milliseconds);
    }
    let checksum = checksum_of(&body);
    body.extend_from_slice(&checksum);
    body
}

fn checksum_of(body: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        hasher.update(unit.to_be_bytes());
    }
    hasher.update("Mighty Aphrodite");
    hasher.update(body);
    hasher.finalize().into()
}

/// Where the times stand; `None` if this is not a store of certificates only.
fn times(body: &[u8]) -> Option<Vec<usize>> {
    let mut reader = Reader { body, at: 0 };
    if reader.number(4)? != MAGIC as usize || reader.number(4)? != 2 {
        return None;
    }
    let count = reader.number(4)?;
    let mut found = Vec::new();
    for _ in 0..count {
        if reader.number(4)? != TRUSTED as usize {
            return None;
        }
        reader.skip(2)?;
        found.push(reader.at);
        reader.at += 8;
        reader.skip(2)?;
        reader.skip(4)?;
    }
    (reader.at == body.len()).then_some(found)
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let end = self.at.checked_add(bytes)?;
        let digits = self.body.get(self.at..end)?;
        self.at = end;
        Some(
            digits
                .iter()
                .fold(0, |number, &digit| number << 8 | usize::from(digit)),
        )
    }

    /// Skips bytes that a length of `width` bytes precedes.
    fn skip(&mut self, width: usize) -> Option<()> {
        let length = self.number(width)?;
        self.at = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.body.len())?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(time: i64) -> Vec<u8> {
        let mut body = [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2].to_vec();
        body.extend_from_slice(b"\0\x05alias");
        body.extend_from_slice(&time.to_be_bytes());
        body.extend_from_slice(b"\0\x05X.509\0\0\0\x04cert");
        let checksum = checksum_of(&body);
        body.extend_from_slice(&checksum);
        body
    }

    #[test]
    fn only_times_and_checksum_change() {
        assert_eq!(with_time(store(1), 7), store(7000));
        let mut damaged = store(1);
        damaged[30] ^= 1;
        for other in [
            Vec::new(),
            b"PKCS12".to_vec(),
            damaged,
            store(1)[..40].to_vec(),
        ] {
            assert_eq!(with_time(other.clone(), 7), other);
        }
    }
}
