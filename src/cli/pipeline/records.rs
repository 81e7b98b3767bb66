//! Records: those of this store's own images, and where records are looked for.

use std::time::{SystemTime, UNIX_EPOCH};

use super::content::Content;
use super::places;
use crate::catalog::publish::{Facts, describe};
use crate::catalog::{Catalog, CatalogError, Index, LOCAL, Place, Synced, put_local};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::{Explain as _, Kind, counted};
use crate::digest::Digest;
use crate::identity::RequestDocument;
use crate::image::Image;
use crate::lock::Lock;
use crate::manifest::{Destination, ImageRequest, Layout};
use crate::progress::Progress;
use crate::registry::{Reference, RegistryError};
use crate::store::{State, Store};

/// Tags that are told one by one.
const TOLD: usize = 5;

/// Where records are looked for.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// The registry to ask; default: the one that the manifest declares, else this store's own images
    #[arg(long, value_name = "HOST/PATH", conflicts_with = "local")]
    pub registry: Option<String>,
    /// Ask for this store's own images only
    #[arg(long)]
    pub local: bool,
    /// Answer from what was read before; ask the registry nothing
    #[arg(long)]
    pub no_sync: bool,
}

impl Target {
    /// Whether a flag says where.
    pub fn is_given(&self) -> bool {
        self.registry.is_some() || self.local
    }

    /// The catalog to ask; `None` means this store.
    pub fn catalog(&self, context: &Context) -> Result<Option<Catalog>, Failure> {
        if self.local {
            return Ok(None);
        }
        let there = context.manifest_path.exists();
        if let Some(text) = &self.registry {
            // What the manifest says of this very registry counts; whether all of it is right does not matter here.
            let manifest = there.then(|| context.manifest().ok()).flatten();
            let http = context.http()?;
            return match manifest {
                Some(manifest) => places::named(context, &http, &manifest, text).map(Some),
                None => {
                    let registry = text.trim_end_matches('/').to_owned();
                    let place = Place::new(&Destination {
                        registry,
                        layout: Layout::default(),
                        plain_http: false,
                    })?;
                    let registry = context.registry(http);
                    Ok(Some(Catalog::new(registry, place)))
                }
            };
        }
        if !context.has_project() {
            return Ok(None);
        }
        let manifest = context.manifest()?;
        places::lookup(context, &context.http()?, &manifest)
    }

    /// The catalog that has the records of an image, by where the image is: the one that a flag or the manifest names,
    /// or else that of the very repository.
    pub fn catalog_of(&self, context: &Context, image: &Reference) -> Result<Catalog, Failure> {
        let fail = |place: &str| {
            Failure::plain(
                Kind::Usage,
                format!("{image} is not among the images of {place}"),
                "name the image alone, or another place",
            )
        };
        if self.local {
            return Err(fail("this store"));
        }
        if self.registry.is_some() {
            let catalog = self
                .catalog(context)?
                .filter(|one| one.place().holds(image));
            return catalog.ok_or_else(|| fail(self.registry.as_deref().unwrap_or_default()));
        }
        let there = context.manifest_path.exists();
        // As for a place that a flag names.
        if let Some(manifest) = there.then(|| context.manifest().ok()).flatten() {
            let declared = places::destinations(context, &context.http()?, &manifest)?;
            let found = declared.into_iter().find(|one| one.place().holds(image));
            if let Some(catalog) = found {
                return Ok(catalog);
            }
        }
        let place = Place::new(&Destination {
            registry: format!("{}/{}", image.host, image.repository),
            layout: Layout::default(),
            plain_http: false,
        })?;
        let registry = context.registry(context.http()?);
        Ok(Catalog::new(registry, place))
    }
}

/// What the index calls the images of a catalog, or of this store.
pub fn source(catalog: Option<&Catalog>) -> String {
    catalog.map_or_else(|| LOCAL.to_owned(), Catalog::source)
}

