//! What the wheels of an image do to each other: paths that several of them bring.

use std::collections::BTreeMap;

use super::contents::{PathContents, Told};
use super::error::LayerError;
use super::plan::{PinnedWheel, WheelLayerPlan, open};
use super::wheel::{Place, Source, Wheel, shown};
use crate::digest::Digest;
use crate::identity::PythonDocument;
use crate::store::Store;

/// Paths that need a winner.
pub(super) struct Collisions {
    /// Path → wheel that must win it, where the order of layers would let another win.
    pub fixes: BTreeMap<String, Digest>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// One wheel's claim on a path.
struct Claim {
    layer: usize,
    wheel: usize,
    brings: Brings,
}

/// What a wheel puts at a path.
enum Brings {
    /// Seen in the wheel, whose content can be read.
    Seen(Place),
    /// Told, because the wheel is not here.
    Told(PathContents),
}

/// A wheel as far as it is known.
struct Known {
    /// Absent if it is only told of.
    wheel: Option<Wheel>,
    label: String,
}

impl Collisions {
    /// Looks at every path of every wheel of `layers`.
    pub fn find(
        store: &Store,
        python: &PythonDocument,
        layers: &[WheelLayerPlan],
        told: &Told,
    ) -> Result<Self, LayerError> {
        let mut pins = Vec::new();
        for (layer, plan) in layers.iter().enumerate() {
            pins.extend(plan.wheels.iter().map(|wheel| (wheel, layer)));
        }
        pins.sort();
        let mut wheels = Vec::new();
        let mut claims: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        for (index, (pin, layer)) in pins.iter().enumerate() {
            let (known, brought) = look(store, python, pin, told)?;
            for brings in brought {
                let claim = Claim {
                    layer: *layer,
                    wheel: index,
                    brings,
                };
                let path = claim.brings.path().to_owned();
                claims.entry(path).or_default().push(claim);
            }
            wheels.push(known);
        }
        check_clashes(&claims, &wheels)?;
        let mut found = Self {
            fixes: BTreeMap::new(),
            warnings: Vec::new(),
        };
        for (path, claims) in &claims {
            if claims.len() < 2 || same_content(claims, &wheels)? {
                continue;
            }
            let Some(winner) = claims.last() else {
                continue;
            };
            let losers: Vec<&str> = claims[..claims.len() - 1]
                .iter()
                .map(|claim| wheels[claim.wheel].label.as_str())
                .collect();
            found.warnings.push(format!(
                "`/{path}` comes with different content in {} and {}: the latter wins",
                losers.join(", "),
                wheels[winner.wheel].label
            ));
            if claims.iter().any(|claim| claim.layer > winner.layer) {
                let winner = pins[winner.wheel].0.sha256;
                found.fixes.insert(path.clone(), winner);
            }
        }
        Ok(found)
    }
}

/// What a wheel brings: seen in its file if the store has it, else as it is told.
fn look(
    store: &Store,
    python: &PythonDocument,
    pin: &PinnedWheel,
    told: &Told,
) -> Result<(Known, Vec<Brings>), LayerError> {
    let elsewhere = store.artifact(&pin.sha256).is_none();
    if let Some(told) = told.get(&pin.sha256).filter(|_| elsewhere) {
        let brought = told.paths.iter().cloned().map(Brings::Told);
        let known = Known {
            wheel: None,
            label: shown(&pin.file_name),
        };
        return Ok((known, brought.collect()));
    }
    let wheel = open(store, pin)?;
    let brought = wheel.places(python)?.into_iter().map(Brings::Seen);
    let known = Known {
        label: wheel.label().to_owned(),
        wheel: Some(wheel),
    };
    Ok((known, brought.collect()))
}

impl Brings {
    fn path(&self) -> &str {
        match self {
            Self::Seen(place) => &place.path,
            Self::Told(told) => &told.path,
        }
    }

    fn is_file(&self) -> bool {
        match self {
            Self::Seen(place) => place.source != Source::Folder,
            Self::Told(told) => told.sha256.is_some(),
        }
    }

    /// Bytes, and whether it is executable.
    fn look(&self) -> (u64, bool) {
        match self {
            Self::Seen(place) => (place.size, place.executable),
            Self::Told(told) => (told.size, told.executable),
        }
    }

    fn crc(&self) -> Option<u32> {
        match self {
            Self::Seen(place) => Some(place.crc),
            Self::Told(_) => None,
        }
    }

    fn digest(&self, known: &Known) -> Result<Digest, LayerError> {
        match (self, &known.wheel) {
            (Self::Seen(place), Some(wheel)) => Ok(wheel.content_digest(place)?),
            (Self::Told(told), _) => Ok(told.sha256.unwrap_or_else(|| Digest::of(""))),
            (Self::Seen(_), None) => Ok(Digest::of("")),
        }
    }
}

/// A path must not be a file in one wheel and a folder in another.
fn check_clashes(
    claims: &BTreeMap<String, Vec<Claim>>,
    wheels: &[Known],
) -> Result<(), LayerError> {
    let is_file = |claim: &&Claim| claim.brings.is_file();
    let clash = |path: &str, file: &Claim, folder: &Claim| LayerError::Clash {
        path: path.to_owned(),
        file: wheels[file.wheel].label.clone(),
        folder: wheels[folder.wheel].label.clone(),
    };
    for (path, all) in claims {
        let file = all.iter().find(is_file);
        let folder = all.iter().find(|claim| !is_file(claim));
        if let (Some(file), Some(folder)) = (file, folder) {
            return Err(clash(path, file, folder));
        }
        for (at, _) in path.match_indices('/') {
            let parents = claims.get(&path[..at]).into_iter().flatten();
            if let Some(file) = parents.into_iter().find(is_file) {
                return Err(clash(&path[..at], file, &all[0]));
            }
        }
    }
    Ok(())
}

/// Whether all claims bring the same bytes with the same mode. Contents are read only if CRC and size agree.
fn same_content(claims: &[Claim], wheels: &[Known]) -> Result<bool, LayerError> {
    let first = claims[0].brings.look();
    if !claims.iter().all(|claim| claim.brings.look() == first) {
        return Ok(false);
    }
    let mut crcs = claims.iter().filter_map(|claim| claim.brings.crc());
    let crc = crcs.next();
    if !crcs.all(|other| Some(other) == crc) {
        return Ok(false);
    }
    let mut digests = Vec::new();
    for claim in claims {
        digests.push(claim.brings.digest(&wheels[claim.wheel])?);
    }
    Ok(digests.windows(2).all(|pair| pair[0] == pair[1]))
}
