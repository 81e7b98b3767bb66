//! `gc`: removes from the store what nothing roots.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::output::{self, size};
use super::pipeline::roots::{self, Rooted};
use crate::manifest;
use crate::store::gc::{self, Found, Inventory, Item, Kind, Plan, Policy};
use crate::store::{JobRow, JobState, State, Store};

/// Flags of `gc`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Remove what nothing roots and nobody has used for this long
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = manifest::age)]
    older_than: u64,
    /// Then remove what was used least recently, until the store is not larger than this
    #[arg(long, value_name = "SIZE", value_parser = manifest::bytes)]
    max_size: Option<u64>,
    /// Also remove logs and results of jobs that ended this long ago
    #[arg(long, value_name = "TIME", value_parser = manifest::age)]
    runs_older_than: Option<u64>,
    /// Remove everything that no running process uses, whatever locks root
    #[arg(long)]
    all: bool,
    /// Tell what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `gc --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct GcDocument {
    /// Whether nothing was removed, but only told.
    pub dry_run: bool,
    /// What went, by kind.
    pub removed: Vec<KindDocument>,
    /// What stayed, by kind.
    pub kept: Vec<KindDocument>,
    /// The things that went, as `folder/name` in the store.
    pub things: Vec<String>,
    /// Bytes that the store had more than `--max-size` after that: what locks root or running processes use.
    pub above_max_size: u64,
    /// Registered locks that exist no more, and so root nothing any longer.
    pub forgotten_locks: Vec<String>,
    /// Registered locks that cannot be read: all that they might root stayed.
    pub unreadable_locks: Vec<UnreadableLock>,
}

/// Things of one kind.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct KindDocument {
    /// Name of the folder in the store.
    pub kind: String,
    /// How many.
    pub count: usize,
    /// Length of their files.
    pub bytes: u64,
}

/// A registered lock that cannot be read.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct UnreadableLock {
    /// Where it is.
    pub path: String,
    /// Why it cannot be read.
    pub reason: String,
}

/// Collects: files first, because that works on a full disk too, and makes room for the state to be changed. Rows whose
/// files a killed collector removed say nothing: the next collection removes them.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let store = context.store_to_free()?;
    let state = store.state_to_read()?;
    let now = SystemTime::now();
    let inventory = Inventory::take(&store)?;
    let rooted = roots::read(&store, &state, &inventory, &[])?;
    if !arguments.all {
        rooted.tell_unreadable(&*context.progress);
    }
    let runs = arguments.runs_older_than.map(|age| earlier(now, age));
    let policy = Policy {
        before: earlier(now, arguments.older_than),
        max_size: arguments.max_size,
        everything: arguments.all,
        only: None,
        runs: runs.map_or(Ok(BTreeSet::new()), |before| {
            ended(&state, &inventory, before)
        })?,
    };
    drop(state);
    let plan = gc::plan(&inventory, &rooted.roots, &gc::leased(&store)?, &policy);
    let removed = if arguments.dry_run {
        plan.items.clone()
    } else {
        let removed = collect(&store, &rooted, &plan)?;
        forget(&store, &rooted.gone, &policy.runs)?;
        removed
    };
    let document = document(arguments.dry_run, &inventory, &removed, &plan, &rooted);
    if context.global.json {
        output::json(&document);
    } else {
        output::raw(text(&document, arguments.max_size).as_bytes());
    }
    Ok(ExitCode::SUCCESS)
}

/// Forgets locks and jobs.
fn forget(store: &Store, locks: &[PathBuf], jobs: &BTreeSet<String>) -> Result<(), Failure> {
    if locks.is_empty() && jobs.is_empty() {
        return Ok(());
    }
    let state = store.state()?;
    for lock in locks {
        state.remove_root(lock)?;
    }
    for job in jobs {
        state.remove_job(job)?;
    }
    Ok(())
}

/// Removes what the plan names, then the rows of the state that are of no use without it. Returns what went.
pub fn collect(
    store: &Store,
    rooted: &Rooted,
    plan: &Plan,
) -> Result<BTreeMap<Item, Found>, Failure> {
    let removed = gc::sweep(store, &rooted.roots, plan)?;
    gc::remove_rows(store, &rooted.rows)?;
    Ok(removed)
}

