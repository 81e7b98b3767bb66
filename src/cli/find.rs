//! `find`: images by what is in them.

mod request;
mod table;

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::output;
use super::pipeline::records::{self, Target};
use crate::catalog::{
    Catalog, CatalogError, Found, Index, Keys, Match, NameFilter, OsFilter, Page, PageToken,
    PipFilter, Position, PythonFilter, Query, Status,
};
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::manifest::Platform;
use crate::registry::Reference;
use crate::store::Store;
use request::Requested;

/// Flags of `find`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Nothing: where a word stands, it is told which flag says what it may mean
    #[arg(hide = true)]
    words: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    target: Target,
    /// Images on a page
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    page_size: u16,
    /// Go on where a page ended: what it gave as its next page's token
    #[arg(long, value_name = "TOKEN")]
    page_token: Option<String>,
    /// All images, not one page
    #[arg(long)]
    all: bool,
}

/// What an image has to satisfy: all of it.
#[derive(Debug, clap::Args)]
struct Filters {
    /// An installed Python package, for example `numpy` or `numpy>=1.26,<2`; can be given several times
    #[arg(long, value_name = "NAME[SPECIFIER]")]
    pip: Vec<String>,
    /// An installed OS package, for example `vim` or `vim=9.0`; can be given several times
    #[arg(long, value_name = "NAME[=VERSION]")]
    os: Vec<String>,
    /// The Python: `3.11`, `3.11.2` or `>=3.10`
    #[arg(long, value_name = "VERSION")]
    python: Option<String>,
    /// The base's name, or where it begins, for example `debian bookworm`
    #[arg(long, value_name = "NAME|ROOT")]
    base: Option<String>,
    /// The platform
    #[arg(long, value_name = "PLATFORM", value_parser = super::platforms())]
    platform: Option<Platform>,
    /// The image's name; `*`, `?` and `[…]` are wildcards
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// Where it stands, one of several words: READY (the newest of its name; the default) or OUTDATED
    /// (its name has a later one, or none any more)
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    status: Vec<String>,
    /// What a declared image asks for: a manifest file or project folder, and the image's name, for example
    /// `../fraud:model`. What may be reused for it is found: `lock --reuse` judges by the same rules
    #[arg(long, value_name = "MANIFEST:IMAGE")]
    satisfies: Option<String>,
}

impl Filters {
    fn query(&self, requested: Option<&Requested>) -> Result<Query, CatalogError> {
        let parsed = |text: &Option<String>| text.as_deref().map(str::parse).transpose();
        let pip = self.pip.iter().map(|text| text.parse());
        let os = self.os.iter().map(|text| text.parse());
        let status = self.status.iter().map(|word| word.parse());
        let base = self.base.as_deref().map(base).transpose()?;
        Ok(Query {
            pip: pip.collect::<Result<Vec<PipFilter>, _>>()?,
            os: os.collect::<Result<Vec<OsFilter>, _>>()?,
            python: self
                .python
                .as_deref()
                .map(str::parse::<PythonFilter>)
                .transpose()?,
            base,
            platform: self.platform,
            name: parsed(&self.name)?.map(|name: NameFilter| name),
            status: status.collect::<Result<BTreeSet<Status>, _>>()?,
            satisfies: requested.map(Requested::key),
        })
    }
}

/// The name of a base, or where it begins: any text, but not none.
fn base(text: &str) -> Result<String, CatalogError> {
    match text.trim().is_empty() {
        true => Err(CatalogError::Query {
            message: "the base that images are to have is empty".into(),
            hint: "write for example `tabular` or `debian bookworm`, or leave --base out".into(),
        }),
        false => Ok(text.to_owned()),
    }
}

/// What `find --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct FindDocument {
    /// By name, platform and time.
    pub images: Vec<FoundDocument>,
    /// For `--page-token`; null on the last page.
    pub next_page_token: Option<String>,
    /// When no image satisfies `--satisfies`: those that come nearest, and why they do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<NearDocument>,
}

/// An image that does not satisfy a request.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct NearDocument {
    /// Declared name.
    pub name: String,
    /// Platform of the image.
    pub platform: Platform,
    /// Digest of the image manifest.
    pub digest: Digest,
    /// Everything that keeps it from satisfying the request.
    pub reasons: Vec<String>,
}

/// One image.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct FoundDocument {
    /// Declared name.
    pub name: String,
    /// Platform of the image.
    pub platform: Platform,
    /// Where it stands.
    pub status: Status,
    /// Where it is, by digest; null for an image of this store.
    pub reference: Option<String>,
    /// Tags that were put on it.
    pub tags: Vec<String>,
    /// Digest of the image manifest.
    pub digest: Digest,
    /// Digest of the record's document.
    pub record: Digest,
    /// The chain of identity.
    pub keys: Keys,
    /// Full Python version.
    pub python: String,
    /// Name of its base.
    pub base: String,
    /// Where the base begins.
    pub root: String,
    /// When it was pushed, or built here: an RFC 3339 instant.
    pub pushed: String,
    /// The same in milliseconds since 1970.
    pub pushed_ms: i64,
    /// Digest of what the name stood for before.
    pub supersedes: Option<Digest>,
    /// What it has of the packages that were asked for, and only of those: `show` tells all that are installed.
    pub packages: Vec<Match>,
}

