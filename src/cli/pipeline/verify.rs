//! `--verify-substitutes`: what was built here against what the registry says of the same keys.

use super::building::Built;
use crate::catalog::{Catalog, Record, RecordLayer};
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::layer::Layer;
use crate::manifest::TrustedKey;

/// At most this many layers are listed that differ.
const LISTED: usize = 20;

/// How many claims of the registry agree with `built`: on the image, else on its layers.
///
/// # Errors
/// When the registry cannot be asked, or says something else.
pub async fn agreeing(
    catalog: &Catalog,
    keys: &[TrustedKey],
    name: &str,
    built: &Built,
) -> Result<usize, Failure> {
    let claims = catalog.images(&built.set, keys).await?;
    if let Some(error) = claims.refused.into_iter().next() {
        return Err(error.into());
    }
    if claims.records.is_empty() {
        return agreeing_layers(catalog, keys, name, built).await;
    }
    for record in &claims.records {
        if record.digest != built.image.digest() {
            return Err(image_differs(catalog, name, built, record));
        }
    }
    Ok(claims.records.len())
}

async fn agreeing_layers(
    catalog: &Catalog,
    keys: &[TrustedKey],
    name: &str,
    built: &Built,
) -> Result<usize, Failure> {
    let mut agreeing = 0;
    let mut differing = Vec::new();
    for layer in &built.image.layers[built.image.base_layers..] {
        let claims = catalog.layers(&layer.key, keys).await?;
        if let Some(error) = claims.refused.into_iter().next() {
            return Err(error.into());
        }
        for claim in claims.records {
            match same(layer, &claim.layer) {
                true => agreeing += 1,
                false => differing.push(difference(layer, &claim.layer)),
            }
        }
    }
    match differing.is_empty() {
        true => Ok(agreeing),
        false => Err(refused(
            format!("layers of {name} are not what the registry has"),
            differing,
        )),
    }
}

fn image_differs(catalog: &Catalog, name: &str, built: &Built, record: &Record) -> Failure {
    let ours = &built.image.layers;
    let pairs = ours.iter().zip(&record.layers);
    let mut differing: Vec<String> = pairs
        .filter(|(ours, theirs)| !same(ours, theirs))
        .map(|(ours, theirs)| difference(ours, theirs))
        .collect();
    if ours.len() != record.layers.len() {
        differing.push(format!(
            "{} layers here, {} there",
            ours.len(),
            record.layers.len()
        ));
    }
    if differing.is_empty() {
        differing.push("the layers are the same, the configuration differs".into());
    }
    let message = format!(
        "{name} is {} here, {} in {}",
        built.image.digest(),
        record.digest,
        catalog.place().root()
    );
    refused(message, differing)
}

fn same(ours: &Layer, theirs: &RecordLayer) -> bool {
    (ours.digest, ours.diff_id) == (theirs.digest, theirs.diff_id)
}

fn difference(ours: &Layer, theirs: &RecordLayer) -> String {
    format!(
        "{}: {} here, {} there",
        ours.comment, ours.digest, theirs.digest
    )
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
