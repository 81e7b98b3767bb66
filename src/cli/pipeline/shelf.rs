//! What a registry's catalog contributes to a lock: the pins of an image that satisfies a request, or the versions that
//! its images have.

use std::collections::BTreeMap;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use super::places;
use crate::catalog::satisfy::{self, Choice, Fragment, Wanted};
use crate::catalog::{
    Belief, Catalog, CatalogError, Ecosystem, Index, PythonFilter, Query, Record, RequestRecord,
    Statement, Trust,
};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::http::Http;
use crate::identity::RequestDocument;
use crate::manifest::{Manifest, Platform, PythonMinor};
use crate::progress::Progress as _;
use crate::registry::Reference;
use crate::resolve::debian;
use crate::store::Store;

/// Most images that are looked at to tell which one comes closest.
const NEAR: usize = 200;

/// What `lock` asks a catalog for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// The pins of an image that satisfies the request.
    pub reuse: bool,
    /// Versions that images have.
    pub prefer: bool,
    /// Whoever can write to the registry is believed.
    pub trust_registry: bool,
}

/// The catalog of the manifest's registry, as of now.
pub struct Shelf<'a> {
    wishes: Wishes,
    context: &'a Context,
    store: &'a Store,
    catalog: Catalog,
    index: Index,
    trust: Trust,
}

/// What a catalog contributed to one image of the lock.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Contribution {
    /// The image whose pins were taken.
    pub reused: Option<Reused>,
    /// The image that came closest, if none satisfied the request.
    pub closest: Option<Closest>,
    /// Versions that were preferred because images have them.
    pub preferred: Vec<Preferred>,
}

/// An image whose pins were taken.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Reused {
    /// Its declared name.
    pub name: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Where it is: registry and repository.
    pub repository: String,
    /// Why it was taken.
    pub why: Why,
    /// Who vouches for it; without that only its versions were followed, and files are those that the index and the
    /// archive list.
    pub believed: Option<String>,
    /// Packages for which its version was not followed.
    pub differs: Vec<Differing>,
}

/// Why an image was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It was asked for the same packages.
    SameRequest,
    /// It was asked for something else, and satisfies this too.
    Satisfies,
}

/// A package that came out differently than in the image whose versions were followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Differing {
    /// `pip` or `os`.
    pub ecosystem: &'static str,
    /// Normalised name.
    pub name: String,
    /// Version there; absent if it is not there.
    pub there: Option<String>,
    /// Version here; absent if it is not needed here.
    pub here: Option<String>,
}

/// The image that came closest to a request.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Closest {
    /// Its declared name.
    pub name: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Everything that keeps it from satisfying the request.
    pub reasons: Vec<String>,
}

/// A version that was preferred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Preferred {
    /// `pip` or `os`.
    pub ecosystem: &'static str,
    /// Normalised name.
    pub name: String,
    /// The version that most current images have.
    pub version: String,
    /// How many have it.
    pub images: usize,
}

/// An image that satisfies a request, with the lock that says so.
pub struct Candidate {
    /// Its record and lock.
    pub fragment: Fragment,
    /// Why both are believed; `None`: they are not.
    pub belief: Option<Belief>,
}

