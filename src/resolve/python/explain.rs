//! The resolver's failures in the terms of the manifest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use uv_distribution_types::RequirementSource;
use uv_normalize::PackageName;
use uv_pep440::{Version, VersionSpecifiers};
use uv_resolver::{NoSolutionError, ResolveError};

use super::PythonError;
use super::listing::{Lister, Listing, NoListing};
use super::notes::no_usable;
use super::request::{Input, Line, Role};
use super::wheels_only::Seen;
use crate::ambient::redact;
use crate::diagnostic::{Kind, Problem, Problems, SourceText};

/// Plain reasons that need no derivation: an unknown package, no wheel, no upload times, no access, no network.
pub(super) async fn plain_reason(
    error: &NoSolutionError,
    seen: &Seen,
    lister: &Lister<'_>,
) -> Option<PythonError> {
    if let Some(refused) = refused_access(lister) {
        return Some(refused);
    }
    let packages: BTreeSet<_> = error.packages().cloned().collect();
    let mut problems = Problems::default();
    for name in &packages {
        let mut limits = Vec::new();
        let reason = match lister.list(name).await {
            Ok(listing) if undated(&listing, lister) => return Some(no_dates(name, lister.input)),
            Ok(listing) => no_wheel(name, &listing, &packages, seen, lister).map(|what| {
                limits = limiting(name, &listing, lister.input);
                (format!("the requirements need {what}"), NO_WHEEL)
            }),
            Err(NoListing::Unknown) => {
                Some((format!("no index has a package named `{name}`"), UNKNOWN))
            }
            Err(NoListing::Offline) => {
                return Some(PythonError::Offline {
                    what: format!("package {name}"),
                });
            }
            Err(NoListing::Failed) => None,
        };
        if let Some((message, help)) = reason
            && let Some(mut problem) = needed(name, message, help, seen, lister)
        {
            limits.retain(|line| {
                let main = problem
                    .labels
                    .iter()
                    .any(|(span, _)| *span == line.text.span);
                Arc::ptr_eq(&line.text.source, &problem.source_text) && !main
            });
            for line in limits {
                problem = problem.also(line.text.span, "rules out releases that have a wheel");
            }
            problems.0.push(problem);
        }
    }
    (!problems.0.is_empty()).then_some(PythonError::NoSolution { problems })
}

const UNKNOWN: &str =
    "check the spelling; if it is on a private index, declare that with an `index` node";
const NO_WHEEL: &str = "imagewright builds nothing: take a version that has a wheel (a `constraint` can choose one), or build a wheel and name it with `wheel=`";

fn refused_access(lister: &Lister<'_>) -> Option<PythonError> {
    let refusal = |index: &uv_distribution_types::IndexUrl| {
        if lister.capabilities.unauthorized(index) {
            Some("401 Unauthorized")
        } else if lister.capabilities.forbidden(index) {
            Some("403 Forbidden")
        } else {
            None
        }
    };
    lister.input.locations.known_indexes().find_map(|index| {
        Some(PythonError::Unauthorised {
            status: refusal(&index.url)?.into(),
            index: redact(index.url.url().as_str()),
        })
    })
}

/// With `exclude-newer`, an index without upload times has nothing to offer.
fn undated(listing: &Listing, lister: &Lister<'_>) -> bool {
    let mut releases = listing.0.values();
    lister.input.exclude_newer.is_some() && !listing.0.is_empty() && releases.all(|one| one.undated)
}

fn no_dates(name: &PackageName, input: &Input) -> PythonError {
    let problems = input.exclude_newer.as_ref().map(|(limit, _)| {
        Problem::new(
            &limit.source,
            limit.span,
            format!("the index tells no upload times for `{name}`, so exclude-newer cannot be applied"),
            "needs upload times",
        )
        .kind(Kind::NoResolution)
        .help("use an index with the JSON simple API (PEP 700), or remove exclude-newer and rely on the lock")
    });
    PythonError::NoSolution {
        problems: Problems(problems.into_iter().collect()),
    }
}

