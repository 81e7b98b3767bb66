//! The manifest language as one table: which nodes there are, where they stand, and what they hold.

mod publishing;

use super::language::{Argument, Children, Form, Place, Property, Rule, Times};

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

const EVERY_IMAGE: &[Place] = &[Place::Top, Place::Image];
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
pub(super) static RULES: &[&[Rule]] = &[publishing::DESTINATIONS, CONTENT, publishing::TAGS];

/// What images and runs consist of.
static CONTENT: &[Rule] = &[
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
            optional(
                "snapshot",
                Form::SnapshotUrl,
                "An archive that keeps superseded packages, asked when the archive itself has dropped one; {timestamp} stands for the time of the lock.",
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
