//! Where the files of a wheel go, and what is made beside them.
//!
//! Rules: binary distribution format ("Installing a wheel distribution"), recording installed projects, entry points.
//! Files that depend on who asked (REQUESTED, `direct_url.json`) are never made, and no bytecode.

use std::collections::{BTreeMap, BTreeSet};

use super::metadata::{Launcher, launchers, shebang};
use super::record::{self, Line, Record, RecordHash};
use super::zip::{Method, ZipEntry};
use super::{MAX_SCRIPT, MAX_TEXT, Wheel, WheelError};
use crate::identity::PythonDocument;

/// The text of `INSTALLER`.
const INSTALLER: &[u8] = b"imagewright\n";

/// A file's content inside a wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Name of the entry, for messages.
    pub name: String,
    /// First byte of the data in the wheel file.
    pub offset: u64,
    /// Bytes of data.
    pub compressed: u64,
    /// Bytes of content.
    pub size: u64,
    /// CRC-32 of the content.
    pub crc: u32,
    /// How the data is kept.
    pub method: Method,
    /// What RECORD says of the content.
    pub hash: Option<RecordHash>,
}

impl Range {
    pub(super) fn of(entry: &ZipEntry, offset: u64) -> Self {
        Self {
            name: entry.name.clone(),
            offset,
            compressed: entry.compressed,
            size: entry.size,
            crc: entry.crc,
            method: entry.method,
            hash: None,
        }
    }
}

/// One path that an installation makes.
#[derive(Clone, Debug)]
pub struct Item {
    /// Relative to the root of the file system.
    pub path: String,
    /// Whether mode 0755 rather than 0644; folders are always 0755.
    pub executable: bool,
    /// What it holds.
    pub content: Content,
}

/// What a path holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// A folder.
    Folder,
    /// Bytes made by the installation.
    Bytes(Vec<u8>),
    /// An entry of the wheel.
    Range(Range),
}

/// Where one file or folder of an installation goes, before its content is looked at.
#[derive(Clone, Debug)]
pub struct Place {
    /// Relative to the root of the file system.
    pub path: String,
    /// Where its content comes from.
    pub source: Source,
    /// Whether mode 0755 rather than 0644.
    pub executable: bool,
    /// Bytes of the entry behind it; 0 for what is made.
    pub size: u64,
    /// CRC-32 of the entry behind it; of the text, for what is made.
    pub crc: u32,
}

/// Where a place's content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder that the wheel has an entry for.
    Folder,
    /// Entry number so-and-so.
    Entry(usize),
    /// The same, a script whose first line may be rewritten.
    Script(usize),
    /// Text that the installation makes.
    Made(Vec<u8>),
    /// The rewritten RECORD.
    Record,
}

/// The folders of an environment, relative to the root of the file system.
struct Scheme {
    site: String,
    bin: String,
    headers: String,
    prefix: String,
    shebang: String,
}

impl Scheme {
    fn new(python: &PythonDocument, name: &str) -> Self {
        let prefix = python.prefix.trim_start_matches('/').to_owned();
        let minor = &python.minor;
        Self {
            site: format!("{prefix}/lib/python{minor}/site-packages"),
            bin: format!("{prefix}/bin"),
            headers: format!("{prefix}/include/site/python{minor}/{name}"),
            shebang: shebang(&format!("/{prefix}/bin/python")),
            prefix,
        }
    }

    /// How RECORD names a path: relative to site-packages.
    fn recorded(&self, path: &str) -> String {
        let within = |folder: &str| path.strip_prefix(folder)?.strip_prefix('/');
        match (within(&self.site), within(&self.prefix)) {
            (Some(rest), _) => rest.into(),
            (None, Some(rest)) => format!("../../../{rest}"),
            (None, None) => format!("../../../../../{path}"),
        }
    }
}