/// Why there is no image at all; `asked` says whether the registry was asked.
pub fn emptiness(catalog: Option<&Catalog>, asked: bool) -> String {
    match catalog.map(|catalog| catalog.place().root()) {
        None => "this store has no image yet".into(),
        Some(place) if asked => format!(
            "{place} has no records yet: nothing was pushed there, or the path is another one"
        ),
        Some(place) => format!("nothing was read of {place} before, and it was not asked now"),
    }
}

/// Opens the index, brings it up to date, and does `work` with it: without all of a registry's records nobody can say
/// what there is, so that one out of reach is an error, unless it was not to be asked. An index that turns out to be
/// damaged is made anew, once.
pub fn with_index<T>(
    context: &Context,
    store: &Store,
    catalog: Option<&Catalog>,
    sync: bool,
    work: impl Fn(&Index) -> Result<T, CatalogError>,
) -> Result<T, Failure> {
    let attempt = || {
        let index = Index::open(store)?;
        bring_up_to_date(context, store, &index, catalog, sync)?;
        work(&index)
    };
    match attempt() {
        Err(error) if error.is_damaged() => {
            let told = "the index of records was damaged; it is made anew";
            context.progress.warn(told);
            Index::abandon(store)?;
            Ok(attempt()?)
        }
        other => Ok(other?),
    }
}

fn bring_up_to_date(
    context: &Context,
    store: &Store,
    index: &Index,
    catalog: Option<&Catalog>,
    sync: bool,
) -> Result<(), CatalogError> {
    let Some(catalog) = catalog else {
        return put_local(index, &store.state()?.records()?);
    };
    let place = catalog.source();
    if !sync {
        return Ok(());
    }
    if context.global.offline {
        let told = "the network is switched off (--offline): the answer is from what was read of";
        context.progress.warn(&format!("{told} {place} before"));
        return Ok(());
    }
    let unread = |error: RegistryError| match error.kind() {
        Kind::Unavailable => CatalogError::Unread {
            place: place.clone(),
            source: Box::new(error),
        },
        _ => error.into(),
    };
    // Whoever reads the same registry at the same time waits, and then finds everything known.
    let name = Digest::of(&place).short();
    let _one_at_a_time = store.lock(&format!("sync-{name}"))?;
    let synced = match context.wait(catalog.sync(index, &*context.progress)) {
        Err(CatalogError::Registry(error)) => return Err(unread(error)),
        other => other?,
    };
    tell(context, &place, &synced);
    synced.unanswered.map_or(Ok(()), |error| Err(unread(error)))
}

fn tell(context: &Context, place: &str, synced: &Synced) {
    for (tag, reason) in synced.refused.iter().take(TOLD) {
        let warning =
            format!("{tag} in {place} is not a record that can be believed to be one: {reason}");
        context.progress.warn(&warning);
    }
    let more = synced.refused.len().saturating_sub(TOLD);
    if more > 0 {
        let tags = counted(more, "more tag");
        let warning = format!("and {tags} of {place} that cannot be believed to name a record");
        context.progress.warn(&warning);
    }
    if synced.new > 0 {
        let news = format!("read {}", counted(synced.new, "new record"));
        context.progress.note(&news);
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis().try_into().unwrap_or(i64::MAX))
}

/// Keeps the record of an image of this store, unless it is the newest of its name already.
pub fn remember(
    state: &State,
    request: &ImageRequest,
    content: &Content,
    lock: &Lock,
    (image, set): (&Image, Digest),
) -> Result<(), Failure> {
    let (name, platform) = (request.name.as_str(), image.platform.to_string());
    let locked = lock.images.get(name);
    let Some(locked) = locked.and_then(|platforms| platforms.get(&image.platform)) else {
        return Ok(());
    };
    if state.newest_record(name, &platform)? == Some(image.key) {
        return Ok(());
    }
    let document = RequestDocument::new(request, image.platform, &content.project)?;
    let mut record = describe(&Facts {
        image,
        request,
        document: &document,
        lock,
        locked,
        set,
        git: None,
    })?;
    let now = now_ms();
    record.pushed_ms = now;
    let text = serde_json::to_string(&record).map_err(|error| {
        Failure::plain(Kind::Bug, format!("cannot write a record: {error}"), "")
    })?;
    Ok(state.put_record((&image.key, &platform, name), now, &text)?)
}
