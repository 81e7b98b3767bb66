//! In which order dpkg gets the packages (Debian Policy, 7.2): what a package pre-depends on is configured before it
//! is unpacked; all else is unpacked in rounds, as large as that allows, and configured by dpkg in its own order.

use std::collections::{BTreeMap, BTreeSet};

use super::deb::Control;

/// Indexes into the packages given, in the order of installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The essential packages and all they depend on; empty above a base.
    pub essential: Vec<usize>,
    /// The rest.
    pub rounds: Vec<Vec<usize>>,
}

/// Orders packages; `bootstrap` says that nothing is installed yet.
pub fn order(packages: &[Control], bootstrap: bool) -> Order {
    let graph = Graph::new(packages);
    let essential: BTreeSet<usize> = if bootstrap {
        graph.closure((0..packages.len()).filter(|&index| packages[index].essential))
    } else {
        BTreeSet::new()
    };
    let mut left: BTreeSet<usize> = (0..packages.len())
        .filter(|index| !essential.contains(index))
        .collect();
    let mut rounds = Vec::new();
    while !left.is_empty() {
        let ready: BTreeSet<usize> = left
            .iter()
            .copied()
            .filter(|&index| {
                let first = graph.closure(graph.pre_depends[index].iter().copied());
                first
                    .iter()
                    .all(|other| !left.contains(other) || *other == index)
            })
            .collect();
        // Pre-dependencies in a circle: nothing is right, so take them all.
        let ready = if ready.is_empty() {
            left.clone()
        } else {
            ready
        };
        left.retain(|index| !ready.contains(index));
        rounds.push(graph.sorted(&ready));
    }
    Order {
        essential: graph.sorted(&essential),
        rounds,
    }
}

struct Graph<'a> {
    packages: &'a [Control],
    pre_depends: Vec<BTreeSet<usize>>,
    all: Vec<BTreeSet<usize>>,
}

impl<'a> Graph<'a> {
    fn new(packages: &'a [Control]) -> Self {
        let mut by_name: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (index, package) in packages.iter().enumerate() {
            let names = package.provides.iter().chain([&package.package]);
            for name in names {
                by_name.entry(name).or_default().insert(index);
            }
        }
        let resolve = |groups: &[Vec<String>]| -> BTreeSet<usize> {
            let names = groups.iter().flatten();
            names
                .filter_map(|name| by_name.get(name.as_str()))
                .flatten()
                .copied()
                .collect()
        };
        let pre_depends: Vec<_> = packages
            .iter()
            .map(|package| resolve(&package.pre_depends))
            .collect();
        let all = packages
            .iter()
            .zip(&pre_depends)
            .map(|(package, first)| &resolve(&package.depends) | first)
            .collect();
        Self {
            packages,
            pre_depends,
            all,
        }
    }

    fn closure(&self, from: impl Iterator<Item = usize>) -> BTreeSet<usize> {
        let mut open: Vec<usize> = from.collect();
        let mut reached: BTreeSet<usize> = open.iter().copied().collect();
        while let Some(index) = open.pop() {
            for &other in &self.all[index] {
                if reached.insert(other) {
                    open.push(other);
                }
            }
        }
        reached
    }

    /// Dependencies first, by name where they leave a choice.
    fn sorted(&self, members: &BTreeSet<usize>) -> Vec<usize> {
        let mut by_name: Vec<usize> = members.iter().copied().collect();
        by_name.sort_by_key(|&index| &self.packages[index].package);
        let mut done = Vec::new();
        let mut seen = BTreeSet::new();
        for index in by_name {
            self.visit(index, members, &mut seen, &mut done);
        }
        done
    }

    fn visit(
        &self,
        index: usize,
        members: &BTreeSet<usize>,
        seen: &mut BTreeSet<usize>,
        done: &mut Vec<usize>,
    ) {
        if !members.contains(&index) || !seen.insert(index) {
            return;
        }
        let mut before: Vec<usize> = self.all[index].iter().copied().collect();
        before.sort_by_key(|&other| &self.packages[other].package);
        for other in before {
            self.visit(other, members, seen, done);
        }
        done.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, essential: bool, pre: &[&str], depends: &[&str]) -> Control {
        let groups = |names: &[&str]| names.iter().map(|name| vec![(*name).to_owned()]).collect();
        Control {
            package: name.into(),
            essential,
            pre_depends: groups(pre),
            depends: groups(depends),
            ..Control::default()
        }
    }

    fn names(packages: &[Control], order: &[usize]) -> Vec<String> {
        order
            .iter()
            .map(|&index| packages[index].package.clone())
            .collect()
    }

    #[test]
    fn essential_first_then_rounds_by_pre_dependency() {
        let packages = [
            package("app", false, &["helper"], &["data"]),
            package("data", false, &[], &["app"]),
            package("helper", false, &[], &["libc"]),
            package("dpkg", true, &["libc"], &[]),
            package("libc", false, &[], &[]),
        ];
        let found = order(&packages, true);
        assert_eq!(names(&packages, &found.essential), ["libc", "dpkg"]);
        let rounds: Vec<_> = found
            .rounds
            .iter()
            .map(|round| names(&packages, round))
            .collect();
        assert_eq!(rounds, [vec!["data", "helper"], vec!["app"]]);
        assert!(order(&packages, false).essential.is_empty());
    }

    #[test]
    fn a_circle_of_pre_dependencies_ends() {
        let packages = [
            package("a", false, &["b"], &[]),
            package("b", false, &["a"], &[]),
        ];
        assert_eq!(order(&packages, false).rounds.concat().len(), 2);
    }
}
