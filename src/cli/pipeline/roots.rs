//! What of a store has to stay: what registered locks pin, and what images need that these locks still mean.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::building::inputs_key;
use crate::cli::failure::Failure;
use crate::diagnostic::SourceText;
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::recipe::Recipe;
use crate::layer::{Layer, LayerContent};
use crate::lock::{Lock, LockedBase};
use crate::progress::Progress;
use crate::resolve::base::BaseImage;
use crate::store::gc::{Inventory, Item, Kind, Roots, Row};
use crate::store::{ImageRow, State, Store};

/// Largest lock that is read, in bytes.
const LOCK_LIMIT: u64 = 64 << 20;

/// What a store's state says of its things.
#[derive(Debug, Default)]
pub struct Rooted {
    /// What has to stay.
    pub roots: Roots,
    /// Rows of the state, and what they are of no use without.
    pub rows: Vec<(Row, Vec<Item>)>,
    /// Registered locks that exist no more: not roots any longer.
    pub gone: Vec<PathBuf>,
    /// Registered locks that cannot be read, and why: nothing is known of what they root.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Reads the registered locks and the state.
///
/// # Errors
/// Those of the store.
pub fn read(store: &Store, inventory: &Inventory) -> Result<Rooted, Failure> {
    let state = store.state()?;
    let mut rooted = Rooted::default();
    rooted.roots.needs = recipes(store, inventory);
    let mut meant = Meant::default();
    for path in state.roots()? {
        match read_lock(&path) {
            Ok(Some(lock)) => meant.add(&lock),
            Ok(None) => rooted.gone.push(path),
            Err(reason) => rooted.unreadable.push((path, reason)),
        }
    }
    rooted.roots.unknown = !rooted.unreadable.is_empty();
    rooted.rows(&state, &meant)?;
    rooted.roots.held.extend(meant.items);
    Ok(rooted)
}

impl Rooted {
    /// Warns of locks that cannot be read: for their sake nothing goes but what is made again from what stays.
    pub fn tell_unreadable(&self, progress: &dyn Progress) {
        for (path, reason) in &self.unreadable {
            progress.warn(&format!(
                "the registered lock {} cannot be read ({reason}): what it roots is not known, so only unpacked layers \
                 and caches go; repair the file, or delete it",
                path.display()
            ));
        }
    }

    fn rows(&mut self, state: &State, meant: &Meant) -> Result<(), Failure> {
        let held = &mut self.roots.held;
        for row in state.all_images()? {
            let Some(needs) = image_needs(&row) else {
                continue;
            };
            if meant.images.contains(&row.inputs) {
                held.extend(needs.iter().cloned());
            }
            self.rows.push((row_of(&row), without_trees(needs)));
        }
        for (key, document) in state.layers()? {
            let Ok(layer) = serde_json::from_str::<Layer>(&document) else {
                continue;
            };
            let needs = of_layer(&layer);
            if meant.diff_ids.contains(&layer.diff_id) {
                held.extend(needs.iter().cloned());
            }
            self.rows.push((Row::Layer(key), without_trees(needs)));
        }
        for (digest, document) in state.bases()? {
            let Ok(base) = serde_json::from_str::<BaseImage>(&document) else {
                continue;
            };
            let layers = base.layers.iter().map(crate::image::base_layer);
            let needs: Vec<Item> = layers.flat_map(|layer| of_layer(&layer)).collect();
            if meant.bases.contains(&base.digest) {
                held.extend(needs.iter().cloned());
                held.insert(blob(&base.digest));
                held.insert(blob(&Digest::of(&base.config)));
            }
            self.rows.push((Row::Base(digest), without_trees(needs)));
        }
        Ok(())
    }
}

/// The row's name in the state.
pub fn row_of(row: &ImageRow) -> Row {
    Row::Image {
        name: row.name.clone(),
        platform: row.platform.clone(),
        key: row.key.to_string(),
    }
}

/// What an image consists of, unpacked layers included; `None` if its row cannot be read.
pub fn image_needs(row: &ImageRow) -> Option<Vec<Item>> {
    let image: Image = serde_json::from_str(&row.document).ok()?;
    let mut needs = vec![blob(&image.digest()), blob(&image.config_digest())];
    needs.extend(image.layers.iter().flat_map(of_layer));
    Some(needs)
}

fn of_layer(layer: &Layer) -> Vec<Item> {
    let tree = Item::new(Kind::Tree, layer.diff_id.hex());
    match layer.content {
        LayerContent::Blob => vec![blob(&layer.digest), tree],
        LayerContent::Recipe => vec![Item::new(Kind::Recipe, layer.key.hex()), tree],
        LayerContent::Registry => vec![tree],
    }
}

fn without_trees(mut items: Vec<Item>) -> Vec<Item> {
    items.retain(|item| item.kind != Kind::Tree);
    items
}

fn blob(digest: &Digest) -> Item {
    Item::new(Kind::Blob, digest.hex())
}

/// Recipe → the wheels that it streams from.
fn recipes(store: &Store, inventory: &Inventory) -> BTreeMap<Item, Vec<Item>> {
    let recipes = inventory
        .items
        .keys()
        .filter(|item| item.kind == Kind::Recipe);
    let wheels = |item: &Item| {
        // One that cannot be read is made anew by who wants it.
        let wheels = Recipe::wheels_in(&item.path(store)).unwrap_or_default();
        let wheels = wheels.into_iter().map(|wheel| wheel.hex());
        wheels.map(|wheel| Item::new(Kind::Artifact, wheel))
    };
    recipes
        .map(|item| (item.clone(), wheels(item).collect()))
        .collect()
}

/// What living locks mean.
#[derive(Default)]
struct Meant {
    items: BTreeSet<Item>,
    /// Keys of everything that decides an image.
    images: BTreeSet<Digest>,
    diff_ids: BTreeSet<Digest>,
    /// Manifests of `from` images.
    bases: BTreeSet<Digest>,
}

impl Meant {
    fn add(&mut self, lock: &Lock) {
        let wheels = lock.wheels.values().map(|wheel| wheel.sha256);
        let files = wheels.chain(lock.debs.values().map(|deb| deb.sha256));
        let files = files.map(|digest| Item::new(Kind::Artifact, digest.hex()));
        self.items.extend(files);
        for platforms in lock.images.values() {
            for (platform, image) in platforms {
                self.images.insert(inputs_key(lock, image, *platform));
                self.diff_ids.extend(image.os_diff_id);
                match &image.base {
                    LockedBase::From { digest, .. } => {
                        self.bases.insert(*digest);
                    }
                    LockedBase::Debian { diff_id, .. } => self.diff_ids.extend(*diff_id),
                }
            }
        }
    }
}

/// A registered lock; `None` if there is none any more.
fn read_lock(path: &Path) -> Result<Option<Lock>, String> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    if !meta.is_file() || meta.len() > LOCK_LIMIT {
        return Err("it is not a lock file".into());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let source = SourceText::new(path.display().to_string(), text);
    match Lock::parse(&source) {
        Ok(lock) => Ok(Some(lock)),
        Err(problems) => Err(problems.0.first().map_or_else(
            || "it is not a lock".to_owned(),
            |problem| problem.message.clone(),
        )),
    }
}
