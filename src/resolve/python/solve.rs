//! One solve: the resolver's objects put together, and, after a conflict, the search for its smallest set of lines.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use uv_cache::Cache;
use uv_client::RegistryClient;
use uv_configuration::{Constraints, Excludes, Overrides};
use uv_distribution::DistributionDatabase;
use uv_distribution_types::{BuildableSource, RequiresPython, VersionOrUrlRef};
use uv_normalize::PackageName;
use uv_pypi_types::Conflicts;
use uv_redacted::DisplaySafeUrl;
use uv_resolver::{
    AllowedYanks, DefaultResolverProvider, Exclusions, FlatIndex, InMemoryIndex, Manifest,
    NoSolutionError, OptionsBuilder, Preferences, PythonRequirement, ResolveError, Resolver,
    ResolverEnvironment, ResolverOutput, ResolverReporter,
};
use uv_types::{BuildContext as _, EmptyInstalledPackages};

use super::listing::Lister;
use super::request::{Input, Role};
use super::wheels_only::{RefuseBuilds, Seen, WheelsOnly};

/// Metadata requests at one time.
const CONCURRENT: usize = 50;
/// How long the search for the smallest conflict may take, altogether and for one line. A line that cannot be decided
/// in that time stays among the suspects.
const SEARCH: Duration = Duration::from_secs(20);
const ONE_LINE: Duration = Duration::from_secs(5);

/// Everything that solves of one request share.
pub(super) struct Session<'a> {
    pub input: &'a Input,
    pub client: RegistryClient,
    pub seen: Seen,
    context: RefuseBuilds,
    packages: tokio::sync::mpsc::UnboundedSender<()>,
}

impl<'a> Session<'a> {
    pub fn new(
        input: &'a Input,
        client: RegistryClient,
        cache: Cache,
        packages: tokio::sync::mpsc::UnboundedSender<()>,
    ) -> Self {
        Self {
            input,
            client,
            seen: Seen::default(),
            context: RefuseBuilds::new(cache, input.locations.clone()),
            packages,
        }
    }

