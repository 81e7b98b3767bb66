//! Finds the project files that `file` nodes name, and what they are: the documents that request key and layer key
//! are made from. Reads every file once, to hash it.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use super::{IgnoreFile, paths};
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::identity::FileDocument;
use crate::manifest::FileSpec;

/// The files of some `file` nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Absolute path in the image → what it is.
    pub entries: BTreeMap<String, FileDocument>,
    /// The same paths → the file on this machine, for regular files.
    pub(super) sources: BTreeMap<String, PathBuf>,
}

/// Why the files of a `file` node cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ScanError {
    /// Which of the nodes, counted from 0.
    pub index: usize,
    /// What is the matter.
    #[source]
    pub reason: ScanReason,
}

/// What is the matter with a `file` node or with a file that it names.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum ScanReason {
    #[error("`{from}` does not exist in the project")]
    Missing { from: String },
    #[error("`{from}` ends in `/` but is not a folder")]
    NotAFolder { from: String },
    #[error("`{path}` leads out of the project")]
    Escapes { path: String },
    #[error("`{from}` is kept out by .dockerignore")]
    Ignored { from: String },
    #[error("line {line} of .dockerignore is not a pattern")]
    IgnoreFile { line: usize },
    #[error("`{path}` is a {what}")]
    Special { path: String, what: &'static str },
    #[error("the name of `{path}` is not UTF-8")]
    Name { path: String },
    #[error("`{path}` cannot be put into an image: {reason}")]
    Target { path: String, reason: &'static str },
    #[error("cannot read `{path}`")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
}

impl Explain for ScanError {
    fn kind(&self) -> Kind {
        match self.reason {
            ScanReason::Io { .. } => Kind::Unavailable,
            _ => Kind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match &self.reason {
            ScanReason::Missing { .. } => "paths are relative to the manifest's folder".into(),
            ScanReason::NotAFolder { .. } => "leave out the `/` at the end".into(),
            ScanReason::Escapes { .. } => "copy the file into the project".into(),
            ScanReason::Ignored { .. } => "add an exception (`!…`) to .dockerignore".into(),
            ScanReason::IgnoreFile { .. } => "see Docker's reference of .dockerignore files".into(),
            ScanReason::Special { .. } => "add it to .dockerignore, or remove it".into(),
            ScanReason::Name { .. } => "rename it, or add a pattern for it to .dockerignore".into(),
            ScanReason::Target { .. } => {
                "choose another `to`, for example below /opt, /srv or /work".into()
            }
            ScanReason::Io { .. } => return None,
        })
    }
}

/// Finds what `specs` name below the folder `project`. A `from` with trailing `/` means the folder's content, a `to`
/// with trailing `/` a folder to put it into under its own name. Where two name one path, the later wins.
/// Folders listed in `open` become mode 0777 where something is put into them: a layer above the user's needs this
/// for the home and working folder.
///
/// # Errors
/// The first file that cannot be used, and the index of its spec.
pub fn scan<'a>(
    project: &Path,
    specs: impl IntoIterator<Item = &'a FileSpec>,
    open: &[&str],
) -> Result<Scanned, ScanError> {
    let mut scanner = None;
    let mut found = Scanned::default();
    for (index, spec) in specs.into_iter().enumerate() {
        let at = |reason| ScanError { index, reason };
        let scanner = match &mut scanner {
            Some(scanner) => scanner,
            none => none.insert(Scanner::new(project).map_err(at)?),
        };
        scanner.add(spec, &mut found).map_err(at)?;
    }
    open_folders(&mut found, open);
    Ok(found)
}

fn open_folders(found: &mut Scanned, open: &[&str]) {
    for folder in open {
        let folder = format!("/{}", folder.trim_matches('/'));
        let below = format!("{folder}/");
        if found.entries.keys().any(|path| path.starts_with(&below)) {
            found
                .entries
                .insert(folder, FileDocument::Folder { mode: 0o777 });
        }
    }
}

struct Scanner {
    /// Links resolved.
    project: PathBuf,
    ignore: IgnoreFile,
}

impl Scanner {
    fn new(project: &Path) -> Result<Self, ScanReason> {
        let shown = || project.display().to_string();
        let real = project.canonicalize().map_err(|source| ScanReason::Io {
            path: shown(),
            source,
        })?;
        let path = real.join(".dockerignore");
        let ignore = match fs::read(&path) {
            Ok(bytes) => IgnoreFile::parse(&String::from_utf8_lossy(&bytes))
                .map_err(|line| ScanReason::IgnoreFile { line })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => IgnoreFile::default(),
            Err(source) => {
                return Err(ScanReason::Io {
                    path: path.display().to_string(),
                    source,
                });
            }
        };
        Ok(Self {
            project: real,
            ignore,
        })
    }