impl Wheel {
    /// Where every file goes, sorted by path; parent folders are not listed unless the wheel has entries for them.
    ///
    /// # Errors
    /// When the wheel wants to write where it must not, or two of its files meet at one path.
    pub fn places(&self, python: &PythonDocument) -> Result<Vec<Place>, WheelError> {
        let scheme = Scheme::new(python, &self.release.name);
        let launchers = self.launchers(python)?;
        let mut places = BTreeMap::new();
        for (index, entry) in self.archive.entries.iter().enumerate() {
            if let Some(place) = self.place(&scheme, &launchers, index, entry)? {
                self.put(&mut places, &scheme, place)?;
            }
        }
        for (name, text) in launchers {
            let path = format!("{}/{name}", scheme.bin);
            let text = text.replacen("#!", &scheme.shebang, 1).into_bytes();
            self.put(&mut places, &scheme, Place::made(path, text, true))?;
        }
        let dist_info = |name: &str| format!("{}/{}", scheme.site, self.dist_info(name));
        let installer = Place::made(dist_info("INSTALLER"), INSTALLER.to_vec(), false);
        places.insert(installer.path.clone(), installer);
        let record = Place {
            source: Source::Record,
            ..Place::made(dist_info("RECORD"), Vec::new(), false)
        };
        places.insert(record.path.clone(), record);
        self.check_folders(&places)?;
        Ok(places.into_values().collect())
    }

    /// Launcher texts by command name; each begins with a bare `#!`.
    fn launchers(&self, python: &PythonDocument) -> Result<BTreeMap<String, String>, WheelError> {
        let path = self.dist_info("entry_points.txt");
        let Some(entry) = self.find(&path) else {
            return Ok(BTreeMap::new());
        };
        let fail = |reason: String| WheelError::entry(&self.archive.label, &path, reason);
        let bytes = self.content(entry, MAX_TEXT)?;
        let text = String::from_utf8(bytes).map_err(|_| fail("is not UTF-8 text".into()))?;
        let mut declared = launchers(&text).map_err(fail)?;
        if self.release.name == "pip" {
            name_pip_after(&mut declared, &python.minor);
        }
        let mut texts = BTreeMap::new();
        for (name, launcher) in declared {
            if name.is_empty()
                || name.len() > 200
                || name.contains(['/', '\\', '\0'])
                || name.starts_with('.')
            {
                return Err(fail(format!(
                    "declares the command `{}`, which is not a file name",
                    super::shown(&name)
                )));
            }
            texts.insert(name, launcher.script("#!"));
        }
        Ok(texts)
    }

    fn place(
        &self,
        scheme: &Scheme,
        launchers: &BTreeMap<String, String>,
        index: usize,
        entry: &ZipEntry,
    ) -> Result<Option<Place>, WheelError> {
        let name = entry.name.as_str();
        let fail = |reason: &str| WheelError::entry(&self.archive.label, name, reason);
        let generated = ["RECORD", "INSTALLER", "REQUESTED", "direct_url.json"];
        if generated.iter().any(|made| name == self.dist_info(made)) {
            return Ok(None);
        }
        let data = name.strip_prefix(self.stem.as_str());
        let data = data.and_then(|rest| rest.strip_prefix(".data"));
        let data = data.and_then(|rest| rest.strip_prefix('/').or(rest.is_empty().then_some("")));
        let mut script = false;
        let path = match data {
            None => format!("{}/{name}", scheme.site),
            Some(rest) => {
                let (key, file) = rest.split_once('/').unwrap_or((rest, ""));
                let folder = match key {
                    "purelib" | "platlib" => &scheme.site,
                    "headers" => &scheme.headers,
                    "data" => &scheme.prefix,
                    "scripts" => &scheme.bin,
                    "" if entry.folder => return Ok(None),
                    _ => {
                        return Err(fail(
                            "belongs to none of purelib, platlib, headers, scripts, data",
                        ));
                    }
                };
                match (file.is_empty(), entry.folder) {
                    (true, true) => return Ok(None),
                    (true, false) => return Err(fail("is a file where a folder must be")),
                    _ => {}
                }
                if key == "scripts" {
                    if entry.folder || file.contains('/') {
                        return Err(fail("is a folder among scripts"));
                    }
                    if launchers.contains_key(command_of(file)) {
                        return Ok(None);
                    }
                    script = true;
                }
                // An environment's lib64 is a link to its lib.
                match file.strip_prefix("lib64/").filter(|_| key == "data") {
                    Some(rest) => format!("{folder}/lib/{rest}"),
                    None => format!("{folder}/{file}"),
                }
            }
        };
        Ok(Some(Place {
            path,
            source: match (entry.folder, script) {
                (true, _) => Source::Folder,
                (false, true) => Source::Script(index),
                (false, false) => Source::Entry(index),
            },
            executable: entry.executable || script,
            size: entry.size,
            crc: entry.crc,
        }))
    }

