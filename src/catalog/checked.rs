//! Whether a document that anybody may have written is a record that can be worked with.

use super::{PackageRecord, Record};
use crate::diagnostic::is_wild;
use crate::registry::Reference;

/// Longest document, in bytes.
const DOCUMENT_LIMIT: usize = 3 << 20;
/// Most installed or requested packages.
const PACKAGES: usize = 20_000;
/// Most layers.
const LAYERS: usize = 1000;
/// Most tags, and most signatures.
const FEW: usize = 100;
/// Longest name or version, in bytes.
const SHORT: usize = 300;
/// Longest other text, in bytes.
const LONG: usize = 8192;
/// The end of the year 9999 in milliseconds since 1970.
const LAST_MS: i64 = 253_402_300_799_999;

/// Reads a record of an untrusted document.
///
/// # Errors
/// Why it is none: another version, wrong types, sizes beyond all measure, control characters.
pub fn record(document: &[u8]) -> Result<Record, String> {
    if document.len() > DOCUMENT_LIMIT {
        return Err(format!("it has more than {DOCUMENT_LIMIT} bytes"));
    }
    if !is_plain(document) {
        let value: serde_json::Value =
            serde_json::from_slice(document).map_err(|error| error.to_string())?;
        no_control_characters(&value)?;
    }
    let record: Record = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    if record.v != Record::VERSION {
        return Err(format!("it has version {} of the schema", record.v));
    }
    check(&record)?;
    Ok(record)
}

/// Whether a document has nothing but visible ASCII and no escapes, so that its texts need no closer look.
fn is_plain(document: &[u8]) -> bool {
    document
        .iter()
        .all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t') && *byte != b'\\')
}

/// Nothing of a record moves a terminal's cursor or turns the direction of its text.
fn no_control_characters(value: &serde_json::Value) -> Result<(), String> {
    let check = |text: &str| match text.contains(is_wild) {
        true => Err("a text in it has control characters".to_owned()),
        false => Ok(()),
    };
    match value {
        serde_json::Value::String(text) => check(text),
        serde_json::Value::Array(values) => values.iter().try_for_each(no_control_characters),
        serde_json::Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            check(name)?;
            no_control_characters(value)
        }),
        _ => Ok(()),
    }
}

fn check(record: &Record) -> Result<(), String> {
    let requested = &record.requested;
    let counts = [
        ("Python packages", record.pip.len(), PACKAGES),
        ("OS packages", record.os.len(), PACKAGES),
        ("requirements", requested.pip.len(), PACKAGES),
        ("requested OS packages", requested.os.len(), PACKAGES),
        ("constraints", requested.constraints.len(), PACKAGES),
        ("overrides", requested.overrides.len(), PACKAGES),
        ("indexes", requested.indexes.len(), FEW),
        ("layers", record.layers.len(), LAYERS),
        ("tags", record.tags.len(), FEW),
        ("signatures", record.signatures.len(), FEW),
    ];
    if let Some((what, count, limit)) = counts.iter().find(|(_, count, limit)| count > limit) {
        return Err(format!("it has {count} {what}, more than {limit}"));
    }
    texts(record)?;
    packages(record)?;
    if !is_image_name(&record.name) {
        return Err("its name is not that of an image".into());
    }
    if !record.tags.iter().all(|tag| is_tag(tag)) {
        return Err("its tags are not tags".into());
    }
    let repository = format!("r.example.com/{}", record.repository);
    let parsed = repository.parse::<Reference>().ok();
    let bare = parsed.is_some_and(|parsed| parsed.tag.is_none() && parsed.digest.is_none());
    if !bare && !record.repository.is_empty() {
        return Err("its repository is not one".into());
    }
    if record.base_layers > record.layers.len() {
        return Err("it has more layers of the base than layers".into());
    }
    if !(0..=LAST_MS).contains(&record.pushed_ms) {
        return Err("its time is not one".into());
    }
    Ok(())
}

fn texts(record: &Record) -> Result<(), String> {
    let requested = &record.requested;
    let short = [&record.python, &record.base.name, &record.base.root].into_iter();
    let short = short.chain(requested.os.iter().map(|os| &os.name));
    let short = short.chain(requested.os.iter().filter_map(|os| os.version.as_ref()));
    let short = short.chain(&requested.exclude_newer);
    let short = short.chain(record.version.iter().chain(&record.git));
    let long = requested.pip.iter().chain(&requested.constraints);
    let long = long.chain(&requested.overrides).chain(&requested.indexes);
    let long = long.chain(&requested.default_index);
    let long = long.chain(
        record
            .layers
            .iter()
            .flat_map(|layer| [&layer.comment, &layer.media_type]),
    );
    let signatures = record.signatures.iter();
    let long = long.chain(signatures.flat_map(|one| [&one.key, &one.signature]));
    bounded(short, SHORT)?;
    bounded(long, LONG)
}

fn bounded<'a>(mut texts: impl Iterator<Item = &'a String>, limit: usize) -> Result<(), String> {
    match texts.any(|text| text.len() > limit) {
        true => Err(format!("a text in it has more than {limit} bytes")),
        false => Ok(()),
    }
}

fn packages(record: &Record) -> Result<(), String> {
    let fine = |package: &PackageRecord| {
        let lengths = [package.name.len(), package.version.len()];
        let layer = package.layer.is_none_or(|at| at < record.layers.len());
        lengths.iter().all(|len| (1..=SHORT).contains(len)) && layer
    };
    match record.pip.iter().chain(&record.os).find(|one| !fine(one)) {
        Some(package) => {
            let name: String = package.name.chars().take(60).collect();
            Err(format!(
                "its package `{name}` has no version, no layer of its, or too long a name"
            ))
        }
        None => Ok(()),
    }
}

fn is_image_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(known)
}

fn is_tag(tag: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&tag.len()) && tag.bytes().all(known)
}
