//! The form of single values: what a name, path, URL, size or time may look like.

use std::str::FromStr as _;

use pep440_rs::Version;

use super::language::{Form, did_you_mean};
use super::mistake::Mistake;
use super::model::PythonMinor;
use super::requirement;
use super::{destinations, paths, tags, units, urls};
use crate::digest::Digest;

/// Longest value in bytes, whatever its form; commands may be longer.
const MAX_LENGTH: usize = 64 * 1024;

/// Checks a string value against its form. Every mistake has a help.
pub(super) fn check(form: Form, text: &str) -> Result<(), Mistake> {
    form_of(form, text).map_err(|mistake| mistake.or_help(|| format!("write {}", form.example())))
}

fn form_of(form: Form, text: &str) -> Result<(), Mistake> {
    if text.len() > MAX_LENGTH {
        return Err(
            Mistake::whole("the value is longer than 64 KiB", "too long")
                .help("put it into a project file and add that with `file`"),
        );
    }
    let multi_line = form == Form::Text;
    if let Some((at, c)) = text
        .char_indices()
        .find(|(_, c)| c.is_control() && !(multi_line && matches!(c, '\n' | '\t')))
    {
        return Err(Mistake::at(
            at..at + c.len_utf8(),
            "the value has a control character",
            format!("{}", c.escape_unicode()),
        ));
    }
    match form {
        Form::Text | Form::Boolean | Form::Id | Form::Count => Ok(()),
        Form::Word if text.is_empty() => Err(wrong(form, text)),
        Form::Word => Ok(()),
        Form::Name => name(text, "-_"),
        Form::RunName => Ok(()),
        Form::Requirement => requirement::parse(text).map(drop),
        Form::Specifier => requirement::specifiers(text).map(drop),
        Form::SourcePath => paths::source(text).map(drop),
        Form::WheelPath => paths::wheel(text).map(drop),
        Form::Target => paths::target(text).map(drop),
        Form::Absolute => paths::absolute(text).map(drop),
        Form::Mode => mode(text).map(drop),
        Form::Url => urls::plain(text),
        Form::FetchUrl => urls::fetch(text),
        Form::SnapshotUrl => urls::snapshot(text),
        Form::Registry => urls::registry(text),
        Form::PublicKey => destinations::public_key(text).map(drop),
        Form::Tag => tags::template(text),
        Form::TagVersion => tags::version(text),
        Form::ImageReference => urls::image(text),
        Form::Size => units::size(text).map(drop),
        Form::Cpu => units::cpu(text).map(drop),
        Form::Duration => units::duration(text).map(drop),
        Form::Instant => units::instant(text).map(drop),
        Form::Platform | Form::Network | Form::Layout => choice(form, text),
        Form::Python => python(text).map(drop),
        Form::Sha256 => sha256(text).map(drop),
        Form::OsVersion => os_version(text),
        Form::Components => components(text).map(drop),
        Form::IndexName
        | Form::Suite
        | Form::OsName
        | Form::UserName
        | Form::EnvName
        | Form::Key => simple(form, text),
    }
}

fn wrong(form: Form, text: &str) -> Mistake {
    let what = match form {
        Form::OsName => "a Debian package name",
        Form::EnvName => "the name of an environment variable",
        Form::UserName => "a login name",
        Form::Suite => "a Debian suite",
        Form::IndexName => "an index name",
        Form::Key => "a key of labels or annotations",
        Form::Mode => "permission bits",
        _ => "a value that fits here",
    };
    Mistake::whole(
        format!("`{}` is not {what}", shorten(text)),
        format!("not {what}"),
    )
    .help(format!("write {}", form.example()))
}

/// At most 80 characters of a value, for messages.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// `^[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*$`, at most 100 characters.
pub(super) fn name(text: &str, separators: &str) -> Result<(), Mistake> {
    let mut after_separator = true;
    for (at, c) in text.char_indices() {
        let separator = separators.contains(c);
        let good = match c {
            'a'..='z' => true,
            '0'..='9' => at > 0,
            _ => separator && !after_separator,
        };
        if !good {
            return Err(ill_formed_name(text, at, c));
        }
        after_separator = separator;
    }
    if text.is_empty() {
        return Err(Mistake::whole("the name is empty", "nothing here")
            .help(format!("write {}", Form::Name.example())));
    }
    if after_separator {
        return Err(Mistake {
            range: Some(text.len() - 1..text.len()),
            ..name_mistake(text, "a name ends with a letter or digit")
        });
    }
    if text.len() > 100 {
        return Err(name_mistake(text, "longer than 100 characters"));
    }
    Ok(())
}