/// Says that every release of `name` that anybody in the conflict asks for lacks a usable wheel.
fn no_wheel(
    name: &PackageName,
    listing: &Listing,
    packages: &BTreeSet<PackageName>,
    seen: &Seen,
    lister: &Lister<'_>,
) -> Option<String> {
    let mut asked: Vec<VersionSpecifiers> = Vec::new();
    let mut add = |source: &RequirementSource| {
        if let RequirementSource::Registry { specifier, .. } = source {
            asked.push(specifier.clone());
        }
    };
    for line in &lister.input.lines {
        if line.requirement.name == *name && line.role == Role::Requirement {
            add(&line.requirement.source);
        }
    }
    for package in packages {
        for (_, requires) in seen.versions(package) {
            for requirement in requires.iter().filter(|one| one.name == *name) {
                add(&requirement.source);
            }
        }
    }
    no_usable(listing, name, lister, |version| {
        asked.is_empty() || asked.iter().any(|specifiers| specifiers.contains(version))
    })
}

/// The lines that rule out releases of `name` which have a usable wheel.
fn limiting<'a>(name: &PackageName, listing: &Listing, input: &'a Input) -> Vec<&'a Line> {
    let usable = listing.0.iter().filter(|(_, release)| release.usable);
    let usable: Vec<_> = usable.map(|(version, _)| version).collect();
    let lines = input.lines.iter().filter(|line| {
        let excludes = |all: &VersionSpecifiers| usable.iter().any(|one| !all.contains(one));
        line.requirement.name == *name && line.specifiers().is_some_and(excludes)
    });
    lines.collect()
}

/// A problem about `name` at the line that leads to it, with the chain of who needs it.
fn needed(
    name: &PackageName,
    message: String,
    help: &str,
    seen: &Seen,
    lister: &Lister<'_>,
) -> Option<Problem> {
    let (line, chain) = chain(name, seen, lister)?;
    let label = match chain.as_slice() {
        [] | [_] => "asked for here".to_owned(),
        more => format!("needs it: {}", more.join(" → ")),
    };
    let text = &line.text;
    let problem = Problem::new(&text.source, text.span, message, label);
    Some(problem.kind(Kind::NoResolution).help(help))
}

/// The shortest way from a requirement of the manifest to `name`: the line, and the packages on the way.
fn chain<'a>(
    name: &PackageName,
    seen: &Seen,
    lister: &Lister<'a>,
) -> Option<(&'a Line, Vec<String>)> {
    let mut needed_by = BTreeMap::<PackageName, BTreeSet<PackageName>>::new();
    for package in seen.packages() {
        for (_, requires) in seen.versions(&package) {
            for requirement in requires.iter() {
                let users = needed_by.entry(requirement.name.clone()).or_default();
                users.insert(package.clone());
            }
        }
    }
    let direct = |name: &PackageName| {
        let mut lines = lister.input.lines.iter();
        lines.find(|line| line.role == Role::Requirement && line.requirement.name == *name)
    };
    let mut queue = VecDeque::from([vec![name.clone()]]);
    let mut visited = BTreeSet::new();
    while let Some(path) = queue.pop_front() {
        let last = path.last()?;
        if !visited.insert(last.clone()) {
            continue;
        }
        if let Some(line) = direct(last) {
            let names = path.iter().rev().map(ToString::to_string).collect();
            return Some((line, names));
        }
        for user in needed_by.get(last).into_iter().flatten() {
            let mut longer = path.clone();
            longer.push(user.clone());
            queue.push_back(longer);
        }
    }
    None
}

/// The lines whose packages take part in a conflict.
pub(super) fn suspects(error: &NoSolutionError, input: &Input) -> Vec<usize> {
    let packages: BTreeSet<_> = error.packages().cloned().collect();
    let lines = input.lines.iter().enumerate();
    lines
        .filter(|(_, line)| packages.contains(&line.requirement.name))
        .map(|(position, _)| position)
        .collect()
}

/// A conflict between the lines at `positions`: one problem per text file that holds some of them.
pub(super) fn conflict(
    error: &NoSolutionError,
    positions: &[usize],
    seen: &Seen,
    input: &Input,
) -> PythonError {
    let lines: Vec<&Line> = positions
        .iter()
        .filter_map(|at| input.lines.get(*at))
        .collect();
    let reason = match in_our_terms(error.report()) {
        long if long.len() > LONGEST_REASON => summary(&lines, seen, input).unwrap_or(long),
        short => short,
    };
    let mut files: Vec<Arc<SourceText>> = Vec::new();
    for line in &lines {
        if !files
            .iter()
            .any(|file| Arc::ptr_eq(file, &line.text.source))
        {
            files.push(Arc::clone(&line.text.source));
        }
    }
    let problems = files.iter().enumerate().map(|(number, file)| {
        let mut labels: Vec<_> = lines
            .iter()
            .filter(|line| Arc::ptr_eq(&line.text.source, file))
            .map(|line| (line.text.span, label(line)))
            .collect();
        labels.sort();
        Problem {
            kind: Kind::NoResolution,
            message: match number {
                0 => format!("the requirements cannot be met together: {reason}"),
                _ => "these lines take part in the same conflict".into(),
            },
            source_text: Arc::clone(file),
            labels,
            help: (number == 0).then(|| help(&lines)),
        }
    });
    PythonError::NoSolution {
        problems: Problems(problems.collect()),
    }
}

