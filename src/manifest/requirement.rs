//! PEP 508 requirements (the packaging specification "Dependency specifiers"), parsed strictly, with byte ranges.
//!
//! The canonical text is a function of the syntax alone, so that any program can compute it: PEP 503 name, extras
//! normalised and sorted, specifiers as PEP 440 prints them, sorted and without duplicates, ` ; ` and the marker with
//! single spaces and single quotes. Versions are the business of `pep440_rs`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;

use pep440_rs::VersionSpecifier;

use super::marker;
use super::mistake::Mistake;

/// Longest requirement that is read, in bytes.
const MAX_LENGTH: usize = 8192;

/// One requirement, in canonical parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requirement {
    /// PEP 503 normalised.
    pub(super) name: String,
    /// Normalised.
    pub(super) extras: BTreeSet<String>,
    /// Canonical text of each.
    pub(super) specifiers: BTreeSet<String>,
    /// Canonical marker.
    pub(super) marker: Option<String>,
}

impl Requirement {
    /// The canonical PEP 508 text.
    pub(super) fn canonical(&self) -> String {
        let mut text = self.name.clone();
        if !self.extras.is_empty() {
            let extras: Vec<&str> = self.extras.iter().map(String::as_str).collect();
            text = format!("{text}[{}]", extras.join(","));
        }
        let specifiers: Vec<&str> = self.specifiers.iter().map(String::as_str).collect();
        text.push_str(&specifiers.join(","));
        match &self.marker {
            Some(marker) => format!("{text} ; {marker}"),
            None => text,
        }
    }
}

/// The PEP 503 form of a name: lower case, runs of `-`, `_` and `.` as one `-`.
pub fn normalise(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        if !out.is_empty() {
            out.push('-');
        }
        out.push_str(&part.to_ascii_lowercase());
    }
    out
}

/// Parses one requirement. Direct references (`name @ URL`) are refused: an index or `wheel=` says the same and locks.
pub(super) fn parse(text: &str) -> Result<Requirement, Mistake> {
    if text.len() > MAX_LENGTH {
        return Err(Mistake::whole(
            "the requirement is longer than 8192 bytes",
            "too long",
        ));
    }
    let (body, marker) = match text.find(';') {
        Some(at) => (&text[..at], Some(at + 1)),
        None => (text, None),
    };
    let mut requirement = Requirement::default();
    let name = name_range(body)?;
    requirement.name = normalise(&body[name.clone()]);
    let mut at = skip_space(body, name.end);
    if body[at..].starts_with('[') {
        at = extras(body, at, &mut requirement.extras)?;
        at = skip_space(body, at);
    }
    if body[at..].starts_with('@') {
        return Err(direct_reference(body, at));
    }
    requirement.specifiers = specifier_tail(body, at)?;
    if let Some(start) = marker {
        let marker = marker::canonical(&text[start..]).map_err(|mistake| mistake.shifted(start))?;
        requirement.marker = Some(marker);
    }
    Ok(requirement)
}

fn direct_reference(body: &str, at: usize) -> Mistake {
    Mistake::at(at..body.trim_end().len(), "a requirement names a URL", "direct references are not built")
        .help("put the wheel into the project and write `pip \"name\" wheel=\"dist/name-1.0-py3-none-any.whl\"`, or serve it from an `index`")
}

fn name_range(body: &str) -> Result<Range<usize>, Mistake> {
    let start = skip_space(body, 0);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let end = body[start..]
        .find(|c| !allowed(c))
        .map_or(body.len(), |len| start + len);
    let name = &body[start..end];
    let edges = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if name.is_empty() {
        let found = char_range(body, start);
        return Err(Mistake::at(
            found,
            "the requirement does not begin with a package name",
            "a name belongs here",
        )
        .help("write a package name such as \"numpy\" or a requirement such as \"numpy>=1.26\""));
    }
    if !edges {
        return Err(Mistake::at(start..end, format!("`{name}` is not a package name"), "not a package name")
            .help("a package name begins and ends with a letter or digit; between them `-`, `_` and `.` may stand"));
    }
    Ok(start..end)
}

fn extras(body: &str, open: usize, into: &mut BTreeSet<String>) -> Result<usize, Mistake> {
    let Some(len) = body[open..].find(']') else {
        return Err(Mistake::at(
            open..body.trim_end().len().max(open + 1),
            "the extras are not closed",
            "no `]` follows",
        )
        .help("write extras as in \"tensorflow[and-cuda]\""));
    };
    let close = open + len;
    let inner = &body[open + 1..close];
    if inner.trim().is_empty() {
        return Ok(close + 1);
    }
    let mut start = open + 1;
    for part in inner.split(',') {
        let trimmed = part.trim();
        let valid = !trimmed.is_empty()
            && trimmed
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && trimmed.starts_with(|c: char| c.is_ascii_alphanumeric())
            && trimmed.ends_with(|c: char| c.is_ascii_alphanumeric());
        if !valid {
            let offset = start + (part.len() - part.trim_start().len()).min(part.len());
            let end = (offset + trimmed.len()).max(offset + usize::from(trimmed.is_empty()));
            return Err(Mistake::at(
                offset..end,
                format!("`{trimmed}` is not the name of an extra"),
                "not an extra",
            )
            .help("write extras as in \"package[first,second]\""));
        }
        into.insert(normalise(trimmed));
        start += part.len() + 1;
    }
    Ok(close + 1)
}

