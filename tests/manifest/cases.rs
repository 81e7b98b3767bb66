//! Every file of `good/` and `bad/` against its snapshot.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use imagewright::diagnostic::{Explain, Kind};
use imagewright::manifest::{
    self, Destination, ImageRequest, Layout, Manifest, PipRequirement, Root, RunSpec, Spanned,
};

use crate::support::{data, parse, spans_are_sound, split};

fn files(folder: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(data(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "kdl"))
        .collect();
    all.sort();
    all
}

fn snapshot(folder: &str, path: &std::path::Path, text: &str) {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(data("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(format!("{folder}__{name}"), text));
}

#[test]
fn bad_manifests_are_explained() {
    let all = files("bad");
    assert!(all.len() >= 60, "{} cases", all.len());
    let handler =
        miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
            .with_width(120);
    let mut helpless = Vec::new();
    for path in all {
        let (text, project) = split(&fs::read_to_string(&path).unwrap());
        let problems = parse(&text, &project).expect_err(&path.display().to_string());
        spans_are_sound(&problems);
        assert_eq!(problems.kind(), Kind::Usage);
        let mut out = String::new();
        for problem in problems.problems() {
            if problem.help.is_none() {
                helpless.push(format!("{}: {problem}", path.display()));
            }
            handler.render_report(&mut out, problem).unwrap();
            out.push('\n');
        }
        assert!(
            !out.contains("hunter2"),
            "{}: a secret is shown",
            path.display()
        );
        snapshot("bad", &path, out.trim_end());
    }
    assert!(helpless.is_empty(), "no help: {helpless:#?}");
}

#[test]
fn good_manifests_become_requests() {
    let all = files("good");
    assert!(all.len() >= 15, "{} cases", all.len());
    for path in all {
        let (text, project) = split(&fs::read_to_string(&path).unwrap());
        let manifest = parse(&text, &project).unwrap_or_else(|problems| {
            let all: Vec<String> = problems
                .0
                .iter()
                .map(|p| format!("{p} {:?}", p.labels))
                .collect();
            panic!("{}: {all:#?}", path.display())
        });
        snapshot("good", &path, show(&manifest).trim_end());
    }
}

#[test]
fn each_built_in_base_can_be_shown_and_built_on() {
    let names: Vec<&str> = manifest::builtin_names().collect();
    assert_eq!(names, ["minimal", "tabular", "nlp", "images", "all"]);
    for name in names {
        assert!(
            manifest::builtin_base(name)
                .unwrap()
                .contains(&format!("base \"{name}\""))
        );
        let manifest = parse(&format!("image \"x\" base=\"{name}\""), &Default::default()).unwrap();
        let request = &manifest.images[0];
        assert_eq!(request.base, name);
        assert!(request.pip.iter().any(|pip| pip.name == "pytest"));
        let Root::Debian(debian) = &request.root else {
            panic!("{name}")
        };
        assert_eq!(debian.suite.value, "bookworm");
        assert!(debian.os.iter().any(|os| os.name == "python3"));
        assert_eq!(request.python.as_ref().unwrap().to_string(), "3.11");
        for pip in &request.pip {
            assert_eq!(
                pip.source.text.get(pip.span.start..pip.span.start + 1),
                Some("\"")
            );
        }
    }
    assert!(manifest::builtin_base("gpu").is_none());
}

/// A manifest in short; what built-in bases add is not repeated.
fn show(manifest: &Manifest) -> String {
    let mut out = String::new();
    if let Some(registry) = &manifest.registry {
        show_destination(&mut out, "registry", registry);
    }
    for push in &manifest.pushes {
        show_destination(&mut out, "push", push);
    }
    for key in &manifest.trust {
        let _ = writeln!(out, "trust {}", key.value);
    }
    for (name, description) in &manifest.projects {
        let _ = writeln!(out, "project {name}: {description:?}");
    }
    manifest
        .images
        .iter()
        .for_each(|image| show_image(&mut out, image));
    manifest.runs.iter().for_each(|run| show_run(&mut out, run));
    out
}

fn show_destination(out: &mut String, what: &str, destination: &Destination) {
    let _ = write!(out, "{what} {}", destination.registry);
    if destination.layout != Layout::Split {
        let _ = write!(out, " {:?}", destination.layout);
    }
    let plain = if destination.plain_http { " plain" } else { "" };
    let _ = writeln!(out, "{plain}");
}

fn show_names(out: &mut String, image: &ImageRequest) {
    let version = image.version.as_ref().map(|version| version.as_str());
    let git = Some("0123456789abcdef");
    for tag in &image.tags {
        let tag = manifest::tags::expand(tag, version, git).unwrap();
        let _ = writeln!(out, "  tag {tag}");
    }
    if let Some(version) = version {
        let _ = writeln!(out, "  version {version}");
    }
    if image.protected {
        let _ = writeln!(out, "  protected");
    }
}

fn own<T>(list: &[Spanned<T>]) -> impl Iterator<Item = &T> {
    list.iter()
        .filter(|item| !item.source.name.contains("built in"))
        .map(|item| &item.value)
}

fn pip_line(pip: &PipRequirement) -> String {
    let mut line = pip.pep508.clone();
    for (what, value) in [("index", &pip.index), ("wheel", &pip.wheel)] {
        if let Some(value) = value {
            let _ = write!(line, " {what}={value}");
        }
    }
    for hash in &pip.hashes {
        let _ = write!(line, " {hash}");
    }
    line
}

fn show_image(out: &mut String, image: &ImageRequest) {
    let _ = writeln!(out, "image {} on {}", image.name.value, image.base);
    match &image.root {
        Root::From(reference) => {
            let _ = writeln!(out, "  from {}", reference.value);
        }
        Root::Debian(debian) => {
            let extra = (
                debian.mirror.as_ref().map(|m| &m.value),
                &debian.components,
                debian.keyring.as_ref().map(|k| &k.value),
                debian.updates,
            );
            let _ = writeln!(out, "  debian {} {extra:?}", debian.suite.value);
            if let Some(snapshot) = &debian.snapshot {
                let _ = writeln!(out, "    snapshot {}", snapshot.value);
            }
            own(&debian.os).for_each(|os| {
                let _ = writeln!(out, "    os {} {:?}", os.name, os.version);
            });
        }
    }
    show_names(out, image);
    let python = image.python.as_ref().map(|python| python.to_string());
    let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
    let _ = writeln!(out, "  python {python:?} platforms {}", platforms.join(" "));
    own(&image.os).for_each(|os| {
        let _ = writeln!(out, "  os {} {:?}", os.name, os.version);
    });
    for (what, list) in [
        ("pip", &image.pip),
        ("constraint", &image.constraints),
        ("override", &image.overrides),
    ] {
        own(list).for_each(|pip| {
            assert_eq!(pip.constraint, what == "constraint");
            let _ = writeln!(out, "  {what} {}", pip_line(pip));
        });
    }
    if let Some(instant) = &image.exclude_newer {
        let _ = writeln!(out, "  exclude-newer {}", instant.value);
    }
    for index in &image.indexes {
        let _ = writeln!(
            out,
            "  index {} {} default={} explicit={}",
            index.name, index.url, index.default, index.explicit
        );
    }
    for file in &image.files {
        let _ = writeln!(
            out,
            "  file {} -> {} {:?}",
            file.from,
            file.to,
            file.mode.map(|mode| format!("{mode:04o}"))
        );
    }
    for fetch in &image.fetches {
        let _ = writeln!(
            out,
            "  fetch {} {:?} -> {} {:?}",
            fetch.url,
            fetch.sha256,
            fetch.to,
            fetch.mode.map(|mode| format!("{mode:04o}"))
        );
    }
    let config = &image.config;
    for (what, map) in [
        ("env", &config.env),
        ("label", &config.labels),
        ("annotation", &config.annotations),
    ] {
        for (key, value) in map {
            let _ = writeln!(out, "  {what} {key}={value:?}");
        }
    }
    if let Some(user) = &config.user {
        let _ = writeln!(
            out,
            "  user {} {}:{} {}",
            user.name, user.uid, user.gid, user.home
        );
    }
    for (what, value) in [
        ("workdir", format!("{:?}", config.workdir)),
        ("entrypoint", format!("{:?}", config.entrypoint)),
        ("cmd", format!("{:?}", config.cmd)),
    ] {
        if value != "None" {
            let _ = writeln!(out, "  {what} {value}");
        }
    }
}

fn show_run(out: &mut String, run: &RunSpec) {
    let _ = writeln!(
        out,
        "run {} in {} project {}",
        run.name.value, run.image.value, run.project
    );
    for file in &run.files {
        let _ = writeln!(out, "  file {} -> {}", file.from, file.to);
    }
    let _ = writeln!(
        out,
        "  command {:?} env {:?} workdir {:?}",
        run.command, run.env, run.workdir
    );
    let _ = writeln!(out, "  {:?}", run.resources);
    let _ = writeln!(
        out,
        "  timeout {} ms, network {:?}",
        run.timeout_ms, run.network
    );
    for cell in manifest::cells(run) {
        let command: Vec<String> = run
            .command
            .iter()
            .map(|arg| manifest::expand(arg, &cell))
            .collect();
        let _ = writeln!(
            out,
            "  cell {cell:?}: {} {command:?}",
            manifest::expand(&run.name.value, &cell)
        );
    }
}
