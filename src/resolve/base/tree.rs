//! The file tree of an image, read from its layers without unpacking them: names, links and whiteouts of all files,
//! contents of the few that tell something about the base.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Bound;

use super::elf::Binary;
use crate::digest::{Digest, HashingWriter};

/// Entries that one image may have; more is a hostile archive.
const MOST_ENTRIES: usize = 5_000_000;

/// Links followed before a path counts as a loop (as Linux does).
const MOST_LINKS: usize = 40;

/// How much of a program or library is looked at, in bytes.
const BINARY_LIMIT: u64 = 64 << 20;

/// How much of a text file is looked at, in bytes.
const TEXT_LIMIT: u64 = 1 << 20;

/// All files of an image. Paths have no leading `/`.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
    layer: usize,
}

#[derive(Debug)]
struct Node {
    layer: usize,
    kind: NodeKind,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link(Vec<u8>),
    /// A file whose content was not looked at, a device, a pipe.
    Other,
    /// The start of a text file.
    Text(Vec<u8>),
    /// An ELF file.
    Binary(Box<Binary>),
}

/// What reading one layer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRead {
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// Length of the tar in bytes.
    pub unpacked: u64,
}

impl Tree {
    /// Puts a layer's blob (a tar: plain, gzip of any number of members, or zstd) above what is there.
    ///
    /// # Errors
    /// When the blob cannot be read, or an entry leads out of the root.
    pub fn apply(&mut self, blob: impl Read) -> io::Result<LayerRead> {
        self.layer += 1;
        let hashed = HashingReader::new(decompress(blob)?);
        let mut archive = tar::Archive::new(hashed);
        for entry in archive.entries()? {
            self.apply_entry(entry?)?;
            if self.nodes.len() > MOST_ENTRIES {
                return Err(refuse(format!("it has more than {MOST_ENTRIES} files")));
            }
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink())?;
        let (_, diff_id, unpacked) = rest.hasher.finish();
        Ok(LayerRead { diff_id, unpacked })
    }