/// A derivation that goes through many releases fills pages and helps nobody.
const LONGEST_REASON: usize = 500;

/// What the newest releases that were tried need of each other, where that runs from one line to another.
fn summary(lines: &[&Line], seen: &Seen, input: &Input) -> Option<String> {
    let mut needs = BTreeSet::new();
    for line in lines {
        let name = &line.requirement.name;
        let allowed = |version: &Version| {
            let mut own = lines.iter().filter(|line| line.requirement.name == *name);
            own.all(|line| line.specifiers().is_none_or(|all| all.contains(version)))
        };
        let versions = seen.versions(name);
        let Some((version, requires)) = versions.iter().rev().find(|(one, _)| allowed(one)) else {
            continue;
        };
        let markers = Some(&input.target.markers);
        let applying = requires
            .iter()
            .filter(|one| one.evaluate_markers(markers, &[]));
        for requirement in applying {
            let other = |line: &&Line| line.requirement.name == requirement.name;
            if requirement.name != *name && lines.iter().any(other) {
                needs.insert(format!(
                    "{name} {version} needs {}{}",
                    requirement.name, requirement.source
                ));
            }
        }
    }
    let demands: Vec<_> = lines.iter().map(|line| line.text.pep508.as_str()).collect();
    let needs: Vec<_> = needs.into_iter().collect();
    (!needs.is_empty()).then(|| {
        format!(
            "{}, and no other release fits {}",
            needs.join(" and "),
            demands.join(" together with ")
        )
    })
}

fn label(line: &Line) -> String {
    let what = match line.role {
        Role::Requirement => "required",
        Role::Constraint => "constrained",
        Role::Override => "overridden",
    };
    format!("{what} here: {}", line.text.pep508)
}

fn help(lines: &[&Line]) -> String {
    match lines {
        [one] => format!(
            "loosen the version of `{}`, or use `override` if a package declares a limit that it does not need",
            one.requirement.name
        ),
        _ => "loosen or remove one of these lines, or use `override` if a package declares a limit that it does not need".into(),
    }
}

/// Failures that are not conflicts.
pub(super) fn failure(error: &ResolveError, input: &Input) -> PythonError {
    match error {
        ResolveError::Client(error) => client_failure(error),
        ResolveError::Distribution(error) => distribution_failure(error, ""),
        ResolveError::Dist(_, dist, _, error) => distribution_failure(error, &dist.to_string()),
        ResolveError::Dependencies(inner, ..) => failure(inner, input),
        ResolveError::ConflictingUrls { package_name, .. }
        | ResolveError::ConflictingIndexesForEnvironment { package_name, .. } => {
            two_sources(package_name, input)
        }
        ResolveError::ConflictingIndexes(package_name, ..) => two_sources(package_name, input),
        ResolveError::DisallowedUrl { name, url } => undeclared_url(name, url, input),
        other => PythonError::Internal {
            reason: plain(&other.to_string()),
        },
    }
}

fn two_sources(name: &PackageName, input: &Input) -> PythonError {
    let mut lines = input
        .lines
        .iter()
        .filter(|line| line.requirement.name == *name);
    let Some(first) = lines.next() else {
        return PythonError::Internal {
            reason: format!("`{name}` is to come from two places"),
        };
    };
    let message = format!("`{name}` is to come from two places at once");
    let mut problem = Problem::new(&first.text.source, first.text.span, message, "from here")
        .kind(Kind::NoResolution)
        .help("let all lines of one package name the same index, URL or wheel");
    for line in lines.filter(|line| Arc::ptr_eq(&line.text.source, &first.text.source)) {
        problem = problem.also(line.text.span, "and from here");
    }
    PythonError::NoSolution {
        problems: Problems(vec![problem]),
    }
}

fn undeclared_url(name: &PackageName, url: &str, input: &Input) -> PythonError {
    let first = input
        .lines
        .iter()
        .find(|line| line.role == Role::Requirement);
    let problem = first.map(|line| {
        Problem::new(
            &line.text.source,
            line.text.span,
            format!(
                "a package needs `{name}` from the URL {}, which the manifest does not name",
                redact(url)
            ),
            "among these requirements",
        )
        .kind(Kind::NoResolution)
        .help(format!(
            "if that is meant, add `pip \"{name} @ {}\"`",
            redact(url)
        ))
    });
    PythonError::NoSolution {
        problems: Problems(problem.into_iter().collect()),
    }
}

