//! Debs → OS layers: dpkg unpacks and configures them in a sandbox, then the tree is cleaned and packed.
//!
//! A base begins as so much of its essential packages, unpacked here, that dpkg runs; dpkg then installs everything
//! from nothing, as mmdebstrap does. An image's own packages are installed above the base's trees, and what changed
//! becomes the layer. Never touches the network or a clock: times come from the lock's epoch.

mod cleaning;
mod deb;
mod emit;
mod keystore;
mod order;
mod sandbox;
mod script;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::pack::Packer;
use super::{LAYER_MEDIA_TYPE, Layer, LayerContent};
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::identity::{LayerDocument, key};
use crate::lock::LockedDeb;
use crate::progress::{Progress, Stage};
use crate::store::{Store, StoreError};

pub use emit::{EmitError, TreeJob, emit_tree};
pub use sandbox::{Sandbox, SandboxError, SandboxExit, SandboxJob};

/// A layer of debs that is wanted.
#[derive(Clone, Debug)]
pub struct DebianRequest<'a> {
    /// For example `amd64`.
    pub architecture: &'a str,
    /// The layer's packages; their files are in the store.
    pub debs: Vec<&'a LockedDeb>,
    /// Seconds since 1970 to which newer times are clamped.
    pub epoch: i64,
    /// Diff IDs of the layers below; empty for a base.
    pub parents: Vec<Digest>,
    /// For the image's history, for example `Debian bookworm`.
    pub comment: String,
    /// The diff ID that the lock records for this layer.
    pub expected: Option<Digest>,
}

impl DebianRequest<'_> {
    /// The document behind the layer key.
    pub fn document(&self) -> LayerDocument {
        let debs = self.debs.iter().map(|deb| deb.sha256);
        LayerDocument::debian(self.architecture, debs, self.epoch, self.parents.clone())
    }

    /// The layer key.
    pub fn key(&self) -> Digest {
        key(&self.document())
    }
}

/// A layer, and whether it is the one that was known before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The layer.
    pub layer: Layer,
    /// The diff ID that lock or store recorded for this key first, where the rebuild differs from it.
    pub differs_from: Option<Digest>,
}

/// Why an OS layer cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DebianLayerError {
    /// A deb is not in the store.
    #[error("the package file of {deb} is not in the store")]
    NotFetched {
        /// The package and its version.
        deb: String,
    },
    /// A deb is not one.
    #[error("the package file of {deb} cannot be read: {source}")]
    BadDeb {
        /// The package and its version.
        deb: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// dpkg or a maintainer script failed.
    #[error("dpkg failed with exit code {code}:\n{output}")]
    Failed {
        /// Of the script.
        code: i32,
        /// The last lines of its output.
        output: String,
    },
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Packing.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for DebianLayerError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFetched { .. } => Kind::NotFound,
            Self::BadDeb { .. } => Kind::Refused,
            Self::Failed { .. } | Self::Emit(_) => Kind::Unavailable,
            Self::Sandbox(source) => source.kind(),
            Self::Store(source) => source.kind(),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFetched { .. } => {
                Some("build once without --offline: what is fetched stays in the store".into())
            }
            Self::Failed { .. } => Some(
                "a package's own installation script failed in the sandbox, which has no network and no services: leave the package out, or begin with an image that has it (`from`)".into(),
            ),
            Self::Sandbox(source) => source.hint(),
            Self::Store(source) => source.hint(),
            Self::BadDeb { .. } | Self::Emit(_) => None,
        }
    }
}

/// What this store knows of the layer with this key, if its blob is still there.
///
/// # Errors
/// Those of the store.
pub fn known(store: &Store, key: &Digest) -> Result<Option<Layer>, StoreError> {
    Ok(recorded(store, key)?.filter(|layer| store.blob(&layer.digest).is_some()))
}

fn recorded(store: &Store, key: &Digest) -> Result<Option<Layer>, StoreError> {
    let document = store.state()?.layer(key)?;
    Ok(document.and_then(|document| serde_json::from_str(&document).ok()))
}

/// Makes a base layer: a whole root file system. A layer that the store has is not made again.
///
/// # Errors
/// See [`DebianLayerError`].
pub fn build_base(
    store: &Store,
    sandbox: &dyn Sandbox,
    request: &DebianRequest<'_>,
    progress: &dyn Progress,
) -> Result<Built, DebianLayerError> {
    build(store, sandbox, request, &[], progress)
}

