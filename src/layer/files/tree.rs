//! A small layer before it is a tar: paths with metadata and where their content is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::FilesError;
use super::paths::parent_mode;
use crate::digest::{Digest, HashingWriter};
use crate::layer::entry::{Entry, EntryKind, TRAILER};

/// Entries by path; parents are added, order is by path.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<Vec<u8>, (Entry, Content)>,
}

/// Where a file's bytes are.
#[derive(Debug)]
pub enum Content {
    /// Here; empty for what is not a file.
    Bytes(Vec<u8>),
    /// In a file that must still have this digest when it is copied.
    File(PathBuf, Digest),
}

impl Tree {
    /// Adds an entry and its parents; a parent that is there keeps its metadata, an entry of the same path is
    /// replaced.
    pub fn put(&mut self, entry: Entry, content: Content) {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            self.nodes
                .entry(parent.as_bytes().to_vec())
                .or_insert_with(|| {
                    let mut folder = Entry::folder(parent);
                    folder.mode = parent_mode(parent);
                    (folder, Content::Bytes(Vec::new()))
                });
        }
        self.nodes.insert(entry.path.clone(), (entry, content));
    }

    /// Adds a file whose bytes are at hand.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) {
        let content = content.into();
        self.put(
            Entry::file(path, content.len() as u64, mode),
            Content::Bytes(content),
        );
    }

    /// Adds a folder of root's with this mode.
    pub fn folder(&mut self, path: &str, mode: u32) {
        let mut entry = Entry::folder(path);
        entry.mode = mode;
        self.put(entry, Content::Bytes(Vec::new()));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(Entry::symlink(path, target), Content::Bytes(Vec::new()));
    }

    /// Writes the tar.
    ///
    /// # Errors
    /// Those of `out` and of the files; when a file is not what it was; when a file stands where a folder must be.
    pub fn write(self, out: &mut impl Write) -> Result<(), FilesError> {
        self.check_parents()?;
        for (entry, content) in self.nodes.into_values() {
            let mut header = Vec::new();
            entry.write_header(&mut header);
            out.write_all(&header).map_err(FilesError::Write)?;
            match content {
                Content::Bytes(bytes) => out.write_all(&bytes).map_err(FilesError::Write)?,
                Content::File(path, digest) => copy_file(&path, &digest, entry.size(), out)?,
            }
            out.write_all(&[0; 512][..entry.padding()])
                .map_err(FilesError::Write)?;
        }
        out.write_all(&TRAILER).map_err(FilesError::Write)
    }

    fn check_parents(&self) -> Result<(), FilesError> {
        for path in self.nodes.keys() {
            for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                let parent = self.nodes.get(&path[..at]);
                if parent.is_some_and(|(entry, _)| entry.kind != EntryKind::Folder) {
                    let path = format!("/{}", String::from_utf8_lossy(&path[..at]));
                    return Err(FilesError::Conflict { path });
                }
            }
        }
        Ok(())
    }
}

fn copy_file(
    path: &PathBuf,
    digest: &Digest,
    size: u64,
    out: &mut impl Write,
) -> Result<(), FilesError> {
    let fail = |source| FilesError::Read {
        path: path.clone(),
        source,
    };
    let file = File::open(path).map_err(fail)?;
    let mut reader = file.take(size + 1);
    let mut hashing = HashingWriter::new(out);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(fail(error)),
        };
        if hashing.size() + n as u64 > size {
            return Err(FilesError::Changed { path: path.clone() });
        }
        hashing.write_all(&buffer[..n]).map_err(FilesError::Write)?;
    }
    let (_, found, length) = hashing.finish();
    if found != *digest || length != size {
        return Err(FilesError::Changed { path: path.clone() });
    }
    Ok(())
}
