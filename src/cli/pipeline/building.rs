//! Lock → images in the store.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::bases;
use super::content::Content;
use super::sandbox::Dpkg;
use super::trees;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::http::Http;
use serde::{Deserialize, Serialize};

use crate::identity::{
    self, CLEANING_VERSION, ConfigDocument, EMITTER_VERSION, FetchDocument, LayerDocument,
};
use crate::image::{Image, Parts, assemble};
use crate::layer::debian::{Built as BuiltOs, DebianRequest, build_base, build_os, known};
use crate::layer::files::{self, UserParts};
use crate::layer::{Layer, LayerContent, PinnedWheel, build_wheel_layers, plan};
use crate::lock::{Lock, LockedBase, LockedDeb, LockedImage};
use crate::manifest::{ImageRequest, Platform};
use crate::progress::Progress;
use crate::resolve::base::{BaseImage, read_files};
use crate::source::debian::{DebSource, fetch_debs};
use crate::source::{FetchContext, fetch_file, fetch_wheels};
use crate::store::{ImageRow, State, Store};

/// Where a build's time went: stage and duration, in order.
pub type Timings = Vec<(String, Duration)>;

/// An image that is in the store now.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// Whether this call made it, or it was there.
    pub fresh: bool,
    /// Compressed bytes of layers that the store did not have.
    pub new_bytes: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// What building works with.
#[derive(Debug)]
pub struct Builder<'a> {
    /// Options, progress, interruption.
    pub context: &'a Context,
    /// Where everything goes.
    pub store: &'a Store,
    /// The network.
    pub http: &'a Http,
    state: State,
}

impl<'a> Builder<'a> {
    /// Opens the state.
    pub fn new(context: &'a Context, store: &'a Store, http: &'a Http) -> Result<Self, Failure> {
        Ok(Self {
            state: store.state()?,
            context,
            store,
            http,
        })
    }

    /// Builds one image for one platform, or finds it built. Diff IDs of OS layers that are new go into `lock`.
    pub async fn build(
        &self,
        request: &ImageRequest,
        platform: Platform,
        content: &Content,
        lock: &mut Lock,
    ) -> Result<Built, Failure> {
        let name = &request.name.value;
        let found = lock
            .images
            .get(name)
            .and_then(|platforms| platforms.get(&platform))
            .cloned();
        let Some(locked) = found else {
            return Err(Failure::plain(
                Kind::Bug,
                format!("the lock lost image `{name}`"),
                "",
            ));
        };
        let begun = Instant::now();
        let inputs = inputs_key(lock, &locked, platform);
        if let Some(image) = self.known(&inputs, platform, &locked)? {
            self.record(name, platform, &locked, inputs, &image)?;
            return Ok(Built {
                image,
                fresh: false,
                new_bytes: 0,
                timings: vec![("look up".into(), begun.elapsed())],
            });
        }
        let mut job = Job {
            builder: self,
            request,
            platform,
            content,
            lock,
            locked: &locked,
            timings: vec![("look up".into(), begun.elapsed())],
            present: RefCell::default(),
            documents: RefCell::default(),
        };
        let (image, os) = job.run().await?;
        let (timings, present) = (job.timings, job.present.into_inner());
        let new_bytes = image
            .layers
            .iter()
            .filter(|layer| !present.contains(&layer.digest))
            .map(|layer| layer.size)
            .sum();
        os.note(lock, name, platform, self.context);
        self.record(name, platform, &locked, inputs, &image)?;
        Ok(Built {
            image,
            fresh: true,
            new_bytes,
            timings,
        })
    }

    /// The image that was built from these inputs, if all its layers can still be streamed.
    fn known(
        &self,
        inputs: &Digest,
        platform: Platform,
        locked: &LockedImage,
    ) -> Result<Option<Image>, Failure> {
        let row = self.state.image_by_inputs(inputs, &platform.to_string())?;
        let image = row.and_then(|row| serde_json::from_str::<Image>(&row.document).ok());
        let expected = expected_diff_ids(locked);
        Ok(image.filter(|image| {
            let mut documents = [image.digest(), image.config_digest()].into_iter();
            documents.all(|digest| self.store.blob(&digest).is_some())
                && image.layers.iter().all(|layer| self.has(layer))
                && expected
                    .iter()
                    .all(|wanted| image.layers.iter().any(|layer| layer.diff_id == *wanted))
        }))
    }

