//! Writes images as one file: an OCI archive (a layout as a tar) or a Docker archive (what `docker save` writes).
//! Streamed; the bytes are a function of the images and their name.
//!
//! In a Docker archive gzip layers stay as they are: Docker from 1.10 on, Podman and containerd detect compression
//! when they load. Older Docker engines do not know zstd, so such layers of a base are written as plain tars.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::json;

use super::layout::{self, MARKER, canonical, write_atomically};
use super::{Image, ImageError, LayerSource, Meter, copy_layer};
use crate::digest::{Digest, HashingWriter};
use crate::layer::Layer;
use crate::layer::entry::{Entry, TRAILER, padding, write_entry};
use crate::progress::Progress;
use crate::resolve::base::decompress;

/// Images to write as an OCI archive.
#[derive(Clone, Copy, Debug)]
pub struct OciArchive<'a> {
    /// The name in its index.
    pub name: &'a str,
    /// One for each platform.
    pub images: &'a [Image],
}

/// An image to write as a Docker archive.
#[derive(Clone, Copy, Debug)]
pub struct DockerArchive<'a> {
    /// `repository[:tag]`; without tag: `latest`.
    pub name: &'a str,
    /// The image.
    pub image: &'a Image,
}

impl OciArchive<'_> {
    /// Streams the archive; returns the digest that the name stands for.
    ///
    /// # Errors
    /// When a layer's bytes are not what they must be, or `out` fails.
    pub fn write(
        &self,
        mut out: impl Write,
        source: &dyn LayerSource,
        progress: &dyn Progress,
    ) -> Result<Digest, ImageError> {
        let contents = layout::contents(self.name, self.images)?;
        let meter = meter(progress, self.name, contents.layers.values().copied());
        let index = canonical(&layout::index(vec![contents.entry]))?;
        folder(&mut out, "blobs")?;
        folder(&mut out, "blobs/sha256")?;
        let digests = contents.documents.keys().chain(contents.layers.keys());
        let all: std::collections::BTreeSet<&Digest> = digests.collect();
        for digest in all {
            let path = format!("blobs/sha256/{}", digest.hex());
            match (contents.documents.get(digest), contents.layers.get(digest)) {
                (Some(text), _) => file(&mut out, &path, text.as_bytes())?,
                (None, Some(layer)) => blob(&mut out, &path, layer, source, &meter)?,
                (None, None) => {}
            }
        }
        file(&mut out, "index.json", index.as_bytes())?;
        file(&mut out, MARKER.0, MARKER.1.as_bytes())?;
        finish(out)?;
        Ok(contents.digest)
    }
}

impl DockerArchive<'_> {
    /// Streams the archive; returns the digest of the configuration, which Docker calls the image ID.
    ///
    /// # Errors
    /// When a layer's bytes are not what they must be, or `out` fails.
    pub fn write(
        &self,
        mut out: impl Write,
        source: &dyn LayerSource,
        progress: &dyn Progress,
    ) -> Result<Digest, ImageError> {
        let names: Vec<String> = self.image.layers.iter().map(docker_name).collect();
        let by_name: BTreeMap<&String, &Layer> = names.iter().zip(&self.image.layers).collect();
        let meter = meter(progress, self.name, by_name.values().copied());
        let config = self.image.config_digest();
        let list = canonical(&json!([{
            "Config": format!("{}.json", config.hex()),
            "RepoTags": [with_tag(self.name)],
            "Layers": names,
        }]))?;
        file(&mut out, "manifest.json", list.as_bytes())?;
        file(
            &mut out,
            &format!("{}.json", config.hex()),
            self.image.config.as_bytes(),
        )?;
        for (path, layer) in by_name {
            if is_zstd(layer) {
                plain(&mut out, path, layer, source, &meter)?;
            } else {
                blob(&mut out, path, layer, source, &meter)?;
            }
        }
        finish(out)?;
        Ok(config)
    }
}

fn is_zstd(layer: &Layer) -> bool {
    layer.media_type.ends_with("+zstd")
}

