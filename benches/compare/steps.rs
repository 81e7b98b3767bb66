//! The measurements, each with its preparation; which figure compares to which is told in `main.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::docker::Engine;
use crate::floor;
use crate::ours::Project;
use crate::process::{Call, Measured, Outcome, need};
use crate::registry::Registry;
use crate::report::Report;
use crate::workload::{Base, CHANGED, FORTY, LARGE, PATH, W1_REQUIREMENTS};

/// What all steps work with.
#[derive(Debug)]
pub struct Setting {
    /// The run's folder; gone at the end.
    pub run: PathBuf,
    /// The command that is measured.
    pub program: PathBuf,
    /// Repetitions of what takes seconds.
    pub reps: usize,
    /// Repetitions of what takes the other side tens of seconds.
    pub slow_reps: usize,
    /// The local index.
    pub index: String,
    /// The base image.
    pub base: Base,
    /// The wheels of W1.
    pub w1: Vec<PathBuf>,
}

/// What both images must be able to do.
const IMPORTS: &str = "import pandas, sklearn, xgboost";

/// One image's pulls.
struct Pulled {
    sum: &'static str,
    start: &'static str,
    whose: &'static str,
    tag: String,
    sums: Vec<Duration>,
    starts: Vec<Duration>,
}

impl Pulled {
    fn new(sum: &'static str, start: &'static str, whose: &'static str, tag: String) -> Self {
        Self {
            sum,
            start,
            whose,
            tag,
            sums: Vec::new(),
            starts: Vec::new(),
        }
    }
}

