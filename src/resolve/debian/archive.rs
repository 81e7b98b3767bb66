//! Fetches an archive's index: InRelease, its signature verified, then the `Packages` files by hash.
//!
//! Index files are kept in the store as artifacts, and the last InRelease of each suite in its cache, so that
//! `--offline` works. The time is a parameter: nothing here reads a clock.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::openpgp::{Keyring, SignatureError};
use super::packages::Universe;
use super::release::Release;
use crate::ambient::{Ambient, Login, redact};
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::http::{Http, HttpError};
use crate::progress::{Progress, Stage};
use crate::store::{Store, StoreError};

/// Which archive, and what of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveSpec {
    /// For example `bookworm`.
    pub suite: String,
    /// The archive's URL, where the manifest declares one.
    pub mirror: Option<String>,
    /// For example `main`.
    pub components: Vec<String>,
    /// The keyring file that the manifest declares.
    pub keyring: Option<PathBuf>,
    /// Also `<suite>-updates` and `<suite>-security`.
    pub updates: bool,
}

impl ArchiveSpec {
    /// The suites that count, the main one first.
    pub fn suites(&self) -> Vec<String> {
        let mut suites = vec![self.suite.clone()];
        if self.updates {
            suites.extend(["updates", "security"].map(|name| format!("{}-{name}", self.suite)));
        }
        suites
    }
}

/// What fetching needs of the outside world.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// The network.
    pub http: &'a Http,
    /// Mirrors, credentials, keyrings.
    pub ambient: &'a Ambient,
    /// Where index files are kept.
    pub store: &'a Store,
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// The time at which signatures must be valid, in seconds since 1970.
    pub now: i64,
}

/// Why an archive's index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Nobody says where the suite is.
    #[error("nothing says where the Debian suite {suite} can be fetched from")]
    NoMirror {
        /// The suite.
        suite: String,
    },
    /// No keyring.
    #[error("there is no keyring to verify the Debian archive with")]
    NoKeyring,
    /// A keyring that cannot be used.
    #[error("the keyring {} cannot be used: {reason}", path.display())]
    BadKeyring {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The InRelease file is not acceptable.
    #[error("{url} is refused: {source}")]
    Signature {
        /// Redacted.
        url: String,
        /// Why.
        #[source]
        source: SignatureError,
    },
    /// The Release file is signed, but not what was asked for.
    #[error("{url} is refused: {reason}")]
    Release {
        /// Redacted.
        url: String,
        /// Why.
        reason: String,
    },
    /// The archive does not have it.
    #[error("the suite {suite} has no {what}; it has {found}")]
    Missing {
        /// The suite.
        suite: String,
        /// For example `component contrib`.
        what: String,
        /// What there is.
        found: String,
    },
    /// A `Packages` file with a hash that does not fit, on every mirror.
    #[error("{url} is refused: expected {expected} ({size} bytes), got {found} ({received} bytes)")]
    WrongHash {
        /// Redacted.
        url: String,
        /// As the Release file says.
        expected: Digest,
        /// As the Release file says, in bytes.
        size: u64,
        /// As it came.
        found: Digest,
        /// Bytes received; receiving stops one above the size.
        received: u64,
    },
    /// A `Packages` file that cannot be read.
    #[error("{path} of {suite} cannot be read: {reason}")]
    Unreadable {
        /// Path in the suite.
        path: String,
        /// The suite.
        suite: String,
        /// Why.
        reason: String,
    },
    /// The suite's index was never fetched, and the network is switched off.
    #[error(
        "the index of the Debian suite {suite} is not in the store, and the network is switched off"
    )]
    Offline {
        /// The suite.
        suite: String,
    },
    /// The network.
    #[error("the Debian suite {suite} cannot be fetched: {source}")]
    Http {
        /// The suite.
        suite: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for ArchiveError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoMirror { .. } | Self::NoKeyring | Self::BadKeyring { .. } => Kind::Usage,
            Self::Missing { .. } => Kind::NoResolution,
            Self::Signature { .. } | Self::Release { .. } | Self::WrongHash { .. } => Kind::Refused,
            Self::Unreadable { .. } => Kind::Refused,
            Self::Offline { .. } => Kind::Unavailable,
            Self::Http { source, .. } => source.kind(),
            Self::Store(source) => source.kind(),
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoMirror { suite } => match suite.rsplit_once('-') {
                Some((main, "updates" | "security")) => format!(
                    "add `{suite}` to the machine's apt sources, set IMAGEWRIGHT_DEBIAN_MIRROR, declare the archive with `debian \"{main}\" mirror=\"…\"`, or do without with `updates=#false`"
                ),
                _ => format!(
                    "declare it with `debian \"{suite}\" mirror=\"…\"`, or set IMAGEWRIGHT_DEBIAN_MIRROR, or add the suite to the machine's apt sources"
                ),
            },
            Self::NoKeyring => "install the package debian-archive-keyring (or copy its /usr/share/keyrings/debian-archive-keyring.gpg from a Debian machine), or declare a file of the project with `debian … keyring=\"…\"`".into(),
            Self::BadKeyring { .. } => "it must hold the archive's public keys, as `gpg --export` writes them".into(),
            Self::Signature { source: SignatureError::UnknownKey { .. }, .. } => {
                "is the keyring older than the suite? Update debian-archive-keyring, or declare the archive's key with `keyring=`".into()
            }
            Self::Signature { .. } => "do not use this mirror; try another one".into(),
            Self::Release { .. } => "the mirror is stale or serves something else: try another one".into(),
            Self::WrongHash { .. } => "the mirror may be in the middle of an update: try again in a few minutes, or use another one".into(),
            Self::Offline { .. } => "run `imagewright lock` once without --offline: what is fetched stays in the store".into(),
            Self::Http { suite, source } if source.kind() == Kind::NotFound => match suite.rsplit_once('-') {
                Some((_, "updates" | "security")) => format!("if this archive has no {suite}, write `updates=#false`"),
                _ => "is the suite's name right, and does the mirror still carry it?".into(),
            },
            Self::Http { source, .. } => return source.hint(),
            Self::Store(source) => return source.hint(),
            Self::Missing { .. } | Self::Unreadable { .. } => return None,
        })
    }
}

