//! What an image's names stand for, and putting them.

use serde::{Deserialize, Serialize};

use super::Publication;
use super::sender::Sender;
use crate::catalog::artifact::IMAGE_MANIFEST;
use crate::catalog::{Catalog, CatalogError};
use crate::digest::Digest;
use crate::identity;
use crate::image::Image;
use crate::manifest::Platform;
use crate::oci::{Descriptor, DescriptorPlatform};
use crate::registry::Reference;

/// The media type of image indexes.
const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What the names are to stand for: an image manifest, or an index.
pub(super) struct Top {
    pub(super) digest: Digest,
    media_type: &'static str,
    bytes: Vec<u8>,
    /// Platforms of the index that are not pushed now.
    pub(super) kept: Vec<Platform>,
}

/// All names of an image, its own one first.
pub(super) struct Names(Vec<Name>);

/// A tag, and what it stood for when it was asked for.
struct Name {
    reference: Reference,
    found: Option<Digest>,
}

impl Names {
    /// Whether all stand for the image already.
    pub(super) fn stand_for(&self, top: &Top) -> bool {
        self.0.iter().all(|name| name.found == Some(top.digest))
    }

    /// What the image's own name stood for, if it is another image.
    pub(super) fn supersedes(&self, top: &Top) -> Option<Digest> {
        let before = self.0.first().and_then(|name| name.found);
        before.filter(|before| *before != top.digest)
    }

    /// Their tags.
    pub(super) fn tags(&self) -> Vec<String> {
        let tags = self.0.iter().map(|name| name.reference.tag.clone());
        tags.flatten().collect()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Top {
    /// Of what `publication` pushes; the other platforms of an index stay as its own name has them now.
    pub(super) async fn of(
        catalog: &Catalog,
        publication: &Publication<'_>,
    ) -> Result<Self, CatalogError> {
        let images: Vec<&Image> = publication
            .editions
            .iter()
            .map(|edition| edition.image)
            .collect();
        if let ([image], [_] | []) = (images.as_slice(), publication.platforms) {
            return Ok(Self::new(
                IMAGE_MANIFEST,
                image.manifest.clone().into_bytes(),
                Vec::new(),
            ));
        }
        let mut manifests: Vec<(Platform, Descriptor)> = images
            .iter()
            .map(|image| (image.platform, entry(image)))
            .collect();
        let missing: Vec<Platform> = publication
            .platforms
            .iter()
            .filter(|platform| images.iter().all(|image| image.platform != **platform))
            .copied()
            .collect();
        let mut kept = Vec::new();
        if !missing.is_empty() {
            for (platform, descriptor) in current(catalog, publication, &missing).await? {
                kept.push(platform);
                manifests.push((platform, descriptor));
            }
        }
        manifests.sort_by_key(|(platform, _)| *platform);
        let index = Index {
            schema_version: 2,
            media_type: IMAGE_INDEX.into(),
            manifests: manifests
                .into_iter()
                .map(|(_, descriptor)| descriptor)
                .collect(),
        };
        Ok(Self::new(
            IMAGE_INDEX,
            identity::canonical_json(&index),
            kept,
        ))
    }

    fn new(media_type: &'static str, bytes: Vec<u8>, kept: Vec<Platform>) -> Self {
        Self {
            digest: Digest::of(&bytes),
            media_type,
            bytes,
            kept,
        }
    }

    /// The digest, if it is an index's.
    pub(super) fn index(&self) -> Option<Digest> {
        (self.media_type == IMAGE_INDEX).then_some(self.digest)
    }

    /// All names of the image with what they stand for now.
    pub(super) async fn names(
        &self,
        catalog: &Catalog,
        publication: &Publication<'_>,
    ) -> Result<Names, CatalogError> {
        let mut names = Vec::new();
        for reference in catalog.place().names(publication.name, publication.tags) {
            let found = self.stands(catalog, publication, &reference).await?;
            names.push(Name { reference, found });
        }
        Ok(Names(names))
    }

    /// What a name stands for now.
    async fn stands(
        &self,
        catalog: &Catalog,
        publication: &Publication<'_>,
        reference: &Reference,
    ) -> Result<Option<Digest>, CatalogError> {
        let found = catalog.registry().head_manifest(reference).await?;
        let found = found.map(|found| found.digest);
        match found {
            Some(found) if publication.protected && found != self.digest => {
                Err(CatalogError::Protected {
                    name: reference.to_string(),
                    found,
                    image: self.digest,
                })
            }
            found => Ok(found),
        }
    }
}

fn entry(image: &Image) -> Descriptor {
    Descriptor {
        platform: Some(DescriptorPlatform {
            os: "linux".into(),
            architecture: image.platform.architecture().into(),
            variant: None,
        }),
        ..Descriptor::of(IMAGE_MANIFEST, &image.manifest)
    }
}

/// What the image's own name has for these platforms now.
async fn current(
    catalog: &Catalog,
    publication: &Publication<'_>,
    missing: &[Platform],
) -> Result<Vec<(Platform, Descriptor)>, CatalogError> {
    let place = catalog.place();
    let reference = Reference {
        tag: Some(place.tag(publication.name, None)),
        ..place.image(publication.name)
    };
    let Some(bytes) = catalog.registry().find_manifest(&reference).await? else {
        return Ok(Vec::new());
    };
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| CatalogError::Malformed {
        what: reference.to_string(),
        reason: error.to_string(),
    })?;
    let of = |platform: &Platform| {
        let fits = |entry: &&Descriptor| {
            let found = entry.platform.as_ref();
            found.is_some_and(|found| found.is(platform.architecture()))
        };
        let found = index.manifests.iter().find(fits)?;
        Some((*platform, found.clone()))
    };
    Ok(missing.iter().filter_map(of).collect())
}

impl Sender<'_> {
    /// Lets the names stand for the image.
    pub(super) async fn put_names(&self, top: &Top, names: &Names) -> Result<(), CatalogError> {
        for name in &names.0 {
            if name.found == Some(top.digest) {
                continue;
            }
            self.manifest(&name.reference, top.media_type, &top.bytes)
                .await?;
        }
        Ok(())
    }
}
