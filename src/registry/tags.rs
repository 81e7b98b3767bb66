//! Listing tags (OCI distribution specification, "Listing Tags").

use std::collections::HashSet;
use std::fmt;

use reqwest::Method;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::client::Answer;
use super::error::tame;
use super::grants::Access;
use super::manifests::found;
use super::pages::Bounds;
use super::reference::is_tag;
use super::{Reference, Registry, RegistryError};

/// Two million tags; a registry without pages gives them all in one.
const BOUNDS: Bounds = Bounds {
    page: 192 << 20,
    all: 256 << 20,
    entries: 2_000_000,
};

/// Tags of a page that are asked for; more are an error in some registries.
const PAGE: &str = "1000";

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Tags,
}

/// Not more tags than a list may have, whatever the answer's length: in memory they take many times as much.
#[derive(Default)]
struct Tags(Vec<String>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(TagsVisitor)
    }
}

struct TagsVisitor;

impl<'de> Visitor<'de> for TagsVisitor {
    type Value = Tags;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tags")
    }

    fn visit_none<E: de::Error>(self) -> Result<Tags, E> {
        Ok(Tags::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tags, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tags, A::Error> {
        let mut tags = Vec::new();
        while let Some(tag) = list.next_element()? {
            if tags.len() == BOUNDS.entries {
                return Err(de::Error::custom("too many"));
            }
            tags.push(tag);
        }
        Ok(Tags(tags))
    }
}

impl Registry {
    /// All tags of a repository, each once, in the registry's order; none if the repository does not exist.
    ///
    /// # Errors
    /// When they cannot be known; when the list is malformed or has no end.
    pub async fn tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        let what = format!(
            "the list of tags of {}/{}",
            repository.host, repository.repository
        );
        let mut ask = self.ask(repository, &what, Method::GET, "/tags/list", Access::Pull)?;
        ask.url.query_pairs_mut().append_pair("n", PAGE);
        let tags = found(self.pages(ask, BOUNDS, read).await)?.unwrap_or_default();
        let mut seen = HashSet::with_capacity(tags.len());
        let first: Vec<bool> = tags.iter().map(|tag| seen.insert(tag.as_str())).collect();
        let once = tags.iter().zip(first).filter(|(_, first)| *first);
        Ok(once.map(|(tag, _)| tag.clone()).collect())
    }
}

fn read(answer: &Answer) -> Result<Vec<String>, String> {
    let page: Page = serde_json::from_slice(&answer.body).map_err(|_| {
        let most = BOUNDS.entries;
        format!("it is not a list of at most {most} tags")
    })?;
    let tags = page.tags.0;
    match tags.iter().find(|tag| !is_tag(tag)) {
        Some(bad) => {
            let shown: String = tame(bad, &[]).chars().take(60).collect();
            Err(format!("`{shown}` is not a tag"))
        }
        None => Ok(tags),
    }
}
