//! What every command shares: where the project and the store are, the network client, progress, interruption.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;

use super::ambient;
use super::bars::Bars;
use super::failure::Failure;
use super::interrupt;
use crate::ambient::Ambient;
use crate::diagnostic::{Kind, SourceText};
use crate::http::Http;
use crate::lock::Lock;
use crate::manifest::{self, ImageRequest, Manifest, ProjectFiles};
use crate::registry::Registry;
use crate::runtime::Cancel;
use crate::store::Store;

/// The file that a project's manifest has.
pub const MANIFEST: &str = "imagewright.kdl";
/// The file beside it.
pub const LOCK: &str = "imagewright.lock";

/// What the name of a lock on its way into place begins with.
const TEMPORARY: &str = ".imagewright.lock.";

/// Largest manifest that is read, in bytes.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The project's folder, or its manifest file.
    #[arg(
        short = 'C',
        long = "project",
        global = true,
        value_name = "PATH",
        default_value = "."
    )]
    pub project: PathBuf,
    /// The store's folder; default: `imagewright` in the user's cache folder.
    #[arg(long, global = true, value_name = "DIR", env = "IMAGEWRIGHT_STORE")]
    pub store: Option<PathBuf>,
    /// Use only what the store has; never the network.
    #[arg(long, global = true)]
    pub offline: bool,
    /// Print results (and errors) as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bars.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How many things to do at a time; default: the number of processors.
    #[arg(long, global = true, value_name = "N")]
    pub jobs: Option<usize>,
}

/// What commands work with.
#[derive(Debug)]
pub struct Context {
    /// Options of every command.
    pub global: Global,
    /// The project's folder.
    pub folder: PathBuf,
    /// The manifest.
    pub manifest_path: PathBuf,
    /// The lock.
    pub lock_path: PathBuf,
    /// The machine's configuration; complete once the manifest has said which indexes there are.
    ambient: OnceLock<Ambient>,
    /// Bars and warnings.
    pub progress: Arc<Bars>,
    /// Set by SIGINT and SIGTERM.
    pub cancel: Cancel,
    runtime: tokio::runtime::Runtime,
}

impl Context {
    /// Reads the machine's configuration; touches neither store nor network.
    pub fn new(global: Global, cancel: Cancel) -> Result<Self, Failure> {
        let (folder, manifest_path) = locate(&global.project);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(16 << 20)
            .enable_all()
            .build()
            .map_err(|error| {
                Failure::plain(
                    Kind::Unavailable,
                    format!("cannot start threads: {error}"),
                    "",
                )
            })?;
        Ok(Self {
            lock_path: manifest_path.with_file_name(LOCK),
            folder,
            manifest_path,
            ambient: OnceLock::new(),
            progress: Arc::new(Bars::new(global.quiet || global.json)),
            cancel,
            runtime,
            global,
        })
    }

    /// Whether a project was named, or there is one in the working folder.
    pub fn has_project(&self) -> bool {
        self.global.project.as_os_str() != "." || self.manifest_path.exists()
    }

    /// How many things to do at a time.
    pub fn jobs(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.global.jobs.unwrap_or_else(processors).max(1)
    }

    /// Waits for `future`.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Opens the store.
    pub fn store(&self) -> Result<Store, Failure> {
        let store = Store::open(&self.store_root()?)?;
        interrupt::remove_at_exit(store.scratch().path());
        Ok(store)
    }

    /// Opens the store for a command that only removes from it, which it can on a full disk too.
    pub fn store_to_free(&self) -> Result<Store, Failure> {
        let store = Store::open_to_free(&self.store_root()?)?;
        interrupt::remove_at_exit(store.scratch().path());
        Ok(store)
    }

    fn store_root(&self) -> Result<PathBuf, Failure> {
        let folder = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        let root = self.global.store.clone();
        root.or_else(|| Some(cache()?.join("imagewright")))
            .ok_or_else(|| {
                Failure::plain(
                    Kind::Usage,
                    "there is no place for the store: HOME is not set",
                    "set IMAGEWRIGHT_STORE to a folder, or give --store DIR",
                )
            })
    }

    /// What the machine's configuration contributes.
    pub fn ambient(&self) -> &Ambient {
        self.ambient.get_or_init(ambient::read)
    }

    /// The network client.
    pub fn http(&self) -> Result<Http, Failure> {
        Ok(Http::new(self.ambient(), self.global.offline)?)
    }

    /// A client for registries, which tells whom it waits for.
    pub fn registry(&self, http: Http) -> Registry {
        Registry::new(http, self.ambient()).with_progress(self.progress.clone())
    }

    /// Reads and checks the manifest.
    pub fn manifest(&self) -> Result<Manifest, Failure> {
        let text = read_text(&self.manifest_path, MANIFEST_LIMIT)?;
        let source = SourceText::new(shown(&self.manifest_path), text);
        let files = Folder(self.folder.clone());
        let manifest = manifest::parse(&source, &files)?;
        let indexes = manifest.images.iter().flat_map(|image| &image.indexes);
        let indexes = indexes.map(|index| (index.name.as_str(), index.url.as_str()));
        self.ambient
            .get_or_init(|| ambient::with_keyring(ambient::read(), indexes));
        if manifest.images.is_empty() {
            return Err(Failure::plain(
                Kind::Usage,
                format!("{} declares no image", source.name),
                "declare one: image \"NAME\" { pip \"PACKAGE\" }; `imagewright init` writes an example into a folder without a manifest",
            ));
        }
        Ok(manifest)
    }