fn ill_formed_name(text: &str, at: usize, c: char) -> Mistake {
    let label = match c {
        _ if at == 0 => "a name begins with a letter from a to z".to_owned(),
        '-' | '_' => "a separator must stand between letters or digits".to_owned(),
        'A'..='Z' => "upper-case letters may not stand in a name".to_owned(),
        _ => format!("`{c}` may not stand in a name"),
    };
    Mistake {
        range: Some(at..at + c.len_utf8()),
        ..name_mistake(text, &label)
    }
}

fn name_mistake(text: &str, label: &str) -> Mistake {
    let mut better = String::new();
    for c in text.to_lowercase().chars() {
        if c.is_ascii_alphanumeric() {
            better.push(c);
        } else if !better.is_empty() && !better.ends_with(['-', '_']) {
            better.push(if c == '-' { '-' } else { '_' });
        }
    }
    let better = better
        .trim_start_matches(|c: char| !c.is_ascii_lowercase())
        .trim_end_matches(['-', '_']);
    let rule = "names are lower-case letters and digits, with single `-` or `_` between them";
    let help = if better.is_empty() || better == text || better.len() > 100 {
        rule.to_owned()
    } else {
        format!("{rule}; for example \"{better}\"")
    };
    Mistake::whole(format!("`{}` is not a name", shorten(text)), label).help(help)
}

fn choice(form: Form, text: &str) -> Result<(), Mistake> {
    if form.choices().contains(&text) {
        return Ok(());
    }
    let what = match form {
        Form::Platform => "a platform that imagewright builds for",
        Form::Layout => "a layout that a registry can have",
        _ => "a network that a run can have",
    };
    let help = match did_you_mean(text, form.choices().iter().copied()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write {}", form.example()),
    };
    Err(Mistake::whole(format!("`{}` is not {what}", shorten(text)), "unknown").help(help))
}

/// Whether a character may stand at a place.
type Test = fn(char) -> bool;

/// Values whose form is a set of characters and a length.
fn simple(form: Form, text: &str) -> Result<(), Mistake> {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let (first, rest, length): (Test, Test, _) = match form {
        Form::Suite => (
            |c| c.is_ascii_lowercase(),
            |c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c),
            1..=64,
        ),
        Form::OsName => (
            |c| c.is_ascii_lowercase() || c.is_ascii_digit(),
            |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+.-".contains(c),
            2..=128,
        ),
        Form::UserName => (
            |c| c.is_ascii_lowercase() || c == '_',
            |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c),
            1..=32,
        ),
        Form::EnvName => (
            |c| c.is_ascii_alphabetic() || c == '_',
            |c| c.is_ascii_alphanumeric() || c == '_',
            1..=256,
        ),
        Form::IndexName => (
            |c| c.is_ascii_alphanumeric(),
            |c| c.is_ascii_alphanumeric() || "._-".contains(c),
            1..=64,
        ),
        _ => (
            |c| c.is_ascii_alphanumeric(),
            |c| c.is_ascii_graphic() && c != '=',
            1..=256,
        ),
    };
    if let Some((at, c)) = text
        .char_indices()
        .find(|(at, c)| if *at == 0 { !first(*c) } else { !rest(*c) })
    {
        let mistake = Mistake {
            range: Some(at..at + c.len_utf8()),
            ..wrong(form, text)
        };
        return Err(match form {
            Form::OsName if matches!(c, '=' | ':' | ' ') => {
                mistake.help("write the version as a second argument: os \"vim\" \"2:9.0\"")
            }
            Form::OsName if lower(c.to_ascii_lowercase()) => mistake.help(format!(
                "Debian package names are lower-case: \"{}\"",
                text.to_lowercase()
            )),
            Form::EnvName if c == '=' => {
                mistake.help("write name and value as two arguments: env \"NAME\" \"value\"")
            }
            _ => mistake,
        });
    }
    let ends_well = form != Form::IndexName || text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if length.contains(&text.len()) && ends_well {
        Ok(())
    } else {
        Err(wrong(form, text))
    }
}

