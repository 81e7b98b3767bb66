//! Layer → unpacked folder `trees/<diff id>`, for the embedded runtime's overlay.
//!
//! The tar is inflated by one thread, hashed by a second, and written by the caller's; the tree appears under its name only
//! when its diff ID was verified. A tree is a cache: it is not synced to disk, so that a run does not wait for that, and a
//! process that is killed leaves only its temporary folder.
//!
//! As root, owners, set-id bits, devices and file capabilities are kept (`trees` is a folder that nobody else can enter);
//! without privileges everything belongs to the user and devices are left out. Whiteouts take the form that overlay knows.

mod archive;
mod extract;

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use archive::Archive;
use extract::{Extractor, is_privileged, shown};

use super::blob::decoder;
use super::recipe::Recipe;
use super::{Layer, LayerContent, LayerError};
use crate::digest::{Digest, HashingWriter};
use crate::progress::{Progress, Stage};
use crate::store::{Store, remove_tree};

/// Bytes that go from thread to thread at a time.
const CHUNK: usize = 512 << 10;
/// Chunks that may wait for a thread.
const QUEUE: usize = 8;

/// Unpacks `layer` unless it is there already; returns its folder.
///
/// # Errors
/// When the layer's bytes are missing, do not have the layer's diff ID, or are refused; when the disk is full.
pub fn unpack(store: &Store, layer: &Layer) -> Result<PathBuf, LayerError> {
    let target = store.tree_path(&layer.diff_id);
    if target.is_dir() {
        return Ok(target);
    }
    let _one = store.lock(&format!("tree-{}", layer.diff_id.hex()))?;
    if target.is_dir() {
        return Ok(target);
    }
    let folder = store.scratch().new_folder()?;
    let result = fill(store, layer, &folder).and_then(|()| {
        fs::rename(&folder, &target).map_err(LayerError::io("put into place", &target))
    });
    if result.is_err() {
        let _ = remove_tree(&folder);
        set_aside(store, layer);
    }
    result.map(|()| target)
}

/// Removes a blob that is not what its name says, so that it is fetched anew. Recipes see to theirs.
fn set_aside(store: &Store, layer: &Layer) {
    let Some(path) = store.blob(&layer.digest) else {
        return;
    };
    let found = File::open(&path).and_then(Digest::of_reader);
    if found.is_ok_and(|(digest, _)| digest != layer.digest) {
        let _ = fs::remove_file(path);
    }
}

/// Unpacks all `layers`, `jobs` at a time; the folders are in the order of the layers.
///
/// # Errors
/// The first that occurred; what was unpacked before stays in the store.
pub fn unpack_all(
    store: &Store,
    layers: &[Layer],
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>, LayerError> {
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(layers[index].unpacked));
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(Vec::new());
    let missing = layers
        .iter()
        .filter(|layer| !store.tree_path(&layer.diff_id).is_dir())
        .count();
    let id = (missing > 0).then(|| progress.begin(Stage::Unpack, "layers", Some(missing as u64)));
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let known = store.tree_path(&layers[index].diff_id).is_dir();
            let tree = unpack(store, &layers[index]);
            stop.fetch_or(tree.is_err(), Ordering::Relaxed);
            if let (Some(id), false) = (id, known) {
                progress.advance(id, 1);
            }
            done.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((index, tree));
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs.clamp(1, 16).min(missing.max(1)) {
            scope.spawn(worker);
        }
        worker();
    });
    if let Some(id) = id {
        progress.end(id);
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, tree)| tree).collect()
}

