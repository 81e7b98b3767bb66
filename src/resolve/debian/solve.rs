//! Which packages satisfy all relationships at once: the archive's packages as a problem for resolvo.
//!
//! Every version of a package is a candidate. `Depends` and `Pre-Depends` are requirements whose alternatives may be
//! met by real packages or by providers; `Conflicts` and `Breaks` are constraints; `Recommends` does not count.
//! Preferred, in this order: what is installed, what was pinned before, the newest version, the first alternative,
//! and among providers the higher priority, then the name, as apt has it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use debversion::Version;
use resolvo::{
    Candidates, Condition, ConditionId, Dependencies, DependencyProvider,
    HintDependenciesAvailable, Interner, KnownDependencies, NameId, Requirement, SolvableId,
    Solver, SolverCache, StringId, UnsolvableOrCancelled, VersionSetId, VersionSetUnionId,
};

use super::packages::{Package, Universe};
use super::relation::{self, Relation};

/// What is asked of the solver.
#[derive(Debug)]
pub struct Query<'a> {
    /// What there is.
    pub universe: &'a Universe,
    /// Each must be met by one of its packages (indexes into the universe, all of one name).
    pub roots: Vec<Root>,
    /// Name → index of what is there already and stays, in this or a newer version.
    pub installed: BTreeMap<String, u32>,
    /// Name → version that is preferred, if it still exists.
    pub keep: &'a BTreeMap<String, String>,
}

/// One requirement from outside.
#[derive(Clone, Debug)]
pub struct Root {
    /// The package's name.
    pub name: String,
    /// How messages call it.
    pub text: String,
    /// Any one of these.
    pub members: Vec<u32>,
}

/// Packages that are needed and not yet installed, as sorted indexes.
///
/// # Errors
/// The reason why there is no solution, for people.
pub fn solve(query: &Query<'_>) -> Result<Vec<u32>, String> {
    let provider = Provider::new(query);
    let mut requirements: Vec<Requirement> = Vec::new();
    for (name, index) in &query.installed {
        let members = provider.candidates_of(name);
        let text = format!("(installed {})", query.universe.package(*index).version);
        requirements.push(provider.set(name, members, text).into());
    }
    for root in &query.roots {
        let members = root.members.iter().copied();
        let members = members
            .filter(|index| provider.is_allowed(*index))
            .collect();
        requirements.push(provider.set(&root.name, members, root.text.clone()).into());
    }
    let problem =
        resolvo::Problem::new().requirements(requirements.into_iter().map(Into::into).collect());
    let mut solver = Solver::new(provider);
    match solver.solve(problem) {
        Ok(found) => {
            let chosen: BTreeSet<u32> = found.into_iter().map(SolvableId::into_raw).collect();
            Ok(needed(query, solver.provider(), &chosen))
        }
        Err(UnsolvableOrCancelled::Unsolvable(conflict)) => Err(conflict
            .display_user_friendly(&solver)
            .to_string()
            .trim_end()
            .to_owned()),
        Err(UnsolvableOrCancelled::Cancelled(_)) => Err("the search was cancelled".into()),
    }
}

/// What of the solution is reachable: a search may leave packages behind that nothing needs any more.
fn needed(query: &Query<'_>, provider: &Provider<'_>, chosen: &BTreeSet<u32>) -> Vec<u32> {
    let of_name: BTreeMap<&str, u32> = chosen
        .iter()
        .map(|&index| (&*query.universe.package(index).name, index))
        .collect();
    let roots = query.roots.iter().map(|root| root.name.as_str());
    let names = roots.chain(query.installed.keys().map(String::as_str));
    let mut open: Vec<u32> = names
        .filter_map(|name| of_name.get(name).copied())
        .collect();
    let mut reached: BTreeSet<u32> = open.iter().copied().collect();
    while let Some(index) = open.pop() {
        for group in provider.requirements_of(index) {
            let met = group.members.iter().find(|member| chosen.contains(member));
            if let Some(&member) = met
                && reached.insert(member)
            {
                open.push(member);
            }
        }
    }
    let is_new = |index: &u32| {
        let name = &*query.universe.package(*index).name;
        query.installed.get(name) != Some(index)
    };
    reached.into_iter().filter(is_new).collect()
}

/// One requirement of a package: any of the members, best first.
struct Group {
    members: Vec<u32>,
    text: String,
    /// The first alternative's name, for messages when there are no members.
    name: String,
}

struct Set {
    name: NameId,
    members: BTreeSet<u32>,
    text: String,
}

/// Answers the solver's questions; its tables grow while it asks.
struct Provider<'a> {
    query: &'a Query<'a>,
    names: RefCell<Vec<String>>,
    name_ids: RefCell<BTreeMap<String, NameId>>,
    sets: RefCell<Vec<Set>>,
    unions: RefCell<Vec<Vec<VersionSetId>>>,
}