fn docker_name(layer: &Layer) -> String {
    match layer.media_type.ends_with("+gzip") {
        true => format!("{}.tar.gz", layer.digest.hex()),
        false => format!("{}.tar", layer.diff_id.hex()),
    }
}

fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') {
        name.into()
    } else {
        format!("{name}:latest")
    }
}

fn meter<'p, 'l>(
    progress: &'p dyn Progress,
    name: &str,
    layers: impl Iterator<Item = &'l Layer>,
) -> Meter<'p> {
    Meter::new(progress, name, layers.map(|layer| layer.size).sum())
}

fn folder(out: &mut impl Write, path: &str) -> Result<(), ImageError> {
    write_entry(out, &Entry::folder(path), &[]).map_err(ImageError::Write)
}

fn file(out: &mut impl Write, path: &str, content: &[u8]) -> Result<(), ImageError> {
    let entry = Entry::file(path, content.len() as u64, 0o644);
    write_entry(out, &entry, content).map_err(ImageError::Write)
}

fn header(out: &mut impl Write, path: &str, size: u64) -> Result<(), ImageError> {
    let mut header = Vec::new();
    Entry::file(path, size, 0o644).write_header(&mut header);
    out.write_all(&header).map_err(ImageError::Write)
}

fn pad(out: &mut impl Write, size: u64) -> Result<(), ImageError> {
    out.write_all(&[0; 512][..padding(size)])
        .map_err(ImageError::Write)
}

fn blob(
    out: &mut impl Write,
    path: &str,
    layer: &Layer,
    source: &dyn LayerSource,
    meter: &Meter<'_>,
) -> Result<(), ImageError> {
    header(out, path, layer.size)?;
    copy_layer(source, layer, &mut *out, &|bytes| meter.advance(bytes))?;
    pad(out, layer.size)
}

/// A layer's tar, decompressed.
fn plain(
    out: &mut impl Write,
    path: &str,
    layer: &Layer,
    source: &dyn LayerSource,
    meter: &Meter<'_>,
) -> Result<(), ImageError> {
    header(out, path, layer.unpacked)?;
    let fail = |source| ImageError::Layer {
        digest: layer.digest,
        comment: layer.comment.clone(),
        source,
    };
    let mut tar = decompress(source.open(layer).map_err(fail)?).map_err(fail)?;
    let mut hashing = HashingWriter::new(&mut *out);
    // One byte more than it may have shows a tar that is too long.
    let copied = io::copy(&mut tar.by_ref().take(layer.unpacked + 1), &mut hashing);
    copied.map_err(fail)?;
    let (_, found, size) = hashing.finish();
    if found != layer.diff_id || size != layer.unpacked {
        let (what, expected) = (layer.comment.clone(), layer.diff_id);
        return Err(ImageError::WrongDigest {
            what,
            expected,
            found,
        });
    }
    meter.advance(layer.size);
    pad(out, layer.unpacked)
}

fn finish(mut out: impl Write) -> Result<(), ImageError> {
    out.write_all(&TRAILER)
        .and_then(|()| out.flush())
        .map_err(ImageError::Write)
}

/// Writes an archive to `path`: under a temporary name, then renamed. What is no regular file (a pipe, `/dev/stdout`)
/// is written to as it is.
///
/// # Errors
/// Those of `write` and of the file.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<Digest, ImageError>,
) -> Result<Digest, ImageError> {
    let mut digest = None;
    let special = fs::metadata(path).is_ok_and(|meta| !meta.is_file());
    if special {
        let file = fs::OpenOptions::new().write(true).open(path);
        let mut out = io::BufWriter::new(file.map_err(ImageError::file("open", path))?);
        digest = Some(write(&mut out)?);
        out.flush().map_err(ImageError::file("write", path))?;
    } else {
        write_atomically(path, |out| {
            digest = Some(write(out)?);
            Ok(())
        })?;
    }
    digest.ok_or_else(|| ImageError::Encoding("nothing was written".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(with_tag("localhost:5000/a"), "localhost:5000/a:latest");
        assert_eq!(with_tag("a:v1"), "a:v1");
        assert_eq!(with_tag("a"), "a:latest");
    }
}
