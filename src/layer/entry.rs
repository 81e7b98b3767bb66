//! Tar entries as bytes: POSIX ustar headers, with a PAX header only where ustar cannot say it.
//!
//! The bytes are part of every layer's identity, so they are made here and not by a library.

use std::io::{self, Write};

/// The unit of tar.
pub const BLOCK: usize = 512;

/// What ends a tar: two empty blocks.
pub const TRAILER: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// One entry's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path without leading `/`; folders without trailing `/`. Any bytes but NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds since 1970; negative times need PAX.
    pub mtime: i64,
    /// Extended attributes, by name (`security.capability`, …), sorted by the caller.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of this many bytes.
    File {
        /// In bytes.
        size: u64,
    },
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A second name of an earlier entry.
    Hardlink {
        /// That entry's path.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl Entry {
    /// A regular file of root's.
    pub fn file(path: impl Into<Vec<u8>>, size: u64, mode: u32) -> Self {
        Self::new(path, EntryKind::File { size }, mode)
    }

    /// A folder of root's, mode 0755.
    pub fn folder(path: impl Into<Vec<u8>>) -> Self {
        Self::new(path, EntryKind::Folder, 0o755)
    }

    /// A symbolic link of root's.
    pub fn symlink(path: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> Self {
        let target = target.into();
        Self::new(path, EntryKind::Symlink { target }, 0o777)
    }

    fn new(path: impl Into<Vec<u8>>, kind: EntryKind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: super::MTIME as i64,
            xattrs: Vec::new(),
        }
    }

    /// Length of the content in bytes.
    pub fn size(&self) -> u64 {
        match self.kind {
            EntryKind::File { size } => size,
            _ => 0,
        }
    }

    /// Zero bytes needed after the content.
    pub fn padding(&self) -> usize {
        padding(self.size())
    }

    /// Appends the header block (with a PAX header before it, where needed) to `out`.
    pub fn write_header(&self, out: &mut Vec<u8>) {
        let mut path = self.path.clone();
        if self.kind == EntryKind::Folder {
            path.push(b'/');
        }
        let mut pax = Vec::new();
        let split = split_path(&path);
        if split.is_none() {
            pax_record(&mut pax, "path", &path);
        }
        let link = self.link_target();
        if link.len() > 100 {
            pax_record(&mut pax, "linkpath", link);
        }
        if self.size() >= OCTAL_11 {
            pax_record(&mut pax, "size", self.size().to_string().as_bytes());
        }
        if u64::from(self.uid) >= OCTAL_7 {
            pax_record(&mut pax, "uid", self.uid.to_string().as_bytes());
        }
        if u64::from(self.gid) >= OCTAL_7 {
            pax_record(&mut pax, "gid", self.gid.to_string().as_bytes());
        }
        if !(0..OCTAL_11 as i64).contains(&self.mtime) {
            pax_record(&mut pax, "mtime", self.mtime.to_string().as_bytes());
        }
        for (name, value) in &self.xattrs {
            pax_record(&mut pax, &format!("SCHILY.xattr.{name}"), value);
        }
        if !pax.is_empty() {
            write_pax(out, &pax);
        }
        let (prefix, name) = split.unwrap_or((&[], &path[..path.len().min(100)]));
        let mut block = self.block(prefix, name, link);
        checksum(&mut block);
        out.extend_from_slice(&block);
    }

    fn link_target(&self) -> &[u8] {
        match &self.kind {
            EntryKind::Symlink { target } | EntryKind::Hardlink { target } => target,
            _ => &[],
        }
    }

    fn block(&self, prefix: &[u8], name: &[u8], link: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let (flag, device) = match self.kind {
            EntryKind::File { .. } => (b'0', None),
            EntryKind::Hardlink { .. } => (b'1', None),
            EntryKind::Symlink { .. } => (b'2', None),
            EntryKind::CharDevice { major, minor } => (b'3', Some((major, minor))),
            EntryKind::BlockDevice { major, minor } => (b'4', Some((major, minor))),
            EntryKind::Folder => (b'5', None),
            EntryKind::Fifo => (b'6', None),
        };
        let fits = |value: u64, limit: u64| if value < limit { value } else { 0 };
        put(&mut block, 0, name);
        octal(&mut block, 100, 8, u64::from(self.mode & 0o7777));
        octal(&mut block, 108, 8, fits(self.uid.into(), OCTAL_7));
        octal(&mut block, 116, 8, fits(self.gid.into(), OCTAL_7));
        octal(&mut block, 124, 12, fits(self.size(), OCTAL_11));
        let mtime = u64::try_from(self.mtime).unwrap_or(0);
        octal(&mut block, 136, 12, fits(mtime, OCTAL_11));
        block[156] = flag;
        put(&mut block, 157, &link[..link.len().min(100)]);
        put(&mut block, 257, b"ustar\x0000");
        if let Some((major, minor)) = device {
            octal(&mut block, 329, 8, major.into());
            octal(&mut block, 337, 8, minor.into());
        }
        put(&mut block, 345, prefix);
        block
    }
}