    /// The image of `locked`, if this store has built it itself.
    pub fn built(
        &self,
        lock: &Lock,
        locked: &LockedImage,
        platform: Platform,
    ) -> Result<Option<Image>, Failure> {
        let found = self.known(&inputs_key(lock, locked, platform), platform, locked)?;
        let here = |layer: &Layer| layer.content != LayerContent::Registry;
        Ok(found.filter(|image| image.layers.iter().all(here)))
    }

    fn has(&self, layer: &Layer) -> bool {
        match layer.content {
            LayerContent::Blob => std::fs::metadata(self.store.blob_path(&layer.digest))
                .is_ok_and(|meta| meta.len() == layer.size),
            LayerContent::Recipe => self.store.recipe_path(&layer.key).is_file(),
            LayerContent::Registry => true,
        }
    }

    fn record(
        &self,
        name: &str,
        platform: Platform,
        locked: &LockedImage,
        inputs: Digest,
        image: &Image,
    ) -> Result<(), Failure> {
        let document = serde_json::to_string(image).map_err(|error| {
            Failure::plain(Kind::Bug, format!("cannot record the image: {error}"), "")
        })?;
        let row = ImageRow {
            name: name.into(),
            platform: platform.to_string(),
            request: locked.request,
            inputs,
            key: image.key,
            digest: image.digest(),
            document,
        };
        Ok(self.state.put_image(&row)?)
    }
}

/// Everything that decides an image: what the request key does not say is in the locked image.
pub(super) fn inputs_key(lock: &Lock, locked: &LockedImage, platform: Platform) -> Digest {
    let wheels: Vec<_> = locked
        .wheels
        .iter()
        .filter_map(|file| Some(lock.wheels.get(file)?.sha256))
        .collect();
    let debs = |ids: &[String]| -> Vec<Digest> {
        ids.iter()
            .filter_map(|id| Some(lock.debs.get(id)?.sha256))
            .collect()
    };
    let base = match &locked.base {
        LockedBase::From { digest, .. } => serde_json::json!({ "from": digest }),
        LockedBase::Debian {
            epoch, debs: base, ..
        } => serde_json::json!({ "debs": debs(base), "epoch": epoch }),
    };
    let python = &locked.python;
    identity::key(&serde_json::json!({
        "v": 1, "emitter": EMITTER_VERSION, "cleaning": CLEANING_VERSION, "program": env!("CARGO_PKG_VERSION"),
        "platform": platform, "request": locked.request, "base": base, "wheels": wheels, "debs": debs(&locked.debs),
        "python": [python.path, python.full],
    }))
}

fn expected_diff_ids(locked: &LockedImage) -> Vec<Digest> {
    let base = match &locked.base {
        LockedBase::Debian { diff_id, .. } => *diff_id,
        LockedBase::From { .. } => None,
    };
    base.into_iter().chain(locked.os_diff_id).collect()
}

/// What was learned about OS layers.
#[derive(Debug, Default)]
struct OsLayers {
    base: Option<BuiltOs>,
    own: Option<BuiltOs>,
}

impl OsLayers {
    /// First diff IDs go into the lock; one that differs from the lock's is told and not swapped in.
    fn note(&self, lock: &mut Lock, name: &str, platform: Platform, context: &Context) {
        for built in [&self.base, &self.own].into_iter().flatten() {
            if let Some(first) = built.differs_from {
                context.progress.warn(&format!(
                    "{}: this build of the OS layer is {}, the recorded one {first}: its maintainer scripts are not \
                     reproducible",
                    built.layer.comment, built.layer.diff_id
                ));
            }
        }
        let base_request = match lock
            .images
            .get(name)
            .and_then(|all| all.get(&platform))
            .map(|image| &image.base)
        {
            Some(LockedBase::Debian { request, .. }) => Some(*request),
            _ => None,
        };
        if let (Some(built), Some(key)) = (&self.base, base_request) {
            let images = lock
                .images
                .values_mut()
                .filter_map(|platforms| platforms.get_mut(&platform));
            for image in images {
                if let LockedBase::Debian {
                    request, diff_id, ..
                } = &mut image.base
                    && *request == key
                {
                    diff_id.get_or_insert(built.layer.diff_id);
                }
            }
        }
        let image = lock
            .images
            .get_mut(name)
            .and_then(|platforms| platforms.get_mut(&platform));
        if let (Some(built), Some(image)) = (&self.own, image) {
            image.os_diff_id.get_or_insert(built.layer.diff_id);
        }
    }
}

/// The documents behind a built image's keys; kept under its image key for `why`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// The configuration.
    pub config: ConfigDocument,
    /// Each layer above the base with the name that people know it by, lowest first.
    pub layers: Vec<(LayerDocument, String)>,
}