/// Makes the layer of an image's own OS packages above `lower`, the unpacked trees of its base, lowest first.
///
/// # Errors
/// See [`DebianLayerError`].
pub fn build_os(
    store: &Store,
    sandbox: &dyn Sandbox,
    request: &DebianRequest<'_>,
    lower: &[PathBuf],
    progress: &dyn Progress,
) -> Result<Built, DebianLayerError> {
    build(store, sandbox, request, lower, progress)
}

fn build(
    store: &Store,
    sandbox: &dyn Sandbox,
    request: &DebianRequest<'_>,
    lower: &[PathBuf],
    progress: &dyn Progress,
) -> Result<Built, DebianLayerError> {
    let key = request.key();
    let fits = |layer: &Layer| {
        request
            .expected
            .is_none_or(|wanted| wanted == layer.diff_id)
    };
    if let Some(layer) = known(store, &key)?.filter(fits) {
        return Ok(Built {
            layer,
            differs_from: None,
        });
    }
    let _one_at_a_time = store.lock(&format!("os-{}", key.hex()))?;
    // Another process may have made it while this one waited.
    if let Some(layer) = known(store, &key)?.filter(fits) {
        return Ok(Built {
            layer,
            differs_from: None,
        });
    }
    let work = store.scratch().new_folder()?;
    let made = Workshop {
        store,
        sandbox,
        request,
        work: &work,
    }
    .make(lower, progress);
    let removed = sandbox.remove(&work);
    let layer = made?;
    removed.map_err(StoreError::io("remove", &work))?;
    let first = request
        .expected
        .or(recorded(store, &key)?.map(|layer| layer.diff_id));
    if let Ok(document) = serde_json::to_string(&layer) {
        store.state()?.put_layer(&key, &document)?;
    }
    let differs_from = first.filter(|first| *first != layer.diff_id);
    Ok(Built {
        layer,
        differs_from,
    })
}

struct Workshop<'a> {
    store: &'a Store,
    sandbox: &'a dyn Sandbox,
    request: &'a DebianRequest<'a>,
    work: &'a Path,
}

