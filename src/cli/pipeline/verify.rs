//! `--verify-substitutes`: what was built here against everything that the registry says of the same keys.

use std::fmt::Write as _;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::building::Built;
use crate::catalog::{Catalog, CatalogError, Claims, Record, RecordLayer, Signature};
use crate::cli::failure::Failure;
use crate::diagnostic::{Kind, counted};
use crate::layer::Layer;
use crate::manifest::TrustedKey;

/// At most this many differences are listed.
const LISTED: usize = 20;
/// Layers that are asked for at a time.
const AT_A_TIME: usize = 16;

/// How many claims of the registry, on the image and on its layers, agree with `built`.
///
/// # Errors
/// When the registry cannot be asked, or says something else.
pub async fn agreeing(
    catalog: &Catalog,
    keys: &[TrustedKey],
    name: &str,
    built: &Built,
) -> Result<usize, Failure> {
    let mut found = Found::default();
    for record in records(catalog.images(&built.set, keys).await?)? {
        found.image(built, &record);
    }
    let own = &built.image.layers[built.image.base_layers..];
    let asked = own.iter().map(|layer| async move {
        let claims = catalog.layers(&layer.key, keys).await?;
        Ok::<_, CatalogError>((layer, records(claims)?))
    });
    let answers: Vec<_> = stream::iter(asked)
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    for (layer, records) in answers {
        for record in records {
            found.layer(layer, &record.layer, &record.signatures);
        }
    }
    if found.differing.is_empty() {
        return Ok(found.agreeing);
    }
    let message = format!(
        "{name} is {}, and {} has something else",
        built.image.digest(),
        catalog.place().root()
    );
    Err(refused(message, found.differing))
}

/// What there is; something under a key's tags that is no record at all is an error.
fn records<T>(claims: Claims<T>) -> Result<Vec<T>, CatalogError> {
    match claims.refused.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(claims.records),
    }
}

/// Claims held against what was built.
#[derive(Default)]
struct Found {
    agreeing: usize,
    /// In words.
    differing: Vec<String>,
}

impl Found {
    fn image(&mut self, built: &Built, record: &Record) {
        if record.digest == built.image.digest() {
            self.agreeing += 1;
            return;
        }
        let mut text = format!(
            "the image{}: {} there",
            signers(&record.signatures),
            record.digest
        );
        let ours = &built.image.layers;
        let pairs = ours.iter().zip(&record.layers);
        let differing = pairs.filter(|(ours, theirs)| !same(ours, theirs)).count();
        let _ = match (differing, ours.len() == record.layers.len()) {
            (0, true) => write!(text, ", with the same layers"),
            (0, false) => write!(text, ", with {}", counted(record.layers.len(), "layer")),
            _ => write!(text, ", with {}", counted(differing, "other layer")),
        };
        self.differing.push(text);
        let differing = ours.iter().zip(&record.layers);
        for (ours, theirs) in differing {
            if !same(ours, theirs) {
                self.layer(ours, theirs, &record.signatures);
            }
        }
    }

    fn layer(&mut self, ours: &Layer, theirs: &RecordLayer, signatures: &[Signature]) {
        if same(ours, theirs) {
            self.agreeing += 1;
            return;
        }
        let text = format!(
            "{}{}: {} here, {} there",
            ours.comment,
            signers(signatures),
            ours.digest,
            theirs.digest
        );
        if !self.differing.contains(&text) {
            self.differing.push(text);
        }
    }
}

fn same(ours: &Layer, theirs: &RecordLayer) -> bool {
    (ours.digest, ours.diff_id) == (theirs.digest, theirs.diff_id)
}

/// Who claims it, if it was signed.
fn signers(signatures: &[Signature]) -> String {
    let keys = signatures.iter();
    let keys = keys.filter_map(|signature| signature.key.parse::<TrustedKey>().ok());
    let keys: Vec<String> = keys.map(|key| key.to_string()).collect();
    match keys.is_empty() {
        true => String::new(),
        false => format!(" (signed by {})", keys.join(", ")),
    }
}

fn refused(message: String, mut differing: Vec<String>) -> Failure {
    let more = differing.len().saturating_sub(LISTED);
    differing.truncate(LISTED);
    if more > 0 {
        differing.push(format!("and {more} more"));
    }
    Failure::plain(
        Kind::Refused,
        format!("{message}\n  {}", differing.join("\n  ")),
        "a layer of OS packages may differ by its maintainer scripts; any other difference means that one of the two was \
         not made from these inputs",
    )
}
