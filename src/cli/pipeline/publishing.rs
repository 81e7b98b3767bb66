//! Images of the store as publications: keys, records, SBOMs, and where layers that are not in the store come from.

use std::path::Path;
use std::process::{Command, Stdio};

use futures_util::future::{BoxFuture, FutureExt};

use super::artifacts::Artifacts;
use super::content::Content;
use crate::catalog::publish::{Edition, Facts, Materialise, describe};
use crate::cli::failure::{Failure, Plain};
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::identity::RequestDocument;
use crate::image::{Image, sbom};
use crate::layer::recipe::Recipe;
use crate::layer::{Layer, LayerContent};
use crate::lock::{Lock, LockedImage};
use crate::manifest::tags::{self, DIRTY, GIT_DIGITS};
use crate::manifest::{ImageRequest, Platform};
use crate::oci::{Descriptor, ReadError};
use crate::registry::{Reference, RegistryError};

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
