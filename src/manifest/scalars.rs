//! Types and numbers: whether a KDL value fits the form at all, before its text is looked at.

use super::language::Form;
use super::mistake::Mistake;
use super::node::{Scalar, Value};
use super::values;

/// A secret at these bytes of a value.
pub(super) fn secret(range: std::ops::Range<usize>, what: &str) -> Mistake {
    let help = match what {
        "a user name or password" | "a credential" => {
            "remove it; imagewright takes credentials from netrc, the keyring or the environment of the machine that builds"
        }
        _ => {
            "remove it here and give it to the container when it runs: as a secret of the cluster, a mounted file, or `docker run --env`"
        }
    };
    Mistake::at(
        range,
        format!("the value holds {what}"),
        "a manifest must not hold secrets",
    )
    .help(help)
    .secret()
}

/// Checks a number against the form of its place.
pub(super) fn number_form(form: Form, number: i128, written: &str) -> Result<(), Mistake> {
    let range = match form {
        Form::Id => 1..=2_147_483_647,
        Form::Count => 1..=4_194_304,
        Form::Cpu => return values::check(form, &number.to_string()),
        Form::Mode if !written.starts_with("0o") => {
            return Err(Mistake::whole(
                format!("`{number}` is decimal; permission bits are octal"),
                "not octal",
            )
            .help(format!("write mode=\"{:04}\"", number.clamp(0, 7777))));
        }
        Form::Mode => {
            return u32::try_from(number)
                .map_err(drop)
                .and_then(|bits| values::mode_bits(bits).map_err(drop))
                .map(drop)
                .map_err(|()| {
                    Mistake::whole(
                        "the mode has more than permission bits",
                        "setuid, setgid, sticky or more",
                    )
                    .help("write for example \"0755\"")
                });
        }
        _ => return Ok(()),
    };
    if range.contains(&number) {
        return Ok(());
    }
    let what = if form == Form::Id {
        "an id that an image's user can have"
    } else {
        "a number of processes"
    };
    let help = match (form, number) {
        (Form::Id, 0) => {
            "images do not run as root; write a number from 1 to 2147483647".to_owned()
        }
        _ => format!("write a number from {} to {}", range.start(), range.end()),
    };
    Err(Mistake::whole(format!("{number} is not {what}"), "out of range").help(help))
}

/// What is wrong with a value whose type does not fit the form.
pub(super) fn wrong_type(form: Form, value: &Value) -> Option<Mistake> {
    let found = match &value.scalar {
        Scalar::Text(_) => "string",
        Scalar::Integer(_) => "number",
        Scalar::Float(_) if form != Form::Cpu => "fraction",
        Scalar::Float(_) => "number",
        Scalar::Boolean(_) => "boolean",
        Scalar::Null => "null",
    };
    if form.types().contains(&found) {
        return None;
    }
    let expected = form.types().first().copied().unwrap_or("string");
    let help = match (&value.scalar, expected) {
        (Scalar::Null, _) => format!("write {}", form.example()),
        (_, "string") => format!(
            "write it in quotes: \"{}\"",
            value.written.trim_start_matches('#')
        ),
        (Scalar::Text(text), "boolean") if matches!(text.as_str(), "true" | "false") => {
            format!("write #{text} without quotes")
        }
        (Scalar::Text(text), "number") if text.parse::<i128>().is_ok() => {
            format!("write {text} without quotes")
        }
        _ => format!("write {}", form.example()),
    };
    Some(
        Mistake::whole(
            format!("a {found} stands where a {expected} belongs"),
            format!("must be a {expected}"),
        )
        .help(help),
    )
}
