//! `rm`: images out of the store, or out of the declared registry.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::context::{Context, unknown};
use super::failure::Failure;
use super::output::{self, size};
use super::pipeline::{removal, roots};
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::store::gc::{self, Found, Inventory, Item, Policy};
use crate::store::{ImageRow, State, Store};

/// Flags of `rm`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Images, by declared name or digest (sha256:…; of one in a registry its first four digits or more)
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Free their space at once instead of leaving it to `gc`
    #[arg(long, conflicts_with = "registry")]
    now: bool,
    /// Remove from the declared registry instead of the store
    #[arg(long)]
    registry: bool,
    /// Also if it is protected, or other images build on it, or are the same one and go with it
    #[arg(long)]
    force: bool,
}

/// What `rm --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct RmDocument {
    /// What was removed.
    pub removed: Vec<RemovedDocument>,
    /// Bytes that were freed.
    pub freed_bytes: u64,
}

/// One image that was removed.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct RemovedDocument {
    /// Declared name.
    pub name: String,
    /// Digest of its manifest or index.
    pub digest: Digest,
    /// Its repository, if it was removed from a registry.
    pub repository: Option<String>,
}

/// Removes.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (removed, freed_bytes) = if arguments.registry {
        let manifest = context.manifest()?;
        let wanted = removal::Wanted {
            images: &arguments.images,
            force: arguments.force,
        };
        (removal::remove(context, &manifest, &wanted)?, 0)
    } else {
        local(context, arguments)?
    };
    let document = RmDocument {
        removed,
        freed_bytes,
    };
    if context.global.json {
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    for image in &document.removed {
        let place = image.repository.as_deref();
        let place = place.map_or("the store".to_owned(), |name| {
            format!("the registry ({name})")
        });
        output::line(&format!(
            "removed {} {} from {place}",
            image.name, image.digest
        ));
    }
    if arguments.now {
        output::line(&format!("{} were freed", size(freed_bytes)));
    }
    Ok(ExitCode::SUCCESS)
}

fn local(context: &Context, arguments: &Arguments) -> Result<(Vec<RemovedDocument>, u64), Failure> {
    let store = context.store_to_free()?;
    let state = store.state_to_read()?;
    let rows = state.all_images()?;
    let chosen = choose(&rows, &arguments.images)?;
    if !arguments.force && context.manifest_path.exists() {
        refuse_parents(&context.manifest()?, &rows, &chosen)?;
    }
    // Files first: on a full disk they make room for the state to be changed.
    let freed = match arguments.now {
        true => free(context, &store, state, &rows, &chosen)?,
        false => {
            drop(state);
            BTreeMap::new()
        }
    };
    let state = store.state()?;
    for row in &chosen {
        state.remove_row(&roots::row_of(row))?;
    }
    let removed = chosen.iter().map(|row| RemovedDocument {
        name: row.name.clone(),
        digest: row.digest,
        repository: None,
    });
    Ok((
        removed.collect(),
        freed.values().map(|found| found.bytes).sum(),
    ))
}

/// The rows that the words on the command line mean.
fn choose<'a>(rows: &'a [ImageRow], words: &[String]) -> Result<Vec<&'a ImageRow>, Failure> {
    let mut chosen = Vec::new();
    for word in words {
        let meant = |row: &&ImageRow| row.name == *word || row.digest.to_string() == *word;
        let found: Vec<&ImageRow> = rows.iter().filter(meant).collect();
        if found.is_empty() {
            let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
            return Err(unknown(
                "image in the store called",
                word,
                names.into_iter(),
            ));
        }
        chosen.extend(found);
    }
    chosen.sort_by_key(|row| (&row.name, &row.platform, row.key));
    chosen.dedup();
    Ok(chosen)
}

/// Others that begin with one of these images, are in the store and are not removed with them.
fn refuse_parents(
    manifest: &Manifest,
    rows: &[ImageRow],
    chosen: &[&ImageRow],
) -> Result<(), Failure> {
    for row in chosen {
        let others = removal::children(manifest, &row.name).into_iter();
        let mut others = others.filter(|other| {
            rows.iter().any(|row| row.name == *other)
                && !chosen.iter().any(|row| row.name == *other)
        });
        if let Some(other) = others.next() {
            return Err(Failure::plain(
                Kind::Refused,
                format!("image `{other}` is built on `{}`", row.name),
                format!("remove `{other}` too, or give --force"),
            ));
        }
    }
    Ok(())
}

/// Removes what only the chosen images needed: nothing that a lock roots, that another image of the store needs, or
/// that a running process uses.
fn free(
    context: &Context,
    store: &Store,
    state: State,
    rows: &[ImageRow],
    chosen: &[&ImageRow],
) -> Result<BTreeMap<Item, Found>, Failure> {
    let inventory = Inventory::take(store)?;
    let mut rooted = roots::read(store, &state, &inventory, chosen)?;
    drop(state);
    rooted.tell_unreadable(&*context.progress);
    let others = rows.iter().filter(|row| !chosen.contains(row));
    rooted
        .roots
        .held
        .extend(others.flat_map(roots::image_things));
    let only = chosen.iter().flat_map(|row| roots::image_things(row));
    let policy = Policy {
        before: UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 1000),
        max_size: None,
        everything: false,
        only: Some(rooted.roots.closure(only)),
        runs: BTreeSet::new(),
    };
    let plan = gc::plan(&inventory, &rooted.roots, &gc::leased(store)?, &policy);
    super::gc::collect(store, &rooted, &plan)
}
