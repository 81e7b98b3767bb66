//! Images of the store as publications: keys, records, SBOMs, and where layers that are not in the store come from.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use futures_util::future::{BoxFuture, FutureExt};

use super::accounts;
use super::artifacts::Artifacts;
use super::content::Content;
use super::told;
use crate::catalog::publish::{Edition, Extras, Facts, Materialise, describe};
use crate::catalog::{Accounts, LayerRecord};
use crate::cli::failure::{Failure, Plain};
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::identity::RequestDocument;
use crate::image::{Image, Packages, sbom};
use crate::layer::recipe::Recipe;
use crate::layer::{Layer, LayerContent, LayerContents, PinnedWheel, Told, files};
use crate::lock::{Lock, LockedBase, LockedImage};
use crate::manifest::tags::{self, DIRTY, GIT_DIGITS};
use crate::manifest::{ImageRequest, Platform};
use crate::oci::{Descriptor, ReadError};
use crate::registry::{Reference, RegistryError};
use crate::store::State;

/// What every image of one command shares.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The store with the images, and where artifacts come from that it has lost.
    pub artifacts: Artifacts<'a>,
    /// What the images answer.
    pub requests: &'a [ImageRequest],
    /// What they were made from.
    pub lock: &'a Lock,
    /// Repositories of the registry that artifacts come from, which have layers that the store does not have.
    pub holders: &'a [Reference],
}

impl Sources<'_> {
    /// The image in the lock.
    pub fn locked(&self, name: &str, platform: Platform) -> Result<&LockedImage, Failure> {
        let found = self.lock.images.get(name);
        found
            .and_then(|platforms| platforms.get(&platform))
            .ok_or_else(|| {
                Failure::plain(
                    Kind::NotFound,
                    format!("image `{name}` is not in the lock for {platform}"),
                    "run `imagewright lock` first",
                )
            })
    }

    /// What is told of an image wherever it goes.
    pub fn edition<'i>(
        &self,
        request: &ImageRequest,
        content: &Content,
        (image, set): (&'i Image, Digest),
        git: Option<&str>,
    ) -> Result<Edition<'i>, Failure> {
        let (name, platform) = (&request.name.value, image.platform);
        let locked = self.locked(name, platform)?;
        let document = RequestDocument::new(request, platform, &content.project)?;
        let record = describe(&Facts {
            image,
            request,
            document: &document,
            lock: self.lock,
            locked,
            set,
            git,
        })?;
        let told = self.told(image, locked)?;
        let licences = sbom::licences(self.artifacts.store, self.lock, locked, &told);
        let fragment = self.lock.only(name, platform).unwrap_or_default();
        Ok(Edition {
            image,
            record,
            lock: fragment.to_text(),
            sbom: sbom::document(image, self.lock, locked, &licences),
            extras: self.extras(image, locked)?,
        })
    }

    /// What is known of the image's layers beside their descriptors.
    pub fn extras(&self, image: &Image, locked: &LockedImage) -> Result<Vec<Extras>, Failure> {
        let base: Option<Reference> = match &locked.base {
            LockedBase::From { reference, .. } => reference.parse().ok(),
            LockedBase::Debian { .. } => None,
        };
        let state = self.artifacts.store.state()?;
        let mut wheels = self.wheels(image, locked);
        let layers = image.layers.iter().enumerate();
        let extras = layers.map(|(index, layer)| {
            let base = base.iter().filter(|_| index < image.base_layers);
            let holders = self.holders.iter();
            let holders = holders.filter(|_| layer.content == LayerContent::Registry);
            let told = self.record(&state, layer)?;
            let accounts = match self.accounts(&state, image, locked, index)? {
                None => told.as_ref().and_then(|told| told.accounts.clone()),
                known => known,
            };
            let paths = match wheels.remove(&index) {
                Some(wheels) => self.paths(&wheels, locked, told.as_ref())?,
                None => None,
            };
            Ok(Extras {
                accounts,
                paths,
                elsewhere: base.chain(holders).cloned().collect(),
            })
        });
        extras.collect()
    }

    /// What the registry told of a layer that it has and the store has not.
    fn record(&self, state: &State, layer: &Layer) -> Result<Option<LayerRecord>, Failure> {
        let lookup = self
            .artifacts
            .registry
            .filter(|_| layer.content != LayerContent::Recipe);
        let Some(lookup) = lookup else {
            return Ok(None);
        };
        Ok(told::record(state, &lookup.place().cache(), &layer.key)?)
    }

    /// The wheels of each layer that has some, by its index.
    fn wheels(&self, image: &Image, locked: &LockedImage) -> BTreeMap<usize, Vec<PinnedWheel>> {
        let mut layers: BTreeMap<usize, Vec<PinnedWheel>> = BTreeMap::new();
        for placed in Packages::of(image, self.lock, locked).wheels {
            if let Some(index) = placed.layer {
                let pin = PinnedWheel::of(placed.file, placed.locked);
                layers.entry(index).or_default().push(pin);
            }
        }
        layers
    }

    /// The document of a layer's paths: made of its wheels, else as it was told.
    fn paths(
        &self,
        wheels: &[PinnedWheel],
        locked: &LockedImage,
        told: Option<&LayerRecord>,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let here = |pin: &PinnedWheel| self.artifacts.store.artifact(&pin.sha256).is_some();
        if wheels.iter().all(here) {
            let python = files::python_document(&locked.python);
            let contents = LayerContents::of(self.artifacts.store, &python, wheels)?;
            return Ok(Some(contents.to_bytes()));
        }
        match told {
            Some(told) => Ok(told::paths(self.artifacts.store, told)?),
            None => Ok(None),
        }
    }

    /// What was told of wheels that are not here.
    fn told(&self, image: &Image, locked: &LockedImage) -> Result<Told, Failure> {
        let state = self.artifacts.store.state()?;
        let mut all = Told::new();
        for (index, wheels) in self.wheels(image, locked) {
            let Some(record) = self.record(&state, &image.layers[index])? else {
                continue;
            };
            let bytes = told::paths(self.artifacts.store, &record)?;
            let contents = bytes.and_then(|bytes| LayerContents::parse(&bytes, &wheels).ok());
            let contents = contents.into_iter().flat_map(|contents| contents.wheels);
            all.extend(contents.map(|wheel| (wheel.sha256, wheel)));
        }
        Ok(all)
    }

    /// The accounts that an OS layer leaves, as far as everything up to it is in the store.
    fn accounts(
        &self,
        state: &State,
        image: &Image,
        locked: &LockedImage,
        index: usize,
    ) -> Result<Option<Accounts>, Failure> {
        let debian = matches!(locked.base, LockedBase::Debian { .. });
        let own = !locked.debs.is_empty();
        let end = image.base_layers + usize::from(debian) + usize::from(own);
        let below = &image.layers[..=index];
        let store = self.artifacts.store;
        let here = |layer: &Layer| store.blob(&layer.digest).is_some();
        if !(image.base_layers..end).contains(&index) || !below.iter().all(here) {
            return Ok(None);
        }
        let blobs: Vec<Digest> = below.iter().map(|layer| layer.digest).collect();
        accounts::read(store, state, &blobs).map(Some)
    }
}

