//! `ImageRequest` → `RequestDocument`.

use std::collections::BTreeMap;

use super::{
    BaseDocument, ConfigDocument, FetchDocument, FileDocument, IndexDocument, OsDocument,
    PipDocument, RequestDocument,
};
use crate::digest::Digest;
use crate::manifest::{
    Config, ImageRequest, OsRequirement, PipRequirement, Platform, Root, Spanned,
};

/// What the project's folder adds to a request: content that the manifest names by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectContent {
    /// Absolute path in the image → content, of all `file` nodes.
    pub files: BTreeMap<String, FileDocument>,
    /// Path in the project → digest, of all `wheel=` files.
    pub wheels: BTreeMap<String, Digest>,
}

impl RequestDocument {
    /// The document of `image` on one of its platforms.
    pub fn new(image: &ImageRequest, platform: Platform, content: &ProjectContent) -> Self {
        let pip = |list: &[Spanned<PipRequirement>]| {
            list.iter()
                .map(|requirement| pip_document(requirement, content))
                .collect()
        };
        let mut indexes: Vec<IndexDocument> = Vec::new();
        for index in &image.indexes {
            let document = IndexDocument {
                name: index.name.clone(),
                url: index.url.clone(),
                default: index.default,
                explicit: index.explicit,
            };
            if !indexes.contains(&document) {
                indexes.push(document);
            }
        }
        Self {
            v: Self::VERSION,
            platform: platform.to_string(),
            base: base_document(&image.root),
            python: image.python.as_ref().map(|python| python.to_string()),
            os: image.os.iter().map(|os| os_document(os)).collect(),
            pip: pip(&image.pip),
            constraints: pip(&image.constraints),
            overrides: pip(&image.overrides),
            exclude_newer: image.exclude_newer.as_ref().map(|date| date.value.clone()),
            indexes,
            files: content.files.clone(),
            fetches: image
                .fetches
                .iter()
                .map(|fetch| FetchDocument {
                    sha256: fetch.sha256,
                    to: fetch.to.clone(),
                    mode: fetch.mode,
                })
                .collect(),
            config: ConfigDocument::new(&image.config),
        }
    }
}

impl ConfigDocument {
    /// What the manifest decides of the configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            env: config.env.clone(),
            user: config
                .user
                .as_ref()
                .map(|user| format!("{}:{}:{}:{}", user.name, user.uid, user.gid, user.home)),
            workdir: config.workdir.clone(),
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }
    }
}

fn base_document(root: &Root) -> BaseDocument {
    match root {
        Root::From(reference) => BaseDocument::From {
            reference: reference.value.clone(),
        },
        Root::Debian(debian) => BaseDocument::Debian {
            suite: debian.suite.value.clone(),
            mirror: debian.mirror.as_ref().map(|mirror| mirror.value.clone()),
            components: debian.components.iter().cloned().collect(),
            updates: debian.updates,
            os: debian.os.iter().map(|os| os_document(os)).collect(),
        },
    }
}

fn os_document(os: &OsRequirement) -> OsDocument {
    OsDocument {
        name: os.name.clone(),
        version: os.version.clone(),
    }
}

fn pip_document(requirement: &PipRequirement, content: &ProjectContent) -> PipDocument {
    PipDocument {
        requirement: requirement.pep508.clone(),
        index: requirement.index.clone(),
        wheel: requirement
            .wheel
            .as_ref()
            .and_then(|path| content.wheels.get(path).copied()),
        hashes: requirement.hashes.iter().cloned().collect(),
    }
}
