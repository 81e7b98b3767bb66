//! A manifest's OS requirements → debs for the lock, with every mistake told at its span.
//!
//! The version of a requirement is one of: the full Debian version (`2:9.0.1378-2`), the same without its epoch, the
//! upstream version (`9.0.1378`), or a beginning of the upstream version that ends at a `.` or `+` (`9.0`). An epoch,
//! where written, must be the package's.

use std::collections::BTreeMap;

use debversion::Version;

use super::packages::{NotStanzas, Universe, installed};
use super::solve::{Query, Root, solve};
use crate::diagnostic::{Kind, Problem, Problems};
use crate::digest::Digest;
use crate::lock::{LockedDeb, LockedPython};
use crate::manifest::{OsRequirement, PythonMinor, Spanned};

/// What a Debian base asks for.
#[derive(Clone, Copy, Debug)]
pub struct BaseRequest<'a> {
    /// Where the manifest names the suite.
    pub suite: &'a Spanned<String>,
    /// The base's own OS packages.
    pub os: &'a [Spanned<OsRequirement>],
    /// The Python version that the manifest demands.
    pub python: Option<&'a Spanned<PythonMinor>>,
}

/// What a Debian base consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseSolution {
    /// Sorted by package name.
    pub debs: Vec<LockedDeb>,
    /// Its interpreter.
    pub python: LockedPython,
    /// See [`Universe::epoch`].
    pub epoch: i64,
}

/// What is there already, below an image's own OS packages.
#[derive(Clone, Copy, Debug)]
pub enum Installed<'a> {
    /// A Debian base's packages.
    Debs(&'a [LockedDeb]),
    /// The text of `/var/lib/dpkg/status` of a `from` base.
    Status(&'a str),
}

/// What an image asks for above its base.
#[derive(Clone, Copy, Debug)]
pub struct AboveRequest<'a> {
    /// What is there already.
    pub installed: Installed<'a>,
    /// The image's own OS packages.
    pub os: &'a [Spanned<OsRequirement>],
}

/// Chooses a base's packages: what every base has, Python, and what `os` lines name.
///
/// `keep` (name → version) holds the pins of an earlier lock that stay if they can.
///
/// # Errors
/// Every requirement that cannot be met, at its span.
pub fn resolve_base(
    universe: &Universe,
    request: &BaseRequest<'_>,
    keep: &BTreeMap<String, String>,
) -> Result<BaseSolution, Problems> {
    let mut roots: Vec<Root> = universe
        .base_names()
        .into_iter()
        .map(|name| any_version(universe, name))
        .collect();
    let python = any_version(universe, "python3");
    if python.members.is_empty() || roots.is_empty() {
        let missing = if roots.is_empty() {
            "essential packages"
        } else {
            "python3"
        };
        return Err(one(no_resolution(
            request.suite,
            format!("the suite {} has no {missing}", request.suite.value),
            "this suite cannot be a base",
        )));
    }
    roots.push(python);
    let query = Query {
        universe,
        roots,
        installed: BTreeMap::new(),
        keep,
    };
    let chosen = choose(query, request.os, Some(request.suite))?;
    let debs = locked(universe, &chosen, request.suite)?;
    let python = interpreter(&debs, request)?;
    Ok(BaseSolution {
        debs,
        python,
        epoch: universe.epoch,
    })
}

/// Chooses the packages that an image adds to its base: only those that are not there already. An installed package
/// is upgraded only where a requirement cannot be met otherwise.
///
/// # Errors
/// Every requirement that cannot be met, at its span.
pub fn resolve_above(
    universe: &Universe,
    request: &AboveRequest<'_>,
    keep: &BTreeMap<String, String>,
) -> Result<Vec<LockedDeb>, Problems> {
    let Some(first) = request.os.first() else {
        return Ok(Vec::new());
    };
    let mut universe = universe.clone();
    let installed = add_installed(&mut universe, request.installed).map_err(|error| {
        one(no_resolution(
            first,
            format!("the base's dpkg status cannot be read: {error}"),
            "needs to know what is installed",
        ))
    })?;
    let query = Query {
        universe: &universe,
        roots: Vec::new(),
        installed,
        keep,
    };
    let chosen = choose(query, request.os, None)?;
    locked(&universe, &chosen, first)
}

fn add_installed(
    universe: &mut Universe,
    source: Installed<'_>,
) -> Result<BTreeMap<String, u32>, NotStanzas> {
    let mut found = BTreeMap::new();
    match source {
        Installed::Debs(debs) => {
            for deb in debs {
                let versions = universe.versions(&deb.package);
                let same = |index: &u32| *universe.package(*index).version == *deb.version;
                if let Some(index) = versions.into_iter().find(same) {
                    found.insert(deb.package.clone(), index);
                }
            }
        }
        Installed::Status(text) => {
            let suite = universe.add_suite("installed");
            for package in installed(text, suite)? {
                let name = package.name.to_string();
                if let Some(index) = universe.add(package) {
                    found.insert(name, index);
                }
            }
        }
    }
    Ok(found)
}