impl Workshop<'_> {
    fn make(&self, lower: &[PathBuf], progress: &dyn Progress) -> Result<Layer, DebianLayerError> {
        let (upper, tools) = (self.work.join("upper"), self.work.join("tools"));
        for folder in [&upper, &tools.join(script::FOLDER)] {
            fs::create_dir_all(folder).map_err(StoreError::io("create the folder", folder))?;
        }
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&upper, open).map_err(StoreError::io("set the mode of", &upper))?;
        self.provide(&tools, &upper, lower.is_empty())?;
        let mut below = lower.to_vec();
        below.push(tools);
        let job = SandboxJob {
            lower: below,
            upper: upper.clone(),
            argv: vec![
                "/bin/sh".into(),
                format!("/{}/{}", script::FOLDER, script::SCRIPT),
            ],
            env: script::environment(self.request.epoch),
        };
        self.run(&job, progress)?;
        let tree = TreeJob {
            root: upper,
            lower: lower.to_vec(),
            epoch: self.request.epoch,
        };
        self.pack(&tree, progress)
    }

    /// Lays out debs and script, and for a base the beginnings of a root file system.
    fn provide(&self, tools: &Path, upper: &Path, bootstrap: bool) -> Result<(), DebianLayerError> {
        let folder = tools.join(script::FOLDER);
        let marker = folder.join(script::MARKER);
        fs::write(&marker, "").map_err(StoreError::io("write", &marker))?;
        let mut files = Vec::new();
        let mut controls = Vec::new();
        for deb in &self.request.debs {
            let name = format!("{} {}", deb.package, deb.version);
            let artifact = self.store.artifact(&deb.sha256);
            let artifact = artifact.ok_or(DebianLayerError::NotFetched { deb: name.clone() })?;
            let file = format!("{}.deb", deb.sha256.hex());
            let target = folder.join(&file);
            fs::hard_link(&artifact, &target)
                .or_else(|_| fs::copy(&artifact, &target).map(|_| ()))
                .map_err(StoreError::io("write", &target))?;
            let bad = |source| DebianLayerError::BadDeb { deb: name, source };
            controls.push(deb::control(&target).map_err(bad)?);
            files.push(file);
        }
        let order = order::order(&controls, bootstrap);
        if bootstrap {
            begin(upper, self.request.architecture)
                .map_err(StoreError::io("write the beginnings of a root in", upper))?;
            for &index in &order.essential {
                let bad = |source| DebianLayerError::BadDeb {
                    deb: controls[index].package.clone(),
                    source,
                };
                deb::unpack_roughly(&folder.join(&files[index]), upper).map_err(bad)?;
            }
        }
        let path = folder.join(script::SCRIPT);
        fs::write(&path, script::script(&order, &files)).map_err(StoreError::io("write", &path))?;
        Ok(())
    }

    fn run(&self, job: &SandboxJob, progress: &dyn Progress) -> Result<(), DebianLayerError> {
        let packages = self.request.debs.len() as u64;
        let id = progress.begin(Stage::Configure, &self.request.comment, Some(packages));
        let log = Mutex::new(Log::default());
        let ended = self.sandbox.run(job, &|bytes| {
            if let Ok(mut log) = log.lock() {
                progress.advance(id, log.add(bytes));
            }
        });
        progress.end(id);
        match ended?.code {
            0 => Ok(()),
            code => Err(DebianLayerError::Failed {
                code,
                output: log.into_inner().map(|log| log.tail()).unwrap_or_default(),
            }),
        }
    }

    fn pack(&self, job: &TreeJob, progress: &dyn Progress) -> Result<Layer, DebianLayerError> {
        let id = progress.begin(Stage::Layer, &self.request.comment, None);
        let mut packer = Packer::new(self.store.pending()?);
        let emitted = {
            let mut counted = Counted {
                inner: &mut packer,
                advance: &|bytes| progress.advance(id, bytes),
            };
            self.sandbox.emit(job, &mut counted)
        };
        progress.end(id);
        emitted?;
        let path = self.store.blob_path(&Digest::of(""));
        let (pending, packed) = packer.finish().map_err(StoreError::io("write", &path))?;
        let target = self.store.blob_path(&packed.digest);
        pending.commit_verified(&target, &packed.digest, &self.request.comment)?;
        Ok(Layer {
            key: self.request.key(),
            media_type: LAYER_MEDIA_TYPE.into(),
            digest: packed.digest,
            size: packed.size,
            diff_id: packed.diff_id,
            unpacked: packed.unpacked,
            comment: self.request.comment.clone(),
            content: LayerContent::Blob,
        })
    }
}

/// The links of a merged `/usr`, which packages up to bookworm do not bring, and dpkg's empty database.
fn begin(root: &Path, architecture: &str) -> io::Result<()> {
    let mut merged = vec!["bin", "sbin", "lib"];
    if architecture == "amd64" {
        merged.extend(["lib64", "lib32", "libx32"]);
    }
    for name in merged {
        fs::create_dir_all(root.join("usr").join(name))?;
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    for folder in ["info", "updates", "triggers", "alternatives", "parts"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(folder))?;
    }
    fs::write(root.join("var/lib/dpkg/status"), "")
}

/// What dpkg said: the end of it, and how many packages it has configured.
#[derive(Default)]
struct Log {
    line: Vec<u8>,
    lines: std::collections::VecDeque<String>,
}

impl Log {
    /// Adds output; returns how many packages were configured in it.
    fn add(&mut self, bytes: &[u8]) -> u64 {
        const KEPT: usize = 40;
        let mut configured = 0;
        for byte in bytes {
            if *byte != b'\n' {
                // A line without end must not fill the memory.
                if self.line.len() < 4096 {
                    self.line.push(*byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            configured += u64::from(line.starts_with("Setting up "));
            self.lines.push_back(line);
            if self.lines.len() > KEPT {
                self.lines.pop_front();
            }
        }
        configured
    }

    fn tail(self) -> String {
        let mut lines: Vec<String> = self.lines.into();
        lines.push(String::from_utf8_lossy(&self.line).into_owned());
        lines.join("\n").trim_end().to_owned()
    }
}

struct Counted<'a> {
    inner: &'a mut dyn Write,
    advance: &'a dyn Fn(u64),
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        (self.advance)(written as u64);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
