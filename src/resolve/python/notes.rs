//! Surprises in a solution: old releases that were taken only because newer ones have no wheel.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use uv_distribution_types::{Requirement, RequirementSource};
use uv_normalize::PackageName;
use uv_pep440::{Version, VersionSpecifiers};

use super::listing::{Lister, Listing};
use super::pins::Chosen;
use super::request::pinned;
use super::wheels_only::Seen;

/// Most listings asked for at one time.
const CONCURRENT: usize = 16;

/// One sentence per surprise.
pub(super) async fn warnings(chosen: &[Chosen], seen: &Seen, lister: &Lister<'_>) -> Vec<String> {
    let demands = demands(chosen, seen, lister);
    let open = chosen.iter().filter(|one| {
        let pins = demands.get(&one.name).into_iter().flatten();
        one.from_index && !pins.into_iter().any(|one| pinned(one).is_some())
    });
    let found: Vec<Option<String>> = futures_util::stream::iter(open.map(|one| {
        let demands = &demands;
        Box::pin(async move { warning(one, demands, seen, lister).await })
    }))
    .buffered(CONCURRENT)
    .collect()
    .await;
    found.into_iter().flatten().collect()
}

/// Package → what the manifest and the solution's other packages demand of its version.
fn demands(
    chosen: &[Chosen],
    seen: &Seen,
    lister: &Lister<'_>,
) -> BTreeMap<PackageName, Vec<VersionSpecifiers>> {
    let mut demands = BTreeMap::<PackageName, Vec<VersionSpecifiers>>::new();
    let mut add = |requirement: &Requirement| {
        if let RequirementSource::Registry { specifier, .. } = &requirement.source {
            let of_package = demands.entry(requirement.name.clone()).or_default();
            of_package.push(specifier.clone());
        }
    };
    for line in &lister.input.lines {
        if lister.applies(&line.requirement) {
            add(&line.requirement);
        }
    }
    for one in chosen {
        let requires = seen.requires(&one.name, &one.version);
        for requirement in requires.iter().flat_map(|all| all.iter()) {
            let markers = &lister.input.target.markers;
            if requirement.evaluate_markers(Some(markers), &one.extras) {
                add(requirement);
            }
        }
    }
    demands
}

async fn warning(
    one: &Chosen,
    demands: &BTreeMap<PackageName, Vec<VersionSpecifiers>>,
    seen: &Seen,
    lister: &Lister<'_>,
) -> Option<String> {
    let (name, version) = (&one.name, &one.version);
    let listing = lister.list(name).await.ok()?;
    let allowed = |candidate: &Version| {
        let mut all = demands.get(name).into_iter().flatten();
        all.all(|specifiers| specifiers.contains(candidate))
    };
    let newer: Vec<_> = listing
        .0
        .range(version..)
        .filter(|(other, release)| {
            *other > version
                && !release.out_of_question
                && (!other.any_prerelease() || version.any_prerelease())
                && allowed(other)
        })
        .collect();
    let (newest, release) = newer.last()?;
    if newer.iter().all(|(_, release)| !release.usable) {
        let what = if release.any_wheel {
            format!(
                "no newer release has a wheel for {}",
                lister.input.target.described
            )
        } else {
            "newer releases exist only as source".into()
        };
        return Some(format!(
            "{name} {version} is taken although {newest} exists: {what}"
        ));
    }
    let (tried, requires) = newer
        .iter()
        .rev()
        .find_map(|(tried, _)| Some((*tried, seen.requires(name, tried)?)))?;
    for requirement in requires.iter().filter(|needed| lister.applies(needed)) {
        if let Some(missing) = without_wheel(requirement, lister).await {
            return Some(format!(
                "{name} {version} is taken although {tried} exists: {tried} needs {missing}"
            ));
        }
    }
    None
}

/// Says so if no allowed release of what `requirement` asks for has a wheel that runs.
async fn without_wheel(requirement: &Requirement, lister: &Lister<'_>) -> Option<String> {
    let RequirementSource::Registry { specifier, .. } = &requirement.source else {
        return None;
    };
    let name = &requirement.name;
    let listing = lister.list(name).await.ok()?;
    no_usable(&listing, name, lister, |version| {
        specifier.contains(version)
    })
}

/// What is the matter when no release that `allowed` lets pass has a usable wheel; `None` if one has.
pub(super) fn no_usable(
    listing: &Listing,
    name: &PackageName,
    lister: &Lister<'_>,
    allowed: impl Fn(&Version) -> bool,
) -> Option<String> {
    let candidates: Vec<_> = listing
        .0
        .iter()
        .filter(|(version, release)| {
            allowed(version) && lister.manifest_allows(name, version) && !release.out_of_question
        })
        .collect();
    let (newest, _) = candidates.last()?;
    if candidates.iter().any(|(_, release)| release.usable) {
        return None;
    }
    let what = match candidates.as_slice() {
        [_] => format!("{name} {newest}"),
        _ => format!("{name} (newest: {newest})"),
    };
    Some(if candidates.iter().any(|(_, release)| release.any_wheel) {
        format!(
            "{what}, which has no wheel for {}",
            lister.input.target.described
        )
    } else {
        format!("{what}, which exists only as source")
    })
}
