//! `find`: images by what is in them.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::output;
use super::pipeline::records::{self, Target};
use crate::catalog::{
    Catalog, CatalogError, Found, Keys, Match, NameFilter, OsFilter, PageToken, PipFilter,
    PythonFilter, Query, Status,
};
use crate::digest::Digest;
use crate::manifest::Platform;
use crate::registry::Reference;
use crate::report::{align, neutral};

/// Flags of `find`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
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
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// The image's name; `*`, `?` and `[…]` are wildcards
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// Where it stands, one of several words: READY (the newest of its name; the default) or OUTDATED
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    status: Vec<String>,
}

impl Filters {
    fn query(&self) -> Result<Query, CatalogError> {
        let parsed = |text: &Option<String>| text.as_deref().map(str::parse).transpose();
        let pip = self.pip.iter().map(|text| text.parse());
        let os = self.os.iter().map(|text| text.parse());
        let status = self.status.iter().map(|word| word.parse());
        Ok(Query {
            pip: pip.collect::<Result<Vec<PipFilter>, _>>()?,
            os: os.collect::<Result<Vec<OsFilter>, _>>()?,
            python: self
                .python
                .as_deref()
                .map(str::parse::<PythonFilter>)
                .transpose()?,
            base: self.base.clone(),
            platform: self.platform,
            name: parsed(&self.name)?.map(|name: NameFilter| name),
            status: status.collect::<Result<BTreeSet<Status>, _>>()?,
            satisfies: None,
        })
    }
}

/// What `find --json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct FindDocument {
    /// By name, platform and time.
    pub images: Vec<FoundDocument>,
    /// For `--page-token`; null on the last page.
    pub next_page_token: Option<String>,
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
    /// What it has of the packages that were asked for.
    pub packages: Vec<Match>,
}

/// Finds.
pub fn run(context: &Context, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let query = arguments.filters.query()?;
    let token = arguments.page_token.as_deref().map(str::parse::<PageToken>);
    let token = token.transpose()?;
    let catalog = arguments.target.catalog(context)?;
    let catalog = catalog.as_ref();
    let source = records::source(catalog);
    let after = token.map(|token| token.position(&query, &source));
    let after = after.transpose()?;
    let store = context.store()?;
    let limit = match arguments.all {
        true => usize::MAX,
        false => usize::from(arguments.page_size),
    };
    let sync = !arguments.target.no_sync;
    let page = records::with_index(context, &store, catalog, sync, |index| {
        index.page(&source, &query, after.as_ref(), limit, None)
    })?;
    let next = page.next.map(|at| PageToken::new(&query, &source, at));
    let document = FindDocument {
        images: page
            .images
            .into_iter()
            .map(|found| document(catalog, found))
            .collect(),
        next_page_token: next.map(|token| token.to_string()),
    };
    if context.global.json {
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    print(context, &document);
    Ok(ExitCode::SUCCESS)
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

fn print(context: &Context, document: &FindDocument) {
    if document.images.is_empty() {
        context.progress.note("no image satisfies this");
        return;
    }
    let head = [
        "NAME",
        "PLATFORM",
        "STATUS",
        "PYTHON",
        "BASE",
        "PUSHED",
        "PACKAGES",
        "REFERENCE",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(document.images.iter().map(row));
    output::raw(align(&rows, &[]).as_bytes());
    if let Some(token) = &document.next_page_token {
        context
            .progress
            .note(&format!("there are more: --page-token {token}"));
    }
}

fn row(image: &FoundDocument) -> [String; 8] {
    let packages = image.packages.iter();
    let packages: Vec<String> = packages
        .map(|package| format!("{} {}", package.name, package.version))
        .collect();
    let place = image.reference.clone();
    [
        neutral(&image.name),
        image.platform.to_string(),
        image.status.as_str().into(),
        neutral(&image.python),
        neutral(&image.base),
        image.pushed.clone(),
        neutral(&packages.join(", ")),
        neutral(&place.unwrap_or_else(|| image.digest.to_string())),
    ]
}