/// The URLs at which `suite` may be found, without trailing slash, best first.
///
/// A declared mirror is the only archive; it may keep security updates in a sibling (`…/debian-security`), as
/// Debian's own do. Otherwise the machine's settings name mirrors per suite.
pub fn mirrors(suite: &str, declared: Option<&str>, ambient: &Ambient) -> Vec<String> {
    let trim = |url: &str| url.trim_end_matches('/').to_owned();
    let with_sibling = |url: &str| {
        let url = trim(url);
        if suite.ends_with("-security") && !url.ends_with("-security") {
            vec![format!("{url}-security"), url]
        } else {
            vec![url]
        }
    };
    if let Some(declared) = declared {
        return with_sibling(declared);
    }
    if let Some(urls) = ambient.debian_mirrors.get("*") {
        return urls.iter().flat_map(|url| with_sibling(url)).collect();
    }
    if let Some(urls) = ambient.debian_mirrors.get(suite) {
        return urls.iter().map(|url| trim(url)).collect();
    }
    let main = suite.rsplit_once('-').map_or(suite, |(main, _)| main);
    let urls = ambient.debian_mirrors.get(main).into_iter().flatten();
    urls.flat_map(|url| with_sibling(url)).collect()
}

/// The login that netrc has for the URL's host.
pub fn login<'a>(url: &str, ambient: &'a Ambient) -> Option<&'a Login> {
    let host = url::Url::parse(url).ok()?.host_str()?.to_owned();
    ambient.netrc.get(&host)
}

/// Reads everything that the archive offers for one architecture.
pub async fn load(
    outside: Outside<'_>,
    spec: &ArchiveSpec,
    architecture: &str,
) -> Result<Universe, ArchiveError> {
    let keyrings = keyrings(spec, outside.ambient)?;
    let id = outside
        .progress
        .begin(Stage::Resolve, &format!("Debian {}", spec.suite), None);
    let mut universe = Universe::new(architecture);
    let mut result = Ok(());
    for suite in spec.suites() {
        result = add_suite(outside, spec, &keyrings, &suite, &mut universe).await;
        if result.is_err() {
            break;
        }
    }
    outside.progress.end(id);
    result.map(|()| universe)
}

fn keyrings(spec: &ArchiveSpec, ambient: &Ambient) -> Result<Vec<Keyring>, ArchiveError> {
    let read = |path: &Path| {
        let bad = |reason: String| ArchiveError::BadKeyring {
            path: path.into(),
            reason,
        };
        let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        Keyring::parse(path, &bytes).map_err(bad)
    };
    if let Some(path) = &spec.keyring {
        return Ok(vec![read(path)?]);
    }
    let found: Vec<_> = ambient
        .debian_keyrings
        .iter()
        .filter(|path| path.is_file())
        .map(|path| read(path))
        .collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(ArchiveError::NoKeyring);
    }
    Ok(found)
}

