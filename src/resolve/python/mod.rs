//! Python requirements → pinned wheels, for one platform at a time. The only user of the resolver's crates.
//!
//! Pins are those of `uv pip compile --only-binary :all:` for the same requirements, platform, Python and indexes.
//! Nothing is built and no Python runs. What the machine contributes comes in [`Ambient`] (mirror of the default
//! index, logins, certificates) and from the HTTP client's proxy variables; the resolver's own settings files,
//! variables, netrc and keyring are not read (`client.rs` says what its crates still look at).
//!
//! Requirements are given to the resolver sorted, so that their order in the manifest never decides a pin.

mod client;
mod error;
mod explain;
mod installed;
mod listing;
mod notes;
mod pins;
mod preferences;
mod request;
mod solve;
mod target;
mod wheels_only;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tokio::sync::{mpsc, oneshot};
use uv_cache::Cache;
use uv_distribution_types::Resolution as Graph;
use uv_resolver::ResolveError;

pub use error::PythonError;
pub use installed::{Asked, Environment, is_prerelease};

use crate::ambient::{Ambient, redact};
use crate::digest::Digest;
use crate::http::Http;
use crate::lock::{LockedPython, LockedWheel};
use crate::manifest::{Index, PipRequirement, Platform, Spanned};
use crate::progress::{Progress, Stage};
use request::Input;

/// The resolver recurses deeply in unoptimised builds.
const STACK: usize = 32 << 20;

/// What is to be resolved.
#[derive(Clone, Copy, Debug)]
pub struct PythonRequest<'a> {
    /// What the image asks for.
    pub requirements: &'a [Spanned<PipRequirement>],
    /// Limits on versions that ask for nothing by themselves.
    pub constraints: &'a [Spanned<PipRequirement>],
    /// Requirements that replace what packages declare.
    pub overrides: &'a [Spanned<PipRequirement>],
    /// Declared indexes, in order of preference.
    pub indexes: &'a [Spanned<Index>],
    /// RFC 3339 instant; later uploads do not exist.
    pub exclude_newer: Option<&'a Spanned<String>>,
    /// The platform.
    pub platform: Platform,
    /// The interpreter and the glibc of the base.
    pub python: &'a LockedPython,
    /// Path as a requirement's `wheel` has it → the file.
    pub project_wheels: &'a BTreeMap<String, ProjectWheel>,
    /// (package, version) to keep while it satisfies the request; the first entry of a package counts most. For a
    /// second platform: the first one's pins, then the old ones.
    pub pins: &'a [(String, String)],
    /// Pins to disregard.
    pub upgrade: &'a Upgrade,
}

/// A wheel file of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectWheel {
    /// Absolute.
    pub path: PathBuf,
    /// Of the file.
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
}

/// Which pins may move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// Only those that no longer satisfy the request.
    #[default]
    None,
    /// All.
    All,
    /// These packages (normalised names), and what they force to move.
    Names(BTreeSet<String>),
}

/// The pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// File name and wheel, sorted by package name.
    pub wheels: Vec<(String, LockedWheel)>,
    /// Sentences about surprises, such as an old release taken because newer ones have no wheel.
    pub warnings: Vec<String>,
    /// Package → the packages among the manifest's requirements that lead to it.
    pub wanted_by: BTreeMap<String, BTreeSet<String>>,
}

impl Resolution {
    /// The pins, as [`PythonRequest::pins`] takes them.
    pub fn pins(&self) -> Vec<(String, String)> {
        let wheels = self.wheels.iter();
        wheels
            .map(|(_, wheel)| (wheel.name.clone(), wheel.version.clone()))
            .collect()
    }
}

/// The default index's URL without credentials: the machine's mirror, else the resolver's own default.
pub fn default_index_url(ambient: &Ambient) -> String {
    match &ambient.python_index {
        Some(mirror) => redact(mirror),
        None => uv_distribution_types::PYPI_URL.to_string(),
    }
}

