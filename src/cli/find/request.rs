//! `--satisfies`: the request of a declared image as a filter.

use super::{NearDocument, Question};
use crate::catalog::satisfy::{self, Reason, Wanted};
use crate::catalog::{CatalogError, Index, Page, Query, Record};
use crate::cli::context::{Context, Global};
use crate::cli::failure::Failure;
use crate::cli::pipeline::{bases, content};
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::identity::{self, RequestDocument};
use crate::manifest::Platform;
use crate::store::Store;

/// Most images of a platform that are looked at to tell which ones come nearest.
const LOOKED_AT: usize = 200;
/// Most images that are told.
const TOLD: usize = 3;

/// What a declared image asks for.
pub(super) struct Requested {
    /// The project that declares it.
    pub(super) project: Context,
    /// For each of its platforms, with the digest of what an `oci:` base is there.
    requests: Vec<(RequestDocument, Option<Digest>)>,
}

impl Requested {
    /// Reads `MANIFEST:IMAGE`.
    pub(super) fn read(context: &Context, store: &Store, text: &str) -> Result<Self, Failure> {
        let parts = text.rsplit_once(':');
        let parts = parts.filter(|(path, name)| !path.is_empty() && !name.is_empty());
        let Some((path, name)) = parts else {
            return Err(Failure::plain(
                Kind::Usage,
                format!("`{text}` is not a manifest and an image's name"),
                "write for example `.:model` for the image `model` of this folder's manifest",
            ));
        };
        let global = Global {
            project: path.into(),
            ..context.global.clone()
        };
        let project = Context::new(global, context.cancel.clone())?;
        let manifest = project.manifest()?;
        let http = project.http()?;
        let mut requests = Vec::new();
        for image in project.select(&manifest, &[name.to_owned()])? {
            let content = content::read(&project, image)?;
            for platform in &image.platforms {
                let document = RequestDocument::new(image, *platform, &content.project)?;
                let layout = bases::layout(&project, store, &http, &document);
                let layout = project.wait(layout)?;
                requests.push((document, layout));
            }
        }
        Ok(Self { project, requests })
    }

    /// Tells requests apart in page tokens.
    pub(super) fn key(&self) -> Digest {
        let keys = self.requests.iter();
        let keys: Vec<_> = keys
            .map(|(document, layout)| (identity::key(document), layout))
            .collect();
        identity::key(&keys)
    }

    fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
        self.requests.iter().map(|(document, layout)| Wanted {
            document,
            layout: *layout,
        })
    }

    fn for_platform(&self, platform: Platform) -> Option<Wanted<'_>> {
        self.wanted()
            .find(|wanted| wanted.document.platform == platform)
    }

    /// A page of the images that satisfy the request on their platform, and every filter.
    pub(super) fn page(
        &self,
        question: &Question<'_>,
        index: &Index,
    ) -> Result<Page, CatalogError> {
        let keep = |record: &Record| {
            let Some(wanted) = self.for_platform(record.platform) else {
                return Ok(false);
            };
            Ok(reasons(question, &wanted, record)?.is_empty())
        };
        let (query, after) = (self.narrowed(question.query), question.after.as_ref());
        index.page(question.source, &query, after, question.limit, Some(&keep))
    }

    /// The filters, and those that every image that satisfies the request passes. What these name is told as matched.
    fn narrowed(&self, query: &Query) -> Query {
        let mut queries = self
            .wanted()
            .map(|wanted| satisfy::narrowed(wanted.document));
        let mut all = query.clone();
        let (first, more) = (queries.next(), queries.next());
        let Some(first) = first else { return all };
        // Requirements are those of the image; only platforms differ.
        let own = first.pip.into_iter();
        let own = own.filter(|own| query.pip.iter().all(|filter| filter.name != own.name));
        all.pip.extend(own);
        if more.is_none() {
            all.platform = all.platform.or(first.platform);
        }
        all
    }

    /// The images that come nearest, among those that pass the filters.
    pub(super) fn nearest(
        &self,
        question: &Question<'_>,
        index: &Index,
    ) -> Result<Vec<NearDocument>, CatalogError> {
        let mut nearest = Vec::new();
        for wanted in self.wanted() {
            let platform = wanted.document.platform;
            if question
                .query
                .platform
                .is_some_and(|asked| asked != platform)
            {
                continue;
            }
            let query = Query {
                platform: Some(platform),
                ..question.query.clone()
            };
            let wishes = satisfy::wishes(wanted.document);
            let records = index.nearest(question.source, &query, &wishes, LOOKED_AT)?;
            let judged = records.into_iter().map(|record| {
                let reasons = reasons(question, &wanted, &record)?;
                Ok((record, reasons))
            });
            let judged = judged.collect::<Result<Vec<_>, CatalogError>>()?;
            nearest.extend(satisfy::nearest(&wanted, judged));
        }
        nearest.sort_by_key(|(_, reasons)| reasons.len());
        nearest.truncate(TOLD);
        let documents = nearest.into_iter().map(|(record, reasons)| NearDocument {
            name: record.name,
            platform: record.platform,
            digest: record.digest,
            reasons: reasons.iter().map(ToString::to_string).collect(),
        });
        Ok(documents.collect())
    }
}

/// Why an image does not satisfy the request, by its record and, where that cannot tell, by the lock beside it.
fn reasons(
    question: &Question<'_>,
    wanted: &Wanted<'_>,
    record: &Record,
) -> Result<Vec<Reason>, CatalogError> {
    match question.catalog {
        Some(catalog) if question.asks => {
            let progress = &*question.context.progress;
            let reasons = catalog.satisfy(wanted, record, question.store, progress);
            question.context.wait(reasons)
        }
        _ => Ok(satisfy::satisfy(wanted, record)),
    }
}