/// Tries each mirror; a mirror in the middle of an update gets a second chance with a fresh InRelease.
async fn add_suite(
    outside: Outside<'_>,
    spec: &ArchiveSpec,
    keyrings: &[Keyring],
    suite: &str,
    universe: &mut Universe,
) -> Result<(), ArchiveError> {
    let mirrors = mirrors(suite, spec.mirror.as_deref(), outside.ambient);
    let mut failure = None;
    if mirrors.is_empty() && !outside.http.is_offline() {
        return Err(ArchiveError::NoMirror {
            suite: suite.into(),
        });
    }
    let attempts: Vec<&str> = match outside.http.is_offline() {
        true => vec![""],
        false => mirrors.iter().flat_map(|url| [url.as_str(); 2]).collect(),
    };
    let mut last = "";
    for mirror in attempts {
        let again = mirror == last && !mirror.is_empty();
        if again && !matches!(failure, Some(ArchiveError::WrongHash { .. })) {
            continue;
        }
        last = mirror;
        let job = SuiteJob {
            outside,
            spec,
            suite,
            mirror,
        };
        match job.fetch(keyrings, &universe.architecture).await {
            Ok((release, texts)) => {
                let index = universe.add_suite(suite);
                universe.epoch = universe.epoch.max(release.date);
                for (path, text) in texts {
                    universe
                        .add_stanzas(&text, index)
                        .map_err(|error| job.unreadable(&path, error.to_string()))?;
                }
                return Ok(());
            }
            Err(error) => failure = worse(failure, error),
        }
    }
    Err(failure.unwrap_or(ArchiveError::NoMirror {
        suite: suite.into(),
    }))
}

/// Of two failures, the one that tells more: a refusal rather than an absence.
fn worse(first: Option<ArchiveError>, second: ArchiveError) -> Option<ArchiveError> {
    match first {
        Some(first) if second.kind() == Kind::NotFound => Some(first),
        _ => Some(second),
    }
}

struct SuiteJob<'a> {
    outside: Outside<'a>,
    spec: &'a ArchiveSpec,
    suite: &'a str,
    mirror: &'a str,
}

