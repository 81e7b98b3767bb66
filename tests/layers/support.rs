//! A store of its own for each test, hand-made wheels, and layers read back by libraries that are not ours.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagewright::digest::Digest;
use imagewright::identity::PythonDocument;
use imagewright::layer::Told;
use imagewright::layer::build::build_wheel_layers;
use imagewright::layer::plan::{PinnedWheel, WheelPlan, plan};
use imagewright::layer::recipe::Recipe;
use imagewright::layer::wheel::{NameVersion, RecordHash};
use imagewright::layer::{Layer, LayerError};
use imagewright::progress::Silent;
use imagewright::store::Store;

use crate::zipper::{Zipped, zip};

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Folder,
    File { mode: u32, content: Vec<u8> },
    Link(Vec<u8>),
    Special,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder => f.write_str("folder"),
            Self::Special => f.write_str("device or pipe"),
            Self::File { mode, content } => {
                let head = String::from_utf8_lossy(&content[..content.len().min(300)]);
                write!(f, "file {mode:o} {} bytes {head:?}", content.len())
            }
            Self::Link(target) => write!(f, "link {}", String::from_utf8_lossy(target)),
        }
    }
}

pub type Tree = BTreeMap<String, Node>;

pub struct Fixture {
    pub store: Store,
    pub folder: tempfile::TempDir,
}

pub fn python() -> PythonDocument {
    PythonDocument {
        minor: "3.11".into(),
        prefix: "/opt/venv".into(),
    }
}

pub const SITE: &str = "opt/venv/lib/python3.11/site-packages";

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        Self { store, folder }
    }

    pub fn add(&self, path: &Path) -> PinnedWheel {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (digest, _) = Digest::of_reader(fs::File::open(path).unwrap()).unwrap();
        fs::copy(path, self.store.artifact_path(&digest)).unwrap();
        pin(name, digest)
    }

    pub fn add_bytes(&self, name: &str, bytes: &[u8]) -> PinnedWheel {
        let digest = Digest::of(bytes);
        fs::write(self.store.artifact_path(&digest), bytes).unwrap();
        pin(name, digest)
    }

    pub fn plan(&self, wheels: &[PinnedWheel]) -> Result<WheelPlan, LayerError> {
        plan(&self.store, &python(), wheels, &Told::new(), 2)
    }

    pub fn build(&self, wheels: &[PinnedWheel], jobs: usize) -> Result<Vec<Layer>, LayerError> {
        let plan = self.plan(wheels)?;
        build_wheel_layers(&self.store, &plan.layers, jobs, &Silent)
    }

    pub fn build_bytes(&self, name: &str, bytes: &[u8]) -> Result<Layer, LayerError> {
        Ok(self.build(&[self.add_bytes(name, bytes)], 2)?.remove(0))
    }

    pub fn blob(&self, layer: &Layer) -> Vec<u8> {
        let recipe = Recipe::load(&self.store, &layer.key).unwrap().unwrap();
        let mut blob = Vec::new();
        recipe
            .reader(&self.store)
            .unwrap()
            .read_to_end(&mut blob)
            .unwrap();
        assert_eq!(
            (Digest::of(&blob), blob.len() as u64),
            (layer.digest, layer.size)
        );
        blob
    }

    pub fn tar(&self, layer: &Layer) -> Vec<u8> {
        let blob = self.blob(layer);
        let mut tar = Vec::new();
        flate2::read::MultiGzDecoder::new(blob.as_slice())
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(
            (Digest::of(&tar), tar.len() as u64),
            (layer.diff_id, layer.unpacked)
        );
        tar
    }

    /// The tree of layers, the later ones on top.
    pub fn tree(&self, layers: &[Layer]) -> Tree {
        let mut tree = Tree::new();
        for layer in layers {
            let layer_tree = tree_of_tar(&self.tar(layer));
            tree.extend(layer_tree);
        }
        tree
    }
}

fn pin(file_name: &str, sha256: Digest) -> PinnedWheel {
    let release = NameVersion::of_file_name(file_name);
    PinnedWheel {
        name: release
            .as_ref()
            .map_or("broken".into(), |release| release.name.clone()),
        version: release.map_or("0".into(), |release| release.version.to_string()),
        file_name: file_name.into(),
        sha256,
    }
}

