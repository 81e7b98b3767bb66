//! The words in which the language is told: places, forms of values, rules for nodes; and questions to the table.
//!
//! Validation, "did you mean" and the KDL schema all come from the table in `rules`, so that they cannot drift apart. What the
//! table cannot say (bases, references between nodes, templates) is checked where the manifest is put together.

use super::rules::RULES;

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Directly in the file; settings here hold for every image.
    Top,
    /// In a `base`.
    Base,
    /// In an `image`.
    Image,
    /// In a `run`.
    Run,
}

impl Place {
    pub(super) const ALL: [Self; 4] = [Self::Top, Self::Base, Self::Image, Self::Run];

    /// As messages name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Top => "at the top level",
            Self::Base => "in `base`",
            Self::Image => "in `image`",
            Self::Run => "in `run`",
        }
    }
}

/// The form of one value; `values` checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Any text, without control characters.
    Text,
    /// Text that is not empty.
    Word,
    /// The name of an image, base or project.
    Name,
    /// The name of a run; may hold `{axis}`.
    RunName,
    /// The name of an index.
    IndexName,
    /// A registry and a repository prefix.
    Registry,
    /// Which repositories a registry has.
    Layout,
    /// An Ed25519 public key.
    PublicKey,
    /// A tag; may hold `{version}` and `{git}`.
    Tag,
    /// A version that may stand in a tag.
    TagVersion,
    /// An image in a registry, or `oci:` and a folder of the project.
    ImageReference,
    /// A Debian suite.
    Suite,
    /// A Python minor version.
    Python,
    /// A Debian package name.
    OsName,
    /// A Debian version or upstream version.
    OsVersion,
    /// A PEP 508 requirement.
    Requirement,
    /// PEP 440 specifiers.
    Specifier,
    /// A path relative to the manifest.
    SourcePath,
    /// A wheel file, relative to the manifest.
    WheelPath,
    /// An absolute path in the image that files may be put at.
    Target,
    /// An absolute path in the image.
    Absolute,
    /// Octal permission bits.
    Mode,
    /// 64 hex digits.
    Sha256,
    /// A URL without user info and query.
    Url,
    /// The same; may hold `{timestamp}`.
    SnapshotUrl,
    /// A URL without user info; a query may stand.
    FetchUrl,
    /// What imagewright builds for.
    Platform,
    /// A Unix login name.
    UserName,
    /// A user or group id.
    Id,
    /// `#true` or `#false`.
    Boolean,
    /// The name of an environment variable.
    EnvName,
    /// The key of a label or annotation.
    Key,
    /// An amount of memory.
    Size,
    /// Cores or thousandths of them.
    Cpu,
    /// A number of processes.
    Count,
    /// A length of time.
    Duration,
    /// `none` or `host`.
    Network,
    /// An RFC 3339 date or timestamp.
    Instant,
    /// Debian archive components, separated by spaces.
    Components,
}