/// First value that 7 octal digits cannot hold.
const OCTAL_7: u64 = 1 << 21;
/// First value that 11 octal digits cannot hold.
const OCTAL_11: u64 = 1 << 33;

/// Zero bytes that follow `size` bytes of content.
pub fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Writes one whole entry with its content and padding.
///
/// # Errors
/// Those of `out`; content whose length is not the entry's size is refused.
pub fn write_entry(out: &mut impl Write, entry: &Entry, content: &[u8]) -> io::Result<()> {
    if content.len() as u64 != entry.size() {
        return Err(io::Error::other(
            "the content has another length than its header",
        ));
    }
    let mut header = Vec::with_capacity(BLOCK);
    entry.write_header(&mut header);
    out.write_all(&header)?;
    out.write_all(content)?;
    out.write_all(&[0; BLOCK][..entry.padding()])
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

fn octal(block: &mut [u8; BLOCK], at: usize, width: usize, value: u64) {
    put(
        block,
        at,
        format!("{value:0digits$o}", digits = width - 1).as_bytes(),
    );
}

fn checksum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(block, 148, format!("{sum:06o}\0 ").as_bytes());
}

/// Splits a path into ustar's prefix (≤ 155 bytes) and name (≤ 100); `None` if that is not possible or the path is
/// not ASCII (whose encoding only PAX defines).
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((&[], path));
    }
    let earliest = path.len() - 101;
    let cut = (earliest..path.len().min(156) - 1).find(|&at| path[at] == b'/')?;
    let (prefix, name) = (&path[..cut], &path[cut + 1..]);
    (!prefix.is_empty() && !name.is_empty()).then_some((prefix, name))
}

fn pax_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn write_pax(out: &mut Vec<u8>, records: &[u8]) {
    let mut block = [0; BLOCK];
    put(&mut block, 0, b"PaxHeaders/entry");
    octal(&mut block, 100, 8, 0o644);
    octal(&mut block, 108, 8, 0);
    octal(&mut block, 116, 8, 0);
    octal(&mut block, 124, 12, records.len() as u64);
    octal(&mut block, 136, 12, 0);
    block[156] = b'x';
    put(&mut block, 257, b"ustar\x0000");
    checksum(&mut block);
    out.extend_from_slice(&block);
    out.extend_from_slice(records);
    out.resize(out.len() + padding(records.len() as u64), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(entry: &Entry, content: &[u8]) -> (Vec<u8>, Option<Vec<u8>>, u64, u32, u64, u64) {
        let mut bytes = Vec::new();
        write_entry(&mut bytes, entry, content).unwrap();
        bytes.extend_from_slice(&TRAILER);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let found = archive.entries().unwrap().next().unwrap().unwrap();
        let link = found.link_name_bytes().map(|link| link.into_owned());
        let header = found.header();
        let mtime = header.mtime().unwrap();
        (
            found.path_bytes().into_owned(),
            link,
            found.size(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            mtime,
        )
    }

    #[test]
    fn every_path_length_reads_back() {
        for length in (1..400).chain([1000, 4000]) {
            for shape in ["a", "abcdefghi/"] {
                let path: String = shape.chars().cycle().take(length).collect();
                let path = path.trim_end_matches('/').to_owned();
                let (found, _, size, mode, uid, mtime) =
                    read_back(&Entry::file(path.as_str(), 3, 0o755), b"abc");
                assert_eq!(String::from_utf8(found).unwrap(), path);
                assert_eq!((size, mode, uid, mtime), (3, 0o755, 0, super::super::MTIME));
            }
        }
    }

    #[test]
    fn odd_names_and_long_links_read_back() {
        let target = "x/".repeat(120);
        for path in ["ü/ñ", "日本語", " leading", "a\nb", "a'b\"c"] {
            let (found, link, ..) = read_back(&Entry::symlink(path, target.as_str()), b"");
            assert_eq!(String::from_utf8(found).unwrap(), path);
            assert_eq!(link.unwrap(), target.as_bytes());
        }
    }

    #[test]
    fn large_ids_and_old_times_use_pax() {
        let mut entry = Entry::file("a", 0, 0o644);
        entry.uid = 3_000_000;
        entry.mtime = -5;
        let mut bytes = Vec::new();
        write_entry(&mut bytes, &entry, b"").unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(
            text.contains("15 uid=3000000\n") && text.contains("12 mtime=-5\n"),
            "{text}"
        );
    }

    #[test]
    fn content_of_the_wrong_length_is_refused() {
        assert!(write_entry(&mut Vec::new(), &Entry::file("a", 2, 0o644), b"abc").is_err());
    }
}