/// Finds.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let Some(word) = arguments.words.first() {
        return Err(flag_for(word));
    }
    let (filters, target) = (&arguments.filters, &arguments.target);
    let store = context.store()?;
    let requested = filters.satisfies.as_deref();
    let requested = requested.map(|text| Requested::read(context, &store, text));
    let requested = requested.transpose()?;
    let query = filters.query(requested.as_ref())?;
    let token = arguments.page_token.as_deref().map(str::parse::<PageToken>);
    let token = token.transpose()?;
    // Without a project here, the registry of the one that is asked about is meant.
    let project = requested.as_ref().map(|requested| &requested.project);
    let project = project.filter(|_| !context.has_project());
    let catalog = target.catalog(project.unwrap_or(context))?;
    let source = records::source(catalog.as_ref());
    let after = token.map(|token| token.position(&query, &source));
    let question = Question {
        context,
        store: &store,
        catalog: catalog.as_ref(),
        asks: !target.no_sync && !context.global.offline,
        source: &source,
        query: &query,
        after: after.transpose()?,
        limit: match arguments.all {
            true => usize::MAX,
            false => usize::from(arguments.page_size),
        },
    };
    let catalog = question.catalog;
    let answer = |index: &Index| question.answer(index, requested.as_ref());
    let Answer {
        page,
        nearest,
        is_anything,
    } = records::with_index(context, &store, catalog, !target.no_sync, answer)?;
    if catalog.is_none() && !target.local {
        context.progress.note(
            "no registry is declared or given (--registry HOST/PATH): these are this store's own images",
        );
    }
    if !is_anything {
        let told = records::emptiness(catalog, question.asks);
        context.progress.note(&told);
    }
    let next = page.next.map(|at| PageToken::new(&query, &source, at));
    let images = page.images.into_iter();
    let document = FindDocument {
        images: images.map(|found| document(catalog, found)).collect(),
        next_page_token: next.map(|token| token.to_string()),
        nearest,
    };
    match context.global.json {
        true => output::json(&document),
        false => table::print(context, &document),
    }
    Ok(ExitCode::SUCCESS)
}

/// What to write in place of a word without a flag.
fn flag_for(word: &str) -> Failure {
    let image: Option<Reference> = parsed(word);
    let hint = match image {
        Some(image) if image.tag.is_some() || image.digest.is_some() => format!(
            "`imagewright show {word}` shows an image; --registry {}/{} finds those that are there",
            image.host, image.repository
        ),
        Some(_) => format!("--registry {word} finds the images that are there"),
        None => format!("--name {word} finds images by name, --pip {word} by a Python package"),
    };
    let message = format!("`find` does not know what to do with the word `{word}`");
    Failure::plain(Kind::Usage, message, hint)
}

/// What there is.
struct Answer {
    page: Page,
    nearest: Vec<NearDocument>,
    /// Whether there is any image at all, whatever the query.
    is_anything: bool,
}

/// What is asked, and where.
struct Question<'a> {
    context: &'a Context,
    store: &'a Store,
    catalog: Option<&'a Catalog>,
    /// Whether the registry may be asked.
    asks: bool,
    source: &'a str,
    query: &'a Query,
    after: Option<Position>,
    limit: usize,
}

impl Question<'_> {
    /// A page; if nothing is on the first one, what comes nearest to the request.
    fn answer(&self, index: &Index, requested: Option<&Requested>) -> Result<Answer, CatalogError> {
        let (after, limit) = (self.after.as_ref(), self.limit);
        let page = match requested {
            Some(requested) => requested.page(self, index)?,
            None => index.page(self.source, self.query, after, limit, None)?,
        };
        let nothing = page.images.is_empty() && after.is_none();
        let nearest = match requested {
            Some(requested) if nothing => requested.nearest(self, index)?,
            _ => Vec::new(),
        };
        Ok(Answer {
            page,
            nearest,
            is_anything: !nothing || !index.names(self.source)?.is_empty(),
        })
    }
}

/// A found image of a catalog, or of this store.
pub fn document(catalog: Option<&Catalog>, found: Found) -> FoundDocument {
    let summary = found.summary;
    FoundDocument {
        reference: reference(catalog, &summary.repository, summary.digest),
        name: summary.name,
        platform: summary.platform,
        status: found.status,
        tags: summary.tags,
        digest: summary.digest,
        record: summary.record,
        keys: summary.keys,
        python: summary.python,
        base: summary.base,
        root: summary.root,
        pushed: instant(summary.pushed_ms),
        pushed_ms: summary.pushed_ms,
        supersedes: summary.supersedes,
        packages: found.matched,
    }
}

/// Where an image is, by digest.
pub fn reference(catalog: Option<&Catalog>, repository: &str, digest: Digest) -> Option<String> {
    let host = catalog?.place().host();
    Some(format!("{host}/{repository}@{digest}"))
}

/// The same as a reference that can be asked for.
pub fn parsed(reference: &str) -> Option<Reference> {
    reference.parse().ok()
}

/// An RFC 3339 instant, to the second.
pub fn instant(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .ok()
        .and_then(|at| jiff::Timestamp::from_second(at.as_second()).ok())
        .map_or_else(|| format!("{ms} ms"), |at| at.to_string())
}
