//! A tree on disk → the tar of a layer. Only reads: the cleaning rules apply to what is read.
//!
//! Entries are sorted by path; owners, modes, hard links and `security.capability` are kept; sockets are left out;
//! times newer than the epoch are clamped to it. Overlay's marks for removed files and replaced folders become the
//! OCI image specification's whiteouts (image-layer, "Representing Changes").

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::cleaning::{self, Action};
use crate::layer::entry::{Entry, EntryKind, TRAILER};

/// What to emit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeJob {
    /// The tree; its root folder itself gets no entry.
    pub root: PathBuf,
    /// The trees below it, if it holds changes only.
    pub lower: Vec<PathBuf>,
    /// Seconds since 1970 to which newer times are clamped.
    pub epoch: i64,
}

/// Why a tree cannot be emitted.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// A file cannot be read, or the output not written.
    #[error("cannot pack {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Overlay features that a layer cannot say.
    #[error("{} carries overlay's `{attribute}`: the tree is only complete together with those below it", path.display())]
    Overlay {
        /// The path.
        path: PathBuf,
        /// The extended attribute.
        attribute: String,
    },
}

/// Writes the tree's tar, trailer included.
///
/// # Errors
/// See [`EmitError`].
pub fn emit_tree(job: &TreeJob, out: &mut dyn Write) -> Result<(), EmitError> {
    let mut emitter = Emitter {
        job,
        paths: BTreeMap::new(),
        links: BTreeMap::new(),
    };
    emitter.collect(&job.root, b"")?;
    let paths = std::mem::take(&mut emitter.paths);
    for (path, found) in &paths {
        emitter.write(path, found, out)?;
    }
    out.write_all(&TRAILER).map_err(io_error(&job.root))
}

/// What stands at a path of the layer.
enum Found {
    /// A file of the tree, with its metadata.
    Node(PathBuf, Box<Metadata>),
    /// An empty file instead of one of the tree.
    Empty(Box<Metadata>),
    /// A whiteout.
    Whiteout,
}

struct Emitter<'a> {
    job: &'a TreeJob,
    /// Path in the layer → what stands there, in the order of emission.
    paths: BTreeMap<Vec<u8>, Found>,
    /// Device and inode → path of the first name.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> EmitError + use<> {
    let path = path.to_owned();
    move |source| EmitError::Io { path, source }
}

impl Emitter<'_> {
    fn collect(&mut self, folder: &Path, prefix: &[u8]) -> Result<(), EmitError> {
        for child in fs::read_dir(folder).map_err(io_error(folder))? {
            let child = child.map_err(io_error(folder))?;
            let name = child.file_name();
            let mut path = prefix.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            self.collect_one(&child.path(), path)?;
        }
        Ok(())
    }

    fn collect_one(&mut self, on_disk: &Path, path: Vec<u8>) -> Result<(), EmitError> {
        let meta = fs::symlink_metadata(on_disk).map_err(io_error(on_disk))?;
        let kind = meta.file_type();
        let link = match kind.is_symlink() {
            true => Some(fs::read_link(on_disk).map_err(io_error(on_disk))?),
            false => None,
        };
        let link = link.map(|link| link.into_os_string().into_vec());
        match cleaning::action(&String::from_utf8_lossy(&path), link.as_deref()) {
            Some(Action::Drop) => return Ok(()),
            Some(Action::Empty) if kind.is_file() => {
                self.paths.insert(path, Found::Empty(Box::new(meta)));
                return Ok(());
            }
            _ if kind.is_socket() => return Ok(()),
            _ => {}
        }
        if kind.is_char_device() && meta.rdev() == 0 {
            self.paths.insert(whiteout(&path), Found::Whiteout);
            return Ok(());
        }
        if kind.is_dir() {
            // Overlay calls every new folder opaque; a layer says it only where something is hidden.
            let relative = Path::new(std::ffi::OsStr::from_bytes(&path));
            let mut lower = self.job.lower.iter();
            let hides = |tree: &PathBuf| fs::symlink_metadata(tree.join(relative)).is_ok();
            if is_opaque(on_disk)? && lower.any(hides) {
                let mut mark = path.clone();
                mark.extend_from_slice(b"/.wh..wh..opq");
                self.paths.insert(mark, Found::Whiteout);
            }
            self.collect(on_disk, &path)?;
        }
        self.paths
            .insert(path, Found::Node(on_disk.into(), Box::new(meta)));
        Ok(())
    }

    fn write(&mut self, path: &[u8], found: &Found, out: &mut dyn Write) -> Result<(), EmitError> {
        match found {
            Found::Whiteout => {
                let mut entry = Entry::file(path, 0, 0o644);
                entry.mtime = self.job.epoch;
                write_bytes(&entry, &[], out).map_err(io_error(&self.job.root))
            }
            Found::Empty(meta) => {
                let mut entry = self.entry(path, meta, EntryKind::File { size: 0 });
                entry.mtime = self.job.epoch;
                write_bytes(&entry, &[], out).map_err(io_error(&self.job.root))
            }
            Found::Node(on_disk, meta) => self.write_node(path, on_disk, meta, out),
        }
    }

    fn entry(&self, path: &[u8], meta: &Metadata, kind: EntryKind) -> Entry {
        let restless = meta.is_dir() && cleaning::is_restless(&String::from_utf8_lossy(path));
        let mtime = if restless {
            self.job.epoch
        } else {
            meta.mtime().min(self.job.epoch)
        };
        Entry {
            path: path.into(),
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime,
            xattrs: Vec::new(),
        }
    }

    fn write_node(
        &mut self,
        path: &[u8],
        on_disk: &Path,
        meta: &Metadata,
        out: &mut dyn Write,
    ) -> Result<(), EmitError> {
        let failed = || io_error(on_disk);
        if !meta.is_dir() && meta.nlink() > 1 {
            let first = self.links.entry((meta.dev(), meta.ino()));
            let first = first.or_insert_with(|| path.to_vec()).clone();
            if first != path {
                let entry = self.entry(path, meta, EntryKind::Hardlink { target: first });
                return write_bytes(&entry, &[], out).map_err(failed());
            }
        }
        let kind = node_kind(on_disk, meta).map_err(failed())?;
        let mut entry = self.entry(path, meta, kind);
        if meta.is_file() {
            is_opaque(on_disk)?;
            entry.xattrs = capability(on_disk).map_err(failed())?;
            let name = String::from_utf8_lossy(path);
            if cleaning::is_rewritten(&name) {
                let content = fs::read(on_disk).map_err(failed())?;
                let content = cleaning::rewrite(&name, content, self.job.epoch, |other| {
                    let meta = follow(&self.job.root, other)?;
                    Some((meta.size(), meta.mtime().min(self.job.epoch)))
                });
                entry.kind = EntryKind::File {
                    size: content.len() as u64,
                };
                return write_bytes(&entry, &content, out).map_err(failed());
            }
            return write_file(&entry, on_disk, out).map_err(failed());
        }
        write_bytes(&entry, &[], out).map_err(failed())
    }
}

