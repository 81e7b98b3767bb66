//! Image references: `host[:port]/repository[:tag][@digest]`, by the grammar of the distribution project
//! (`reference/reference.go`). The host is never guessed.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;

/// Longest name (host and repository) in bytes.
const NAME_LIMIT: usize = 255;

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Host name or address, with port where given.
    pub host: String,
    /// Path of the repository, without leading `/`.
    pub repository: String,
    /// Tag, if given.
    pub tag: Option<String>,
    /// Digest of a manifest or index, if given.
    pub digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum ReferenceError {
    #[error("the image reference is empty")]
    Empty,
    #[error("`{0}` does not name the registry's host")]
    NoHost(String),
    #[error("`{0}` is a URL; an image reference has no scheme")]
    Url(String),
    /// What stands there is not repeated: it may be a password.
    #[error("what stands behind the `@` of the image reference is not a digest")]
    UserInfo,
    #[error("`{part}` in `{text}` is not a host name")]
    Host { text: String, part: String },
    #[error("`{part}` in `{text}` is not a repository name")]
    Repository { text: String, part: String },
    #[error("`{part}` in `{text}` is not a tag")]
    Tag { text: String, part: String },
    #[error("`{part}` in `{text}` is not a SHA-256 digest")]
    Digest { text: String, part: String },
}

