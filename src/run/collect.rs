//! Takes over what a run left in its results folder, which is hostile until shown otherwise.
//!
//! Every file is opened beneath the folder's descriptor with openat2(2), never through a link; only regular files
//! with one name are taken, copied into a folder of ours, up to a number and a size. Whatever else is there is named
//! in a warning and stays behind.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat};

use crate::diagnostic::counted;

/// How much is taken.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Regular files, and folders, each.
    pub entries: usize,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Folders within folders.
    pub depth: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 256 << 20,
            depth: 16,
        }
    }
}

/// What was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Relative paths, sorted.
    pub files: Vec<PathBuf>,
    /// What was not taken, and why.
    pub warnings: Vec<String>,
}

/// Names that are taken first, so that a flood of other files cannot keep them out.
pub const FIRST: [&str; 2] = ["junit.xml", "cases.jsonl"];

/// Warnings of one collection; more say nothing new.
const MOST_WARNINGS: usize = 20;

/// Copies the regular files below `from` to `to`, which is made.
///
/// # Errors
/// When `from` cannot be opened as a folder or `to` cannot be written.
pub fn collect(from: &Path, to: &Path, caps: Caps) -> io::Result<Collected> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(from, flags, Mode::empty())?;
    fs::create_dir_all(to)?;
    let mut work = Work {
        root,
        to,
        caps,
        entries: 0,
        bytes: 0,
        full: false,
        done: Collected::default(),
        unmentioned: 0,
    };
    for name in FIRST {
        work.entry(Path::new(name), 0)?;
    }
    work.folder(Path::new(""), 0)?;
    if work.unmentioned > 0 {
        let more = format!(
            "not taken either: {}",
            counted(work.unmentioned, "more file")
        );
        work.done.warnings.push(more);
    }
    work.done.files.sort();
    Ok(work.done)
}

struct Work<'a> {
    root: OwnedFd,
    to: &'a Path,
    caps: Caps,
    entries: usize,
    bytes: u64,
    full: bool,
    done: Collected,
    unmentioned: usize,
}

impl Work<'_> {
    fn warn(&mut self, path: &Path, reason: &str) {
        if self.done.warnings.len() < MOST_WARNINGS {
            let name = path.to_string_lossy();
            let name = name.escape_debug();
            self.done
                .warnings
                .push(format!("{name} was not taken: {reason}"));
        } else {
            self.unmentioned += 1;
        }
    }

    fn folder(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        let Some(folder) = self.open(path, OFlags::DIRECTORY)? else {
            return Ok(());
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(folder.as_fd())? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() > self.caps.entries {
                self.full = true;
                let most = self.caps.entries;
                self.warn(
                    path,
                    &format!("the folder has more than {most} entries; the rest is ignored"),
                );
                break;
            }
            names.push(std::ffi::OsString::from_vec(name));
        }
        names.sort();
        for name in names {
            let path = path.join(name);
            let first = depth == 0 && FIRST.iter().any(|first| path == Path::new(first));
            if !first {
                self.entry(&path, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        let Some(file) = self.open(path, OFlags::NONBLOCK)? else {
            return Ok(());
        };
        let meta = fstat(&file)?;
        self.entries += 1;
        if self.entries > self.caps.entries {
            if self.entries == self.caps.entries + 1 {
                let most = self.caps.entries;
                self.warn(
                    path,
                    &format!("there are more than {most} files; the rest is ignored"),
                );
            }
            return Ok(());
        }
        match FileType::from_raw_mode(meta.st_mode) {
            FileType::Directory if depth < self.caps.depth => self.folder(path, depth + 1),
            FileType::Directory => {
                let most = self.caps.depth;
                self.warn(path, &format!("folders are nested more than {most} deep"));
                Ok(())
            }
            FileType::RegularFile if meta.st_nlink != 1 => {
                self.warn(path, "it is a hard link");
                Ok(())
            }
            FileType::RegularFile => self.copy(path, file),
            _ => {
                self.warn(path, "it is neither a regular file nor a folder");
                Ok(())
            }
        }
    }

    fn copy(&mut self, path: &Path, file: OwnedFd) -> io::Result<()> {
        let room = self.caps.bytes - self.bytes;
        let size = u64::try_from(fstat(&file)?.st_size).unwrap_or(u64::MAX);
        if size > room {
            let most = self.caps.bytes >> 20;
            self.warn(
                path,
                &format!("all files together are larger than {most} MiB"),
            );
            return Ok(());
        }
        let target = self.to.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        // `take`, because a size that is told need not be the size that comes.
        let mut reader = File::from(file).take(room);
        self.bytes += io::copy(&mut reader, &mut File::create(target)?)?;
        self.done.files.push(path.to_owned());
        Ok(())
    }

    /// Opens beneath the root without following any link. `None` if it is not there or must not be opened.
    fn open(&mut self, path: &Path, extra: OFlags) -> io::Result<Option<OwnedFd>> {
        let relative = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let Ok(name) = CString::new(relative.as_os_str().as_encoded_bytes()) else {
            return Ok(None);
        };
        let kind = rustix::fs::statat(&self.root, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        let special = kind.is_ok_and(|meta| {
            !matches!(
                FileType::from_raw_mode(meta.st_mode),
                FileType::RegularFile | FileType::Directory
            )
        });
        if special {
            // Opening a device may already have an effect.
            self.warn(path, "it is neither a regular file nor a folder");
            return Ok(None);
        }
        match open_beneath(&self.root, &name, extra) {
            Ok(file) => Ok(Some(file)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => {
                self.warn(path, &io::Error::from(error).to_string());
                Ok(None)
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn open_beneath(root: &OwnedFd, name: &CString, extra: OFlags) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, name, flags, Mode::empty(), resolve)
}

/// Without openat2: every folder on the way is opened without following it.
#[cfg(not(target_os = "linux"))]
fn open_beneath(root: &OwnedFd, name: &CString, extra: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parts: Vec<_> = name.to_bytes().split(|byte| *byte == b'/').collect();
    let mut at = root.try_clone().map_err(|_| rustix::io::Errno::IO)?;
    for (number, part) in parts.iter().enumerate() {
        let last = number + 1 == parts.len();
        let extra = if last { extra } else { OFlags::DIRECTORY };
        at = rustix::fs::openat(&at, *part, flags | extra, Mode::empty())?;
    }
    Ok(at)
}