fn earlier(now: SystemTime, milliseconds: u64) -> SystemTime {
    now.checked_sub(Duration::from_millis(milliseconds))
        .unwrap_or(UNIX_EPOCH)
}

/// Jobs that ended before this, and folders of jobs that nobody knows.
fn ended(
    state: &State,
    inventory: &Inventory,
    before: SystemTime,
) -> Result<BTreeSet<String>, Failure> {
    let jobs: BTreeMap<String, JobRow> = state
        .jobs()?
        .into_iter()
        .map(|job| (job.id.clone(), job))
        .collect();
    let limit = before.duration_since(UNIX_EPOCH).unwrap_or_default();
    let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    let mut old: BTreeSet<String> = jobs
        .values()
        .filter(|job| !matches!(job.state, JobState::Pending | JobState::Running))
        .filter(|job| job.ended_ms.or(job.started_ms).is_some_and(|at| at < limit))
        .map(|job| job.id.clone())
        .collect();
    let folders = inventory
        .items
        .iter()
        .filter(|(item, _)| item.kind == Kind::Run);
    let unknown =
        folders.filter(|(item, found)| found.used < before && !jobs.contains_key(&item.name));
    old.extend(unknown.map(|(item, _)| item.name.clone()));
    Ok(old)
}

fn document(
    dry_run: bool,
    inventory: &Inventory,
    removed: &BTreeMap<Item, Found>,
    plan: &Plan,
    rooted: &Rooted,
) -> GcDocument {
    let kept = inventory
        .items
        .iter()
        .filter(|(item, _)| !removed.contains_key(item));
    let unreadable = rooted.unreadable.iter();
    GcDocument {
        dry_run,
        removed: by_kind(removed.iter()),
        kept: by_kind(kept),
        things: removed
            .keys()
            .map(|item| format!("{}/{}", item.kind.folder(), item.name))
            .collect(),
        above_max_size: plan.above,
        forgotten_locks: rooted
            .gone
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        unreadable_locks: unreadable
            .map(|(path, reason)| UnreadableLock {
                path: path.display().to_string(),
                reason: reason.clone(),
            })
            .collect(),
    }
}

/// Every kind, also those of which there is nothing.
fn by_kind<'a>(items: impl Iterator<Item = (&'a Item, &'a Found)>) -> Vec<KindDocument> {
    let mut sums: BTreeMap<Kind, (usize, u64)> =
        Kind::ALL.into_iter().map(|kind| (kind, (0, 0))).collect();
    for (item, found) in items {
        let (count, bytes) = sums.entry(item.kind).or_default();
        *count += 1;
        *bytes += found.bytes;
    }
    let kinds = sums.into_iter().map(|(kind, (count, bytes))| KindDocument {
        kind: kind.folder().into(),
        count,
        bytes,
    });
    kinds.collect()
}

fn text(document: &GcDocument, max_size: Option<u64>) -> String {
    let mut lines = Vec::new();
    if document.dry_run {
        lines.extend(
            document
                .things
                .iter()
                .map(|thing| format!("would remove {thing}")),
        );
    }
    lines.push(format!("{:<10} {:>18} {:>18}", "", "removed", "kept"));
    let told = |kind: &KindDocument| format!("{} ({})", kind.count, size(kind.bytes));
    for (removed, kept) in document.removed.iter().zip(&document.kept) {
        let (kind, removed, kept) = (&removed.kind, told(removed), told(kept));
        lines.push(format!("{kind:<10} {removed:>18} {kept:>18}"));
    }
    let sum = |kinds: &[KindDocument]| kinds.iter().map(|kind| kind.bytes).sum();
    let verb = if document.dry_run { "would be" } else { "were" };
    lines.push(format!(
        "{} {verb} freed, {} {} in the store",
        size(sum(&document.removed)),
        size(sum(&document.kept)),
        if document.dry_run {
            "would stay"
        } else {
            "stay"
        }
    ));
    if let (Some(most), 1..) = (max_size, document.above_max_size) {
        lines.push(format!(
            "that is {} more than {}: locks root it, or running processes use it (--all removes what locks root)",
            size(document.above_max_size),
            size(most)
        ));
    }
    for lock in &document.forgotten_locks {
        lines.push(format!("{lock} is gone and roots nothing any longer"));
    }
    lines.join("\n") + "\n"
}
