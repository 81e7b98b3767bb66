//! What a base image has that Python packages need: interpreters, a C library, users.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::tree::{NodeKind, Tree};

/// Folders looked at for interpreters after those of the image's PATH.
const MORE_FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/opt/python/bin"];

/// The PATH of an image that declares none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What was found in a base image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Interpreters, the one that `python3` means first.
    pub interpreters: Vec<Interpreter>,
    /// glibc (major, minor), if the image has it.
    pub glibc: Option<(u16, u16)>,
    /// Whether the image has musl's loader.
    pub musl: bool,
    /// `/etc/passwd`; empty if missing.
    pub passwd: String,
    /// `/etc/group`; empty if missing.
    pub group: String,
    /// `/etc/os-release`, by field, quotes removed.
    pub os_release: BTreeMap<String, String>,
    /// Whether it has dpkg and its database.
    pub dpkg: bool,
}

/// A Python interpreter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// Absolute, links resolved, for example `/usr/bin/python3.11`.
    pub path: String,
    /// For example `3.11`; `None` when nothing tells.
    pub minor: Option<String>,
    /// For example `3.11.2`; `None` when nothing tells.
    pub full: Option<String>,
    /// For example `x86_64`.
    pub machine: String,
    /// `cpython` or `pypy`.
    pub implementation: String,
    /// Whether it is linked against musl.
    pub musl: bool,
}

/// Looks around in `tree`; `env` is the image's environment (`NAME=value`).
pub fn probe(tree: &Tree, env: &[String]) -> Contents {
    Contents {
        interpreters: interpreters(tree, env),
        glibc: tree
            .binaries()
            .filter(|(path, _)| !path.starts_with(b"opt/"))
            .find_map(|(_, binary)| binary.glibc),
        musl: ["/lib", "/usr/lib"]
            .iter()
            .flat_map(|folder| tree.names(folder))
            .any(|name| name.starts_with("ld-musl-")),
        passwd: tree.text("/etc/passwd").unwrap_or_default(),
        group: tree.text("/etc/group").unwrap_or_default(),
        os_release: tree
            .text("/etc/os-release")
            .or_else(|| tree.text("/usr/lib/os-release"))
            .map(|text| fields(&text))
            .unwrap_or_default(),
        dpkg: tree.get("/usr/bin/dpkg").is_some() && tree.get("/var/lib/dpkg/status").is_some(),
    }
}

fn fields(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            (
                name.trim().into(),
                value.trim().trim_matches(['"', '\'']).into(),
            )
        })
        .collect()
}

fn interpreters(tree: &Tree, env: &[String]) -> Vec<Interpreter> {
    let path = env.iter().rev().find_map(|line| line.strip_prefix("PATH="));
    let folders = path
        .filter(|path| !path.is_empty())
        .unwrap_or(DEFAULT_PATH)
        .split(':')
        .chain(MORE_FOLDERS)
        .filter(|folder| folder.starts_with('/'));
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for folder in folders {
        let names = tree.names(folder);
        let versioned = names
            .iter()
            .map(String::as_str)
            .filter(|name| minor_of(name).is_some());
        for name in ["python3", "python"].into_iter().chain(versioned) {
            let path = format!("{}/{name}", folder.trim_end_matches('/'));
            let Some(real) = tree.resolve(&path) else {
                continue;
            };
            if let Some(interpreter) = interpreter(tree, &real)
                && seen.insert(real)
            {
                found.push(interpreter);
            }
        }
    }
    found
}

/// `python3.11` → `3.11`; `None` for other names, those of free-threaded builds (`python3.13t`) among them.
fn minor_of(name: &str) -> Option<String> {
    let minor = name.strip_prefix("python3.")?;
    let plain = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| format!("3.{minor}"))
}

fn interpreter(tree: &Tree, real: &str) -> Option<Interpreter> {
    let NodeKind::Binary(binary) = tree.get(real)? else {
        return None;
    };
    let (folder, name) = real.rsplit_once('/').unwrap_or(("", real));
    let implementation = if name.starts_with("pypy") {
        "pypy"
    } else {
        "cpython"
    };
    if implementation == "cpython" && !name.starts_with("python") {
        return None;
    }
    let prefix = folder.rsplit_once('/').map_or("", |(prefix, _)| prefix);
    let minor = minor_of(name).or_else(|| minor_by_library(tree, prefix));
    let full = full_version(tree, prefix, minor.as_deref(), &binary.python_versions);
    Some(Interpreter {
        path: format!("/{real}"),
        minor: minor.or_else(|| full.as_deref().and_then(minor_of_full)),
        full,
        machine: binary.machine.clone(),
        implementation: implementation.into(),
        musl: binary
            .loader
            .as_deref()
            .is_some_and(|loader| loader.contains("ld-musl")),
    })
}

fn minor_of_full(full: &str) -> Option<String> {
    Some(full.rsplit_once('.')?.0.to_owned())
}

/// The only `lib/python3.X` beside the interpreter's folder.
fn minor_by_library(tree: &Tree, prefix: &str) -> Option<String> {
    let names = tree.names(&format!("{prefix}/lib"));
    let mut minors = names.iter().filter_map(|name| minor_of(name));
    minors.next().filter(|_| minors.next().is_none())
}

/// The version in the interpreter itself, in its library, or in its header file.
fn full_version(tree: &Tree, prefix: &str, minor: Option<&str>, own: &[String]) -> Option<String> {
    let fitting = |versions: &[String]| {
        let mut fitting = versions
            .iter()
            .filter(|full| minor.is_none() || minor_of_full(full).as_deref() == minor)
            .map(|full| full.trim_end_matches('+').to_owned());
        fitting.next().filter(|_| fitting.next().is_none())
    };
    if let Some(found) = fitting(own) {
        return Some(found);
    }
    let minor = minor?;
    let library = format!("libpython{minor}.so");
    let near = |path: &[u8]| {
        let path = String::from_utf8_lossy(path).into_owned();
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        name.starts_with(&library) && folder.starts_with(prefix)
    };
    let by_library = tree
        .binaries()
        .filter(|(path, _)| near(path))
        .find_map(|(_, binary)| fitting(&binary.python_versions));
    by_library.or_else(|| {
        let header = tree.text(&format!("{prefix}/include/python{minor}/patchlevel.h"))?;
        let line = header
            .lines()
            .find(|line| line.starts_with("#define PY_VERSION "))?;
        Some(line.split('"').nth(1)?.trim_end_matches('+').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interpreters() {
        assert_eq!(minor_of("python3.11").as_deref(), Some("3.11"));
        for other in [
            "python3",
            "python3.",
            "python3.13t",
            "python3.11-config",
            "python2.7",
        ] {
            assert_eq!(minor_of(other), None, "{other}");
        }
        assert_eq!(minor_of_full("3.13.0rc1").as_deref(), Some("3.13"));
    }

    #[test]
    fn os_release_fields_lose_their_quotes() {
        let found = fields("ID=debian\nPRETTY_NAME=\"Debian 12\"\n# x\n");
        assert_eq!(found["ID"], "debian");
        assert_eq!(found["PRETTY_NAME"], "Debian 12");
    }
}