impl<'a> Provider<'a> {
    fn new(query: &'a Query<'a>) -> Self {
        Self {
            query,
            names: RefCell::default(),
            name_ids: RefCell::default(),
            sets: RefCell::default(),
            unions: RefCell::default(),
        }
    }

    fn package(&self, index: u32) -> &'a Package {
        self.query.universe.package(index)
    }

    fn name_id(&self, name: &str) -> NameId {
        if let Some(id) = self.name_ids.borrow().get(name) {
            return *id;
        }
        let mut names = self.names.borrow_mut();
        let id = NameId::from_raw(names.len() as u32);
        names.push(name.into());
        self.name_ids.borrow_mut().insert(name.into(), id);
        id
    }

    fn set(&self, name: &str, members: Vec<u32>, text: String) -> VersionSetId {
        let name = self.name_id(name);
        let mut sets = self.sets.borrow_mut();
        sets.push(Set {
            name,
            members: members.into_iter().collect(),
            text,
        });
        VersionSetId(sets.len() as u32 - 1)
    }

    /// Installed packages stay or become newer, never older.
    fn is_allowed(&self, index: u32) -> bool {
        let package = self.package(index);
        match self.query.installed.get(&*package.name) {
            Some(&installed) if installed != index => {
                package.parsed_version() > self.package(installed).parsed_version()
            }
            _ => true,
        }
    }

    /// Candidates of a real package, best first.
    fn candidates_of(&self, name: &str) -> Vec<u32> {
        let mut found = self.query.universe.versions(name);
        found.retain(|&index| self.is_allowed(index));
        found.sort_by_key(|&index| self.rank(index));
        found
    }

    /// Smaller is better; the sort is stable, so that newer versions come first among equals.
    fn rank(&self, index: u32) -> u8 {
        let package = self.package(index);
        if self.is_installed(index) {
            return 0;
        }
        match self.query.keep.get(&*package.name) {
            Some(kept) if **kept == *package.version => 1,
            _ => 2,
        }
    }

    fn is_installed(&self, index: u32) -> bool {
        self.query.installed.get(&*self.package(index).name) == Some(&index)
    }

    /// What satisfies one alternative: real packages, then providers, best first.
    fn satisfying(&self, relation: &Relation<'_>) -> Vec<u32> {
        if !relation.fits_architecture(&self.query.universe.architecture) {
            return Vec::new();
        }
        let fits = |index: &u32| {
            let version = self.package(*index).parsed_version();
            version.is_some_and(|version| relation.fits_version(&version))
        };
        let real = self.candidates_of(relation.name);
        let mut found: Vec<u32> = real.into_iter().filter(fits).collect();
        let mut providers: Vec<u32> = self
            .providing(relation)
            .filter(|&index| *self.package(index).name != *relation.name && self.is_allowed(index))
            .collect();
        providers.sort_by_cached_key(|&index| {
            let package = self.package(index);
            let newest = std::cmp::Reverse(package.parsed_version());
            (package.priority, &package.name, self.rank(index), newest)
        });
        found.extend(providers);
        found
    }

    /// Packages that provide what the relation names, in a version that it accepts.
    fn providing<'r>(&self, relation: &'r Relation<'_>) -> impl Iterator<Item = u32> + use<'a, 'r> {
        let providers = self.query.universe.providers(relation.name).iter();
        providers
            .filter(|(_, version)| match (&relation.version, version) {
                (None, _) => true,
                (Some(_), Some(version)) => version
                    .parse::<Version>()
                    .is_ok_and(|version| relation.fits_version(&version)),
                (Some(_), None) => false,
            })
            .map(|(index, _)| *index)
    }

    fn requirements_of(&self, index: u32) -> Vec<Group> {
        let package = self.package(index);
        let groups = relation::parse(&package.depends);
        let is_installed = self.is_installed(index);
        groups
            .iter()
            .map(|alternatives| self.group(alternatives))
            // What an installed package lacks already is not this request's affair.
            .filter(|group| {
                !is_installed
                    || group
                        .members
                        .iter()
                        .any(|&member| self.is_installed(member))
            })
            .collect()
    }

    fn group(&self, alternatives: &[Relation<'_>]) -> Group {
        let mut members = Vec::new();
        for relation in alternatives {
            for index in self.satisfying(relation) {
                if !members.contains(&index) {
                    members.push(index);
                }
            }
        }
        // Bases are made with merged /usr, so the package that says so is right and the one that merges is not.
        members.sort_by_key(|&index| {
            let merged = &*self.package(index).name == "usr-is-merged";
            (!self.is_installed(index), !merged)
        });
        let text: Vec<&str> = alternatives.iter().map(|relation| relation.text).collect();
        Group {
            members,
            name: alternatives.first().map_or("?", |first| first.name).into(),
            text: text.join(" | "),
        }
    }

    /// The group as resolvo wants it: one set per package name, in order of preference.
    fn requirement(&self, group: Group) -> Requirement {
        let mut order: Vec<&str> = Vec::new();
        let mut by_name: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for &member in &group.members {
            let name = &*self.package(member).name;
            if !order.contains(&name) {
                order.push(name);
            }
            by_name.entry(name).or_default().push(member);
        }
        let sets: Vec<VersionSetId> = order
            .into_iter()
            .map(|name| {
                let members = by_name.remove(name).unwrap_or_default();
                self.set(name, members, restriction(&group.text, name))
            })
            .collect();
        match sets.as_slice() {
            [] => {
                let text = restriction(&group.text, &group.name);
                self.set(&group.name, Vec::new(), text).into()
            }
            [one] => (*one).into(),
            _ => {
                let mut unions = self.unions.borrow_mut();
                unions.push(sets);
                VersionSetUnionId(unions.len() as u32 - 1).into()
            }
        }
    }

    /// What the package does not tolerate, as sets of what it does.
    fn constraints(&self, index: u32) -> Vec<VersionSetId> {
        let package = self.package(index);
        let mut banned: BTreeMap<&str, (BTreeSet<u32>, String)> = BTreeMap::new();
        for relation in relation::parse(&package.conflicts).iter().flatten() {
            let fits = |index: &u32| {
                let version = self.package(*index).parsed_version();
                version.is_some_and(|version| relation.fits_version(&version))
            };
            let real = self.query.universe.versions(relation.name);
            let real = real.into_iter().filter(fits);
            for other in real.chain(self.providing(relation)) {
                let other_name = &*self.package(other).name;
                // A package that conflicts with what it provides itself means the other providers.
                if *other_name == *package.name {
                    continue;
                }
                let (members, text) = banned.entry(other_name).or_default();
                members.insert(other);
                *text = format!("not {}", relation.text);
            }
        }
        banned
            .into_iter()
            .map(|(name, (banned, text))| {
                let mut members = self.candidates_of(name);
                members.retain(|member| !banned.contains(member));
                self.set(name, members, text)
            })
            .collect()
    }
}

