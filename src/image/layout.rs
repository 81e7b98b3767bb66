//! Writes images into an OCI image layout (OCI image specification, image-layout.md), beside those that are there.
//!
//! Every file is written under a temporary name and renamed, `index.json` last: a reader sees the image whole or not.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use oci_spec::image as oci;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::{Image, ImageError, LayerSource, Meter, config::descriptor, copy_layer};
use crate::digest::Digest;
use crate::layer::Layer;
use crate::progress::Progress;

/// The file that marks a layout, and its content.
pub(super) const MARKER: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);

/// The annotation that names an image in a layout.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Most bytes of `index.json`.
const INDEX_LIMIT: u64 = 4 << 20;

/// What a layout has to hold for some images under one name.
pub(super) struct Contents<'a> {
    /// JSON documents, by digest.
    pub documents: BTreeMap<Digest, String>,
    /// Layers, by digest.
    pub layers: BTreeMap<Digest, &'a Layer>,
    /// The entry of `index.json`.
    pub entry: Value,
    /// The digest that the name stands for: of the manifest, or of an index when there are several platforms.
    pub digest: Digest,
}

/// Collects what `images`, one for each platform, need under `name`.
pub(super) fn contents<'a>(name: &str, images: &'a [Image]) -> Result<Contents<'a>, ImageError> {
    check_name(name)?;
    let mut documents = BTreeMap::new();
    let mut layers = BTreeMap::new();
    let mut manifests = BTreeMap::new();
    for image in images {
        documents.insert(image.config_digest(), image.config.clone());
        documents.insert(image.digest(), image.manifest.clone());
        layers.extend(image.layers.iter().map(|layer| (layer.digest, layer)));
        if manifests
            .insert(image.platform, manifest_descriptor(image)?)
            .is_some()
        {
            return Err(ImageError::Platforms(image.platform.to_string()));
        }
    }
    let mut descriptors: Vec<oci::Descriptor> = manifests.into_values().collect();
    let mut entry = match descriptors.len() {
        0 => return Err(ImageError::Platforms("any platform".into())),
        1 => descriptors.remove(0),
        _ => {
            let index = oci::ImageIndexBuilder::default()
                .schema_version(oci::SCHEMA_VERSION)
                .media_type(oci::MediaType::ImageIndex)
                .manifests(descriptors)
                .build()
                .map_err(|error| ImageError::Encoding(error.to_string()))?;
            let text = canonical(&json!(index))?;
            let (digest, size) = (Digest::of(&text), text.len() as u64);
            documents.insert(digest, text);
            descriptor(oci::MediaType::ImageIndex, &digest, size)?
        }
    };
    let digest = entry.digest().to_string().parse();
    let digest = digest.map_err(|_| ImageError::Encoding("a digest is not SHA-256".into()))?;
    entry.set_annotations(Some(HashMap::from([(
        REF_NAME.to_owned(),
        name.to_owned(),
    )])));
    Ok(Contents {
        documents,
        layers,
        entry: json!(entry),
        digest,
    })
}

fn manifest_descriptor(image: &Image) -> Result<oci::Descriptor, ImageError> {
    let size = image.manifest.len() as u64;
    let mut found = descriptor(oci::MediaType::ImageManifest, &image.digest(), size)?;
    let mut platform = oci::Platform::default();
    platform.set_os(oci::Os::Linux);
    platform.set_architecture(image.platform.architecture().into());
    found.set_platform(Some(platform));
    Ok(found)
}

/// The grammar of `org.opencontainers.image.ref.name` (annotations.md).
fn check_name(name: &str) -> Result<(), ImageError> {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._:@+".contains(&byte))
    };
    let fine = name.len() <= 255
        && name.split('/').all(part)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if fine {
        Ok(())
    } else {
        Err(ImageError::Name(name.chars().take(100).collect()))
    }
}

pub(super) fn canonical(value: &Value) -> Result<String, ImageError> {
    serde_json_canonicalizer::to_string(value)
        .map_err(|error| ImageError::Encoding(error.to_string()))
}

/// An `index.json` that holds `entries`.
pub(super) fn index(entries: Vec<Value>) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": oci::MediaType::ImageIndex.to_string(),
        "manifests": entries,
    })
}

