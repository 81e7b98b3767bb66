//! Where images go and what they are called there. Nothing of it is in any key.

use super::{EVERY_IMAGE, PLAIN, many, one, optional};
use crate::manifest::language::{Form, Place, Property, Rule};

const DESTINATION: &[Property] = &[
    optional(
        "layout",
        Form::Layout,
        "split (the default): images as tags of this path, what machines look up in `cache` below it; single: all in one repository; per-image: a repository for each image.",
    ),
    optional(
        "plain-http",
        Form::Boolean,
        "Speak to it without TLS; default #false, but for this machine itself.",
    ),
];

/// Registries, and who is believed.
pub(super) static DESTINATIONS: &[Rule] = &[
    Rule {
        name: "registry",
        places: &[Place::Top],
        doc: "Where images are pushed to and looked up.",
        single: true,
        arguments: &[one("registry", Form::Registry)],
        properties: DESTINATION,
        ..PLAIN
    },
    Rule {
        name: "push",
        places: &[Place::Top],
        doc: "Another registry that images are pushed to; nothing is looked up there.",
        arguments: &[one("registry", Form::Registry)],
        properties: DESTINATION,
        aliases: &["destination", "publish"],
        ..PLAIN
    },
    Rule {
        name: "trust",
        places: &[Place::Top],
        doc: "A public key: what it has signed in a registry is used without being built again.",
        keyed: true,
        arguments: &[one("key", Form::PublicKey)],
        properties: &[optional(
            "comment",
            Form::Text,
            "Whose key it is; for readers of the manifest.",
        )],
        aliases: &["trusted-key", "public-key"],
        ..PLAIN
    },
];

/// What an image is called in a registry. Bases hand none of it down.
pub(super) static TAGS: &[Rule] = &[
    Rule {
        name: "tag",
        places: &[Place::Image],
        doc: "Tags of the image beside its name: NAME-TAG, or TAG alone where each image has a repository. {version} stands for its version, {git} for the first 12 digits of the commit. They are the image's own: what builds on it does not inherit them.",
        arguments: &[many("tag", Form::Tag)],
        aliases: &["tags"],
        ..PLAIN
    },
    Rule {
        name: "version",
        places: EVERY_IMAGE,
        doc: "What {version} stands for in tags. At the top level it holds for every image that has none of its own; bases hand none down.",
        single: true,
        arguments: &[one("version", Form::TagVersion)],
        ..PLAIN
    },
    Rule {
        name: "protected",
        places: EVERY_IMAGE,
        doc: "Whether the image's name and tags never move: a push of another image under one of them is refused. At the top level it holds for every image that does not say otherwise; bases hand nothing down.",
        single: true,
        arguments: &[one("value", Form::Boolean)],
        ..PLAIN
    },
];
