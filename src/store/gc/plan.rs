//! Which things go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::{Found, Inventory, Item, Kind, Roots};

/// What may go.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What nothing roots goes if it was last used before this.
    pub before: SystemTime,
    /// Then what was used least recently goes, until the store has at most so many bytes.
    pub max_size: Option<u64>,
    /// Also what is rooted goes.
    pub everything: bool,
    /// Nothing else is looked at, if given.
    pub only: Option<BTreeSet<Item>>,
    /// Runs that may go; others never do.
    pub runs: BTreeSet<String>,
}

/// What goes, and what would have to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// By kind and name, which is the order of removal.
    pub items: BTreeMap<Item, Found>,
    /// Bytes above the policy's `max_size` that stay nevertheless: they are rooted or in use.
    pub above: u64,
}

/// Decides. `leased` is what living processes use.
///
/// What nothing roots goes by age. Where that is not enough for the size, the least recently used of it goes too; then
/// trees that are rooted, because they are unpacked again from what stays. Nothing else that is rooted goes, unless the
/// policy says everything. A thing that others need counts as used when they were, and goes only with them.
pub fn plan(
    inventory: &Inventory,
    roots: &Roots,
    leased: &BTreeSet<Item>,
    policy: &Policy,
) -> Plan {
    let decision = Decision {
        inventory,
        policy,
        unknown: roots.unknown,
        rooted: roots.closure(roots.held.iter().cloned()),
        leased: roots.closure(leased.iter().cloned()),
        users: users(inventory, roots),
    };
    let mut loose = decision.sorted(|item| decision.is_loose(item));
    let everything = policy.everything;
    let mut items: BTreeSet<Item> = decision.runs();
    items.extend(
        loose
            .extract_if(.., |(used, _)| everything || *used < policy.before)
            .map(|(_, item)| item.clone()),
    );
    let Some(most) = policy.max_size else {
        return decision.plan(items, 0);
    };
    let size = |item: &Item| inventory.items.get(item).map_or(0, |found| found.bytes);
    let gone: u64 = items.iter().map(size).sum();
    let mut left = inventory.bytes() - gone;
    loose.extend(decision.sorted(|item| decision.is_rooted_tree(item)));
    for (_, item) in loose {
        if left <= most {
            break;
        }
        left -= size(item);
        items.insert(item.clone());
    }
    decision.plan(items, left.saturating_sub(most))
}

struct Decision<'a> {
    inventory: &'a Inventory,
    policy: &'a Policy,
    unknown: bool,
    rooted: BTreeSet<Item>,
    leased: BTreeSet<Item>,
    /// Thing → those that are there and need it.
    users: BTreeMap<&'a Item, Vec<&'a Item>>,
}

impl<'a> Decision<'a> {
    /// Whether the policy looks at it and nobody uses it.
    fn may_go(&self, item: &Item) -> bool {
        let only = self.policy.only.as_ref();
        item.kind != Kind::Run
            && !self.leased.contains(item)
            && only.is_none_or(|only| only.contains(item))
    }

    fn is_rooted(&self, item: &Item) -> bool {
        let remade = matches!(item.kind, Kind::Tree | Kind::Cache);
        !self.policy.everything && (self.rooted.contains(item) || (self.unknown && !remade))
    }

    /// Nothing keeps it, nor those that need it.
    fn is_loose(&self, item: &Item) -> bool {
        let mut users = self.users.get(item).into_iter().flatten();
        self.may_go(item) && !self.is_rooted(item) && users.all(|user| self.is_loose(user))
    }

    fn is_rooted_tree(&self, item: &Item) -> bool {
        item.kind == Kind::Tree && self.may_go(item) && self.is_rooted(item)
    }

    /// Runs go when the policy names them, never by their size.
    fn runs(&self) -> BTreeSet<Item> {
        let named = self.policy.runs.iter();
        named
            .map(|name| Item::new(Kind::Run, name))
            .filter(|item| self.inventory.items.contains_key(item))
            .collect()
    }

    /// Last use of the thing and of those that need it.
    fn used(&self, item: &Item) -> Option<SystemTime> {
        let users = self.users.get(item).into_iter().flatten();
        let own = self.inventory.items.get(item).map(|found| found.used);
        users.map(|user| self.used(user)).fold(own, Option::max)
    }

    /// What `wanted` says, the least recently used first; at the same time, what needs others before these.
    fn sorted(&self, wanted: impl Fn(&Item) -> bool) -> Vec<(SystemTime, &'a Item)> {
        let items = self.inventory.items.keys().filter(|item| wanted(item));
        let mut sorted: Vec<_> = items
            .filter_map(|item| Some((self.used(item)?, item)))
            .collect();
        sorted.sort();
        sorted
    }

    fn plan(&self, items: BTreeSet<Item>, above: u64) -> Plan {
        let found = |item: Item| Some((item.clone(), *self.inventory.items.get(&item)?));
        Plan {
            items: items.into_iter().filter_map(found).collect(),
            above,
        }
    }
}

