//! Layers of project files and of downloads.

use std::fs;
use std::path::Path;

use super::tree::{Content, Tree};
use super::{FilesError, Scanned, layer, paths};
use crate::digest::Digest;
use crate::identity::{FetchDocument, FileDocument, LayerDocument};
use crate::layer::Layer;
use crate::layer::entry::Entry;
use crate::manifest::FetchSpec;
use crate::store::Store;

/// How many places a layer's comment names.
const NAMED_PLACES: usize = 3;

/// The layer of scanned project files; `None` when there are none.
///
/// # Errors
/// When a file changed since it was scanned, one path is file and folder, or the store fails.
pub fn project(store: &Store, scanned: &Scanned) -> Result<Option<Layer>, FilesError> {
    if scanned.entries.is_empty() {
        return Ok(None);
    }
    let document = LayerDocument::files(scanned.entries.clone());
    layer(store, &document, comment(scanned), || tree(scanned)).map(Some)
}

fn tree(scanned: &Scanned) -> Result<Tree, FilesError> {
    let mut tree = Tree::default();
    for (path, document) in &scanned.entries {
        let clean = path.trim_start_matches('/');
        match document {
            FileDocument::Folder { mode } => {
                // A folder that every image has keeps its own mode.
                let mode = if *mode == 0o755 {
                    paths::parent_mode(clean)
                } else {
                    *mode
                };
                tree.folder(clean, mode);
            }
            FileDocument::Link { target } => tree.link(clean, target),
            FileDocument::File { sha256, mode } => {
                let Some(source) = scanned.sources.get(path) else {
                    return Err(FilesError::Missing { digest: *sha256 });
                };
                put_file(&mut tree, clean, source, sha256, *mode)?;
            }
        }
    }
    Ok(tree)
}

fn put_file(
    tree: &mut Tree,
    path: &str,
    source: &Path,
    digest: &Digest,
    mode: u32,
) -> Result<(), FilesError> {
    let meta = fs::metadata(source).map_err(|error| FilesError::Read {
        path: source.into(),
        source: error,
    })?;
    let entry = Entry::file(path, meta.len(), mode);
    tree.put(entry, Content::File(source.into(), *digest));
    Ok(())
}

/// The topmost places that the layer writes to.
fn comment(scanned: &Scanned) -> String {
    let mut places: Vec<&str> = Vec::new();
    for path in scanned.entries.keys() {
        let below = |place: &&str| path.starts_with(&format!("{place}/"));
        if !places.iter().any(below) {
            places.push(path);
        }
    }
    let more = places.len().saturating_sub(NAMED_PLACES);
    places.truncate(NAMED_PLACES);
    let tail = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("files {}{tail}", places.join(", "))
}

/// The layer of one download, which must be in the store's artifacts. A `to` with trailing `/` is the folder to put
/// it into under the last name of its URL.
///
/// # Errors
/// When the artifact is missing or damaged, the target is not allowed, or the store fails.
pub fn fetch(store: &Store, spec: &FetchSpec) -> Result<Layer, FilesError> {
    let wanted = fetch_document(spec)?;
    let clean = wanted.to.trim_start_matches('/').to_owned();
    let comment = fetch_comment(&wanted);
    layer(store, &LayerDocument::fetch(&wanted), comment, || {
        let missing = FilesError::Missing {
            digest: spec.sha256,
        };
        let source = store.artifact(&spec.sha256).ok_or(missing)?;
        let mut tree = Tree::default();
        put_file(&mut tree, &clean, &source, &spec.sha256, wanted.mode)?;
        Ok(tree)
    })
}

/// What the layer of a download holds, for the image's history.
pub fn fetch_comment(document: &FetchDocument) -> String {
    format!("download {}", document.to)
}

/// What decides the layer of a download.
///
/// # Errors
/// When its target is not allowed.
pub fn fetch_document(spec: &FetchSpec) -> Result<FetchDocument, FilesError> {
    let to = match spec.to.ends_with('/') {
        true => format!("{}{}", spec.to, last_name(&spec.url)),
        false => spec.to.clone(),
    };
    let wrong = |reason| FilesError::Target {
        path: to.clone(),
        reason,
    };
    let clean = paths::check(&to).map_err(wrong)?;
    if clean.is_empty() || to.ends_with('/') {
        return Err(wrong("it names no file"));
    }
    let mode = spec.mode.unwrap_or(FetchDocument::DEFAULT_MODE) & 0o7777;
    Ok(FetchDocument {
        sha256: spec.sha256,
        to: format!("/{clean}"),
        mode,
    })
}

fn last_name(url: &str) -> String {
    let parsed = url::Url::parse(url).ok();
    let segment = parsed
        .as_ref()
        .and_then(|url| url.path_segments()?.next_back());
    let segment = segment.unwrap_or_default();
    percent_encoding::percent_decode_str(segment)
        .decode_utf8_lossy()
        .replace('/', "_")
}
