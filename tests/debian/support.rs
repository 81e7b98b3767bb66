//! What the tests of this binary share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imagewright::ambient::Ambient;
use imagewright::diagnostic::{SourceText, Span};
use imagewright::http::Http;
use imagewright::manifest::{OsRequirement, Spanned};
use imagewright::progress::Silent;
use imagewright::resolve::debian::{ArchiveError, ArchiveSpec, Outside, Universe, load};
use imagewright::store::Store;

pub use crate::command::run;
pub use crate::mirror::SUITE;

/// Kept between test runs.
pub fn cache(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/test-cache")
        .join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

/// The store that keeps downloads between test runs.
pub fn shared_store() -> Store {
    Store::open(&cache("store")).unwrap()
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs() as i64
}

/// Suite → mirrors, as the host's apt sources say.
pub fn host_ambient() -> Ambient {
    let mut mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let folder = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let mut files: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
    files.push("/etc/apt/sources.list".into());
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if file
            .extension()
            .is_some_and(|extension| extension == "sources")
        {
            for stanza in text.split("\n\n") {
                let field = |name: &str| -> Vec<String> {
                    let line = stanza.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or("")
                        .split_whitespace()
                        .map(Into::into)
                        .collect()
                };
                for suite in field("Suites:") {
                    mirrors.entry(suite).or_default().extend(field("URIs:"));
                }
            }
        } else {
            for line in text.lines().filter_map(|line| line.strip_prefix("deb ")) {
                let words: Vec<&str> = line
                    .split_whitespace()
                    .filter(|word| !word.starts_with('[') && !word.ends_with(']'))
                    .collect();
                if let [url, suite, ..] = words.as_slice() {
                    mirrors
                        .entry((*suite).into())
                        .or_default()
                        .push((*url).into());
                }
            }
        }
    }
    Ambient {
        debian_mirrors: mirrors,
        debian_keyrings: vec!["/usr/share/keyrings/debian-archive-keyring.gpg".into()],
        ..Ambient::default()
    }
}

pub fn spec(updates: bool) -> ArchiveSpec {
    ArchiveSpec {
        suite: SUITE.into(),
        mirror: None,
        components: vec!["main".into()],
        keyring: None,
        updates,
    }
}

pub fn load_with(
    ambient: &Ambient,
    store: &Store,
    spec: &ArchiveSpec,
    now: i64,
    offline: bool,
) -> Result<Universe, ArchiveError> {
    let http = Http::new(ambient, offline).unwrap();
    let outside = Outside {
        http: &http,
        ambient,
        store,
        progress: &Silent,
        now,
    };
    runtime().block_on(load(outside, spec, "amd64"))
}

/// The real archive.
pub fn debian(store: &Store) -> Universe {
    load_with(&host_ambient(), store, &spec(true), now(), false).unwrap()
}

/// `os` lines as the manifest's parser gives them: `name` or `name=version`.
pub fn os(lines: &[&str]) -> Vec<Spanned<OsRequirement>> {
    let text = lines.join("\n");
    let source = SourceText::new("imagewright.kdl", text.as_str());
    let mut start = 0;
    lines
        .iter()
        .map(|line| {
            let span = Span::new(start, line.len());
            start += line.len() + 1;
            let (name, version) = match line.split_once('=') {
                Some((name, version)) => (name, Some(version.to_owned())),
                None => (*line, None),
            };
            let name = name.to_owned();
            spanned(OsRequirement { name, version }, &source, span)
        })
        .collect()
}

pub fn spanned<T>(value: T, source: &Arc<SourceText>, span: Span) -> Spanned<T> {
    Spanned {
        value,
        source: Arc::clone(source),
        span,
    }
}

pub fn suite() -> Spanned<String> {
    let source = SourceText::new("imagewright.kdl", SUITE);
    spanned(SUITE.into(), &source, Span::new(0, SUITE.len()))
}
