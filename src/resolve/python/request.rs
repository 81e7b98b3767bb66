//! A request in the resolver's types, with the way back to the lines of the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use uv_configuration::{Constraints, Overrides};
use uv_distribution_filename::{DistExtension, WheelFilename};
use uv_distribution_types::{
    ExcludeNewerValue, Index as UvIndex, IndexFormat, IndexLocations, IndexMetadata, IndexName,
    IndexUrl, Requirement, RequirementSource, VersionId,
};
use uv_pep440::{Operator, Version, VersionSpecifiers};
use uv_pep508::VerbatimUrl;
use uv_pypi_types::{HashDigest, VerbatimParsedUrl};
use uv_resolver::{ExcludeNewer, Preference};
use uv_types::HashStrategy;

use super::preferences::preferences;
use super::target::Target;
use super::{ProjectWheel, PythonError, PythonRequest};
use crate::ambient::{Ambient, IndexLogins, redact};
use crate::diagnostic::{Problem, Problems};
use crate::manifest::{Index, PipRequirement, Spanned};

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Requirement,
    Constraint,
    Override,
}

/// One line of the manifest and what the resolver makes of it.
pub(super) struct Line {
    pub role: Role,
    pub text: Spanned<PipRequirement>,
    pub requirement: Requirement,
}

impl Line {
    /// The versions that it allows, unless it is a URL or file.
    pub fn specifiers(&self) -> Option<&VersionSpecifiers> {
        match &self.requirement.source {
            RequirementSource::Registry { specifier, .. } => Some(specifier),
            _ => None,
        }
    }
}

/// The whole request, owning everything, so that it can go to the resolver's thread.
pub(super) struct Input {
    pub lines: Vec<Line>,
    pub target: Target,
    pub locations: IndexLocations,
    pub logins: IndexLogins,
    /// The URL that counts as the default index, without credentials; `None` if the manifest replaces it.
    pub default_index: Option<String>,
    pub exclude_newer: Option<(Spanned<String>, ExcludeNewer)>,
    pub preferences: Vec<Preference>,
    pub hashes: HashStrategy,
    /// Absolute path → how the manifest names it, and what it is.
    pub wheels: BTreeMap<std::path::PathBuf, (String, ProjectWheel)>,
}

impl Input {
    pub fn new(request: &PythonRequest<'_>, ambient: &Ambient) -> Result<Self, PythonError> {
        let target = Target::new(request.platform, request.python)?;
        let mut problems = Problems::default();
        let indexes = declared_indexes(request.indexes, &mut problems);
        let mut lines = Vec::new();
        let mut wheels = BTreeMap::new();
        for (role, spanned) in sorted_lines(request) {
            match requirement(spanned, &indexes, request.project_wheels, &target) {
                Ok(requirement) => lines.push(Line {
                    role,
                    text: spanned.clone(),
                    requirement,
                }),
                Err(problem) => problems.0.push(*problem),
            }
            if let Some(path) = &spanned.wheel
                && let Some(wheel) = request.project_wheels.get(path)
            {
                wheels.insert(wheel.path.clone(), (path.clone(), wheel.clone()));
            }
        }
        let exclude_newer = exclude_newer(request, &mut problems);
        problems.or(()).map_err(PythonError::Invalid)?;

        let replaced = request.indexes.iter().any(|index| index.default);
        let default = super::default_index_url(ambient);
        let declared = request
            .indexes
            .iter()
            .map(|index| (Some(index.name.as_str()), index.url.as_str()));
        let mirror = ambient.python_index.as_deref().filter(|_| !replaced);
        let direct = lines
            .iter()
            .filter_map(|line| match &line.requirement.source {
                RequirementSource::Url { location, .. } => Some((None, location.as_str())),
                _ => None,
            });
        let logins = IndexLogins::new(
            ambient,
            declared
                .chain(direct)
                .chain([(None, mirror.unwrap_or(default.as_str()))]),
        );
        let mut all: Vec<UvIndex> = indexes.into_values().map(|(_, index)| index).collect();
        all.sort_by_key(|index| declared_position(request.indexes, index));
        if mirror.is_some() {
            let url = web_index(&default).ok_or_else(|| PythonError::Unreadable {
                what: format!("the URL of this machine's Python index, {default},"),
                reason: "it is not an http or https URL".into(),
            })?;
            all.push(UvIndex::from_index_url(url));
        }
        Ok(Self {
            hashes: hash_strategy(&lines),
            preferences: preferences(request, &lines),
            lines,
            target,
            locations: IndexLocations::new(all, Vec::new(), false),
            logins,
            default_index: (!replaced).then_some(default),
            exclude_newer,
            wheels,
        })
    }

