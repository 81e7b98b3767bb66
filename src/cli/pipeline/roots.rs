//! What of a store has to stay: what registered locks pin, and what images need that these locks still mean.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
use crate::diagnostic::SourceText;
use crate::digest::Digest;
use crate::identity::SetDocument;
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

/// Reads the registered locks and the state, as if the images `without` were not in it.
///
/// # Errors
/// Those of the store.
pub fn read(
    store: &Store,
    state: &State,
    inventory: &Inventory,
    without: &[&ImageRow],
) -> Result<Rooted, Failure> {
    let mut rooted = Rooted::default();
    rooted.roots.needs = recipes(store, inventory);
    let mut meant = Meant::default();
    for path in state.roots()? {
        match read_lock(&path) {
            Ok(Some(lock)) => meant.add(lock),
            Ok(None) => rooted.gone.push(path),
            Err(reason) => rooted.unreadable.push((path, reason)),
        }
    }
    rooted.roots.unknown = !rooted.unreadable.is_empty();
    let images = state.all_images()?.into_iter();
    let images = images.filter(|image| !without.contains(&image));
    rooted.images(state, &meant, images)?;
    rooted.layers(state, &meant)?;
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

    fn images(
        &mut self,
        state: &State,
        meant: &Meant,
        images: impl Iterator<Item = ImageRow>,
    ) -> Result<(), Failure> {
        let held = &mut self.roots.held;
        for row in images {
            let Some(image) = image_of(&row) else {
                continue;
            };
            if meant.image(state, &row, &image)? {
                held.extend(things_of(&image));
            }
            let mut needs: Vec<Item> = image.layers.iter().flat_map(needs_of).collect();
            if needs.is_empty() {
                // All layers are a registry's: of such an image the store has its manifest, or nothing.
                needs.push(blob(&image.digest()));
            }
            self.rows.push((row_of(&row), needs));
        }
        Ok(())
    }

    fn layers(&mut self, state: &State, meant: &Meant) -> Result<(), Failure> {
        let held = &mut self.roots.held;
        for (key, document) in state.layers()? {
            let Ok(layer) = serde_json::from_str::<Layer>(&document) else {
                continue;
            };
            if meant.diff_ids.contains(&layer.diff_id) {
                held.extend(things_of_layer(&layer));
            }
            self.rows.push((Row::Layer(key), needs_of(&layer)));
        }
        for (digest, document) in state.bases()? {
            let Ok(base) = serde_json::from_str::<BaseImage>(&document) else {
                continue;
            };
            let layers: Vec<Layer> = base.layers.iter().map(crate::image::base_layer).collect();
            if meant.bases.contains(&base.digest) {
                held.extend(layers.iter().flat_map(things_of_layer));
                held.insert(blob(&base.digest));
                held.insert(blob(&Digest::of(&base.config)));
            }
            let needs = layers.iter().flat_map(needs_of).collect();
            self.rows.push((Row::Base(digest), needs));
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

/// Everything that the store may have of an image, unpacked layers included.
pub fn image_things(row: &ImageRow) -> Vec<Item> {
    image_of(row).as_ref().map(things_of).unwrap_or_default()
}

/// The image of a row; `None` if this program cannot read it.
fn image_of(row: &ImageRow) -> Option<Image> {
    serde_json::from_str(&row.document).ok()
}

fn things_of(image: &Image) -> Vec<Item> {
    let mut things = vec![blob(&image.digest()), blob(&image.config_digest())];
    things.extend(image.layers.iter().flat_map(things_of_layer));
    things
}

/// Where the bytes of a layer can be, and its tree.
fn things_of_layer(layer: &Layer) -> Vec<Item> {
    vec![
        blob(&layer.digest),
        Item::new(Kind::Recipe, layer.key.hex()),
        Item::new(Kind::Tree, layer.diff_id.hex()),
    ]
}

/// What a row with this layer is of no use without. Bytes that a registry has can be pulled again.
fn needs_of(layer: &Layer) -> Vec<Item> {
    match layer.content {
        LayerContent::Blob => vec![blob(&layer.digest)],
        LayerContent::Recipe => vec![Item::new(Kind::Recipe, layer.key.hex())],
        LayerContent::Registry => Vec::new(),
    }
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
    locks: Vec<Lock>,
    diff_ids: BTreeSet<Digest>,
    /// Manifests of `from` images.
    bases: BTreeSet<Digest>,
}

impl Meant {
    /// Whether a lock names this image, or pins what it was made from. Where it is not known what that was, the same
    /// request is enough.
    fn image(&self, state: &State, row: &ImageRow, image: &Image) -> Result<bool, Failure> {
        let document = state.document(&row.inputs)?;
        let set: Option<SetDocument> = document.and_then(|text| serde_json::from_str(&text).ok());
        let means = |lock: &Lock| {
            let images = lock.images.values();
            let mut images = images.filter_map(|platforms| platforms.get(&image.platform));
            images.any(|locked| {
                let same = locked.request == row.request;
                let pinned = |set: &SetDocument| set.is_pinned_by(lock, locked);
                locked.digest == Some(row.digest) || same && set.as_ref().is_none_or(pinned)
            })
        };
        Ok(self.locks.iter().any(means))
    }

    fn add(&mut self, lock: Lock) {
        let wheels = lock.wheels.values().map(|wheel| wheel.sha256);
        let files = wheels.chain(lock.debs.values().map(|deb| deb.sha256));
        let files = files.map(|digest| Item::new(Kind::Artifact, digest.hex()));
        self.items.extend(files);
        for platforms in lock.images.values() {
            for image in platforms.values() {
                self.diff_ids.extend(image.os_diff_id);
                match &image.base {
                    LockedBase::From { digest, .. } => {
                        self.bases.insert(*digest);
                    }
                    LockedBase::Debian { diff_id, .. } => self.diff_ids.extend(*diff_id),
                }
            }
        }
        self.locks.push(lock);
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
