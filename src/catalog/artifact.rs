//! Documents as artifacts: image manifests whose configuration is the document (OCI image specification, "Guidelines for
//! Artifact Usage"). The configuration's descriptor embeds it, so that the manifest alone says everything.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::{LayerRecord, Record};
use crate::digest::Digest;
use crate::identity;
use crate::image::{Image, sbom};
use crate::oci::Descriptor;

/// The media type of image manifests.
pub(super) const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The media type of a configuration that says nothing.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The artifact type of the files that an image was made of.
const SOURCES: &str = "application/vnd.imagewright.sources.v1";

/// A document and the manifest around it.
#[derive(Clone, Debug)]
pub(super) struct Artifact {
    document: Vec<u8>,
    config: Descriptor,
    content: Option<Descriptor>,
    manifest: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    artifact_type: &'a str,
    config: Descriptor,
    layers: Vec<&'a Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
}

impl Artifact {
    /// A record with the lock beside it that it names.
    pub(super) fn of_record(record: &Record) -> Self {
        let types = (Record::ARTIFACT_TYPE, Record::MEDIA_TYPE);
        Self::new(types, record, None, record.lock.clone())
    }

    /// What is known of a layer; it names the layer's blob and that of the paths, and so keeps them.
    pub(super) fn of_layer(record: &LayerRecord) -> Self {
        let types = (LayerRecord::ARTIFACT_TYPE, LayerRecord::MEDIA_TYPE);
        let layer = &record.layer;
        let blob = Descriptor::new(&layer.media_type, layer.digest, layer.size);
        Self::new(types, record, Some(blob), record.paths.clone())
    }

    /// The SBOM of an image, which it refers to.
    pub(super) fn of_sbom(sbom: &[u8], image: &Image) -> Self {
        let document = b"{}".to_vec();
        let config = Descriptor::of(EMPTY, &document);
        let content = Descriptor::of(sbom::MEDIA_TYPE, sbom);
        let manifest = identity::canonical_json(&Manifest {
            schema_version: 2,
            media_type: IMAGE_MANIFEST,
            artifact_type: sbom::MEDIA_TYPE,
            config: config.clone(),
            layers: vec![&content],
            subject: Some(Descriptor::of(IMAGE_MANIFEST, &image.manifest)),
        });
        Self {
            document,
            config,
            content: Some(content),
            manifest,
        }
    }

    /// Files that an image was made of.
    pub(super) fn of_sources(files: &[&Descriptor]) -> Self {
        let document = b"{}".to_vec();
        let config = Descriptor::of(EMPTY, &document);
        let manifest = identity::canonical_json(&Manifest {
            schema_version: 2,
            media_type: IMAGE_MANIFEST,
            artifact_type: SOURCES,
            config: config.clone(),
            layers: files.to_vec(),
            subject: None,
        });
        Self {
            document,
            config,
            content: None,
            manifest,
        }
    }

    fn new(
        (artifact_type, media_type): (&str, &str),
        document: &impl Serialize,
        blob: Option<Descriptor>,
        content: Option<Descriptor>,
    ) -> Self {
        let document = identity::canonical_json(document);
        let config = Descriptor::of(media_type, &document);
        let manifest = identity::canonical_json(&Manifest {
            schema_version: 2,
            media_type: IMAGE_MANIFEST,
            artifact_type,
            config: Descriptor {
                data: Some(BASE64.encode(&document)),
                ..config.clone()
            },
            layers: blob.iter().chain(&content).collect(),
            subject: None,
        });
        Self {
            document,
            config,
            content,
            manifest,
        }
    }

    /// The document's text.
    pub(super) fn document(&self) -> &[u8] {
        &self.document
    }

    /// The document as a blob.
    pub(super) fn config(&self) -> &Descriptor {
        &self.config
    }

    /// The blob beside the document, if there is one.
    pub(super) fn content(&self) -> Option<&Descriptor> {
        self.content.as_ref()
    }

    /// The manifest.
    pub(super) fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The manifest's digest.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}
