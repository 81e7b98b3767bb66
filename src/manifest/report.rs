//! Collects mistakes: every one once, in the order of the text, secrets blotted out of what is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mistake::Mistake;
use super::secrets;
use crate::diagnostic::{Problem, Problems, SourceText, Span, counted};

/// More mistakes than this are counted, not shown.
const MAX_SHOWN: usize = 100;

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
    hidden: Vec<(Arc<SourceText>, Span)>,
}

impl Report {
    pub(super) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Reports a mistake in the value at `span`; `within` maps the value's bytes to the file's.
    pub(super) fn mistake(
        &mut self,
        source: &Arc<SourceText>,
        span: Span,
        mistake: Mistake,
        within: impl Fn(std::ops::Range<usize>) -> Option<Span>,
    ) {
        let exact = mistake.range.and_then(within).unwrap_or(span);
        if mistake.secret {
            self.hide(source, exact);
        }
        let mut problem = Problem::new(source, exact, mistake.message, mistake.label);
        problem.help = mistake.help;
        self.problems.push(problem);
    }

    /// These bytes are never shown.
    pub(super) fn hide(&mut self, source: &Arc<SourceText>, span: Span) {
        self.hidden.push((Arc::clone(source), span));
    }

    /// All mistakes, ready to be shown.
    pub(super) fn finish(mut self) -> Problems {
        let order = self.file_order();
        let key = |problem: &Problem| {
            let span = problem
                .labels
                .first()
                .map(|(span, _)| *span)
                .unwrap_or_default();
            let file = order
                .get(&problem.source_text.name)
                .copied()
                .unwrap_or_default();
            (file, span.start, span.len, problem.message.clone())
        };
        self.problems.sort_by_cached_key(key);
        self.problems.dedup_by(|a, b| key(a) == key(b));
        let rest = self.problems.len().saturating_sub(MAX_SHOWN);
        self.problems.truncate(MAX_SHOWN);
        if rest > 0
            && let Some(last) = self.problems.last_mut()
        {
            let more = format!("and {}, not shown", counted(rest, "more mistake"));
            last.help = Some(match last.help.take() {
                Some(help) => format!("{help}; {more}"),
                None => more,
            });
        }
        self.blot();
        Problems(self.problems)
    }

    fn file_order(&self) -> BTreeMap<String, usize> {
        let mut order = BTreeMap::new();
        for problem in &self.problems {
            let next = order.len();
            order
                .entry(problem.source_text.name.clone())
                .or_insert(next);
        }
        order
    }

    /// Puts stars over secrets in the texts that the problems show. Lengths in bytes stay.
    fn blot(&mut self) {
        let mut shown: BTreeMap<String, Arc<SourceText>> = BTreeMap::new();
        for problem in &mut self.problems {
            let original = &problem.source_text;
            let blotted = shown.entry(original.name.clone()).or_insert_with(|| {
                let spans = self
                    .hidden
                    .iter()
                    .filter(|(source, _)| source.name == original.name);
                blotted(original, spans.map(|(_, span)| *span))
            });
            problem.source_text = Arc::clone(blotted);
        }
    }
}

fn blotted(source: &Arc<SourceText>, hidden: impl Iterator<Item = Span>) -> Arc<SourceText> {
    let mut spans: Vec<Span> = hidden.collect();
    let mut at = 0;
    for line in source.text.split_inclusive('\n') {
        let mut from = 0;
        while let Some((range, _)) = secrets::in_value(&line[from..]) {
            spans.push(Span::new(at + from + range.start, range.len()));
            from += range.end;
        }
        at += line.len();
    }
    if spans.is_empty() {
        return Arc::clone(source);
    }
    let mut bytes = source.text.clone().into_bytes();
    for span in spans {
        let end = (span.start + span.len).min(bytes.len());
        for byte in &mut bytes[span.start.min(end)..end] {
            if *byte != b'\n' {
                *byte = b'*';
            }
        }
    }
    SourceText::new(source.name.clone(), String::from_utf8_lossy(&bytes))
}
