//! Measures imagewright against `docker build` with uv, `docker push`, `docker pull`, `gzip -6` and the bare work, in one
//! run on one machine.
//!
//! ```text
//! cargo bench --bench compare -- [--json FILE] [--reps N] [--slow-reps N] [--only PART]... [--program FILE]
//! cargo bench --bench compare -- --only registry      # push, and build of what a registry has, with a docker-registry
//! ```
//!
//! What is measured is downloaded or made once and kept in `bench-cache` below the target folder. During the
//! measurements both sides install from an index on loopback, and everything is in the page cache. A step whose tool is
//! missing is named at the end with the reason. All servers, folders and mounts are gone when the program ends.

// A command of its own: this is where its output goes.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod docker;
mod floor;
mod index;
mod ours;
mod process;
mod push;
mod registry;
mod report;
mod slow;
mod steps;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use clap::{Parser, ValueEnum};

use crate::index::Index;
use crate::process::Outcome;
use crate::report::{Report, Target};
use crate::steps::{OtherSide, Setting};
use crate::workload::{CHANGED, Cache, FORTY, W1};

/// Measure imagewright against what people do today.
#[derive(Debug, Parser)]
struct Options {
    /// Also write the report as JSON into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Repetitions of what takes a few seconds.
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Repetitions of what takes tens of seconds.
    #[arg(long, default_value_t = 3)]
    slow_reps: usize,
    /// Only these parts; default: all.
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// The command to measure; default: the one of this build.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_imagewright"))]
    program: PathBuf,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Gzip,
    Floor,
    Ours,
    Docker,
    Registry,
}

fn main() -> ExitCode {
    if let Some(code) = process::helper() {
        return code;
    }
    let mut options = Options::parse();
    (options.reps, options.slow_reps) = (options.reps.max(1), options.slow_reps.max(1));
    process::watch();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut report = Report::new(processors, !options.only.is_empty());
    let done = compare(&options, processors, &mut report);
    judge(&mut report);
    println!("{}", report.table());
    let written = match (&options.json, report.json()) {
        (Some(path), Ok(json)) => {
            fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()))
        }
        (_, json) => json.map(drop),
    };
    if process::interrupted() {
        return ExitCode::from(130);
    }
    match done.and(written) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Prepares, then takes every measurement that can be taken.
fn compare(options: &Options, processors: usize, report: &mut Report) -> Outcome<()> {
    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-cache");
    // Without symbolic links: the table of mounts has none.
    let place = fs::create_dir_all(&place)
        .and_then(|()| place.canonicalize())
        .map_err(|error| format!("{}: {error}", place.display()))?;
    let run = RunFolder::make(&place)?;
    let cache = Cache(place);

    let w1 = cache.wheels(&W1)?;
    let mut served = w1.clone();
    let mut more = |report: &mut Report, pins: &[&str]| {
        let wheels = report.step("more wheels", |_| cache.wheels(pins));
        served.extend(wheels.into_iter().flatten());
    };
    if wants(Part::Ours) || wants(Part::Registry) {
        more(report, &[CHANGED.1]);
    }
    if wants(Part::Ours) {
        more(report, &FORTY);
        served.extend(report.step("a wheel with one large entry", |_| cache.large()));
    }
    let base = cache.base()?;
    let index = Index::serve(&served)?;
    let setting = Setting {
        run: run.0.clone(),
        program: options.program.clone(),
        reps: options.reps,
        slow_reps: options.slow_reps,
        index: index.url(),
        base,
        w1,
    };
    workload::warm(&setting.w1);
    report.note(format!("load average at the start: {}", process::load()));

    if wants(Part::Gzip) {
        report.step("gzip -6", |report| {
            let contents = cache.contents(&setting.w1)?;
            steps::gzip(&setting, &contents, report)
        });
    }
    if wants(Part::Floor) {
        report.step("the floor", |report| {
            steps::floor(&setting, processors, report)
        });
    }
    let mut layout = None;
    if wants(Part::Ours) {
        let built = report.step("our build of W1", |report| steps::ours(&setting, report));
        if let Some((w1, exported)) = built {
            layout = Some(exported);
            report.step("our runs", |report| steps::exec(&setting, &w1, report));
            report.step("one wheel of forty", |report| {
                steps::forty(&setting, report)
            });
            report.step("one large entry", |report| steps::large(&setting, report));
        }
    }
    if wants(Part::Docker) {
        let other = report.step("docker and its registry", |_| {
            OtherSide::start(&setting, &cache.uv()?)
        });
        if let Some(other) = other {
            let built = report.step("docker build and push", |report| {
                other.builds(&setting, report)
            });
            if built.is_some() {
                report.step("docker build again", |report| {
                    other.unchanged(&setting, report)
                });
                report.step("docker run", |report| other.runs(&setting, report));
                report.step("docker pull", |report| {
                    other.pulls(&setting, layout.as_deref(), report)
                });
            }
        }
    }
    if wants(Part::Registry) {
        report.step("push, and build of what is known", |report| {
            push::all(&setting, report)
        });
    }
    report.note(format!("load average at the end: {}", process::load()));
    Ok(())
}

