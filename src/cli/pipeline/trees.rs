//! Unpacked layers for the embedded runtime.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::layer::{Layer, LayerError, tree};
use crate::progress::{Progress, Stage};
use crate::store::Store;

/// The trees of `layers`, in their order; those that are missing are unpacked in parallel.
pub fn unpack_all(
    context: &Context,
    store: &Store,
    layers: &[Layer],
) -> Result<Vec<PathBuf>, Failure> {
    let progress = &*context.progress;
    let id = progress.begin(Stage::Unpack, "layers", Some(layers.len() as u64));
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<PathBuf, LayerError>)>> = Mutex::default();
    let worker = || {
        while let Some((index, layer)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            layers.get(index).map(|layer| (index, layer))
        } {
            let path = tree::unpack(store, layer);
            let failed = path.is_err();
            if let Ok(mut done) = done.lock() {
                done.push((index, path));
            }
            progress.advance(id, 1);
            if failed {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..context.jobs().min(8) {
            scope.spawn(worker);
        }
    });
    progress.end(id);
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    let paths = done
        .into_iter()
        .map(|(_, path)| path)
        .collect::<Result<Vec<_>, _>>()?;
    if paths.len() != layers.len() {
        return Err(Failure::plain(Kind::Bug, "a layer was not unpacked", ""));
    }
    Ok(paths)
}
