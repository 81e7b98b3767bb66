//! The house's walls: which module may import which, who prints, who reads the environment and the clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The pipeline, in order: a module imports only modules above it.
const PIPELINE: [&str; 13] = [
    "manifest", "lock", "identity", "resolve", "source", "layer", "image", "registry", "catalog",
    "runtime", "run", "report", "cli",
];

/// May be imported by all, and import only each other.
const SHARED: [&str; 7] = [
    "oci",
    "store",
    "diagnostic",
    "progress",
    "digest",
    "ambient",
    "http",
];

fn sources() -> BTreeMap<PathBuf, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    walk(&root, &mut found);
    found
        .into_iter()
        .map(|(path, text)| (path.strip_prefix(&root).unwrap().to_owned(), text))
        .collect()
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let first = path
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file: comments and everything from the unit tests on left out.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every `crate::name` of a text, groups (`crate::{a, b}`) included.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (index, character) in group.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && c.is_alphabetic() => {
                        start = false;
                        found.push(name(&group[index..]));
                    }
                    _ => {}
                }
            }
        } else {
            found.push(name(rest));
        }
    }
    found
}

fn name(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn a_module_imports_only_what_stands_above_it() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let from = module(&path);
        if from == "lib" || from == "main" {
            continue;
        }
        let own = PIPELINE.iter().position(|module| *module == from);
        assert!(
            own.is_some() || SHARED.contains(&from.as_str()),
            "{from} has no room in the house"
        );
        for target in imports(&code(&text)) {
            let allowed = target == from
                || SHARED.contains(&target.as_str())
                || match (own, PIPELINE.iter().position(|module| *module == target)) {
                    (Some(own), Some(other)) => other < own,
                    _ => false,
                };
            if !allowed {
                wrong.push(format!("{} imports {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rooms that know nothing of certain rooms above them.
const WALLS: [(&str, &[&str]); 6] = [
    ("registry", &["manifest", "lock", "resolve", "source"]),
    ("image", &["source"]),
    ("catalog", &["source"]),
    ("layer", &["source"]),
    (
        "runtime",
        &["manifest", "lock", "resolve", "source", "registry"],
    ),
    ("report", &["runtime", "resolve", "source", "registry"]),
];

#[test]
fn some_rooms_do_not_know_what_stands_above_them() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let from = module(&path);
        let forbidden = WALLS
            .iter()
            .filter(|(room, _)| *room == from)
            .flat_map(|(_, walls)| *walls);
        let imported = imports(&code(&text));
        for wall in forbidden {
            if imported.iter().any(|target| target == wall) {
                wrong.push(format!("{} imports {wall}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_import_reader_sees_groups_and_nested_groups() {
    let text = "use crate::{manifest::{A, B}, lock, run::x::{y}};\nuse crate::store::Store;";
    assert_eq!(imports(text), ["manifest", "lock", "run", "store"]);
}

#[test]
fn walls_that_are_not_imports() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let shown = path.display().to_string();
        let from = module(&path);
        let code = code(&text);
        let mut forbid = |what: &str, allowed: bool| {
            if code.contains(what) && !allowed {
                wrong.push(format!("{shown} contains `{what}`"));
            }
        };
        let python = shown.starts_with("resolve/python");
        for resolver in ["uv_", "uv-"] {
            forbid(resolver, python);
        }
        let command = from == "cli" || from == "main";
        for printing in [
            "println!",
            "eprintln!",
            "print!(",
            "io::stdout()",
            "io::stderr()",
        ] {
            forbid(printing, command);
        }
        let environment = command || from == "store" || shown.starts_with("runtime/helper");
        for reading in ["env::var", "env::args", "env::current_dir", "env::home_dir"] {
            forbid(reading, environment);
        }
        forbid(
            "SystemTime::now",
            command || from == "run" || from == "runtime",
        );
        let network =
            ["manifest", "lock", "identity", "layer", "image", "store"].contains(&from.as_str());
        for socket in ["reqwest", "TcpStream", "crate::http"] {
            forbid(socket, !network);
        }
        let files = ["manifest", "lock", "identity"].contains(&from.as_str());
        for access in ["std::fs", "File::open", "fs::read"] {
            forbid(access, !files);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn main_stays_thin_and_files_stay_readable() {
    let sources = sources();
    assert!(sources[Path::new("main.rs")].lines().count() <= 40);
    let long: Vec<_> = sources
        .iter()
        .filter(|(_, text)| text.lines().count() > 800)
        .map(|(path, text)| format!("{} has {} lines", path.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}
