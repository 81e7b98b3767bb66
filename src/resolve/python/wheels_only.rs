//! The resolver without a Python: source distributions are refused, and what was learned about wheels is recorded.

// The traits promise `impl Future`; plain `async fn` refines that.
#![allow(refining_impl_trait)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use uv_cache::Cache;
use uv_client::ErrorKind;
use uv_configuration::{BuildKind, BuildOptions, BuildOutput, NoBinary, NoBuild, NoSources};
use uv_distribution_filename::DistFilename;
use uv_distribution_types::{
    CachedDist, ConfigSettings, DependencyMetadata, Dist, ExtraBuildRequires, ExtraBuildVariables,
    IndexCapabilities, IndexLocations, IndexMetadata, InstalledDist, IsBuildBackendError,
    PackageConfigSettings, RequestedDist, Requirement, SourceDist,
};
use uv_errors::Hint;
use uv_git::GitResolver;
use uv_normalize::PackageName;
use uv_pep440::Version;
use uv_python::{Interpreter, PythonEnvironment};
use uv_resolver::{
    MetadataResponse, PackageVersionsResult, ResolverProvider, VersionsResponse,
    WheelMetadataResult,
};
use uv_types::{
    AnyErrorBuild, BuildArena, BuildContext, BuildIsolation, BuildStack, ResolvedRequirements,
    SourceBuildTrait,
};
use uv_workspace::WorkspaceCache;

#[derive(Debug, thiserror::Error)]
#[error("{0} exists only as source, and imagewright takes only wheels")]
pub(super) struct Refused(String);
impl Hint for Refused {}
impl IsBuildBackendError for Refused {
    fn is_build_backend_error(&self) -> bool {
        false
    }
}

/// Uninhabited: no build can ever be constructed.
pub(super) enum Never {}
impl SourceBuildTrait for Never {
    async fn metadata(&mut self) -> Result<Option<PathBuf>, AnyErrorBuild> {
        match *self {}
    }
    async fn wheel<'a>(&'a self, _: &'a Path) -> Result<String, AnyErrorBuild> {
        match *self {}
    }
}

/// What the resolver asks of its surroundings; every request to build is refused.
pub(super) struct RefuseBuilds {
    cache: Cache,
    git: GitResolver,
    arena: BuildArena<Never>,
    capabilities: IndexCapabilities,
    metadata: DependencyMetadata,
    build_options: BuildOptions,
    config: ConfigSettings,
    config_pkg: PackageConfigSettings,
    sources: NoSources,
    locations: IndexLocations,
    workspace: WorkspaceCache,
    extra_requires: ExtraBuildRequires,
    extra_vars: ExtraBuildVariables,
}

impl RefuseBuilds {
    /// Wheels only, from `locations`.
    pub fn new(cache: Cache, locations: IndexLocations) -> Self {
        Self {
            cache,
            git: GitResolver::default(),
            arena: BuildArena::default(),
            capabilities: IndexCapabilities::default(),
            metadata: DependencyMetadata::default(),
            build_options: BuildOptions::new(NoBinary::None, NoBuild::All),
            config: ConfigSettings::default(),
            config_pkg: PackageConfigSettings::default(),
            sources: NoSources::All,
            locations,
            workspace: WorkspaceCache::default(),
            extra_requires: ExtraBuildRequires::default(),
            extra_vars: ExtraBuildVariables::default(),
        }
    }
}

impl BuildContext for RefuseBuilds {
    type SourceDistBuilder = Never;

