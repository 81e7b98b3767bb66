//! What a registry is there for: pushing an image, one that is nearly the same, and what somebody else has pushed.
//!
//! Every measured push of a fresh image goes to a registry of its own that is empty, by turns with `docker push` of the
//! same image and `skopeo copy` of its archive. What was moved is read from the registry's access log.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::docker::Engine;
use crate::ours::Project;
use crate::process::{Call, Measured, Outcome, need};
use crate::registry::{Registry, Traffic};
use crate::report::{Report, Target};
use crate::slow::Slow;
use crate::steps::Setting;
use crate::workload::{CHANGED, W1_REQUIREMENTS};

/// The repository of every push.
const REPOSITORY: &str = "ml";
/// The image's name in the engine.
const LOCAL: &str = "bench-w1:latest";
/// The image.
const W1: &str = "w1";
/// What a request to a registry far away takes longer; much, so that the noise of the machine does not hide it.
const FAR: Duration = Duration::from_millis(50);

/// A project whose images are built, and the same image where the others look for it.
struct Team<'a> {
    setting: &'a Setting,
    project: Project,
    engine: Engine,
    archive: PathBuf,
    /// The names of the image: its own, then one for each colleague to push it under.
    names: Vec<String>,
}

/// What a colleague does, with its figures and those of the same far away.
const VISITS: [(&str, &str, &str); 4] = [
    (
        "known.build",
        "known.build-far",
        "imagewright build of a known set, empty store",
    ),
    (
        "known.name",
        "known.name-far",
        "imagewright push of it to another name",
    ),
    (
        "known.place",
        "known.place-far",
        "imagewright push of it to another repository",
    ),
    ("known.pull", "known.pull-far", "docker pull of it"),
];

/// One colleague's, as [`VISITS`].
type Visit = [(Measured, Traffic); 4];

/// One push and what it cost.
struct Push {
    call: Measured,
    traffic: Traffic,
    /// Processor time of the Docker Engine.
    engine: Duration,
    /// Processor time of the registry.
    registry: Duration,
}

/// Pushes and what they are compared with.
///
/// # Errors
/// When a command fails or does not do what it is measured for.
pub fn all(setting: &Setting, report: &mut Report) -> Outcome<()> {
    let team = Team::start(setting)?;
    team.fresh(report)?;
    report.step("a second image", |report| team.second(report));
    report.step("a known set", |report| team.known(report));
    Ok(())
}

impl<'a> Team<'a> {
    fn start(setting: &'a Setting) -> Outcome<Self> {
        let registry = Registry::start(&setting.run)?;
        let engine = Engine::start(&setting.run)?;
        let new = |name, store| {
            let (program, run) = (&setting.program, &setting.run);
            Project::new(program, run, name, store, &setting.index)
        };
        let team = Self {
            setting,
            project: new("team", "team")?,
            engine,
            archive: setting.run.join("w1.oci.tar"),
            names: [W1.to_owned()]
                .into_iter()
                .chain((0..setting.slow_reps).flat_map(|number| [near(number), far(number)]))
                .collect(),
        };
        team.declare(&team.project, registry.address())?;
        team.project.lock()?;
        team.project.run(&["build"])?;
        let exported = setting.run.join("w1.docker.tar");
        for (flag, path) in [
            ("--docker-archive", &exported),
            ("--oci-archive", &team.archive),
        ] {
            let path = path.display().to_string();
            let export = ["export", W1, "--name", LOCAL, flag, &path];
            team.project.run(&export)?;
        }
        let path = exported.display().to_string();
        team.engine.run(&["load", "--quiet", "--input", &path])?;
        fs::remove_file(&exported).map_err(|error| error.to_string())?;
        Ok(team)
    }

    /// Declares the images, with the registry at `address`.
    fn declare(&self, project: &Project, address: SocketAddr) -> Outcome<()> {
        let (registry, base) = (repository(address), &self.setting.base.layout);
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        project.declare_in(&registry, &names, base, &W1_REQUIREMENTS)
    }