fn users<'a>(inventory: &Inventory, roots: &'a Roots) -> BTreeMap<&'a Item, Vec<&'a Item>> {
    let mut users = BTreeMap::<&Item, Vec<&Item>>::new();
    for (user, needs) in &roots.needs {
        if inventory.items.contains_key(user) {
            for need in needs {
                users.entry(need).or_default().push(user);
            }
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(day: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400)
    }

    fn item(text: &str) -> Item {
        Item::parse(text).unwrap()
    }

    /// name, bytes, day of last use
    const STORE: [(&str, u64, u64); 8] = [
        ("recipes/old", 1, 1),
        ("recipes/new", 1, 9),
        ("artifacts/of-old", 10, 1),
        ("artifacts/of-both", 10, 1),
        ("blobs/rooted", 10, 1),
        ("blobs/leased", 10, 1),
        ("trees/rooted", 10, 2),
        ("runs/job", 10, 1),
    ];

    fn store() -> (Inventory, Roots, BTreeSet<Item>) {
        let items = STORE.map(|(name, bytes, day)| {
            let used = at(day);
            (item(name), Found { bytes, used })
        });
        let needs = [
            ("recipes/old", vec!["artifacts/of-old", "artifacts/of-both"]),
            ("recipes/new", vec!["artifacts/of-both"]),
        ];
        let roots = Roots {
            held: ["blobs/rooted", "trees/rooted"].map(item).into(),
            needs: needs
                .map(|(user, needs)| (item(user), needs.into_iter().map(item).collect()))
                .into(),
            unknown: false,
        };
        let items = items.into();
        (Inventory { items }, roots, [item("blobs/leased")].into())
    }

    fn policy() -> Policy {
        Policy {
            before: at(5),
            max_size: None,
            everything: false,
            only: None,
            runs: BTreeSet::new(),
        }
    }

    #[track_caller]
    fn assert_goes(roots: &Roots, policy: &Policy, expected: &[&str], above: u64) {
        let (inventory, _, leased) = store();
        let plan = plan(&inventory, roots, &leased, policy);
        let found: Vec<Item> = plan.items.into_keys().collect();
        let expected: Vec<Item> = expected.iter().map(|name| item(name)).collect();
        assert_eq!((found, plan.above), (expected, above));
    }

    #[test]
    fn old_things_go_unless_rooted_used_or_needed_by_what_stays() {
        let (_, roots, _) = store();
        assert_goes(&roots, &policy(), &["recipes/old", "artifacts/of-old"], 0);
    }

    #[test]
    fn for_the_size_the_least_recently_used_goes_then_trees_and_nothing_that_is_rooted() {
        let (_, roots, _) = store();
        let at_most = |bytes| Policy {
            max_size: Some(bytes),
            ..policy()
        };
        let by_age = ["recipes/old", "artifacts/of-old"];
        assert_goes(&roots, &at_most(51), &by_age, 0);
        let with_new = [
            "recipes/new",
            "recipes/old",
            "artifacts/of-both",
            "artifacts/of-old",
        ];
        assert_goes(&roots, &at_most(40), &with_new, 0);
        let with_tree = [
            "recipes/new",
            "recipes/old",
            "trees/rooted",
            "artifacts/of-both",
            "artifacts/of-old",
        ];
        assert_goes(&roots, &at_most(39), &with_tree, 0);
        assert_goes(&roots, &at_most(5), &with_tree, 25);
    }

    #[test]
    fn where_a_root_cannot_be_read_only_trees_may_go() {
        let (_, mut roots, _) = store();
        roots.held.clear();
        roots.unknown = true;
        assert_goes(&roots, &policy(), &["trees/rooted"], 0);
    }

    #[test]
    fn everything_is_everything_that_nobody_uses_and_runs_go_by_name() {
        let (_, roots, _) = store();
        let all = Policy {
            everything: true,
            ..policy()
        };
        let expected = [
            "recipes/new",
            "recipes/old",
            "trees/rooted",
            "blobs/rooted",
            "artifacts/of-both",
            "artifacts/of-old",
        ];
        assert_goes(&roots, &all, &expected, 0);
        let runs = Policy {
            before: at(0),
            runs: ["job".to_owned(), "other".to_owned()].into(),
            ..policy()
        };
        assert_goes(&roots, &runs, &["runs/job"], 0);
    }

    #[test]
    fn what_is_named_goes_only_if_all_that_need_it_do() {
        let (_, roots, _) = store();
        let only = |names: &[&str]| Policy {
            before: at(100),
            only: Some(names.iter().map(|name| item(name)).collect()),
            ..policy()
        };
        assert_goes(&roots, &only(&["artifacts/of-old"]), &[], 0);
        let both = ["recipes/old", "artifacts/of-old"];
        assert_goes(&roots, &only(&both), &both, 0);
    }
}
