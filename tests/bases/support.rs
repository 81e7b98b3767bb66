//! The project of these tests, built once, and the program that builds it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use imagewright::diagnostic::SourceText;
use imagewright::lock::{Lock, LockedBase, LockedDeb, LockedImage};
use imagewright::manifest::{Platform, builtin_names};
use imagewright::store::{Store, remove_tree};

use crate::command::run;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_imagewright");

/// OS packages with every kind of secret, cache and clock that maintainer scripts are known to leave.
pub const OWN: [&str; 6] = [
    "vim",
    "ssl-cert",
    "fontconfig",
    "fonts-dejavu-core",
    "openssh-server",
    "dbus",
];

/// The image with [`OWN`] packages; all others are named like their bases.
pub const WITH_OWN: &str = "own-packages";

/// Kept between test runs.
pub fn cache() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-cache");
    fs::create_dir_all(&path).unwrap();
    path
}

/// A manifest in a folder, and a store that holds no more than downloads at first.
pub struct Project {
    folder: PathBuf,
    /// Held while the folder is in use; the next run of the tests removes what this one leaves.
    _lock: File,
}

impl Project {
    /// Locks and builds the manifest with the program. Locking uses the shared store, building one of its own.
    pub fn build(name: &str, manifest: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let lock = File::create(folder.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        remove_tree(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("imagewright.kdl"), manifest).unwrap();
        let project = Self {
            folder,
            _lock: lock,
        };
        let shared = cache().join("store");
        project.command(&shared, &["lock"]);
        let (ours, theirs) = (project.store(), Store::open(&shared).unwrap());
        share_downloads(&theirs, &ours);
        project.command(&project.store_path(), &["build"]);
        share_downloads(&ours, &theirs);
        project
    }

    fn command(&self, store: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new(PROGRAM);
        command
            .args(["--quiet", "--store"])
            .arg(store)
            .arg("-C")
            .arg(&self.folder);
        run(command.args(arguments))
    }

    /// The manifest's folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    fn store_path(&self) -> PathBuf {
        self.folder.join("store")
    }

    pub fn store(&self) -> Store {
        Store::open(&self.store_path()).unwrap()
    }

    /// As the build left it.
    pub fn lock(&self) -> Lock {
        let text = fs::read_to_string(self.folder.join("imagewright.lock")).unwrap();
        Lock::parse(&SourceText::new("imagewright.lock", text)).unwrap()
    }

    /// What a command in an image prints; it must succeed.
    pub fn exec(&self, image: &str, command: &[&str]) -> String {
        let mut arguments = vec!["--offline", "exec", image, "--"];
        arguments.extend(command);
        self.command(&self.store_path(), &arguments)
    }
}

/// Images on all built-in bases, and one with OS packages of its own; built by the program.
pub fn project() -> &'static Project {
    static PROJECT: OnceLock<Project> = OnceLock::new();
    PROJECT.get_or_init(|| {
        let mut manifest = String::new();
        for base in builtin_names() {
            manifest += &format!("image \"{base}\" base=\"{base}\"\n");
        }
        manifest += &format!("image \"{WITH_OWN}\" base=\"minimal\" {{\n");
        for package in OWN {
            manifest += &format!("    os \"{package}\"\n");
        }
        manifest += "}\n";
        Project::build("bases", &manifest)
    })
}

/// The image's pins for the only platform.
pub fn locked<'a>(lock: &'a Lock, image: &str) -> &'a LockedImage {
    &lock.images[image][&Platform::LinuxAmd64]
}

/// A base layer as the lock describes it.
pub struct LockedLayer<'a> {
    pub debs: Vec<&'a LockedDeb>,
    pub epoch: i64,
    pub diff_id: imagewright::digest::Digest,
}

pub fn base_layer<'a>(lock: &'a Lock, image: &str) -> LockedLayer<'a> {
    let LockedBase::Debian {
        epoch,
        debs,
        diff_id,
        ..
    } = &locked(lock, image).base
    else {
        panic!("{image} has no Debian base");
    };
    LockedLayer {
        debs: debs.iter().map(|id| &lock.debs[id]).collect(),
        epoch: *epoch,
        diff_id: diff_id.expect("the build has recorded the diff ID"),
    }
}

/// Gives `to` every artifact that `from` has.
pub fn share_downloads(from: &Store, to: &Store) {
    let folder = |store: &Store| store.base().join("artifacts");
    for artifact in fs::read_dir(folder(from)).unwrap() {
        let artifact = artifact.unwrap();
        let target = folder(to).join(artifact.file_name());
        match fs::hard_link(artifact.path(), &target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                panic!("{}: {error}", target.display())
            }
            _ => {}
        }
    }
}
