//! The part of `show` that prints what a registry's, or this store's, record says of an image.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde::Serialize;

use super::context::{Context, unknown};
use super::failure::Failure;
use super::find::{instant, parsed, reference};
use super::output::{self, size};
use super::pipeline::records::{self, Target};
use crate::catalog::{Catalog, CatalogError, Found, Index, PackageRecord, Query, Record, Status};
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::manifest::Platform;
use crate::registry::Reference;
use crate::report::neutral;

/// Fewest hexadecimal digits that are taken for a digest or key.
const DIGITS: usize = 8;
/// Most records of one digest or key, and most images above one.
const MOST: usize = 200;

/// What `show` prints of records under `--json`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct RecordsDocument {
    /// One for each name and platform: the newest.
    pub records: Vec<RecordDocument>,
}

/// One record.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct RecordDocument {
    /// Where its image stands.
    pub status: RecordStatus,
    /// Where the image is, by digest; null for an image of this store.
    pub reference: Option<String>,
    /// Digest of the record's document.
    pub digest: Digest,
    /// When it was pushed, or built here: an RFC 3339 instant.
    pub pushed: String,
    /// Public keys whose signature of the image is right. Whether they are trusted is another question.
    pub signers: Vec<String>,
    /// Images whose base is this one.
    pub children: Vec<Child>,
    /// What was recorded.
    pub record: Record,
}

/// Where a record's image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordStatus {
    /// The newest of its name and platform.
    Ready,
    /// A later one has its name and platform.
    Outdated,
    /// The registry does not have it any more.
    Gone,
}

/// An image above another one.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Child {
    /// Declared name.
    pub name: String,
    /// Its platform.
    pub platform: Platform,
    /// Digest of the image manifest.
    pub digest: Digest,
}

/// Whether a text is meant as a digest or key: its hexadecimal digits, or the first of them.
pub fn key_digits(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:");
    let least = if digits.is_some() { 1 } else { DIGITS };
    let digits = digits.unwrap_or(text);
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    ((least..=64).contains(&digits.len()) && digits.chars().all(hex)).then_some(digits)
}

/// Whether a text is meant as an image in a registry.
pub fn is_reference(text: &str) -> bool {
    text.contains('/')
}

/// Reads `HOST/PATH:TAG` or `HOST/PATH@DIGEST`.
fn image(text: &str) -> Result<Reference, Failure> {
    let image: Reference = text.parse()?;
    if image.tag.is_none() && image.digest.is_none() {
        return Err(Failure::plain(
            Kind::Usage,
            format!("`{text}` names no image"),
            format!(
                "write `{text}:NAME` or `{text}@sha256:…`; `imagewright find --registry {text}` tells which there are"
            ),
        ));
    }
    Ok(image)
}

/// Prints the records of a name, digest or key, or of an image where it is.
pub fn run(context: &Context, target: &Target, what: &str) -> Result<ExitCode, Failure> {
    let image = is_reference(what).then(|| image(what)).transpose()?;
    let catalog = match &image {
        Some(image) => Some(target.catalog_of(context, image)?),
        None => target.catalog(context)?,
    };
    let catalog = catalog.as_ref();
    let store = context.store()?;
    let source = records::source(catalog);
    let (records, names) =
        records::with_index(context, &store, catalog, !target.no_sync, |index| {
            let found = match &image {
                Some(image) => look_up_image(index, &source, image)?,
                None => look_up(index, &source, what)?,
            };
            let records = documents(index, catalog, &source, found)?;
            let names = match records.is_empty() {
                true => index.names(&source)?,
                false => Vec::new(),
            };
            Ok((records, names))
        })?;
    if records.is_empty() {
        let asked = !target.no_sync && !context.global.offline;
        return Err(missing(catalog, what, &names, asked));
    }
    let mut document = RecordsDocument { records };
    if let Some(catalog) = catalog
        && !target.no_sync
        && !context.global.offline
    {
        look_there(context, catalog, &mut document)?;
    }
    match context.global.json {
        true => output::json(&document),
        false => output::raw(text(&document).as_bytes()),
    }
    let mut gone = document.records.iter();
    let gone = gone.any(|record| record.status == RecordStatus::Gone);
    Ok(match gone {
        true => ExitCode::from(Kind::NotFound.exit_code()),
        false => ExitCode::SUCCESS,
    })
}

