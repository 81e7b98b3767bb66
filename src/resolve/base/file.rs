//! Single files out of layers, without unpacking them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use super::tree::decompress;
use crate::digest::Digest;
use crate::store::{Store, StoreError};

/// Most bytes of one file.
const LIMIT: u64 = 64 << 20;

/// The contents of the files at `paths` (without leading `/`) in an image whose layers' blobs, lowest first, are in the
/// store. A path that no layer has as a regular file, or that an upper layer removes, is missing in the answer. Links are
/// not followed.
///
/// # Errors
/// When a blob cannot be read.
pub fn read_files(
    store: &Store,
    blobs: &[Digest],
    paths: &[&str],
) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let mut found = BTreeMap::new();
    let mut open: Vec<&str> = paths.to_vec();
    for blob in blobs.iter().rev() {
        if open.is_empty() {
            break;
        }
        let path = store.blob_path(blob);
        let decided = scan(&path, &open, &mut found).map_err(StoreError::io("read", path))?;
        open.retain(|path| !decided.iter().any(|decided| decided == path));
    }
    Ok(found)
}

/// Looks through one layer; answers which of `open` it decides, because it has or removes them.
fn scan(
    blob: &std::path::Path,
    open: &[&str],
    found: &mut BTreeMap<String, Vec<u8>>,
) -> io::Result<Vec<String>> {
    let mut decided = Vec::new();
    let mut archive = tar::Archive::new(decompress(File::open(blob)?)?);
    for entry in archive.entries()? {
        let entry = entry?;
        let bytes = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&bytes);
        let path = path
            .trim_start_matches("./")
            .trim_start_matches('/')
            .to_owned();
        for wanted in open {
            if removes(&path, wanted) {
                decided.push((*wanted).to_owned());
            }
        }
        if !open.contains(&path.as_str()) {
            continue;
        }
        decided.push(path.clone());
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.take(LIMIT).read_to_end(&mut content)?;
            found.insert(path, content);
        }
    }
    Ok(decided)
}

/// Whether the entry `path` is a whiteout of `wanted` or of a folder above it (OCI layer specification, whiteouts).
fn removes(path: &str, wanted: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(hidden) = name.strip_prefix(".wh.") else {
        return false;
    };
    let below = |folder: &str| {
        wanted
            .strip_prefix(folder)
            .is_some_and(|rest| folder.is_empty() || rest.starts_with('/'))
    };
    if hidden == ".wh..opq" {
        return below(folder);
    }
    let hidden = if folder.is_empty() {
        hidden.to_owned()
    } else {
        format!("{folder}/{hidden}")
    };
    wanted == hidden || below(&hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::entry::{Entry, TRAILER, write_entry};

    fn blob(store: &Store, files: &[(&str, &str)]) -> Digest {
        let mut tar = Vec::new();
        for (path, content) in files {
            write_entry(
                &mut tar,
                &Entry::file(*path, content.len() as u64, 0o644),
                content.as_bytes(),
            )
            .unwrap();
        }
        tar.extend_from_slice(&TRAILER);
        store.put_blob(&tar).unwrap()
    }

    #[test]
    fn the_uppermost_layer_decides_and_whiteouts_count() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let low = blob(
            &store,
            &[
                ("etc/passwd", "low"),
                ("etc/group", "low"),
                ("var/lib/dpkg/status", "low"),
                ("a/b", "x"),
            ],
        );
        let high = blob(
            &store,
            &[
                ("etc/passwd", "high"),
                ("var/lib/.wh.dpkg", ""),
                ("a/.wh..wh..opq", ""),
            ],
        );
        let paths = [
            "etc/passwd",
            "etc/group",
            "var/lib/dpkg/status",
            "a/b",
            "none",
        ];
        let found = read_files(&store, &[low, high], &paths).unwrap();
        let texts: Vec<_> = found
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_slice()))
            .collect();
        assert_eq!(
            texts,
            [("etc/group", &b"low"[..]), ("etc/passwd", &b"high"[..])]
        );
    }
}
