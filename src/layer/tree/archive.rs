//! Reads a foreign tar, header by header: ustar, GNU long names, PAX. Believes nothing about sizes or counts.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::layer::entry::{BLOCK, padding};

/// The longest name, link target or set of PAX records that is read, in bytes.
const MAX_META: u64 = 1 << 20;

/// One entry of a tar; its content follows in the stream.
#[derive(Clone, Debug)]
pub struct Header {
    /// As it stands in the archive.
    pub path: Vec<u8>,
    /// Target of a symbolic or hard link.
    pub link: Vec<u8>,
    /// Type flag.
    pub flag: u8,
    /// Bytes of content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Of devices.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Reads headers and contents in turn.
#[derive(Debug)]
pub struct Archive<R> {
    inner: R,
    /// Content and padding of the last entry that were not read yet.
    left: u64,
    padding: u64,
    global: BTreeMap<String, Vec<u8>>,
}

fn broken(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<R: Read> Archive<R> {
    /// A tar from its first byte on.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
            global: BTreeMap::new(),
        }
    }

    /// The next entry, or `None` at the end of the archive.
    pub fn next_entry(&mut self) -> io::Result<Option<Header>> {
        let (mut path, mut link) = (None, None);
        let mut pax = self.global.clone();
        loop {
            self.skip()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let raw = tar::Header::from_byte_slice(&block);
            let size = raw.entry_size()?;
            match raw.entry_type().as_byte() {
                b'L' => path = Some(self.name(size)?),
                b'K' => link = Some(self.name(size)?),
                b'x' => records(&self.meta(size)?, &mut pax)?,
                b'g' => {
                    let text = self.meta(size)?;
                    records(&text, &mut self.global)?;
                    records(&text, &mut pax)?;
                }
                b'S' => return Err(broken("GNU sparse files are not supported")),
                _ => {
                    let header = header(raw, pax, path, link)?;
                    self.left = header.size;
                    self.padding = padding(header.size) as u64;
                    return Ok(Some(header));
                }
            }
        }
    }

    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(broken("the tar is truncated")),
                read => filled += read,
            }
        }
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let told = tar::Header::from_byte_slice(&block)
            .cksum()
            .map_err(|_| broken("it is not a tar"))?;
        let sum = |range: &[u8]| range.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        if told != sum(&block[..148]) + sum(&block[156..]) + 8 * u32::from(b' ') {
            return Err(broken("a header of the tar has a wrong checksum"));
        }
        Ok(Some(block))
    }

    fn meta(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_META {
            return Err(broken("a name in the tar is longer than 1 MiB"));
        }
        let mut text = vec![0; size as usize];
        self.inner.read_exact(&mut text)?;
        self.padding = padding(size) as u64;
        Ok(text)
    }

    fn name(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut name = self.meta(size)?;
        let end = name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())?;
        if skipped == rest {
            Ok(())
        } else {
            Err(broken("the tar is truncated"))
        }
    }

    /// What follows the end of the archive is read and dropped.
    pub fn drain(mut self) -> io::Result<()> {
        io::copy(&mut self.inner, &mut io::sink()).map(drop)
    }
}

/// The content of the current entry.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let room = self.left.min(out.len() as u64) as usize;
        let read = self.inner.read(&mut out[..room])?;
        if read == 0 && room > 0 {
            return Err(broken("the tar is truncated"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// PAX records: `length key=value\n`.
fn records(mut text: &[u8], into: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let bad = || broken("a PAX header of the tar is broken");
    while !text.is_empty() {
        let space = text.iter().position(|&byte| byte == b' ').ok_or_else(bad)?;
        let digits = std::str::from_utf8(&text[..space]).map_err(|_| bad())?;
        let length: usize = digits.parse().map_err(|_| bad())?;
        if length <= space + 1 || length > text.len() || text[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &text[space + 1..length - 1];
        let equals = record
            .iter()
            .position(|&byte| byte == b'=')
            .ok_or_else(bad)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| bad())?;
        if key.starts_with("GNU.sparse.") {
            return Err(broken("GNU sparse files are not supported"));
        }
        into.insert(key.into(), record[equals + 1..].to_vec());
        text = &text[length..];
    }
    Ok(())
}

fn header(
    raw: &tar::Header,
    mut pax: BTreeMap<String, Vec<u8>>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
) -> io::Result<Header> {
    let number = |key: &str| -> io::Result<Option<f64>> {
        let Some(value) = pax.get(key) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok());
        text.map(Some)
            .ok_or_else(|| broken("a PAX header of the tar has a number that is none"))
    };
    let whole = |key: &str, value: u64| -> io::Result<u32> {
        let value = number(key)?.unwrap_or(value as f64);
        if (0.0..=f64::from(u32::MAX)).contains(&value) {
            Ok(value as u32)
        } else {
            Err(broken("an owner in the tar is out of range"))
        }
    };
    let (uid, gid) = (whole("uid", raw.uid()?)?, whole("gid", raw.gid()?)?);
    let mtime =
        number("mtime")?.map_or_else(|| raw.mtime().unwrap_or(0) as i64, |time| time as i64);
    let told = match pax.get("size") {
        Some(_) => number("size")?
            .filter(|size| (0.0..9e15).contains(size))
            .map(|size| size as u64),
        None => Some(raw.entry_size()?),
    };
    let size = told.filter(|size| *size < 1 << 53);
    let flag = raw.entry_type().as_byte();
    let device = (
        raw.device_major().ok().flatten(),
        raw.device_minor().ok().flatten(),
    );
    let has_content = matches!(flag, b'0' | 0 | b'7');
    Ok(Header {
        path: pax
            .remove("path")
            .or(path)
            .unwrap_or_else(|| raw.path_bytes().into_owned()),
        link: pax.remove("linkpath").or(link).unwrap_or_else(|| {
            raw.link_name_bytes()
                .map(|name| name.into_owned())
                .unwrap_or_default()
        }),
        flag,
        size: if has_content {
            size.ok_or_else(|| broken("a size in the tar is out of range"))?
        } else {
            0
        },
        mode: raw.mode()? & 0o7777,
        uid,
        gid,
        mtime,
        device: (device.0.unwrap_or(0), device.1.unwrap_or(0)),
        xattrs: pax
            .into_iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("SCHILY.xattr.")?.to_owned(), value)))
            .collect(),
    })
}