    // Cannot be answered without a Python. Only the builder of source distributions asks, and `WheelsOnly` stops
    // these before: waiting for ever is never reached.
    async fn interpreter(&self) -> &Interpreter {
        std::future::pending().await
    }
    fn cache(&self) -> &Cache {
        &self.cache
    }
    fn git(&self) -> &GitResolver {
        &self.git
    }
    fn build_arena(&self) -> &BuildArena<Never> {
        &self.arena
    }
    fn capabilities(&self) -> &IndexCapabilities {
        &self.capabilities
    }
    fn dependency_metadata(&self) -> &DependencyMetadata {
        &self.metadata
    }
    fn build_options(&self) -> &BuildOptions {
        &self.build_options
    }
    fn build_isolation(&self) -> BuildIsolation<'_> {
        BuildIsolation::Isolated
    }
    fn config_settings(&self) -> &ConfigSettings {
        &self.config
    }
    fn config_settings_package(&self) -> &PackageConfigSettings {
        &self.config_pkg
    }
    fn sources(&self) -> &NoSources {
        &self.sources
    }
    fn locations(&self) -> &IndexLocations {
        &self.locations
    }
    fn workspace_cache(&self) -> &WorkspaceCache {
        &self.workspace
    }
    fn extra_build_requires(&self) -> &ExtraBuildRequires {
        &self.extra_requires
    }
    fn extra_build_variables(&self) -> &ExtraBuildVariables {
        &self.extra_vars
    }
    async fn resolve<'a>(
        &'a self,
        _: &'a [Requirement],
        _: &'a BuildStack,
    ) -> Result<ResolvedRequirements, Refused> {
        Err(Refused("a build environment".into()))
    }
    async fn install<'a>(
        &'a self,
        _: &'a ResolvedRequirements,
        _: &'a PythonEnvironment,
        _: &'a BuildStack,
    ) -> Result<Vec<CachedDist>, Refused> {
        Err(Refused("a build environment".into()))
    }
    async fn setup_build<'a>(
        &'a self,
        _: &'a Path,
        _: Option<&'a Path>,
        _: &'a Path,
        _: Option<&'a Path>,
        version_id: Option<&'a str>,
        _: Option<&'a SourceDist>,
        _: &'a NoSources,
        _: BuildKind,
        _: BuildOutput,
        _: BuildStack,
    ) -> Result<Never, Refused> {
        Err(Refused(version_id.unwrap_or("a package").to_string()))
    }
    async fn direct_build<'a>(
        &'a self,
        _: &'a Path,
        _: Option<&'a Path>,
        _: &'a Path,
        _: NoSources,
        _: BuildKind,
        version_id: Option<&'a str>,
    ) -> Result<Option<DistFilename>, Refused> {
        Err(Refused(version_id.unwrap_or("a package").to_string()))
    }
}

/// What wheels require, by package and version: every wheel that the resolver looked into, taken or not.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<BTreeMap<PackageName, Releases>>>);

type Releases = BTreeMap<Version, Arc<[Requirement]>>;

impl Seen {
    fn record(&self, response: &MetadataResponse) {
        if let MetadataResponse::Found(found) = response {
            let metadata = &found.metadata;
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(metadata.name.clone())
                .or_default()
                .insert(
                    metadata.version.clone(),
                    Arc::from(metadata.requires_dist.to_vec()),
                );
        }
    }

    /// What `name` `version` requires, if its metadata was read.
    pub fn requires(&self, name: &PackageName, version: &Version) -> Option<Arc<[Requirement]>> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(name)?.get(version).cloned()
    }

    /// Every version of `name` whose metadata was read, with what it requires, oldest first.
    pub fn versions(&self, name: &PackageName) -> Vec<(Version, Arc<[Requirement]>)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = seen.get(name).into_iter().flatten();
        versions
            .map(|(version, requires)| (version.clone(), Arc::clone(requires)))
            .collect()
    }

    /// Every package whose metadata was read.
    pub fn packages(&self) -> Vec<PackageName> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.keys().cloned().collect()
    }
}

/// Stops every source distribution before the distribution database (and so before
/// `BuildContext::interpreter`), and records what wheels require.
///
/// With the network off, whatever the cache lacks ends the resolution: passing over it, as the resolver would, could
/// lead to other pins than the whole index does.
pub(super) struct WheelsOnly<P> {
    pub inner: P,
    pub seen: Seen,
    pub offline: bool,
}

impl<P: ResolverProvider> ResolverProvider for WheelsOnly<P> {
    async fn get_package_versions<'io>(
        &'io self,
        name: &'io PackageName,
        index: Option<&'io IndexMetadata>,
    ) -> PackageVersionsResult {
        match self.inner.get_package_versions(name, index).await? {
            VersionsResponse::Offline => Err(ErrorKind::Offline(format!("package {name}")).into()),
            found => Ok(found),
        }
    }
    async fn get_or_build_wheel_metadata<'io>(&'io self, dist: &'io Dist) -> WheelMetadataResult {
        if let Dist::Source(source) = dist {
            return Ok(MetadataResponse::Error(
                Box::new(RequestedDist::Installable(dist.clone())),
                Arc::new(uv_distribution::Error::Build(
                    Refused(source.to_string()).into(),
                )),
            ));
        }
        let response = self.inner.get_or_build_wheel_metadata(dist).await?;
        self.seen.record(&response);
        Ok(match response {
            MetadataResponse::Unavailable(_) if self.offline => MetadataResponse::Error(
                Box::new(RequestedDist::Installable(dist.clone())),
                Arc::new(uv_distribution::Error::Client(
                    ErrorKind::Offline(format!("metadata of {dist}")).into(),
                )),
            ),
            other => other,
        })
    }
    fn get_installed_metadata<'io>(
        &'io self,
        dist: &'io InstalledDist,
    ) -> impl Future<Output = WheelMetadataResult> + 'io {
        self.inner.get_installed_metadata(dist)
    }
    fn with_reporter(self, reporter: Arc<dyn uv_distribution::Reporter>) -> Self {
        Self {
            inner: self.inner.with_reporter(reporter),
            seen: self.seen,
            offline: self.offline,
        }
    }
}
