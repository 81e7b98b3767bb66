//! What an index lists for a package, judged for one target. Answers come from the resolver's cache where it has them.

use std::collections::BTreeMap;

use tokio::sync::Semaphore;
use uv_client::{ErrorKind, MetadataFormat, OwnedArchive, RegistryClient};
use uv_distribution_filename::DistFilename;
use uv_distribution_types::{File, IndexCapabilities, IndexMetadataRef};
use uv_normalize::PackageName;
use uv_pep440::Version;
use uv_pypi_types::Yanked;

use super::request::{Input, Role};

/// One release.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Release {
    /// It has a wheel, for whatever platform.
    pub any_wheel: bool,
    /// It has a wheel that runs on the target, is not yanked, and is old enough.
    pub usable: bool,
    /// It is yanked, or too new, or needs another Python: not to be mentioned.
    pub out_of_question: bool,
    /// The index tells no upload time for at least one file.
    pub undated: bool,
}

/// All releases of a package.
#[derive(Debug, Default)]
pub(super) struct Listing(pub BTreeMap<Version, Release>);

/// Why there is no listing.
#[derive(Debug)]
pub(super) enum NoListing {
    /// No index has the package.
    Unknown,
    /// Not in the cache, and the network is off.
    Offline,
    /// The index failed; the resolver has told it already.
    Failed,
}

/// Asks for listings.
pub(super) struct Lister<'a> {
    pub client: &'a RegistryClient,
    pub capabilities: &'a IndexCapabilities,
    pub input: &'a Input,
}

impl Lister<'_> {
    pub async fn list(&self, name: &PackageName) -> Result<Listing, NoListing> {
        let pinned_to = self.input.lines.iter().find_map(|line| {
            use uv_distribution_types::RequirementSource::Registry;
            match &line.requirement.source {
                Registry {
                    index: Some(index), ..
                } if line.requirement.name == *name => Some(index),
                _ => None,
            }
        });
        let semaphore = Semaphore::new(1);
        let answer = self
            .client
            .simple_detail(
                name,
                pinned_to.map(IndexMetadataRef::from),
                self.capabilities,
                &semaphore,
            )
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::RemotePackageNotFound(_) | ErrorKind::LocalPackageNotFound(_) => {
                    NoListing::Unknown
                }
                ErrorKind::Offline(_) => NoListing::Offline,
                _ => NoListing::Failed,
            })?;
        let mut listing = Listing::default();
        for (_, metadata) in answer {
            let MetadataFormat::Simple(archive) = metadata else {
                continue;
            };
            for datum in OwnedArchive::deserialize(&archive) {
                let release = listing.0.entry(datum.version).or_default();
                let files: Vec<_> = datum.files.all(name).collect();
                release.out_of_question = !files.iter().any(|(_, file)| self.allowed(name, file));
                for (filename, file) in &files {
                    self.judge(release, name, filename, file);
                }
            }
        }
        Ok(listing)
    }

    fn judge(
        &self,
        release: &mut Release,
        name: &PackageName,
        filename: &DistFilename,
        file: &File,
    ) {
        release.undated |= file.upload_time_utc_ms.is_none();
        if let DistFilename::WheelFilename(wheel) = filename {
            release.any_wheel = true;
            release.usable |=
                wheel.is_compatible(&self.input.target.tags) && self.allowed(name, file);
        }
    }

    fn allowed(&self, name: &PackageName, file: &File) -> bool {
        let yanked = match file.yanked.as_deref() {
            None | Some(Yanked::Bool(false)) => false,
            Some(Yanked::Bool(true) | Yanked::Reason(_)) => true,
        };
        let python = self.input.target.markers.python_full_version();
        let wrong_python = file
            .requires_python
            .as_ref()
            .is_some_and(|wanted| !wanted.contains(&python.version));
        let too_new = self.input.exclude_newer.as_ref().is_some_and(|(_, limit)| {
            let limit = limit.exclude_newer_package_for_index(name, None);
            let uploaded = file.upload_time_utc_ms;
            limit.is_some_and(|limit| uploaded.is_none_or(|time| time >= limit.as_millisecond()))
        });
        !yanked && !wrong_python && !too_new
    }

    /// The manifest's own say on `version` of `name`.
    pub fn manifest_allows(&self, name: &PackageName, version: &Version) -> bool {
        self.input
            .lines
            .iter()
            .filter(|line| line.requirement.name == *name && line.role != Role::Override)
            .filter(|line| self.applies(&line.requirement))
            .all(|line| {
                line.specifiers()
                    .is_none_or(|allowed| allowed.contains(version))
            })
    }

    /// Whether the marker of `requirement` holds on the target, whatever the extras.
    pub fn applies(&self, requirement: &uv_distribution_types::Requirement) -> bool {
        let markers = &self.input.target.markers;
        requirement.evaluate_markers(Some(markers), &[])
    }
}
