//! SIGINT and SIGTERM: the first asks everything to end and clean up, a second one ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::diagnostic::Kind;
use crate::runtime::Cancel;

/// Set while containers run: their owner cleans up and ends by itself.
static GRACEFUL: AtomicBool = AtomicBool::new(false);

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

/// While the guard lives, an interrupt only sets the token.
#[derive(Debug)]
pub struct Graceful(());

impl Graceful {
    /// Begins.
    pub fn begin() -> Self {
        GRACEFUL.store(true, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Graceful {
    fn drop(&mut self) {
        GRACEFUL.store(false, Ordering::SeqCst);
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
    if GRACEFUL.load(Ordering::SeqCst) {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = tokio::time::sleep(PATIENCE) => {}
        }
    }
    // What is half-written lies in this process's temporary folder, which the next process sweeps.
    std::process::exit(Kind::Interrupted.exit_code().into());
}
