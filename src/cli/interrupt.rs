//! SIGINT and SIGTERM: the first asks everything to end and clean up, a second one ends the process at once.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::diagnostic::Kind;
use crate::image::LayerSource;
use crate::layer::Layer;
use crate::runtime::Cancel;
use crate::store::remove_tree;

/// How many run containers: these clean up and end by themselves.
static GRACEFUL: AtomicUsize = AtomicUsize::new(0);

/// Temporary folders of this process.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Held while a file is put into place that is not in a temporary folder.
static WRITING: Mutex<()> = Mutex::new(());

/// Other threads may add to a temporary folder while it is being removed.
const REMOVALS: usize = 3;

/// How long a cancelled command may take to clean up.
const PATIENCE: Duration = Duration::from_secs(15);

/// Starts to listen; the token is set at the first signal.
pub fn watch() -> Cancel {
    let cancel = Cancel::new();
    let seen = cancel.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            runtime.block_on(listen(seen));
        }
    });
    cancel
}

/// While the guard lives, an interrupt does not end the process: for moments, never while something is waited for.
pub fn hold() -> MutexGuard<'static, ()> {
    WRITING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Has this folder removed when an interrupt ends the process at once.
pub fn remove_at_exit(folder: &Path) {
    if let Ok(mut folders) = TEMPORARY.lock() {
        folders.push(folder.to_owned());
    }
}

/// While the guard lives, an interrupt only sets the token.
#[derive(Debug)]
pub struct Graceful(());

impl Graceful {
    /// Begins.
    pub fn begin() -> Self {
        GRACEFUL.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Graceful {
    fn drop(&mut self) {
        GRACEFUL.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn listen(cancel: Cancel) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    cancel.cancel();
    if GRACEFUL.load(Ordering::SeqCst) > 0 {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = tokio::time::sleep(PATIENCE) => {}
        }
    }
    let _held = hold();
    // What is half-written lies in there. What does not go away now is swept by the next process.
    let folders = TEMPORARY.lock().map(|folders| folders.clone());
    for folder in folders.unwrap_or_default() {
        let _ = (0..REMOVALS).any(|_| remove_tree(&folder).is_ok());
    }
    std::process::exit(Kind::Interrupted.exit_code().into());
}

/// Layers that cannot be read any more once the command is cancelled, so that whoever writes them removes what it
/// has begun.
#[derive(Debug)]
pub struct Watched<'a, S> {
    /// The layers.
    pub source: &'a S,
    /// The token.
    pub cancel: &'a Cancel,
}

impl<S: LayerSource> LayerSource for Watched<'_, S> {
    fn open_at(&self, layer: &Layer, from: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(WatchedReader {
            reader: self.source.open_at(layer, from)?,
            cancel: self.cancel.clone(),
        }))
    }
}

struct WatchedReader {
    reader: Box<dyn Read + Send>,
    cancel: Cancel,
}

impl Read for WatchedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.cancel.is_cancelled() {
            true => Err(io::Error::other("interrupted")),
            false => self.reader.read(buffer),
        }
    }
}