fn any_version(universe: &Universe, name: &str) -> Root {
    Root {
        name: name.into(),
        text: String::new(),
        members: universe.versions(name),
    }
}

/// Solves the query with the `os` lines; on failure finds the smallest set of lines that cannot be met together.
fn choose(
    mut query: Query<'_>,
    os: &[Spanned<OsRequirement>],
    suite: Option<&Spanned<String>>,
) -> Result<Vec<u32>, Problems> {
    let mut problems = Problems::default();
    let mut wanted = Vec::new();
    for requirement in os {
        match find(query.universe, requirement) {
            Ok(root) => wanted.push((requirement, root)),
            Err(problem) => problems.0.push(problem),
        }
    }
    problems.or(())?;
    let given = query.roots.clone();
    let mut attempt = |lines: &[(&Spanned<OsRequirement>, Root)]| {
        query.roots.clone_from(&given);
        query
            .roots
            .extend(lines.iter().map(|(_, root)| root.clone()));
        solve(&query)
    };
    let reason = match attempt(&wanted) {
        Ok(chosen) => return Ok(chosen),
        Err(reason) => reason,
    };
    if let (Some(suite), Err(reason)) = (suite, attempt(&[])) {
        let message = format!("the base packages of {} cannot be installed", suite.value);
        let problem = no_resolution(suite, message, "this suite cannot be a base");
        return Err(one(problem.help(reason)));
    }
    let mut core = wanted;
    let mut reason = reason;
    let mut at = 0;
    while core.len() > 1 && at < core.len() {
        let taken = core.remove(at);
        match attempt(&core) {
            Err(smaller) => reason = smaller,
            Ok(_) => {
                core.insert(at, taken);
                at += 1;
            }
        }
    }
    Err(one(conflict(&core, reason)))
}

fn conflict(core: &[(&Spanned<OsRequirement>, Root)], reason: String) -> Problem {
    let names: Vec<String> = core
        .iter()
        .map(|(requirement, _)| format!("`{}`", requirement.name))
        .collect();
    let message = match names.as_slice() {
        [one] => format!("the OS package {one} cannot be installed"),
        many => format!(
            "the OS packages {} cannot be installed together",
            many.join(", ")
        ),
    };
    let mut places = core.iter().map(|(requirement, _)| *requirement);
    let Some(first) = places.next() else {
        // The lines were not empty, and only whole lines are taken away while at least one stays.
        return Problem {
            kind: Kind::NoResolution,
            message,
            source_text: crate::diagnostic::SourceText::new("", ""),
            labels: Vec::new(),
            help: Some(reason),
        };
    };
    let problem = no_resolution(first, message, "required here");
    places
        .fold(problem, |problem, place| {
            problem.also(place.span, "and here")
        })
        .help(reason)
}

fn no_resolution<T>(place: &Spanned<T>, message: String, label: &str) -> Problem {
    Problem::new(&place.source, place.span, message, label).kind(Kind::NoResolution)
}

fn one(problem: Problem) -> Problems {
    Problems(vec![problem])
}

/// The candidates that an `os` line allows.
fn find(universe: &Universe, requirement: &Spanned<OsRequirement>) -> Result<Root, Problem> {
    let name = &requirement.name;
    let versions = universe.versions(name);
    if versions.is_empty() {
        return Err(unknown(universe, requirement));
    }
    let Some(wanted) = &requirement.version else {
        return Ok(Root {
            name: name.clone(),
            text: String::new(),
            members: versions,
        });
    };
    let package = |index: &u32| universe.package(*index);
    let fits = |index: &u32| {
        let version = package(index).parsed_version();
        version.is_some_and(|version| matches_version(wanted, &version))
    };
    let members: Vec<u32> = versions.iter().copied().filter(fits).collect();
    if members.is_empty() {
        let exist: Vec<&str> = versions
            .iter()
            .map(|index| &*package(index).version)
            .collect();
        let message = format!("there is no version {wanted} of the OS package `{name}`");
        let problem = no_resolution(requirement, message, "no such version");
        return Err(problem.help(format!(
            "the archive has {}; write one of these, an upstream version such as `{}`, or none for the newest",
            exist.join(", "),
            upstream(exist[0]),
        )));
    }
    Ok(Root {
        name: name.clone(),
        text: wanted.clone(),
        members,
    })
}

fn unknown(universe: &Universe, requirement: &Spanned<OsRequirement>) -> Problem {
    let name = requirement.name.as_str();
    let suite = universe
        .suites
        .first()
        .map_or("the archive", String::as_str);
    let message = format!("there is no OS package `{name}` in {suite}");
    let problem = no_resolution(requirement, message, "unknown package");
    let mut providers: Vec<&str> = universe
        .providers(name)
        .iter()
        .map(|(index, _)| &*universe.package(*index).name)
        .collect();
    providers.sort_unstable();
    providers.dedup();
    if !providers.is_empty() {
        return problem.help(format!(
            "`{name}` is a virtual package; write one of those that provide it: {}",
            providers.join(", ")
        ));
    }
    let nearest = universe
        .names()
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)));
    match nearest {
        Some((_, other)) => problem.help(format!("did you mean `{other}`?")),
        None => problem.help("search the suite's packages for the right name"),
    }
}

