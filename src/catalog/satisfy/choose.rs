//! Which of the images that satisfy a request is taken.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{Reason, Wanted, satisfy};
use crate::catalog::{CatalogError, PipFilter, Query, Record, RequestRecord};
use crate::digest::Digest;
use crate::identity::RequestDocument;

/// Most images that are tried one after the other.
const TRIED: usize = 10;

/// The answer of a catalog to a request.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Images that satisfy it, or may do so as their lock will tell; the best first. Not all, if there are many.
    pub fitting: Vec<Record>,
    /// The image that has the fewest reasons not to, if none fits.
    pub closest: Option<(Record, Vec<Reason>)>,
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
    let mut closest: Option<(usize, Rank, Record, Vec<Reason>)> = None;
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
        } else if closest
            .as_ref()
            .is_none_or(|(count, other, ..)| (reasons.len(), &rank) < (*count, other))
        {
            closest = Some((reasons.len(), rank, record, reasons));
        }
    }
    let closest = closest.filter(|_| fitting.is_empty());
    Ok(Choice {
        fitting: fitting.into_iter().map(|(_, record)| record).collect(),
        closest: closest.map(|(_, _, record, reasons)| (record, reasons)),
        seen,
    })
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
    // A marker or an override can take a requirement back.
    let plain = document.pip.iter().map(|line| line.requirement.as_str());
    let plain = plain.filter(|text| document.overrides.is_empty() && !text.contains(';'));
    let names: BTreeSet<&str> = plain
        .filter_map(|text| text.split(['[', '<', '>', '=', '!', '~', ' ', '@']).next())
        .collect();
    Query {
        pip: names
            .into_iter()
            .filter_map(|name| name.parse::<PipFilter>().ok())
            .collect(),
        platform: Some(document.platform),
        ..Query::default()
    }
}
