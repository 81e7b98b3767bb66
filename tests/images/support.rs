//! Bases to build on, a store to build in, programs to judge with.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use imagewright::digest::Digest;
use imagewright::image::{self, Image, LayoutReader, LayoutReference, Parts};
use imagewright::layer::files;
use imagewright::layer::pack::Packer;
use imagewright::manifest::{Config, FileSpec, Platform, User};
use imagewright::progress::Silent;
use imagewright::resolve::base::{BaseError, BaseImage, inspect};
use imagewright::store::Store;
use serde_json::{Value, json};

pub const AMD64: Platform = Platform::LinuxAmd64;

/// A store in a folder of its own.
pub struct TestStore {
    pub store: Store,
    _dir: tempfile::TempDir,
}

pub fn store() -> TestStore {
    let dir = tempfile::tempdir().unwrap();
    TestStore {
        store: Store::open(dir.path()).unwrap(),
        _dir: dir,
    }
}

/// Runs `future` to its end.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Runs a program; panics with its messages when it fails; returns what it printed.
pub fn run(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let output = command(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} failed: {}{}",
        text(&output.stderr),
        text(&output.stdout)
    );
    text(&output.stdout)
}

/// A program with the machine's administrative folders in PATH.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"))
        .stdin(Stdio::null());
    command
}

fn cache() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("test-cache");
    fs::create_dir_all(&cache).unwrap();
    cache
}

/// A layout with the image `python`: Debian bookworm with Python 3.11, made once.
pub fn python_base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let target = cache().join("bookworm-python-v1");
        let lock = File::create(cache().join("bookworm-python.lock")).unwrap();
        rustix::fs::flock(lock.as_fd(), rustix::fs::FlockOperation::LockExclusive).unwrap();
        if !target.exists() {
            let work = tempfile::tempdir_in(cache()).unwrap();
            let tar = work.path().join("base.tar");
            let exclude = ["doc", "man", "locale", "info"]
                .map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*"));
            run(
                "mmdebstrap",
                ["--variant=apt", "--include=python3"]
                    .into_iter()
                    .chain(exclude.iter().map(String::as_str))
                    .chain(["bookworm", tar.to_str().unwrap()]),
            );
            let layout = work.path().join("layout");
            Layout::new(&layout).add("python", &[fs::read(&tar).unwrap()], "amd64", &[]);
            fs::rename(layout, &target).unwrap();
        }
        target
    })
}

/// A layout written by hand, so that it can be as wrong as a test needs it.
pub struct Layout {
    pub dir: PathBuf,
}

impl Layout {
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let layout = Self { dir: dir.into() };
        layout.write_index(&json!({"schemaVersion": 2, "manifests": []}));
        layout
    }

    pub fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.dir.join("index.json")).unwrap()).unwrap()
    }

    pub fn write_index(&self, index: &Value) {
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    pub fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs::write(self.path(&digest), bytes).unwrap();
        digest
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Adds an image of these tars under `name`; returns its manifest's digest.
    pub fn add(&self, name: &str, tars: &[Vec<u8>], architecture: &str, env: &[&str]) -> Digest {
        let diff_ids: Vec<Digest> = tars.iter().map(Digest::of).collect();
        let layers: Vec<Value> = tars
            .iter()
            .map(|tar| {
                let mut packer = Packer::new(Vec::new());
                packer.write_all(tar).unwrap();
                let (blob, packed) = packer.finish().unwrap();
                self.blob(&blob);
                json!({
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "digest": packed.digest, "size": packed.size,
                })
            })
            .collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2020-01-01T00:00:00Z",
            "config": {"Env": env, "Cmd": ["bash"], "Entrypoint": ["/x"], "User": "nobody",
                       "Labels": {"from": "base"}, "ExposedPorts": {"80/tcp": {}, "443/tcp": {}, "22/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        self.add_parts(name, config.to_string().as_bytes(), &layers)
    }

    pub fn add_parts(&self, name: &str, config: &[u8], layers: &[Value]) -> Digest {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": self.blob(config), "size": config.len()},
            "layers": layers,
        })
        .to_string();
        let digest = self.blob(manifest.as_bytes());
        let mut index = self.index();
        index["manifests"].as_array_mut().unwrap().push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest, "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }));
        self.write_index(&index);
        digest
    }

    pub fn inspect(&self, store: &Store, name: &str) -> Result<BaseImage, BaseError> {
        inspect_layout(store, &self.dir, name, AMD64)
    }
}

