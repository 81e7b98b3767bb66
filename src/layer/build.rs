//! Planned wheel layers → layers: those that the store has a recipe for are taken as they are, the others are spliced.
//!
//! Layers are made in parallel, the largest first; their bytes depend on neither. How long each took can be told from the
//! events of [`Progress`]: one `begin` and `end` of [`Stage::Layer`] per layer that is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::entry::Entry;
use super::error::LayerError;
use super::plan::{PinnedWheel, WheelLayerPlan, open};
use super::recipe::{Recipe, RecipeFile, RecipeWheel};
use super::splice::{Budget, Context, Member, MemberContent, splice};
use super::wheel::{Content, Item, Wheel};
use super::{LAYER_MEDIA_TYPE, Layer, LayerContent};
use crate::identity::LayerDocument;
use crate::progress::{Progress, Stage};
use crate::store::Store;

/// Bytes of buffers that all layers in work may hold together.
const BUFFERS: u64 = 128 << 20;
/// More layers than this in work at once would only cost memory.
const MAX_JOBS: usize = 16;

/// Makes the layers of `plans`, in their order, `jobs` at a time.
///
/// # Errors
/// The first that occurred; what was finished before stays in the store.
pub fn build_wheel_layers(
    store: &Store,
    plans: &[WheelLayerPlan],
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Vec<Layer>, LayerError> {
    let mut layers = Vec::new();
    let mut todo = Vec::new();
    for (index, plan) in plans.iter().enumerate() {
        let known = Recipe::load(store, &plan.key)?.map(|recipe| recipe.layer);
        if known.is_none() {
            todo.push(index);
        }
        layers.push(known);
    }
    todo.sort_by_key(|&index| std::cmp::Reverse(plans[index].work));
    let made = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let budget = Budget::new(BUFFERS);
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(&index) = todo.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let layer = build(store, &plans[index], &budget, progress);
            stop.fetch_or(layer.is_err(), Ordering::Relaxed);
            made.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((index, layer));
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs.clamp(1, MAX_JOBS).min(todo.len().max(1)) {
            scope.spawn(worker);
        }
        worker();
    });
    for (index, layer) in made.into_inner().unwrap_or_else(PoisonError::into_inner) {
        layers[index] = Some(layer?);
    }
    Ok(layers.into_iter().flatten().collect())
}

/// Compares the contents of a wheel with the hashes of its RECORD, once per store; later calls return at once.
///
/// Layers check this themselves where it is not known; the time to call it is when a wheel has arrived and others are
/// still on their way.
///
/// # Errors
/// When the wheel is missing or refused.
pub fn verify_wheel(store: &Store, wheel: &PinnedWheel) -> Result<(), LayerError> {
    if store.is_checked(&wheel.sha256) {
        return Ok(());
    }
    open(store, wheel)?.verify_contents()?;
    store.mark_checked(&wheel.sha256)?;
    Ok(())
}

fn build(
    store: &Store,
    plan: &WheelLayerPlan,
    budget: &Arc<Budget>,
    progress: &dyn Progress,
) -> Result<Layer, LayerError> {
    let mut wheels = Vec::new();
    for pin in &plan.wheels {
        wheels.push(open(store, pin)?);
    }
    let members = members(plan, &wheels)?;
    let total = members.iter().map(|member| member.entry.size()).sum();
    let id = progress.begin(Stage::Layer, &plan.comment, Some(total));
    let result = spliced(store, plan, &wheels, &members, budget, &|bytes| {
        progress.advance(id, bytes)
    });
    progress.end(id);
    result
}

fn spliced(
    store: &Store,
    plan: &WheelLayerPlan,
    wheels: &[Wheel],
    members: &[Member],
    budget: &Arc<Budget>,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Layer, LayerError> {
    let verify: Vec<bool> = plan
        .wheels
        .iter()
        .map(|pin| !store.is_checked(&pin.sha256))
        .collect();
    let context = Context {
        wheels,
        verify: &verify,
        budget,
        advance,
    };
    let mut file = RecipeFile::create(store)?;
    let path = file.path();
    let (packed, segments) =
        splice(context, members, &mut file).map_err(|error| error.at(&path))?;
    let layer = Layer {
        key: plan.key,
        media_type: LAYER_MEDIA_TYPE.into(),
        digest: packed.digest,
        size: packed.size,
        diff_id: packed.diff_id,
        unpacked: packed.unpacked,
        comment: plan.comment.clone(),
        content: LayerContent::Recipe,
    };
    let recipe = Recipe {
        layer,
        wheels: plan.wheels.iter().map(recipe_wheel).collect(),
        segments,
    };
    file.commit(store, &recipe)?;
    if matches!(plan.document, LayerDocument::Wheels { .. }) {
        for (pin, _) in plan
            .wheels
            .iter()
            .zip(&verify)
            .filter(|(_, verify)| **verify)
        {
            store.mark_checked(&pin.sha256)?;
        }
    }
    Ok(recipe.layer)
}

fn recipe_wheel(pin: &PinnedWheel) -> RecipeWheel {
    RecipeWheel {
        name: pin.file_name.clone(),
        sha256: pin.sha256,
    }
}

/// The entries of a layer, sorted by path, with all parent folders.
fn members(plan: &WheelLayerPlan, wheels: &[Wheel]) -> Result<Vec<Member>, LayerError> {
    let (python, winners) = match &plan.document {
        LayerDocument::Collisions {
            python, winners, ..
        } => (python, Some(winners)),
        LayerDocument::Wheels { python, .. } => (python, None),
        _ => return Ok(Vec::new()),
    };
    let mut files: BTreeMap<String, (usize, Item)> = BTreeMap::new();
    for (index, wheel) in wheels.iter().enumerate() {
        for item in wheel.install(python)? {
            let wins = winners
                .is_none_or(|winners| winners.get(&item.path) == Some(&plan.wheels[index].sha256));
            if !wins {
                continue;
            }
            files.insert(item.path.clone(), (index, item));
        }
    }
    let mut folders = BTreeSet::new();
    for (path, (_, item)) in &files {
        folders.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
        if matches!(item.content, Content::Folder) {
            folders.insert(path.clone());
        }
    }
    let mut members: Vec<Member> = folders.into_iter().map(folder).collect();
    members.extend(
        files
            .into_values()
            .filter_map(|(wheel, item)| file(wheel, item)),
    );
    members.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    Ok(members)
}

fn folder(path: String) -> Member {
    Member {
        entry: Entry::folder(path),
        content: MemberContent::Bytes(Vec::new()),
    }
}

fn file(wheel: usize, item: Item) -> Option<Member> {
    let mode = if item.executable { 0o755 } else { 0o644 };
    let (size, content) = match item.content {
        Content::Folder => return None,
        Content::Bytes(bytes) => (bytes.len() as u64, MemberContent::Bytes(bytes)),
        Content::Range(range) => (range.size, MemberContent::Range { wheel, range }),
    };
    Some(Member {
        entry: Entry::file(item.path, size, mode),
        content,
    })
}
