//! What happens while jobs are executed, and what is left when they are over.

use super::Results;
use crate::runtime::RuntimeError;

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What happens, as it happens.
#[derive(Debug)]
pub enum RunEvent<'a> {
    /// A job's container is about to start.
    Started {
        /// Its id.
        job: &'a str,
        /// The run's name with its cell.
        name: &'a str,
    },
    /// A job printed something; what is above the log's cap is not told.
    Output {
        /// Its id.
        job: &'a str,
        /// The run's name with its cell.
        name: &'a str,
        /// Where.
        stream: Stream,
        /// What; may end within a line or a character.
        bytes: &'a [u8],
    },
    /// A job is over.
    Ended(&'a Finished),
}

/// Receives events from several threads.
pub trait RunObserver: Send + Sync {
    /// One event.
    fn event(&self, event: &RunEvent<'_>);
}

/// A job that is over.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What is known about it.
    pub results: Results,
    /// It was not executed now: an earlier job with the same run key had succeeded.
    pub reused: bool,
    /// The runtime could not execute it, as opposed to: it failed.
    pub error: Option<RuntimeError>,
}
