//! Writes zip files, well-formed and not. Same input, same bytes.

use libdeflater::{CompressionLvl, Compressor};

/// One entry; every field can be made to lie.
#[derive(Clone, Debug)]
pub struct Zipped {
    pub name: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    pub made_by: u8,
    pub mode: u32,
    pub crc: u32,
    pub size: u64,
    pub compressed: u64,
    pub data: Vec<u8>,
    /// Name in the local header, if another.
    pub local_name: Option<Vec<u8>>,
    /// CRC, compressed size and size in the local header, if others.
    pub local: Option<(u32, u64, u64)>,
    /// Extra field of the directory.
    pub extra: Vec<u8>,
    pub zip64: bool,
    /// Written after the data.
    pub descriptor: Vec<u8>,
    /// Where the directory says that the local header is, if elsewhere.
    pub header: Option<u64>,
}

pub fn deflate(content: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::new(6).unwrap());
    let mut out = vec![0; compressor.deflate_compress_bound(content.len())];
    let length = compressor.deflate_compress(content, &mut out).unwrap();
    out.truncate(length);
    out
}

impl Zipped {
    pub fn stored(name: impl AsRef<[u8]>, content: &[u8]) -> Self {
        let size = content.len() as u64;
        Self {
            name: name.as_ref().to_vec(),
            flags: 1 << 11,
            method: 0,
            made_by: 3,
            mode: 0o100_644,
            crc: crc32fast::hash(content),
            size,
            compressed: size,
            data: content.to_vec(),
            local_name: None,
            local: None,
            extra: Vec::new(),
            zip64: false,
            descriptor: Vec::new(),
            header: None,
        }
    }

    pub fn deflated(name: impl AsRef<[u8]>, content: &[u8]) -> Self {
        let data = deflate(content);
        Self {
            method: 8,
            compressed: data.len() as u64,
            data,
            ..Self::stored(name, content)
        }
    }

    pub fn folder(name: &str) -> Self {
        Self::stored(name, b"").mode(0o040_755)
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sizes in zip64 fields.
    pub fn zip64(mut self) -> Self {
        self.zip64 = true;
        self
    }

    /// Sizes after the data rather than before it.
    pub fn with_descriptor(mut self) -> Self {
        self.flags |= 1 << 3;
        self.local = Some((0, 0, 0));
        self.descriptor = b"PK\x07\x08".to_vec();
        self.descriptor.extend(self.crc.to_le_bytes());
        for size in [self.compressed, self.size] {
            if self.zip64 {
                self.descriptor.extend(size.to_le_bytes());
            } else {
                self.descriptor.extend((size as u32).to_le_bytes());
            }
        }
        self
    }

    fn sizes(&self, out: &mut Vec<u8>, extra: &mut Vec<u8>, sizes: (u64, u64)) {
        if self.zip64 {
            out.extend([0xff; 8]);
            extra.extend([1, 0, 16, 0]);
            extra.extend(sizes.1.to_le_bytes());
            extra.extend(sizes.0.to_le_bytes());
        } else {
            out.extend((sizes.0 as u32).to_le_bytes());
            out.extend((sizes.1 as u32).to_le_bytes());
        }
    }

    fn local(&self, out: &mut Vec<u8>) {
        let (crc, compressed, size) = self.local.unwrap_or((self.crc, self.compressed, self.size));
        let name = self.local_name.as_ref().unwrap_or(&self.name);
        let mut extra = Vec::new();
        out.extend(b"PK\x03\x04\x14\0");
        out.extend(self.flags.to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0, 0, 0x21, 0]);
        out.extend(crc.to_le_bytes());
        self.sizes(out, &mut extra, (compressed, size));
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((extra.len() as u16).to_le_bytes());
        out.extend(name);
        out.extend(extra);
        out.extend(&self.data);
        out.extend(&self.descriptor);
    }

    fn central(&self, out: &mut Vec<u8>, header: u64) {
        let mut extra = self.extra.clone();
        out.extend(b"PK\x01\x02\x14");
        out.extend([self.made_by, 0x14, 0]);
        out.extend(self.flags.to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0, 0, 0x21, 0]);
        out.extend(self.crc.to_le_bytes());
        self.sizes(out, &mut extra, (self.compressed, self.size));
        out.extend((self.name.len() as u16).to_le_bytes());
        out.extend((extra.len() as u16).to_le_bytes());
        out.extend([0; 6]);
        out.extend((self.mode << 16).to_le_bytes());
        out.extend((self.header.unwrap_or(header) as u32).to_le_bytes());
        out.extend(&self.name);
        out.extend(extra);
    }
}

/// A whole zip file: `prefix`, entries, directory, `comment`.
pub fn zip_with(prefix: &[u8], entries: &[Zipped], comment: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    let mut headers = Vec::new();
    for entry in entries {
        headers.push((out.len() - prefix.len()) as u64);
        entry.local(&mut out);
    }
    let start = out.len() - prefix.len();
    let mut directory = Vec::new();
    for (entry, header) in entries.iter().zip(headers) {
        entry.central(&mut directory, header);
    }
    out.extend(&directory);
    let (count, size) = (entries.len(), directory.len());
    if entries.iter().any(|entry| entry.zip64) {
        let at = (out.len() - prefix.len()) as u64;
        out.extend(b"PK\x06\x06");
        out.extend(44_u64.to_le_bytes());
        out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for value in [count, count, size, start] {
            out.extend((value as u64).to_le_bytes());
        }
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(at.to_le_bytes());
        out.extend(1_u32.to_le_bytes());
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend([0xff; 12]);
    } else {
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend((count as u16).to_le_bytes());
        out.extend((count as u16).to_le_bytes());
        out.extend((size as u32).to_le_bytes());
        out.extend((start as u32).to_le_bytes());
    }
    out.extend((comment.len() as u16).to_le_bytes());
    out.extend(comment);
    out
}

pub fn zip(entries: &[Zipped]) -> Vec<u8> {
    zip_with(b"", entries, b"")
}
