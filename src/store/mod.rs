//! Every path on disk that imagewright keeps. Nothing outside this module builds a path below the store.
//!
//! ```text
//! <root>/store-v1/
//!   format                 "1": the version of this tree
//!   artifacts/<sha256>     wheels, debs, downloads, index files: verified before they get here
//!   blobs/<sha256>         blobs that exist as bytes: configs, manifests, base and OS layers
//!   checked/<sha256>       empty: the wheel's contents agree with its RECORD
//!   recipes/<layer key>    layers that are streamed on demand (see `layer::recipe`)
//!   trees/<diff id>/       unpacked layers for the embedded runtime; `trees` is 0700 (it holds setuid files)
//!   trees/<diff id>.used   empty; its mtime is when the tree was last used
//!   cache/<name>/          what other libraries cache (the Python resolver); may vanish while nobody uses it
//!   tmp/<session>/         one folder per process, locked while it lives, swept by the next one
//!   leases/<process>       what a process uses (see `lease`), locked while it lives; collection leaves that alone
//!   runs/<job>/            logs and results of runs
//!   locks/<name>           advisory locks between processes
//!   state.sqlite           images, layer keys, roots for gc, jobs, results
//!   catalog.sqlite         what was read of registries' records (see `catalog::Index`); may vanish at any time
//! ```
//!
//! Every write is temp-file + fsync + rename; many processes may share a store; killing any of them at any
//! moment leaves a store that the next one uses.

mod error;
pub mod gc;
mod lease;
mod scratch;
mod state;
mod upkeep;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, HashingWriter};
use gc::Kind as Thing;
use lease::Leases;

pub use error::{StoreError, no_room};
pub use scratch::{Scratch, remove_tree};
pub use state::{ImageRow, JobRow, JobState, State};

/// The version of the tree below the root.
pub const FORMAT: &str = "1";

/// A store in use by this process.
#[derive(Debug)]
pub struct Store {
    base: PathBuf,
    scratch: Scratch,
    leases: Leases,
}

impl Store {
    /// Opens, or makes, the store below `root`; sweeps what dead processes left in it.
    ///
    /// # Errors
    /// When it cannot be written, or has a newer format.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, Scratch::open)
    }

    /// As [`Store::open`], for who only removes: a full disk does not matter.
    pub fn open_to_free(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, |parent| match Scratch::open(parent) {
            Err(error) if error.is_full() => Scratch::missing(parent),
            opened => opened,
        })
    }

    fn open_with(
        root: &Path,
        scratch: impl FnOnce(&Path) -> Result<Scratch, StoreError>,
    ) -> Result<Self, StoreError> {
        let base = root.join("store-v1");
        let opened = || {
            make_folders(&base)?;
            Ok((scratch(&base.join("tmp"))?, Leases::open(&base)?))
        };
        let (scratch, leases) = opened().map_err(|error: StoreError| error.of_opening(&base))?;
        Ok(Self {
            base,
            scratch,
            leases,
        })
    }

    /// The folder with the version in its name.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// This process's temporary folder; gone when the process ends.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Opens the state database.
    pub fn state(&self) -> Result<State, StoreError> {
        State::open(&self.base.join("state.sqlite"))
    }

    /// Opens the state database to read what is in it, also where the disk is full. To be dropped before it is opened
    /// again.
    pub fn state_to_read(&self) -> Result<State, StoreError> {
        State::open_to_read(&self.base.join("state.sqlite"))
    }

    /// The path of a thing. Who asks for it uses it: no collection takes it while this process lives.
    fn leased(&self, kind: Thing, name: &str) -> PathBuf {
        self.leases.take(kind, name);
        self.base.join(kind.folder()).join(name)
    }

    /// The database of records that were read from registries; it may be removed at any time.
    pub fn catalog_path(&self) -> PathBuf {
        self.base.join("catalog.sqlite")
    }

    /// Where artifact `digest` is or would be.
    pub fn artifact_path(&self, digest: &Digest) -> PathBuf {
        self.leased(Thing::Artifact, &digest.hex())
    }

    /// The artifact's path if the store has it.
    pub fn artifact(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.artifact_path(digest)).filter(|path| path.is_file())
    }

    /// Whether a wheel's contents were compared with its RECORD before.
    pub fn is_checked(&self, wheel: &Digest) -> bool {
        self.base.join("checked").join(wheel.hex()).is_file()
    }

    /// Records that a wheel's contents agree with its RECORD.
    pub fn mark_checked(&self, wheel: &Digest) -> Result<(), StoreError> {
        let path = self.base.join("checked").join(wheel.hex());
        File::create(&path).map_err(StoreError::io("create", path))?;
        Ok(())
    }

    /// Where blob `digest` is or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.leased(Thing::Blob, &digest.hex())
    }

    /// The blob's path if the store has it as bytes.
    pub fn blob(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.blob_path(digest)).filter(|path| path.is_file())
    }

    /// Where the recipe of layer `key` is or would be.
    pub fn recipe_path(&self, key: &Digest) -> PathBuf {
        self.leased(Thing::Recipe, &key.hex())
    }

    /// Where the unpacked layer `diff_id` is or would be. Short names (links) for overlay are the runtime's affair.
    pub fn tree_path(&self, diff_id: &Digest) -> PathBuf {
        self.leased(Thing::Tree, &diff_id.hex())
    }

    /// A folder for another library's cache.
    pub fn cache_path(&self, name: &str) -> PathBuf {
        self.leased(Thing::Cache, name)
    }

    /// The folder of one job's logs and results; made if missing.
    pub fn run_path(&self, job: &str) -> Result<PathBuf, StoreError> {
        let path = self.base.join("runs").join(job);
        fs::create_dir_all(&path).map_err(StoreError::io("create the folder", &path))?;
        Ok(path)
    }

    /// Starts to write a file that `Pending::commit` puts into place.
    pub fn pending(&self) -> Result<Pending, StoreError> {
        Pending::create(self.scratch.new_path())
    }

    /// Writes `bytes` as a blob; returns its digest.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.blob(&digest).is_none() {
            let mut pending = self.pending()?;
            pending.append(bytes)?;
            pending.commit(&self.blob_path(&digest))?;
        }
        Ok(digest)
    }

    /// Makes the blob `digest` an artifact; its bytes are verified already.
    ///
    /// # Errors
    /// When it is neither, or cannot be moved.
    pub fn adopt_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let target = self.artifact_path(digest);
        match fs::rename(self.blob_path(digest), &target) {
            // Another process was faster.
            Err(_) if target.is_file() => Ok(()),
            moved => moved.map_err(StoreError::io("write", &target)),
        }
    }

    /// Waits for, then holds, the advisory lock `name` until the guard is dropped. Names are letters, digits, `-`.
    pub fn lock(&self, name: &str) -> Result<LockGuard, StoreError> {
        self.locker(name)()
    }

    /// [`Store::lock`] as a function that another thread can wait in.
    pub fn locker(
        &self,
        name: &str,
    ) -> impl FnOnce() -> Result<LockGuard, StoreError> + Send + use<> {
        let path = self.base.join("locks").join(name);
        move || loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(StoreError::io("open", &path))?;
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
                .map_err(|error| StoreError::io("lock", &path)(error.into()))?;
            // A collection removes locks that nobody holds: one that was waited for may have gone from under its name.
            if is_at(&file, &path) {
                return Ok(LockGuard { _file: file });
            }
        }
    }
}

