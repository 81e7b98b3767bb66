//! Tags of images: templates with `{version}` and `{git}`.
//!
//! A tag is what the OCI distribution specification has it: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.

use std::collections::BTreeMap;

use super::chain::Part;
use super::merge::{innermost, is_true};
use super::mistake::Mistake;
use super::model::ImageRequest;
use super::node::{Node, Value};
use super::report::Report;
use super::template::{Piece, pieces};
use super::urls::offset;
use super::values::shorten;
use crate::diagnostic::{Explain, Kind, Problem, Span};

/// How many digits of a commit stand in a tag.
pub const GIT_DIGITS: usize = 12;

/// Stands behind a commit when the work tree differs from it.
pub const DIRTY: &str = "-dirty";

/// The longest tag, in bytes.
const LONGEST: usize = 128;

/// What the tags of a registry's cache begin with; 64 hex digits follow.
pub const KEY_TAGS: [&str; 5] = ["image", "set", "layer", "record", "sources"];

/// Why a tag cannot be made from its template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// A word has no meaning here.
    #[error("the tag `{template}` needs {word}, which is not known")]
    Unknown {
        /// As declared.
        template: String,
        /// `{version}` or `{git}`.
        word: &'static str,
    },
    /// What came of it is not a tag.
    #[error("`{template}` would become `{tag}`, which is not a tag")]
    Illegal {
        /// As declared.
        template: String,
        /// Expanded.
        tag: String,
    },
}

impl Explain for TagError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unknown { word: "{git}", .. } => {
                "push from a git work tree that has a commit, or remove {git} from the tags".into()
            }
            Self::Unknown { .. } => "write version \"1.4.2\", or remove the word from the tags".into(),
            Self::Illegal { .. } => {
                "a tag is of at most 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two".into()
            }
        })
    }
}

/// The tag that `template` stands for: `{version}` replaced by `version`, `{git}` by the first [`GIT_DIGITS`] digits of
/// the commit `git`, behind which [`DIRTY`] may stand. The image's name is not in it.
///
/// # Errors
/// When the template needs what is not given, or a tag does not come of it.
pub fn expand(
    template: &str,
    version: Option<&str>,
    git: Option<&str>,
) -> Result<String, TagError> {
    let git = git.map(short);
    let tag = fill(template, version, git.as_deref()).map_err(|word| TagError::Unknown {
        template: template.to_owned(),
        word,
    })?;
    match is_tag(&tag) {
        true => Ok(tag),
        false => Err(TagError::Illegal {
            template: template.to_owned(),
            tag: shorten(&tag),
        }),
    }
}

/// A commit with its first digits alone; what stands behind them stays.
fn short(commit: &str) -> String {
    let digits = commit.bytes().take_while(u8::is_ascii_hexdigit).count();
    let (digits, rest) = commit.split_at(digits);
    format!("{}{rest}", digits.get(..GIT_DIGITS).unwrap_or(digits))
}

/// `template` with its words replaced; else the word that has no value.
fn fill(template: &str, version: Option<&str>, git: Option<&str>) -> Result<String, &'static str> {
    let mut tag = String::new();
    for piece in pieces(template) {
        tag.push_str(match piece {
            Piece::Literal(text) => text,
            Piece::Axis("version", _) => version.ok_or("{version}")?,
            Piece::Axis("git", _) => git.ok_or("{git}")?,
            Piece::Axis(_, range) | Piece::Stray(range) => &template[range],
        });
    }
    Ok(tag)
}

fn is_tag(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.chars().all(is_tag_character)
}

fn is_tag_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Checks the form of a template.
pub(super) fn template(text: &str) -> Result<(), Mistake> {
    let help = "a tag is of letters, digits, `_`, `.` and `-`; {version} and {git} are replaced";
    if text.is_empty() {
        return Err(Mistake::whole("the tag is empty", "nothing here").help(help));
    }
    for piece in pieces(text) {
        match piece {
            Piece::Axis("version" | "git", _) => {}
            Piece::Axis(word, range) => {
                let message = format!("`{{{}}}` means nothing in a tag", shorten(word));
                let whole = range.start - 1..range.end + 1;
                return Err(Mistake::at(whole, message, "neither {version} nor {git}").help(help));
            }
            Piece::Stray(range) => {
                let message = format!("`{}` is not a tag", shorten(text));
                return Err(Mistake::at(range, message, "a brace by itself").help(help));
            }
            Piece::Literal(literal) => literal_part(text, literal, help)?,
        }
    }
    Ok(())
}

/// The form of a version that stands in tags.
pub(super) fn version(text: &str) -> Result<(), Mistake> {
    let help = "a version stands in tags: letters, digits, `_`, `.` and `-`, for example \"1.4.2\"";
    if text.is_empty() {
        return Err(Mistake::whole("the version is empty", "nothing here").help(help));
    }
    literal_part(text, text, help)
}