    pub fn lister(&self) -> Lister<'_> {
        Lister {
            client: &self.client,
            capabilities: self.context.capabilities(),
            input: self.input,
        }
    }

    /// Solves the whole request.
    pub async fn solve(&self) -> Result<ResolverOutput, ResolveError> {
        let manifest = |environment: &ResolverEnvironment| {
            Manifest::new(
                self.input.requirements(),
                self.input.constraints(),
                self.input.overrides(),
                Excludes::default(),
                Preferences::from_iter(self.input.preferences.iter().cloned(), environment),
                None,
                std::collections::BTreeSet::new(),
                Exclusions::default(),
                Vec::new(),
            )
        };
        self.attempt(manifest).await
    }

    /// Solves the lines at `positions` alone, without preferences.
    async fn solve_some(&self, positions: &[usize]) -> Result<ResolverOutput, ResolveError> {
        let of = |role: Role| {
            positions
                .iter()
                .filter_map(|at| self.input.lines.get(*at))
                .filter(move |line| line.role == role)
                .map(|line| line.requirement.clone())
        };
        let manifest = |environment: &ResolverEnvironment| {
            Manifest::new(
                of(Role::Requirement).collect(),
                Constraints::from_requirements(of(Role::Constraint)),
                Overrides::from_requirements(of(Role::Override).collect()),
                Excludes::default(),
                Preferences::from_iter([], environment),
                None,
                std::collections::BTreeSet::new(),
                Exclusions::default(),
                Vec::new(),
            )
        };
        self.attempt(manifest).await
    }

    async fn attempt(
        &self,
        manifest: impl FnOnce(&ResolverEnvironment) -> Manifest,
    ) -> Result<ResolverOutput, ResolveError> {
        let target = &self.input.target;
        let environment = ResolverEnvironment::specific(target.markers.clone().into());
        let requires_python = RequiresPython::greater_than_equal_version(
            &target
                .markers
                .python_full_version()
                .version
                .only_release()
                .without_trailing_zeros(),
        );
        let python =
            PythonRequirement::from_marker_environment(&target.markers, requires_python.clone());
        let mut options = OptionsBuilder::new().build_options(self.context.build_options().clone());
        if let Some((_, limit)) = &self.input.exclude_newer {
            options = options.exclude_newer(limit.clone());
        }
        let options = options.build();
        let manifest = manifest(&environment);
        // Of its own: answers that an attempt before no longer waited for would never come.
        let index = InMemoryIndex::default();
        let flat = FlatIndex::default();
        let semaphore = Arc::new(Semaphore::new(CONCURRENT));
        let database = DistributionDatabase::new(&self.client, &self.context, semaphore);
        let provider = WheelsOnly {
            inner: DefaultResolverProvider::new(
                database,
                &flat,
                Some(&target.tags),
                &requires_python,
                AllowedYanks::from_manifest(&manifest, &environment, options.dependency_mode),
                &self.input.hashes,
                options.exclude_newer.clone(),
                self.context.locations(),
                self.context.build_options(),
                self.context.capabilities(),
            ),
            seen: self.seen.clone(),
            offline: self.client.connectivity().is_offline(),
        };
        let resolver = Resolver::new_custom_io(
            manifest,
            options,
            &self.input.hashes,
            environment,
            &target.markers,
            Some(target.tags.clone()),
            &python,
            Conflicts::empty(),
            &index,
            self.context.git(),
            self.context.capabilities(),
            self.context.locations(),
            provider,
            EmptyInstalledPackages,
        )
        .with_reporter(Arc::new(Counter(self.packages.clone())));
        Box::pin(resolver.resolve()).await
    }

    /// Drops lines from a conflict as long as it remains one. The resolver names the packages that take part; which
    /// line of a package that has several is to blame has to be tried.
    pub async fn smallest_conflict(
        &self,
        suspects: Vec<usize>,
        error: Box<NoSolutionError>,
    ) -> (Vec<usize>, Box<NoSolutionError>) {
        let line = |at: usize| &self.input.lines[at];
        let alone = |at: usize| {
            let mut others = suspects.iter().filter(|other| **other != at);
            others.all(|other| line(*other).requirement.name != line(at).requirement.name)
        };
        let mut doubtful: Vec<_> = suspects.iter().copied().filter(|at| !alone(*at)).collect();
        // Those that demand no version are the first to be innocent.
        doubtful.sort_by_key(|at| line(*at).specifiers().is_some_and(|all| !all.is_empty()));
        let (mut core, mut error) = (suspects, error);
        let end = tokio::time::Instant::now() + SEARCH;
        for candidate in doubtful {
            let fewer: Vec<usize> = core.iter().copied().filter(|at| *at != candidate).collect();
            let until = end.min(tokio::time::Instant::now() + ONE_LINE);
            let attempt = tokio::time::timeout_at(until, self.solve_some(&fewer)).await;
            if let Ok(Err(ResolveError::NoSolution(smaller))) = attempt {
                (core, error) = (fewer, smaller);
            }
        }
        (core, error)
    }
}

/// Counts packages as they are decided on.
struct Counter(tokio::sync::mpsc::UnboundedSender<()>);

impl ResolverReporter for Counter {
    fn on_progress(&self, _: &PackageName, _: &VersionOrUrlRef) {
        // Nobody listens any more when the caller has given up.
        let _ = self.0.send(());
    }
    fn on_complete(&self) {}
    fn on_build_start(&self, _: &BuildableSource) -> usize {
        0
    }
    fn on_build_complete(&self, _: &BuildableSource, _: usize) {}
    fn on_download_start(&self, _: &PackageName, _: Option<u64>) -> usize {
        0
    }
    fn on_download_progress(&self, _: usize, _: u64) {}
    fn on_download_complete(&self, _: &PackageName, _: usize) {}
    fn on_checkout_start(&self, _: &DisplaySafeUrl, _: &str) -> usize {
        0
    }
    fn on_checkout_complete(&self, _: &DisplaySafeUrl, _: &str, _: usize) {}
}
