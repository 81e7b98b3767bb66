//! Progress on standard error, drawn only when it is a terminal.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::progress::{Progress, Stage};
use crate::report::neutral;

/// Bars on a terminal; warnings always.
#[derive(Debug)]
pub struct Bars {
    quiet: bool,
    multi: Option<MultiProgress>,
    bars: Mutex<BTreeMap<u64, ProgressBar>>,
    next: AtomicU64,
}

impl Bars {
    /// Draws only if standard error is a terminal and `quiet` is false.
    pub fn new(quiet: bool) -> Self {
        let draw = !quiet && std::io::stderr().is_terminal();
        Self {
            quiet,
            multi: draw.then(MultiProgress::new),
            bars: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    /// Prints one line on standard error, above the bars; nothing under `--quiet` and `--json`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.tell(text);
        }
    }

    /// Prints one line on standard error, above the bars, whatever the flags: a part of the answer.
    pub fn tell(&self, text: &str) {
        self.write(format!("{}\n", neutral_lines(text)).as_bytes());
    }

    /// Writes to standard error, above the bars. A reader that has gone away is no error.
    pub fn write(&self, bytes: &[u8]) {
        let write = || {
            let _ = std::io::stderr().write_all(bytes);
        };
        match &self.multi {
            Some(multi) => multi.suspend(write),
            None => write(),
        }
    }
}

impl Progress for Bars {
    fn begin(&self, stage: Stage, name: &str, total: Option<u64>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if let (Some(multi), Ok(mut bars)) = (&self.multi, self.bars.lock()) {
            let bar = multi.add(bar(stage, name, total));
            bars.insert(id, bar);
        }
        id
    }

    fn advance(&self, id: u64, units: u64) {
        if self.multi.is_some()
            && let Ok(bars) = self.bars.lock()
            && let Some(bar) = bars.get(&id)
        {
            bar.inc(units);
        }
    }

    fn end(&self, id: u64) {
        if self.multi.is_some()
            && let Ok(mut bars) = self.bars.lock()
            && let Some(bar) = bars.remove(&id)
        {
            bar.finish_and_clear();
        }
    }

    fn warn(&self, message: &str) {
        self.write(format!("warning: {}\n", neutral_lines(message)).as_bytes());
    }

    fn note(&self, message: &str) {
        Self::note(self, message);
    }
}

/// `text` without anything that could steer a terminal: others may have written parts of it.
pub fn neutral_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(neutral).collect();
    lines.join("\n")
}

fn verb(stage: Stage) -> &'static str {
    match stage {
        Stage::Resolve => "resolving",
        Stage::Fetch => "fetching",
        Stage::Base | Stage::Records => "reading",
        Stage::Layer => "layering",
        Stage::Configure => "configuring",
        Stage::Unpack => "unpacking",
        Stage::Export => "writing",
        Stage::Push => "pushing",
        Stage::Run => "running",
    }
}

fn bar(stage: Stage, name: &str, total: Option<u64>) -> ProgressBar {
    let bytes = !matches!(
        stage,
        Stage::Resolve | Stage::Configure | Stage::Unpack | Stage::Records | Stage::Run
    );
    let template = match (total, bytes) {
        (Some(_), true) => "{prefix:>12} {msg:<32!} {bar:24} {bytes:>10}/{total_bytes}",
        (Some(_), false) => "{prefix:>12} {msg:<32!} {bar:24} {pos:>5}/{len}",
        (None, _) => "{prefix:>12} {msg} {spinner}",
    };
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(verb(stage));
    bar.set_message(neutral(name));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
