//! Writes the entries of a tar below a folder, and never outside of it.
//!
//! Every parent folder is opened by `openat2` with the tree as root, so that links planted by earlier entries, absolute or
//! with `..`, resolve inside of the tree, as they will in a container; the last component is never followed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat,
    openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::archive::{Archive, Header};

/// The most entries that a layer may have.
const MAX_ENTRIES: u64 = 5_000_000;
/// The most bytes that a layer may unpack to.
const MAX_BYTES: u64 = 512 << 30;

/// Why an entry cannot be written: its path and the end of the sentence.
pub type Fault = (Vec<u8>, String);

/// Writes entries below one folder.
#[derive(Debug)]
pub struct Extractor {
    root: OwnedFd,
    /// Owners, devices, set-id bits and trusted attributes are kept.
    privileged: bool,
    /// Attributes of folders, applied when nothing is written into them any more.
    folders: BTreeMap<Vec<u8>, Header>,
    /// The folder of the last entry.
    parent: Option<(Vec<u8>, OwnedFd)>,
    opaque: BTreeSet<Vec<u8>>,
}

/// Whether this process may give files away: root of the initial user namespace, or of one that maps all ids.
pub fn is_privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    root && whole
}

impl Extractor {
    /// Writes below the folder `root`, which exists.
    pub fn new(root: &Path, privileged: bool) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(root, flags, Mode::empty())?,
            privileged,
            folders: BTreeMap::new(),
            parent: None,
            opaque: BTreeSet::new(),
        })
    }

    /// Writes all entries of `archive`.
    ///
    /// # Errors
    /// The entry that is refused or could not be written; a path of no bytes stands for the archive itself.
    pub fn all<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<(), Fault> {
        let whole = |error: io::Error| (Vec::new(), error.to_string());
        let (mut count, mut bytes) = (0_u64, 0_u64);
        while let Some(header) = archive.next_entry().map_err(whole)? {
            count += 1;
            bytes = bytes.saturating_add(header.size);
            if count > MAX_ENTRIES || bytes > MAX_BYTES {
                return Err((
                    Vec::new(),
                    "it has more than 5 million entries or 512 GiB of content".into(),
                ));
            }
            let path = header.path.clone();
            self.entry(header, archive)
                .map_err(|error| (path, error.to_string()))?;
        }
        self.finish()
            .map_err(|(path, error)| (path, error.to_string()))
    }

    fn entry<R: Read>(&mut self, header: Header, content: &mut Archive<R>) -> io::Result<()> {
        let path = clean(&header.path)?;
        let Some((parent, name)) = split(&path) else {
            // The root itself.
            if header.flag == b'5' {
                self.folders.insert(Vec::new(), header);
            }
            return Ok(());
        };
        if name.starts_with(b".wh.") {
            return self.whiteout(parent, &name[4..]);
        }
        match header.flag {
            b'0' | 0 | b'7' => self.file(parent, name, &header, content),
            b'5' => self.folder(parent, name, path.clone(), header),
            b'2' => self.symlink(parent, name, &header),
            b'1' => self.hardlink(parent, name, &header.link),
            b'3' | b'4' | b'6' => self.special(parent, name, &header),
            flag => Err(refuse(format!(
                "has the unknown type {:?}",
                char::from(flag)
            ))),
        }
    }

    /// The folder `path`, made if it is missing; kept open for the next entry.
    fn open(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        if let Some((known, folder)) = &self.parent
            && known == path
        {
            return folder.try_clone();
        }
        let folder = match self.open_below(path) {
            Err(error) if error == Errno::NOENT => self.make(path)?,
            other => other?,
        };
        self.parent = Some((path.to_vec(), folder.try_clone()?));
        Ok(folder)
    }

    fn open_below(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    fn make(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        let Some((parent, name)) = split(path) else {
            return Ok(self.open_below(b"")?);
        };
        let parent = self.open(parent)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let made = open_folder(&parent, name)?;
                fchmod(&made, Mode::from_raw_mode(0o755))?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.open_below(path)?)
    }

    /// Removes what stands at `name`, but for a folder if `keep_folder`.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8], keep_folder: bool) -> io::Result<()> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_folder && keep_folder {
            return Ok(());
        }
        self.parent = None;
        let flags = if is_folder {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        unlinkat(parent, name, flags).map_err(|error| match error {
            Errno::NOTEMPTY => refuse("replaces a folder that is not empty"),
            error => error.into(),
        })
    }

    fn file<R: Read>(
        &mut self,
        parent: &[u8],
        name: &[u8],
        header: &Header,
        content: &mut Archive<R>,
    ) -> io::Result<()> {
        let parent = self.open(parent)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let made = match openat(&parent, name, flags, mode) {
            Err(Errno::EXIST) => {
                self.clear(&parent, name, false)?;
                openat(&parent, name, flags, mode)?
            }
            other => other?,
        };
        let mut file = File::from(made);
        let mut buffer = vec![0; header.size.min(1 << 20) as usize];
        let mut left = header.size;
        while left > 0 {
            let read = content.read(&mut buffer)?;
            file.write_all(&buffer[..read])?;
            left -= read as u64;
        }
        self.attributes(file.as_fd(), header)
    }

    /// Owner, mode, extended attributes and time of an open file or folder, in an order in which none undoes another.
    fn attributes(&self, file: impl AsFd, header: &Header) -> io::Result<()> {
        if self.privileged {
            let (uid, gid) = (Uid::from_raw(header.uid), Gid::from_raw(header.gid));
            fchown(&file, Some(uid), Some(gid))?;
        }
        fchmod(&file, Mode::from_raw_mode(header.mode))?;
        for (name, value) in &header.xattrs {
            let kept = match name.as_str() {
                "security.capability" => self.privileged,
                // Attributes that overlay would take for its own.
                name if name.starts_with("user.overlay.") => false,
                name => name.starts_with("user."),
            };
            if kept {
                match fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
                    Ok(()) | Err(Errno::OPNOTSUPP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(futimens(&file, &times(header.mtime))?)
    }

    fn folder(
        &mut self,
        parent: &[u8],
        name: &[u8],
        path: Vec<u8>,
        header: Header,
    ) -> io::Result<()> {
        let parent = self.open(parent)?;
        if is_whiteout(&parent, name) {
            self.opaque.insert(path.clone());
        }
        self.clear(&parent, name, true)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.folders.insert(path, header);
        Ok(())
    }

    fn symlink(&mut self, parent: &[u8], name: &[u8], header: &Header) -> io::Result<()> {
        if header.link.is_empty() || header.link.contains(&0) {
            return Err(refuse("is a link to nowhere"));
        }
        let parent = self.open(parent)?;
        self.clear(&parent, name, false)?;
        self.parent = None;
        symlinkat(header.link.as_slice(), &parent, name)?;
        self.own(&parent, name, header)
    }

    /// Owner and time of what cannot be opened.
    fn own(&self, parent: &OwnedFd, name: &[u8], header: &Header) -> io::Result<()> {
        if self.privileged {
            let (uid, gid) = (Uid::from_raw(header.uid), Gid::from_raw(header.gid));
            chownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(utimensat(
            parent,
            name,
            &times(header.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    fn hardlink(&mut self, parent: &[u8], name: &[u8], target: &[u8]) -> io::Result<()> {
        let target = clean(target)?;
        let Some((target_parent, target_name)) = split(&target) else {
            return Err(refuse("is a hard link to the root"));
        };
        let missing = |_| refuse("is a hard link to something that is not in the layer before it");
        let source = self.open_below(target_parent).map_err(missing)?;
        let stat = statat(&source, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(missing)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refuse("is a hard link to a folder"));
        }
        let parent = self.open(parent)?;
        if let Ok(there) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            && (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        self.clear(&parent, name, false)?;
        Ok(linkat(
            &source,
            target_name,
            &parent,
            name,
            AtFlags::empty(),
        )?)
    }

    /// Devices are left out where they cannot be made; no container could use them.
    fn special(&mut self, parent: &[u8], name: &[u8], header: &Header) -> io::Result<()> {
        let kind = match header.flag {
            b'3' => FileType::CharacterDevice,
            b'4' => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind != FileType::Fifo && !self.privileged {
            return Ok(());
        }
        let parent = self.open(parent)?;
        self.clear(&parent, name, false)?;
        let device = makedev(header.device.0, header.device.1);
        mknodat(&parent, name, kind, Mode::from_raw_mode(0o600), device)?;
        rustix::fs::chmodat(
            &parent,
            name,
            Mode::from_raw_mode(header.mode & 0o777),
            AtFlags::empty(),
        )?;
        self.own(&parent, name, header)
    }

    /// OCI image layer specification, "Whiteouts", as overlay wants them: a character device 0/0, or an opaque folder.
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        if name == b".wh..opq" {
            self.open(parent)?;
            self.opaque.insert(parent.to_vec());
            return Ok(());
        }
        if name.starts_with(b".wh.") {
            // Bookkeeping of aufs.
            return Ok(());
        }
        if name.is_empty() || name == b"." || name == b".." {
            return Err(refuse("removes nothing that has a name"));
        }
        let folder = self.open(parent)?;
        if let Ok(stat) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            // The same layer brings it anew, which hides what is below; a folder must be told to.
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let separator: &[u8] = if parent.is_empty() { b"" } else { b"/" };
                self.opaque.insert([parent, separator, name].concat());
            }
            return Ok(());
        }
        mknodat(&folder, name, FileType::CharacterDevice, Mode::empty(), 0)?;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), (Vec<u8>, io::Error)> {
        self.parent = None;
        for path in std::mem::take(&mut self.opaque) {
            self.make_opaque(&path).map_err(|error| (path, error))?;
        }
        // Children before their parents, whose times they would change.
        for (path, header) in std::mem::take(&mut self.folders).into_iter().rev() {
            self.finish_folder(&path, &header)
                .map_err(|error| (path, error))?;
        }
        Ok(())
    }

    /// Overlay reads the attribute of one of two namespaces, depending on who mounts it.
    fn make_opaque(&self, path: &[u8]) -> io::Result<()> {
        let folder = self.open_below(path)?;
        let set = |name: &str| fsetxattr(&folder, name, b"y", XattrFlags::empty());
        let trusted = set("trusted.overlay.opaque");
        let user = set("user.overlay.opaque");
        Ok(trusted.or(user)?)
    }

    fn finish_folder(&self, path: &[u8], header: &Header) -> io::Result<()> {
        let Some((parent, name)) = split(path) else {
            return self.attributes(&self.root, header);
        };
        let parent = match self.open_below(parent) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other?,
        };
        match open_folder(&parent, name) {
            Ok(folder) => self.attributes(&folder, header),
            // Replaced by a later entry.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_whiteout(parent: &OwnedFd, name: &[u8]) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
    })
}

fn open_folder(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn refuse(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// A path relative to the root without `.` and empty components; a leading `/` means the root.
fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refuse("leads out of its folder with `..`")),
            part if part.len() > 255 => {
                return Err(refuse("has a component of more than 255 bytes"));
            }
            part if part.contains(&0) => return Err(refuse("has a NUL byte in its name")),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// Parent and last component; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => Some((&path[..at], &path[at + 1..])),
        None => Some((b"", path)),
    }
}

/// A path of a tar, safe to show.
pub fn shown(path: &[u8]) -> String {
    let text = OsStr::from_bytes(path).to_string_lossy();
    text.chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect()
}
