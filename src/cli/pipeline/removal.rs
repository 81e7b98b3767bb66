//! Images out of the declared registry, unless others build on them or would lose their name.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::places;
use crate::catalog::{Catalog, Index, Record, Status, Summary};
use crate::cli::context::{Context, unknown};
use crate::cli::failure::Failure;
use crate::cli::rm::RemovedDocument;
use crate::diagnostic::{Explain as _, Kind};
use crate::digest::Digest;
use crate::http::Http;
use crate::manifest::{Manifest, Root};
use crate::oci::Descriptor;
use crate::registry::Reference;

/// Most records that are looked at for one image.
const MOST: usize = 10_000;

/// What is to be removed.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Declared names or digests.
    pub images: &'a [String],
    /// Also if others build on them.
    pub force: bool,
}

/// Images of the manifest that begin with the one called `name`.
pub fn children<'a>(manifest: &'a Manifest, name: &str) -> Vec<&'a str> {
    let all = manifest.parents.iter();
    all.filter(|(_, parents)| parents.contains(name))
        .map(|(child, _)| child.as_str())
        .collect()
}

/// An image of the registry.
struct Target {
    name: String,
    /// With its digest and without tag.
    reference: Reference,
    digest: Digest,
    /// Its manifests, if it is an index.
    members: Vec<Digest>,
}

#[derive(Deserialize)]
struct Members {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// The manifests of an index; of anything else, none.
fn members(document: &[u8]) -> Vec<Digest> {
    let members = serde_json::from_slice::<Members>(document);
    let members = members.map_or(Vec::new(), |members| members.manifests);
    members.into_iter().map(|member| member.digest).collect()
}

struct Job<'a> {
    context: &'a Context,
    manifest: &'a Manifest,
    catalog: Catalog,
    index: Index,
}

/// Removes images from the declared registry; all are found and examined before the first one goes. Records stay.
///
/// # Errors
/// When there is no such image; when another one needs it or its manifest has other names (unless forced); when the
/// registry does not answer or does not delete.
pub fn remove(
    context: &Context,
    manifest: &Manifest,
    wanted: &Wanted<'_>,
) -> Result<Vec<RemovedDocument>, Failure> {
    let http: Http = context.http()?;
    let Some(catalog) = places::lookup(context, &http, manifest)? else {
        return Err(Failure::plain(
            Kind::Usage,
            "the manifest declares no registry to remove from",
            "declare one: registry \"HOST/REPOSITORY\"",
        ));
    };
    let store = context.store()?;
    let job = Job {
        context,
        manifest,
        catalog,
        index: Index::open(&store)?,
    };
    context.wait(job.run(wanted))
}

