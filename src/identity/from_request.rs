//! `ImageRequest` → `RequestDocument`. Every structure of the request is taken apart without `..`, so that a new
//! field does not compile before somebody decides whether it is part of the key.

use std::collections::BTreeMap;

use super::{
    BaseDocument, ConfigDocument, FetchDocument, FileDocument, OsDocument, PipDocument,
    RequestDocument, UserDocument, WheelFileDocument,
};
use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::manifest::{
    Config, Debian, FetchSpec, ImageRequest, Index, OsRequirement, PipRequirement, Platform, Root,
    Spanned,
};

/// What the project's folder adds to a request: content that the manifest names by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectContent {
    /// Absolute path in the image → content, of all the image's `file` nodes.
    pub files: BTreeMap<String, FileDocument>,
    /// Path in the project, as in [`PipRequirement::wheel`] → digest, of all `wheel=` files.
    pub wheels: BTreeMap<String, Digest>,
}

/// A wheel file that the manifest names is not in the [`ProjectContent`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content of the project's wheel `{path}` is not known")]
pub struct MissingContent {
    /// As the manifest has it.
    pub path: String,
}

impl Explain for MissingContent {
    fn kind(&self) -> Kind {
        Kind::NotFound
    }

    fn hint(&self) -> Option<String> {
        Some(format!(
            "put the wheel at `{}` beside the manifest, or name another one",
            self.path
        ))
    }
}

impl RequestDocument {
    /// The document of `image` on one of its platforms.
    pub fn new(
        image: &ImageRequest,
        platform: Platform,
        content: &ProjectContent,
    ) -> Result<Self, MissingContent> {
        let ImageRequest {
            name: _,
            base: _,
            tags: _,
            version: _,
            protected: _,
            root,
            python,
            platforms: _,
            os,
            pip,
            constraints,
            overrides,
            exclude_newer,
            indexes,
            files: _, // by content, not by where they lie in the project
            fetches,
            config,
        } = image;
        let requirements = |list: &[Spanned<PipRequirement>]| {
            list.iter()
                .map(|requirement| pip_document(requirement, indexes, content))
                .collect::<Result<_, _>>()
        };
        Ok(Self {
            v: Self::VERSION,
            platform,
            base: base_document(root),
            python: python.as_ref().map(|python| python.to_string()),
            os: os.iter().map(|os| os_document(os)).collect(),
            pip: requirements(pip)?,
            constraints: requirements(constraints)?,
            overrides: requirements(overrides)?,
            exclude_newer: exclude_newer.as_ref().map(|instant| instant.value.clone()),
            indexes: general_indexes(indexes),
            default_index: indexes
                .iter()
                .find(|index| index.default)
                .map(|index| canonical_url(&index.url)),
            files: content.files.clone(),
            fetches: fetches.iter().map(|fetch| fetch_document(fetch)).collect(),
            config: ConfigDocument::new(config),
        })
    }
}

impl ConfigDocument {
    /// What the manifest decides of the configuration.
    pub fn new(config: &Config) -> Self {
        let Config {
            env,
            user,
            workdir,
            entrypoint,
            cmd,
            labels,
            annotations,
        } = config;
        let not_empty =
            |list: &Option<Vec<String>>| list.clone().filter(|arguments| !arguments.is_empty());
        Self {
            env: env.clone(),
            user: user.as_ref().map(UserDocument::from).unwrap_or_default(),
            workdir: workdir.clone(),
            entrypoint: not_empty(entrypoint),
            cmd: not_empty(cmd),
            labels: labels.clone(),
            annotations: annotations.clone(),
        }
    }
}

fn base_document(root: &Root) -> BaseDocument {
    match root {
        Root::From(reference) => BaseDocument::From {
            reference: reference.value.clone(),
        },
        Root::Debian(debian) => {
            let Debian {
                suite,
                snapshot: _,
                mirror,
                components,
                keyring: _, // whom to believe, not what was asked for
                updates,
                os,
            } = debian;
            BaseDocument::Debian {
                suite: suite.value.clone(),
                mirror: mirror.as_ref().map(|mirror| canonical_url(mirror)),
                components: components.iter().cloned().collect(),
                updates: *updates,
                os: os.iter().map(|os| os_document(os)).collect(),
            }
        }
    }
}

fn os_document(os: &OsRequirement) -> OsDocument {
    let OsRequirement { name, version } = os;
    OsDocument {
        name: name.clone(),
        version: version.clone(),
    }
}

fn pip_document(
    requirement: &PipRequirement,
    indexes: &[Spanned<Index>],
    content: &ProjectContent,
) -> Result<PipDocument, MissingContent> {
    let PipRequirement {
        name: _, // part of the requirement's text
        pep508,
        index,
        wheel,
        hashes,
        constraint: _, // said by the list that it stands in
    } = requirement;
    Ok(PipDocument {
        requirement: pep508.clone(),
        index: index.as_ref().map(|name| index_url(name, indexes)),
        wheel: wheel
            .as_ref()
            .map(|path| wheel_document(path, content))
            .transpose()?,
        hashes: hashes.iter().cloned().collect(),
    })
}

fn wheel_document(
    path: &str,
    content: &ProjectContent,
) -> Result<WheelFileDocument, MissingContent> {
    let sha256 = content.wheels.get(path).ok_or_else(|| MissingContent {
        path: path.to_owned(),
    })?;
    Ok(WheelFileDocument {
        file: path.rsplit('/').next().unwrap_or(path).to_owned(),
        sha256: *sha256,
    })
}

pub(super) fn fetch_document(fetch: &FetchSpec) -> FetchDocument {
    let FetchSpec {
        url: _, // the hash says what it is
        sha256,
        to,
        mode,
    } = fetch;
    FetchDocument {
        sha256: *sha256,
        to: to.clone(),
        mode: mode.unwrap_or(FetchDocument::DEFAULT_MODE),
    }
}

/// The URL of the index that a requirement names. An undeclared name, which the manifest's parser refuses, stands
/// for itself: no URL looks like it.
fn index_url(name: &str, indexes: &[Spanned<Index>]) -> String {
    match indexes.iter().find(|index| index.name == name) {
        Some(index) => canonical_url(&index.url),
        None => name.to_owned(),
    }
}

/// Indexes that serve whatever they have, by preference; of equal ones the first counts.
fn general_indexes(indexes: &[Spanned<Index>]) -> Vec<String> {
    let mut urls = Vec::new();
    for index in indexes {
        let Index {
            name: _, // requirements hold the URL
            url,
            default,
            explicit,
        } = &index.value;
        let url = canonical_url(url);
        if !*default && !*explicit && !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

/// A URL as the URL standard serialises it, without the slashes at its end.
pub fn canonical_url(text: &str) -> String {
    let url = url::Url::parse(text).map_or_else(|_| text.to_owned(), String::from);
    url.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::canonical_url;

    #[test]
    fn urls_of_one_place_are_equal() {
        for same in [
            "https://i.example/simple",
            "https://i.example/simple/",
            "https://I.EXAMPLE:443/x/../simple",
        ] {
            assert_eq!(canonical_url(same), "https://i.example/simple");
        }
        for other in [
            "http://i.example/simple",
            "https://i.example/Simple",
            "https://i.example:8443/simple",
            "not a url",
        ] {
            assert_ne!(canonical_url(other), "https://i.example/simple");
        }
    }
}