fn node_kind(on_disk: &Path, meta: &Metadata) -> io::Result<EntryKind> {
    let kind = meta.file_type();
    let (major, minor) = (
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    );
    Ok(if kind.is_dir() {
        EntryKind::Folder
    } else if kind.is_symlink() {
        EntryKind::Symlink {
            target: fs::read_link(on_disk)?.into_os_string().into_vec(),
        }
    } else if kind.is_char_device() {
        EntryKind::CharDevice { major, minor }
    } else if kind.is_block_device() {
        EntryKind::BlockDevice { major, minor }
    } else if kind.is_fifo() {
        EntryKind::Fifo
    } else {
        EntryKind::File { size: meta.size() }
    })
}

/// The file that a path of the tree means, its own links followed inside the tree; `None` if it is not in it.
fn follow(root: &Path, path: &str) -> Option<Metadata> {
    let mut path = PathBuf::from(path);
    for _ in 0..8 {
        let on_disk = root.join(&path);
        let meta = fs::symlink_metadata(&on_disk).ok()?;
        if !meta.is_symlink() {
            return Some(meta);
        }
        let target = fs::read_link(&on_disk).ok()?;
        let joined = path.parent()?.join(target);
        path = PathBuf::new();
        for component in joined.components() {
            match component {
                Component::Normal(part) => path.push(part),
                Component::ParentDir => {
                    path.pop();
                }
                Component::RootDir => path = PathBuf::new(),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }
    None
}

/// `a/b` → `a/.wh.b`.
fn whiteout(path: &[u8]) -> Vec<u8> {
    let name = path
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |at| at + 1);
    [&path[..name], b".wh.", &path[name..]].concat()
}

/// Whether overlay hides what lower trees have in this folder; refuses files and folders that are only half here.
fn is_opaque(folder: &Path) -> Result<bool, EmitError> {
    let mut opaque = false;
    for space in ["trusted", "user"] {
        for refused in ["redirect", "metacopy"] {
            let name = format!("{space}.overlay.{refused}");
            if xattr(folder, &name).map_err(io_error(folder))?.is_some() {
                return Err(EmitError::Overlay {
                    path: folder.into(),
                    attribute: name,
                });
            }
        }
        let value = xattr(folder, &format!("{space}.overlay.opaque")).map_err(io_error(folder))?;
        opaque |= value.as_deref() == Some(b"y");
    }
    Ok(opaque)
}

fn capability(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    const NAME: &str = "security.capability";
    Ok(xattr(path, NAME)?
        .into_iter()
        .map(|value| (NAME.to_owned(), value))
        .collect())
}

fn xattr(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 4096];
    match rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        // Absent, or not of a kind that this file system, file or user can have.
        Err(
            rustix::io::Errno::NODATA
            | rustix::io::Errno::NOTSUP
            | rustix::io::Errno::PERM
            | rustix::io::Errno::ACCESS,
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write_bytes(entry: &Entry, content: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(1024 + content.len());
    entry.write_header(&mut bytes);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len() + entry.padding(), 0);
    out.write_all(&bytes)
}

fn write_file(entry: &Entry, path: &Path, mut out: &mut dyn Write) -> io::Result<()> {
    let mut header = Vec::new();
    entry.write_header(&mut header);
    out.write_all(&header)?;
    let copied = io::copy(&mut File::open(path)?.take(entry.size()), &mut out)?;
    if copied != entry.size() {
        return Err(io::Error::other(
            "the file became shorter while it was read",
        ));
    }
    out.write_all(&vec![0; entry.padding()])
}
