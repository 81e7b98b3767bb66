//! `test`: builds the images of declared runs and executes every cell.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use super::bars::Bars;
use super::build;
use super::context::{Context, unknown};
use super::failure::Failure;
use super::interrupt::Graceful;
use super::load::platform as platform_flag;
use super::output;
use super::pipeline::materialise::Need;
use super::pipeline::{content, trees};
use super::substitution::{BuildFlags, Wish};
use crate::diagnostic::{Explain, Kind};
use crate::image::{Image, Settings};
use crate::layer::files;
use crate::manifest::{Manifest, Platform, RunSpec};
use crate::progress::Progress;
use crate::report::{Report, cases_table, neutral, summary_table};
use crate::run::{Finished, Job, Options, RunEvent, RunObserver, Stream, dispatch, plan};
use crate::runtime::Embedded;
use crate::store::{JobState, Store};

/// Flags of `test`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Runs to execute; default: all
    runs: Vec<String>,
    /// Execute also what has succeeded before with the same inputs
    #[arg(long)]
    rerun: bool,
    /// Where the output of runs goes: every line with the run's name before it, or only into files
    #[arg(long, value_enum, default_value = "stream")]
    logs: Logs,
    /// Of images for several platforms, test this one; default: this machine's
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    flags: BuildFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Logs {
    Stream,
    Files,
}

/// Executes the runs and prints the tables.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let platform = platform_flag(arguments.platform.as_deref())?;
    let manifest = context.manifest()?;
    let runs = select(&manifest, &arguments.runs)?;
    let store = context.store()?;
    let runtime = Embedded::new(store.scratch().path());
    // Before minutes of building: can anything be executed here at all?
    runtime.probe()?;
    for warning in runtime.support().warnings {
        context.progress.warn(&warning);
    }
    let images = images(context, &store, &manifest, &runs, platform, arguments.flags)?;
    let mut jobs = Vec::new();
    for run in &runs {
        if let Some(prepared) = images.get(run.image.as_str()) {
            jobs.extend(self::jobs(context, &store, run, prepared)?);
        }
    }
    let observer = Lines::new(
        arguments.logs == Logs::Stream && !context.global.json,
        &context.progress,
    );
    let options = Options {
        parallel: context.jobs(),
        rerun: arguments.rerun,
    };
    let graceful = Graceful::begin();
    let finished = dispatch(&store, &runtime, &jobs, options, &observer, &context.cancel)?;
    drop(graceful);
    print(context, &store, &finished);
    Ok(ExitCode::from(verdict(context, &finished)))
}

fn select<'a>(manifest: &'a Manifest, names: &[String]) -> Result<Vec<&'a RunSpec>, Failure> {
    let known = || manifest.runs.iter().map(|run| run.name.as_str());
    if names.is_empty() {
        return match manifest.runs.is_empty() {
            true => Err(Failure::plain(
                Kind::NotFound,
                "the manifest declares no run",
                "declare one: run \"NAME\" image=\"IMAGE\" { command \"python\" \"-m\" \"pytest\" … }",
            )),
            false => Ok(manifest.runs.iter().collect()),
        };
    }
    names
        .iter()
        .map(|name| {
            let found = manifest.runs.iter().find(|run| run.name.value == *name);
            found.ok_or_else(|| unknown("run", name, known()))
        })
        .collect()
}

/// An image that is ready to be run.
struct Prepared {
    image: Image,
    settings: Settings,
    trees: Vec<PathBuf>,
}

fn images(
    context: &Context,
    store: &Store,
    manifest: &Manifest,
    runs: &[&RunSpec],
    platform: Option<Platform>,
    flags: BuildFlags,
) -> Result<BTreeMap<String, Prepared>, Failure> {
    let mut names: Vec<String> = runs.iter().map(|run| run.image.value.clone()).collect();
    names.sort();
    names.dedup();
    let wanted = platform.or_else(host_platform);
    let http = context.http()?;
    let wish = Wish {
        platform: wanted,
        ..Wish::new(flags, Need::Trees)
    };
    let mut prepared = BTreeMap::new();
    for named in build::images(context, store, &http, manifest, &names, &wish)? {
        let image = named.built.image;
        if wanted.is_some_and(|wanted| wanted != image.platform) {
            continue;
        }
        context
            .progress
            .note(&format!("{} is {}", named.name, image.digest()));
        let trees = trees::unpack_all(context, store, &image.layers)?;
        let settings = image.settings()?;
        let ready = Prepared {
            image,
            settings,
            trees,
        };
        prepared.insert(named.name, ready);
    }
    for run in runs {
        if !prepared.contains_key(run.image.as_str()) {
            let message = format!(
                "image `{}` of run `{}` is not declared for this platform",
                run.image.value, run.name.value
            );
            return Err(Failure::plain(
                Kind::NotFound,
                message,
                "add it to the image's `platform` node",
            ));
        }
    }
    Ok(prepared)
}

/// The platform of this machine, if images can be built for it.
pub fn host_platform() -> Option<Platform> {
    Platform::ALL
        .into_iter()
        .find(|platform| platform.machine() == std::env::consts::ARCH)
}