impl Job<'_> {
    async fn run(&self, wanted: &Wanted<'_>) -> Result<Vec<RemovedDocument>, Failure> {
        self.catalog
            .sync(&self.index, &*self.context.progress)
            .await?;
        let mut targets = Vec::new();
        for word in wanted.images {
            targets.push(self.find(word).await?);
        }
        if !wanted.force {
            for target in &targets {
                self.refuse(target, &targets).await?;
            }
        }
        let mut gone = BTreeSet::new();
        let mut removed = Vec::new();
        for target in &targets {
            self.delete(target, &targets, &mut gone).await?;
            removed.push(RemovedDocument {
                name: target.name.clone(),
                digest: target.digest,
                repository: Some(target.repository()),
            });
        }
        Ok(removed)
    }

    /// What a name or digest means in the registry.
    async fn find(&self, word: &str) -> Result<Target, Failure> {
        let place = self.catalog.place();
        let (name, reference) = match word.parse::<Digest>() {
            Ok(digest) => {
                let found = self
                    .index
                    .by_key(&self.catalog.source(), &digest.hex(), 1)?;
                let Some(found) = found.into_iter().next() else {
                    return Err(self.not_there(word)?);
                };
                let reference = Reference {
                    digest: Some(digest),
                    ..self.in_repository(&found.summary)
                };
                (found.summary.name, reference)
            }
            Err(_) => {
                let reference = Reference {
                    tag: Some(place.tag(word, None)),
                    ..place.image(word)
                };
                (word.to_owned(), reference)
            }
        };
        let Some(bytes) = self.catalog.registry().find_manifest(&reference).await? else {
            return Err(self.not_there(word)?);
        };
        let digest = Digest::of(&bytes);
        Ok(Target {
            name,
            reference: Reference {
                tag: None,
                digest: Some(digest),
                ..reference
            },
            digest,
            members: members(&bytes),
        })
    }

    fn not_there(&self, word: &str) -> Result<Failure, Failure> {
        let mut names: BTreeSet<String> = self
            .index
            .names(&self.catalog.source())?
            .into_iter()
            .collect();
        names.remove(word);
        Ok(unknown(
            "image in the registry called",
            word,
            names.iter().map(String::as_str),
        ))
    }

    fn in_repository(&self, summary: &Summary) -> Reference {
        Reference {
            repository: summary.repository.clone(),
            tag: None,
            digest: None,
            ..self.catalog.place().cache()
        }
    }

    async fn refuse(&self, target: &Target, all: &[Target]) -> Result<(), Failure> {
        let goes = |name: &str| all.iter().any(|other| other.name == name);
        let on = |child: &str, what: &str| {
            Failure::plain(
                Kind::Refused,
                format!("{what} `{child}` is built on `{}`", target.name),
                format!("remove `{child}` too, or give --force"),
            )
        };
        for child in self.children(target) {
            if !goes(child) && self.exists(child).await? {
                return Err(on(child, "image"));
            }
        }
        let source = self.catalog.source();
        let mut above = self.index.above(&source, &target.digests(), MOST)?;
        above.retain(|found| found.status == Status::Ready && !goes(&found.summary.name));
        for found in above {
            if self.is_there(&found.summary).await? {
                return Err(on(&found.summary.name, "the pushed image"));
            }
        }
        if let Some(tag) = self.holder(target, &target.digest, all).await? {
            return Err(Failure::plain(
                Kind::Refused,
                format!("{} is one platform of `{tag}`", target.digest),
                "remove the image with all its platforms, or give --force",
            ));
        }
        self.refuse_shared(target, all).await
    }

    /// One manifest can have several names, which all go with it.
    async fn refuse_shared(&self, target: &Target, all: &[Target]) -> Result<(), Failure> {
        let place = self.catalog.place();
        let hex = target.digest.hex();
        let found = self.index.by_key(&self.catalog.source(), &hex, MOST)?;
        let names: BTreeSet<String> = found.into_iter().map(|found| found.summary.name).collect();
        for name in names {
            let tag = place.tag(&name, None);
            let same = place.image(&name).repository == target.reference.repository;
            if !same || all.iter().any(|other| other.name == name) {
                continue;
            }
            if self.named(target, &tag).await? == Some(target.digest) {
                return Err(Failure::plain(
                    Kind::Refused,
                    format!(
                        "`{name}` is the same image as `{}` and would go with it",
                        target.name
                    ),
                    format!("remove `{name}` too, or give --force"),
                ));
            }
        }
        Ok(())
    }

    /// A tag in the target's repository that stays and needs the manifest `digest`: as an image of its own, or as one
    /// platform of an index.
    async fn holder(
        &self,
        target: &Target,
        digest: &Digest,
        all: &[Target],
    ) -> Result<Option<String>, Failure> {
        let source = self.catalog.source();
        let mut asked = BTreeSet::new();
        for found in self.index.by_key(&source, &digest.hex(), MOST)? {
            let record = self.index.record(&source, &found.summary.record)?;
            let same = |record: &Record| {
                record.digest == *digest && record.repository == target.reference.repository
            };
            let Some(record) = record.filter(same) else {
                continue;
            };
            let named = record.index.unwrap_or(record.digest);
            if all.iter().any(|other| other.digest == named) {
                continue;
            }
            for tag in record.tags {
                if asked.insert((named, tag.clone()))
                    && self.named(target, &tag).await? == Some(named)
                {
                    return Ok(Some(tag));
                }
            }
        }
        Ok(None)
    }

    /// What a tag in the target's repository names now.
    async fn named(&self, target: &Target, tag: &str) -> Result<Option<Digest>, Failure> {
        let reference = Reference {
            tag: Some(tag.into()),
            digest: None,
            ..target.reference.clone()
        };
        let found = self.catalog.registry().head_manifest(&reference).await?;
        Ok(found.map(|found| found.digest))
    }

    /// Images of the manifest that begin with this one: by its name, or by its reference.
    fn children(&self, target: &Target) -> Vec<&str> {
        let mut children = children(self.manifest, &target.name);
        let place = self.catalog.place();
        let from = self.manifest.images.iter().filter(|image| {
            let Root::From(reference) = &image.root else {
                return false;
            };
            let Ok(from) = reference.value.parse::<Reference>() else {
                return false;
            };
            let here = from.host == target.reference.host
                && from.repository == target.reference.repository;
            let named = from.tag.as_deref() == Some(&*place.tag(&target.name, None));
            here && match from.digest {
                Some(digest) => target.digests().contains(&digest),
                None => named,
            }
        });
        children.extend(from.map(|image| image.name.value.as_str()));
        children
    }

    /// Whether the registry has an image of this declared name.
    async fn exists(&self, name: &str) -> Result<bool, Failure> {
        let place = self.catalog.place();
        let reference = Reference {
            tag: Some(place.tag(name, None)),
            ..place.image(name)
        };
        let found = self.catalog.registry().head_manifest(&reference).await?;
        Ok(found.is_some())
    }

    /// Whether the image of a record is still in the registry.
    async fn is_there(&self, summary: &Summary) -> Result<bool, Failure> {
        let reference = Reference {
            digest: Some(summary.digest),
            ..self.in_repository(summary)
        };
        let found = self.catalog.registry().head_manifest(&reference).await?;
        Ok(found.is_some())
    }

    /// The index goes first: what it names is then no part of anything, unless it is of something that stays.
    async fn delete(
        &self,
        target: &Target,
        all: &[Target],
        gone: &mut BTreeSet<(String, Digest)>,
    ) -> Result<(), Failure> {
        let registry = self.catalog.registry();
        for digest in target.digests() {
            let own = digest == target.digest;
            if gone.contains(&(target.repository(), digest))
                || (!own && self.holder(target, &digest, all).await?.is_some())
            {
                continue;
            }
            let reference = Reference {
                digest: Some(digest),
                ..target.reference.clone()
            };
            match registry.delete_manifest(&reference).await {
                // A manifest that never was here.
                Err(error) if !own && error.kind() == Kind::NotFound => {}
                other => other?,
            }
            gone.insert((target.repository(), digest));
        }
        Ok(())
    }
}

impl Target {
    /// Its own digest, then those of its members.
    fn digests(&self) -> Vec<Digest> {
        std::iter::once(self.digest)
            .chain(self.members.iter().copied())
            .collect()
    }

    fn repository(&self) -> String {
        format!("{}/{}", self.reference.host, self.reference.repository)
    }
}