fn literal_part(text: &str, literal: &str, help: &str) -> Result<(), Mistake> {
    let start = offset(text, literal);
    let bad = literal
        .char_indices()
        .map(|(at, c)| (start + at, c))
        .find(|(at, c)| !is_tag_character(*c) || (*at == 0 && matches!(c, '.' | '-')));
    let Some((at, c)) = bad else { return Ok(()) };
    let label = match is_tag_character(c) {
        true => format!("`{c}` may not stand first in a tag"),
        false => format!("`{c}` may not stand in a tag"),
    };
    let message = format!("`{}` is not a tag", shorten(text));
    Err(Mistake::at(at..at + c.len_utf8(), message, label).help(help))
}

/// Takes what an image is called in a registry from its own lines, and from the top level's where it says nothing.
pub(super) fn read(
    request: &mut ImageRequest,
    parts: &[Part<'_>],
    top: &[Node],
    report: &mut Report,
) {
    let Some(own) = parts.last() else { return };
    let own = std::slice::from_ref(own);
    let first = |name: &str| innermost(own, top, name).and_then(|node| node.argument(0));
    let misspelt = first("version").is_none() && innermost(own, top, "version").is_some();
    request.version = first("version").map(|value| value.spanned(value.text().to_owned()));
    request.protected = first("protected").is_some_and(is_true);
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    let tags = own[0].node.all("tag").flat_map(|node| &node.arguments);
    for value in tags.flatten() {
        match meaning(value.text(), request) {
            Err(_) if misspelt => {}
            Err(mistake) => value.report(mistake, report),
            Ok(tag) => {
                if let Some(first) = seen.get(&tag) {
                    report.push(twice(value, *first, &tag));
                    continue;
                }
                seen.insert(tag, value.span);
                request.tags.push(value.spanned(value.text().to_owned()));
            }
        }
    }
}

/// What a template says, `{git}` left as it is; an error if it says nothing, or too much.
fn meaning(template: &str, request: &ImageRequest) -> Result<String, Mistake> {
    let tag = symbolic(template, request).ok_or_else(|| {
        let start = template.find("{version}").unwrap_or_default();
        Mistake::at(
            start..start + "{version}".len(),
            format!("image `{}` has no version", request.name.value),
            "stands for nothing",
        )
        .help("write version \"1.4.2\" in the image or at the top level")
    })?;
    let commit = "0".repeat(GIT_DIGITS) + DIRTY;
    let len = request.name.value.len() + 1 + tag.replace("{git}", &commit).len();
    if len > LONGEST {
        return Err(Mistake::whole(
            format!("the tag is longer than {LONGEST} characters"),
            format!("{len} characters, the image's name and a `-` before it"),
        )
        .help("shorten the tag, the version or the image's name"));
    }
    Ok(tag)
}

/// A template with everything replaced but `{git}`; `None` if it needs a version that there is none of.
pub(super) fn symbolic(template: &str, request: &ImageRequest) -> Option<String> {
    let version = request.version.as_ref().map(|version| version.as_str());
    fill(template, version, Some("{git}")).ok()
}

fn twice(value: &Value, first: Span, tag: &str) -> Problem {
    let message = format!("the tag `{}` is given twice", shorten(tag));
    Problem::new(&value.source, value.span, message, "again here")
        .also(first, "first here")
        .help("remove one of the two")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_made_or_refused() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (template, tag) in [
            ("{version}", "1.4.2"),
            ("{git}", "0123456789ab"),
            ("v{version}-{git}", "v1.4.2-0123456789ab"),
            ("stable", "stable"),
            ("{git}.1", "0123456789ab.1"),
        ] {
            assert_eq!(
                expand(template, Some("1.4.2"), Some(commit)).unwrap(),
                tag,
                "{template}"
            );
        }
        let changed = format!("{commit}{DIRTY}");
        assert_eq!(
            expand("{git}", None, Some(&changed)).unwrap(),
            "0123456789ab-dirty"
        );
        for (template, word) in [("{version}", "{version}"), ("a-{git}", "{git}")] {
            let error = expand(template, None, None).unwrap_err();
            assert!(matches!(error, TagError::Unknown { word: found, .. } if found == word));
        }
        for (version, git) in [("1/2", "ab"), ("", ""), ("-1", "ab"), ("1", "ä€ü€ä€ü€")]
        {
            let error = expand("{version}{git}", Some(version), Some(git)).unwrap_err();
            assert!(matches!(error, TagError::Illegal { .. }), "{version} {git}");
        }
        assert!(expand(&"a".repeat(129), None, None).is_err());
    }
}
