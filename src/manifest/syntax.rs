//! KDL text → KDL document, guarded against texts that the KDL parser could not survive.
//!
//! The parser recurses for every block and every misplaced `}`, and takes exponential time for nested `/-` blocks.
//! So size, depth and number of blocks are bounded by a scan of the text before it runs, on a stack of its own.

use std::sync::Arc;

use kdl::{KdlDiagnostic, KdlDocument};

use super::report::Report;
use super::secrets;
use crate::diagnostic::{Problem, SourceText, Span};

/// Largest manifest in bytes.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// Deepest nesting of blocks; the language itself needs three.
const MAX_DEPTH: usize = 6;

/// Deepest nesting of `/* */` comments.
const MAX_COMMENTS: usize = 16;

/// Most closing braces, in blocks, strings and comments together.
const MAX_CLOSING: usize = 100_000;

/// Most blocks, and most `/-`, of a text in which strings or comments are not closed.
const MAX_UNCLEAR: (usize, usize) = (5_000, MAX_DEPTH);

/// Reads the text; mistakes go into the report.
pub(super) fn read(source: &Arc<SourceText>, report: &mut Report) -> Option<KdlDocument> {
    if let Some(problem) = guard(source) {
        report.push(problem);
        return None;
    }
    let closing = source.text.bytes().filter(|byte| *byte == b'}').count();
    let stack = (64 << 20) + closing * 1024;
    let text = source.text.as_str();
    let parsed = std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(stack);
        let handle = worker
            .spawn_scoped(scope, || KdlDocument::parse_v2(text))
            .ok()?;
        handle.join().ok()
    });
    match parsed {
        Some(Ok(document)) => return Some(document),
        Some(Err(error)) => {
            hide_secrets(source, report);
            for diagnostic in &error.diagnostics {
                syntax_problem(source, diagnostic, report);
            }
            if error.diagnostics.is_empty() {
                report.push(Problem::new(
                    source,
                    Span::new(0, 0),
                    "the text is not KDL",
                    "here",
                ));
            }
        }
        None => report.push(Problem::new(
            source,
            Span::new(0, 0),
            "the text cannot be read as KDL",
            "here",
        )),
    }
    None
}

/// Without nodes, the values of variables with telling names are hidden by their lines alone.
fn hide_secrets(source: &Arc<SourceText>, report: &mut Report) {
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        for (at, _) in line.match_indices("env") {
            let rest = line[at + 3..].trim_start().trim_start_matches(['"', '#']);
            let len = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            if secrets::is_secret_name(&rest[..len]) {
                let value = rest[len..].trim_end();
                let offset = start + line.len() - rest.len() + len;
                report.hide(source, Span::new(offset, value.len()));
            }
        }
        start += line.len();
    }
}

fn syntax_problem(source: &Arc<SourceText>, diagnostic: &KdlDiagnostic, report: &mut Report) {
    let message = diagnostic
        .message
        .clone()
        .unwrap_or_else(|| "the text is not KDL".into());
    if message.starts_with("Closing '}' was not found after") {
        return;
    }
    let span = trimmed(
        &source.text,
        diagnostic.span.offset(),
        diagnostic.span.len(),
    );
    let found = source
        .text
        .get(span.start..span.start + span.len)
        .unwrap_or_default();
    let (message, label) = worded(&message, diagnostic.label.as_deref());
    let mut problem = Problem::new(source, span, message, label);
    problem.help = match found {
        "true" | "false" | "null" | "inf" | "nan" | "-inf" => Some(format!(
            "write `#{found}` for the keyword, or `\"{found}\"` for the text"
        )),
        "}" => Some("remove this brace, or look above for a block that is closed twice".into()),
        _ => diagnostic.help.clone(),
    };
    if problem.help.is_none() {
        problem.help = Some(
            "KDL nodes are written as `name \"argument\" property=\"value\" { children }`".into(),
        );
    }
    report.push(problem);
}

/// The parser's messages in our words.
fn worded(message: &str, label: Option<&str>) -> (String, String) {
    let expected = label.and_then(|label| label.strip_prefix("not "));
    let label = match expected {
        Some("closed") => "opened here".to_owned(),
        Some("EOF") => "nothing is open here that this could close".to_owned(),
        Some(what) => format!("not a valid {what}"),
        None => "here".to_owned(),
    };
    let message = match message {
        "Expected end of document" => "a brace closes no block".to_owned(),
        "No closing '}' for child block" => "the block is not closed".to_owned(),
        "Found child block instead of node name" => {
            "a block stands where a node's name belongs".to_owned()
        }
        "Found invalid node name" => "the node's name is not valid".to_owned(),
        other => match other.strip_prefix("Expected ") {
            Some(what) => format!("KDL syntax: a valid {what} was expected"),
            None => format!("KDL syntax: {other}"),
        },
    };
    (message, label)
}