    fn of(&self, role: Role) -> impl Iterator<Item = Requirement> {
        self.lines
            .iter()
            .filter(move |line| line.role == role)
            .map(|line| line.requirement.clone())
    }

    pub fn requirements(&self) -> Vec<Requirement> {
        self.of(Role::Requirement).collect()
    }

    pub fn constraints(&self) -> Constraints {
        Constraints::from_requirements(self.of(Role::Constraint))
    }

    pub fn overrides(&self) -> Overrides {
        Overrides::from_requirements(self.of(Role::Override).collect())
    }
}

/// Every line with its role, in an order that does not depend on the manifest's; doubles once.
fn sorted_lines<'a>(request: &PythonRequest<'a>) -> Vec<(Role, &'a Spanned<PipRequirement>)> {
    let roles = [
        (Role::Requirement, request.requirements),
        (Role::Constraint, request.constraints),
        (Role::Override, request.overrides),
    ];
    let mut lines = Vec::new();
    for (role, spanned) in roles {
        let mut seen = BTreeSet::new();
        let mut of_role: Vec<_> = spanned.iter().collect();
        of_role.sort_by_key(|line| identity(line));
        lines.extend(
            of_role
                .into_iter()
                .filter(|line| seen.insert(identity(line)))
                .map(|line| (role, line)),
        );
    }
    lines
}

fn identity(line: &PipRequirement) -> (&str, &str, Option<&str>, Option<&str>, &[String]) {
    (
        &line.name,
        &line.pep508,
        line.index.as_deref(),
        line.wheel.as_deref(),
        &line.hashes,
    )
}

fn declared_position(declared: &[Spanned<Index>], index: &UvIndex) -> usize {
    let url = index.url.without_credentials().to_string();
    let same = |one: &Spanned<Index>| one.url.trim_end_matches('/') == url.trim_end_matches('/');
    declared.iter().position(same).unwrap_or(declared.len())
}

/// The resolver would take anything else for a folder.
fn web_index(url: &str) -> Option<IndexUrl> {
    let web = url.starts_with("https://") || url.starts_with("http://");
    IndexUrl::from_str(url).ok().filter(|_| web)
}

/// Declared name → its URL in the manifest and the resolver's type.
fn declared_indexes(
    declared: &[Spanned<Index>],
    problems: &mut Problems,
) -> BTreeMap<String, (String, UvIndex)> {
    let mut indexes = BTreeMap::new();
    for index in declared {
        match web_index(&index.url) {
            Some(url) => {
                let made = UvIndex {
                    name: IndexName::from_str(&index.name).ok(),
                    default: index.default,
                    explicit: index.explicit,
                    ..UvIndex::from_extra_index_url(url)
                };
                indexes.insert(index.name.clone(), (index.url.clone(), made));
            }
            None => problems.0.push(
                Problem::new(
                    &index.source,
                    index.span,
                    format!("the index `{}` has no usable URL", index.name),
                    "not an http or https URL",
                )
                .help("give the URL of its simple API, such as `https://host/simple`"),
            ),
        }
    }
    indexes
}

