//! Requirements files (pip's format) → requirements and constraints. Their options cannot move the resolution:
//! indexes are the manifest's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::mistake::Mistake;
use super::model::{PipRequirement, ProjectFiles, Spanned};
use super::node::Value;
use super::report::Report;
use super::syntax::MAX_BYTES;
use super::{paths, requirement, secrets};
use crate::diagnostic::{SourceText, Span};

/// What requirements files ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Requirements {
    pub(super) pip: Vec<Spanned<PipRequirement>>,
    pub(super) constraints: Vec<Spanned<PipRequirement>>,
}

/// Reads the file that a `pip-from` names, and all that it includes.
pub(super) fn read(value: &Value, files: &dyn ProjectFiles, report: &mut Report) -> Requirements {
    let Ok(path) = paths::source(value.text()) else {
        return Requirements::default();
    };
    let mut reader = Reader {
        files,
        report,
        out: Requirements::default(),
        open: Vec::new(),
        done: BTreeSet::new(),
    };
    match reader.text(&path) {
        Ok(source) => reader.file(path, &source, false),
        Err(mistake) => value.report(mistake, reader.report),
    }
    reader.out
}

struct Reader<'a> {
    files: &'a dyn ProjectFiles,
    report: &'a mut Report,
    out: Requirements,
    /// The chain of files being read.
    open: Vec<String>,
    /// Path, and whether it was read for constraints.
    done: BTreeSet<(String, bool)>,
}

/// A line with its continuations joined, and where each byte of it stands in the file.
struct Line {
    text: String,
    offsets: Vec<usize>,
}

impl Line {
    fn span(&self, range: Range<usize>) -> Span {
        let end = *self.offsets.last().unwrap_or(&0);
        let start = self.offsets.get(range.start).copied().unwrap_or(end);
        let stop = match range.end.checked_sub(1) {
            Some(last) if !range.is_empty() => self.offsets.get(last).map_or(end, |at| at + 1),
            _ => start,
        };
        Span::new(start, stop.saturating_sub(start))
    }
}

/// A word or quoted word of a line.
#[derive(Clone)]
struct Word {
    text: String,
    range: Range<usize>,
}

