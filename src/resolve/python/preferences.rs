//! Pins as the resolver takes them.

use std::collections::BTreeMap;
use std::str::FromStr;

use uv_normalize::PackageName;
use uv_pep440::Version;
use uv_requirements_txt::{RequirementEntry, RequirementsTxtRequirement};
use uv_resolver::Preference;

use super::request::{Line, Role};
use super::{PythonRequest, Upgrade};

/// The resolver takes the highest of a package's preferences; what counts here is the first that the lines allow, so
/// that it gets that one alone.
pub(super) fn preferences(request: &PythonRequest<'_>, lines: &[Line]) -> Vec<Preference> {
    let kept = |name: &str| match request.upgrade {
        Upgrade::None => true,
        Upgrade::All => false,
        Upgrade::Names(names) => !names.contains(name),
    };
    let mut chosen = BTreeMap::new();
    for (name, version) in request.pins.iter().filter(|(name, _)| kept(name)) {
        let (Ok(name), Ok(version)) = (PackageName::from_str(name), Version::from_str(version))
        else {
            continue;
        };
        if !chosen.contains_key(&name) && allows(lines, &name, &version) {
            chosen.insert(name, version);
        }
    }
    let preference = |(name, version): (PackageName, Version)| {
        let pin = format!("{name}=={version}");
        let requirement = uv_pep508::Requirement::from_str(&pin).ok()?;
        let entry = RequirementEntry {
            requirement: RequirementsTxtRequirement::Named(requirement),
            hashes: Vec::new(),
        };
        Preference::from_entry(entry).ok()?
    };
    chosen.into_iter().filter_map(preference).collect()
}

/// Whether the lines that name a package allow a version; those with a marker may not apply and are left out.
fn allows(lines: &[Line], name: &PackageName, version: &Version) -> bool {
    let named = lines.iter().filter(|line| line.requirement.name == *name);
    let (overrides, others): (Vec<_>, Vec<_>) = named.partition(|line| line.role == Role::Override);
    let in_force = if overrides.is_empty() {
        others
    } else {
        overrides
    };
    let always = |line: &&Line| line.requirement.marker.is_true();
    in_force
        .into_iter()
        .filter(always)
        .filter_map(Line::specifiers)
        .all(|specifiers| specifiers.contains(version))
}