fn fill(store: &Store, layer: &Layer, folder: &Path) -> Result<(), LayerError> {
    let recipe = match layer.content {
        LayerContent::Recipe => Recipe::load(store, &layer.key)?,
        LayerContent::Blob | LayerContent::Registry => None,
    };
    let missing = || LayerError::Missing {
        comment: layer.comment.clone(),
        digest: layer.digest,
    };
    let blob: Box<dyn Read + Send + '_> = match (layer.content, &recipe) {
        (LayerContent::Recipe, Some(recipe)) => Box::new(recipe.reader(store)?),
        (LayerContent::Recipe, None) | (LayerContent::Registry, _) => return Err(missing()),
        (LayerContent::Blob, _) => {
            let path = store.blob(&layer.digest).ok_or_else(missing)?;
            Box::new(File::open(&path).map_err(LayerError::io("read", path))?)
        }
    };
    fs::set_permissions(folder, Permissions::from_mode(0o755))
        .map_err(LayerError::io("set the mode of", folder))?;
    let found = extract(blob, layer, folder)?;
    if found == layer.diff_id {
        return Ok(());
    }
    Err(LayerError::Damaged {
        comment: layer.comment.clone(),
        expected: layer.diff_id,
        found,
        reason: "the tar does not have the layer's diff ID",
    })
}

/// Writes the tar inside of `blob` below `folder`; returns its digest.
fn extract(
    blob: Box<dyn Read + Send + '_>,
    layer: &Layer,
    folder: &Path,
) -> Result<Digest, LayerError> {
    let unreadable = |reason: String| LayerError::Unreadable {
        comment: layer.comment.clone(),
        reason,
    };
    thread::scope(|scope| {
        let (tar, chunks) = sync_channel(QUEUE);
        let (copy, copies) = sync_channel(QUEUE);
        let inflating = scope.spawn(move || inflate(blob, layer.unpacked, &tar, &copy));
        let hashing = scope.spawn(move || hash(copies));
        let written = write(chunks, folder);
        let inflated = inflating
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread ended early")));
        let digest = hashing
            .join()
            .map_err(|_| unreadable("a thread ended early".into()))?;
        // A broken stream explains a broken tar, not the other way round.
        if let Err(error) = inflated
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(unreadable(error.to_string()));
        }
        written.map_err(|(path, reason)| match path.as_slice() {
            [] => unreadable(reason),
            path => LayerError::Entry {
                comment: layer.comment.clone(),
                entry: shown(path),
                reason,
            },
        })?;
        Ok(digest)
    })
}

type Chunk = Arc<Vec<u8>>;

/// Delivers the tar, but nothing of one that is longer than `length` bytes beyond that: a few bytes can be a disk full.
fn inflate(
    blob: Box<dyn Read + Send + '_>,
    length: u64,
    tar: &SyncSender<Chunk>,
    copy: &SyncSender<Chunk>,
) -> io::Result<()> {
    let mut reader = decoder(blob)?;
    let mut left = length;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(());
        }
        left = left.checked_sub(chunk.len() as u64).ok_or_else(|| {
            io::Error::other(format!("it unpacks to more than its {length} bytes"))
        })?;
        let chunk = Arc::new(chunk);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        copy.send(Arc::clone(&chunk)).map_err(gone)?;
        tar.send(chunk).map_err(gone)?;
    }
}

fn hash(chunks: Receiver<Chunk>) -> Digest {
    let mut hasher = HashingWriter::new(io::sink());
    for chunk in chunks {
        // A sink accepts everything.
        let _ = hasher.write_all(&chunk);
    }
    hasher.finish().1
}

fn write(chunks: Receiver<Chunk>, folder: &Path) -> Result<(), extract::Fault> {
    let whole = |error: io::Error| (Vec::new(), error.to_string());
    let mut extractor = Extractor::new(folder, is_privileged()).map_err(whole)?;
    let mut archive = Archive::new(Chunks {
        chunks,
        current: Chunk::default(),
        at: 0,
    });
    extractor.all(&mut archive)?;
    archive.drain().map_err(whole)
}

/// Reads chunks as they come.
struct Chunks {
    chunks: Receiver<Chunk>,
    current: Chunk,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            let Ok(next) = self.chunks.recv() else {
                return Ok(0);
            };
            self.current = next;
            self.at = 0;
        }
        let length = out.len().min(self.current.len() - self.at);
        out[..length].copy_from_slice(&self.current[self.at..][..length]);
        self.at += length;
        Ok(length)
    }
}
