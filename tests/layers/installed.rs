//! The installed tree equals the one of `uv pip install`.
//!
//! Documented differences: the name in INSTALLER, no REQUESTED, no `uv_cache.json` and no `direct_url.json` (which tell who
//! asked, and how), the wording of launchers, and the RECORD lines of these files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Fixture, Node, SITE, Tree, cache, run, tree_of_folder};
use crate::wheels::WHEELS;

/// uv, installed into an environment of its own.
fn uv() -> PathBuf {
    let folder = cache().join("uv-venv");
    let uv = folder.join("bin/uv");
    if !uv.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "uv"]));
    }
    uv
}

fn download() -> Vec<PathBuf> {
    let folder = cache().join("wheels");
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::open(&folder).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let find = || -> Vec<Option<PathBuf>> {
        let files: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let named = |name: &str, version: &str| {
            files.iter().find(|path| {
                let file = path.file_name().unwrap().to_str().unwrap();
                let mut parts = file.split('-');
                let project = imagewright::layer::wheel::normalise(parts.next().unwrap());
                project == name && parts.next() == Some(version)
            })
        };
        WHEELS
            .iter()
            .map(|(name, version, _)| named(name, version).cloned())
            .collect()
    };
    let missing: Vec<String> = find()
        .iter()
        .zip(WHEELS)
        .filter(|(found, _)| found.is_none())
        .map(|(_, (name, version, _))| format!("{name}=={version}"))
        .collect();
    if !missing.is_empty() {
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
        ]);
        pip.args(["--python-version", "3.11", "--dest"])
            .arg(&folder);
        for tag in ["2_28", "2_17", "2_12", "2_5"] {
            pip.args(["--platform", &format!("manylinux_{tag}_x86_64")]);
        }
        pip.args([
            "--platform",
            "manylinux2014_x86_64",
            "--platform",
            "manylinux2010_x86_64",
        ]);
        pip.args([
            "--platform",
            "manylinux1_x86_64",
            "--platform",
            "linux_x86_64",
        ]);
        run(pip.args(&missing));
    }
    find().into_iter().map(Option::unwrap).collect()
}

/// What `uv pip install` makes of `wheels`, with the environment's path replaced by ours.
fn installed_by_uv(wheels: &[PathBuf], folder: &Path) -> Tree {
    let venv = folder.join("venv");
    let uv = |arguments: &[&str]| {
        let mut command = Command::new(uv());
        command
            .args(arguments)
            .env("UV_CACHE_DIR", folder.join("cache"))
            .env("UV_NO_CONFIG", "1");
        command
    };
    run(uv(&["venv", "--quiet", "--python", "3.11"]).arg(&venv));
    let before = tree_of_folder(&venv);
    let mut install = uv(&[
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--offline",
    ]);
    install
        .args(["--link-mode", "copy", "--python"])
        .arg(venv.join("bin/python"));
    run(install.args(wheels));
    let real = venv.to_str().unwrap();
    tree_of_folder(&venv)
        .into_iter()
        .filter(|(path, _)| !before.contains_key(path) && path != ".lock")
        .map(|(path, mut node)| {
            if let Node::File { content, .. } = &mut node
                && content.starts_with(b"#!")
                && let Ok(text) = std::str::from_utf8(content)
            {
                *content = text.replace(real, "/opt/venv").into_bytes();
            }
            (format!("opt/venv/{path}"), node)
        })
        .collect()
}

type Record = BTreeMap<String, (String, String)>;

fn record(node: &Node) -> Record {
    let Node::File { content, .. } = node else {
        panic!("RECORD is no file")
    };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(content.as_slice());
    let rows = reader.records().map(Result::unwrap);
    rows.map(|row| (row[0].to_owned(), (row[1].to_owned(), row[2].to_owned())))
        .collect()
}

/// The file name of a path in a dist-info folder at the root of site-packages.
fn dist_info_file(path: &str) -> Option<&str> {
    let (folder, file) = path.rsplit_once('/')?;
    let folder = folder
        .strip_prefix(SITE)
        .map_or(folder, |rest| rest.trim_start_matches('/'));
    (folder.ends_with(".dist-info") && !folder.contains('/')).then_some(file)
}

const ASKERS: [&str; 4] = [
    "REQUESTED",
    "direct_url.json",
    "uv_cache.json",
    "uv_build.json",
];