fn jobs(
    context: &Context,
    store: &Store,
    run: &RunSpec,
    prepared: &Prepared,
) -> Result<Vec<Job>, Failure> {
    let settings = &prepared.settings;
    let home = settings.env.get("HOME").map(String::as_str);
    let open: Vec<&str> = [files::WORK]
        .into_iter()
        .chain(home)
        .chain(run.workdir.as_deref())
        .collect();
    let scanned = content::scan(&context.folder, &run.files, &open)?;
    let layer = files::project(store, &scanned)?;
    let mut lower = prepared.trees.clone();
    if let Some(layer) = &layer {
        lower.extend(trees::unpack_all(
            context,
            store,
            std::slice::from_ref(layer),
        )?);
    }
    let files = layer.map(|layer| layer.diff_id);
    let cells = plan(run, prepared.image.digest(), prepared.image.platform, files)?;
    let job = |cell| Job {
        cell,
        lower: lower.clone(),
        env: settings.env.clone(),
        uid: settings.uid,
        gid: settings.gid,
        workdir: settings.workdir.clone(),
    };
    Ok(cells.into_iter().map(job).collect())
}

fn print(context: &Context, store: &Store, finished: &[Finished]) {
    let report = Report::new(finished.iter().map(|job| job.results.clone()).collect());
    if context.global.json {
        output::json(&report);
        return;
    }
    for job in finished {
        let summary = &job.results.summary;
        for warning in &job.results.warnings {
            context
                .progress
                .warn(&format!("{}: {}", neutral(&summary.name), neutral(warning)));
        }
        if let Some(error) = &job.error {
            context
                .progress
                .warn(&format!("{}: {error}", neutral(&summary.name)));
            if let Some(hint) = error.hint() {
                context.progress.note(&format!("  help: {hint}"));
            }
        }
    }
    output::raw(cases_table(&report.runs).as_bytes());
    output::line("");
    output::raw(summary_table(&report.runs).as_bytes());
    for job in finished {
        let summary = &job.results.summary;
        if summary.state == JobState::Succeeded && summary.total == 0 {
            context.progress.note(&format!(
                "{} left no test cases: JUnit XML or cases.jsonl in /results would be shown here",
                neutral(&summary.name)
            ));
        }
    }
    let reused = finished.iter().filter(|job| job.reused).count();
    if reused > 0 {
        context.progress.note(&format!(
            "{reused} of {} had succeeded before with the same inputs; --rerun executes them again",
            finished.len()
        ));
    }
    let failed = finished
        .iter()
        .filter(|job| job.results.summary.state == JobState::Failed);
    for job in failed {
        let summary = &job.results.summary;
        let folder = store.base().join("runs").join(&summary.test_run_id);
        context.progress.note(&format!(
            "logs of {}: {}",
            neutral(&summary.name),
            folder.display()
        ));
    }
}

fn verdict(context: &Context, finished: &[Finished]) -> u8 {
    let error = finished.iter().find_map(|job| job.error.as_ref());
    let all = finished
        .iter()
        .all(|job| job.results.summary.state == JobState::Succeeded);
    match error {
        _ if context.cancel.is_cancelled() => Kind::Interrupted.exit_code(),
        Some(error) if error.kind() != Kind::Usage => error.kind().exit_code(),
        _ if all => 0,
        _ => Kind::RunFailed.exit_code(),
    }
}

/// Prints the output of jobs line by line, each with its job's name.
struct Lines {
    stream: bool,
    bars: Arc<Bars>,
    open: Mutex<BTreeMap<(String, bool), Vec<u8>>>,
}

/// A line longer than this is printed in pieces.
const LONGEST_LINE: usize = 16 << 10;

impl Lines {
    fn new(stream: bool, bars: &Arc<Bars>) -> Self {
        Self {
            stream,
            bars: Arc::clone(bars),
            open: Mutex::default(),
        }
    }

    fn add(&self, job: &str, name: &str, stderr: bool, bytes: &[u8]) {
        let Ok(mut open) = self.open.lock() else {
            return;
        };
        let buffer = open.entry((job.to_owned(), stderr)).or_default();
        buffer.extend_from_slice(bytes);
        let mut printed = Vec::new();
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            line(&mut printed, name, &buffer[..end]);
            buffer.drain(..=end);
        }
        if buffer.len() > LONGEST_LINE {
            line(&mut printed, name, buffer);
            buffer.clear();
        }
        self.bars.write(&printed);
    }

    fn end(&self, finished: &Finished) {
        let summary = &finished.results.summary;
        let Ok(mut open) = self.open.lock() else {
            return;
        };
        for stderr in [false, true] {
            let rest = open
                .remove(&(summary.test_run_id.clone(), stderr))
                .unwrap_or_default();
            if !rest.is_empty() {
                let mut printed = Vec::new();
                line(&mut printed, &summary.name, &rest);
                self.bars.write(&printed);
            }
        }
    }
}

fn line(out: &mut Vec<u8>, name: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let _ = writeln!(
        out,
        "{} | {}",
        neutral(name),
        neutral(text.trim_end_matches('\r'))
    );
}

impl RunObserver for Lines {
    fn event(&self, event: &RunEvent<'_>) {
        match event {
            RunEvent::Output {
                job,
                name,
                stream,
                bytes,
            } if self.stream => {
                self.add(job, name, *stream == Stream::Stderr, bytes);
            }
            RunEvent::Ended(finished) if self.stream => self.end(finished),
            RunEvent::Started { .. } | RunEvent::Output { .. } | RunEvent::Ended(_) => {}
        }
    }
}
