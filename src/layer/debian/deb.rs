//! Debian binary packages as files (deb(5)): an `ar` of `debian-binary`, `control.tar.*` and `data.tar.*`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use deb822_fast::borrowed::BorrowedParagraphIter;

use crate::resolve::debian::relation;

/// What of a package's control file decides the order of installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Binary package name.
    pub package: String,
    /// Full version.
    pub version: String,
    /// `Essential: yes`.
    pub essential: bool,
    /// Names in `Pre-Depends`, one list of alternatives per group.
    pub pre_depends: Vec<Vec<String>>,
    /// Names in `Depends`, one list of alternatives per group.
    pub depends: Vec<Vec<String>>,
    /// Names in `Provides`.
    pub provides: Vec<String>,
}

/// Reads a deb's control file.
pub fn control(path: &Path) -> io::Result<Control> {
    let mut found = None;
    with_member(path, "control.tar", |member| {
        let mut archive = tar::Archive::new(member);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            if path.components().next_back() == Some(Component::Normal("control".as_ref())) {
                let mut text = String::new();
                entry.read_to_string(&mut text)?;
                found = Some(text);
                break;
            }
        }
        Ok(())
    })?;
    let text = found.ok_or_else(|| invalid("it has no control file"))?;
    let paragraph = BorrowedParagraphIter::new(&text)
        .next()
        .and_then(Result::ok)
        .ok_or_else(|| invalid("its control file cannot be read"))?;
    let field = |name: &str| {
        let lines = paragraph.get(name).map(|lines| lines.join(" "));
        lines.unwrap_or_default().trim().to_owned()
    };
    let groups = |name: &str| {
        relation::parse(&field(name))
            .iter()
            .map(|group| group.iter().map(|one| one.name.to_owned()).collect())
            .collect()
    };
    Ok(Control {
        package: field("Package"),
        version: field("Version"),
        essential: field("Essential") == "yes",
        pre_depends: groups("Pre-Depends"),
        depends: groups("Depends"),
        provides: relation::provided(&field("Provides"))
            .map(|(name, _)| name.to_owned())
            .collect(),
    })
}

/// Unpacks so much of a deb's files into `root` that its programs run there: dpkg unpacks it again, in full and with
/// its owners. Links of the merged `/usr` must exist already.
pub fn unpack_roughly(path: &Path, root: &Path) -> io::Result<()> {
    with_member(path, "data.tar", |member| {
        let mut archive = tar::Archive::new(member);
        for entry in archive.entries()? {
            unpack_entry(&mut entry?, root)?;
        }
        Ok(())
    })
}

/// What no program needs to run.
const SKIPPED: [&str; 6] = ["doc", "info", "lintian", "locale", "man", "bug"];

fn unpack_entry(entry: &mut tar::Entry<'_, impl Read>, root: &Path) -> io::Result<()> {
    let path = entry.path()?.into_owned();
    let Some(relative) = plain(&path) else {
        return Err(invalid(&format!("it holds the path {}", path.display())));
    };
    let skipped = relative
        .strip_prefix("usr/share")
        .is_ok_and(|rest| SKIPPED.iter().any(|folder| rest.starts_with(folder)));
    if skipped || relative.as_os_str().is_empty() {
        return Ok(());
    }
    let target = root.join(&relative);
    let owned_by_root = entry.header().uid()? == 0 && entry.header().gid()? == 0;
    if entry.header().entry_type().is_dir() && !owned_by_root {
        // dpkg keeps the owner of a folder that exists, so it has to make this one.
        return Ok(());
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let mode = fs::Permissions::from_mode(entry.header().mode()? & 0o7777);
    let link = entry.link_name()?.map(|link| link.into_owned());
    match entry.header().entry_type() {
        tar::EntryType::Directory => {
            fs::create_dir_all(&target)?;
            if fs::symlink_metadata(&target)?.is_dir() {
                fs::set_permissions(&target, mode)?;
            }
        }
        tar::EntryType::Symlink => {
            remove_file(&target)?;
            symlink(link.unwrap_or_default(), &target)?;
        }
        tar::EntryType::Link => {
            let other = link.as_deref().and_then(plain);
            let other = other.ok_or_else(|| invalid("it holds a link that leaves it"))?;
            remove_file(&target)?;
            fs::hard_link(root.join(other), &target)?;
        }
        _ => {
            remove_file(&target)?;
            io::copy(entry, &mut File::create_new(&target)?)?;
            fs::set_permissions(&target, mode)?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The path without a leading `./`; `None` if it leaves its root.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => found.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(found)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not a valid Debian package: {reason}"),
    )
}

fn with_member(
    path: &Path,
    name: &str,
    read: impl FnOnce(&mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut archive = ar::Archive::new(io::BufReader::new(File::open(path)?));
    while let Some(member) = archive.next_entry() {
        let mut member = member?;
        let found = String::from_utf8_lossy(member.header().identifier()).into_owned();
        let Some(suffix) = found.trim_end_matches('/').strip_prefix(name) else {
            continue;
        };
        return match suffix {
            "" => read(&mut member),
            ".gz" => read(&mut flate2::read::MultiGzDecoder::new(member)),
            ".xz" => read(&mut liblzma::read::XzDecoder::new_multi_decoder(member)),
            ".zst" => read(&mut zstd::Decoder::new(member)?),
            other => Err(invalid(&format!("its {name} is compressed as `{other}`"))),
        };
    }
    Err(invalid(&format!("it has no {name}")))
}