    fn put(
        &self,
        places: &mut BTreeMap<String, Place>,
        scheme: &Scheme,
        place: Place,
    ) -> Result<(), WheelError> {
        let path = place.path.clone();
        let within = |folder: &str| path.strip_prefix(folder)?.strip_prefix('/');
        let reserved = within(&scheme.bin).is_some_and(is_interpreter)
            || matches!(
                within(&scheme.prefix),
                Some("pyvenv.cfg" | "bin" | "lib" | "lib64")
            );
        if reserved && place.source != Source::Folder {
            let reason = format!("it wants to replace `/{path}`, a part of the environment");
            return Err(WheelError::wheel(&self.archive.label, reason));
        }
        match places.insert(path, place) {
            Some(other) if other.source != Source::Folder => {
                let reason = format!("two of its files go to `/{}`", super::shown(&other.path));
                Err(WheelError::wheel(&self.archive.label, reason))
            }
            _ => Ok(()),
        }
    }

    /// No file may be the folder of another.
    fn check_folders(&self, places: &BTreeMap<String, Place>) -> Result<(), WheelError> {
        for path in places.keys() {
            for (at, _) in path.match_indices('/') {
                let parent = places.get(&path[..at]);
                if parent.is_some_and(|place| place.source != Source::Folder) {
                    let reason = format!(
                        "`/{}` would be a file and a folder",
                        super::shown(&path[..at])
                    );
                    return Err(WheelError::wheel(&self.archive.label, reason));
                }
            }
        }
        Ok(())
    }

    /// The wheel's RECORD, after checking that it lists every file, with a hash and the right size.
    pub(super) fn record(&self) -> Result<Record, WheelError> {
        let path = self.dist_info("RECORD");
        let text = self.text(&path)?;
        let record = record::parse(text.as_bytes()).map_err(|(entry, reason)| {
            WheelError::entry(
                &self.archive.label,
                entry.as_deref().unwrap_or(&path),
                reason,
            )
        })?;
        let exempt: BTreeSet<String> = ["RECORD", "RECORD.jws", "RECORD.p7s"]
            .iter()
            .map(|name| self.dist_info(name))
            .collect();
        for entry in &self.archive.entries {
            if entry.folder || exempt.contains(&entry.name) {
                continue;
            }
            let fail = |reason: &str| WheelError::entry(&self.archive.label, &entry.name, reason);
            let Some(line) = record.get(&entry.name) else {
                return Err(fail("is not listed in RECORD"));
            };
            if line.hash.is_none() {
                return Err(fail("has no hash in RECORD"));
            }
            if line.size.is_some_and(|size| size != entry.size) {
                return Err(fail("has another size in RECORD"));
            }
        }
        Ok(record)
    }