pub fn reader(dir: &Path, name: &str) -> LayoutReader {
    let text = format!("oci:{}:{name}", dir.display());
    LayoutReader::new(
        Path::new("/"),
        &LayoutReference::parse(&text).unwrap().unwrap(),
    )
}

pub fn inspect_layout(
    store: &Store,
    dir: &Path,
    name: &str,
    platform: Platform,
) -> Result<BaseImage, BaseError> {
    wait(inspect(
        store,
        &reader(dir, name),
        &format!("oci:base:{name}"),
        None,
        platform,
        &Silent,
    ))
}

/// What stands in a tar that a test makes.
pub enum Item<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
}

pub fn tar(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        match item {
            Item::File(path, content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, *content).unwrap();
            }
            Item::Link(path, target) => {
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// The start of an ELF program for `machine` that asks for `loader` and holds `text`.
pub fn elf(machine: u16, loader: &str, text: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    bytes[64..68].copy_from_slice(&3u32.to_le_bytes());
    bytes[72..80].copy_from_slice(&120u64.to_le_bytes());
    bytes[96..104].copy_from_slice(&(loader.len() as u64 + 1).to_le_bytes());
    bytes.extend_from_slice(loader.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

/// A project with files of many kinds.
pub fn sample_project() -> tempfile::TempDir {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    fs::create_dir_all(src.join("sub/empty")).unwrap();
    fs::write(src.join("main.py"), "print('main')\n").unwrap();
    fs::write(src.join("sub/tool.sh"), "#!/bin/sh\necho tool\n").unwrap();
    fs::set_permissions(src.join("sub/tool.sh"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(src.join("sub/ünïcode name.txt"), "ü").unwrap();
    fs::write(src.join("sub/debug.log"), "left out").unwrap();
    symlink("../main.py", src.join("sub/link.py")).unwrap();
    fs::write(dir.path().join("LICENSE"), "free").unwrap();
    fs::write(dir.path().join(".dockerignore"), "# logs\n**/*.log\n").unwrap();
    dir
}

pub fn spec(from: &str, to: &str) -> FileSpec {
    FileSpec {
        from: from.into(),
        to: to.into(),
        mode: None,
    }
}

/// An image on the Python base with every kind of small layer.
pub fn sample_image(store: &Store, project: &Path) -> Image {
    let base = inspect_layout(store, python_base(), "python", AMD64).unwrap();
    let python = base.python(None).unwrap();
    let specs = [
        spec("src/", "/app"),
        spec("LICENSE", "/home/app/"),
        spec("LICENSE", "/tmp/LICENSE"),
    ];
    let scanned = files::scan(project, &specs, &[]).unwrap();
    let user = User::default();
    let parts = files::UserParts {
        user: &user,
        workdir: None,
        passwd: &base.contents.passwd,
        group: &base.contents.group,
    };
    let layers = vec![
        files::skeleton(store, &python).unwrap(),
        files::project(store, &scanned).unwrap().unwrap(),
        files::user(store, parts).unwrap(),
    ];
    let mut config = Config::default();
    for name in ["c", "a", "b"] {
        config.labels.insert(name.into(), name.into());
        config
            .annotations
            .insert(format!("com.example.{name}"), name.into());
        config.env.insert(name.to_uppercase(), "x y".into());
    }
    image::assemble(Parts {
        platform: AMD64,
        base: Some(&base),
        layers,
        config: &config,
    })
    .unwrap()
}
