//! Aligned plain text: no colours, no terminal control, any width of characters.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use crate::diagnostic::is_wild;
use crate::run::{Results, Summary, TestCase};

/// Columns of a message that are shown; the JSON document has all of it.
const MESSAGE_WIDTH: usize = 60;

/// One row per test case.
pub fn cases_table(runs: &[Results]) -> String {
    let mut rows = vec![
        [
            "RUN", "TEST", "BATCH", "FEATURES", "STATUS", "SEVERITY", "TIME", "MESSAGE",
        ]
        .map(str::to_owned),
    ];
    for run in runs {
        rows.extend(
            run.cases
                .iter()
                .map(|case| case_row(&run.summary.name, case)),
        );
    }
    align(&rows, &[])
}

fn case_row(run: &str, case: &TestCase) -> [String; 8] {
    let message = case.message.as_deref().unwrap_or("");
    [
        neutral(run),
        neutral(&case.name),
        neutral(&case.test_batch_type),
        neutral(&case.features.join(", ")),
        case.status.as_str().into(),
        case.severity.as_str().into(),
        case.duration_ms.map_or_else(String::new, duration),
        shorten(
            &neutral(message.lines().next().unwrap_or("")),
            MESSAGE_WIDTH,
        ),
    ]
}

/// One row per run.
pub fn summary_table(runs: &[Results]) -> String {
    let mut rows = vec![
        [
            "RUN", "PROJECT", "STATE", "CASES", "PASS", "WARNING", "FAIL", "SKIP", "TIME", "JOB",
            "REASON",
        ]
        .map(str::to_owned),
    ];
    rows.extend(runs.iter().map(|run| summary_row(&run.summary)));
    align(&rows, &[3, 4, 5, 6, 7])
}

fn summary_row(summary: &Summary) -> [String; 11] {
    let time = match (summary.started_ms, summary.ended_ms) {
        (Some(start), Some(end)) => duration(u64::try_from(end - start).unwrap_or(0)),
        _ => String::new(),
    };
    [
        neutral(&summary.name),
        neutral(&summary.project),
        summary.state.as_str().into(),
        summary.total.to_string(),
        summary.pass.to_string(),
        summary.warning.to_string(),
        summary.fail.to_string(),
        summary.skip.to_string(),
        time,
        neutral(&summary.test_run_id),
        shorten(
            &neutral(summary.reason.as_deref().unwrap_or("")),
            MESSAGE_WIDTH,
        ),
    ]
}

/// A length of time for people: `12 ms`, `8.2 s`, `3 min 5 s`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// Rows in columns; `right` are those that are aligned to the right.
pub fn align<const N: usize>(rows: &[[String; N]], right: &[usize]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.width());
            let gap = if column == 0 { "" } else { "  " };
            // Writing to a string cannot fail.
            let _ = if right.contains(&column) {
                write!(line, "{gap}{padding}{cell}")
            } else {
                write!(line, "{gap}{cell}{padding}")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// At most `width` columns of `text`, with a sign that there is more.
pub fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for character in text.chars() {
        if short.width() + 2 > width {
            break;
        }
        short.push(character);
    }
    short + "…"
}

/// `text` with everything escaped that could steer a terminal, break a line, reorder or hide text.
pub fn neutral(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_wild(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Severity, Status};
    use crate::store::JobState;

    fn results(cases: Vec<TestCase>) -> Results {
        let mut summary = Summary {
            reason: Some("exit code 1".into()),
            started_ms: Some(1000),
            ended_ms: Some(3500),
            ..Summary::new("j1", "titanic[seed=1]", "fraud", JobState::Failed)
        };
        summary.count(&cases);
        Results {
            version: 1,
            summary,
            cases,
            files: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn case(name: &str, message: &str) -> TestCase {
        TestCase {
            test_run_id: "j1".into(),
            features: vec!["age".into()],
            test_batch_type: "Missing".into(),
            name: name.into(),
            status: Status::Fail,
            severity: Severity::Low,
            message: Some(message.into()),
            duration_ms: Some(12),
        }
    }

    #[test]
    fn aligns_by_width_on_the_screen() {
        let table = cases_table(&[results(vec![case("データ", "no"), case("ascii", "yes")])]);
        assert_eq!(
            table,
            "RUN              TEST    BATCH    FEATURES  STATUS  SEVERITY  TIME   MESSAGE\n\
             titanic[seed=1]  データ  Missing  age       FAIL    LOW       12 ms  no\n\
             titanic[seed=1]  ascii   Missing  age       FAIL    LOW       12 ms  yes\n"
        );
        let table = summary_table(&[results(vec![case("a", "")])]);
        assert_eq!(
            table,
            "RUN              PROJECT  STATE   CASES  PASS  WARNING  FAIL  SKIP  TIME   JOB  REASON\n\
             titanic[seed=1]  fraud    FAILED      1     0        0     1     0  2.5 s  j1   exit code 1\n"
        );
    }

    #[test]
    fn steers_no_terminal() {
        let hostile = "a\u{1b}[2J\u{1b}]0;title\u{7}\rb\u{202e}c\u{9b}31m\u{200b}";
        let table = cases_table(&[results(vec![case(hostile, &format!("x{hostile}\nsecond"))])]);
        assert_eq!(table.lines().count(), 2);
        assert!(
            !table.chars().any(|c| c.is_control() && c != '\n'),
            "{table:?}"
        );
        assert!(table.contains(r"a\u{1b}[2J\u{1b}]0;title\u{7}\rb\u{202e}c\u{9b}31m\u{200b}"));
        assert!(!table.contains("second"));
        let long = cases_table(&[results(vec![case("a", &"ü".repeat(1000))])]);
        assert!(long.lines().all(|line| line.width() < 140));
    }
}