    /// The whole installation, sorted by path, without parent folders.
    ///
    /// # Errors
    /// When the wheel is refused.
    pub fn install(&self, python: &PythonDocument) -> Result<Vec<Item>, WheelError> {
        let scheme = Scheme::new(python, &self.release.name);
        let record = self.record()?;
        let starts = self.archive.locate_all()?;
        let mut written = Record::new();
        let mut items = Vec::new();
        for place in self.places(python)? {
            let content = match place.source {
                Source::Folder => Content::Folder,
                Source::Made(text) => Content::Bytes(text),
                Source::Record => Content::Bytes(Vec::new()),
                Source::Entry(index) | Source::Script(index) => {
                    let entry = &self.archive.entries[index];
                    let line = record.get(&entry.name);
                    let mut range = Range::of(entry, starts[index]);
                    range.hash = line.and_then(|line| line.hash.clone());
                    match place.source {
                        Source::Script(_) => self.script(&scheme, range)?,
                        _ => Content::Range(range),
                    }
                }
            };
            if let Some(line) = content.line() {
                written.insert(scheme.recorded(&place.path), line);
            }
            items.push(Item {
                path: place.path,
                executable: place.executable,
                content,
            });
        }
        self.fill_record(&scheme, &mut items, written);
        Ok(items)
    }

    fn fill_record(&self, scheme: &Scheme, items: &mut [Item], mut written: Record) {
        let name = self.dist_info("RECORD");
        written.insert(name.clone(), Line::default());
        let path = format!("{}/{name}", scheme.site);
        if let Some(item) = items.iter_mut().find(|item| item.path == path) {
            item.content = Content::Bytes(record::write(&written));
        }
    }

    /// A script: its first line is rewritten if it is `#!python`.
    fn script(&self, scheme: &Scheme, range: Range) -> Result<Content, WheelError> {
        if range.size > MAX_SCRIPT {
            return Ok(Content::Range(range));
        }
        let mut text = Vec::new();
        self.stream(&range, |piece| {
            text.extend_from_slice(piece);
            Ok(())
        })?;
        if !text.starts_with(b"#!python") {
            return Ok(Content::Range(range));
        }
        if let Some(hash) = &range.hash {
            let mut hasher = hash.hasher();
            hasher.update(&text);
            self.check_hash(&range, hash, hasher)?;
        }
        let line = text
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(text.len());
        let mut rewritten = scheme.shebang.clone().into_bytes();
        if line == text.len() {
            rewritten.push(b'\n');
        }
        rewritten.extend_from_slice(&text[line..]);
        Ok(Content::Bytes(rewritten))
    }
}

impl Place {
    fn made(path: String, text: Vec<u8>, executable: bool) -> Self {
        Self {
            path,
            size: text.len() as u64,
            crc: crc32fast::hash(&text),
            source: Source::Made(text),
            executable,
        }
    }
}

impl Content {
    fn line(&self) -> Option<Line> {
        let (hash, size) = match self {
            Self::Folder => return None,
            Self::Bytes(bytes) => (Some(RecordHash::of(bytes)), bytes.len() as u64),
            Self::Range(range) => (range.hash.clone(), range.size),
        };
        Some(Line {
            hash,
            size: Some(size),
        })
    }
}

/// pip's wheels serve every Python: its command `pip3.X` is the one of the Python that it is installed for.
fn name_pip_after(launchers: &mut BTreeMap<String, Launcher>, minor: &str) {
    let other = |name: &str| {
        let rest = name.strip_prefix("pip3.");
        rest.is_some_and(|rest| rest.parse::<u8>().is_ok())
    };
    launchers.retain(|name, _| !other(name));
    if let Some(pip3) = launchers.get("pip3").cloned() {
        launchers.insert(format!("pip{minor}"), pip3);
    }
}

/// The command that a file among scripts stands for, by the suffixes that old build tools gave their wrappers.
fn command_of(file: &str) -> &str {
    [".exe", "-script.py", ".pya"]
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix))
        .unwrap_or(file)
}

/// Whether a file in `bin` would stand in for the interpreter: `python`, `python3`, `python3.11`, `pythonw`, `pypy3` ….
fn is_interpreter(file: &str) -> bool {
    ["python", "pythonw", "pypy"].iter().any(|name| {
        let rest = file.strip_prefix(name);
        rest.is_some_and(|rest| {
            let rest = rest.strip_suffix('t').unwrap_or(rest);
            rest.chars().all(|c| c.is_ascii_digit() || c == '.')
        })
    })
}