/// Writes `images` (one for each platform) into the layout at `dir` under `name`; makes the layout if there is none.
/// Other images of the layout stay; one of the same name is replaced. Returns the digest that the name stands for.
///
/// # Errors
/// When `dir` holds something else, a layer's bytes are not what they must be, or a file cannot be written.
pub fn export_layout(
    dir: &Path,
    name: &str,
    images: &[Image],
    source: &dyn LayerSource,
    progress: &dyn Progress,
) -> Result<Digest, ImageError> {
    let contents = contents(name, images)?;
    let blobs = prepare(dir)?;
    let total = contents.layers.values().map(|layer| layer.size).sum();
    let meter = Meter::new(progress, name, total);
    for (digest, layer) in &contents.layers {
        let target = blobs.join(digest.hex());
        if holds(&target, digest, layer.size) {
            meter.advance(layer.size);
            continue;
        }
        write_atomically(&target, |out| {
            copy_layer(source, layer, out, &|bytes| meter.advance(bytes))
        })?;
    }
    for (digest, text) in &contents.documents {
        let target = blobs.join(digest.hex());
        if !holds(&target, digest, text.len() as u64) {
            write_atomically(&target, |out| {
                out.write_all(text.as_bytes()).map_err(ImageError::Write)
            })?;
        }
    }
    add_to_index(dir, name, contents.entry)?;
    Ok(contents.digest)
}

fn prepare(dir: &Path) -> Result<std::path::PathBuf, ImageError> {
    let marker = dir.join(MARKER.0);
    let foreign = |reason: &str| ImageError::NotALayout {
        path: dir.into(),
        reason: reason.into(),
    };
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if !marker.is_file() && entries.next().is_some() {
                return Err(foreign("it holds other files"));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(foreign("it is a file"));
        }
        Err(error) => return Err(ImageError::file("read", dir)(error)),
    }
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(ImageError::file("create the folder", &blobs))?;
    if !marker.is_file() {
        write_atomically(&marker, |out| {
            out.write_all(MARKER.1.as_bytes())
                .map_err(ImageError::Write)
        })?;
    }
    Ok(blobs)
}

/// Whether `path` is a file with this content already.
fn holds(path: &Path, digest: &Digest, size: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size)
        && File::open(path)
            .and_then(Digest::of_reader)
            .is_ok_and(|(found, _)| found == *digest)
}

/// Writes a file with mode 0644 under a temporary name beside `target`, then renames it.
pub(super) fn write_atomically(
    target: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = NamedTempFile::with_prefix_in(".imagewright-", folder)
        .map_err(ImageError::file("create a file in", folder))?;
    let mut out = io::BufWriter::with_capacity(256 * 1024, file);
    write(&mut out)?;
    let file = out
        .into_inner()
        .map_err(|error| ImageError::file("write", target)(error.into_error()))?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .and_then(|()| file.as_file().sync_all())
        .map_err(ImageError::file("write", target))?;
    file.persist(target)
        .map_err(|error| ImageError::file("put into place", target)(error.error))?;
    Ok(())
}

/// Adds an entry to `index.json`, with all that is in it already, also what we do not know.
fn add_to_index(dir: &Path, name: &str, entry: Value) -> Result<(), ImageError> {
    let folder = File::open(dir).map_err(ImageError::file("open", dir))?;
    flock(&folder, FlockOperation::LockExclusive)
        .map_err(|error| ImageError::file("lock", dir)(error.into()))?;
    let path = dir.join("index.json");
    let broken = |reason: String| ImageError::NotALayout {
        path: dir.into(),
        reason,
    };
    let mut all = match fs::metadata(&path) {
        Ok(meta) if meta.len() > INDEX_LIMIT => {
            return Err(broken("its index.json is larger than 4 MiB".into()));
        }
        Ok(_) => {
            let text = fs::read(&path).map_err(ImageError::file("read", &path))?;
            serde_json::from_slice(&text)
                .map_err(|error| broken(format!("its index.json is not valid: {error}")))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => index(Vec::new()),
        Err(error) => return Err(ImageError::file("read", &path)(error)),
    };
    let Some(manifests) = all.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(broken("its index.json has no `manifests`".into()));
    };
    manifests.retain(|known| known["annotations"][REF_NAME] != name);
    manifests.push(entry);
    manifests.sort_by_key(|known| known["annotations"][REF_NAME].as_str().map(str::to_owned));
    let text = canonical(&all)?;
    write_atomically(&path, |out| {
        out.write_all(text.as_bytes()).map_err(ImageError::Write)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in [
            "titanic",
            "titanic:v1",
            "registry.example.com/ml/titanic:1.0",
            "a_b",
        ] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a/", "a b", "ü", "a//b", "a\n"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