impl Reader<'_> {
    fn text(&self, path: &str) -> Result<Arc<SourceText>, Mistake> {
        let help = "the path is relative to the manifest's folder, or to the requirements file that names it";
        let text = self.files.read(path).map_err(|reason| {
            Mistake::whole(
                format!("`{path}` cannot be read: {reason}"),
                "cannot be read",
            )
            .help(help)
        })?;
        if text.len() > MAX_BYTES {
            return Err(Mistake::whole(
                format!("`{path}` is larger than 4 MiB"),
                "too large",
            ));
        }
        Ok(SourceText::new(path, text))
    }

    fn file(&mut self, path: String, source: &Arc<SourceText>, constraint: bool) {
        if !self.done.insert((path.clone(), constraint)) {
            return;
        }
        self.open.push(path);
        let lines = lines(&source.text);
        let hashes_required = lines.iter().any(|line| {
            line.text
                .split_whitespace()
                .any(|word| word == "--require-hashes")
        });
        for line in &lines {
            if let Err(mistake) = self.line(line, source, constraint, hashes_required) {
                let whole = line.span(0..line.text.len());
                let mistake = mistake.or_help(|| "write a requirement such as `numpy>=1.26`, or an option such as `-r more.txt`".into());
                self.report
                    .mistake(source, whole, mistake, |range| Some(line.span(range)));
            }
        }
        self.open.pop();
    }

    fn line(
        &mut self,
        line: &Line,
        source: &Arc<SourceText>,
        constraint: bool,
        hashes_required: bool,
    ) -> Result<(), Mistake> {
        if let Some((range, what)) = secrets::in_value(&line.text) {
            return Err(Mistake::at(range, format!("the line holds {what}"), "a requirements file must not hold secrets")
                .help("remove it; imagewright takes credentials from netrc, the keyring or the environment of the machine that builds")
                .secret());
        }
        if let Some(at) = line.text.find("${") {
            let end = line.text[at..]
                .find('}')
                .map_or(line.text.len(), |len| at + len + 1);
            return Err(Mistake::at(
                at..end,
                "the line uses an environment variable",
                "would differ from machine to machine",
            )
            .help("write the value itself"));
        }
        if line.text.starts_with('-') {
            return self.option(line, source, constraint);
        }
        let (requirement, hashes) = requirement_line(&line.text)?;
        refuse_path(&line.text[..requirement])?;
        let parsed = requirement::parse(&line.text[..requirement])?;
        if constraint && !parsed.extras.is_empty() {
            return Err(Mistake::at(
                0..requirement,
                "a constraint has extras",
                "not allowed in constraints",
            )
            .help("remove the brackets"));
        }
        if hashes_required && hashes.is_empty() && !constraint {
            return Err(Mistake::at(
                0..requirement,
                "the requirement has no hash",
                "`--require-hashes` demands one",
            )
            .help("add `--hash=sha256:…` to the line"));
        }
        let span = line.span(0..requirement);
        let pip = PipRequirement {
            pep508: parsed.canonical(),
            name: parsed.name,
            index: None,
            wheel: None,
            hashes,
            constraint,
        };
        let spanned = Spanned {
            value: pip,
            source: Arc::clone(source),
            span,
        };
        if constraint {
            self.out.constraints.push(spanned)
        } else {
            self.out.pip.push(spanned)
        }
        Ok(())
    }

    fn option(
        &mut self,
        line: &Line,
        source: &Arc<SourceText>,
        constraint: bool,
    ) -> Result<(), Mistake> {
        let words = words(&line.text, 0)?;
        let Some(first) = words.first() else {
            return Ok(());
        };
        let (name, attached) = match first.text.split_once('=') {
            Some((name, value)) if first.text.starts_with("--") => {
                (name.to_owned(), Some((value, name.len() + 1)))
            }
            _ if !first.text.starts_with("--")
                && first.text.len() > 2
                && first.text.is_char_boundary(2) =>
            {
                (first.text[..2].to_owned(), Some((&first.text[2..], 2)))
            }
            _ => (first.text.clone(), None),
        };
        let value = attached
            .map(|(text, skip)| Word {
                text: text.to_owned(),
                range: first.range.start + skip..first.range.end,
            })
            .or_else(|| words.get(1).cloned());
        let refuse = |message: String, label: &str, help: &str| {
            Err(Mistake::at(first.range.start..line.text.len(), message, label).help(help))
        };
        match name.as_str() {
            "-r" | "--requirement" => self.include(&name, value, first, source, constraint),
            "-c" | "--constraint" => self.include(&name, value, first, source, true),
            "--require-hashes" | "--prefer-binary" | "--only-binary" => Ok(()),
            "-i" | "--index-url" | "--pypi-url" => refuse(
                format!("`{name}` does not belong into a requirements file"),
                "indexes are the manifest's",
                "declare it in the manifest: index \"NAME\" \"URL\" default=#true",
            ),
            "--extra-index-url" => refuse(
                format!("`{name}` does not belong into a requirements file"),
                "indexes are the manifest's",
                "declare it in the manifest: index \"NAME\" \"URL\", with explicit=#true and `pip … index=\"NAME\"` for the packages that only it serves",
            ),
            "-f" | "--find-links" | "--no-index" | "--trusted-host" | "--proxy" | "--cert"
            | "--client-cert" => refuse(
                format!("`{name}` does not belong into a requirements file"),
                "where packages come from is the manifest's",
                "declare an `index` in the manifest; certificates and proxies come from the machine's settings",
            ),
            "-e" | "--editable" => refuse(
                "an editable requirement cannot go into an image".into(),
                "editable",
                "build a wheel and write in the manifest: pip \"NAME\" wheel=\"dist/NAME-1.0-py3-none-any.whl\"",
            ),
            "--pre" => refuse(
                "`--pre` would allow pre-releases of everything".into(),
                "not supported",
                "name a pre-release in the specifier of the package that needs one, for example \"package>=2.0rc1\"",
            ),
            "--no-binary" => refuse(
                "packages are installed from wheels only".into(),
                "not supported",
                "remove the line",
            ),
            _ => refuse(
                format!("`{name}` is not an option of requirements files that imagewright knows"),
                "unknown option",
                "requirements, -r FILE, -c FILE and --hash=sha256:… may stand in a requirements file",
            ),
        }
    }

    fn include(
        &mut self,
        option: &str,
        value: Option<Word>,
        first: &Word,
        source: &Arc<SourceText>,
        constraint: bool,
    ) -> Result<(), Mistake> {
        let Some(value) = value.filter(|value| !value.text.is_empty()) else {
            return Err(Mistake::at(
                first.range.clone(),
                format!("`{option}` names no file"),
                "a path belongs here",
            )
            .help("write for example `-r base.txt`"));
        };
        let at = |mistake: Mistake| Mistake {
            range: Some(value.range.clone()),
            ..mistake
        };
        let path = beside(&source.name, &value.text).map_err(at)?;
        if self.open.contains(&path) {
            let chain: Vec<&str> = self
                .open
                .iter()
                .map(String::as_str)
                .chain([path.as_str()])
                .collect();
            let message = format!(
                "the requirements files include each other: {}",
                chain.join(" → ")
            );
            return Err(
                Mistake::at(value.range.clone(), message, "closes the circle")
                    .help("remove this line"),
            );
        }
        let included = self.text(&path).map_err(at)?;
        self.file(path, &included, constraint);
        Ok(())
    }
}