    fn apply_entry(&mut self, mut entry: tar::Entry<'_, impl Read>) -> io::Result<()> {
        let path = clean(&entry.path_bytes())?;
        let Some(name) = path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec) else {
            return Ok(());
        };
        let parent = path[..path.len() - name.len()]
            .strip_suffix(b"/")
            .unwrap_or_default();
        if name == b".wh..wh..opq" {
            self.remove_below(parent, true);
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            let hidden = join(parent, hidden);
            self.remove_below(&hidden, true);
            if self
                .nodes
                .get(&hidden)
                .is_some_and(|node| node.layer < self.layer)
            {
                self.nodes.remove(&hidden);
            }
            return Ok(());
        }
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => NodeKind::Folder,
            tar::EntryType::Symlink => {
                NodeKind::Link(entry.link_name_bytes().unwrap_or_default().into_owned())
            }
            tar::EntryType::Link => {
                let target = clean(&entry.link_name_bytes().unwrap_or_default())?;
                self.nodes
                    .get(&target)
                    .map_or(NodeKind::Other, |node| node.kind.clone())
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                interesting_content(&path, &name, &mut entry)?
            }
            _ => NodeKind::Other,
        };
        self.put(path, kind);
        Ok(())
    }

    fn put(&mut self, path: Vec<u8>, kind: NodeKind) {
        if path.is_empty() {
            return;
        }
        let layer = self.layer;
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            // A folder that no entry of this layer names hides a link or file of a lower layer.
            match self.nodes.get(&path[..at]) {
                Some(Node {
                    kind: NodeKind::Folder,
                    ..
                }) => {}
                Some(node) if node.layer == layer => {}
                _ => {
                    let kind = NodeKind::Folder;
                    self.nodes.insert(path[..at].to_vec(), Node { layer, kind });
                }
            }
        }
        if kind != NodeKind::Folder {
            self.remove_below(&path, false);
        }
        self.nodes.insert(path, Node { layer, kind });
    }

    /// Removes what is below a folder; with `only_lower`, only what lower layers brought.
    fn remove_below(&mut self, folder: &[u8], only_lower: bool) {
        let layer = self.layer;
        let doomed: Vec<Vec<u8>> = self
            .below(folder)
            .filter(|(_, node)| !only_lower || node.layer < layer)
            .map(|(path, _)| path.clone())
            .collect();
        for path in doomed {
            self.nodes.remove(&path);
        }
    }

    fn below(&self, folder: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Node)> {
        let prefix = if folder.is_empty() {
            Vec::new()
        } else {
            [folder, b"/"].concat()
        };
        let start = Bound::Included(prefix.clone());
        self.nodes
            .range((start, Bound::Unbounded))
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Names in `folder` (links on the way followed), sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let Some(folder) = self.resolve(folder) else {
            return Vec::new();
        };
        let folder = folder.as_bytes();
        let skip = if folder.is_empty() {
            0
        } else {
            folder.len() + 1
        };
        self.below(folder)
            .map(|(path, _)| &path[skip..])
            .filter(|name| !name.contains(&b'/'))
            .filter_map(|name| String::from_utf8(name.to_vec()).ok())
            .collect()
    }

    /// The path that `path` leads to when all links are followed inside the image, without leading `/`; `None` if
    /// nothing is there.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut todo: Vec<Vec<u8>> = components(path.as_bytes());
        let mut done: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                let cut = done.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                done.truncate(cut);
                continue;
            }
            let next = join(&done, &name);
            match self.nodes.get(&next).map(|node| &node.kind)? {
                NodeKind::Link(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    todo.extend(components(target));
                }
                _ => done = next,
            }
        }
        String::from_utf8(done).ok()
    }

    /// What stands at `path` when all links are followed.
    pub fn get(&self, path: &str) -> Option<&NodeKind> {
        let real = self.resolve(path)?;
        self.nodes.get(real.as_bytes()).map(|node| &node.kind)
    }

    /// The text file at `path`, links followed; bytes that are not UTF-8 are replaced.
    pub fn text(&self, path: &str) -> Option<String> {
        match self.get(path)? {
            NodeKind::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// All ELF files that were looked at.
    pub fn binaries(&self) -> impl Iterator<Item = (&[u8], &Binary)> {
        self.nodes
            .iter()
            .filter_map(|(path, node)| match &node.kind {
                NodeKind::Binary(binary) => Some((path.as_slice(), &**binary)),
                _ => None,
            })
    }
}

fn interesting_content(path: &[u8], name: &[u8], entry: &mut impl Read) -> io::Result<NodeKind> {
    let text = matches!(
        path,
        b"etc/passwd" | b"etc/group" | b"etc/os-release" | b"usr/lib/os-release"
    ) || name == b"patchlevel.h";
    let binary = [
        &b"python3"[..],
        b"libpython3",
        b"pypy",
        b"python",
        b"libc.so.",
        b"libc-2.",
    ]
    .iter()
    .any(|start| name.starts_with(start));
    let mut bytes = Vec::new();
    if text {
        entry.take(TEXT_LIMIT).read_to_end(&mut bytes)?;
        return Ok(NodeKind::Text(bytes));
    }
    if binary {
        entry.take(BINARY_LIMIT).read_to_end(&mut bytes)?;
        if let Some(found) = Binary::parse(&bytes) {
            return Ok(NodeKind::Binary(Box::new(found)));
        }
    }
    Ok(NodeKind::Other)
}

/// The components of a path, last first, without empty ones and `.`.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .rev()
        .collect()
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        name.to_vec()
    } else {
        [folder, b"/", name].concat()
    }
}

fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    let mut parts = components(path);
    parts.reverse();
    if parts.iter().any(|part| part == b"..") {
        let shown = String::from_utf8_lossy(path).into_owned();
        return Err(refuse(format!(
            "its entry `{shown}` leads out of the image"
        )));
    }
    Ok(parts.join(&b'/'))
}