/// The span without white space around it, on character boundaries of the text.
fn trimmed(text: &str, offset: usize, len: usize) -> Span {
    let mut start = offset.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = (offset.saturating_add(len)).min(text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    let found = &text[start..end.max(start)];
    let kept = found.trim();
    if kept.is_empty() {
        return Span::new(start, found.chars().next().map_or(0, char::len_utf8));
    }
    Span::new(start + (found.len() - found.trim_start().len()), kept.len())
}

/// Refuses what must not reach the parser.
fn guard(source: &Arc<SourceText>) -> Option<Problem> {
    let text = source.text.as_str();
    let refuse = |at: usize, message: String, label: &str| {
        let len = text[at..].chars().next().map_or(0, char::len_utf8);
        Some(Problem::new(source, Span::new(at, len), message, label))
    };
    if text.len() > MAX_BYTES {
        let size = text.len() as f64 / f64::from(1 << 20);
        let text = SourceText::new(source.name.clone(), "");
        let message = format!("the text has {size:.1} MiB; a manifest has at most 4 MiB");
        return Some(Problem::new(&text, Span::new(0, 0), message, "too large").help("name the manifest, not a data file; requirements belong into files of their own (`pip-from`)"));
    }
    if let Some(at) = text.find('\0') {
        return refuse(
            at,
            "the text has a NUL byte; is it a binary file?".into(),
            "not text",
        )
        .map(|p| p.help("name a KDL manifest"));
    }
    let scan = Scan::of(text);
    if let Some((at, what)) = scan.too_deep {
        return refuse(
            at,
            format!("{what} are nested too deep"),
            "deeper than any manifest",
        )
        .map(|p| p.help("a manifest needs three levels: `run`, `matrix`, axis"));
    }
    let count = |pattern: &str| text.matches(pattern).count();
    if count("}") > MAX_CLOSING {
        return refuse(
            0,
            format!("the text has more than {MAX_CLOSING} blocks"),
            "too many blocks",
        );
    }
    if let Some((at, what)) = scan.unclosed
        && (count("{") > MAX_UNCLEAR.0 || count("/-") > MAX_UNCLEAR.1 || count("/*") > MAX_COMMENTS)
    {
        return refuse(at, format!("the {what} is not closed"), "opened here");
    }
    None
}

/// What a pass over the text's tokens finds.
#[derive(Debug, Default)]
struct Scan {
    too_deep: Option<(usize, &'static str)>,
    unclosed: Option<(usize, &'static str)>,
}

impl Scan {
    fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut scan = Self::default();
        let (mut at, mut depth) = (0, 0_usize);
        while at < bytes.len() && scan.too_deep.is_none() {
            at = match bytes[at] {
                b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
                b'/' if bytes[at..].starts_with(b"/*") => scan.comment(bytes, at),
                b'"' => scan.string(bytes, at, 0),
                b'#' => {
                    let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
                    match bytes.get(at + hashes) {
                        Some(b'"') => scan.string(bytes, at + hashes, hashes),
                        _ => at + hashes,
                    }
                }
                b'{' => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        scan.too_deep = Some((at, "blocks"));
                    }
                    at + 1
                }
                b'}' => {
                    depth = depth.saturating_sub(1);
                    at + 1
                }
                _ => at + 1,
            };
        }
        scan
    }

    fn comment(&mut self, bytes: &[u8], open: usize) -> usize {
        let (mut at, mut depth) = (open, 0_usize);
        while at < bytes.len() {
            if bytes[at..].starts_with(b"/*") {
                depth += 1;
                at += 2;
            } else if bytes[at..].starts_with(b"*/") {
                depth -= 1;
                at += 2;
            } else {
                at += 1;
            }
            match depth {
                0 => return at,
                _ if depth > MAX_COMMENTS => {
                    self.too_deep = Some((open, "comments"));
                    return bytes.len();
                }
                _ => {}
            }
        }
        self.unclosed.get_or_insert((open, "comment"));
        bytes.len()
    }

    /// Skips a string whose first quote is at `open`, after `hashes` number signs.
    fn string(&mut self, bytes: &[u8], open: usize, hashes: usize) -> usize {
        let long = bytes[open..].starts_with(b"\"\"\"");
        let quotes: &[u8] = if long { b"\"\"\"" } else { b"\"" };
        let mut at = open + quotes.len();
        while at < bytes.len() {
            let rest = &bytes[at..];
            if hashes == 0 && rest[0] == b'\\' {
                at += 2;
                continue;
            }
            let tail = rest.strip_prefix(quotes);
            if tail.is_some_and(|tail| {
                tail.len() >= hashes && tail[..hashes].iter().all(|byte| *byte == b'#')
            }) {
                return at + quotes.len() + hashes;
            }
            if !long && rest[0] == b'\n' {
                break;
            }
            at += 1;
        }
        self.unclosed.get_or_insert((open, "string"));
        at.min(bytes.len())
    }
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |len| at + len)
}
