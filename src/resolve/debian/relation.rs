//! Relationship fields of Debian packages (Debian Policy, chapter 7): `a (>= 1) | b:any, c`.

use debversion::Version;

/// How a relation restricts a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Exactly,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// The operator and what follows it; the deprecated `<` and `>` mean `<=` and `>=`.
    fn split(text: &str) -> Option<(Self, &str)> {
        [
            ("<<", Self::Earlier),
            ("<=", Self::EarlierOrEqual),
            (">=", Self::LaterOrEqual),
            (">>", Self::Later),
            ("=", Self::Exactly),
            ("<", Self::EarlierOrEqual),
            (">", Self::LaterOrEqual),
        ]
        .into_iter()
        .find_map(|(sign, operator)| Some((operator, text.strip_prefix(sign)?)))
    }

    /// Whether `found` satisfies this operator against `wanted`.
    pub fn holds(self, found: &Version, wanted: &Version) -> bool {
        match self {
            Self::Earlier => found < wanted,
            Self::EarlierOrEqual => found <= wanted,
            Self::Exactly => found == wanted,
            Self::LaterOrEqual => found >= wanted,
            Self::Later => found > wanted,
        }
    }
}

/// One package of a relationship field.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation<'a> {
    /// Package name, real or virtual.
    pub name: &'a str,
    /// What follows the colon: `any`, `native` or an architecture.
    pub qualifier: Option<&'a str>,
    /// The version restriction.
    pub version: Option<(Operator, Version)>,
    /// As written.
    pub text: &'a str,
}

impl<'a> Relation<'a> {
    /// Reads one alternative; `None` if it is not one.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let (head, restriction) = match text.split_once('(') {
            Some((head, rest)) => (head.trim(), Some(rest.split_once(')')?.0.trim())),
            None => (text.split_whitespace().next()?, None),
        };
        let (name, qualifier) = match head.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier)),
            None => (head, None),
        };
        if name.is_empty() {
            return None;
        }
        let version = match restriction {
            Some(restriction) => {
                let (operator, wanted) = Operator::split(restriction)?;
                Some((operator, wanted.trim().parse().ok()?))
            }
            None => None,
        };
        Some(Self {
            name,
            qualifier,
            version,
            text,
        })
    }

    /// Whether a package of this architecture (`all` or the image's) can be meant.
    pub fn fits_architecture(&self, architecture: &str) -> bool {
        match self.qualifier {
            None | Some("any" | "native") => true,
            Some(named) => named == architecture,
        }
    }

    /// Whether `version` satisfies the restriction.
    pub fn fits_version(&self, version: &Version) -> bool {
        match &self.version {
            Some((operator, wanted)) => operator.holds(version, wanted),
            None => true,
        }
    }
}

/// The groups of a relationship field; in each, any one alternative suffices. What cannot be read is left out of its
/// group, so that a group of nothing readable is one that nothing satisfies.
pub fn parse(field: &str) -> Vec<Vec<Relation<'_>>> {
    field
        .split(',')
        .filter(|group| !group.trim().is_empty())
        .map(|group| group.split('|').filter_map(Relation::parse).collect())
        .collect()
}

/// The names that a `Provides` field gives, with their versions, if any.
pub fn provided(field: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    field.split(',').filter_map(|entry| {
        let (head, version) = match entry.split_once('(') {
            Some((head, rest)) => {
                let version = rest.split_once(')')?.0.trim().strip_prefix('=')?;
                (head, Some(version.trim()))
            }
            None => (entry, None),
        };
        let name = head.split(':').next()?.trim();
        (!name.is_empty()).then_some((name, version))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_groups_alternatives_qualifiers_and_restrictions() {
        let groups =
            parse("libc6 (>= 2.34), default-mta | mail-transport-agent,python3:any (<<3.12),\n x");
        let names: Vec<Vec<&str>> = groups
            .iter()
            .map(|group| group.iter().map(|relation| relation.name).collect())
            .collect();
        assert_eq!(
            names,
            [
                vec!["libc6"],
                vec!["default-mta", "mail-transport-agent"],
                vec!["python3"],
                vec!["x"]
            ]
        );
        assert_eq!(groups[2][0].qualifier, Some("any"));
        let (operator, version) = groups[2][0].version.as_ref().unwrap();
        assert_eq!(
            (*operator, version.to_string().as_str()),
            (Operator::Earlier, "3.12")
        );
    }

    #[test]
    fn compares_as_policy_says() {
        for (relation, found, expected) in [
            ("a (>= 1.0~rc1)", "1.0", true),
            ("a (>= 1.0)", "1.0~rc1", false),
            ("a (<< 2:1)", "1:9", true),
            ("a (= 1.0-1)", "1.0-1+b1", false),
            ("a (> 1)", "1", true),
            ("a", "0~~", true),
        ] {
            let relation = Relation::parse(relation).unwrap();
            assert_eq!(
                relation.fits_version(&found.parse().unwrap()),
                expected,
                "{relation:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_satisfies_nothing() {
        assert_eq!(parse("a (?? 1)"), [vec![]]);
        assert!(parse(" , ").is_empty());
        let given: Vec<_> = provided("awk, perlapi-5.36.0, libfoo (= 2:1.0), ").collect();
        assert_eq!(
            given,
            [
                ("awk", None),
                ("perlapi-5.36.0", None),
                ("libfoo", Some("2:1.0"))
            ]
        );
    }
}