    fn add(&self, spec: &FileSpec, found: &mut Scanned) -> Result<(), ScanReason> {
        let from = &spec.from;
        let relative = relative_path(from)?;
        let real = match self.project.join(&relative).canonicalize() {
            Ok(real) if real.starts_with(&self.project) => real,
            Ok(_) => return Err(ScanReason::Escapes { path: from.clone() }),
            Err(source) => {
                return Err(match source.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        ScanReason::Missing { from: from.clone() }
                    }
                    _ => ScanReason::Io {
                        path: from.clone(),
                        source,
                    },
                });
            }
        };
        let meta = fs::metadata(&real).map_err(|source| ScanReason::Io {
            path: from.clone(),
            source,
        })?;
        let content_only = from.ends_with('/') || relative.is_empty();
        if content_only && !meta.is_dir() {
            return Err(ScanReason::NotAFolder { from: from.clone() });
        }
        if self.ignore.excludes(&relative) && !(meta.is_dir() && self.ignore.has_exceptions()) {
            return Err(ScanReason::Ignored { from: from.clone() });
        }
        let name = relative.rsplit('/').next().unwrap_or_default();
        let target = match spec.to.ends_with('/') && !content_only {
            true => format!("{}{name}", spec.to),
            false => spec.to.clone(),
        };
        if !meta.is_dir() {
            return self.add_other(&real, &relative, &meta, &target, spec, found);
        }
        put(found, &target, FileDocument::Folder { mode: 0o755 }, None)?;
        self.walk(&real, &relative, &target, spec, found)
    }

    fn walk(
        &self,
        folder: &Path,
        relative: &str,
        target: &str,
        spec: &FileSpec,
        found: &mut Scanned,
    ) -> Result<(), ScanReason> {
        let fail = |source| ScanReason::Io {
            path: relative.to_owned(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(fail)? {
            names.push(entry.map_err(fail)?.file_name());
        }
        names.sort();
        for name in names {
            let real = folder.join(&name);
            let lossy = name.to_string_lossy();
            let path = if relative.is_empty() {
                lossy.to_string()
            } else {
                format!("{relative}/{lossy}")
            };
            let meta = fs::symlink_metadata(&real).map_err(|source| ScanReason::Io {
                path: path.clone(),
                source,
            })?;
            let excluded = self.ignore.excludes(&path);
            if excluded && !(meta.is_dir() && self.ignore.has_exceptions()) {
                continue;
            }
            if name.to_str().is_none() {
                return Err(ScanReason::Name { path });
            }
            let target = format!("{}/{lossy}", target.trim_end_matches('/'));
            if meta.is_dir() {
                if !excluded {
                    put(found, &target, FileDocument::Folder { mode: 0o755 }, None)?;
                }
                self.walk(&real, &path, &target, spec, found)?;
            } else {
                self.add_other(&real, &path, &meta, &target, spec, found)?;
            }
        }
        Ok(())
    }

    fn add_other(
        &self,
        real: &Path,
        path: &str,
        meta: &Metadata,
        target: &str,
        spec: &FileSpec,
        found: &mut Scanned,
    ) -> Result<(), ScanReason> {
        let kind = meta.file_type();
        let fail = |source| ScanReason::Io {
            path: path.to_owned(),
            source,
        };
        let special = |what| {
            Err(ScanReason::Special {
                path: path.to_owned(),
                what,
            })
        };
        if kind.is_file() {
            let (sha256, _) = File::open(real).and_then(Digest::of_reader).map_err(fail)?;
            let executable = meta.permissions().mode() & 0o100 != 0;
            let mode = spec.mode.unwrap_or(if executable { 0o755 } else { 0o644 }) & 0o7777;
            return put(
                found,
                target,
                FileDocument::File { sha256, mode },
                Some(real),
            );
        }
        if kind.is_symlink() {
            let link = fs::read_link(real).map_err(fail)?;
            let link = self.check_link(real, path, &link)?;
            return put(found, target, FileDocument::Link { target: link }, None);
        }
        match () {
            () if kind.is_socket() => special("socket"),
            () if kind.is_fifo() => special("named pipe"),
            () => special("device"),
        }
    }

    /// A link must be relative and must not lead out of the project.
    fn check_link(&self, real: &Path, path: &str, link: &Path) -> Result<String, ScanReason> {
        let escapes = || ScanReason::Escapes {
            path: format!("{path} -> {}", link.display()),
        };
        let text = link.to_str().ok_or_else(|| ScanReason::Name {
            path: path.to_owned(),
        })?;
        let folder = real
            .parent()
            .and_then(|folder| folder.strip_prefix(&self.project).ok());
        let mut depth = folder.ok_or_else(escapes)?.components().count();
        for component in link.components() {
            match component {
                Component::Normal(_) => depth += 1,
                Component::CurDir => {}
                Component::ParentDir => depth = depth.checked_sub(1).ok_or_else(escapes)?,
                Component::RootDir | Component::Prefix(_) => return Err(escapes()),
            }
        }
        Ok(text.to_owned())
    }
}

/// `from` without `.` and empty parts; empty for the project's folder itself.
fn relative_path(from: &str) -> Result<String, ScanReason> {
    let parts: Vec<&str> = from
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if from.starts_with('/') || parts.contains(&"..") {
        return Err(ScanReason::Escapes { path: from.into() });
    }
    if from.is_empty() || from.contains('\0') {
        return Err(ScanReason::Missing { from: from.into() });
    }
    Ok(parts.join("/"))
}

fn put(
    found: &mut Scanned,
    target: &str,
    document: FileDocument,
    source: Option<&Path>,
) -> Result<(), ScanReason> {
    let clean = paths::check(target).map_err(|reason| ScanReason::Target {
        path: target.into(),
        reason,
    })?;
    if clean.is_empty() {
        return match document {
            FileDocument::Folder { .. } => Ok(()),
            _ => Err(ScanReason::Target {
                path: target.into(),
                reason: "it is the root folder",
            }),
        };
    }
    let path = format!("/{clean}");
    match source {
        Some(source) => found.sources.insert(path.clone(), source.to_owned()),
        None => found.sources.remove(&path),
    };
    found.entries.insert(path, document);
    Ok(())
}