    /// Reads the lock; `None` if there is none yet.
    pub fn lock(&self) -> Result<Option<Lock>, Failure> {
        if !self.lock_path.exists() {
            return Ok(None);
        }
        let text = read_text(&self.lock_path, 64 << 20)?;
        let source = SourceText::new(shown(&self.lock_path), text);
        Ok(Some(Lock::parse(&source)?))
    }

    /// How the store names the lock as a root of what it keeps.
    pub fn lock_root(&self) -> PathBuf {
        std::path::absolute(&self.lock_path).unwrap_or_else(|_| self.lock_path.clone())
    }

    /// Puts the lock into place, all or nothing.
    pub fn write_lock(&self, lock: &Lock) -> Result<(), Failure> {
        let folder = self.lock_path.parent().unwrap_or(Path::new("."));
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let write = || -> std::io::Result<()> {
            let _held = interrupt::hold();
            let _gate = sweep_temporary(folder);
            let mut file = tempfile::Builder::new()
                .prefix(TEMPORARY)
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(folder)?;
            std::io::Write::write_all(&mut file, lock.to_text().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.lock_path)?;
            Ok(())
        };
        write().map_err(|error| {
            Failure::plain(
                Kind::Unavailable,
                format!("cannot write {}: {error}", self.lock_path.display()),
                "the lock stands beside the manifest: that folder must be writable, or use --locked",
            )
        })
    }

    /// The images with these names, or all if none is given.
    pub fn select<'a>(
        &self,
        manifest: &'a Manifest,
        names: &[String],
    ) -> Result<Vec<&'a ImageRequest>, Failure> {
        if names.is_empty() {
            return Ok(manifest.images.iter().collect());
        }
        names
            .iter()
            .map(|name| {
                let found = manifest.image(name);
                found.ok_or_else(|| {
                    unknown(
                        "image",
                        name,
                        manifest.images.iter().map(|image| image.name.as_str()),
                    )
                })
            })
            .collect()
    }
}

/// At most this many names are listed in a hint.
const LISTED: usize = 20;
/// Removes what killed writers of the lock left in `folder`. While the guard lives no other process writes a lock
/// there, so whatever has such a name belongs to the dead; where the folder cannot be locked, nothing is removed.
fn sweep_temporary(folder: &Path) -> Option<std::fs::File> {
    let gate = std::fs::File::open(folder).ok()?;
    rustix::fs::flock(&gate, rustix::fs::FlockOperation::LockExclusive).ok()?;
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let temporary = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
        if temporary && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Some(gate)
}

/// An error for a name that nothing has.
pub fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    let close = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, name), candidate))
        .filter(|(distance, _)| *distance <= 2)
        .min();
    let hint = match close {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None if known.is_empty() => "there are none".to_owned(),
        None if known.len() > LISTED => {
            format!("there are {} others, none with a name like it", known.len())
        }
        None => format!("there are: {}", known.join(", ")),
    };
    Failure::plain(Kind::NotFound, format!("there is no {what} `{name}`"), hint)
}

fn locate(project: &Path) -> (PathBuf, PathBuf) {
    if project.is_file() {
        let folder = project
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        (
            folder.unwrap_or(Path::new(".")).to_owned(),
            project.to_owned(),
        )
    } else if project == Path::new(".") {
        (project.to_owned(), MANIFEST.into())
    } else {
        (project.to_owned(), project.join(MANIFEST))
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}

/// Reads a text file of the user's, with an error that says what is wrong with it.
fn read_text(path: &Path, limit: u64) -> Result<String, Failure> {
    let name = shown(path);
    let usage = |message: String, hint: &str| Failure::plain(Kind::Usage, message, hint);
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::plain(
            Kind::NotFound,
            format!("there is no {name}"),
            format!("write one (`imagewright init` makes an example), or name the project with -C; the file is called {MANIFEST}"),
        ),
        _ => usage(format!("cannot read {name}: {error}"), ""),
    })?;
    if !meta.is_file() {
        return Err(usage(
            format!("{name} is not a file"),
            "give the project's folder or the manifest file with -C",
        ));
    }
    if meta.len() > limit {
        return Err(usage(
            format!(
                "{name} has {} MB, more than {} MB",
                meta.len() / 1_000_000,
                limit / 1_000_000
            ),
            "this is not a manifest that a person wrote; is it the right file?",
        ));
    }
    let bytes =
        std::fs::read(path).map_err(|error| usage(format!("cannot read {name}: {error}"), ""))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let line = text.matches('\n').count() + 1;
        usage(
            format!("{name} is not UTF-8 text: byte {valid} (line {line})"),
            "save the file as UTF-8; a binary file is not a manifest",
        )
    })
}

/// The project's folder, for `pip-from`.
struct Folder(PathBuf);

impl ProjectFiles for Folder {
    fn read(&self, path: &str) -> Result<String, String> {
        let path = self.0.join(path);
        let meta = std::fs::metadata(&path).map_err(|error| error.to_string())?;
        if !meta.is_file() {
            return Err("it is not a file".into());
        }
        if meta.len() > MANIFEST_LIMIT {
            return Err(format!(
                "it is larger than {} MB",
                MANIFEST_LIMIT / 1_000_000
            ));
        }
        std::fs::read_to_string(&path).map_err(|error| error.to_string())
    }
}