fn refuse(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// A reader of the tar inside a blob, whichever way it is compressed.
pub fn decompress<'a>(blob: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut blob = BufReader::with_capacity(256 * 1024, blob);
    let start = blob.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(blob)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(blob)?))
    } else {
        Ok(Box::new(blob))
    }
}

struct HashingReader<R> {
    inner: R,
    hasher: HashingWriter<io::Sink>,
}

impl<R> HashingReader<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: HashingWriter::new(io::sink()),
        }
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        io::Write::write_all(&mut self.hasher, &buf[..n])?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, link) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            match link {
                Some(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, target).unwrap();
                }
                None if path.ends_with('/') => {
                    header.set_entry_type(tar::EntryType::Directory);
                    builder.append_data(&mut header, path, io::empty()).unwrap();
                }
                None => {
                    let content = b"root:x:0:0::/:\n";
                    header.set_size(content.len() as u64);
                    builder
                        .append_data(&mut header, path, &content[..])
                        .unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn links_whiteouts_and_opaque_folders_apply_in_order() {
        let mut tree = Tree::default();
        let lower = layer(&[
            ("usr/bin/", None),
            ("usr/bin/a", None),
            ("bin", Some("usr/bin")),
            ("etc/passwd", None),
            ("opt/x/one", None),
            ("opt/x/two", None),
            ("loop", Some("loop")),
            ("up", Some("../../etc/passwd")),
            ("abs", Some("/bin/a")),
        ]);
        let read = tree.apply(lower.as_slice()).unwrap();
        assert_eq!(read.diff_id, Digest::of(&lower));
        assert_eq!(read.unpacked, lower.len() as u64);
        assert_eq!(tree.resolve("/bin/a").as_deref(), Some("usr/bin/a"));
        assert_eq!(tree.resolve("abs").as_deref(), Some("usr/bin/a"));
        assert_eq!(tree.resolve("up").as_deref(), Some("etc/passwd"));
        assert_eq!(tree.resolve("loop/x"), None);
        assert_eq!(tree.names("/bin"), ["a"]);
        assert!(tree.text("/etc/passwd").unwrap().starts_with("root:"));

        let upper = layer(&[
            ("opt/x/new", None),
            ("opt/x/.wh..wh..opq", None),
            ("etc/.wh.passwd", None),
            ("usr/bin/b", None),
        ]);
        tree.apply(upper.as_slice()).unwrap();
        assert_eq!(tree.names("opt/x"), ["new"]);
        assert_eq!(tree.get("/etc/passwd"), None);
        assert_eq!(tree.names("usr/bin"), ["a", "b"]);

        let hiding = layer(&[("bin/c", None)]);
        tree.apply(hiding.as_slice()).unwrap();
        assert_eq!(tree.names("/bin"), ["c"], "the link is hidden by a folder");
    }

    #[test]
    fn reads_every_compression_and_refuses_escapes() {
        let plain = layer(&[("etc/passwd", None)]);
        let mut gzip = Vec::new();
        for half in plain.chunks(700) {
            let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut member, half).unwrap();
            gzip.extend(member.finish().unwrap());
        }
        let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
        for blob in [&plain, &gzip, &zstd] {
            let mut tree = Tree::default();
            assert_eq!(
                tree.apply(blob.as_slice()).unwrap().diff_id,
                Digest::of(&plain)
            );
            assert!(tree.text("etc/passwd").is_some());
        }
        let mut bad = layer(&[("aa/passwd", None)]);
        bad[..2].copy_from_slice(b"..");
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes().copy_from_slice(&bad[..512]);
        header.set_cksum();
        bad[..512].copy_from_slice(header.as_bytes());
        let error = Tree::default().apply(bad.as_slice()).unwrap_err();
        assert!(error.to_string().contains("../passwd"), "{error}");
        assert!(Tree::default().apply(&gzip[..gzip.len() - 30]).is_err());
    }
}
