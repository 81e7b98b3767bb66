//! Which repositories and tags a destination has.

use crate::diagnostic::{Explain, Kind};
use crate::digest::Digest;
use crate::identity;
use crate::manifest::{Destination, Layout, Platform};
use crate::registry::{Reference, ReferenceError};

/// The repository, or last part of one, that holds what machines look up.
const CACHE: &str = "cache";

/// A destination with its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    root: Reference,
    layout: Layout,
}

/// Why a text is not a place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum PlaceError {
    #[error(transparent)]
    Reference(ReferenceError),
    #[error("`{text}` is not a registry's host and a path")]
    Form { text: String },
    #[error("`{text}` names one image, and not the place where images are")]
    Image { text: String, place: String },
}

impl Explain for PlaceError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Form { .. } => "write HOST/PATH, for example `registry.example.com/ml`".into(),
            Self::Reference(error) => return error.hint(),
            Self::Image { place, .. } => {
                format!("a place is HOST/PATH without tag or digest: write `{place}`")
            }
        })
    }
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

/// The tag of the record that was written last for an image's name on a platform. It moves as the name does, so that
/// who pushes again need not read all records to know whether the newest one is right.
pub(super) fn name_tag(repository: &str, name: &str, platform: Platform) -> String {
    let whole = serde_json::json!({ "name": name, "platform": platform, "repository": repository });
    format!("name-{}", identity::key(&whole).hex())
}

impl Place {
    /// The place that a `registry` or `push` node declares.
    ///
    /// # Errors
    /// When its text is not a host and a repository, or more than these.
    pub fn new(destination: &Destination) -> Result<Self, PlaceError> {
        let named: Reference = destination.registry.parse().map_err(|error| match error {
            ReferenceError::Empty => PlaceError::Form {
                text: String::new(),
            },
            ReferenceError::NoHost(text) => PlaceError::Form { text },
            error => PlaceError::Reference(error),
        })?;
        let root = Reference {
            tag: None,
            digest: None,
            ..named.clone()
        };
        if root != named {
            return Err(PlaceError::Image {
                text: named.to_string(),
                place: root.to_string(),
            });
        }
        Ok(Self {
            root,
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

    /// Whether a repository is one of its images.
    pub fn holds(&self, repository: &Reference) -> bool {
        let below = || {
            let rest = repository.repository.strip_prefix(&self.root.repository)?;
            rest.strip_prefix('/')
        };
        let found = match self.layout {
            Layout::Split | Layout::Single => repository.repository == self.root.repository,
            Layout::PerImage => below().is_some_and(|name| !name.contains('/')),
        };
        found && repository.host == self.root.host
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