struct Job<'a> {
    builder: &'a Builder<'a>,
    request: &'a ImageRequest,
    platform: Platform,
    content: &'a Content,
    lock: &'a Lock,
    locked: &'a LockedImage,
    timings: Timings,
    /// Digests of layers that were there before.
    present: RefCell<Vec<Digest>>,
    /// What the layers' keys are made of.
    documents: RefCell<Vec<(LayerDocument, String)>>,
}

impl Job<'_> {
    async fn run(&mut self) -> Result<(Image, OsLayers), Failure> {
        let begun = Instant::now();
        let base = self.base().await?;
        self.check_sandbox(base.as_ref())?;
        let begun = self.lap("base", begun);
        self.fetch().await?;
        let begun = self.lap("fetch", begun);
        let (mut layers, os) = self.os_layers(base.as_ref()).await?;
        let begun = self.lap("OS layers", begun);
        let mut small = self.small_layers(base.as_ref(), &layers)?;
        let python = &self.locked.python;
        let skeleton = files::skeleton(self.builder.store, python)?;
        let document = LayerDocument::skeleton(files::python_document(python), &python.path);
        self.document(document, &skeleton.comment);
        layers.push(skeleton);
        let begun = self.lap("small layers", begun);
        layers.extend(self.wheel_layers(layers.len() + small.len())?);
        let begun = self.lap("wheel layers", begun);
        layers.append(&mut small);
        let image = assemble(Parts {
            platform: self.platform,
            base: base.as_ref(),
            layers,
            config: &self.request.config,
        })?;
        self.builder.store.put_blob(image.config.as_bytes())?;
        self.builder.store.put_blob(image.manifest.as_bytes())?;
        self.remember(&image)?;
        self.lap("assemble", begun);
        Ok((image, os))
    }

    fn remember(&self, image: &Image) -> Result<(), Failure> {
        let recorded = Recorded {
            config: ConfigDocument::new(&self.request.config),
            layers: self.documents.borrow().clone(),
        };
        if let Ok(text) = serde_json::to_string(&recorded) {
            self.builder.state.put_document(&image.key, &text)?;
        }
        Ok(())
    }

    fn document(&self, document: LayerDocument, name: &str) {
        self.documents
            .borrow_mut()
            .push((document, name.to_owned()));
    }

    fn lap(&mut self, stage: &str, begun: Instant) -> Instant {
        self.timings.push((stage.into(), begun.elapsed()));
        Instant::now()
    }

    async fn fetch(&self) -> Result<(), Failure> {
        let builder = self.builder;
        let indexes: Vec<(String, String)> = self
            .request
            .indexes
            .iter()
            .map(|index| (index.name.clone(), index.url.clone()))
            .collect();
        let fetching = FetchContext {
            http: builder.http,
            store: builder.store,
            ambient: builder.context.ambient(),
            indexes: &indexes,
            project_dir: &builder.context.folder,
            progress: &*builder.context.progress,
            jobs: 8,
        };
        let wheels: Vec<_> = self
            .locked
            .wheels
            .iter()
            .filter_map(|file| self.lock.wheels.get_key_value(file))
            .map(|(file, wheel)| (file.as_str(), wheel))
            .collect();
        fetch_wheels(&wheels, &fetching).await?;
        for fetch in &self.request.fetches {
            fetch_file(&fetch.to, &fetch.url, &fetch.sha256, &fetching).await?;
        }
        Ok(())
    }

    async fn base(&self) -> Result<Option<BaseImage>, Failure> {
        let builder = self.builder;
        match &self.locked.base {
            LockedBase::Debian { .. } => Ok(None),
            LockedBase::From { reference, digest } => {
                let (context, store, http) = (builder.context, builder.store, builder.http);
                let base = bases::inspect(
                    context,
                    store,
                    http,
                    reference,
                    Some(*digest),
                    self.platform,
                )
                .await?;
                Ok(Some(base))
            }
        }
    }

    /// The Debian base (if the root is one) and the image's own OS packages.
    async fn os_layers(&self, from: Option<&BaseImage>) -> Result<(Vec<Layer>, OsLayers), Failure> {
        let mut layers = Vec::new();
        let mut os = OsLayers::default();
        let mirror = match &self.locked.base {
            LockedBase::Debian { mirror, .. } => mirror.as_deref(),
            LockedBase::From { .. } => None,
        };
        if let Some(request) = self.base_request() {
            let built = self.os_layer(&request, mirror, &[]).await?;
            layers.push(built.layer.clone());
            os.base = Some(built);
        }
        let below = below(from, &layers);
        if let Some(request) = self.own_request(from, &below) {
            let built = self.os_layer(&request, mirror, &below).await?;
            layers.push(built.layer.clone());
            os.own = Some(built);
        }
        Ok((layers, os))
    }

    /// Before anything is downloaded: can the OS packages that are not configured yet be configured here?
    fn check_sandbox(&self, from: Option<&BaseImage>) -> Result<(), Failure> {
        let store = self.builder.store;
        let mut layers = Vec::new();
        let mut missing = false;
        if let Some(request) = self.base_request() {
            match known(store, &request.key())? {
                Some(layer) => layers.push(layer),
                None => missing = true,
            }
        }
        if let (false, Some(request)) = (missing, self.own_request(from, &below(from, &layers))) {
            missing = known(store, &request.key())?.is_none();
        }
        if missing && self.platform.architecture() == host_architecture() {
            self.dpkg().check()?;
        }
        Ok(())
    }

    fn dpkg(&self) -> Dpkg {
        let builder = self.builder;
        Dpkg::new(
            builder.store.scratch().path(),
            builder.context.cancel.clone(),
        )
    }

    /// The Debian base, if the root is one.
    fn base_request(&self) -> Option<DebianRequest<'_>> {
        let LockedBase::Debian {
            suite,
            epoch,
            debs,
            diff_id,
            ..
        } = &self.locked.base
        else {
            return None;
        };
        let debs = self.debs(debs);
        Some(DebianRequest {
            architecture: self.platform.architecture(),
            comment: format!("Debian {suite}, {} packages", debs.len()),
            debs,
            epoch: *epoch,
            parents: Vec::new(),
            expected: *diff_id,
        })
    }

    /// The image's own OS packages, if it has any, above the layers `below`.
    fn own_request(&self, from: Option<&BaseImage>, below: &[Layer]) -> Option<DebianRequest<'_>> {
        if self.locked.debs.is_empty() {
            return None;
        }
        let debs = self.debs(&self.locked.debs);
        Some(DebianRequest {
            architecture: self.platform.architecture(),
            comment: comment_of(&debs),
            debs,
            epoch: match &self.locked.base {
                LockedBase::Debian { epoch, .. } => *epoch,
                LockedBase::From { .. } => from.map_or(0, BaseImage::epoch),
            },
            parents: below.iter().map(|layer| layer.diff_id).collect(),
            expected: self.locked.os_diff_id,
        })
    }

    fn debs(&self, ids: &[String]) -> Vec<&LockedDeb> {
        ids.iter().filter_map(|id| self.lock.debs.get(id)).collect()
    }

    async fn os_layer(
        &self,
        request: &DebianRequest<'_>,
        mirror: Option<&str>,
        below: &[Layer],
    ) -> Result<BuiltOs, Failure> {
        let builder = self.builder;
        let store = builder.store;
        self.document(request.document(), &request.comment);
        let fits = |layer: &Layer| {
            request
                .expected
                .is_none_or(|wanted| wanted == layer.diff_id)
        };
        if let Some(layer) = known(store, &request.key())?.filter(fits) {
            self.present.borrow_mut().push(layer.digest);
            return Ok(BuiltOs {
                layer,
                differs_from: None,
            });
        }
        if request.architecture != host_architecture() {
            return Err(Failure::plain(
                Kind::Unavailable,
                format!(
                    "OS packages for {} cannot be configured on this {} machine",
                    request.architecture,
                    host_architecture()
                ),
                "build this platform on a machine of its own architecture, or begin with an image that has the packages (`from`)",
            ));
        }
        let source = DebSource {
            http: builder.http,
            ambient: builder.context.ambient(),
            store,
            progress: &*builder.context.progress,
            mirror,
        };
        let dpkg = self.dpkg();
        dpkg.check()?;
        fetch_debs(source, &request.debs).await?;
        let progress = &*builder.context.progress;
        Ok(if below.is_empty() {
            build_base(store, &dpkg, request, progress)?
        } else {
            let lower: Vec<PathBuf> = trees::unpack_all(builder.context, store, below)?;
            build_os(store, &dpkg, request, &lower, progress)?
        })
    }

    /// Layers above the wheels: downloads, project files, the user.
    fn small_layers(&self, from: Option<&BaseImage>, os: &[Layer]) -> Result<Vec<Layer>, Failure> {
        let store = self.builder.store;
        let mut layers = Vec::new();
        for fetch in &self.request.fetches {
            let layer = files::fetch(store, fetch)?;
            let document = FetchDocument {
                sha256: fetch.sha256,
                to: fetch.to.clone(),
                mode: fetch.mode.unwrap_or(FetchDocument::DEFAULT_MODE),
            };
            self.document(LayerDocument::fetch(&document), &layer.comment);
            layers.push(layer);
        }
        if let Some(layer) = files::project(store, &self.content.files)? {
            let entries = self.content.files.entries.clone();
            self.document(LayerDocument::files(entries), &layer.comment);
            layers.push(layer);
        }
        let (passwd, group) = self.accounts(from, os)?;
        let config = &self.request.config;
        let user = config.user.clone().unwrap_or_default();
        let parts = UserParts {
            user: &user,
            workdir: config.workdir.as_deref(),
            passwd: &passwd,
            group: &group,
        };
        let layer = files::user(store, parts)?;
        self.document(parts.document(), &layer.comment);
        layers.push(layer);
        Ok(layers)
    }

    /// `/etc/passwd` and `/etc/group` below the user's layer.
    fn accounts(
        &self,
        from: Option<&BaseImage>,
        os: &[Layer],
    ) -> Result<(String, String), Failure> {
        const PATHS: [&str; 2] = ["etc/passwd", "etc/group"];
        if os.is_empty()
            && let Some(base) = from
        {
            return Ok((base.contents.passwd.clone(), base.contents.group.clone()));
        }
        let base = from
            .into_iter()
            .flat_map(|base| base.layers.iter().map(|layer| layer.digest));
        let blobs: Vec<Digest> = base.chain(os.iter().map(|layer| layer.digest)).collect();
        let key = identity::key(&serde_json::json!({ "files": PATHS, "of": blobs, "v": 1 }));
        let state = &self.builder.state;
        if let Some(known) = state.document(&key)?
            && let Ok(known) = serde_json::from_str(&known)
        {
            return Ok(known);
        }
        let files = read_files(self.builder.store, &blobs, &PATHS)?;
        let text = |path: &str| {
            files
                .get(path)
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let found = (
            text(PATHS[0]).unwrap_or_default(),
            text(PATHS[1]).unwrap_or_default(),
        );
        if let Ok(document) = serde_json::to_string(&found) {
            state.put_document(&key, &document)?;
        }
        Ok(found)
    }

    fn wheel_layers(&self, others: usize) -> Result<Vec<Layer>, Failure> {
        let builder = self.builder;
        let wheels: Vec<PinnedWheel> = self
            .locked
            .wheels
            .iter()
            .filter_map(|file| Some((file, self.lock.wheels.get(file)?)))
            .map(|(file, wheel)| PinnedWheel {
                name: wheel.name.clone(),
                version: wheel.version.clone(),
                file_name: file.clone(),
                sha256: wheel.sha256,
            })
            .collect();
        let python = files::python_document(&self.locked.python);
        let planned = plan(builder.store, &python, &wheels, others)?;
        for layer in &planned.layers {
            self.document(layer.document.clone(), &layer.comment);
        }
        for warning in &planned.warnings {
            builder.context.progress.warn(warning);
        }
        let before: Vec<bool> = planned
            .layers
            .iter()
            .map(|layer| builder.store.recipe_path(&layer.key).is_file())
            .collect();
        let layers = build_wheel_layers(
            builder.store,
            &planned.layers,
            builder.context.jobs(),
            &*builder.context.progress,
        )?;
        let known = layers.iter().zip(before).filter(|(_, known)| *known);
        self.present
            .borrow_mut()
            .extend(known.map(|(layer, _)| layer.digest));
        Ok(layers)
    }
}

/// What OS packages are put upon: the base image's layers, then the ones above it.
fn below(from: Option<&BaseImage>, above: &[Layer]) -> Vec<Layer> {
    from.iter()
        .flat_map(|base| base.layers.iter().map(crate::image::base_layer))
        .chain(above.iter().cloned())
        .collect()
}

/// For the image's history: the packages that a layer of debs adds.
fn comment_of(debs: &[&LockedDeb]) -> String {
    let names: Vec<String> = debs
        .iter()
        .take(12)
        .map(|deb| format!("{} {}", deb.package, deb.version))
        .collect();
    let more = debs.len().saturating_sub(12);
    let mut comment = format!("OS packages: {}", names.join(", "));
    if more > 0 {
        comment.push_str(&format!(" and {more} more"));
    }
    comment
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
