//! Which of the images that satisfy a request is taken.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{Reason, Wanted, satisfy};
use crate::catalog::{CatalogError, PipFilter, Query, Record, RequestRecord};
use crate::digest::Digest;
use crate::identity::RequestDocument;

/// Most images that are tried one after the other.
const TRIED: usize = 10;
/// Most images of which it is told why they do not satisfy a request.
const NEAREST: usize = 3;

/// The answer of a catalog to a request.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Images that satisfy it, or may do so as their lock will tell; the best first. Not all, if there are many.
    pub fitting: Vec<Record>,
    /// The images with the fewest reasons not to satisfy it, the nearest first, if none fits; at most [`NEAREST`].
    pub closest: Vec<(Record, Vec<Reason>)>,
    /// How many images were looked at.
    pub seen: usize,
}

/// Smaller is better: an image that was asked for the same, then the one that brings least beside what is asked for,
/// then the newest; equal ones by digest.
type Rank = (usize, Reverse<i64>, Digest);

/// Looks at images one after the other. The answer does not depend on their order.
///
/// # Errors
/// The first of the records'.
pub fn choose(
    wanted: &Wanted<'_>,
    records: impl Iterator<Item = Result<Record, CatalogError>>,
) -> Result<Choice, CatalogError> {
    let asked = RequestRecord::from(wanted.document);
    let mut fitting: Vec<(Rank, Record)> = Vec::new();
    let mut closest = Nearest::default();
    let mut seen = 0;
    for record in records {
        let record = record?;
        seen += 1;
        let rank = rank(&asked, &record);
        let reasons = satisfy(wanted, &record);
        if reasons.iter().all(|reason| reason.unproven) {
            let at = fitting.partition_point(|(other, _)| *other < rank);
            fitting.insert(at, (rank, record));
            fitting.truncate(TRIED);
        } else {
            closest.add(rank, record, reasons);
        }
    }
    let closest = match fitting.is_empty() {
        true => closest.list(),
        false => Vec::new(),
    };
    Ok(Choice {
        fitting: fitting.into_iter().map(|(_, record)| record).collect(),
        closest,
        seen,
    })
}

/// Of images and the reasons why they do not satisfy a request, those with the fewest, the nearest first; at most
/// [`NEAREST`]. Images without a reason are not among them.
pub fn nearest(
    wanted: &Wanted<'_>,
    judged: impl IntoIterator<Item = (Record, Vec<Reason>)>,
) -> Vec<(Record, Vec<Reason>)> {
    let asked = RequestRecord::from(wanted.document);
    let mut nearest = Nearest::default();
    for (record, reasons) in judged {
        if !reasons.is_empty() {
            nearest.add(rank(&asked, &record), record, reasons);
        }
    }
    nearest.list()
}

/// Images with the fewest reasons, the nearest first.
#[derive(Default)]
struct Nearest(Vec<(Rank, Record, Vec<Reason>)>);

impl Nearest {
    fn add(&mut self, rank: Rank, record: Record, reasons: Vec<Reason>) {
        let nearer = |(other, _, others): &(Rank, Record, Vec<Reason>)| {
            (others.len(), other) < (reasons.len(), &rank)
        };
        let at = self.0.partition_point(nearer);
        if at < NEAREST {
            self.0.insert(at, (rank, record, reasons));
            self.0.truncate(NEAREST);
        }
    }

    fn list(self) -> Vec<(Record, Vec<Reason>)> {
        let all = self.0.into_iter();
        all.map(|(_, record, reasons)| (record, reasons)).collect()
    }
}

fn rank(asked: &RequestRecord, record: &Record) -> Rank {
    let packages = match record.requested == *asked {
        true => 0,
        false => 1 + record.pip.len() + record.os.len(),
    };
    (packages, Reverse(record.pushed_ms), record.digest)
}

/// Filters that every image that satisfies the request passes, so that a catalog need not look at the others.
pub fn narrowed(document: &RequestDocument) -> Query {
    Query {
        pip: packages(document, name),
        platform: Some(document.platform),
        ..Query::default()
    }
}

/// Filters of which an image that comes near the request passes many.
pub fn wishes(document: &RequestDocument) -> Vec<PipFilter> {
    let versions = packages(document, |requirement| requirement);
    packages(document, name)
        .into_iter()
        .chain(versions)
        .collect()
}

/// A part of every requirement that is always in force, read as a filter as far as it is one.
fn packages(document: &RequestDocument, part: fn(&str) -> &str) -> Vec<PipFilter> {
    // A marker or an override can take a requirement back.
    let plain = document.pip.iter().map(|line| line.requirement.as_str());
    let plain = plain.filter(|text| document.overrides.is_empty() && !text.contains(';'));
    let parts: BTreeSet<&str> = plain.map(part).collect();
    let filters = parts.into_iter().map(|part| part.parse::<PipFilter>());
    filters.filter_map(Result::ok).collect()
}

fn name(requirement: &str) -> &str {
    let end = requirement.find(['[', '<', '>', '=', '!', '~', ' ', '@']);
    &requirement[..end.unwrap_or(requirement.len())]
}
