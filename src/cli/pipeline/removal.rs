//! Images out of the declared registry, unless others build on them or would lose their name.

mod needs;

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{places, records};
use crate::catalog::{Catalog, Found, Index, Query, Status, Summary};
use crate::cli::context::{Context, unknown};
use crate::cli::failure::Failure;
use crate::cli::rm::RemovedDocument;
use crate::diagnostic::{Explain as _, Kind};
use crate::digest::Digest;
use crate::http::Http;
use crate::manifest::Manifest;
use crate::oci::Descriptor;
use crate::registry::Reference;

/// Most records that are looked at for one image.
const MOST: usize = 10_000;

/// What is to be removed.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Declared names or digests.
    pub images: &'a [String],
    /// Also if others build on them, or are the same image.
    pub force: bool,
}

/// Images of the manifest that begin with the one called `name`.
pub fn children<'a>(manifest: &'a Manifest, name: &str) -> Vec<&'a str> {
    let all = manifest.parents.iter();
    all.filter(|(_, parents)| parents.contains(name))
        .map(|(child, _)| child.as_str())
        .collect()
}

/// Fewest digits that are taken for the beginning of a digest: shorter words are rather names.
const DIGITS: usize = 4;

/// The digits of a word that may be a digest or its beginning.
fn digits(word: &str) -> Option<&str> {
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex && (DIGITS..=64).contains(&digits.len())).then_some(digits)
}

/// An image of the registry, or one that only records tell of any more.
#[derive(Clone, PartialEq, Eq)]
struct Target {
    name: String,
    /// With its digest and without tag.
    reference: Reference,
    digest: Digest,
    /// Its manifests, if it is an index.
    members: Vec<Digest>,
    /// Whether the registry has it.
    is_there: bool,
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

/// Removes images from the declared registry; all are found and examined before the first one goes. Records stay, and
/// each name that was the image's gets one that says that it was removed. What somebody has deleted in another way is
/// recorded as removed too.
///
/// # Errors
/// When there is no such image; when another one needs it or its manifest has other names (unless forced); when one of
/// these names is protected and not given too; when the registry does not answer or does not delete.
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
        let mut named: Vec<Target> = Vec::new();
        for word in wanted.images {
            let target = self.find(word).await?;
            if !named.contains(&target) {
                named.push(target);
            }
        }
        let mut targets = named.clone();
        for target in &named {
            if !wanted.force {
                self.refuse(target, &named).await?;
            }
            for name in self.other_names(target, &named).await? {
                self.refuse_shared(target, &name, wanted.force)?;
                let other = Target {
                    name,
                    ..target.clone()
                };
                if !targets.contains(&other) {
                    targets.push(other);
                }
            }
        }
        let mut gone = BTreeSet::new();
        let mut removed = Vec::new();
        for target in &targets {
            self.delete(target, &targets, &mut gone).await?;
            self.record(target).await?;
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
        let lower = word.to_ascii_lowercase();
        let recorded = match digits(&lower) {
            Some(digits) => self.by_digits(word, digits)?,
            None => None,
        };
        let (name, reference) = match recorded {
            Some((name, reference)) => (name, reference),
            None if word.is_empty()
                || word.contains(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c)) =>
            {
                return Err(self.not_there(word)?);
            }
            None => (word.to_owned(), self.own_name(word)),
        };
        let found = self.catalog.registry().find_manifest(&reference).await?;
        let (digest, members) = match &found {
            Some(bytes) => (Digest::of(bytes), members(bytes)),
            None => match self.recorded(&name, &reference)? {
                Some(digest) => (digest, Vec::new()),
                None => return Err(self.not_there(word)?),
            },
        };
        Ok(Target {
            name,
            reference: Reference {
                tag: None,
                digest: Some(digest),
                ..reference
            },
            digest,
            members,
            is_there: found.is_some(),
        })
    }

    /// An image's own name.
    fn own_name(&self, name: &str) -> Reference {
        let place = self.catalog.place();
        Reference {
            tag: Some(place.tag(name, None)),
            ..place.image(name)
        }
    }

    /// The image or index that these first digits of a digest mean, if records tell of one: its name, and where it is.
    fn by_digits(&self, word: &str, digits: &str) -> Result<Option<(String, Reference)>, Failure> {
        let found = self.index.by_key(&self.catalog.source(), digits, MOST)?;
        let mut meant: BTreeSet<Digest> = BTreeSet::new();
        for Found { summary, .. } in &found {
            let digests = std::iter::once(summary.digest).chain(summary.index);
            meant.extend(digests.filter(|digest| digest.hex().starts_with(digits)));
        }
        match (meant.len(), meant.first(), found.into_iter().next()) {
            (1, Some(digest), Some(found)) => {
                let reference = Reference {
                    digest: Some(*digest),
                    ..self.in_repository(&found.summary)
                };
                Ok(Some((found.summary.name, reference)))
            }
            (0, _, _) => Ok(None),
            (count, _, _) => Err(Failure::plain(
                Kind::Usage,
                format!("`{word}` can be the digest of {count} images"),
                "give more of its digits",
            )),
        }
    }

    /// The image that a name stands for, or that has the digest, as far as records tell.
    fn recorded(&self, name: &str, reference: &Reference) -> Result<Option<Digest>, Failure> {
        let source = self.catalog.source();
        let is_it = |summary: &Summary| {
            let named = summary.index.unwrap_or(summary.digest);
            summary.name == name
                && summary.repository == reference.repository
                && reference.digest.is_none_or(|digest| digest == named)
        };
        let query = Query {
            name: Some(name.parse()?),
            ..Query::default()
        };
        let ready = self.index.page(&source, &query, None, MOST, None)?.images;
        let found = ready.into_iter().find(|found| is_it(&found.summary));
        Ok(found.map(|found| found.summary.index.unwrap_or(found.summary.digest)))
    }

    fn not_there(&self, word: &str) -> Result<Failure, Failure> {
        let (source, all) = (self.catalog.source(), Query::default());
        let ready = self.index.page(&source, &all, None, MOST, None)?.images;
        let names: BTreeSet<String> = ready.into_iter().map(|found| found.summary.name).collect();
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

    /// The index goes first: what it names is then no part of anything, unless it is of something that stays.
    async fn delete(
        &self,
        target: &Target,
        all: &[Target],
        gone: &mut BTreeSet<(String, Digest)>,
    ) -> Result<(), Failure> {
        let registry = self.catalog.registry();
        let digests = target.digests().into_iter().filter(|_| target.is_there);
        for digest in digests {
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

    /// Says in the registry's records that the name has ended, where it stood for the image.
    async fn record(&self, target: &Target) -> Result<(), Failure> {
        let source = self.catalog.source();
        let hex = target.digest.hex();
        for found in self.index.by_key(&source, &hex, MOST)? {
            let summary = found.summary;
            let named = summary.index.unwrap_or(summary.digest);
            let is_it = summary.name == target.name
                && summary.repository == target.reference.repository
                && named == target.digest;
            if found.status != Status::Ready || !is_it {
                continue;
            }
            if let Some(record) = self.index.record(&source, &summary.record)? {
                self.catalog
                    .record_removal(record, records::now_ms())
                    .await?;
            }
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
