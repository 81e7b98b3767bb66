//! The normalised form of what runs leave behind; versioned, printed by `--json`, kept in the state database.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::JobState;

/// How a test case ended.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// As it should.
    Pass,
    /// Worth a look.
    Warning,
    /// Not as it should.
    Fail,
    /// Not executed.
    Skip,
}

impl Status {
    /// As documents have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warning => "WARNING",
            Self::Fail => "FAIL",
            Self::Skip => "SKIP",
        }
    }
}

/// How much a finding matters.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Nothing was found.
    None,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

impl Severity {
    /// As documents have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
        }
    }

    /// What a finding has of which a test says only the status.
    pub(super) fn of(status: Status, declared: Option<Self>) -> Self {
        match status {
            Status::Pass | Status::Skip => Self::None,
            Status::Warning => declared.unwrap_or(Self::Medium),
            Status::Fail => declared.unwrap_or(Self::High),
        }
    }
}

/// One test case of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TestCase {
    /// The job that executed it.
    pub test_run_id: String,
    /// The features of the data that it is about.
    pub features: Vec<String>,
    /// The kind of test, for example `Abnormal Inputs`; the test's module unless declared.
    pub test_batch_type: String,
    /// The test's name with its parameters.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// How much that matters; `NONE` unless it failed or warned.
    pub severity: Severity,
    /// What the test says about it.
    pub message: Option<String>,
    /// Milliseconds.
    pub duration_ms: Option<u64>,
}

/// One row per run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// The job.
    pub test_run_id: String,
    /// The run's name with its cell.
    pub name: String,
    /// Its project.
    pub project: String,
    /// Where the job stands.
    pub state: JobState,
    /// Why it ended so.
    pub reason: Option<String>,
    /// Milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// Milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// Highest memory use in bytes, where the machine counts it.
    pub peak_memory_bytes: Option<u64>,
    /// Test cases.
    pub total: u64,
    /// Of them.
    pub pass: u64,
    /// Of them.
    pub warning: u64,
    /// Of them.
    pub fail: u64,
    /// Of them.
    pub skip: u64,
    /// Test cases of that severity.
    pub severity_none: u64,
    /// Test cases of that severity.
    pub severity_low: u64,
    /// Test cases of that severity.
    pub severity_medium: u64,
    /// Test cases of that severity.
    pub severity_high: u64,
}

impl Summary {
    /// Of a job of which nothing is told or counted yet.
    pub fn new(id: &str, name: &str, project: &str, state: JobState) -> Self {
        Self {
            test_run_id: id.into(),
            name: name.into(),
            project: project.into(),
            state,
            reason: None,
            started_ms: None,
            ended_ms: None,
            peak_memory_bytes: None,
            total: 0,
            pass: 0,
            warning: 0,
            fail: 0,
            skip: 0,
            severity_none: 0,
            severity_low: 0,
            severity_medium: 0,
            severity_high: 0,
        }
    }

    /// Counts `cases`.
    pub fn count(&mut self, cases: &[TestCase]) {
        let status = |s| cases.iter().filter(|case| case.status == s).count() as u64;
        let severity = |s| cases.iter().filter(|case| case.severity == s).count() as u64;
        self.total = cases.len() as u64;
        self.pass = status(Status::Pass);
        self.warning = status(Status::Warning);
        self.fail = status(Status::Fail);
        self.skip = status(Status::Skip);
        self.severity_none = severity(Severity::None);
        self.severity_low = severity(Severity::Low);
        self.severity_medium = severity(Severity::Medium);
        self.severity_high = severity(Severity::High);
    }
}

/// Everything known about a finished job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    /// Version of this document, 1.
    pub version: u32,
    /// One row.
    pub summary: Summary,
    /// In the order of the files.
    pub cases: Vec<TestCase>,
    /// Collected files, relative to the job's `results` folder.
    pub files: Vec<String>,
    /// What a person should know about the collection.
    pub warnings: Vec<String>,
}

impl Results {
    /// The version of this document.
    pub const VERSION: u32 = 1;
}

/// A results file cannot be read: which, where, why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}: {reason}")]
pub struct BadResults {
    /// The file, relative to the results folder.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

/// The most test cases that one run may report.
pub(super) const MOST_CASES: usize = 100_000;

/// Cuts what a test says to what people read, at a character's boundary.
pub(super) fn cut(text: &str) -> Option<String> {
    const MOST: usize = 4096;
    let text = text.trim();
    let end = text.floor_char_boundary(MOST);
    let cut = if end < text.len() {
        format!("{}…", &text[..end])
    } else {
        text.to_owned()
    };
    Some(cut).filter(|text| !text.is_empty())
}
