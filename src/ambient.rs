//! What the machine's configuration may contribute: mirrors, credentials, certificates and proxies.
//!
//! It may supply these for an index or archive that the manifest names or that is the default; it never adds an
//! index. Only `cli` reads the environment and files and fills this type in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A machine's contribution. `Debug` shows no secret.
#[derive(Clone, Default)]
pub struct Ambient {
    /// A mirror of the default Python index (simple API), from pip's or uv's configuration.
    pub python_index: Option<String>,
    /// Machine name → login, from netrc.
    pub netrc: BTreeMap<String, Login>,
    /// Index name or URL → login, from `IMAGEWRIGHT_INDEX_<NAME>_USERNAME`/`_PASSWORD` and from user info in
    /// configured index URLs.
    pub index_logins: BTreeMap<String, Login>,
    /// Suite → archive URLs, from `IMAGEWRIGHT_DEBIAN_MIRROR` or the host's apt sources.
    pub debian_mirrors: BTreeMap<String, Vec<String>>,
    /// Keyring files of the machine that may verify a Debian archive.
    pub debian_keyrings: Vec<PathBuf>,
    /// Extra certificate authorities, PEM files.
    pub certificates: Vec<PathBuf>,
    /// Docker or Podman credential files, first found wins.
    pub registry_auth: Vec<PathBuf>,
}

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

impl fmt::Debug for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ambient").finish_non_exhaustive()
    }
}

/// `url` without user info, query and fragment: the form that may be stored or shown.
pub fn redact(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) => {
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.set_query(None);
            parsed.set_fragment(None);
            parsed.into()
        }
        Err(_) => "<not a URL>".into(),
    }
}
