//! Bases: reading `from` images, and the Debian archives that resolution needs.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::http::Http;
use crate::identity::{BaseDocument, RequestDocument};
use crate::image::{LayoutReader, LayoutReference};
use crate::manifest::{Debian, ImageRequest, Platform, Root};
use crate::oci::ImageReader;
use crate::registry::Reference;
use crate::resolve::base::{self, BaseImage, read_files};
use crate::resolve::debian::{self, ArchiveSpec, Outside, Universe};
use crate::store::Store;

/// The image behind `reference` for `platform`, its blobs in the store; the one with the digest `pinned`, if given.
pub async fn inspect(
    context: &Context,
    store: &Store,
    http: &Http,
    reference: &str,
    pinned: Option<Digest>,
    platform: Platform,
) -> Result<BaseImage, Failure> {
    let reader = reader(context, http, reference)?;
    let progress = &*context.progress;
    Ok(base::inspect(
        store,
        &*reader,
        reference,
        pinned.as_ref(),
        platform,
        progress,
    )
    .await?)
}

/// Digest of the image behind the request's `oci:` base: that folder means something else on every machine.
pub async fn layout(
    context: &Context,
    store: &Store,
    http: &Http,
    document: &RequestDocument,
) -> Result<Option<Digest>, Failure> {
    let reference = match &document.base {
        BaseDocument::From { reference } if reference.starts_with("oci:") => reference,
        _ => return Ok(None),
    };
    let base = inspect(context, store, http, reference, None, document.platform).await?;
    Ok(Some(base.digest))
}

fn reader(
    context: &Context,
    http: &Http,
    reference: &str,
) -> Result<Box<dyn ImageReader>, Failure> {
    let layout = LayoutReference::parse(reference).map_err(|error| {
        Failure::plain(
            Kind::Usage,
            format!("`{reference}`: {error}"),
            "write oci:DIR@sha256:…",
        )
    })?;
    if let Some(layout) = layout {
        return Ok(Box::new(LayoutReader::new(&context.folder, &layout)));
    }
    let parsed: Reference = reference.parse()?;
    Ok(Box::new(context.registry(http.clone()).repository(&parsed)))
}

/// The dpkg database of a base image.
pub fn dpkg_status(store: &Store, base: &BaseImage) -> Result<String, Failure> {
    const STATUS: &str = "var/lib/dpkg/status";
    let blobs: Vec<Digest> = base.layers.iter().map(|layer| layer.digest).collect();
    let mut files = read_files(store, &blobs, &[STATUS])?;
    match files.remove(STATUS) {
        Some(status) => Ok(String::from_utf8_lossy(&status).into_owned()),
        None => Err(Failure::plain(
            Kind::Usage,
            format!(
                "the base {} has no dpkg, so `os` packages cannot be added to it",
                base.reference
            ),
            "use a base on Debian, or one that has the packages already",
        )),
    }
}

/// The archive that an image's own OS packages come from: the Debian root's, or the one that a `from` base was made of.
pub fn archive_of(image: &ImageRequest, base: Option<&BaseImage>) -> Result<Debian, Failure> {
    let (reference, base) = match (&image.root, base) {
        (Root::Debian(debian), _) => return Ok(debian.clone()),
        (Root::From(reference), base) => (reference, base),
    };
    let release = base.map(|base| &base.contents.os_release);
    let field = |name: &str| {
        release
            .and_then(|release| release.get(name))
            .map(String::as_str)
    };
    match (field("ID"), field("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(Debian {
            suite: crate::manifest::Spanned {
                value: codename.to_owned(),
                source: reference.source.clone(),
                span: reference.span,
            },
            mirror: None,
            components: vec!["main".into()],
            keyring: None,
            updates: true,
            snapshot: None,
            os: Vec::new(),
        }),
        (id, _) => Err(Failure::plain(
            Kind::Usage,
            format!(
                "`os` packages come from Debian, and the base {} is {}",
                reference.value,
                id.unwrap_or("no distribution that says its name")
            ),
            "use a base on Debian, or one that has the packages already",
        )),
    }
}

/// Archives' indexes read in one pass of locking.
#[derive(Default)]
pub struct Universes(BTreeMap<(ArchiveSpec, Platform), Universe>);

impl Universes {
    /// What the archive offers for the platform; read once.
    pub async fn load(
        &mut self,
        context: &Context,
        store: &Store,
        http: &Http,
        debian: &Debian,
        platform: Platform,
    ) -> Result<&Universe, Failure> {
        let spec = ArchiveSpec {
            suite: debian.suite.value.clone(),
            mirror: debian.mirror.as_ref().map(|mirror| mirror.value.clone()),
            components: debian.components.clone(),
            keyring: debian
                .keyring
                .as_ref()
                .map(|path| context.folder.join(&path.value)),
            updates: debian.updates,
        };
        let key = (spec, platform);
        if !self.0.contains_key(&key) {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs();
            let outside = Outside {
                http,
                ambient: context.ambient(),
                store,
                progress: &*context.progress,
                now: i64::try_from(now).unwrap_or(i64::MAX),
            };
            let universe = debian::load(outside, &key.0, platform.architecture()).await?;
            self.0.insert(key.clone(), universe);
        }
        self.0
            .get(&key)
            .ok_or_else(|| Failure::plain(Kind::Bug, "an archive's index was lost", ""))
    }
}
