//! How long work reports that it is getting on. The library calls it; only the command draws.

use std::sync::Arc;

/// What is being done; the command words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Asking indexes and archives; `total` unknown.
    Resolve,
    /// Downloading artifacts; units are bytes.
    Fetch,
    /// Reading base image layers; units are bytes.
    Base,
    /// Building layers; units are bytes of tar.
    Layer,
    /// Configuring OS packages; units are packages.
    Configure,
    /// Unpacking trees for the runtime; units are layers.
    Unpack,
    /// Writing an archive or layout; units are bytes.
    Export,
    /// Sending to a registry; units are bytes.
    Push,
    /// Reading the records of a registry; units are records.
    Records,
    /// Executing runs; units are runs.
    Run,
}

/// Receives events from any thread. Must be cheap: it is called per chunk.
pub trait Progress: Send + Sync {
    /// A piece of work of `total` units (if known) begins; the id names it in later calls.
    fn begin(&self, stage: Stage, name: &str, total: Option<u64>) -> u64;
    /// `units` more are done.
    fn advance(&self, id: u64, units: u64);
    /// The piece of work is over, well or not.
    fn end(&self, id: u64);
    /// Something a person should know that is not an error.
    fn warn(&self, message: &str);
    /// How the work is getting on, for who looks on; nothing is lost if nobody hears it.
    fn note(&self, _message: &str) {}
}

/// Reports to nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Stage, _: &str, _: Option<u64>) -> u64 {
        0
    }
    fn advance(&self, _: u64, _: u64) {}
    fn end(&self, _: u64) {}
    fn warn(&self, _: &str) {}
}

/// A shared reporter.
pub type SharedProgress = Arc<dyn Progress>;
