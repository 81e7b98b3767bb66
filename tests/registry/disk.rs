//! What lies on a registry's own disk, whatever the registry says of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use imagewright::digest::Digest;
use serde_json::Value;

/// How a registry keeps what it has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// docker-registry's file system driver.
    Distribution,
    /// One OCI image layout for each repository.
    Layouts,
}

/// The folder of a registry's storage.
pub struct Disk {
    pub form: Form,
    pub root: PathBuf,
}

impl Disk {
    /// Where the bytes of a blob are, in whatever repository; the path that it would have if there is none.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        match self.form {
            Form::Distribution => self.shared(digest),
            Form::Layouts => {
                let repositories = self.repositories();
                let paths = repositories.iter().map(|name| self.blob_of(name, digest));
                let mut there = paths.filter(|path| path.is_file());
                there.next().unwrap_or_else(|| self.blob_of("none", digest))
            }
        }
    }

    fn shared(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let below = format!("blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.root.join(below)
    }

    fn blob_of(&self, repository: &str, digest: &Digest) -> PathBuf {
        match self.form {
            Form::Distribution => self.shared(digest),
            Form::Layouts => {
                let below = format!("{repository}/blobs/sha256/{}", digest.hex());
                self.root.join(below)
            }
        }
    }

    fn repository(&self, name: &str) -> PathBuf {
        match self.form {
            Form::Distribution => self.root.join("repositories").join(name),
            Form::Layouts => self.root.join(name),
        }
    }

    /// All repositories with a manifest, sorted.
    pub fn repositories(&self) -> Vec<String> {
        let (root, mark) = match self.form {
            Form::Distribution => (self.root.join("repositories"), "_manifests"),
            Form::Layouts => (self.root.clone(), "index.json"),
        };
        let mut found = Vec::new();
        let mut walk = walkdir::WalkDir::new(&root).into_iter();
        while let Some(entry) = walk.next() {
            let Ok(entry) = entry else { continue };
            let name = entry.file_name().to_string_lossy();
            if name == mark {
                let parent = entry.path().parent().unwrap();
                let name = parent.strip_prefix(&root).unwrap();
                found.push(name.to_str().unwrap().to_owned());
            }
            let within = name.starts_with('_') || name == "blobs";
            if entry.file_type().is_dir() && within {
                walk.skip_current_dir();
            }
        }
        found.sort();
        found
    }

    /// All tags of a repository with the digests that they name.
    pub fn tags(&self, repository: &str) -> Vec<(String, Digest)> {
        let mut tags: Vec<_> = match self.form {
            Form::Distribution => {
                let folder = self.repository(repository).join("_manifests/tags");
                let names = names(&folder).into_iter();
                let tags = names.map(|tag| {
                    let digest = link(&folder.join(&tag).join("current/link"));
                    (tag, digest)
                });
                tags.collect()
            }
            Form::Layouts => self.entries(repository),
        };
        tags.sort();
        tags
    }

    /// The entries of a layout's index that have a tag.
    fn entries(&self, repository: &str) -> Vec<(String, Digest)> {
        let path = self.repository(repository).join("index.json");
        let Ok(bytes) = fs::read(path) else {
            return Vec::new();
        };
        let index: Value = serde_json::from_slice(&bytes).unwrap();
        let tagged = list(&index, "manifests").filter_map(|entry| {
            let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str()?;
            Some((tag.to_owned(), digest_of(entry).unwrap()))
        });
        tagged.collect()
    }

    /// Every manifest of a repository.
    fn manifests(&self, repository: &str) -> Vec<Digest> {
        match self.form {
            Form::Distribution => {
                let revisions = self.repository(repository);
                let revisions = names(&revisions.join("_manifests/revisions/sha256"));
                let digests = revisions.iter().map(|hex| Digest::from_hex(hex).unwrap());
                digests.collect()
            }
            Form::Layouts => {
                let tags = self.entries(repository).into_iter();
                tags.map(|(_, digest)| digest).collect()
            }
        }
    }

    /// Every tag of a repository names a manifest that is there with everything that it names, all with their digests
    /// and sizes.
    pub fn whole(&self, repository: &str) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for (tag, digest) in self.tags(repository) {
            self.whole_manifest(repository, &digest, &mut seen)
                .map_err(|problem| format!("{repository}:{tag}: {problem}"))?;
        }
        Ok(())
    }

    fn whole_manifest(
        &self,
        repository: &str,
        digest: &Digest,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<(), String> {
        if !seen.insert(*digest) {
            return Ok(());
        }
        let revision = format!("_manifests/revisions/sha256/{}/link", digest.hex());
        self.linked(repository, &revision, digest)?;
        let manifest = self.whole_blob(repository, digest)?;
        let manifest: Value = serde_json::from_slice(&manifest)
            .map_err(|error| format!("the manifest {digest}: {error}"))?;
        for part in list(&manifest, "manifests") {
            self.whole_manifest(repository, &digest_of(part)?, seen)?;
        }
        let config = manifest.get("config").into_iter();
        for blob in config.chain(list(&manifest, "layers")) {
            self.whole_part(repository, blob, seen)?;
        }
        Ok(())
    }

    fn whole_part(
        &self,
        repository: &str,
        blob: &Value,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<(), String> {
        let digest = digest_of(blob)?;
        if !seen.insert(digest) {
            return Ok(());
        }
        let layer = format!("_layers/sha256/{}/link", digest.hex());
        self.linked(repository, &layer, &digest)?;
        let bytes = self.whole_blob(repository, &digest)?;
        match blob["size"].as_u64() == Some(bytes.len() as u64) {
            true => Ok(()),
            false => Err(format!("the blob {digest} has {} bytes", bytes.len())),
        }
    }

    /// Where blobs are shared, a link says that one belongs to the repository.
    fn linked(&self, repository: &str, link: &str, digest: &Digest) -> Result<(), String> {
        let shared = self.form == Form::Distribution;
        match shared && !self.repository(repository).join(link).is_file() {
            true => Err(format!("{digest} is not in the repository")),
            false => Ok(()),
        }
    }

    fn whole_blob(&self, repository: &str, digest: &Digest) -> Result<Vec<u8>, String> {
        let path = self.blob_of(repository, digest);
        let bytes = fs::read(path).map_err(|error| format!("{digest}: {error}"))?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(format!("{digest} holds something else")),
        }
    }

    /// Every blob that a manifest of this registry names as a file system layer.
    pub fn layers(&self) -> BTreeSet<Digest> {
        let mut found = BTreeSet::new();
        for repository in self.repositories() {
            for digest in self.manifests(&repository) {
                let Ok(bytes) = fs::read(self.blob_of(&repository, &digest)) else {
                    continue;
                };
                let manifest: Value = serde_json::from_slice(&bytes).unwrap();
                let layers = list(&manifest, "layers");
                let tars = layers.filter(|layer| {
                    let kind = layer["mediaType"].as_str().unwrap_or_default();
                    kind.contains(".tar")
                });
                found.extend(tars.map(|layer| digest_of(layer).unwrap()));
            }
        }
        found
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// A link file's digest. A request that is still going on may have opened it without having written it.
fn link(path: &Path) -> Digest {
    let limit = Instant::now() + Duration::from_secs(5);
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if let Ok(digest) = text.parse() {
            return digest;
        }
        assert!(Instant::now() < limit, "{} holds {text:?}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn list<'a>(document: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    document[name].as_array().into_iter().flatten()
}

fn digest_of(descriptor: &Value) -> Result<Digest, String> {
    let digest = descriptor["digest"].as_str();
    digest
        .and_then(|digest| digest.parse().ok())
        .ok_or_else(|| format!("no digest in {descriptor}"))
}
