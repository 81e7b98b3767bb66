//! What the tests of this binary share.

use std::collections::BTreeMap;
use std::path::Path;

use imagewright::diagnostic::{Problems, SourceText};
use imagewright::manifest::{self, Manifest, ProjectFiles};

/// Project files in memory.
#[derive(Default)]
pub struct Files(pub BTreeMap<String, String>);

impl ProjectFiles for Files {
    fn read(&self, path: &str) -> Result<String, String> {
        self.0
            .get(path)
            .cloned()
            .ok_or_else(|| "no such file".into())
    }
}

/// Reads a case: the manifest, then files that begin with a line `//// PATH`.
pub fn split(case: &str) -> (String, Files) {
    let mut parts = case.split("//// ");
    let manifest = parts.next().unwrap_or_default().to_owned();
    let files = parts.filter_map(|part| part.split_once('\n'));
    let files = files.map(|(path, text)| (path.trim().to_owned(), text.to_owned()));
    (manifest, Files(files.collect()))
}

/// Parses a text under the usual name.
pub fn parse(text: &str, files: &Files) -> Result<Manifest, Problems> {
    manifest::parse(&SourceText::new("imagewright.kdl", text), files)
}

/// The folder of the data files.
pub fn data(folder: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/manifest")
        .join(folder)
}

/// Asserts that every span lies on character boundaries of its text.
pub fn spans_are_sound(problems: &Problems) {
    assert!(!problems.0.is_empty(), "an error without problems");
    for problem in &problems.0 {
        for (span, label) in &problem.labels {
            let found = problem
                .source_text
                .text
                .get(span.start..span.start + span.len);
            assert!(found.is_some(), "{problem}: {span:?} {label}");
        }
    }
}