impl Materialise for Sources<'_> {
    fn bring<'a>(&'a self, layer: &'a Layer) -> BoxFuture<'a, Result<(), ReadError>> {
        async move {
            let found = match layer.content {
                LayerContent::Recipe => self.bring_wheels(layer).await?,
                LayerContent::Blob | LayerContent::Registry => self.pull(layer).await?,
            };
            match found {
                true => Ok(()),
                false => Err(ReadError::new(Plain::new(
                    Kind::NotFound,
                    format!(
                        "nothing that the manifest names has the bytes of the layer `{}`",
                        layer.comment
                    ),
                    "declare the `registry` that has them, or push with --no-substitute",
                ))),
            }
        }
        .boxed()
    }
}

impl Sources<'_> {
    /// Fetches the wheels of a layer that has lost some; false if no image of the lock has them.
    async fn bring_wheels(&self, layer: &Layer) -> Result<bool, ReadError> {
        let path = self.artifacts.store.recipe_path(&layer.key);
        let wheels = Recipe::wheels_in(&path).unwrap_or_default();
        let (requests, lock) = (self.requests, self.lock);
        let again = self.artifacts.wheels_again(requests, lock, &wheels);
        again.await.map_err(ReadError::new)
    }

    /// Pulls a layer from the first repository that has it; false if none has.
    async fn pull(&self, layer: &Layer) -> Result<bool, ReadError> {
        let Artifacts { context, store, .. } = self.artifacts;
        let Some(lookup) = self.artifacts.registry else {
            return Ok(false);
        };
        let blob = Descriptor::new(&layer.media_type, layer.digest, layer.size);
        for holder in self.holders {
            let registry = lookup.registry();
            let pull = registry.blob(holder, &blob, store, &*context.progress);
            match pull.await {
                Ok(_) => return Ok(true),
                Err(RegistryError::NotFound { .. }) => {}
                Err(error) => return Err(ReadError::new(error)),
            }
        }
        Ok(false)
    }
}

/// The declared tags of an image, their words replaced.
pub fn expand(request: &ImageRequest, git: Option<&str>) -> Result<Vec<String>, Failure> {
    let version = request.version.as_ref().map(|version| version.as_str());
    let tags = request.tags.iter();
    let expanded = tags.map(|tag| Ok(tags::expand(tag, version, git)?));
    expanded.collect()
}

/// Whether a tag of `request` needs the commit.
pub fn needs_commit(request: &ImageRequest) -> bool {
    request.tags.iter().any(|tag| tag.contains("{git}"))
}

/// The commit of the work tree that `folder` is in, with `-dirty` if tracked files differ from it.
pub fn commit(folder: &Path) -> Result<String, Failure> {
    let commit = git(folder, &["rev-parse", "--verify", "HEAD^{commit}"])?;
    let changed = git(folder, &["status", "--porcelain", "--untracked-files=no"])?;
    let commit = commit.get(..GIT_DIGITS).unwrap_or(&commit);
    let dirty = if changed.is_empty() { "" } else { DIRTY };
    Ok(format!("{commit}{dirty}"))
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let fail = |reason: String| {
        Failure::plain(
            Kind::Usage,
            format!(
                "a tag needs {{git}}, but the commit of {} is not known: {reason}",
                folder.display()
            ),
            "push from a git work tree that has a commit, or remove {git} from the tags",
        )
    };
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| fail(format!("git cannot be started: {error}")))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        let line = told.lines().next().unwrap_or("git failed");
        return Err(fail(
            line.chars().filter(|c| !c.is_control()).take(200).collect(),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
