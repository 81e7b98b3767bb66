//! Which repositories and tags a destination has.

use crate::digest::Digest;
use crate::manifest::{Destination, Layout};
use crate::registry::{Reference, ReferenceError};

/// The repository, or last part of one, that holds what machines look up.
const CACHE: &str = "cache";

/// A destination with its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    root: Reference,
    layout: Layout,
}

/// A tag that is named by a key and therefore never moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyTag {
    /// The first record of an image key.
    Image(Digest),
    /// The first record of a set key: what a lock asks for.
    Set(Digest),
    /// A layer by its key.
    Layer(Digest),
    /// A record by the digest of its document.
    Record(Digest),
}

impl KeyTag {
    /// The tag's text.
    pub fn tag(&self) -> String {
        let (kind, key) = match self {
            Self::Image(key) => ("image", key),
            Self::Set(key) => ("set", key),
            Self::Layer(key) => ("layer", key),
            Self::Record(key) => ("record", key),
        };
        format!("{kind}-{}", key.hex())
    }

    /// The tag of the variant that the key called `signer` has signed.
    pub fn signed(&self, signer: &str) -> String {
        format!("{}.{signer}", self.tag())
    }

    /// The key behind an unsigned tag.
    pub fn parse(tag: &str) -> Option<Self> {
        let (kind, hex) = tag.split_once('-')?;
        let key = Digest::from_hex(hex).ok()?;
        Some(match kind {
            "image" => Self::Image(key),
            "set" => Self::Set(key),
            "layer" => Self::Layer(key),
            "record" => Self::Record(key),
            _ => return None,
        })
    }
}

impl Place {
    /// The place that a `registry` or `push` node declares.
    ///
    /// # Errors
    /// When its text is not a host and a repository.
    pub fn new(destination: &Destination) -> Result<Self, ReferenceError> {
        Ok(Self {
            root: destination.registry.parse()?,
            layout: destination.layout,
        })
    }

    /// The registry's host, with port where given.
    pub fn host(&self) -> &str {
        &self.root.host
    }

    /// The repository that the node names.
    pub fn root(&self) -> &Reference {
        &self.root
    }

    /// The repository of the image with this declared name.
    pub fn image(&self, name: &str) -> Reference {
        match self.layout {
            Layout::Split | Layout::Single => self.root.clone(),
            Layout::PerImage => self.below(name),
        }
    }

    /// The tag of the image with this declared name: its own one, or the one called `tag`.
    pub fn tag(&self, name: &str, tag: Option<&str>) -> String {
        match (self.layout, tag) {
            (Layout::PerImage, tag) => tag.unwrap_or("latest").into(),
            (_, None) => name.into(),
            (_, Some(tag)) => format!("{name}-{tag}"),
        }
    }

    /// All names of an image with these declared tags, each once, its own one first.
    pub fn names(&self, name: &str, tags: &[String]) -> Vec<Reference> {
        let tags = tags.iter().map(|tag| Some(tag.as_str()));
        let mut names = Vec::new();
        for tag in std::iter::once(None).chain(tags) {
            let name = Reference {
                tag: Some(self.tag(name, tag)),
                ..self.image(name)
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The repository of what machines look up.
    pub fn cache(&self) -> Reference {
        match self.layout {
            Layout::Single => self.root.clone(),
            Layout::Split | Layout::PerImage => self.below(CACHE),
        }
    }

    fn below(&self, part: &str) -> Reference {
        Reference {
            repository: format!("{}/{part}", self.root.repository),
            ..self.root.clone()
        }
    }
}
