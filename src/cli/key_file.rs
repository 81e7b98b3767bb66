//! Files with a secret key that signs records.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::failure::Failure;
use crate::catalog::SecretKey;
use crate::diagnostic::Kind;

/// Most bytes of a key file.
const KEY_LIMIT: u64 = 4096;

/// Reads a key file.
///
/// # Errors
/// When it is not one.
pub fn read(path: &Path) -> Result<SecretKey, Failure> {
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
    Ok(SecretKey::parse(&text, path)?)
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
