//! Figures, what follows from them, and what could not be measured; as a table for people and JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::process::{Measured, Outcome};

/// Repetitions of one measurement.
#[derive(Clone, Debug, Serialize)]
struct Row {
    key: &'static str,
    what: String,
    /// Seconds.
    median: f64,
    min: f64,
    max: f64,
    samples: Vec<f64>,
    /// The largest resident set of all repetitions, in MB (10^6 bytes).
    peak_mb: Option<f64>,
}

/// A bound that a figure must keep.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Only for information.
    None,
}

/// A ratio or figure, and whether it keeps its bound.
#[derive(Clone, Debug, Serialize)]
struct Verdict {
    what: &'static str,
    value: f64,
    unit: &'static str,
    target: Option<String>,
    met: Option<bool>,
}

#[derive(Clone, Debug, Serialize)]
struct Skipped {
    step: String,
    reason: String,
}

/// Everything of one run of the harness.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    processors: usize,
    /// Whether only some parts are measured, so that other figures are not missing.
    partial: bool,
    notes: Vec<String>,
    figures: Vec<Row>,
    verdicts: Vec<Verdict>,
    skipped: Vec<Skipped>,
}

impl Report {
    /// An empty report of a machine with so many processors, of all parts or only some.
    pub fn new(processors: usize, partial: bool) -> Self {
        Self {
            processors,
            partial,
            ..Self::default()
        }
    }

    /// Does one step; a failure is recorded with its reason, and the rest goes on.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Outcome<T>) -> Option<T> {
        eprintln!("{name} …");
        work(self)
            .map_err(|reason| {
                eprintln!("{name}: skipped: {reason}");
                self.skipped.push(Skipped {
                    step: name.to_owned(),
                    reason,
                });
            })
            .ok()
    }

    /// Adds a line of explanation.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Records repetitions of a command.
    pub fn measured(&mut self, key: &'static str, what: &str, samples: &[Measured]) {
        let walls = samples.iter().map(|sample| sample.wall).collect();
        let peak = samples.iter().map(|sample| sample.peak_kib).max();
        self.times(key, what, walls, peak);
    }

    /// Records repetitions; `peak` in KiB.
    pub fn times(
        &mut self,
        key: &'static str,
        what: &str,
        mut walls: Vec<Duration>,
        peak: Option<u64>,
    ) {
        let samples = walls.iter().map(Duration::as_secs_f64).collect();
        walls.sort();
        let (Some(min), Some(max)) = (walls.first(), walls.last()) else {
            return;
        };
        let median = (walls[(walls.len() - 1) / 2] + walls[walls.len() / 2]) / 2;
        let row = Row {
            key,
            what: what.to_owned(),
            median: median.as_secs_f64(),
            min: min.as_secs_f64(),
            max: max.as_secs_f64(),
            samples,
            peak_mb: peak.map(|kib| kib as f64 * 1024.0 / 1e6),
        };
        eprintln!("    {what}: {}", time(row.median));
        self.figures.push(row);
    }

    /// The median of a figure, in seconds.
    pub fn median(&self, key: &str) -> Option<f64> {
        Some(self.row(key)?.median)
    }

    fn row(&self, key: &str) -> Option<&Row> {
        self.figures.iter().find(|row| row.key == key)
    }

    /// Judges the median of `over` divided by the one of `under`, where both were measured.
    pub fn ratio(&mut self, what: &'static str, over: &str, under: &str, target: Target) {
        let value = self
            .median(over)
            .zip(self.median(under))
            .map(|(over, under)| over / under);
        self.judge(what, value, "x", target);
    }

    /// Judges the peak memory of a figure, in MB.
    pub fn peak(&mut self, what: &'static str, key: &str, target: Target) {
        let value = self.row(key).and_then(|row| row.peak_mb);
        self.judge(what, value, "MB", target);
    }

    /// Judges the median of a figure, in milliseconds.
    pub fn milliseconds(&mut self, what: &'static str, key: &str, target: Target) {
        let value = self.median(key).map(|seconds| seconds * 1e3);
        self.judge(what, value, "ms", target);
    }

    /// Judges a figure, where it was measured.
    pub fn judge(
        &mut self,
        what: &'static str,
        value: Option<f64>,
        unit: &'static str,
        target: Target,
    ) {
        let Some(value) = value else {
            if !self.partial {
                self.skipped.push(Skipped {
                    step: format!("ratio: {what}"),
                    reason: "one of its figures was not measured".into(),
                });
            }
            return;
        };
        let (target, met) = match target {
            Target::AtLeast(bound) => (Some(format!(">= {bound:.2}")), Some(value >= bound)),
            Target::AtMost(bound) => (Some(format!("<= {bound:.2}")), Some(value <= bound)),
            Target::None => (None, None),
        };
        self.verdicts.push(Verdict {
            what,
            value,
            unit,
            target,
            met,
        });
    }

    /// The report for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = writeln!(text, "\n{} processors", self.processors);
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        let _ = writeln!(
            text,
            "\n{:<66} {:>9} {:>9} {:>9} {:>3} {:>9}",
            "figure", "median", "min", "max", "n", "peak MB"
        );
        for row in &self.figures {
            let peak = row
                .peak_mb
                .map_or(String::new(), |peak| format!("{peak:.0}"));
            let _ = writeln!(
                text,
                "{:<66} {:>9} {:>9} {:>9} {:>3} {peak:>9}",
                row.what,
                time(row.median),
                time(row.min),
                time(row.max),
                row.samples.len(),
            );
        }
        let _ = writeln!(text, "\n{:<66} {:>12} {:>12}", "ratio", "value", "must be");
        for verdict in &self.verdicts {
            let met = match verdict.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            let value = format!("{:.2} {}", verdict.value, verdict.unit);
            let target = verdict.target.as_deref().unwrap_or("");
            let _ = writeln!(text, "{:<66} {value:>12} {target:>12} {met}", verdict.what);
        }
        if !self.skipped.is_empty() {
            let _ = writeln!(text, "\nskipped");
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "{}: {}", skipped.step, skipped.reason);
        }
        text
    }

    /// The report for programs.
    ///
    /// # Errors
    /// Never for figures that were measured.
    pub fn json(&self) -> Outcome<String> {
        serde_json::to_string_pretty(self).map_err(|error| error.to_string())
    }
}

fn time(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}