/// What the figures mean.
fn judge(report: &mut Report) {
    use Target::{AtLeast, AtMost, None};
    judge_pushes(report);
    report.ratio(
        "docker build with uv and push / our build",
        "docker.both",
        "ours.build",
        AtLeast(10.0),
    );
    report.ratio(
        "docker build with uv / our build",
        "docker.build",
        "ours.build",
        None,
    );
    report.ratio(
        "docker build with uv and push / our build from an empty store",
        "docker.both",
        "ours.first",
        None,
    );
    report.ratio(
        "gzip -6 of the contents / our build",
        "gzip",
        "ours.build",
        None,
    );
    report.ratio("our build / floor", "ours.build", "floor", AtMost(1.5));
    report.ratio("our CPU time / the floor's", "ours.cpu", "floor.cpu", None);
    report.peak("peak memory of our build", "ours.build", AtMost(300.0));
    report.peak(
        "peak memory with one entry of 1.5 GB",
        "ours.large",
        AtMost(300.0),
    );
    report.milliseconds("our build, nothing changed", "ours.unchanged", AtMost(50.0));
    report.ratio(
        "docker build / our build, nothing changed",
        "docker.unchanged",
        "ours.unchanged",
        None,
    );
    report.ratio(
        "one wheel of forty changed / that wheel alone",
        "ours.changed",
        "ours.alone",
        AtMost(1.25),
    );
    report.ratio(
        "imagewright exec / docker run",
        "ours.exec",
        "docker.run",
        AtMost(1.0 / 3.0),
    );
    report.ratio(
        "docker pull and first run, our image / docker's",
        "docker.pull-ours",
        "docker.pull",
        AtMost(1.0),
    );
}

/// What the figures of the registry's part mean.
fn judge_pushes(report: &mut Report) {
    use Target::{AtLeast, AtMost, None};
    report.ratio(
        "docker push / imagewright push, fresh image",
        "push.docker",
        "push.ours",
        AtLeast(5.0),
    );
    report.ratio(
        "skopeo copy / imagewright push, fresh image",
        "push.skopeo",
        "push.ours",
        None,
    );
    report.milliseconds(
        "build of a known set, empty store",
        "known.build",
        AtMost(300.0),
    );
    report.ratio(
        "docker pull / build of a known set",
        "known.pull",
        "known.build",
        None,
    );
}

/// This run's folder, on the disk of the cache; gone at the end. Those of runs that were killed go at the start.
struct RunFolder(PathBuf);

impl RunFolder {
    fn make(cache: &Path) -> Outcome<Self> {
        for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix("run-").and_then(|pid| pid.parse().ok());
            if let Some(pid) =
                owner.filter(|pid: &u32| !Path::new("/proc").join(pid.to_string()).exists())
            {
                docker::sweep_after(pid);
                drop(Self(entry.path()));
            }
        }
        let path = cache.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        docker::unmount_below(&self.0);
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
