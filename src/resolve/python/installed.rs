//! What a requirement says of versions that are installed already: for asking whether an image satisfies it.

use std::collections::BTreeSet;
use std::str::FromStr;

use uv_pep440::{Version, VersionSpecifiers};
use uv_pep508::{MarkerEnvironment, VersionOrUrl};
use uv_pypi_types::VerbatimParsedUrl;

use super::target::markers;
use crate::manifest::Platform;

/// The interpreter that markers are asked about.
#[derive(Clone, Debug)]
pub struct Environment(MarkerEnvironment);

/// A requirement, read.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whether its marker holds; if not, it asks for nothing.
    pub applies: bool,
    /// PEP 503 normalised.
    pub name: String,
    /// Normalised.
    pub extras: BTreeSet<String>,
    /// Whether it names a URL instead of versions.
    pub url: bool,
    specifiers: VersionSpecifiers,
}

impl Environment {
    /// CPython of this full version on `platform`; `None` if that is not a version.
    pub fn new(platform: Platform, python: &str) -> Option<Self> {
        let short: Vec<&str> = python.splitn(3, '.').take(2).collect();
        markers(platform, &short.join("."), python).ok().map(Self)
    }

    /// What the requirement asks for here.
    ///
    /// # Errors
    /// When `pep508` is not a requirement; a sentence's end.
    pub fn asked(&self, pep508: &str) -> Result<Asked, String> {
        let parsed = uv_pep508::Requirement::<VerbatimParsedUrl>::from_str(pep508)
            .map_err(|error| error.message.to_string())?;
        let applies = parsed.evaluate_markers(&self.0, &[]);
        let (specifiers, url) = match parsed.version_or_url {
            Some(VersionOrUrl::VersionSpecifier(specifiers)) => (specifiers, false),
            Some(VersionOrUrl::Url(_)) => (VersionSpecifiers::empty(), true),
            None => (VersionSpecifiers::empty(), false),
        };
        Ok(Asked {
            applies,
            name: parsed.name.to_string(),
            extras: parsed.extras.iter().map(ToString::to_string).collect(),
            url,
            specifiers,
        })
    }
}

impl Asked {
    /// Whether the version is among those asked for, pre-releases as any other (PEP 440).
    pub fn contains(&self, version: &str) -> bool {
        Version::from_str(version).is_ok_and(|version| self.specifiers.contains(&version))
    }

    /// Whether the specifiers themselves name a pre-release, which lets pre-releases in.
    pub fn names_prerelease(&self) -> bool {
        let mut specifiers = self.specifiers.iter();
        specifiers.any(uv_pep440::VersionSpecifier::any_prerelease)
    }
}

/// Whether it is a version, and a pre-release or development release.
pub fn is_prerelease(version: &str) -> bool {
    Version::from_str(version).is_ok_and(|version| version.any_prerelease())
}