impl<'a> Shelf<'a> {
    /// Reads what is new in the registry. `None`, and a warning, if it is out of reach.
    ///
    /// # Errors
    /// When the manifest names no registry; when the registry refuses to answer; those of the index.
    pub async fn open(
        context: &'a Context,
        store: &'a Store,
        http: &Http,
        manifest: &Manifest,
        wishes: Wishes,
    ) -> Result<Option<Self>, Failure> {
        let Some(catalog) = places::lookup(context, http, manifest)? else {
            return Err(Failure::plain(
                Kind::Usage,
                "the manifest names no registry whose images could be reused",
                "declare one, for example: registry \"registry.example.com/team\"",
            ));
        };
        if context.global.offline {
            let source = catalog.source();
            context
                .progress
                .warn(&format!("{source} is not asked, because of --offline"));
            return Ok(None);
        }
        let index = Index::open(store)?;
        match catalog.sync(&index, &*context.progress).await {
            Ok(synced) => {
                if let Some(error) = synced.unanswered {
                    context
                        .progress
                        .warn(&format!("not every image is known: {error}"));
                }
            }
            Err(error) if error.kind() == Kind::Unavailable => {
                context
                    .progress
                    .warn(&format!("the lock is made without the registry: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Some(Self {
            wishes,
            context,
            store,
            catalog,
            index,
            trust: places::trust(manifest, wishes.trust_registry),
        }))
    }

    /// Whether images are reused.
    pub fn reuses(&self) -> bool {
        self.wishes.reuse
    }

    /// Where the images are: registry and path.
    pub fn place(&self) -> String {
        let cache = self.catalog.place().cache();
        format!("{}/{}", cache.host, cache.repository)
    }

    /// Current images that satisfy the request, the best first; else the one that comes closest.
    pub fn choose(&self, wanted: &Wanted<'_>) -> Result<Choice, CatalogError> {
        let source = self.catalog.source();
        let query = satisfy::narrowed(wanted.document);
        let records = self.index.records(&source, &query)?;
        let choice = satisfy::choose(wanted, records.map(|found| Ok(found?.1)))?;
        if !choice.fitting.is_empty() {
            return Ok(choice);
        }
        let query = Query {
            platform: Some(wanted.document.platform),
            ..Query::default()
        };
        let wishes = satisfy::wishes(wanted.document);
        let near = self.index.nearest(&source, &query, &wishes, NEAR)?;
        satisfy::choose(wanted, near.into_iter().map(Ok))
    }

    /// The lock of an image that satisfies the request by its record; `None`, and a warning, when it turns out that it
    /// does not, or is no longer there.
    ///
    /// # Errors
    /// When the registry is out of reach.
    pub async fn candidate(
        &self,
        record: Record,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Candidate>, CatalogError> {
        let named = format!("{} ({})", record.name, record.digest.short());
        let passed_over = |reason: &dyn std::fmt::Display| {
            let warning = format!("the image {named} is passed over: {reason}");
            self.context.progress.warn(&warning);
        };
        match self.vouched(record, wanted).await {
            Ok(Ok(candidate)) => return Ok(Some(candidate)),
            Ok(Err(reason)) => passed_over(&reason),
            Err(error) if error.kind() == Kind::Unavailable => return Err(error),
            Err(error) => passed_over(&error),
        }
        Ok(None)
    }

    async fn vouched(
        &self,
        record: Record,
        wanted: &Wanted<'_>,
    ) -> Result<Result<Candidate, String>, CatalogError> {
        let (belief, record) = self.belief(record).await?;
        let image = Reference {
            repository: record.repository.clone(),
            digest: Some(record.digest),
            tag: None,
            ..self.catalog.place().cache()
        };
        let registry = self.catalog.registry();
        if registry.head_manifest(&image).await?.is_none() {
            return Ok(Err("it is not in the registry any more".into()));
        }
        let progress = &*self.context.progress;
        // A record that tells a wrong size must not keep other images from being taken.
        let fragment = match self.catalog.fragment(record, self.store, progress).await {
            Ok(fragment) => fragment,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let reasons = fragment.reasons(wanted);
        if !reasons.is_empty() {
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            return Ok(Err(format!("by its lock, {}", reasons.join("; "))));
        }
        Ok(Ok(Candidate { fragment, belief }))
    }

    /// Why a record and its lock are believed; of one that a trusted key signed for another name, that one.
    async fn belief(&self, record: Record) -> Result<(Option<Belief>, Record), CatalogError> {
        let of = |record: &Record| {
            let statement = Statement::of(record);
            self.trust.belief(&statement, &record.signatures)
        };
        if let Some(belief) = of(&record) {
            return Ok((Some(belief), record));
        }
        if self.trust.keys.is_empty() {
            return Ok((None, record));
        }
        let answers = self.catalog.images(&record.keys.set, &self.trust.keys);
        let mut same = answers.await?.records.into_iter().filter(|signed| {
            let same = (signed.digest, signed.platform) == (record.digest, record.platform);
            same && signed.lock.is_some()
        });
        Ok(match same.find_map(|signed| Some((of(&signed)?, signed))) {
            Some((belief, signed)) => (Some(belief), signed),
            None => (None, record),
        })
    }

    /// Python package → the version that most current images of the platform and Python have; of equally many the newest.
    pub fn preferred(
        &self,
        platform: Platform,
        python: PythonMinor,
    ) -> Result<BTreeMap<String, Preferred>, CatalogError> {
        let query = Query {
            platform: Some(platform),
            python: Some(python.to_string().parse::<PythonFilter>()?),
            ..Query::default()
        };
        self.versions::<pep440_rs::Version>(&query, Ecosystem::Pip)
    }

    /// OS package → the same, of the images that begin with `root`: `debian SUITE` or an image's reference.
    pub fn preferred_os(
        &self,
        platform: Platform,
        root: String,
    ) -> Result<BTreeMap<String, Preferred>, CatalogError> {
        let query = Query {
            platform: Some(platform),
            base: Some(root),
            ..Query::default()
        };
        self.versions::<debian::Version>(&query, Ecosystem::Os)
    }

    fn versions<V: FromStr + Ord>(
        &self,
        query: &Query,
        ecosystem: Ecosystem,
    ) -> Result<BTreeMap<String, Preferred>, CatalogError> {
        if !self.wishes.prefer {
            return Ok(BTreeMap::new());
        }
        let source = self.catalog.source();
        let versions = self.index.versions(&source, query, ecosystem)?;
        let best = versions.into_iter().filter_map(|(name, versions)| {
            let parsed = versions.into_iter().filter_map(|(version, images)| {
                Some((images, version.parse::<V>().ok()?, version))
            });
            let (images, _, version) = parsed.max()?;
            let preferred = Preferred {
                ecosystem: match ecosystem {
                    Ecosystem::Pip => "pip",
                    Ecosystem::Os => "os",
                },
                name: name.clone(),
                version,
                images,
            };
            Some((name, preferred))
        });
        Ok(best.collect())
    }

    /// What is told of an image whose pins were taken.
    pub fn reused(&self, candidate: &Candidate, document: &RequestDocument) -> Reused {
        let record = &candidate.fragment.record;
        let same = record.requested == RequestRecord::from(document);
        let place = self.catalog.place();
        Reused {
            name: record.name.clone(),
            digest: record.digest,
            repository: format!("{}/{}", place.host(), record.repository),
            why: if same {
                Why::SameRequest
            } else {
                Why::Satisfies
            },
            believed: candidate.belief.as_ref().map(|belief| match belief {
                Belief::Lock => "the lock".into(),
                Belief::Signed(id) => format!("the key {id}"),
                Belief::Registry => "--trust-registry".into(),
            }),
            differs: Vec::new(),
        }
    }
}