fn distribution_failure(error: &uv_distribution::Error, dist: &str) -> PythonError {
    match error {
        uv_distribution::Error::Client(error) => client_failure(error),
        uv_distribution::Error::Reqwest(error) => {
            request_failure(dist, error.inner(), &error.to_string())
        }
        uv_distribution::Error::CacheRead(error) | uv_distribution::Error::CacheWrite(error) => {
            PythonError::Cache {
                reason: error.to_string(),
            }
        }
        other => PythonError::Unreadable {
            what: plain(dist),
            reason: innermost(other),
        },
    }
}

fn client_failure(error: &uv_client::Error) -> PythonError {
    use uv_client::ErrorKind;
    match error.kind() {
        ErrorKind::WrappedReqwestError(url, error) => {
            request_failure(&redact(url.as_str()), error.inner(), &innermost(error))
        }
        ErrorKind::AsyncHttpRangeReader(url, error) => PythonError::Unreachable {
            url: redact(url.as_str()),
            reason: innermost(error),
        },
        ErrorKind::Offline(what) => PythonError::Offline {
            what: match url::Url::parse(what) {
                Ok(_) => redact(what),
                Err(_) => plain(what),
            },
        },
        ErrorKind::CacheWrite(_) | ErrorKind::CacheLock(_) | ErrorKind::Io(_) => {
            PythonError::Cache {
                reason: innermost(error.kind()),
            }
        }
        other => PythonError::Unreadable {
            what: "an answer of the Python index".into(),
            reason: innermost(other),
        },
    }
}

fn request_failure(url: &str, error: Option<&reqwest::Error>, reason: &str) -> PythonError {
    match error.and_then(reqwest::Error::status) {
        Some(status) if matches!(status.as_u16(), 401 | 403 | 407) => PythonError::Unauthorised {
            index: url.into(),
            status: status.to_string(),
        },
        Some(status) => PythonError::Unreachable {
            url: url.into(),
            reason: format!("it answered {status}"),
        },
        None => PythonError::Unreachable {
            url: url.into(),
            reason: plain(reason),
        },
    }
}

/// The innermost cause's message: the outer ones name the URL again.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    plain(&last.to_string())
}

/// The resolver's derivation, without colours, flags and words that only its own command has.
fn in_our_terms(report: &str) -> String {
    let mut joined = String::new();
    let mut in_list = false;
    for line in report.lines() {
        let item = line.starts_with("    ");
        joined.push_str(if item && in_list { ", " } else { " " });
        joined.push_str(line);
        in_list = item;
    }
    let mut text = without_markers(&plain(&joined)).replace(" , ", ", ");
    for (theirs, ours) in [
        ("your requirements", "the manifest's requirements"),
        ("you require", "the manifest requires"),
        (" and building from source is disabled", ""),
    ] {
        text = text.replace(theirs, ours);
    }
    text
}

/// `numpy{python_full_version < '3.12'}>=1.23` → `numpy>=1.23`: the platform is known.
fn without_markers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((_, behind)) = after.split_once('}') else {
            break;
        };
        out.push_str(before);
        rest = behind;
    }
    out + rest
}

/// Without ANSI escape sequences; white space runs become one space; user info of URLs is removed.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // CSI: up to the final byte, ECMA-48 section 5.4.
            let _ = rest.find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    let words: Vec<_> = out.split_whitespace().map(without_user_info).collect();
    words.join(" ")
}

fn without_user_info(word: &str) -> String {
    match word.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            match rest[..authority].rfind('@') {
                Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
                None => word.to_owned(),
            }
        }
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_user_info_go() {
        let text = "\u{1b}[36mnumpy\u{1b}[39m from\n  `https://me:pw@host/simple` failed";
        assert_eq!(plain(text), "numpy from `https://host/simple` failed");
    }

    #[test]
    fn lists_and_markers_read_well() {
        let report = "Because all of:\n    a<1\n    a>2\ndepend on b{python_full_version < '3.12'}>=1, your requirements are unsatisfiable.";
        assert_eq!(
            in_our_terms(report),
            "Because all of: a<1, a>2 depend on b>=1, the manifest's requirements are unsatisfiable."
        );
    }
}