fn missing(catalog: Option<&Catalog>, what: &str, names: &[String], asked: bool) -> Failure {
    let place = catalog.map_or_else(
        || "this store".to_owned(),
        |catalog| catalog.place().cache().to_string(),
    );
    if names.is_empty() {
        return Failure::plain(
            Kind::NotFound,
            format!("there is no image `{what}` in {place}"),
            records::emptiness(catalog, asked),
        );
    }
    let kind = format!("record in {place} of an image");
    unknown(&kind, what, names.iter().map(String::as_str))
}

fn look_up(index: &Index, source: &str, what: &str) -> Result<Vec<Found>, CatalogError> {
    let found = by_name(index, source, what, BTreeSet::new())?;
    match key_digits(what) {
        Some(digits) if found.is_empty() => index.by_key(source, digits, MOST),
        _ => Ok(found),
    }
}

/// The images with this digest; else those that were the last to get this tag.
fn look_up_image(
    index: &Index,
    source: &str,
    image: &Reference,
) -> Result<Vec<Found>, CatalogError> {
    if let Some(digest) = &image.digest {
        return index.by_key(source, &digest.hex(), MOST);
    }
    let Some(tag) = &image.tag else {
        return Ok(Vec::new());
    };
    // A tag is the image's name, begins with it, or is in a repository that ends with it.
    let mut names = index.names(source)?;
    names.retain(|name| {
        let rest = tag.strip_prefix(name.as_str());
        let own = image.repository.rsplit('/').next() == Some(name);
        own || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    let mut found = Vec::new();
    for name in names {
        found.extend(by_name(index, source, &name, Status::ALL.into())?);
    }
    found.retain(|found| {
        let summary = &found.summary;
        summary.repository == image.repository && summary.tags.contains(tag)
    });
    found.sort_by_key(|found| std::cmp::Reverse(found.summary.pushed_ms));
    let name = found.first().map(|found| found.summary.name.clone());
    found.retain(|found| name.as_ref() == Some(&found.summary.name));
    Ok(found)
}

/// One record for each name and platform: the first that was found.
fn documents(
    index: &Index,
    catalog: Option<&Catalog>,
    source: &str,
    mut found: Vec<Found>,
) -> Result<Vec<RecordDocument>, CatalogError> {
    let mut seen = BTreeSet::new();
    found.retain(|found| seen.insert((found.summary.name.clone(), found.summary.platform)));
    let mut records = Vec::new();
    for found in found {
        if let Some(record) = index.record(source, &found.summary.record)? {
            records.push(document(index, catalog, source, found, record)?);
        }
    }
    Ok(records)
}

fn by_name(
    index: &Index,
    source: &str,
    name: &str,
    status: BTreeSet<Status>,
) -> Result<Vec<Found>, CatalogError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if !name.chars().all(plain) {
        return Ok(Vec::new());
    }
    let query = Query {
        name: Some(name.parse()?),
        status,
        ..Query::default()
    };
    Ok(index.page(source, &query, None, MOST, None)?.images)
}

fn document(
    index: &Index,
    catalog: Option<&Catalog>,
    source: &str,
    found: Found,
    record: Record,
) -> Result<RecordDocument, CatalogError> {
    let bases: Vec<Digest> = [record.digest].into_iter().chain(record.index).collect();
    let children = index.above(source, &bases, MOST)?.into_iter();
    Ok(RecordDocument {
        status: match found.status {
            Status::Ready => RecordStatus::Ready,
            _ => RecordStatus::Outdated,
        },
        reference: reference(catalog, &record.repository, record.digest),
        digest: found.summary.record,
        pushed: instant(record.pushed_ms),
        signers: record.signers().collect(),
        children: children
            .map(|child| Child {
                name: child.summary.name,
                platform: child.summary.platform,
                digest: child.summary.digest,
            })
            .collect(),
        record,
    })
}

/// Asks the registry whether the images are still there, and who signed them.
fn look_there(
    context: &Context,
    catalog: &Catalog,
    document: &mut RecordsDocument,
) -> Result<(), Failure> {
    let cache = catalog.place().cache();
    let tags = context.wait(catalog.registry().tags(&cache))?;
    for record in &mut document.records {
        let signers = context.wait(catalog.signers(&record.record, &tags))?;
        record.signers = signers.into_iter().collect();
        let Some(place) = record.reference.as_deref().and_then(parsed) else {
            continue;
        };
        if context
            .wait(catalog.registry().head_manifest(&place))?
            .is_none()
        {
            record.status = RecordStatus::Gone;
        }
    }
    Ok(())
}

fn text(document: &RecordsDocument) -> String {
    let lines = document.records.iter().flat_map(lines);
    lines.map(|line| neutral(&line) + "\n").collect()
}

fn lines(document: &RecordDocument) -> Vec<String> {
    let record = &document.record;
    let (keys, base) = (&record.keys, &record.base);
    let status = match document.status {
        RecordStatus::Ready => "READY",
        RecordStatus::Outdated => "OUTDATED",
        RecordStatus::Gone => "GONE: the registry does not have this image any more",
    };
    let mut lines = vec![format!("{} for {}", record.name, record.platform)];
    let mut line = |title: &str, value: &str| lines.push(format!("  {title:<11}{value}"));
    line("status", status);
    let place = document.reference.clone();
    line("image", &place.unwrap_or_else(|| record.digest.to_string()));
    if let Some(index) = &record.index {
        line("index", &index.to_string());
    }
    line("tags", &record.tags.join(", "));
    line("pushed", &document.pushed);
    let supersedes = record.supersedes.map(|digest| digest.to_string());
    line("supersedes", supersedes.as_deref().unwrap_or("nothing"));
    line("python", &record.python);
    line("base", &format!("{} ({})", base.name, base.root));
    for (title, key) in [
        ("record", &document.digest),
        ("request", &keys.request),
        ("set", &keys.set),
        ("content", &keys.content),
        ("key", &keys.image),
    ] {
        line(title, &key.to_string());
    }
    let signers = match document.signers.is_empty() {
        true => "nobody".to_owned(),
        false => document.signers.join(", "),
    };
    line("signed by", &signers);
    lines.push(format!("  layers ({})", record.layers.len()));
    for layer in &record.layers {
        let digest = layer.digest.short();
        lines.push(format!(
            "    {digest} {:>8} {}",
            size(layer.size),
            layer.comment
        ));
    }
    let os = record.requested.os.iter().map(|os| match &os.version {
        Some(version) => format!("{} {version}", os.name),
        None => os.name.clone(),
    });
    let requested = record.requested.pip.iter().map(|pip| format!("pip {pip}"));
    lines.push("  requested".into());
    lines.extend(
        requested
            .chain(os.map(|os| format!("os {os}")))
            .map(|text| format!("    {text}")),
    );
    for (kind, packages) in [("pip", &record.pip), ("os", &record.os)] {
        lines.push(format!("  installed, {kind} ({})", packages.len()));
        lines.extend(packages.iter().map(installed));
    }
    if !document.children.is_empty() {
        lines.push(format!("  images above it ({})", document.children.len()));
    }
    for child in &document.children {
        lines.push(format!(
            "    {} {} {}",
            child.name, child.platform, child.digest
        ));
    }
    lines
}

fn installed(package: &PackageRecord) -> String {
    format!("    {} {}", package.name, package.version)
}