impl Form {
    /// The KDL types that may carry it, as the schema language calls them.
    pub(super) fn types(self) -> &'static [&'static str] {
        match self {
            Self::Id | Self::Count => &["number"],
            Self::Boolean => &["boolean"],
            Self::Mode | Self::Cpu => &["string", "number"],
            _ => &["string"],
        }
    }

    /// What to write, for people.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Text => "a string such as \"text\"",
            Self::Word => "a string that is not empty",
            Self::Name => "a name such as \"fraud_model\"",
            Self::RunName => "a name such as \"titanic\" or \"titanic-{seed}\"",
            Self::IndexName => "an index name such as \"internal\"",
            Self::Registry => "a registry and prefix such as \"registry.example.com/ml\"",
            Self::Layout => "\"split\", \"single\" or \"per-image\"",
            Self::PublicKey => "a public key: \"ed25519:\" and its 32 bytes in base64",
            Self::Tag => "a tag such as \"{version}\", \"{git}\" or \"stable\"",
            Self::TagVersion => "a version such as \"1.4.2\"",
            Self::SnapshotUrl => {
                "a URL such as \"https://snapshot.example.com/debian/{timestamp}\""
            }
            Self::ImageReference => {
                "an image such as \"registry.example.com/python:3.12-slim\" or \"oci:layout\""
            }
            Self::Suite => "a suite such as \"bookworm\"",
            Self::Python => "a version such as \"3.11\"",
            Self::OsName => "a Debian package name such as \"libgomp1\"",
            Self::OsVersion => "a Debian version such as \"2:9.0\"",
            Self::Requirement => "a package name, or a PEP 508 requirement such as \"numpy>=1.26\"",
            Self::Specifier => "a PEP 440 specifier such as \">=1.2,<2\"",
            Self::SourcePath => "a path below the manifest's folder such as \"src/\"",
            Self::WheelPath => {
                "a wheel below the manifest's folder such as \"dist/churn-1.0-py3-none-any.whl\""
            }
            Self::Target => "an absolute path in the image such as \"/app\"",
            Self::Absolute => "an absolute path such as \"/work\"",
            Self::Mode => "octal permission bits such as \"0755\"",
            Self::Sha256 => "the file's SHA-256, 64 hex digits",
            Self::Url | Self::FetchUrl => "a URL such as \"https://packages.example.com/simple\"",
            Self::Platform => "\"linux/amd64\" or \"linux/arm64\"",
            Self::UserName => "a login name such as \"app\"",
            Self::Id => "a number from 1 to 2147483647",
            Self::Boolean => "#true or #false",
            Self::EnvName => "a variable name such as \"OMP_NUM_THREADS\"",
            Self::Key => "a key such as \"org.opencontainers.image.source\"",
            Self::Size => "an amount of memory such as \"4000MB\" or \"2GiB\"",
            Self::Cpu => "cores such as \"1500m\" or \"2\"",
            Self::Count => "a number such as 512",
            Self::Duration => "a time such as \"90s\", \"1h\" or \"1h30m\"",
            Self::Network => "\"none\" or \"host\"",
            Self::Instant => {
                "a date such as \"2024-06-30\" or a time such as \"2024-06-30T12:00:00Z\""
            }
            Self::Components => "archive components such as \"main contrib\"",
        }
    }

    /// A regular expression for the schema, where one tells the form well enough.
    pub(super) fn pattern(self) -> Option<&'static str> {
        Some(match self {
            Self::Name => "^[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*$",
            Self::IndexName => "^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$",
            Self::Suite => "^[a-z][a-z0-9.-]*$",
            Self::Python => "^3\\.[0-9]{1,2}$",
            Self::OsName => "^[a-z0-9][a-z0-9+.-]+$",
            Self::OsVersion => "^[0-9][A-Za-z0-9.+:~-]*$",
            Self::WheelPath => "\\.whl$",
            Self::Target | Self::Absolute => "^/",
            Self::Mode => "^0?[0-7]{3}$",
            Self::Sha256 => "^[0-9a-f]{64}$",
            Self::UserName => "^[a-z_][a-z0-9_-]{0,31}$",
            Self::EnvName => "^[A-Za-z_][A-Za-z0-9_]*$",
            Self::Size => "^[0-9]+(?:\\.[0-9]+)?(?:B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
            Self::Cpu => "^(?:[0-9]+m|[0-9]+(?:\\.[0-9]{1,3})?)$",
            Self::Duration => "^(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9]+s)?$",
            Self::Url | Self::FetchUrl | Self::SnapshotUrl => "^https?://",
            Self::PublicKey => "^ed25519:[A-Za-z0-9+/]{43}=$",
            Self::Tag => {
                "^(?:[A-Za-z0-9_]|\\{version\\}|\\{git\\})(?:[A-Za-z0-9_.-]|\\{version\\}|\\{git\\})*$"
            }
            Self::TagVersion => "^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            _ => return None,
        })
    }

    /// All values that it may have, when they can be listed.
    pub(super) fn choices(self) -> &'static [&'static str] {
        match self {
            Self::Platform => &["linux/amd64", "linux/arm64"],
            Self::Network => &["none", "host"],
            Self::Layout => &["split", "single", "per-image"],
            _ => &[],
        }
    }
}

/// How often an argument stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Times {
    Once,
    Optional,
    /// One or more; the last argument of its node.
    Many,
}

/// One argument.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) times: Times,
}

/// One property.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) required: bool,
    pub(super) doc: &'static str,
}

/// What stands between a node's braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Children {
    None,
    /// The nodes of that place.
    Of(Place),
    /// Axis names, each with its values.
    Axes,
}

/// One node of the language.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) places: &'static [Place],
    pub(super) doc: &'static str,
    /// At most one in its parent.
    pub(super) single: bool,
    /// At most one in its parent with the same first argument.
    pub(super) keyed: bool,
    pub(super) arguments: &'static [Argument],
    pub(super) properties: &'static [Property],
    pub(super) children: Children,
    /// What people write who mean this node.
    pub(super) aliases: &'static [&'static str],
}

/// The rule for a node of that name at that place.
pub(super) fn rule(name: &str, place: Place) -> Option<&'static Rule> {
    rules_of(place).find(|rule| rule.name == name)
}

/// All rules of a place, in the order of the table.
pub(super) fn rules_of(place: Place) -> impl Iterator<Item = &'static Rule> {
    RULES
        .iter()
        .copied()
        .flatten()
        .filter(move |rule| rule.places.contains(&place))
}

/// All places where a node of that name may stand.
pub(super) fn places_of(name: &str) -> Vec<Place> {
    let stands = |place: &Place| rule(name, *place).is_some();
    Place::ALL.into_iter().filter(stands).collect()
}

/// The one of `known` that somebody most likely meant by `written`.
pub(super) fn did_you_mean<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if written.len() > 100 {
        return None;
    }
    let lower = written.to_lowercase().replace('_', "-");
    known
        .into_iter()
        .take(500)
        .map(|name| {
            let other = name.to_lowercase().replace('_', "-");
            let distance = strsim::osa_distance(&lower, &other);
            let extends =
                lower.len() >= 3 && (other.starts_with(&lower) || lower.starts_with(&other));
            (if extends { distance.min(2) } else { distance }, name)
        })
        .filter(|(distance, name)| {
            *distance
                <= (name.chars().count() / 3)
                    .clamp(1, 3)
                    .min(name.chars().count().saturating_sub(1))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