/// The path of a file that another one names.
fn beside(including: &str, named: &str) -> Result<String, Mistake> {
    if named.contains("://") {
        return Err(
            Mistake::whole("a requirements file cannot be fetched from a URL", "a URL")
                .help("copy the file into the project"),
        );
    }
    let folder = including.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in named.split('/') {
        match part {
            ".." if parts.pop().is_none() => {
                return Err(Mistake::whole(
                    format!("`{named}` leaves the project"),
                    "outside the manifest's folder",
                )
                .help("copy the file into the project"));
            }
            ".." | "." | "" => {}
            other => parts.push(other),
        }
    }
    if named.starts_with('/') {
        return Err(Mistake::whole(
            format!("`{named}` is an absolute path"),
            "outside the project",
        )
        .help("write a path relative to this file"));
    }
    paths::source(&parts.join("/"))
}

/// Where the requirement ends, and the hashes behind it.
fn requirement_line(text: &str) -> Result<(usize, Vec<String>), Mistake> {
    let Some(at) = text.find(" --").or_else(|| text.find("\t--")) else {
        return Ok((text.trim_end().len(), Vec::new()));
    };
    let mut hashes = BTreeSet::new();
    let mut expect = false;
    for word in words(&text[at..], at)? {
        let hash = match word.text.strip_prefix("--hash=") {
            Some(hash) => hash.to_owned(),
            None if word.text == "--hash" => {
                expect = true;
                continue;
            }
            None if expect => word.text.clone(),
            None => {
                return Err(Mistake::at(
                    word.range,
                    format!("`{}` may not stand behind a requirement", word.text),
                    "unknown option",
                )
                .help("only --hash=sha256:… may stand behind a requirement"));
            }
        };
        expect = false;
        if hash.parse::<crate::digest::Digest>().is_err() {
            return Err(Mistake::at(word.range, "the hash is not a SHA-256", "not `sha256:` and 64 hex digits")
                .help("write `--hash=sha256:` and 64 lower-case hex digits, as `pip hash FILE` prints them"));
        }
        hashes.insert(hash);
    }
    Ok((text[..at].trim_end().len(), hashes.into_iter().collect()))
}