fn is_launcher(node: &Node) -> bool {
    matches!(node, Node::File { content, .. } if String::from_utf8_lossy(content).contains("sys.exit("))
}

#[test]
fn popular_wheels_install_as_uv_installs_them() {
    assert!(WHEELS.len() >= 60);
    let wheels = download();
    let fixture = Fixture::new();
    let pins: Vec<_> = wheels.iter().map(|path| fixture.add(path)).collect();
    let layers = fixture.build(&pins, 2).unwrap();
    let ours = fixture.tree(&layers);
    let mut theirs = installed_by_uv(&wheels, fixture.folder.path());
    theirs.retain(|path, _| !dist_info_file(path).is_some_and(|file| ASKERS.contains(&file)));

    let mut differences = Vec::new();
    let mut launchers = Vec::new();
    for path in ours
        .keys()
        .chain(theirs.keys())
        .collect::<std::collections::BTreeSet<_>>()
    {
        let (our, their) = (ours.get(path), theirs.get(path));
        let same = match (our, their) {
            // Folders that a fresh environment has already.
            (Some(Node::Folder), None) => {
                "opt/venv/lib/python3.11/site-packages".starts_with(path.as_str())
                    || path == "opt/venv/bin"
            }
            (Some(_), Some(_)) if dist_info_file(path) == Some("RECORD") => true,
            (Some(our), Some(their)) if dist_info_file(path) == Some("INSTALLER") => {
                matches!(our, Node::File { mode: 0o644, content } if content == b"imagewright\n")
                    && matches!(their, Node::File { mode: 0o644, .. })
            }
            (Some(Node::File { mode: our_mode, .. }), Some(Node::File { mode, .. }))
                if our != their
                    && path.starts_with("opt/venv/bin/")
                    && is_launcher(our.unwrap()) =>
            {
                launchers.push(path.clone());
                our_mode == mode && is_launcher(their.unwrap())
            }
            _ => our == their,
        };
        if !same {
            differences.push(format!("{path}: ours {our:?}, uv's {their:?}"));
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
    assert!(launchers.len() > 20, "{launchers:?}");

    for (path, our) in ours
        .iter()
        .filter(|(path, _)| dist_info_file(path) == Some("RECORD"))
    {
        let clean = |record: Record| -> Record {
            let own = |path: &String| {
                let made = [&["INSTALLER"][..], &ASKERS].concat();
                dist_info_file(path).is_some_and(|file| made.contains(&file))
                    || launchers
                        .iter()
                        .any(|launcher| path == &launcher.replace("opt/venv/", "../../../"))
            };
            record.into_iter().filter(|(path, _)| !own(path)).collect()
        };
        assert_eq!(clean(record(our)), clean(record(&theirs[path])), "{path}");
        verify_record(&ours, our);
    }
}

/// Every file of the distribution is there, with the hash and size that its RECORD says.
fn verify_record(tree: &Tree, node: &Node) {
    for (path, (hash, size)) in record(node) {
        let full = match path.strip_prefix("../../../") {
            Some(rest) => format!("opt/venv/{rest}"),
            None => format!("{SITE}/{path}"),
        };
        let Some(Node::File { content, .. }) = tree.get(&full) else {
            panic!("{full} is recorded, but not there")
        };
        if !path.ends_with(".dist-info/RECORD") {
            assert_eq!(
                hash,
                imagewright::layer::wheel::RecordHash::of(content).to_string(),
                "{full}"
            );
            assert_eq!(size, content.len().to_string(), "{full}");
        }
    }
}

#[test]
fn the_list_tells_the_build_backends() {
    let wheels = download();
    let fixture = Fixture::new();
    let mut backends = std::collections::BTreeSet::new();
    for (path, (name, _, backend)) in wheels.iter().zip(WHEELS) {
        if *name == "cmake" || *name == "babel" {
            continue;
        }
        let layers = fixture.build(&[fixture.add(path)], 1).unwrap();
        let tree = fixture.tree(&layers);
        let wheel = tree
            .iter()
            .find(|(path, _)| dist_info_file(path) == Some("WHEEL"));
        let Some((_, Node::File { content, .. })) = wheel else {
            panic!("{name} has no WHEEL")
        };
        let text = String::from_utf8_lossy(content);
        assert!(
            text.contains(&format!("Generator: {backend}")),
            "{name}: {text}"
        );
        backends.insert(*backend);
    }
    assert!(backends.len() >= 8, "{backends:?}");
}
