//! A declared run → its cells → jobs → results.
//!
//! [`plan`] expands a run's matrix into [`Cell`]s, each with its run key ([`RunDocument`]); [`dispatch`] executes
//! them on a [`crate::runtime::Runtime`], keeps their logs and states, collects what they leave in `/results`
//! ([`collect`]) and reads it ([`junit`], [`cases`]) into a [`Results`] document. Events go to a [`RunObserver`];
//! nothing here prints.

pub mod cases;
pub mod collect;
mod dispatch;
mod event;
pub mod junit;
mod key;
mod log;
mod plan;
mod results;

use crate::diagnostic::{Explain, Kind};
use crate::store::StoreError;

pub use dispatch::{Job, Options, dispatch};
pub use event::{Finished, RunEvent, RunObserver, Stream};
pub use key::RunDocument;
pub use log::LOG_CAP;
pub use plan::{Cell, plan};
pub use results::{BadResults, Results, Severity, Status, Summary, TestCase};

/// The folder in the container whose content is collected.
pub const RESULTS: &str = "/results";

/// The variable that tells a command where [`RESULTS`] is.
pub const RESULTS_VARIABLE: &str = "IMAGEWRIGHT_RESULTS";

/// Why runs could not be planned or dispatched. How a run ends is no error: see [`Finished`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// More cells than anybody means.
    #[error("run `{run}` has {cells} matrix cells, at most {most} are allowed")]
    TooManyCells {
        /// The run.
        run: String,
        /// What its axes multiply to.
        cells: usize,
        /// The limit.
        most: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for RunError {
    fn kind(&self) -> Kind {
        match self {
            Self::TooManyCells { .. } => Kind::Usage,
            Self::Store(error) => error.kind(),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooManyCells { .. } => {
                Some("split the run, or loop over an axis in the command".into())
            }
            Self::Store(error) => error.hint(),
        }
    }
}