/// Whether the file is the one with this name.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let (open, named) = (file.metadata().map(id), fs::metadata(path).map(id));
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

/// Holds an advisory lock.
#[derive(Debug)]
pub struct LockGuard {
    _file: File,
}

fn make_folders(base: &Path) -> Result<(), StoreError> {
    let made = |path: &Path| {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(StoreError::io("create the folder", path))
    };
    made(base)?;
    check_format(base)?;
    for folder in [
        "artifacts",
        "blobs",
        "checked",
        "recipes",
        "trees",
        "cache",
        "tmp",
        "runs",
        "locks",
        lease::FOLDER,
    ] {
        made(&base.join(folder))?;
    }
    for secret in ["trees", "tmp", "runs"] {
        let path = base.join(secret);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .map_err(StoreError::io("set the mode of", path))?;
    }
    Ok(())
}

fn check_format(base: &Path) -> Result<(), StoreError> {
    let path = base.join("format");
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == FORMAT => Ok(()),
        Ok(found) => Err(StoreError::NewerFormat {
            path: base.into(),
            found: found.trim().chars().take(40).collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let temporary = base.join(format!("format.{}", std::process::id()));
            fs::write(&temporary, format!("{FORMAT}\n"))
                .and_then(|()| fs::rename(&temporary, &path))
                .map_err(StoreError::io("write", path))
        }
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// A file on its way into the store: hashed while written, removed unless committed.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    writer: Option<io::BufWriter<HashingWriter<File>>>,
}

impl Pending {
    fn create(path: PathBuf) -> Result<Self, StoreError> {
        let file = File::create_new(&path).map_err(StoreError::io("create", &path))?;
        let writer = io::BufWriter::with_capacity(256 * 1024, HashingWriter::new(file));
        Ok(Self {
            path,
            writer: Some(writer),
        })
    }

    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let path = &self.path;
        match &mut self.writer {
            Some(writer) => writer
                .write_all(bytes)
                .map_err(StoreError::io("write", path)),
            None => Ok(()),
        }
    }

    /// The temporary path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn close(&mut self) -> Result<(Digest, u64), StoreError> {
        let Some(writer) = self.writer.take() else {
            return Ok((Digest::of(""), 0));
        };
        let hashing = writer
            .into_inner()
            .map_err(|error| StoreError::io("write", &self.path)(error.into_error()))?;
        let (file, digest, size) = hashing.finish();
        file.sync_all()
            .map_err(StoreError::io("write", &self.path))?;
        Ok((digest, size))
    }

    /// Puts the file into place, whatever its digest is; returns digest and size.
    pub fn commit(mut self, target: &Path) -> Result<(Digest, u64), StoreError> {
        let closed = self.close()?;
        fs::rename(&self.path, target).map_err(StoreError::io("put into place", target))?;
        Ok(closed)
    }

    /// Puts the file into place if its digest is `expected`, else removes it and says what came.
    pub fn commit_verified(
        mut self,
        target: &Path,
        expected: &Digest,
        what: &str,
    ) -> Result<u64, StoreError> {
        let (found, size) = self.close()?;
        if found != *expected {
            return Err(StoreError::WrongDigest {
                what: what.into(),
                expected: *expected,
                found,
                size,
            });
        }
        fs::rename(&self.path, target).map_err(StoreError::io("put into place", target))?;
        Ok(size)
    }
}

impl Write for Pending {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.writer {
            Some(writer) => writer.write(buf),
            None => Ok(0),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After a commit the path is gone already.
        let _ = fs::remove_file(&self.path);
    }
}