impl SuiteJob<'_> {
    fn http_error(&self, source: HttpError) -> ArchiveError {
        ArchiveError::Http {
            suite: self.suite.into(),
            source,
        }
    }

    fn unreadable(&self, path: &str, reason: String) -> ArchiveError {
        ArchiveError::Unreadable {
            path: path.into(),
            suite: self.suite.into(),
            reason,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/dists/{}/{path}", self.mirror, self.suite)
    }

    fn cached_release(&self) -> PathBuf {
        let mirror = self.spec.mirror.as_deref().unwrap_or("");
        let key = Digest::of(format!("{mirror}\n{}", self.suite));
        let folder = self.outside.store.cache_path("debian");
        folder.join(format!("{}.inrelease", key.hex()))
    }

    async fn fetch(
        &self,
        keyrings: &[Keyring],
        architecture: &str,
    ) -> Result<(Release, BTreeMap<String, String>), ArchiveError> {
        let release = self.release(keyrings).await?;
        let known = |names: &[String]| names.join(", ");
        if !release
            .architectures
            .iter()
            .any(|name| name == architecture)
        {
            return Err(ArchiveError::Missing {
                suite: self.suite.into(),
                what: format!("architecture {architecture}"),
                found: known(&release.architectures),
            });
        }
        let mut texts = BTreeMap::new();
        for component in &self.spec.components {
            let mut architectures = vec![architecture];
            if release.separate_all {
                architectures.push("all");
            }
            for architecture in architectures {
                let Some(file) = release.packages_file(component, architecture) else {
                    if architecture == "all" {
                        continue;
                    }
                    return Err(ArchiveError::Missing {
                        suite: self.suite.into(),
                        what: format!("component {component} for {architecture}"),
                        found: format!("the components {}", known(&release.components)),
                    });
                };
                let text = self.packages(&release, &file).await?;
                texts.insert(file.0, text);
            }
        }
        Ok((release, texts))
    }

    async fn release(&self, keyrings: &[Keyring]) -> Result<Release, ArchiveError> {
        let cached = self.cached_release();
        let offline = self.outside.http.is_offline();
        let (url, text) = if offline {
            let text = std::fs::read_to_string(&cached).map_err(|_| ArchiveError::Offline {
                suite: self.suite.into(),
            })?;
            (format!("{} (kept in the store)", self.suite), text)
        } else {
            let url = self.url("InRelease");
            let bytes = self.get(&url, MAX_RELEASE).await?;
            let text = String::from_utf8(bytes).map_err(|_| ArchiveError::Signature {
                url: redact(&url),
                source: SignatureError::Unsigned,
            })?;
            (redact(&url), text)
        };
        let signed = verified(keyrings, &text, self.outside.now).map_err(|source| {
            let url = url.clone();
            ArchiveError::Signature { url, source }
        })?;
        let refuse = |reason| ArchiveError::Release {
            url: url.clone(),
            reason,
        };
        let release = Release::parse(&signed).map_err(refuse)?;
        let now = (!offline).then_some(self.outside.now);
        if let Some(reason) = release.objection(self.suite, now) {
            return Err(refuse(reason));
        }
        if !offline {
            self.keep_release(&cached, &text)?;
        }
        Ok(release)
    }

    fn keep_release(&self, cached: &Path, text: &str) -> Result<(), ArchiveError> {
        if let Some(folder) = cached.parent() {
            std::fs::create_dir_all(folder).map_err(StoreError::io("create the folder", folder))?;
        }
        let mut pending = self.outside.store.pending()?;
        pending.append(text.as_bytes())?;
        pending.commit(cached)?;
        Ok(())
    }

    /// A `Packages` file's text, from the store or the mirror.
    async fn packages(
        &self,
        release: &Release,
        (path, digest, size, unpacked): &(String, Digest, u64, u64),
    ) -> Result<String, ArchiveError> {
        let store = self.outside.store;
        let kept = store
            .artifact(digest)
            .and_then(|kept| std::fs::read(kept).ok());
        let bytes = match kept.filter(|bytes| Digest::of(bytes) == *digest) {
            Some(bytes) => bytes,
            None if self.outside.http.is_offline() => {
                return Err(ArchiveError::Offline {
                    suite: self.suite.into(),
                });
            }
            None => {
                let by_hash = path
                    .rsplit_once('/')
                    .filter(|_| release.by_hash)
                    .map(|(folder, _)| format!("{folder}/by-hash/SHA256/{}", digest.hex()));
                let url = self.url(by_hash.as_deref().unwrap_or(path));
                let bytes = self.get(&url, *size).await?;
                let found = Digest::of(&bytes);
                if found != *digest {
                    return Err(ArchiveError::WrongHash {
                        url: redact(&url),
                        expected: *digest,
                        size: *size,
                        found,
                        received: bytes.len() as u64,
                    });
                }
                let mut pending = store.pending()?;
                pending.append(&bytes)?;
                pending.commit_verified(&store.artifact_path(digest), digest, path)?;
                bytes
            }
        };
        unpack(path, &bytes, *unpacked).map_err(|reason| self.unreadable(path, reason))
    }

    /// At most `limit` + 1 bytes of the file.
    async fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let login = login(url, self.outside.ambient);
        let response = self.outside.http.get(url, login).await;
        let mut response = response.map_err(|error| self.http_error(error))?;
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await;
            match chunk.map_err(|error| self.http_error(HttpError::from_reqwest(url, error)))? {
                Some(chunk) if bytes.len() as u64 <= limit => bytes.extend_from_slice(&chunk),
                _ => break,
            }
        }
        bytes.truncate(
            usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .saturating_add(1),
        );
        Ok(bytes)
    }
}

/// More than any real InRelease file; in bytes.
const MAX_RELEASE: u64 = 16 << 20;

fn verified(keyrings: &[Keyring], text: &str, now: i64) -> Result<String, SignatureError> {
    let mut failure = SignatureError::Unsigned;
    for keyring in keyrings {
        match keyring.verify(text, now) {
            Ok(text) => return Ok(text),
            Err(error)
                if matches!(
                    failure,
                    SignatureError::Unsigned | SignatureError::UnknownKey { .. }
                ) =>
            {
                failure = error;
            }
            Err(_) => {}
        }
    }
    Err(failure)
}

fn unpack(path: &str, bytes: &[u8], limit: u64) -> Result<String, String> {
    let mut text = String::new();
    let read = if path.ends_with(".xz") {
        let decoder = liblzma::read::XzDecoder::new_multi_decoder(bytes);
        decoder.take(limit + 1).read_to_string(&mut text)
    } else if path.ends_with(".gz") {
        let decoder = flate2::read::MultiGzDecoder::new(bytes);
        decoder.take(limit + 1).read_to_string(&mut text)
    } else {
        bytes.take(limit + 1).read_to_string(&mut text)
    };
    let size = read.map_err(|error| error.to_string())?;
    if size as u64 > limit {
        return Err(format!(
            "it unpacks to more than the {limit} bytes that the Release file tells"
        ));
    }
    Ok(text)
}