fn refuse_path(text: &str) -> Result<(), Mistake> {
    let head = text
        .split(['[', ';', ' ', '<', '>', '=', '!', '~'])
        .next()
        .unwrap_or_default();
    let vcs = ["git+", "hg+", "svn+", "bzr+"]
        .iter()
        .any(|scheme| text.starts_with(scheme) || text.contains(&format!("@ {scheme}")));
    let path = head.contains('/')
        || head.starts_with('.')
        || text.contains("file://")
        || head.to_ascii_lowercase().ends_with(".whl")
        || head.ends_with(".tar.gz");
    let what = match (vcs, path) {
        (true, _) => "a version control URL",
        (_, true) if text.contains("://") => "a URL",
        (_, true) => "a path",
        _ => return Ok(()),
    };
    Err(Mistake::at(0..text.len(), format!("{what} stands where a requirement belongs"), format!("{what} is not built"))
        .help("build a wheel and write in the manifest: pip \"NAME\" wheel=\"dist/NAME-1.0-py3-none-any.whl\""))
}

/// Logical lines: continuations joined, comments and empty lines left out.
fn lines(text: &str) -> Vec<Line> {
    let mut all = Vec::new();
    let mut line = Line {
        text: String::new(),
        offsets: Vec::new(),
    };
    let mut at = 0;
    for raw in text.split_inclusive('\n') {
        let begin = at;
        at += raw.len();
        let mut body = raw.trim_end_matches(['\n', '\r']);
        let bom = if begin == 0 && body.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        body = &body[bom..];
        let comment = body.trim_start().starts_with('#');
        let continued = !comment && body.ends_with('\\');
        if continued {
            body = &body[..body.len() - 1];
        }
        if !comment {
            line.text.push_str(body);
            line.offsets
                .extend((0..body.len()).map(|i| begin + bom + i));
        }
        if !continued && !comment {
            finish(&mut line, begin + bom + body.len(), &mut all);
        }
    }
    finish(&mut line, text.len(), &mut all);
    all
}

fn finish(line: &mut Line, end: usize, all: &mut Vec<Line>) {
    let taken = std::mem::replace(
        line,
        Line {
            text: String::new(),
            offsets: Vec::new(),
        },
    );
    let comment = taken
        .text
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|at| *at == 0 || taken.text[..*at].ends_with([' ', '\t']));
    let body = &taken.text[..comment.unwrap_or(taken.text.len())];
    let start = body.len() - body.trim_start().len();
    let kept = body.trim();
    if kept.is_empty() {
        return;
    }
    let mut offsets = taken.offsets[start..start + kept.len()].to_vec();
    offsets.push(offsets.last().map_or(end, |last| last + 1));
    all.push(Line {
        text: kept.to_owned(),
        offsets,
    });
}

/// White-space separated words; quotes join, as in a shell.
fn words(text: &str, offset: usize) -> Result<Vec<Word>, Mistake> {
    let mut all: Vec<Word> = Vec::new();
    let mut current: Option<Word> = None;
    let mut quote: Option<char> = None;
    for (at, c) in text.char_indices() {
        let at = at + offset;
        if quote.is_none() && c.is_whitespace() {
            all.extend(current.take());
            continue;
        }
        let word = current.get_or_insert_with(|| Word {
            text: String::new(),
            range: at..at,
        });
        word.range.end = at + c.len_utf8();
        match quote {
            Some(open) if open == c => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            _ => word.text.push(c),
        }
    }
    if quote.is_some() {
        let range = current.map_or(offset..offset + text.len(), |word| word.range);
        return Err(Mistake::at(
            range,
            "a quote is not closed",
            "the closing quote is missing",
        ));
    }
    all.extend(current);
    Ok(all)
}

/// Requirements files that were read, by path.
pub(super) type Cache = BTreeMap<String, Requirements>;