fn size_of(files: &[PathBuf]) -> u64 {
    files
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn folder_size(folder: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(folder).into_iter().flatten();
    let files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect();
    size_of(&files)
}

fn repeat<T>(times: usize, mut work: impl FnMut() -> Outcome<T>) -> Outcome<Vec<T>> {
    (0..times).map(|_| work()).collect()
}

/// The wheels' contents through `gzip -6`.
pub fn gzip(setting: &Setting, contents: &Path, report: &mut Report) -> Outcome<()> {
    let out = setting.run.join("w1.tar.gz");
    let measured = Call::new(need("gzip")?)
        .args(["-6", "-c"])
        .stdin(contents)
        .stdout(&out)
        .run()?;
    report.note(format!(
        "gzip -6 makes {} MB of the {} MB in the wheels",
        size_of(std::slice::from_ref(&out)) / 1_000_000,
        size_of(&[contents.to_owned()]) / 1_000_000
    ));
    report.measured("gzip", "W1's contents through gzip -6", &[measured]);
    fs::remove_file(&out).map_err(|error| error.to_string())
}

/// The bare work.
pub fn floor(setting: &Setting, threads: usize, report: &mut Report) -> Outcome<()> {
    let floors = repeat(setting.reps, || floor::measure(&setting.w1, threads))?;
    if let Some(first) = floors.first() {
        report.note(format!(
            "W1: {} wheels, {} MB, {} MB unpacked",
            setting.w1.len(),
            first.packed / 1_000_000,
            first.unpacked / 1_000_000
        ));
    }
    let walls = floors.iter().map(|floor| floor.wall).collect();
    report.times(
        "floor",
        "floor: inflate once, SHA-256 of both sides",
        walls,
        None,
    );
    let cpu = floors.iter().map(|floor| floor.cpu).collect();
    report.times("floor.cpu", "  its CPU time, all threads", cpu, None);
    Ok(())
}

/// Our builds of W1; gives the project, and the image as a layout.
pub fn ours(setting: &Setting, report: &mut Report) -> Outcome<(Project, PathBuf)> {
    let project = Project::new(&setting.program, &setting.run, "w1", "w1", &setting.index)?;
    project.declare("w1", &setting.base.layout, &W1_REQUIREMENTS)?;
    let locked = project.lock()?;
    report.measured("ours.lock", "imagewright lock, empty store", &[locked]);
    let first = project.run(&["build"])?;
    let layout = setting.run.join("w1-oci");
    let exported = project.export("w1", &layout)?;
    // A quick build of half the packages would be worth nothing.
    let packed = size_of(&setting.w1);
    let grown = folder_size(&layout).saturating_sub(folder_size(&setting.base.layout));
    if grown < packed / 10 * 9 {
        return Err(format!(
            "our image is {grown} bytes above its base, its wheels have {packed}"
        ));
    }
    report.measured(
        "ours.first",
        "imagewright build, empty store, index on loopback",
        &[first],
    );
    report.measured(
        "ours.export",
        "imagewright export w1 --oci DIR",
        &[exported],
    );
    let builds = repeat(setting.reps, || {
        project.forget()?;
        project.run(&["build"])
    })?;
    report.measured(
        "ours.build",
        "imagewright build, wheels in the store",
        &builds,
    );
    let cpu = builds.iter().map(|build| build.cpu).collect();
    report.times("ours.cpu", "  its CPU time, all threads", cpu, None);
    let unchanged = repeat(setting.reps * 2, || project.run(&["build"]))?;
    report.measured(
        "ours.unchanged",
        "imagewright build, nothing changed",
        &unchanged,
    );
    Ok((project, layout))
}

/// One wheel of forty changes, and that wheel in an image of its own.
pub fn forty(setting: &Setting, report: &mut Report) -> Outcome<()> {
    let make = |name| {
        Project::new(
            &setting.program,
            &setting.run,
            name,
            "forty",
            &setting.index,
        )
    };
    let (before, after, alone) = (make("before")?, make("after")?, make("alone")?);
    let earlier = FORTY.map(|pin| if pin == CHANGED.0 { CHANGED.1 } else { pin });
    before.declare("forty", &setting.base.layout, &earlier)?;
    after.declare("forty", &setting.base.layout, &FORTY)?;
    alone.declare("alone", &setting.base.layout, &[CHANGED.0])?;
    for project in [&before, &after, &alone] {
        project.lock()?;
        project.run(&["build"])?;
    }
    let (mut whole, mut changed, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting.reps {
        before.forget()?;
        after.restore_lock()?;
        whole.push(before.run(&["build"])?);
        changed.push(after.run(&["build"])?);
        alone.forget()?;
        single.push(alone.run(&["build"])?);
    }
    report.measured(
        "ours.forty",
        "imagewright build of forty wheels in the store",
        &whole,
    );
    report.measured(
        "ours.changed",
        "imagewright build, one wheel of forty changed",
        &changed,
    );
    report.measured(
        "ours.alone",
        "imagewright build of that wheel alone",
        &single,
    );
    Ok(())
}

/// A wheel with an entry of 1.5 GB.
pub fn large(setting: &Setting, report: &mut Report) -> Outcome<()> {
    let project = Project::new(
        &setting.program,
        &setting.run,
        "large",
        "large",
        &setting.index,
    )?;
    project.declare("large", &setting.base.layout, &[LARGE])?;
    project.lock()?;
    let first = project.run(&["build"])?;
    project.forget()?;
    let again = project.run(&["build"])?;
    report.measured(
        "ours.large",
        "imagewright build, one entry of 1.5 GB",
        &[first, again],
    );
    Ok(())
}

/// Runs that do nothing; the first unpacks the image.
pub fn exec(setting: &Setting, project: &Project, report: &mut Report) -> Outcome<()> {
    let run = || project.run(&["exec", "w1", "--", "true"]);
    let first = run()?;
    report.measured(
        "ours.exec-first",
        "imagewright exec w1 -- true, image not unpacked",
        &[first],
    );
    let runs = repeat(setting.reps * 2, run)?;
    report.measured("ours.exec", "imagewright exec w1 -- true", &runs);
    Ok(())
}

/// The engine and the registry, with the base image in both.
#[derive(Debug)]
pub struct OtherSide {
    engine: Engine,
    registry: Registry,
    context: PathBuf,
}

impl OtherSide {
    /// Starts both and puts the base there, `uv` in it: what a build starts from is known to engine and registry.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub fn start(setting: &Setting, uv: &Path) -> Outcome<Self> {
        let registry = Registry::start(&setting.run)?;
        let engine = Engine::start(&setting.run)?;
        let context = setting.run.join("context");
        let text = |error: std::io::Error| format!("{}: {error}", context.display());
        fs::create_dir_all(&context).map_err(text)?;
        fs::copy(uv, context.join("uv")).map_err(text)?;
        let tar = setting.base.tar.display().to_string();
        engine.run(&[
            "import",
            "--change",
            &format!("ENV {PATH}"),
            &tar,
            "bench-base",
        ])?;
        let file = "FROM bench-base\nCOPY uv /usr/local/bin/uv\n";
        fs::write(context.join("Dockerfile"), file).map_err(text)?;
        let other = Self {
            engine,
            registry,
            context,
        };
        let base = other.tag("base");
        let folder = other.context.display().to_string();
        other.engine.run(&["build", "--tag", &base, &folder])?;
        other.engine.run(&["push", &base])?;
        Ok(other)
    }

    fn tag(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.registry.address())
    }

    fn build(&self, options: &[&str]) -> Outcome<Measured> {
        let (tag, folder) = (self.tag("w1"), self.context.display().to_string());
        let fixed = ["build", "--network", "host", "--tag", &tag];
        self.engine.call(&fixed).args(options).args([folder]).run()
    }

    /// `docker build` with uv, and `docker push`.
    ///
    /// # Errors
    /// When one fails, or the push found its layer there already.
    pub fn builds(&self, setting: &Setting, report: &mut Report) -> Outcome<()> {
        let file = format!(
            "FROM {}\nRUN uv venv --quiet --python /usr/bin/python3 /opt/venv && uv pip install --no-cache --python /opt/venv/bin/python --default-index {} {}\nENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:{}\n",
            self.tag("base"),
            setting.index,
            W1_REQUIREMENTS.join(" "),
            PATH.trim_start_matches("PATH="),
        );
        fs::write(self.context.join("Dockerfile"), file).map_err(|error| error.to_string())?;
        // Not a part of what is sent to the daemon any more.
        fs::remove_file(self.context.join("uv")).map_err(|error| error.to_string())?;
        let (mut builds, mut pushes) = (Vec::new(), Vec::new());
        for _ in 0..setting.slow_reps {
            builds.push(self.build(&["--no-cache"])?);
            let push = self.engine.run(&["push", &self.tag("w1")])?;
            if !push.stdout.contains(": Pushed") {
                return Err("docker push found the layer in the registry already".into());
            }
            pushes.push(push);
            self.engine.run(&["image", "prune", "--force"])?;
        }
        let sums: Vec<Duration> = builds
            .iter()
            .zip(&pushes)
            .map(|(build, push)| build.wall + push.wall)
            .collect();
        let walls = |calls: &[Measured]| calls.iter().map(|call| call.wall).collect::<Vec<_>>();
        // The client does none of the work: the daemon's memory is what counts.
        let peak = self.engine.peak_kib();
        report.times("docker.build", "docker build with uv", walls(&builds), peak);
        report.times("docker.push", "docker push", walls(&pushes), peak);
        report.times("docker.both", "docker build with uv, and push", sums, peak);
        Ok(())
    }

    /// The same build again.
    ///
    /// # Errors
    /// When it fails.
    pub fn unchanged(&self, setting: &Setting, report: &mut Report) -> Outcome<()> {
        let again = repeat(setting.reps, || self.build(&[]))?;
        report.times(
            "docker.unchanged",
            "docker build, nothing changed",
            again.iter().map(|call| call.wall).collect(),
            None,
        );
        Ok(())
    }

    fn start_once(&self, image: &str) -> Outcome<Measured> {
        self.engine
            .run(&["run", "--rm", "--network", "none", image, "true"])
    }

    /// Runs that do nothing, without a network as ours.
    ///
    /// # Errors
    /// When one fails.
    pub fn runs(&self, setting: &Setting, report: &mut Report) -> Outcome<()> {
        let image = self.tag("w1");
        self.start_once(&image)?;
        let runs = repeat(setting.reps * 2, || self.start_once(&image))?;
        report.times(
            "docker.run",
            "docker run --rm --network none w1 true",
            runs.iter().map(|call| call.wall).collect(),
            None,
        );
        Ok(())
    }

    /// Pull and first start of both images from one registry, by turns, with the base there already. Our half is
    /// left out where our image is not to be had.
    ///
    /// # Errors
    /// When a pull fails or found layers that should have been gone, or an image does not work.
    pub fn pulls(
        &self,
        setting: &Setting,
        layout: Option<&Path>,
        report: &mut Report,
    ) -> Outcome<()> {
        let theirs = Pulled::new(
            "docker.pull",
            "docker.pull-run",
            "built by docker",
            self.tag("w1"),
        );
        let mut images = vec![theirs];
        if let Some(layout) = layout {
            self.copy_in(&setting.base.layout, "base-oci")?;
            self.copy_in(layout, "ours")?;
            self.engine.run(&["pull", &self.tag("base-oci")])?;
            let ours = Pulled::new(
                "docker.pull-ours",
                "docker.pull-ours-run",
                "built by us",
                self.tag("ours"),
            );
            images.push(ours);
        }
        for _ in 0..setting.slow_reps {
            for image in &mut images {
                // The first time, ours is not there.
                let _ = self.engine.run(&["image", "rm", "--force", &image.tag]);
                self.engine.run(&["image", "prune", "--force"])?;
                let pull = self.engine.run(&["pull", &image.tag])?;
                if !pull.stdout.contains(": Pull complete") {
                    return Err(format!(
                        "the layers of the image {} were there already",
                        image.whose
                    ));
                }
                let start = self.start_once(&image.tag)?;
                image.sums.push(pull.wall + start.wall);
                image.starts.push(start.wall);
            }
        }
        for image in images {
            let python = [
                "run",
                "--rm",
                "--network",
                "none",
                &image.tag,
                "python",
                "-c",
                IMPORTS,
            ];
            self.engine
                .run(&python)
                .map_err(|error| format!("the image {} does not work: {error}", image.whose))?;
            report.times(
                image.sum,
                &format!("docker pull and first run, {}", image.whose),
                image.sums,
                None,
            );
            report.times(image.start, "  of this, the first run", image.starts, None);
        }
        Ok(())
    }

    fn copy_in(&self, layout: &Path, name: &str) -> Outcome<Measured> {
        Call::new(need("skopeo")?)
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .args([format!("oci:{}", layout.display())])
            .args([format!("docker://{}", self.tag(name))])
            .run()
    }
}
