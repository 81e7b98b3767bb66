//! Listing tags (OCI distribution specification, "Listing Tags").

use std::collections::HashSet;

use reqwest::Method;
use serde::Deserialize;

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
    entries: 2_000_000,
};

/// Tags of a page that are asked for; more are an error in some registries.
const PAGE: &str = "1000";

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Registry {
    /// All tags of a repository, each once, in the registry's order; none if the repository does not exist.
    ///
    /// # Errors
    /// When they cannot be known; when the list is malformed or has no end.
    pub async fn tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        let what = format!("the tags of {}/{}", repository.host, repository.repository);
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
    let page: Page =
        serde_json::from_slice(&answer.body).map_err(|_| "it is not a list of tags".to_owned())?;
    let tags = page.tags.unwrap_or_default();
    match tags.iter().find(|tag| !is_tag(tag)) {
        Some(bad) => {
            let shown: String = tame(bad, &[]).chars().take(60).collect();
            Err(format!("`{shown}` is not a tag"))
        }
        None => Ok(tags),
    }
}
