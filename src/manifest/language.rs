//! The manifest language as one table: which nodes there are, where they stand, and what they hold.
//!
//! Validation, "did you mean" and the KDL schema all come from [`RULES`], so that they cannot drift apart. What the
//! table cannot say (bases, references between nodes, templates) is checked where the manifest is put together.

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
            Self::Url | Self::FetchUrl => "^https?://",
            _ => return None,
        })
    }

    /// All values that it may have, when they can be listed.
    pub(super) fn choices(self) -> &'static [&'static str] {
        match self {
            Self::Platform => &["linux/amd64", "linux/arm64"],
            Self::Network => &["none", "host"],
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

const fn one(name: &'static str, form: Form) -> Argument {
    Argument {
        name,
        form,
        times: Times::Once,
    }
}

const fn maybe(name: &'static str, form: Form) -> Argument {
    Argument {
        name,
        form,
        times: Times::Optional,
    }
}

const fn many(name: &'static str, form: Form) -> Argument {
    Argument {
        name,
        form,
        times: Times::Many,
    }
}

const fn optional(name: &'static str, form: Form, doc: &'static str) -> Property {
    Property {
        name,
        form,
        required: false,
        doc,
    }
}

const fn required(name: &'static str, form: Form, doc: &'static str) -> Property {
    Property {
        name,
        form,
        required: true,
        doc,
    }
}

const LAYERED: &[Place] = &[Place::Base, Place::Image];
const EVERYWHERE_BUT_RUN: &[Place] = &[Place::Top, Place::Base, Place::Image];

const PLAIN: Rule = Rule {
    name: "",
    places: &[],
    doc: "",
    single: false,
    keyed: false,
    arguments: &[],
    properties: &[],
    children: Children::None,
    aliases: &[],
};

/// The whole language, in the order in which the schema shows it.
pub(super) static RULES: &[Rule] = &[
    Rule {
        name: "registry",
        places: &[Place::Top],
        doc: "Where images are pushed to and looked up.",
        single: true,
        arguments: &[one("registry", Form::Registry)],
        ..PLAIN
    },
    Rule {
        name: "base",
        places: &[Place::Top],
        doc: "What images build on. minimal, tabular, nlp, images and all are built in; each may be declared anew.",
        keyed: true,
        arguments: &[one("name", Form::Name)],
        properties: &[optional(
            "base",
            Form::Name,
            "The base that this one builds on; its own name means the built-in one.",
        )],
        children: Children::Of(Place::Base),
        ..PLAIN
    },
    Rule {
        name: "image",
        places: &[Place::Top],
        doc: "An image.",
        keyed: true,
        arguments: &[one("name", Form::Name)],
        properties: &[optional(
            "base",
            Form::Name,
            "The base; default `all`, or none when the image has `debian` or `from` itself.",
        )],
        children: Children::Of(Place::Image),
        aliases: &["managed_image", "container"],
        ..PLAIN
    },
    Rule {
        name: "image",
        places: &[Place::Base],
        doc: "Build on everything that a declared image asks for.",
        single: true,
        arguments: &[one("name", Form::Name)],
        ..PLAIN
    },
    Rule {
        name: "run",
        places: &[Place::Top],
        doc: "A stress-test run.",
        keyed: true,
        arguments: &[one("name", Form::RunName)],
        properties: &[
            required("image", Form::Name, "The image that it runs in."),
            optional("project", Form::Name, "Groups runs; default `default`."),
        ],
        children: Children::Of(Place::Run),
        aliases: &["test", "job", "stress-test"],
        ..PLAIN
    },
    Rule {
        name: "project",
        places: &[Place::Top],
        doc: "A group of runs.",
        keyed: true,
        arguments: &[one("name", Form::Name)],
        properties: &[optional(
            "description",
            Form::Text,
            "What the project is about.",
        )],
        ..PLAIN
    },
    Rule {
        name: "debian",
        places: LAYERED,
        doc: "Begin with a Debian suite.",
        single: true,
        arguments: &[one("suite", Form::Suite)],
        properties: &[
            optional(
                "mirror",
                Form::Url,
                "The archive's URL; default: the machine's settings.",
            ),
            optional(
                "components",
                Form::Components,
                "Archive components; default `main`.",
            ),
            optional(
                "keyring",
                Form::SourcePath,
                "OpenPGP keyring that verifies the archive.",
            ),
            optional(
                "updates",
                Form::Boolean,
                "Also use the updates and security suites; default #false.",
            ),
        ],
        ..PLAIN
    },
    Rule {
        name: "from",
        places: LAYERED,
        doc: "Begin with an image of a registry or of an OCI layout.",
        single: true,
        arguments: &[one("image", Form::ImageReference)],
        ..PLAIN
    },
    Rule {
        name: "python",
        places: LAYERED,
        doc: "The Python minor version.",
        single: true,
        arguments: &[one("version", Form::Python)],
        aliases: &["python_version", "python-version"],
        ..PLAIN
    },
    Rule {
        name: "os",
        places: LAYERED,
        doc: "An operating system package.",
        arguments: &[one("name", Form::OsName), maybe("version", Form::OsVersion)],
        aliases: &["apt", "deb", "package", "os_requirement", "os-package"],
        ..PLAIN
    },
    Rule {
        name: "pip",
        places: LAYERED,
        doc: "A Python package.",
        arguments: &[
            one("requirement", Form::Requirement),
            maybe("specifier", Form::Specifier),
        ],
        properties: &[
            optional(
                "index",
                Form::IndexName,
                "The declared index that must serve it.",
            ),
            optional(
                "wheel",
                Form::WheelPath,
                "A wheel file of the project to install.",
            ),
        ],
        aliases: &[
            "python-package",
            "pip_requirement",
            "pypi",
            "library",
            "dependency",
        ],
        ..PLAIN
    },
    Rule {
        name: "pip-from",
        places: LAYERED,
        doc: "A requirements file.",
        arguments: &[one("path", Form::SourcePath)],
        aliases: &["requirements", "pip_from", "requirements-file"],
        ..PLAIN
    },
    Rule {
        name: "constraint",
        places: EVERYWHERE_BUT_RUN,
        doc: "Which versions count, if a package is installed at all.",
        arguments: &[
            one("requirement", Form::Requirement),
            maybe("specifier", Form::Specifier),
        ],
        aliases: &["constrain"],
        ..PLAIN
    },
    Rule {
        name: "override",
        places: EVERYWHERE_BUT_RUN,
        doc: "Replaces what packages themselves demand of another.",
        arguments: &[
            one("requirement", Form::Requirement),
            maybe("specifier", Form::Specifier),
        ],
        ..PLAIN
    },
    Rule {
        name: "exclude-newer",
        places: EVERYWHERE_BUT_RUN,
        doc: "Python packages uploaded later do not exist. A date counts to its end in UTC.",
        single: true,
        arguments: &[one("instant", Form::Instant)],
        aliases: &["exclude_newer", "before"],
        ..PLAIN
    },
    Rule {
        name: "index",
        places: EVERYWHERE_BUT_RUN,
        doc: "A Python package index (simple API).",
        keyed: true,
        arguments: &[one("name", Form::IndexName), one("url", Form::Url)],
        properties: &[
            optional("default", Form::Boolean, "Replaces the default index."),
            optional(
                "explicit",
                Form::Boolean,
                "Serves only packages that name it with index=.",
            ),
        ],
        aliases: &["index-url", "extra-index-url", "source"],
        ..PLAIN
    },
    Rule {
        name: "platform",
        places: EVERYWHERE_BUT_RUN,
        doc: "What to build for; default linux/amd64.",
        single: true,
        arguments: &[many("platform", Form::Platform)],
        aliases: &["platforms", "arch"],
        ..PLAIN
    },
    Rule {
        name: "env",
        places: &[Place::Top, Place::Base, Place::Image, Place::Run],
        doc: "An environment variable. In a run, {axis} stands for the cell's value.",
        keyed: true,
        arguments: &[one("name", Form::EnvName), one("value", Form::Text)],
        aliases: &["environment"],
        ..PLAIN
    },
    Rule {
        name: "label",
        places: EVERYWHERE_BUT_RUN,
        doc: "A label in the image's configuration.",
        keyed: true,
        arguments: &[one("key", Form::Key), one("value", Form::Text)],
        ..PLAIN
    },
    Rule {
        name: "annotation",
        places: EVERYWHERE_BUT_RUN,
        doc: "An annotation of the image's OCI manifest.",
        keyed: true,
        arguments: &[one("key", Form::Key), one("value", Form::Text)],
        ..PLAIN
    },
    Rule {
        name: "user",
        places: LAYERED,
        doc: "The user that the image runs as; default app, uid 1000.",
        single: true,
        arguments: &[one("name", Form::UserName)],
        properties: &[
            optional("uid", Form::Id, "User id; default 1000."),
            optional("gid", Form::Id, "Group id; default: the user id."),
            optional("home", Form::Target, "Home folder; default /home/<name>."),
        ],
        ..PLAIN
    },
    Rule {
        name: "workdir",
        places: &[Place::Base, Place::Image, Place::Run],
        doc: "The working folder.",
        single: true,
        arguments: &[one("path", Form::Absolute)],
        aliases: &["cwd", "working-dir"],
        ..PLAIN
    },
    Rule {
        name: "entrypoint",
        places: LAYERED,
        doc: "The image's entry point; default none.",
        single: true,
        arguments: &[many("argument", Form::Word)],
        ..PLAIN
    },
    Rule {
        name: "cmd",
        places: LAYERED,
        doc: "The image's default command; default none.",
        single: true,
        arguments: &[many("argument", Form::Text)],
        ..PLAIN
    },
    Rule {
        name: "file",
        places: &[Place::Base, Place::Image, Place::Run],
        doc: "Files of the project; a trailing / means the folder's content.",
        arguments: &[one("path", Form::SourcePath)],
        properties: &[
            required(
                "to",
                Form::Target,
                "Where they go; a trailing / means into that folder.",
            ),
            optional(
                "mode",
                Form::Mode,
                "Permission bits; default 0644, 0755 where executable.",
            ),
        ],
        aliases: &["copy", "add", "files"],
        ..PLAIN
    },
    Rule {
        name: "fetch",
        places: LAYERED,
        doc: "A download, pinned by its SHA-256.",
        arguments: &[one("url", Form::FetchUrl)],
        properties: &[
            required("sha256", Form::Sha256, "Of the file."),
            required(
                "to",
                Form::Target,
                "Where it goes; a trailing / means into that folder.",
            ),
            optional("mode", Form::Mode, "Permission bits; default 0644."),
        ],
        aliases: &["download", "wget", "curl"],
        ..PLAIN
    },
    Rule {
        name: "matrix",
        places: &[Place::Run],
        doc: "One run for each combination of the axes' values.",
        single: true,
        children: Children::Axes,
        ..PLAIN
    },
    Rule {
        name: "command",
        places: &[Place::Run],
        doc: "What to execute; {axis} stands for the cell's value, {{ and }} for braces.",
        single: true,
        arguments: &[many("argument", Form::Text)],
        ..PLAIN
    },
    Rule {
        name: "resources",
        places: &[Place::Run],
        doc: "What the run may use; limits are twice the requests unless declared.",
        single: true,
        properties: &[
            optional("ram", Form::Size, "Requested memory; default 4000MB."),
            optional("cpu", Form::Cpu, "Requested cores; default 1500m."),
            optional("ram-limit", Form::Size, "Memory limit."),
            optional("cpu-limit", Form::Cpu, "CPU limit."),
            optional(
                "pids",
                Form::Count,
                "Most processes and threads; default 4096.",
            ),
        ],
        ..PLAIN
    },
    Rule {
        name: "timeout",
        places: &[Place::Run],
        doc: "When the run is ended; default 1h.",
        single: true,
        arguments: &[one("duration", Form::Duration)],
        ..PLAIN
    },
    Rule {
        name: "network",
        places: &[Place::Run],
        doc: "none (loopback only, the default) or host.",
        single: true,
        arguments: &[one("network", Form::Network)],
        ..PLAIN
    },
];

/// The rule for a node of that name at that place.
pub(super) fn rule(name: &str, place: Place) -> Option<&'static Rule> {
    rules_of(place).find(|rule| rule.name == name)
}

/// All rules of a place, in the order of the table.
pub(super) fn rules_of(place: Place) -> impl Iterator<Item = &'static Rule> {
    RULES
        .iter()
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
