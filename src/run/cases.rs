//! `cases.jsonl`: one JSON object per test case and line, for runs that do not write JUnit XML.

use serde::Deserialize;

use super::results::{BadResults, MOST_CASES, Severity, Status, TestCase, cut};

/// One line.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The test's name.
    pub name: String,
    /// `PASS`, `WARNING`, `FAIL` or `SKIP`.
    pub status: Status,
    /// `NONE`, `LOW`, `MEDIUM` or `HIGH`; omitted: `HIGH` for a failure, `MEDIUM` for a warning.
    #[serde(default)]
    pub severity: Option<Severity>,
    /// The features that it is about.
    #[serde(default)]
    pub features: Vec<String>,
    /// The kind of test.
    #[serde(default)]
    pub test_batch_type: String,
    /// What the test says.
    #[serde(default)]
    pub message: Option<String>,
    /// Milliseconds.
    #[serde(default)]
    pub duration_ms: Option<u64>,
}

/// Reads one file; empty lines are passed over.
///
/// # Errors
/// Names the line that is not such an object.
pub fn parse(file: &str, text: &[u8], test_run_id: &str) -> Result<Vec<TestCase>, BadResults> {
    let mut cases = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let fail = |reason: String| BadResults {
            file: file.into(),
            line: number + 1,
            reason,
        };
        if cases.len() == MOST_CASES {
            return Err(fail(format!("more than {MOST_CASES} test cases")));
        }
        let line: Line = serde_json::from_slice(line).map_err(|error| fail(error.to_string()))?;
        cases.push(TestCase {
            test_run_id: test_run_id.into(),
            features: line.features,
            test_batch_type: line.test_batch_type,
            name: line.name,
            status: line.status,
            severity: Severity::of(line.status, line.severity),
            message: line.message.as_deref().and_then(cut),
            duration_ms: line.duration_ms,
        });
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_and_names_bad_ones() {
        let good = b"{\"name\":\"a\",\"status\":\"PASS\"}\n\n{\"name\":\"b\",\"status\":\"FAIL\",\"severity\":\"LOW\",\"features\":[\"x\"]}";
        let cases = parse("cases.jsonl", good, "job").unwrap();
        assert_eq!(cases.len(), 2);
        assert_eq!(
            (cases[1].severity, cases[1].features.len()),
            (Severity::Low, 1)
        );
        for (bad, what) in [
            ("{\"name\":\"a\",\"status\":\"PASS\"}\n{\"name\"", "line 2"),
            ("{\"name\":\"a\",\"status\":\"MAYBE\"}", "MAYBE"),
            (
                "{\"name\":\"a\",\"status\":\"PASS\",\"colour\":1}",
                "colour",
            ),
            ("[1]", "line 1"),
            ("\u{0}", "line 1"),
        ] {
            let error = parse("cases.jsonl", bad.as_bytes(), "job").unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
        let deep = "[".repeat(1_000_000);
        assert!(parse("cases.jsonl", deep.as_bytes(), "job").is_err());
    }
}
