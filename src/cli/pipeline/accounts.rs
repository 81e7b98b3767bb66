//! The accounts of a file system, read out of its layers.

use crate::catalog::Accounts;
use crate::cli::failure::Failure;
use crate::digest::Digest;
use crate::identity;
use crate::resolve::base::read_files;
use crate::store::{State, Store};

const PATHS: [&str; 2] = ["etc/passwd", "etc/group"];

/// `/etc/passwd` and `/etc/group` as the layers of these blobs leave them, lowest first; all are in the store.
pub fn read(store: &Store, state: &State, blobs: &[Digest]) -> Result<Accounts, Failure> {
    let key = identity::key(&serde_json::json!({ "files": PATHS, "of": blobs, "v": 1 }));
    if let Some(known) = state.document(&key)?
        && let Ok((passwd, group)) = serde_json::from_str(&known)
    {
        return Ok(Accounts { passwd, group });
    }
    let mut files = read_files(store, blobs, &PATHS)?;
    let [passwd, group] = PATHS.map(|path| {
        let bytes = files.remove(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    if let Ok(document) = serde_json::to_string(&(&passwd, &group)) {
        state.put_document(&key, &document)?;
    }
    Ok(Accounts { passwd, group })
}