impl Explain for ReferenceError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Empty | Self::NoHost(_) => {
                "write the host, for example `registry.example.com/library/python:3.12-slim`".into()
            }
            Self::Url(_) => "leave out `https://`".into(),
            Self::UserInfo => {
                "a digest is `sha256:` and 64 hex digits; a user name and password belong into `docker login` or `podman login`".into()
            }
            Self::Host { .. } => "a host is `name.example.com`, `name:5000` or `localhost`".into(),
            Self::Repository { .. } => {
                "a repository is of lower-case letters and digits, separated by `/`, `.`, `-`, `_` or `__`".into()
            }
            Self::Tag { .. } => {
                "a tag is of at most 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two".into()
            }
            Self::Digest { .. } => "write `@sha256:` and 64 lower-case hex digits".into(),
        })
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let shown: String = text.chars().take(200).collect();
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.contains("://") {
            return Err(ReferenceError::Url(crate::ambient::redact(text)));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((before, behind)) if !before.contains('/') || !looks_like_digest(behind) => {
                return Err(ReferenceError::UserInfo);
            }
            Some((rest, digest)) => (rest, Some(parse_digest(&shown, digest)?)),
            None => (text, None),
        };
        let Some((host, rest)) = rest
            .split_once('/')
            .filter(|(host, _)| looks_like_host(host))
        else {
            return Err(ReferenceError::NoHost(shown));
        };
        if !is_host(host) {
            return Err(ReferenceError::Host {
                text: shown,
                part: host.into(),
            });
        }
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (rest, None),
        };
        if !is_repository(repository) || host.len() + repository.len() >= NAME_LIMIT {
            return Err(ReferenceError::Repository {
                text: shown,
                part: repository.into(),
            });
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag {
                text: shown,
                part: tag.into(),
            });
        }
        Ok(Self {
            host: host.into(),
            repository: repository.into(),
            tag: tag.map(Into::into),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl Reference {
    /// What a request for the manifest names: the digest, else the tag, else `latest`.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// The URL below which the distribution API lies. Plain HTTP only to this machine itself.
    pub fn endpoint(&self) -> String {
        let scheme = if is_loopback(&self.host) {
            "http"
        } else {
            "https"
        };
        format!("{scheme}://{}/v2/{}", self.host, self.repository)
    }
}

fn parse_digest(text: &str, part: &str) -> Result<Digest, ReferenceError> {
    part.parse().map_err(|_| ReferenceError::Digest {
        text: text.into(),
        part: part.chars().take(100).collect(),
    })
}

/// Not the rest of a reference with a user name and password before its host.
fn looks_like_digest(part: &str) -> bool {
    let (algorithm, hex) = part.split_once(':').unwrap_or_default();
    let known = algorithm.starts_with("sha") || algorithm.starts_with("md");
    part.is_empty() || known && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn looks_like_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

/// Splits `host[:port]`, `[v6]:port`; the brackets stay.
pub(super) fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.starts_with('[') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let port_fine = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let v6 = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    port_fine
        && match v6 {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => name.split('.').all(label),
        }
}

/// Whether `host` (perhaps with port) is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let (name, _) = split_port(host);
    let v6 = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
        || v6
            .parse::<Ipv6Addr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_repository(repository: &str) -> bool {
    repository.split('/').all(is_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    if !ends.iter().all(|end| end.is_some_and(alphanumeric)) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
pub(super) fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_back_as_written() {
        let digest = Digest::of("x");
        for text in [
            "registry.example.com/python",
            "registry.example.com/library/python:3.12-slim",
            "localhost:5000/a/b_c/d__e/f-g/h.i:v1",
            "localhost/a",
            "127.0.0.1:5000/a:_x",
            "[::1]:5000/a",
            &format!("a.b/c:tag@{digest}"),
            &format!("a.b/c@{digest}"),
        ] {
            let parsed: Reference = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.to_string(), text);
        }
        let parsed: Reference = format!("a.b:443/c:t@{digest}").parse().unwrap();
        assert_eq!(
            (parsed.host.as_str(), parsed.target()),
            ("a.b:443", digest.to_string())
        );
    }

    #[test]
    fn bad_references_are_refused_by_name() {
        let refused = |text: &str| text.parse::<Reference>().unwrap_err();
        assert_eq!(refused(""), ReferenceError::Empty);
        for short in ["python:3.12-slim", "library/python", "python"] {
            assert!(
                matches!(refused(short), ReferenceError::NoHost(_)),
                "{short}"
            );
        }
        assert!(
            matches!(refused("https://u:secret@a.b/c"), ReferenceError::Url(text) if !text.contains("secret"))
        );
        for bad in [
            "a.b:0/c",
            "a.b:99999/c",
            "-a.b/c",
            "a..b/c",
            "a.b:x/c",
            "ä.b/c",
            "[::g]/c",
        ] {
            assert!(matches!(refused(bad), ReferenceError::Host { .. }), "{bad}");
        }
        for bad in [
            "a.b/",
            "a.b/C",
            "a.b/c//d",
            "a.b/c/",
            "a.b/c..d",
            "a.b/-c",
            "a.b/c___d",
            "a.b/../c",
        ] {
            assert!(
                matches!(refused(bad), ReferenceError::Repository { .. }),
                "{bad}"
            );
        }
        for bad in ["a.b/c:", "a.b/c:-x", "a.b/c:ü"] {
            assert!(matches!(refused(bad), ReferenceError::Tag { .. }), "{bad}");
        }
        for secret in [
            "me:secret@a.b/c",
            "me:secret@a.b:5000/c:tag",
            "me:sec/secret@a.b/c",
            "me@a.b/secret",
            "me:secret@",
        ] {
            let error = refused(secret);
            assert_eq!(error, ReferenceError::UserInfo, "{secret}");
            let told = format!("{error} {error:?} {:?}", error.hint());
            assert!(!told.contains("secret"), "{told}");
        }
        for bad in ["a.b/c@sha256:12", "a.b/c@md5:00", "a.b/c@"] {
            assert!(
                matches!(refused(bad), ReferenceError::Digest { .. }),
                "{bad}"
            );
        }
        assert!(
            refused(&format!("a.b/{}", "x".repeat(300)))
                .to_string()
                .len()
                < 700
        );
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for (host, scheme) in [
            ("localhost:5000", "http:"),
            ("127.9.9.9", "http:"),
            ("[::1]:80", "http:"),
            ("localhost.example.com", "https:"),
            ("10.0.0.1:5000", "https:"),
        ] {
            let reference: Reference = format!("{host}/a").parse().unwrap();
            assert!(reference.endpoint().starts_with(scheme), "{host}");
        }
    }
}
