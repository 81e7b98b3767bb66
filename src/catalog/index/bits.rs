//! Sets of small numbers: in memory as one bit each, on disk in chunks.
//!
//! A chunk holds which of [`CHUNK`] consecutive numbers are in the set: up to [`SPARSE`] of them as ascending 16-bit
//! little-endian offsets, more of them as one bit each. The length tells which. Numbers are given out in ascending
//! order, so that new ones touch the last chunk of a set only.

/// Numbers in a chunk.
pub const CHUNK: u32 = 1 << 14;

/// Most offsets of a chunk that is not written as bits.
const SPARSE: usize = 1000;

/// Bytes of a chunk that is written as bits.
const DENSE: usize = CHUNK as usize / 8;

/// Which chunk a number belongs to, and where it stands in it.
pub fn place(number: u32) -> (u32, u16) {
    (number / CHUNK, (number % CHUNK) as u16)
}

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Whether `number` is in it.
    pub fn contains(&self, number: u32) -> bool {
        let word = self.0.get(number as usize / 64);
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Adds a number.
    pub fn insert(&mut self, number: u32) {
        let at = number as usize / 64;
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (number % 64);
    }

    /// All of it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let words = self.0.iter().enumerate();
        words.flat_map(|(at, word)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| at as u32 * 64 + bit)
        })
    }

    /// Adds what is in `other`.
    pub fn unite(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    /// Keeps what is in `other` too.
    pub fn intersect(&mut self, other: &Self) {
        self.0.truncate(other.0.len());
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= other;
        }
    }

    /// Adds what a chunk holds.
    pub fn add_chunk(&mut self, chunk: u32, bytes: &[u8]) {
        let first = chunk as usize * (CHUNK as usize / 64);
        let end = first + CHUNK as usize / 64;
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        if bytes.len() == DENSE {
            let words = bytes.as_chunks::<8>().0.iter();
            for (word, bytes) in self.0[first..end].iter_mut().zip(words) {
                *word |= u64::from_le_bytes(*bytes);
            }
        } else {
            for offset in offsets(bytes) {
                self.insert(chunk * CHUNK + u32::from(offset));
            }
        }
    }
}

/// Whether a chunk holds the number that stands at `offset` in it.
pub fn holds(bytes: &[u8], offset: u16) -> bool {
    match bytes.len() {
        DENSE => bytes[usize::from(offset) / 8] >> (offset % 8) & 1 == 1,
        _ => {
            let (pairs, _) = bytes.as_chunks::<2>();
            let found = pairs.binary_search_by_key(&offset, |pair| u16::from_le_bytes(*pair));
            found.is_ok()
        }
    }
}

/// A chunk with the numbers at some offsets put in or taken out; `None` if nothing is left in it.
pub fn changed(bytes: &[u8], changes: &[u16], put: bool) -> Option<Vec<u8>> {
    let mut words = [0_u64; CHUNK as usize / 64];
    if bytes.len() == DENSE {
        let stored = bytes.as_chunks::<8>().0.iter();
        for (word, bytes) in words.iter_mut().zip(stored) {
            *word = u64::from_le_bytes(*bytes);
        }
    }
    let mut set = |offset: u16, put: bool| {
        let offset = usize::from(offset) % CHUNK as usize;
        let bit = 1 << (offset % 64);
        match put {
            true => words[offset / 64] |= bit,
            false => words[offset / 64] &= !bit,
        }
    };
    if bytes.len() != DENSE {
        offsets(bytes).for_each(|offset| set(offset, true));
    }
    changes.iter().for_each(|offset| set(*offset, put));
    encoded(&words)
}

fn offsets(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let (pairs, _) = bytes.as_chunks::<2>();
    let all = pairs.iter().map(|pair| u16::from_le_bytes(*pair));
    all.filter(|offset| u32::from(*offset) < CHUNK)
}

fn encoded(words: &[u64]) -> Option<Vec<u8>> {
    let count: usize = words.iter().map(|word| word.count_ones() as usize).sum();
    if count == 0 {
        return None;
    }
    if count > SPARSE {
        return Some(words.iter().flat_map(|word| word.to_le_bytes()).collect());
    }
    let mut bytes = Vec::with_capacity(count * 2);
    for (at, word) in words.iter().enumerate() {
        let mut rest = *word;
        while rest != 0 {
            let offset = at as u16 * 64 + rest.trailing_zeros() as u16;
            bytes.extend(offset.to_le_bytes());
            rest &= rest - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_hold_what_was_put_in_and_not_taken_out(
            put in prop::collection::btree_set(0..CHUNK as u16, 0..3000),
            taken in prop::collection::vec(0..CHUNK as u16, 0..3000),
        ) {
            let all: Vec<u16> = put.iter().copied().collect();
            let (early, late) = all.split_at(all.len() / 3);
            let bytes = changed(&[], late, true).unwrap_or_default();
            let bytes = changed(&bytes, early, true).unwrap_or_default();
            let bytes = changed(&bytes, &taken, false).unwrap_or_default();
            let left: BTreeSet<u16> = put.iter().filter(|n| !taken.contains(n)).copied().collect();
            let mut bits = Bits::default();
            bits.add_chunk(2, &bytes);
            for offset in 0..CHUNK as u16 {
                let expected = left.contains(&offset);
                prop_assert_eq!(holds(&bytes, offset), expected);
                prop_assert_eq!(bits.contains(2 * CHUNK + u32::from(offset)), expected);
            }
            prop_assert_eq!(changed(&bytes, &all, false), None);
        }
    }

    #[test]
    fn sets_intersect_whatever_their_lengths() {
        let set = |numbers: &[u32]| {
            let mut bits = Bits::default();
            numbers.iter().for_each(|number| bits.insert(*number));
            bits
        };
        let mut bits = set(&[1, 64, 70_000]);
        bits.intersect(&set(&[64, 65]));
        assert!(bits.contains(64) && !bits.contains(1) && !bits.contains(70_000));
        let mut bits = set(&[1]);
        bits.intersect(&set(&[1, 70_000]));
        assert!(bits.contains(1) && !bits.contains(70_000));
        bits.unite(&set(&[2, 70_000]));
        bits.unite(&set(&[3]));
        assert_eq!(bits.iter().collect::<Vec<_>>(), [1, 2, 3, 70_000]);
    }
}
