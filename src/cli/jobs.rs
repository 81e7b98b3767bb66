//! `jobs`, `logs`, `results`: what was dispatched, what it printed, what came of it.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::context::{Context, unknown};
use super::failure::Failure;
use super::output;
use crate::diagnostic::Kind;
use crate::report::{Report, cases_table, duration, neutral, summary_table};
use crate::run::Results;
use crate::store::{JobRow, JobState, Store};

/// Flags of `jobs`.
#[derive(Debug, clap::Args)]
pub struct JobsArguments {
    /// Only jobs in one of these states
    #[arg(long, value_enum, value_delimiter = ',')]
    status: Vec<StateFlag>,
    /// Only jobs of this project
    #[arg(long = "of-project", value_name = "PROJECT")]
    of_project: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum StateFlag {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl StateFlag {
    fn state(self) -> JobState {
        match self {
            Self::Pending => JobState::Pending,
            Self::Running => JobState::Running,
            Self::Succeeded => JobState::Succeeded,
            Self::Failed => JobState::Failed,
            Self::Cancelled => JobState::Cancelled,
        }
    }
}

/// What `jobs --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct JobsDocument {
    /// Oldest first.
    pub jobs: Vec<JobDocument>,
}

/// One job.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct JobDocument {
    /// Unique.
    pub id: String,
    /// The run's name with its cell.
    pub name: String,
    /// Its project.
    pub project: String,
    /// Where it stands.
    pub state: JobState,
    /// Why it ended so.
    pub reason: Option<String>,
    /// Milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// Milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// Milliseconds from start to end; absent while it runs, or if it never started.
    pub duration_ms: Option<u64>,
}

/// Lists jobs.
pub fn list(context: &Context, arguments: &JobsArguments) -> Result<ExitCode, Failure> {
    let jobs = context.store()?.state()?.jobs()?;
    let wanted = |job: &JobRow| {
        let state = arguments.status.is_empty()
            || arguments
                .status
                .iter()
                .any(|flag| flag.state() == job.state);
        state
            && arguments
                .of_project
                .as_ref()
                .is_none_or(|project| *project == job.project)
    };
    let jobs = jobs.into_iter().filter(wanted).map(|job| JobDocument {
        id: job.id,
        name: job.name,
        project: job.project,
        state: job.state,
        reason: job.reason,
        started_ms: job.started_ms,
        ended_ms: job.ended_ms,
        duration_ms: elapsed(job.started_ms, job.ended_ms),
    });
    let document = JobsDocument {
        jobs: jobs.collect(),
    };
    if context.global.json {
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    for job in &document.jobs {
        let reason = job
            .reason
            .as_deref()
            .map(|reason| format!(" ({})", neutral(reason)))
            .unwrap_or_default();
        let took = job.duration_ms.map_or("-".into(), duration);
        output::line(&format!(
            "{} {:<9} {} {took:>9} {} {}{reason}",
            job.id,
            job.state.as_str(),
            started(job.started_ms),
            job.project,
            neutral(&job.name)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn elapsed(started_ms: Option<i64>, ended_ms: Option<i64>) -> Option<u64> {
    // A clock that was set back in between tells nothing.
    u64::try_from(ended_ms?.checked_sub(started_ms?)?).ok()
}

/// When a job started, in UTC: `2026-01-31T09:30:00Z`, or as many spaces.
fn started(at: Option<i64>) -> String {
    let at = at.and_then(|at| jiff::Timestamp::from_second(at.div_euclid(1000)).ok());
    format!("{:<20}", at.map_or("-".into(), |at| at.to_string()))
}

/// Flags of `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArguments {
    /// The job
    id: String,
    /// Standard error instead of standard output
    #[arg(long)]
    stderr: bool,
}

/// Prints a log as it was written.
pub fn logs(context: &Context, arguments: &LogsArguments) -> Result<ExitCode, Failure> {
    let store = context.store()?;
    let job = find(&store, &arguments.id)?;
    let name = if arguments.stderr {
        "stderr.log"
    } else {
        "stdout.log"
    };
    let path: PathBuf = store.run_path(&job.id)?.join(name);
    let mut file = std::fs::File::open(&path).map_err(|error| {
        let message = format!("job {} has no log {}: {error}", job.id, path.display());
        Failure::plain(Kind::NotFound, message, "a job that never started has none")
    })?;
    let _ = std::io::copy(&mut file, &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}

/// Flags of `results`.
#[derive(Debug, clap::Args)]
pub struct ResultsArguments {
    /// The jobs
    #[arg(required = true)]
    ids: Vec<String>,
    /// One row per job instead of one per test case
    #[arg(long)]
    summary: bool,
}

/// Prints test cases or summaries.
pub fn results(context: &Context, arguments: &ResultsArguments) -> Result<ExitCode, Failure> {
    let store = context.store()?;
    let mut all = Vec::new();
    for id in &arguments.ids {
        let job = find(&store, id)?;
        let results = job
            .results
            .as_deref()
            .and_then(|text| serde_json::from_str::<Results>(text).ok());
        all.push(results.ok_or_else(|| {
            let message = format!(
                "job {} is {} and has no results",
                job.id,
                job.state.as_str()
            );
            Failure::plain(
                Kind::NotFound,
                message,
                "results are there once a job has ended",
            )
        })?);
    }
    let report = Report::new(all);
    if context.global.json {
        output::json(&report);
    } else if arguments.summary {
        output::raw(summary_table(&report.runs).as_bytes());
    } else {
        output::raw(cases_table(&report.runs).as_bytes());
    }
    Ok(ExitCode::SUCCESS)
}

fn find(store: &Store, id: &str) -> Result<JobRow, Failure> {
    let state = store.state()?;
    match state.job(id)? {
        Some(job) => Ok(job),
        None => {
            let jobs = state.jobs()?;
            let newest = jobs.iter().rev().take(5).map(|job| job.id.as_str());
            Err(unknown("job", id, newest))
        }
    }
}