/// Resolves `request`. `cache_dir` holds index answers and metadata, without credentials; it may vanish between calls.
///
/// # Errors
/// [`PythonError`]; conflicts come with the lines of the manifest that take part.
pub async fn resolve(
    request: &PythonRequest<'_>,
    ambient: &Ambient,
    cache_dir: &Path,
    offline: bool,
    progress: &dyn Progress,
) -> Result<Resolution, PythonError> {
    let input = Input::new(request, ambient)?;
    if input.requirements().is_empty() {
        return Ok(Resolution::default());
    }
    let id = progress.begin(Stage::Resolve, &request.platform.to_string(), None);
    let (packages, mut decided) = mpsc::unbounded_channel();
    let answer = on_own_thread(
        input,
        ambient.clone(),
        cache_dir.to_owned(),
        offline,
        packages,
    );
    tokio::pin!(answer);
    let result = loop {
        tokio::select! {
            result = &mut answer => break result,
            Some(()) = decided.recv() => progress.advance(id, 1),
        }
    };
    progress.end(id);
    if let Ok(resolution) = &result {
        for warning in &resolution.warnings {
            progress.warn(warning);
        }
    }
    result
}

/// Runs the resolver on a thread with a stack of its own size and a runtime of its own: its futures are large and not
/// `Send`. Ends early when the caller drops the future.
async fn on_own_thread(
    input: Input,
    ambient: Ambient,
    cache_dir: PathBuf,
    offline: bool,
    packages: mpsc::UnboundedSender<()>,
) -> Result<Resolution, PythonError> {
    let failed = |reason: &str| PythonError::Internal {
        reason: reason.into(),
    };
    let (mut sender, receiver) = oneshot::channel();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let result = match runtime {
            Ok(runtime) => {
                let result = runtime.block_on(async {
                    let work = Box::pin(run(&input, &ambient, &cache_dir, offline, packages));
                    tokio::select! {
                        result = work => Some(result),
                        () = sender.closed() => None,
                    }
                });
                runtime.shutdown_background();
                result
            }
            Err(error) => Some(Err(failed(&error.to_string()))),
        };
        if let Some(result) = result {
            let _ = sender.send(result);
        }
    };
    std::thread::Builder::new()
        .name("python-resolver".into())
        .stack_size(STACK)
        .spawn(work)
        .map_err(|error| failed(&error.to_string()))?;
    match receiver.await {
        Ok(result) => result,
        Err(_) => Err(failed("its thread ended without an answer")),
    }
}

async fn run(
    input: &Input,
    ambient: &Ambient,
    cache_dir: &Path,
    offline: bool,
    packages: mpsc::UnboundedSender<()>,
) -> Result<Resolution, PythonError> {
    settle_preview();
    let cache = Cache::from_path(cache_dir)
        .init()
        .await
        .map_err(|error| PythonError::Cache {
            reason: error.to_string(),
        })?;
    let http = Http::new(ambient, offline)?;
    let client = client::registry_client(
        &http,
        &input.logins,
        &input.locations,
        &input.target,
        &cache,
    )?;
    let session = solve::Session::new(input, client, cache, packages);
    let output = match session.solve().await {
        Ok(output) => output,
        Err(ResolveError::NoSolution(error)) => {
            let plain = explain::plain_reason(&error, &session.seen, &session.lister()).await;
            if let Some(plain) = plain {
                return Err(plain);
            }
            let suspects = explain::suspects(&error, input);
            let (lines, error) = session.smallest_conflict(suspects, error).await;
            return Err(explain::conflict(&error, &lines, &session.seen, input));
        }
        Err(error) => return Err(explain::failure(&error, input)),
    };
    let graph = Graph::from(output);
    let wheels = pins::wheels(&graph, input, &http).await?;
    let chosen = pins::chosen(&graph);
    Ok(Resolution {
        wheels,
        warnings: notes::warnings(&chosen, &session.seen, &session.lister()).await,
        wanted_by: pins::wanted_by(&graph, input),
    })
}

/// The resolver's crates panic when their preview switches are read unset.
fn settle_preview() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let set = uv_preview::set(uv_preview::Preview::default());
        let _ = set.and_then(|()| uv_preview::finalize());
    });
}