/// What the relation says beyond the name, for messages.
fn restriction(text: &str, name: &str) -> String {
    match text.strip_prefix(name) {
        Some(rest) if !rest.contains('|') => rest.trim().to_owned(),
        _ => format!("(for `{text}`)"),
    }
}

impl Interner for Provider<'_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        let package = self.package(solvable.into_raw());
        format!("{} {}", package.name, package.version)
    }
    fn display_merged_solvables(&self, solvables: &[SolvableId]) -> impl Display + '_ {
        let Some(first) = solvables.first() else {
            return String::new();
        };
        let versions: BTreeSet<&str> = solvables
            .iter()
            .map(|solvable| &*self.package(solvable.into_raw()).version)
            .collect();
        let versions: Vec<&str> = versions.into_iter().collect();
        format!(
            "{} {}",
            self.package(first.into_raw()).name,
            versions.join(" | ")
        )
    }
    fn display_name(&self, name: NameId) -> impl Display + '_ {
        self.names.borrow()[name.into_raw() as usize].clone()
    }
    fn display_version_set(&self, set: VersionSetId) -> impl Display + '_ {
        self.sets.borrow()[set.0 as usize].text.clone()
    }
    fn display_string(&self, _: StringId) -> impl Display + '_ {
        ""
    }
    fn version_set_name(&self, set: VersionSetId) -> NameId {
        self.sets.borrow()[set.0 as usize].name
    }
    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        self.name_id(&self.package(solvable.into_raw()).name)
    }
    fn version_sets_in_union(
        &self,
        union: VersionSetUnionId,
    ) -> impl Iterator<Item = VersionSetId> {
        self.unions.borrow()[union.0 as usize].clone().into_iter()
    }
    fn resolve_condition(&self, _: ConditionId) -> Condition {
        // No requirement here has a condition, so the solver has no id to ask about.
        Condition::Requirement(VersionSetId(0))
    }
}

impl DependencyProvider for Provider<'_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let sets = self.sets.borrow();
        let members = &sets[set.0 as usize].members;
        let mut kept = candidates.to_vec();
        kept.retain(|candidate| members.contains(&candidate.into_raw()) != inverse);
        kept
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let name = self.names.borrow()[name.into_raw() as usize].clone();
        let candidates = self.candidates_of(&name);
        if candidates.is_empty() {
            return None;
        }
        Some(Candidates {
            candidates: candidates.into_iter().map(SolvableId::from_raw).collect(),
            hint_dependencies_available: HintDependenciesAvailable::None,
            ..Candidates::default()
        })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        solvables.sort_by_cached_key(|solvable| {
            let index = solvable.into_raw();
            let newest = std::cmp::Reverse(self.package(index).parsed_version());
            (self.rank(index), newest, index)
        });
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        let index = solvable.into_raw();
        let groups = self.requirements_of(index);
        Dependencies::Known(KnownDependencies {
            requirements: groups
                .into_iter()
                .map(|group| self.requirement(group).into())
                .collect(),
            constrains: self.constraints(index),
        })
    }
}
