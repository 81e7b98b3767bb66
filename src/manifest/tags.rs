//! Tags of images: templates with `{version}` and `{git}`, and which tags a manifest's images write.
//!
//! A tag is what the OCI distribution specification has it: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.

use std::collections::BTreeMap;

use super::chain::Part;
use super::merge::{innermost, is_true};
use super::mistake::Mistake;
use super::model::{Destination, ImageRequest, Layout, Spanned};
use super::node::{Node, Value};
use super::report::Report;
use super::template::{Piece, pieces};
use super::urls::offset;
use super::values::shorten;
use crate::diagnostic::{Explain, Kind, Problem, Span};

/// How many digits of a commit stand in a tag.
pub const GIT_DIGITS: usize = 12;

/// The longest tag, in bytes.
const LONGEST: usize = 128;

/// What the tags of a registry's cache begin with; 64 hex digits follow.
pub const KEY_TAGS: [&str; 5] = ["image", "set", "layer", "record", "sources"];

/// What the fallback tag of referrers begins with (OCI distribution specification, "Referrers Tag Schema").
const REFERRERS_TAG: &str = "sha256";

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
/// the commit `git`, and what follows a `-` in it. The image's name is not in it.
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

/// `4f0f3f2a1b2c-dirty` of a whole commit with `-dirty`.
fn short(git: &str) -> String {
    let (commit, rest) = git.split_at(git.find('-').unwrap_or(git.len()));
    format!("{}{rest}", commit.get(..GIT_DIGITS).unwrap_or(commit))
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
    let commit = "0".repeat(GIT_DIGITS);
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

fn symbolic(template: &str, request: &ImageRequest) -> Option<String> {
    let version = request.version.as_ref().map(|version| version.as_str());
    fill(template, version, Some("{git}")).ok()
}

fn twice(value: &Value, first: Span, tag: &str) -> Problem {
    let message = format!("the tag `{}` is given twice", shorten(tag));
    Problem::new(&value.source, value.span, message, "again here")
        .also(first, "first here")
        .help("remove one of the two")
}

/// Who writes a tag, and where that stands.
struct Writer<'m> {
    image: &'m ImageRequest,
    place: &'m Spanned<String>,
    tag: String,
}

/// Every tag that the images write into a repository that they share.
fn writers(images: &[ImageRequest]) -> impl Iterator<Item = Writer<'_>> {
    images.iter().flat_map(|image| {
        let own = std::iter::once((&image.name, image.name.value.clone()));
        let tags = image.tags.iter().filter_map(|tag| {
            let text = symbolic(&tag.value, image)?;
            Some((tag, format!("{}-{text}", image.name.value)))
        });
        let writer = |(place, tag)| Writer { image, place, tag };
        own.chain(tags).map(writer)
    })
}

/// Reports images that would write one tag, and tags and names that belong to imagewright itself.
pub(super) fn conflicts(
    images: &[ImageRequest],
    destinations: &[&Spanned<Destination>],
    report: &mut Report,
) {
    let with = |layout: Layout| {
        let mut all = destinations.iter();
        all.find(|destination| destination.layout == layout)
    };
    let shared =
        destinations.is_empty() || with(Layout::Split).is_some() || with(Layout::Single).is_some();
    if shared {
        one_tag_each(images, report);
    }
    for writer in writers(images) {
        if let Some(single) = with(Layout::Single)
            && KEY_TAGS.iter().any(|kind| is_key_tag(&writer.tag, kind))
        {
            let label = "images and what machines look up share a repository here";
            report.push(reserved(&writer, &writer.tag).also(single.span, label));
        }
        let own = format!("{}-", writer.image.name.value);
        let alone = writer.tag.strip_prefix(&own).unwrap_or_default();
        let alone = with(Layout::PerImage).map(|_| alone);
        let mut written = shared
            .then_some(writer.tag.as_str())
            .into_iter()
            .chain(alone);
        if let Some(tag) = written.find(|tag| is_key_tag(tag, REFERRERS_TAG)) {
            report.push(reserved(&writer, tag));
        }
    }
    let cache = images.iter().find(|image| image.name.value == "cache");
    if let (Some(image), Some(destination)) = (cache, with(Layout::PerImage)) {
        let problem = Problem::new(
            &image.name.source,
            image.name.span,
            "an image cannot be called `cache` where each image has a repository",
            "this repository holds what machines look up",
        )
        .also(destination.span, "each image has a repository here");
        report.push(problem.help("rename the image, or choose another layout"));
    }
}

fn one_tag_each(images: &[ImageRequest], report: &mut Report) {
    let mut seen: BTreeMap<String, Writer<'_>> = BTreeMap::new();
    for writer in writers(images) {
        let Some(first) = seen.get(&writer.tag) else {
            seen.insert(writer.tag.clone(), writer);
            continue;
        };
        let (one, other) = (&first.image.name.value, &writer.image.name.value);
        let message = format!(
            "the images `{one}` and `{other}` would both be pushed as `{}`",
            shorten(&writer.tag)
        );
        let place = writer.place;
        let problem = Problem::new(
            &place.source,
            place.span,
            message,
            format!("`{other}` writes the tag here"),
        )
        .also(first.place.span, format!("`{one}` writes it here"));
        report.push(
            problem.help(
                "rename one of the two, or give each image a repository: layout=\"per-image\"",
            ),
        );
    }
}

/// `KIND-` and 64 hex digits, perhaps with a signer behind a point.
fn is_key_tag(tag: &str, kind: &str) -> bool {
    let rest = tag
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('-'));
    let hex = rest.map(|rest| rest.split('.').next().unwrap_or_default());
    hex.is_some_and(|hex| crate::digest::Digest::from_hex(hex).is_ok())
}

fn reserved(writer: &Writer<'_>, tag: &str) -> Problem {
    let (place, tag) = (writer.place, shorten(tag));
    let message = format!("the tag `{tag}` belongs to what machines look up");
    Problem::new(&place.source, place.span, message, "named like a key")
        .help("choose a name or tag without a digest")
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
        ] {
            assert_eq!(
                expand(template, Some("1.4.2"), Some(commit)).unwrap(),
                tag,
                "{template}"
            );
        }
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