type Refusal = Box<Problem>;

fn refuse(line: &Spanned<PipRequirement>, message: String, label: &str, help: &str) -> Refusal {
    Box::new(Problem::new(&line.source, line.span, message, label).help(help))
}

fn requirement(
    line: &Spanned<PipRequirement>,
    indexes: &BTreeMap<String, (String, UvIndex)>,
    project: &BTreeMap<String, ProjectWheel>,
    target: &Target,
) -> Result<Requirement, Refusal> {
    if line.pep508.contains("${") {
        return Err(refuse(
            line,
            format!(
                "the requirement of `{}` names an environment variable",
                line.name
            ),
            "would mean something else on every machine",
            "write the value itself; credentials belong into ~/.netrc",
        ));
    }
    let parsed =
        uv_pep508::Requirement::<VerbatimParsedUrl>::from_str(&line.pep508).map_err(|error| {
            let reason = error.message.to_string();
            refuse(
                line,
                format!(
                    "`{}` cannot be read as a requirement: {reason}",
                    line.pep508
                ),
                "not a PEP 508 requirement",
                "write it as in `name[extra]>=1.0; python_version<'3.13'`",
            )
        })?;
    let mut requirement = Requirement::from(parsed);
    if let Some(path) = &line.wheel {
        requirement.source = project_wheel(line, path, project, target)?;
    } else if let Some(name) = &line.index {
        requirement.source = from_index(line, name, indexes, requirement.source)?;
    }
    wheels_only(line, &requirement, target)?;
    Ok(requirement)
}

fn from_index(
    line: &Spanned<PipRequirement>,
    name: &str,
    indexes: &BTreeMap<String, (String, UvIndex)>,
    source: RequirementSource,
) -> Result<RequirementSource, Refusal> {
    let RequirementSource::Registry { specifier, .. } = source else {
        return Err(refuse(
            line,
            format!("`{}` has both a URL and an index", line.name),
            "one of the two",
            "remove `index=` or the URL",
        ));
    };
    let Some((_, index)) = indexes.get(name) else {
        return Err(refuse(
            line,
            format!("no index is named `{name}`"),
            "not declared",
            "declare it with an `index` node",
        ));
    };
    Ok(RequirementSource::Registry {
        specifier,
        index: Some(IndexMetadata {
            url: index.url.clone(),
            format: IndexFormat::Simple,
        }),
        conflict: None,
    })
}

fn project_wheel(
    line: &Spanned<PipRequirement>,
    path: &str,
    project: &BTreeMap<String, ProjectWheel>,
    target: &Target,
) -> Result<RequirementSource, Refusal> {
    let Some(wheel) = project.get(path) else {
        return Err(refuse(
            line,
            format!("the wheel `{path}` does not exist"),
            "no such file in the project",
            "build it first, or correct the path",
        ));
    };
    let file = path.rsplit('/').next().unwrap_or(path);
    let filename = WheelFilename::from_str(file).map_err(|error| {
        refuse(
            line,
            format!("`{file}` is not the name of a wheel: {error}"),
            "not a wheel",
            "a wheel is named `name-version-python-abi-platform.whl`",
        )
    })?;
    if filename.name.as_ref() != line.name {
        return Err(refuse(
            line,
            format!(
                "the wheel `{file}` is of `{}`, not of `{}`",
                filename.name, line.name
            ),
            "names another package",
            "make the name and the file agree",
        ));
    }
    fits(line, &filename, target)?;
    let url = VerbatimUrl::from_absolute_path(&wheel.path).map_err(|error| {
        refuse(
            line,
            format!("the path of the wheel `{path}` cannot be used: {error}"),
            "this path",
            "move the wheel to another folder",
        )
    })?;
    Ok(RequirementSource::Path {
        install_path: wheel.path.clone().into_boxed_path(),
        ext: DistExtension::Wheel,
        url,
    })
}

