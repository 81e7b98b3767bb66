//! Results → what people and programs read. Executes nothing, prints nothing.
//!
//! [`table`] is for people; [`Report`] is the JSON document of `--json`. Names and messages come from runs and are
//! not trusted: tables show control and direction characters as escapes.

mod table;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::run::Results;

pub use table::{align, cases_table, duration, neutral, shorten, summary_table};

/// What `test --json` and `results --json` print.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Version of this document, 1.
    pub version: u32,
    /// One per job, in the order of the runs.
    pub runs: Vec<Results>,
}

impl Report {
    /// The version of this document.
    pub const VERSION: u32 = 1;

    /// Puts runs together.
    pub fn new(runs: Vec<Results>) -> Self {
        Self {
            version: Self::VERSION,
            runs,
        }
    }
}