/// The upstream part of a version's text.
fn upstream(version: &str) -> String {
    version
        .parse::<Version>()
        .map_or_else(|_| version.to_owned(), |version| version.upstream_version)
}

/// Whether the version that a person wrote means the package version `found`: see the head of this file. A text that is
/// not a Debian version means itself.
pub fn means_version(wanted: &str, found: &str) -> bool {
    match found.parse() {
        Ok(found) => matches_version(wanted, &found),
        Err(_) => wanted == found,
    }
}

/// Whether a manifest's version means `found`; see the head of this file.
fn matches_version(wanted: &str, found: &Version) -> bool {
    let (epoch, rest) = match wanted.split_once(':') {
        Some((epoch, rest)) => (Some(epoch), rest),
        None => (None, wanted),
    };
    let same_epoch = epoch.is_none_or(|epoch| epoch.parse() == Ok(found.epoch.unwrap_or(0)));
    let upstream = &found.upstream_version;
    let full = match &found.debian_revision {
        Some(revision) => format!("{upstream}-{revision}"),
        None => upstream.clone(),
    };
    let begins = upstream
        .strip_prefix(rest)
        .is_some_and(|tail| tail.is_empty() || tail.starts_with(['.', '+']));
    same_epoch && (full == rest || begins)
}

fn locked<T>(
    universe: &Universe,
    chosen: &[u32],
    place: &Spanned<T>,
) -> Result<Vec<LockedDeb>, Problems> {
    let mut debs = Vec::new();
    let mut problems = Problems::default();
    for &index in chosen {
        let package = universe.package(index);
        match Digest::from_hex(&package.sha256) {
            Ok(sha256) if !package.filename.is_empty() => debs.push(LockedDeb {
                package: package.name.to_string(),
                version: package.version.to_string(),
                architecture: package.architecture.to_string(),
                sha256,
                size: package.size,
                path: package.filename.to_string(),
                suite: universe.suites[usize::from(package.suite)].clone(),
            }),
            _ => problems.0.push(no_resolution(
                place,
                format!(
                    "the archive tells no SHA-256 hash or path of {} {}",
                    package.name, package.version
                ),
                "needs this package",
            )),
        }
    }
    debs.sort_by(|a, b| a.package.cmp(&b.package));
    problems.or(debs)
}

fn interpreter(debs: &[LockedDeb], request: &BaseRequest<'_>) -> Result<LockedPython, Problems> {
    let upstream_of = |name: &str| {
        let deb = debs.iter().find(|deb| deb.package == name)?;
        Some(upstream(&deb.version))
    };
    let numbers = |text: &str| -> Option<(u16, u16)> {
        let mut parts = text.split(['.', '+', '~']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let default = upstream_of("python3").and_then(|text| numbers(&text));
    let glibc = upstream_of("libc6").and_then(|text| numbers(&text));
    let (Some((major, minor)), Some(glibc)) = (default, glibc) else {
        return Err(one(no_resolution(
            request.suite,
            format!(
                "the packages of {} have no readable Python and libc6 versions",
                request.suite.value
            ),
            "this suite cannot be a base",
        )));
    };
    let full = upstream_of(&format!("python{major}.{minor}"));
    let full = full.unwrap_or_else(|| format!("{major}.{minor}"));
    let minor = PythonMinor {
        major: u8::try_from(major).unwrap_or(u8::MAX),
        minor: u8::try_from(minor).unwrap_or(u8::MAX),
    };
    if let Some(wanted) = request.python.filter(|wanted| wanted.value != minor) {
        let suite = &request.suite.value;
        let message = format!("{suite} has Python {minor}, not {}", wanted.value);
        let problem = no_resolution(wanted, message, "not in this suite");
        return Err(one(problem.help(format!(
            "write `python \"{minor}\"`, take another suite, or begin with an image that has it: `from \"…\"`"
        ))));
    }
    Ok(LockedPython {
        path: format!("/usr/bin/python{minor}"),
        minor,
        full: full.split(['+', '~']).next().unwrap_or(&full).to_owned(),
        glibc,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_full_or_upstream_or_a_beginning_of_it() {
        for (wanted, found, expected) in [
            ("2:9.0.1378-2", "2:9.0.1378-2", true),
            ("9.0.1378-2", "2:9.0.1378-2", true),
            ("9.0.1378", "2:9.0.1378-2", true),
            ("2:9.0", "2:9.0.1378-2", true),
            ("9.0", "2:9.0.1378-2", true),
            ("9", "2:9.0.1378-2", true),
            ("1:9.0", "2:9.0.1378-2", false),
            ("0:1.0", "1.0-1", true),
            ("9.0.13", "2:9.0.1378-2", false),
            ("9.0.1378-1", "2:9.0.1378-2", false),
            ("1.2", "1.2+dfsg-1", true),
            ("1.2", "1.2~rc1-1", false),
            ("3", "3", true),
        ] {
            let version = found.parse().unwrap();
            assert_eq!(
                matches_version(wanted, &version),
                expected,
                "{wanted} {found}"
            );
        }
    }
}
