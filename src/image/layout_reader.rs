//! Reads images out of an OCI image layout: `oci:DIR`, `oci:DIR:NAME`, `oci:DIR@sha256:…`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use futures_util::future::{BoxFuture, FutureExt};
use serde_json::Value;

use super::layout::{MARKER, REF_NAME};
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::oci::{DOCUMENT_LIMIT, Descriptor, ImageReader, ReadError};
use crate::progress::{Progress, Stage};
use crate::store::{Store, StoreError};

/// Where in a layout an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutReference {
    /// The layout's folder, as written.
    pub dir: PathBuf,
    /// `org.opencontainers.image.ref.name`.
    pub name: Option<String>,
    /// Of a manifest or index.
    pub digest: Option<Digest>,
}

impl LayoutReference {
    /// Parses `oci:DIR[:NAME][@sha256:…]`; `None` when the text does not begin with `oci:` or names no folder.
    ///
    /// # Errors
    /// When what follows `@` is not a digest.
    pub fn parse(text: &str) -> Result<Option<Self>, crate::digest::ParseDigestError> {
        let Some(rest) = text.strip_prefix("oci:").filter(|rest| !rest.is_empty()) else {
            return Ok(None);
        };
        let (rest, digest) = match rest.rsplit_once('@') {
            Some((rest, digest)) if !digest.contains('/') => (rest, Some(digest.parse()?)),
            _ => (rest, None),
        };
        let (dir, name) = match rest.rsplit_once(':') {
            Some((dir, name)) if !dir.is_empty() && !name.is_empty() && !name.contains('/') => {
                (dir, Some(name.to_owned()))
            }
            _ => (rest, None),
        };
        Ok(Some(Self {
            dir: dir.into(),
            name,
            digest,
        }))
    }
}

/// Why a layout cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum LayoutError {
    #[error("{} is not an OCI image layout: {reason}", path.display())]
    NotALayout { path: PathBuf, reason: String },
    #[error("the layout {} has no image named `{name}`; it has {found}", path.display())]
    NoName {
        path: PathBuf,
        name: String,
        found: String,
    },
    #[error("the layout {} has several images: {found}", path.display())]
    ManyNames { path: PathBuf, found: String },
    #[error("the layout {} lacks the blob {digest}", path.display())]
    NoBlob { path: PathBuf, digest: Digest },
    #[error("{} is larger than its {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("cannot read {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for LayoutError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotALayout { .. } | Self::ManyNames { .. } => Kind::Usage,
            Self::NoName { .. } | Self::NoBlob { .. } => Kind::NotFound,
            Self::TooLarge { .. } => Kind::Refused,
            Self::Io { .. } => Kind::Unavailable,
            Self::Store(error) => error.kind(),
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotALayout { .. } => {
                "name a folder with the files `oci-layout` and `index.json`, as `skopeo copy … oci:DIR:NAME` makes it".into()
            }
            Self::NoName { .. } | Self::ManyNames { .. } => "name one of these: `oci:DIR:NAME`".into(),
            Self::NoBlob { .. } | Self::TooLarge { .. } => "the layout is damaged: make it again".into(),
            Self::Store(StoreError::WrongDigest { .. }) => "the layout is damaged: make it again".into(),
            Self::Store(error) => return error.hint(),
            Self::Io { .. } => return None,
        })
    }
}

/// An OCI image layout on disk.
#[derive(Clone, Debug)]
pub struct LayoutReader {
    dir: PathBuf,
    name: Option<String>,
    digest: Option<Digest>,
}

impl LayoutReader {
    /// The layout that `reference` names; a relative folder is taken relative to `project`.
    pub fn new(project: &Path, reference: &LayoutReference) -> Self {
        Self {
            dir: project.join(&reference.dir),
            name: reference.name.clone(),
            digest: reference.digest,
        }
    }

    fn not_a_layout(&self, reason: impl Into<String>) -> LayoutError {
        LayoutError::NotALayout {
            path: self.dir.clone(),
            reason: reason.into(),
        }
    }

    fn read_top(&self) -> Result<Vec<u8>, LayoutError> {
        self.check_marker()?;
        if let Some(digest) = &self.digest {
            return self.read_document(digest);
        }
        let path = self.dir.join("index.json");
        let bytes = read_limited(&path).map_err(|error| match error {
            LayoutError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                self.not_a_layout("it has no index.json")
            }
            other => other,
        })?;
        let mut index: Value = serde_json::from_slice(&bytes)
            .map_err(|error| self.not_a_layout(format!("its index.json is not valid: {error}")))?;
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(self.not_a_layout("its index.json has no `manifests`"));
        };
        let names: BTreeSet<String> = manifests
            .iter()
            .filter_map(|known| {
                known["annotations"][REF_NAME]
                    .as_str()
                    .map(|name| format!("`{name}`"))
            })
            .collect();
        let found = names.into_iter().collect::<Vec<_>>();
        let Some(name) = &self.name else {
            return match found.len() {
                0 | 1 => Ok(bytes),
                _ => Err(LayoutError::ManyNames {
                    path: self.dir.clone(),
                    found: found.join(", "),
                }),
            };
        };
        manifests.retain(|known| known["annotations"][REF_NAME] == name.as_str());
        if manifests.is_empty() {
            return Err(LayoutError::NoName {
                path: self.dir.clone(),
                name: name.clone(),
                found: match found.is_empty() {
                    true => "no names".into(),
                    false => found.join(", "),
                },
            });
        }
        Ok(index.to_string().into_bytes())
    }

    fn check_marker(&self) -> Result<(), LayoutError> {
        if !self.dir.is_dir() {
            return Err(self.not_a_layout("there is no such folder"));
        }
        let bytes = read_limited(&self.dir.join(MARKER.0))
            .map_err(|_| self.not_a_layout("it has no readable `oci-layout`"))?;
        let version = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|marker| marker["imageLayoutVersion"].as_str().map(str::to_owned));
        match version {
            Some(version) if version.starts_with("1.") => Ok(()),
            Some(version) => Err(self.not_a_layout(format!("its version is `{version}`, not 1"))),
            None => Err(self.not_a_layout("its `oci-layout` tells no version")),
        }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    fn missing(&self, digest: &Digest) -> impl FnOnce(LayoutError) -> LayoutError {
        let (path, digest) = (self.dir.clone(), *digest);
        move |error| match error {
            LayoutError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                LayoutError::NoBlob { path, digest }
            }
            other => other,
        }
    }

    fn read_document(&self, digest: &Digest) -> Result<Vec<u8>, LayoutError> {
        read_limited(&self.blob_path(digest)).map_err(self.missing(digest))
    }

    fn copy_blob(
        &self,
        blob: &Descriptor,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<(), LayoutError> {
        let path = self.blob_path(&blob.digest);
        let mut file = open_regular(&path).map_err(self.missing(&blob.digest))?;
        let mut pending = store.pending()?;
        let id = progress.begin(Stage::Base, &blob.digest.short(), Some(blob.size));
        let copied = copy_limited(&mut file, &mut pending, blob.size, &path, &|n| {
            progress.advance(id, n)
        });
        progress.end(id);
        copied?;
        let what = format!("the blob {}", path.display());
        pending.commit_verified(&store.blob_path(&blob.digest), &blob.digest, &what)?;
        Ok(())
    }
}