fn os_version(text: &str) -> Result<(), Mistake> {
    let help = "an OS version begins with a digit, for example \"2022\" or \"2:9.0.1378-2\"; leave it out for the archive's default";
    let Some(first) = text.chars().next() else {
        return Err(Mistake::whole("the version is empty", "nothing here").help(help));
    };
    if !first.is_ascii_digit() {
        let operator = text
            .find(|c: char| c.is_ascii_digit())
            .filter(|at| text[..*at].trim().chars().all(|c| "<>=~!".contains(c)));
        let mistake = Mistake::at(
            0..operator.unwrap_or(first.len_utf8()),
            format!("`{}` is not a Debian version", shorten(text)),
            "a version begins with a digit",
        );
        return Err(match operator {
            Some(at) => mistake.help(format!(
                "operators do not apply to OS packages; write \"{}\"",
                &text[at..]
            )),
            None => mistake.help(help),
        });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".+:~-".contains(c);
    match text.char_indices().find(|(_, c)| !allowed(*c)) {
        Some((at, c)) => Err(Mistake::at(
            at..at + c.len_utf8(),
            format!("`{}` is not a Debian version", shorten(text)),
            format!("`{c}` may not stand in a version"),
        )
        .help(help)),
        None => Ok(()),
    }
}

/// A Python minor version; patch versions are the base's own.
pub(super) fn python(text: &str) -> Result<PythonMinor, Mistake> {
    let bad = |label: &str| {
        Mistake::whole(
            format!("`{}` is not a Python minor version", shorten(text)),
            label,
        )
    };
    let digits = |part: &str| {
        !part.is_empty() && part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit())
    };
    let parts: Vec<&str> = text.split('.').collect();
    match parts.as_slice() {
        ["3", minor] if digits(minor) && (minor.len() == 1 || !minor.starts_with('0')) => minor
            .parse()
            .map(|minor| PythonMinor { major: 3, minor })
            .map_err(|_| bad("not a version")),
        [major, minor] if digits(major) && digits(minor) => {
            Err(bad("only Python 3 is supported").help("write a version such as \"3.11\""))
        }
        ["3", minor, ..] if digits(minor) => {
            Err(bad("the patch version is the base's own").help(format!("write \"3.{minor}\"")))
        }
        _ => Err(bad("not of the form 3.Y").help("write a version such as \"3.11\"")),
    }
}

/// 64 hex digits, with or without `sha256:` before them.
pub(super) fn sha256(text: &str) -> Result<Digest, Mistake> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    Digest::from_hex(digits).map_err(|_| {
        let offset = text.len() - digits.len();
        let bad = digits
            .char_indices()
            .find(|(_, c)| !(c.is_ascii_digit() || ('a'..='f').contains(c)));
        match bad {
            Some((at, c)) => Mistake::at(
                offset + at..offset + at + c.len_utf8(),
                "the SHA-256 is not hexadecimal",
                "not one of 0-9 and a-f",
            ),
            None => Mistake::whole(
                format!("the SHA-256 has {} digits instead of 64", digits.len()),
                "wrong length",
            ),
        }
        .help("write what `sha256sum FILE` prints: 64 lower-case hex digits")
    })
}

/// Permission bits from octal digits.
pub(super) fn mode(text: &str) -> Result<u32, Mistake> {
    let octal =
        text.len() <= 4 && text.len() >= 3 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(bits) if octal => mode_bits(bits),
        _ => Err(wrong(Form::Mode, text)),
    }
}

/// Permission bits, without setuid, setgid and sticky.
pub(super) fn mode_bits(bits: u32) -> Result<u32, Mistake> {
    if bits > 0o777 {
        return Err(Mistake::whole(
            format!("the mode {bits:04o} has more than permission bits"),
            "setuid, setgid or sticky",
        )
        .help("images carry no setuid or setgid files; write for example \"0755\""));
    }
    Ok(bits)
}

/// Archive components, sorted and without duplicates.
pub(super) fn components(text: &str) -> Result<Vec<String>, Mistake> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '/';
    let mut all: Vec<String> = text
        .split([' ', ','])
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    if all.is_empty() || !all.iter().all(|part| part.chars().all(good)) {
        return Err(Mistake::whole(
            format!("`{}` does not name archive components", shorten(text)),
            "not components",
        )
        .help(format!("write {}", Form::Components.example())));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Whether a string is a PEP 440 version (used for wheel file names).
pub(super) fn is_version(text: &str) -> bool {
    Version::from_str(text).is_ok()
}