/// Reads a tar with the `tar` crate; checks order, parents, owners and times on the way.
pub fn tree_of_tar(tar: &[u8]) -> Tree {
    let mut tree = Tree::new();
    let mut last = String::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let path = path.trim_end_matches('/').to_owned();
        assert!(last < path, "`{path}` comes after `{last}`");
        if let Some((parent, _)) = path.rsplit_once('/') {
            assert_eq!(tree.get(parent), Some(&Node::Folder), "parent of `{path}`");
        }
        let header = entry.header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        assert_eq!(header.mtime().unwrap(), 315_532_800);
        let node = match header.entry_type() {
            tar::EntryType::Directory => Node::Folder,
            tar::EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                let mode = header.mode().unwrap();
                Node::File { mode, content }
            }
            other => panic!("{path}: {other:?}"),
        };
        tree.insert(path.clone(), node);
        last = path;
    }
    tree
}

pub fn tree_of_folder(root: &Path) -> Tree {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    let mut tree = Tree::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry
            .path()
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let kind = entry.file_type();
        let node = if kind.is_symlink() {
            Node::Link(
                fs::read_link(entry.path())
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec(),
            )
        } else if kind.is_dir() {
            Node::Folder
        } else if !kind.is_file() {
            Node::Special
        } else {
            let mode = fs::metadata(entry.path()).unwrap().permissions().mode() & 0o7777;
            let content = fs::read(entry.path()).unwrap();
            Node::File { mode, content }
        };
        tree.insert(path, node);
    }
    tree
}

pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Where downloads are kept from one run of the tests to the next.
pub fn cache() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-cache");
    fs::create_dir_all(&path).unwrap();
    path
}

/// A wheel in the making: `demo` 1.0 unless told otherwise; RECORD is made to fit.
#[derive(Clone, Debug)]
pub struct Demo {
    pub entries: Vec<Zipped>,
    pub record: Option<String>,
}

pub const DEMO: &str = "demo-1.0-py3-none-any.whl";

impl Demo {
    pub fn new() -> Self {
        let metadata = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n\nText: body\n";
        let wheel =
            b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
        Self {
            entries: vec![
                Zipped::deflated("demo/__init__.py", b"answer = 42\n"),
                Zipped::deflated("demo-1.0.dist-info/METADATA", metadata),
                Zipped::deflated("demo-1.0.dist-info/WHEEL", wheel),
            ],
            record: None,
        }
    }

    pub fn with(mut self, entry: Zipped) -> Self {
        self.entries.push(entry);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.entries.retain(|entry| entry.name != name.as_bytes());
        self
    }

    pub fn record(mut self, text: &str) -> Self {
        self.record = Some(text.into());
        self
    }

    pub fn right_record(&self) -> String {
        let mut text = String::new();
        for entry in self
            .entries
            .iter()
            .filter(|entry| !entry.name.ends_with(b"/"))
        {
            let content = inflate(entry);
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let name = if name.contains([',', '"', '\n']) {
                format!("\"{}\"", name.replace('"', "\"\""))
            } else {
                name
            };
            text += &format!("{name},{},{}\n", RecordHash::of(&content), content.len());
        }
        text + "demo-1.0.dist-info/RECORD,,\n"
    }

    pub fn all(&self) -> Vec<Zipped> {
        let record = self.record.clone().unwrap_or_else(|| self.right_record());
        let mut entries = self.entries.clone();
        entries.push(Zipped::deflated(
            "demo-1.0.dist-info/RECORD",
            record.as_bytes(),
        ));
        entries
    }

    pub fn bytes(&self) -> Vec<u8> {
        zip(&self.all())
    }
}

fn inflate(entry: &Zipped) -> Vec<u8> {
    if entry.method == 0 {
        return entry.data.clone();
    }
    let mut content = Vec::new();
    let _ = flate2::read::DeflateDecoder::new(entry.data.as_slice()).read_to_end(&mut content);
    content
}

/// Bytes that compress a little, the same everywhere.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let block: Vec<u8> = (0..4096)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect();
    let mut out = Vec::with_capacity(len + 4096);
    let mut number = 0_u64;
    while out.len() < len {
        out.extend(number.to_le_bytes());
        out.extend(&block[..(number as usize * 977) % 4000 + 50]);
        number += 1;
    }
    out.truncate(len);
    out
}