/// Direct URLs must be wheels that fit; everything else would have to be built.
fn wheels_only(
    line: &Spanned<PipRequirement>,
    requirement: &Requirement,
    target: &Target,
) -> Result<(), Refusal> {
    match &requirement.source {
        RequirementSource::Registry { .. } => Ok(()),
        RequirementSource::Path { .. } if line.wheel.is_some() => Ok(()),
        RequirementSource::Url {
            location,
            ext: DistExtension::Wheel,
            ..
        } => {
            let file = location
                .path_segments()
                .and_then(|mut parts| parts.next_back());
            let file =
                percent_encoding::percent_decode_str(file.unwrap_or_default()).decode_utf8_lossy();
            match WheelFilename::from_str(&file) {
                Ok(filename) => fits(line, &filename, target),
                Err(error) => Err(refuse(
                    line,
                    format!(
                        "{} does not end in the name of a wheel: {error}",
                        redact(location.as_str())
                    ),
                    "not a wheel",
                    "give the URL of a file named `name-version-python-abi-platform.whl`",
                )),
            }
        }
        _ => Err(refuse(
            line,
            format!(
                "`{}` would have to be built from source, and imagewright takes only wheels",
                line.name
            ),
            "not a wheel",
            "build a wheel of it and name that with `wheel=` or its URL",
        )),
    }
}

fn fits(
    line: &Spanned<PipRequirement>,
    filename: &WheelFilename,
    target: &Target,
) -> Result<(), Refusal> {
    if filename.is_compatible(&target.tags) {
        return Ok(());
    }
    Err(refuse(
        line,
        format!(
            "the wheel `{filename}` does not run on {}",
            target.described
        ),
        "made for another platform or Python",
        "name a wheel for this platform and Python, or restrict the image's platforms",
    ))
}

fn exclude_newer(
    request: &PythonRequest<'_>,
    problems: &mut Problems,
) -> Option<(Spanned<String>, ExcludeNewer)> {
    let spanned = request.exclude_newer?;
    // Anything but a full instant would depend on this machine's clock or time zone.
    let instant = spanned.contains('T') && spanned.len() >= "2024-01-01T00:00:00Z".len();
    match ExcludeNewerValue::from_str(spanned) {
        Ok(value) if instant => Some((spanned.clone(), ExcludeNewer::global(value))),
        _ => {
            problems.0.push(
                Problem::new(
                    &spanned.source,
                    spanned.span,
                    format!("`{}` is not an instant", spanned.value),
                    "not an RFC 3339 date and time",
                )
                .help("write it as in `2025-06-30T00:00:00Z`"),
            );
            None
        }
    }
}

/// The version that specifiers pin, if they pin one.
pub(super) fn pinned(specifiers: &VersionSpecifiers) -> Option<&Version> {
    let [one] = specifiers.as_ref() else {
        return None;
    };
    matches!(one.operator(), Operator::Equal | Operator::ExactEqual).then(|| one.version())
}

/// Hashes bind where the version is pinned, as pip demands; the rest is checked afterwards.
fn hash_strategy(lines: &[Line]) -> HashStrategy {
    let mut hashes = BTreeMap::<VersionId, Vec<HashDigest>>::new();
    for line in lines.iter().filter(|line| line.role != Role::Override) {
        let digests = line.text.hashes.iter();
        let digests: Vec<_> = digests
            .filter_map(|hash| HashDigest::from_str(hash).ok())
            .collect();
        let version = line.specifiers().and_then(pinned);
        if let Some(version) = version.filter(|_| !digests.is_empty()) {
            let name = line.requirement.name.clone();
            let id = VersionId::from_registry(name, version.clone());
            hashes.entry(id).or_default().extend(digests);
        }
    }
    if hashes.is_empty() {
        return HashStrategy::None;
    }
    HashStrategy::Verify(Arc::new(hashes.into_iter().collect()))
}