fn copy_limited(
    file: &mut File,
    pending: &mut crate::store::Pending,
    size: u64,
    path: &Path,
    advance: &dyn Fn(u64),
) -> Result<(), LayoutError> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let n = file.read(&mut buffer).map_err(|source| LayoutError::Io {
            path: path.into(),
            source,
        })?;
        if n == 0 {
            return Ok(());
        }
        total += n as u64;
        if total > size {
            return Err(LayoutError::TooLarge {
                path: path.into(),
                limit: size,
            });
        }
        pending.append(&buffer[..n])?;
        advance(n as u64);
    }
}

/// Opens a regular file; a pipe or device in a layout would block for ever.
fn open_regular(path: &Path) -> Result<File, LayoutError> {
    let fail = |source| LayoutError::Io {
        path: path.into(),
        source,
    };
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(fail(io::Error::other("it is not a regular file")));
    }
    File::open(path).map_err(fail)
}

fn read_limited(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(DOCUMENT_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| LayoutError::Io {
            path: path.into(),
            source,
        })?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(LayoutError::TooLarge {
            path: path.into(),
            limit: DOCUMENT_LIMIT,
        });
    }
    Ok(bytes)
}

impl ImageReader for LayoutReader {
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, ReadError>> {
        async { self.read_top().map_err(ReadError::new) }.boxed()
    }

    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<u8>, ReadError>> {
        async {
            self.check_marker().map_err(ReadError::new)?;
            self.read_document(digest).map_err(ReadError::new)
        }
        .boxed()
    }

    fn blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<(), ReadError>> {
        async move {
            self.copy_blob(blob, store, progress)
                .map_err(ReadError::new)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_into_folder_name_and_digest() {
        let parse = |text| LayoutReference::parse(text).unwrap().unwrap();
        assert_eq!(parse("oci:base").name, None);
        let named = parse("oci:../a/base:v1.2");
        assert_eq!(
            (named.dir.to_str(), named.name.as_deref()),
            (Some("../a/base"), Some("v1.2"))
        );
        assert_eq!(parse("oci:a:b/c").dir, Path::new("a:b/c"));
        let pinned = parse(&format!("oci:d:n@{}", Digest::of("x")));
        assert_eq!(
            (pinned.digest, pinned.name.as_deref()),
            (Some(Digest::of("x")), Some("n"))
        );
        assert!(LayoutReference::parse("oci:d@sha256:12").is_err());
        assert_eq!(LayoutReference::parse("registry/oci:x").unwrap(), None);
        assert_eq!(LayoutReference::parse("oci:").unwrap(), None);
    }

    #[test]
    fn of_several_images_one_has_to_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        let manifests = |names: &[&str]| -> Vec<Value> {
            let named = |name: &&str| serde_json::json!({"annotations": {REF_NAME: name}});
            names.iter().map(named).collect()
        };
        let top = |names: &[&str], reference: &str| {
            let index = serde_json::json!({"manifests": manifests(names)});
            write("index.json", &index.to_string());
            let reference = LayoutReference::parse(reference).unwrap().unwrap();
            let bytes = LayoutReader::new(folder.path(), &reference).read_top()?;
            let read: Value = serde_json::from_slice(&bytes).unwrap();
            Ok::<_, LayoutError>(read["manifests"].as_array().cloned().unwrap())
        };
        let error = top(&["b", "a"], "oci:.").unwrap_err();
        assert!(
            error.to_string().ends_with("has several images: `a`, `b`"),
            "{error}"
        );
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.hint().unwrap().contains("oci:DIR:NAME"));
        assert_eq!(top(&["b", "a"], "oci:.:a").unwrap(), manifests(&["a"]));
        let error = top(&["b", "a"], "oci:.:c").unwrap_err();
        assert!(
            error.to_string().contains("`c`; it has `a`, `b`"),
            "{error}"
        );
        // The platforms of one image may be listed one by one.
        assert_eq!(top(&["a", "a"], "oci:.").unwrap().len(), 2);
        assert_eq!(top(&[], "oci:.").unwrap().len(), 0);
    }
}
