//! What a layer of wheels brings, told to those who do not have the wheels: enough to plan an image, to find paths that
//! several wheels bring, and to say licences, without fetching a wheel whose layer somebody else has made.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::LayerError;
use super::plan::{PinnedWheel, open};
use super::wheel::{Source, Wheel};
use crate::digest::Digest;
use crate::identity::{self, PythonDocument};
use crate::store::Store;

/// What is told of wheels that are not here, by the SHA-256 of their files.
pub type Told = BTreeMap<Digest, WheelContents>;

/// The version of the document.
const VERSION: u32 = 1;
/// Most paths of one layer.
const MOST_PATHS: usize = 1_000_000;
/// Longest path and longest licence, in bytes.
const LONGEST: usize = 4096;

/// The contents of a layer of wheels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayerContents {
    /// Version of this document, 1.
    v: u32,
    /// Its wheels, by name.
    pub wheels: Vec<WheelContents>,
}

/// The contents of a wheel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WheelContents {
    /// Of the file.
    pub sha256: Digest,
    /// Of the file, in bytes.
    pub size: u64,
    /// The SPDX expression that it declares.
    pub licence: Option<String>,
    /// What its installation makes, sorted by path; of folders only those that the wheel has entries for.
    pub paths: Vec<PathContents>,
}

/// A file or folder that an installation makes: `[path, size, executable, SHA-256]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Row", into = "Row")]
pub struct PathContents {
    /// Relative to the root of the file system.
    pub path: String,
    /// Bytes of the wheel's entry; 0 for what is made.
    pub size: u64,
    /// Whether mode 0755 rather than 0644.
    pub executable: bool,
    /// Of the content, before a script's first line is rewritten; absent for folders.
    pub sha256: Option<Digest>,
}

type Row = (String, u64, bool, Option<Digest>);

impl From<Row> for PathContents {
    fn from((path, size, executable, sha256): Row) -> Self {
        Self {
            path,
            size,
            executable,
            sha256,
        }
    }
}

impl From<PathContents> for Row {
    fn from(contents: PathContents) -> Self {
        let PathContents {
            path,
            size,
            executable,
            sha256,
        } = contents;
        (path, size, executable, sha256)
    }
}

impl LayerContents {
    /// Of the layer that holds these wheels of the store; it must have been made here, which checks their contents.
    ///
    /// # Errors
    /// When a wheel is not in the store, or is refused.
    pub fn of(
        store: &Store,
        python: &PythonDocument,
        wheels: &[PinnedWheel],
    ) -> Result<Self, LayerError> {
        let contents = |pin: &PinnedWheel| {
            let wheel = open(store, pin)?;
            let path = store.artifact_path(&pin.sha256);
            let meta = std::fs::metadata(&path).map_err(LayerError::io("read", path))?;
            Ok::<_, LayerError>(WheelContents {
                sha256: pin.sha256,
                size: meta.len(),
                licence: wheel.licence()?,
                paths: paths(&wheel, python)?,
            })
        };
        let mut wheels: Vec<&PinnedWheel> = wheels.iter().collect();
        wheels.sort();
        Ok(Self {
            v: VERSION,
            wheels: wheels.into_iter().map(contents).collect::<Result<_, _>>()?,
        })
    }

    /// The document as JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        identity::canonical_json(self)
    }

    /// Reads a document of the layer that holds `wheels`.
    ///
    /// # Errors
    /// Why it is none, or not one of that layer.
    pub fn parse(bytes: &[u8], wheels: &[PinnedWheel]) -> Result<Self, String> {
        let found: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if found.v != VERSION {
            return Err(format!("it has version {} of the schema", found.v));
        }
        let told: BTreeSet<Digest> = found.wheels.iter().map(|wheel| wheel.sha256).collect();
        let wanted: BTreeSet<Digest> = wheels.iter().map(|wheel| wheel.sha256).collect();
        if told != wanted || found.wheels.len() != wanted.len() {
            return Err("it is of other wheels".into());
        }
        let paths = || found.wheels.iter().flat_map(|wheel| &wheel.paths);
        if paths().count() > MOST_PATHS {
            return Err(format!("it has more than {MOST_PATHS} paths"));
        }
        if !paths().all(|contents| is_path(&contents.path)) {
            return Err("a path in it is none".into());
        }
        let mut licences = found
            .wheels
            .iter()
            .filter_map(|wheel| wheel.licence.as_ref());
        if licences.any(|licence| licence.len() > LONGEST || licence.contains(char::is_control)) {
            return Err("a licence in it is none".into());
        }
        Ok(found)
    }
}

fn paths(wheel: &Wheel, python: &PythonDocument) -> Result<Vec<PathContents>, LayerError> {
    let places = wheel.places(python)?;
    let digests = wheel.content_digests(&places)?;
    let contents = places
        .into_iter()
        .zip(digests)
        .map(|(place, digest)| PathContents {
            sha256: (place.source != Source::Folder).then_some(digest),
            path: place.path,
            size: place.size,
            executable: place.executable,
        });
    Ok(contents.collect())
}

/// Whether a path is one that an installation makes.
fn is_path(path: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..");
    path.len() <= LONGEST && !path.contains(char::is_control) && path.split('/').all(part)
}