    /// Pushes of a fresh image, by turns.
    fn fresh(&self, report: &mut Report) -> Outcome<()> {
        let (mut ours, mut docker, mut skopeo) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.setting.slow_reps {
            ours.push(self.pushed(|registry| {
                self.declare(&self.project, registry.address())?;
                Ok(self.project.run(&["push", W1]))
            })?);
            docker.push(self.pushed(|registry| {
                let name = format!("{}:{}", repository(registry.address()), W1);
                self.engine.run(&["tag", LOCAL, &name])?;
                Ok(self.engine.run(&["push", "--quiet", &name]))
            })?);
            skopeo.push(self.pushed(|registry| Ok(self.copied(registry)))?);
        }
        if ours.iter().any(|push| push.traffic.layers_in == 0) {
            return Err("the push sent no layers".into());
        }
        let peak = ours.iter().map(|push| push.call.peak_kib).max();
        for (key, what, pushes, peak) in [
            ("push.ours", "imagewright push, fresh image", &ours, peak),
            (
                "push.docker",
                "docker push, fresh image",
                &docker,
                self.engine.peak_kib(),
            ),
            (
                "push.skopeo",
                "skopeo copy of our archive, fresh image",
                &skopeo,
                None,
            ),
        ] {
            report.times(key, what, walls(pushes.iter().map(|push| &push.call)), peak);
            report.note(format!("{what}: {}", costs(pushes)));
        }
        let mut ratios: Vec<f64> = docker
            .iter()
            .zip(&ours)
            .map(|(docker, ours)| docker.call.wall.as_secs_f64() / ours.call.wall.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        report.note(format!(
            "docker push / imagewright push, round by round: {}",
            ratios
                .iter()
                .map(|ratio| format!("{ratio:.1}x"))
                .collect::<Vec<_>>()
                .join(", ")
        ));
        Ok(())
    }

    /// One push to an empty registry. `work` prepares it and then gives its cost.
    fn pushed(&self, work: impl FnOnce(&Registry) -> Outcome<Outcome<Measured>>) -> Outcome<Push> {
        let registry = Registry::start(&self.setting.run)?;
        // What earlier steps wrote is on its way to the disk no longer.
        rustix::fs::sync();
        let before = (self.engine.cpu(), registry.cpu());
        let (call, requests) = registry.during(|| work(&registry)?)?;
        let layers = registry.layers(REPOSITORY, W1)?;
        Ok(Push {
            call,
            traffic: registry.traffic(&requests, &layers),
            engine: self.engine.cpu().saturating_sub(before.0),
            registry: registry.cpu().saturating_sub(before.1),
        })
    }

    fn copied(&self, registry: &Registry) -> Outcome<Measured> {
        let name = format!("{}:{}", repository(registry.address()), W1);
        Call::new(need("skopeo")?)
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .args([format!("oci-archive:{}", self.archive.display())])
            .args([format!("docker://{name}")])
            .run()
    }

    /// A second image that shares all wheels but one.
    fn second(&self, report: &mut Report) -> Outcome<()> {
        let setting = self.setting;
        let registry = Registry::start(&setting.run)?;
        self.declare(&self.project, registry.address())?;
        self.project.run(&["push", W1])?;
        let (program, run) = (&setting.program, &setting.run);
        let other = Project::new(program, run, "second", "team", &setting.index)?;
        let requirements: Vec<&str> = W1_REQUIREMENTS.into_iter().chain([CHANGED.1]).collect();
        let (place, base) = (repository(registry.address()), &setting.base.layout);
        other.declare_in(&place, &["second"], base, &requirements)?;
        other.lock()?;
        other.run(&["build"])?;
        let (push, requests) = registry.during(|| other.run(&["push"]))?;
        let first = registry.layers(REPOSITORY, W1)?;
        let second = registry.layers(REPOSITORY, "second")?;
        let mut own = second
            .iter()
            .filter(|(digest, _)| !first.contains_key(digest));
        let (Some((_, size)), None) = (own.next(), own.next()) else {
            return Err("the second image does not differ in one layer".into());
        };
        let traffic = registry.traffic(&requests, &second);
        report.measured(
            "push.second",
            "imagewright push, one wheel of W1 changed",
            &[push],
        );
        report.note(format!(
            "push of the second image: {} for a layer of {size} bytes",
            told(&traffic)
        ));
        report.judge(
            "layer bytes of the second push / the changed wheel's layer",
            Some(traffic.layers_in as f64 / *size as f64),
            "x",
            Target::AtMost(1.0),
        );
        Ok(())
    }

    /// What a colleague with an empty store does with an image that was pushed, against `docker pull` of it; near and far.
    fn known(&self, report: &mut Report) -> Outcome<()> {
        let registry = Registry::start(&self.setting.run)?;
        self.declare(&self.project, registry.address())?;
        self.project.run(&["push", W1])?;
        let slow = Slow::start(registry.address(), FAR)?;
        let near = self.visits(&registry, registry.address(), near)?;
        let far = self.visits(&registry, slow.address(), far)?;
        for (index, (key, far_key, what)) in VISITS.into_iter().enumerate() {
            let calls = |visits: &[Visit]| walls(visits.iter().map(|visit| &visit[index].0));
            report.times(key, what, calls(&near), None);
            let shown = format!("  the same, each request {} ms late", FAR.as_millis());
            report.times(far_key, &shown, calls(&far), None);
            let best = |visits| calls(visits).into_iter().min().unwrap_or_default();
            let longer = best(&far).as_secs_f64() - best(&near).as_secs_f64();
            let (call, traffic) = &near[0][index];
            let trips = (longer / FAR.as_secs_f64()).clamp(0.0, traffic.requests as f64);
            report.note(format!(
                "{what}: {}; about {trips:.0} round trips one after another; {} ms of processor time",
                told(traffic),
                call.cpu.as_millis()
            ));
        }
        let moved = |index: usize| {
            let all = near.iter().chain(&far).map(|visit| visit[index].1);
            Some(all.map(|one| one.layers_in + one.layers_out).sum::<u64>() as f64)
        };
        for (index, what) in [
            (0, "layer bytes of the build of a known set"),
            (1, "layer bytes of its push to another name"),
            (2, "layer bytes of its push to another repository"),
        ] {
            report.judge(what, moved(index), "B", Target::AtMost(0.0));
        }
        Ok(())
    }

    /// So many colleagues, one after another.
    fn visits(
        &self,
        registry: &Registry,
        address: SocketAddr,
        name: fn(usize) -> String,
    ) -> Outcome<Vec<Visit>> {
        let repetitions = 0..self.setting.slow_reps;
        repetitions
            .map(|number| self.visit(registry, address, &name(number)))
            .collect()
    }

    fn visit(&self, registry: &Registry, address: SocketAddr, name: &str) -> Outcome<Visit> {
        let setting = self.setting;
        let (program, run) = (&setting.program, &setting.run);
        let colleague = Project::new(program, run, name, name, &setting.index)?;
        self.declare(&colleague, address)?;
        colleague.take_lock(&self.project)?;
        let layers = registry.layers(REPOSITORY, W1)?;
        let count = |work: &dyn Fn() -> Outcome<Measured>| {
            let (call, requests) = registry.during(work)?;
            Ok::<_, String>((call, registry.traffic(&requests, &layers)))
        };
        let elsewhere = format!("{address}/elsewhere/{name}");
        let build = count(&|| colleague.run(&["build", W1]))?;
        let push = count(&|| colleague.run(&["push", name]))?;
        let place = count(&|| colleague.run(&["push", W1, "--to", &elsewhere]))?;
        // The engine has nothing, as the colleague had.
        self.engine.run(&["system", "prune", "--all", "--force"])?;
        let image = format!("{}:{W1}", repository(address));
        let pull = count(&|| self.engine.run(&["pull", &image]))?;
        match pull.0.stdout.contains("Already exists") {
            true => Err("docker pull found layers that should have been gone".into()),
            false => Ok([build, push, place, pull]),
        }
    }
}

fn near(number: usize) -> String {
    format!("near-{number}")
}

fn far(number: usize) -> String {
    format!("far-{number}")
}

fn repository(address: SocketAddr) -> String {
    format!("{address}/{REPOSITORY}")
}

fn walls<'a>(calls: impl Iterator<Item = &'a Measured>) -> Vec<Duration> {
    calls.map(|call| call.wall).collect()
}

/// What was moved, in words.
fn told(traffic: &Traffic) -> String {
    format!(
        "{} requests, layers: {} bytes sent and {} received, {} blobs mounted; documents: {} bytes sent",
        traffic.requests,
        traffic.layers_in,
        traffic.layers_out,
        traffic.mounts,
        traffic.documents_in
    )
}

/// What the programs of a push were busy with, in words; of the median by time.
fn costs(pushes: &[Push]) -> String {
    let mut sorted: Vec<&Push> = pushes.iter().collect();
    sorted.sort_by_key(|push| push.call.wall);
    let Some(push) = sorted.get(sorted.len() / 2) else {
        return String::new();
    };
    format!(
        "{} MB of layers in {} requests; processor time: {:.1} s of the command, {:.1} s of the Docker Engine, {:.1} s of the registry",
        push.traffic.layers_in / 1_000_000,
        push.traffic.requests,
        push.call.cpu.as_secs_f64(),
        push.engine.as_secs_f64(),
        push.registry.as_secs_f64()
    )
}
