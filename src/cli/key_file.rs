//! Files with a secret key that signs records.

use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::context::Context;
use super::failure::Failure;
use crate::catalog::SecretKey;
use crate::diagnostic::Kind;
use crate::progress::Progress as _;

/// Most bytes of a key file.
const KEY_LIMIT: u64 = 4096;

/// Permission bits that let others than the owner read.
const OTHERS: u32 = 0o044;

/// Reads a key file; one that others can read is warned of.
///
/// # Errors
/// When it is not one.
pub fn read(context: &Context, path: &Path) -> Result<SecretKey, Failure> {
    if SecretKey::is_in(&path.to_string_lossy()) {
        return Err(Failure::plain(
            Kind::Usage,
            "a secret key was given instead of the file that has it",
            "write the key into a file that its owner alone can read, and name that file",
        ));
    }
    let fail = |reason: String| {
        Failure::plain(
            Kind::Usage,
            format!("cannot read the key file {}: {reason}", path.display()),
            "`imagewright sign --new FILE` writes a key file",
        )
    };
    let meta = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?;
    if !meta.is_file() || meta.len() > KEY_LIMIT {
        return Err(fail("it is not a small file".into()));
    }
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| fail("it is not text".into()))?;
    let key = SecretKey::parse(&text, path)?;
    if meta.permissions().mode() & OTHERS != 0 {
        let path = path.display();
        let warning = format!(
            "others than its owner can read the secret key in {path}: run `chmod 600 {path}`, and make a new key if \
             somebody may have read it"
        );
        context.progress.warn(&warning);
    }
    Ok(key)
}

/// Writes a key into a new file that its owner alone can read.
///
/// # Errors
/// When there is such a file, or it cannot be written.
pub fn write(path: &Path, key: &SecretKey) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(key.to_text().as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::plain(
            Kind::Usage,
            format!("{} exists", path.display()),
            "a key that is overwritten is lost: name another file",
        ),
        _ => {
            let hint = "name a file in a folder that is there and can be written";
            Failure::unwritten(path, &error, hint)
        }
    })
}