/// What follows name and extras: nothing, specifiers, or specifiers in parentheses.
fn specifier_tail(body: &str, at: usize) -> Result<BTreeSet<String>, Mistake> {
    let tail = &body[at..];
    let trimmed = tail.trim_end();
    if trimmed.is_empty() {
        return Ok(BTreeSet::new());
    }
    if let Some(inner) = trimmed.strip_prefix('(') {
        let Some(inner) = inner.strip_suffix(')') else {
            return Err(Mistake::at(
                at..at + trimmed.len(),
                "the parenthesis is not closed",
                "no `)` follows",
            ));
        };
        return specifiers(inner).map_err(|mistake| mistake.shifted(at + 1));
    }
    if !trimmed.starts_with(['=', '!', '~', '<', '>']) {
        return Err(Mistake::at(
            at..at + trimmed.len(),
            format!("`{trimmed}` is not a PEP 440 specifier"),
            "a specifier begins with ==, !=, <=, >=, <, >, ~= or ===",
        )
        .help(version_help(trimmed)));
    }
    specifiers(trimmed).map_err(|mistake| mistake.shifted(at))
}

fn version_help(found: &str) -> String {
    match pep440_rs::Version::from_str(found) {
        Ok(version) => format!(
            "write `=={version}` for exactly this version, or `>={version}` for it and newer ones"
        ),
        Err(_) => "write a specifier such as `==1.0.2` or `>=1.2,<2`".into(),
    }
}

/// Parses comma-separated PEP 440 specifiers into their canonical texts.
pub(super) fn specifiers(text: &str) -> Result<BTreeSet<String>, Mistake> {
    let mut all = BTreeSet::new();
    let mut start = 0;
    if text.trim().is_empty() {
        return Err(Mistake::whole("the specifier is empty", "nothing here")
            .help("leave the specifier out if any version will do"));
    }
    let count = text.split(',').count();
    for (i, part) in text.split(',').enumerate() {
        let trimmed = part.trim();
        let at = start + (part.len() - part.trim_start().len());
        start += part.len() + 1;
        if trimmed.is_empty() && i + 1 == count && count > 1 {
            continue;
        }
        all.insert(specifier(trimmed, at)?);
    }
    Ok(all)
}

fn specifier(text: &str, at: usize) -> Result<String, Mistake> {
    let range = at..at + text.len();
    if text.is_empty() {
        return Err(Mistake::at(
            at..at + 1,
            "a specifier is missing between two commas",
            "nothing here",
        ));
    }
    if text
        .strip_prefix("===")
        .is_some_and(|exact| exact.trim().is_empty())
    {
        return Err(Mistake::at(
            range,
            "`===` is not followed by a version",
            "no version",
        ));
    }
    match VersionSpecifier::from_str(text) {
        Ok(parsed) => Ok(parsed.to_string()),
        Err(error) => {
            let reason = first_line(&error.to_string());
            let help = if text.starts_with(['=', '!', '~', '<', '>']) {
                "write a specifier such as `==1.0.2`, `>=1.2,<2` or `~=2.1`".into()
            } else {
                version_help(text)
            };
            Err(Mistake::at(
                range,
                format!("`{text}` is not a PEP 440 specifier"),
                reason,
            )
            .help(help))
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(':')
        .to_owned()
}

pub(super) fn skip_space(text: &str, from: usize) -> usize {
    let rest = &text[from..];
    from + (rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len())
}

/// The character at `at`, or nothing at the end.
pub(super) fn char_range(text: &str, at: usize) -> Range<usize> {
    at..at + text[at..].chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_does_not_depend_on_how_it_was_written() {
        for (written, canonical) in [
            ("numpy[b,a] <2,>=1", "numpy[a,b]<2,>=1"),
            ("NumPy  [ A , b,a ]  ( >=1 , <2, <2 ) ", "numpy[a,b]<2,>=1"),
            ("a.b__c", "a-b-c"),
            (
                "x==1.0.*; python_version<'3.13'",
                "x==1.0.* ; python_version < '3.13'",
            ),
            (
                "x ;\"linux\"==sys_platform and(os_name=='posix' or extra == 'y')",
                "x ; 'linux' == sys_platform and (os_name == 'posix' or extra == 'y')",
            ),
            ("x[]", "x"),
            ("x ~= 1.4.2rc1", "x~=1.4.2rc1"),
            (
                "x;'a' not  in platform_version",
                "x ; 'a' not in platform_version",
            ),
        ] {
            let parsed = parse(written).unwrap();
            assert_eq!(parsed.canonical(), canonical);
            assert_eq!(parse(canonical).unwrap(), parsed, "{canonical}");
        }
    }

    #[test]
    fn mistakes_point_at_the_offending_bytes() {
        for (written, offending) in [
            ("", ""),
            ("é", "é"),
            ("-x", "-x"),
            ("x[a", "[a"),
            ("x[a,ü]>1", "ü"),
            ("x 1.0", "1.0"),
            ("x >=1, =2", "=2"),
            ("x >=1,,<2", ","),
            ("x >1 !", ">1 !"),
            ("x (>1", "(>1"),
            (
                "x @ https://example.com/x.whl",
                "@ https://example.com/x.whl",
            ),
            ("x>1; python_versoin < '3'", "python_versoin"),
            ("x; python_version < 'three'", "'three'"),
            ("x; os_name == 'a", "'a"),
            ("x; os_name", "os_name"),
            ("x; (os_name == 'a'", "("),
            ("x; os_name == 'a' os_name", "os_name"),
            ("x; os_name = 'a'", "="),
            ("x; 'a' == 'b'", "'a' == 'b'"),
        ] {
            let mistake = parse(written).unwrap_err();
            let range = mistake.range.clone().unwrap_or(0..written.len());
            assert_eq!(&written[range], offending, "{written}: {mistake:?}");
        }
    }

    #[test]
    fn deep_markers_are_refused_rather_than_overflowing() {
        let deep = format!("x; {}os_name == 'a'", "(".repeat(2000));
        assert!(parse(&deep).unwrap_err().message.contains("deep"));
    }
}
