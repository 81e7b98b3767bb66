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
    /// Suite → archive URLs from the host's apt sources; or only `*`, for every suite, from `IMAGEWRIGHT_DEBIAN_MIRROR`.
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

/// The logins of a set of indexes: which request may carry which.
///
/// A login reaches only the origin (scheme, host, port) of its index. Where several indexes share an origin, the one
/// whose path the request is below decides, also when that one has no login.
#[derive(Clone, Debug, Default)]
pub struct IndexLogins(Vec<IndexLogin>);

#[derive(Clone, Debug)]
struct IndexLogin {
    origin: url::Origin,
    /// The index's path without a final `simple`, ending in `/`.
    path: String,
    login: Option<Login>,
}

impl IndexLogins {
    /// The logins that the machine has for these indexes, given as (declared name, URL). A login is found by the
    /// URL's own user info, by the index's name, by its URL, by netrc's entry for its host, in this order.
    pub fn new<'a>(
        ambient: &Ambient,
        indexes: impl IntoIterator<Item = (Option<&'a str>, &'a str)>,
    ) -> Self {
        let entries = indexes.into_iter().filter_map(|(name, url)| {
            let parsed = url::Url::parse(url).ok()?;
            let path = parsed.path().trim_end_matches('/');
            let path = path.strip_suffix("simple").unwrap_or(path);
            Some(IndexLogin {
                origin: parsed.origin(),
                path: format!("{}/", path.trim_end_matches('/')),
                login: find_login(ambient, name, &parsed),
            })
        });
        Self(entries.collect())
    }

    /// The login that a request to `url` may carry.
    pub fn for_url(&self, url: &url::Url) -> Option<&Login> {
        let origin = url.origin();
        let here = || self.0.iter().filter(|entry| entry.origin == origin);
        let below = here()
            .filter(|entry| url.path().starts_with(&entry.path))
            .max_by_key(|entry| (entry.path.len(), entry.login.is_some()));
        match below {
            Some(entry) => entry.login.as_ref(),
            None => here().find_map(|entry| entry.login.as_ref()),
        }
    }
}

fn find_login(ambient: &Ambient, name: Option<&str>, url: &url::Url) -> Option<Login> {
    if !url.username().is_empty() || url.password().is_some() {
        let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        return Some(Login {
            username: decoded(url.username()).into(),
            password: decoded(url.password().unwrap_or_default()).into(),
        });
    }
    let plain = redact(url.as_str());
    let wanted = plain.trim_end_matches('/');
    let by_name = name.and_then(|name| {
        let name = variable_form(name);
        ambient
            .index_logins
            .iter()
            .find(|(key, _)| variable_form(key) == name)
    });
    let by_url = || {
        ambient
            .index_logins
            .iter()
            .find(|(key, _)| redact(key).trim_end_matches('/') == wanted)
    };
    by_name
        .or_else(by_url)
        .map(|(_, login)| login)
        .or_else(|| ambient.netrc.get(url.host_str()?))
        .cloned()
}

/// An index's name as it stands in the name of an environment variable.
fn variable_form(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str) -> Login {
        Login {
            username: user.into(),
            password: "secret".into(),
        }
    }

    fn user(logins: &IndexLogins, url: &str) -> Option<String> {
        let url = url::Url::parse(url).unwrap();
        logins.for_url(&url).map(|login| login.username.clone())
    }

    #[test]
    fn a_login_reaches_its_index_and_nothing_else() {
        let mut ambient = Ambient::default();
        ambient.netrc.insert("a.example".into(), login("netrc"));
        ambient
            .index_logins
            .insert("TEAM_ONE".into(), login("named"));
        ambient
            .index_logins
            .insert("https://c.example/x/simple/".into(), login("by-url"));
        let logins = IndexLogins::new(
            &ambient,
            [
                (None, "https://a.example/simple"),
                (Some("team-one"), "https://b.example:8443/private/simple/"),
                (None, "https://c.example/x/simple"),
                (None, "https://c.example/open/simple"),
                (None, "https://me:p%40ss@d.example/simple"),
            ],
        );
        let cases = [
            ("https://a.example/files/x.whl", Some("netrc")),
            ("http://a.example/simple/x/", None),
            ("https://a.example:444/simple/x/", None),
            ("https://b.example:8443/private/files/x.whl", Some("named")),
            ("https://b.example/private/simple/x/", None),
            ("https://c.example/x/simple/y/", Some("by-url")),
            ("https://c.example/open/simple/y/", None),
            ("https://d.example/simple/y/", Some("me")),
            ("https://evil.example/simple/x/", None),
        ];
        for (url, expected) in cases {
            assert_eq!(user(&logins, url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn debug_and_redact_show_no_secret() {
        let ambient = Ambient {
            python_index: Some("https://u:secret@a.example/simple".into()),
            ..Ambient::default()
        };
        let logins = IndexLogins::new(&ambient, [(None, "https://u:secret@a.example/simple")]);
        assert!(!format!("{ambient:?}{logins:?}").contains("secret"));
        assert_eq!(
            redact("https://u:secret@a.example/x?t=secret#s"),
            "https://a.example/x"
        );
        assert_eq!(redact("secret"), "<not a URL>");
    }
}
