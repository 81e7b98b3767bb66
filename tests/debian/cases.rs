//! The solver on small archives: `cases/*.txt`, one case per `===` line.
//!
//! `name version; Field: value; …` is a package, after `installed:` one of the base; `keep:` pins of an earlier lock;
//! `ask:` the manifest's `os` lines; `base` asks for a base instead of a layer above one. `gives:` are the packages
//! locked, or else each `fails:` text stands in the diagnostic and `marks:` are the lines that it points at.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use imagewright::diagnostic::{Kind, Problems};
use imagewright::digest::Digest;
use imagewright::lock::LockedDeb;
use imagewright::resolve::debian::{
    AboveRequest, BaseRequest, Installed, Universe, resolve_above, resolve_base,
};

use crate::support::{os, suite};

#[derive(Default)]
struct Case {
    name: String,
    packages: String,
    status: String,
    keep: BTreeMap<String, String>,
    ask: Vec<String>,
    base: bool,
    gives: Option<String>,
    fails: Vec<String>,
    marks: Option<String>,
}

fn stanza(line: &str, extra: &str) -> String {
    let mut fields = line.split(';').map(str::trim);
    let (name, version) = fields.next().unwrap().split_once(' ').expect(line);
    let rest: Vec<&str> = fields.collect();
    let hash = Digest::of(line).hex();
    let mut text = format!("Package: {name}\nVersion: {version}\n{extra}");
    if !line.contains("Architecture:") {
        text += "Architecture: amd64\n";
    }
    text + &format!(
        "Filename: pool/{name}.deb\nSize: 1\nSHA256: {hash}\n{}\n",
        rest.join("\n")
    ) + if rest.is_empty() { "" } else { "\n" }
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case {
                name: name.into(),
                ..Case::default()
            });
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let case = cases.last_mut().expect("a case begins with ===");
        let list = |text: &str| -> Vec<String> {
            text.split(',').map(|one| one.trim().to_owned()).collect()
        };
        match line.split_once(": ") {
            Some(("installed", rest)) => {
                case.status += &stanza(rest, "Status: install ok installed\n");
            }
            Some(("keep", rest)) => {
                let pins = list(rest);
                let pins = pins.iter().map(|pin| pin.split_once(' ').unwrap());
                case.keep
                    .extend(pins.map(|(name, version)| (name.to_owned(), version.to_owned())));
            }
            Some(("ask", rest)) => case.ask = list(rest),
            Some(("gives", rest)) => case.gives = Some(list(rest).join(", ")),
            Some(("fails", rest)) => case.fails.push(rest.into()),
            Some(("marks", rest)) => case.marks = Some(list(rest).join(", ")),
            _ if line == "base" => case.base = true,
            _ if line == "gives:" => case.gives = Some(String::new()),
            _ => case.packages += &stanza(line, ""),
        }
    }
    cases
}

fn solve(case: &Case) -> Result<Vec<LockedDeb>, Problems> {
    let mut universe = Universe::new("amd64");
    let index = universe.add_suite("bookworm");
    universe.add_stanzas(&case.packages, index).unwrap();
    let lines: Vec<&str> = case.ask.iter().map(String::as_str).collect();
    let lines = os(&lines);
    if case.base {
        let request = BaseRequest {
            suite: &suite(),
            os: &lines,
            python: None,
        };
        return resolve_base(&universe, &request, &case.keep).map(|solution| solution.debs);
    }
    let request = AboveRequest {
        installed: Installed::Status(&case.status),
        os: &lines,
    };
    resolve_above(&universe, &request, &case.keep)
}

fn judge(case: &Case) -> Result<(), String> {
    let (problems, wanted) = match (solve(case), &case.gives) {
        (Ok(debs), wanted) => {
            let found: Vec<_> = debs
                .iter()
                .map(|deb| format!("{} {}", deb.package, deb.version))
                .collect();
            let found = found.join(", ");
            return match wanted {
                Some(wanted) if *wanted == found => Ok(()),
                wanted => Err(format!("gives {found}, not {wanted:?}")),
            };
        }
        (Err(problems), wanted) => (problems, wanted),
    };
    let mut text = String::new();
    let mut marks = Vec::new();
    for problem in &problems.0 {
        if problem.kind != Kind::NoResolution {
            return Err(format!("kind {:?}", problem.kind));
        }
        text += &format!(
            "{}\n{}\n",
            problem.message,
            problem.help.as_deref().unwrap_or("")
        );
        let source = &problem.source_text.text;
        marks.extend(
            problem
                .labels
                .iter()
                .map(|(span, _)| source[span.start..][..span.len].to_owned()),
        );
    }
    if wanted.is_some() || case.fails.is_empty() {
        return Err(format!("fails: {text}"));
    }
    let missing = case.fails.iter().find(|wanted| !text.contains(*wanted));
    let marks = marks.join(", ");
    match missing {
        Some(wanted) => Err(format!("`{wanted}` is not in: {text}")),
        None if case.marks.as_ref().is_some_and(|wanted| *wanted != marks) => {
            Err(format!("marks {marks}: {text}"))
        }
        None => Ok(()),
    }
}

#[test]
fn every_case_gives_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debian/cases");
    let mut failures = Vec::new();
    let mut count = 0;
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        for case in parse(&fs::read_to_string(&file).unwrap()) {
            count += 1;
            if let Err(reason) = judge(&case) {
                failures.push(format!("{}: {}: {reason}", file.display(), case.name));
            }
            let again = (solve(&case).ok(), solve(&case).ok());
            assert_eq!(again.0, again.1, "{}", case.name);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count >= 30, "{count} cases");
}
