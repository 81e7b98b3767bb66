//! Which field of a request changes which key. A field that is added to the model does not compile here until it has
//! its rows.

use std::collections::BTreeSet;

use imagewright::digest::Digest;
use imagewright::manifest::*;

use crate::keys::Effect::{
    self, Config as InConfig, Layer, Nothing, Platform as OnPlatform, Request,
};
use crate::keys::{Case, effect, full, spanned};

/// The names of all fields of a structure, checked by the compiler.
macro_rules! fields {
    ($($type:ident { $($field:ident),* $(,)? })*) => {{
        $({
            #[allow(dead_code)]
            fn complete(value: $type) {
                let $type { $($field: _),* } = value;
            }
        })*
        [$($(concat!(stringify!($type), ".", stringify!($field))),*),*]
    }};
}

fn all_fields() -> BTreeSet<&'static str> {
    type SpannedText = Spanned<String>;
    #[allow(dead_code)]
    fn complete(root: Root, platform: Platform) {
        match root {
            Root::Debian(_) | Root::From(_) => {}
        }
        match platform {
            Platform::LinuxAmd64 | Platform::LinuxArm64 => {}
        }
    }
    let structures = fields! {
        ImageRequest {
            name, base, root, python, platforms, os, pip, constraints, overrides, exclude_newer, indexes, files,
            fetches, config, tags, version, protected,
        }
        SpannedText { value, source, span }
        PythonMinor { major, minor }
        PipRequirement { name, pep508, index, wheel, hashes, constraint }
        Index { name, url, default, explicit }
        OsRequirement { name, version }
        Debian { suite, mirror, components, keyring, updates, snapshot, os }
        FileSpec { from, to, mode }
        FetchSpec { url, sha256, to, mode }
        User { name, uid, gid, home }
        Config { env, user, workdir, entrypoint, cmd, labels, annotations }
    };
    structures
        .into_iter()
        .chain(["Root::Debian", "Root::From", "Platform"])
        .collect()
}

type Row = (&'static str, &'static str, fn(&mut Case), Effect);

fn debian(case: &mut Case) -> &mut Debian {
    match &mut case.image.root {
        Root::Debian(debian) => debian,
        Root::From(_) => unreachable!("the full request stands on Debian"),
    }
}

fn user(case: &mut Case, change: fn(&mut User)) {
    let mut user = User::default();
    change(&mut user);
    case.image.config.user = Some(user);
}

/// Field, what is done to it, how, and what that does.
const TABLE: &[Row] = &[
    (
        "ImageRequest.name",
        "another",
        |c| c.image.name.value = "two".into(),
        Nothing,
    ),
    (
        "ImageRequest.tags",
        "one",
        |c| c.image.tags = vec![spanned("{git}".into())],
        Nothing,
    ),
    (
        "ImageRequest.version",
        "another",
        |c| c.image.version = Some(spanned("2".into())),
        Nothing,
    ),
    (
        "ImageRequest.protected",
        "true",
        |c| c.image.protected = true,
        Nothing,
    ),
    (
        "ImageRequest.base",
        "another name",
        |c| c.image.base = "x".into(),
        Nothing,
    ),
    (
        "ImageRequest.root",
        "an image",
        |c| c.image.root = Root::From(spanned("oci:x".into())),
        Request,
    ),
    (
        "Root::Debian",
        "an image",
        |c| c.image.root = Root::From(spanned("oci:x".into())),
        Request,
    ),
    (
        "Root::From",
        "an image",
        |c| c.image.root = Root::From(spanned("r.example.com/x:1".into())),
        Request,
    ),
    (
        "ImageRequest.python",
        "none",
        |c| c.image.python = None,
        Request,
    ),
    (
        "PythonMinor.major",
        "2",
        |c| c.image.python.as_mut().unwrap().value.major = 2,
        Request,
    ),
    (
        "PythonMinor.minor",
        "12",
        |c| c.image.python.as_mut().unwrap().value.minor = 12,
        Request,
    ),
    (
        "ImageRequest.platforms",
        "one more",
        |c| c.image.platforms.push(Platform::LinuxArm64),
        Nothing,
    ),
    (
        "Platform",
        "the other one",
        |c| c.platform = Platform::LinuxArm64,
        OnPlatform,
    ),
    (
        "ImageRequest.os",
        "one less",
        |c| drop(c.image.os.pop()),
        Request,
    ),
    (
        "ImageRequest.os",
        "reversed",
        |c| c.image.os.reverse(),
        Nothing,
    ),
    (
        "ImageRequest.os",
        "twice",
        |c| c.image.os.extend(c.image.os.clone()),
        Nothing,
    ),
    (
        "ImageRequest.pip",
        "one less",
        |c| drop(c.image.pip.pop()),
        Request,
    ),
    (
        "ImageRequest.pip",
        "reversed",
        |c| c.image.pip.reverse(),
        Nothing,
    ),
    (
        "ImageRequest.pip",
        "twice",
        |c| c.image.pip.extend(c.image.pip.clone()),
        Nothing,
    ),
    (
        "ImageRequest.constraints",
        "none",
        |c| c.image.constraints.clear(),
        Request,
    ),
    (
        "ImageRequest.constraints",
        "twice",
        |c| c.image.constraints.extend(c.image.constraints.clone()),
        Nothing,
    ),
    (
        "ImageRequest.constraints",
        "as override",
        |c| c.image.overrides.append(&mut c.image.constraints),
        Request,
    ),
    (
        "ImageRequest.overrides",
        "none",
        |c| c.image.overrides.clear(),
        Request,
    ),
    (
        "ImageRequest.overrides",
        "twice",
        |c| c.image.overrides.extend(c.image.overrides.clone()),
        Nothing,
    ),
    (
        "ImageRequest.overrides",
        "as requirement",
        |c| c.image.pip.append(&mut c.image.overrides),
        Request,
    ),
    (
        "ImageRequest.exclude_newer",
        "none",
        |c| c.image.exclude_newer = None,
        Request,
    ),
    (
        "ImageRequest.exclude_newer",
        "later",
        |c| c.image.exclude_newer = Some(spanned("2025-01-01T00:00:00Z".into())),
        Request,
    ),
    (
        "SpannedText.value",
        "another instant",
        |c| c.image.exclude_newer = Some(spanned("2025-01-02T00:00:00Z".into())),
        Request,
    ),
    (
        "SpannedText.source",
        "another file",
        |c| c.image.pip[0].source = spanned(()).source,
        Nothing,
    ),
    (
        "SpannedText.span",
        "another place",
        |c| c.image.pip[0].span.start = 3,
        Nothing,
    ),
    (
        "ImageRequest.indexes",
        "one more",
        |c| {
            let mut index = c.image.indexes[0].clone();
            (index.value.name, index.value.url) = ("x".into(), "https://x.example.com".into());
            c.image.indexes.push(index);
        },
        Request,
    ),
    (
        "ImageRequest.indexes",
        "another preference",
        |c| c.image.indexes.swap(0, 1),
        Request,
    ),
    (
        "ImageRequest.indexes",
        "the default one first",
        |c| c.image.indexes.rotate_right(1),
        Nothing,
    ),
    (
        "ImageRequest.indexes",
        "the explicit one first",
        |c| c.image.indexes.swap(2, 0),
        Request,
    ),
    (
        "ImageRequest.indexes",
        "the explicit one last",
        |c| c.image.indexes.swap(2, 3),
        Nothing,
    ),
    (
        "ImageRequest.indexes",
        "one twice",
        |c| {
            let mut again = c.image.indexes[0].clone();
            again.value.name = "again".into();
            c.image.indexes.push(again);
        },
        Nothing,
    ),
    (
        "Index.name",
        "another, with what names it",
        |c| {
            c.image.indexes[2].value.name = "renamed".into();
            c.image.pip[1].value.index = Some("renamed".into());
        },
        Nothing,
    ),
    (
        "Index.name",
        "another, of one that nothing names",
        |c| c.image.indexes[0].value.name = "x".into(),
        Nothing,
    ),
    (
        "Index.url",
        "another",
        |c| c.image.indexes[0].value.url = "https://x.example.com".into(),
        Request,
    ),
    (
        "Index.url",
        "another, of an explicit one",
        |c| c.image.indexes[2].value.url = "https://x.example.com".into(),
        Request,
    ),
    (
        "Index.url",
        "with a slash",
        |c| c.image.indexes[0].value.url += "/",
        Nothing,
    ),
    (
        "Index.default",
        "not",
        |c| c.image.indexes[3].value.default = false,
        Request,
    ),
    (
        "Index.explicit",
        "too",
        |c| c.image.indexes[0].value.explicit = true,
        Request,
    ),
    (
        "Index.explicit",
        "not",
        |c| c.image.indexes[2].value.explicit = false,
        Request,
    ),
    (
        "PipRequirement.name",
        "said by the requirement",
        |c| c.image.pip[0].value.name = "x".into(),
        Nothing,
    ),
    (
        "PipRequirement.pep508",
        "another",
        |c| c.image.pip[0].value.pep508 = "numpy>=2".into(),
        Request,
    ),
    (
        "PipRequirement.index",
        "none",
        |c| c.image.pip[1].value.index = None,
        Request,
    ),
    (
        "PipRequirement.index",
        "another",
        |c| c.image.pip[1].value.index = Some("first".into()),
        Request,
    ),
    (
        "PipRequirement.wheel",
        "none",
        |c| c.image.pip[2].value.wheel = None,
        Request,
    ),
    (
        "PipRequirement.wheel",
        "in another folder",
        |c| {
            c.image.pip[2].value.wheel = Some("lib/model-1.0-py3-none-any.whl".into());
        },
        Nothing,
    ),
    (
        "PipRequirement.wheel",
        "another name",
        |c| {
            c.project
                .insert("dist/model-1.1-py3-none-any.whl".into(), "wheel".into());
            c.image.pip[2].value.wheel = Some("dist/model-1.1-py3-none-any.whl".into());
        },
        Request,
    ),
    (
        "PipRequirement.wheel",
        "another content",
        |c| {
            c.project
                .insert("dist/model-1.0-py3-none-any.whl".into(), "new".into());
        },
        Request,
    ),
    (
        "PipRequirement.hashes",
        "one less",
        |c| drop(c.image.pip[1].value.hashes.pop()),
        Request,
    ),
    (
        "PipRequirement.hashes",
        "reversed",
        |c| c.image.pip[1].value.hashes.reverse(),
        Nothing,
    ),
    (
        "PipRequirement.hashes",
        "twice",
        |c| {
            let again = c.image.pip[1].value.hashes[0].clone();
            c.image.pip[1].value.hashes.push(again);
        },
        Nothing,
    ),
    (
        "PipRequirement.constraint",
        "said by the list",
        |c| c.image.pip[0].value.constraint = true,
        Nothing,
    ),
    (
        "OsRequirement.name",
        "another",
        |c| c.image.os[0].value.name = "nano".into(),
        Request,
    ),
    (
        "OsRequirement.version",
        "none",
        |c| c.image.os[0].value.version = None,
        Request,
    ),
    (
        "OsRequirement.version",
        "another",
        |c| c.image.os[0].value.version = Some("2:9.1".into()),
        Request,
    ),
    (
        "Debian.suite",
        "another",
        |c| debian(c).suite.value = "trixie".into(),
        Request,
    ),
    (
        "Debian.mirror",
        "none",
        |c| debian(c).mirror = None,
        Request,
    ),
    (
        "Debian.mirror",
        "another",
        |c| debian(c).mirror = Some(spanned("https://x.example.com".into())),
        Request,
    ),
    (
        "Debian.mirror",
        "with a slash",
        |c| {
            debian(c).mirror = Some(spanned("https://deb.example.com/debian/".into()));
        },
        Nothing,
    ),
    (
        "Debian.components",
        "one less",
        |c| drop(debian(c).components.pop()),
        Request,
    ),
    (
        "Debian.components",
        "reversed",
        |c| debian(c).components.reverse(),
        Nothing,
    ),
    (
        "Debian.components",
        "twice",
        |c| debian(c).components.push("main".into()),
        Nothing,
    ),
    (
        "Debian.keyring",
        "none",
        |c| debian(c).keyring = None,
        Nothing,
    ),
    (
        "Debian.snapshot",
        "one",
        |c| debian(c).snapshot = Some(spanned("https://old.example.com/debian".into())),
        Nothing,
    ),
    (
        "Debian.updates",
        "used",
        |c| debian(c).updates = true,
        Request,
    ),
    (
        "Debian.os",
        "one less",
        |c| drop(debian(c).os.pop()),
        Request,
    ),
    ("Debian.os", "reversed", |c| debian(c).os.reverse(), Nothing),
    (
        "Debian.os",
        "above the base",
        |c| {
            let moved = debian(c).os.pop();
            c.image.os.extend(moved);
        },
        Request,
    ),
    (
        "ImageRequest.files",
        "none",
        |c| c.image.files.clear(),
        Layer("files"),
    ),
    (
        "ImageRequest.files",
        "twice",
        |c| c.image.files.extend(c.image.files.clone()),
        Nothing,
    ),
    (
        "FileSpec.from",
        "the same content elsewhere",
        |c| c.image.files[0].value.from = "elsewhere/".into(),
        Nothing,
    ),
    (
        "FileSpec.from",
        "another content",
        |c| {
            c.project.insert("src/main.py".into(), "print(2)".into());
        },
        Layer("files"),
    ),
    (
        "FileSpec.to",
        "another",
        |c| c.image.files[0].value.to = "/srv".into(),
        Layer("files"),
    ),
    (
        "FileSpec.mode",
        "executable",
        |c| c.image.files[0].value.mode = Some(0o755),
        Layer("files"),
    ),
    (
        "FileSpec.mode",
        "the default",
        |c| c.image.files[0].value.mode = Some(0o644),
        Nothing,
    ),
    (
        "ImageRequest.fetches",
        "none",
        |c| c.image.fetches.clear(),
        Layer("download"),
    ),
    (
        "ImageRequest.fetches",
        "twice",
        |c| c.image.fetches.extend(c.image.fetches.clone()),
        Nothing,
    ),
    (
        "FetchSpec.url",
        "another",
        |c| c.image.fetches[0].value.url = "https://x.example.com/m".into(),
        Nothing,
    ),
    (
        "FetchSpec.sha256",
        "another",
        |c| c.image.fetches[0].value.sha256 = Digest::of("n"),
        Layer("download"),
    ),
    (
        "FetchSpec.to",
        "another",
        |c| c.image.fetches[0].value.to = "/opt/n.bin".into(),
        Layer("download"),
    ),
    (
        "FetchSpec.mode",
        "executable",
        |c| c.image.fetches[0].value.mode = Some(0o755),
        Layer("download"),
    ),
    (
        "FetchSpec.mode",
        "the default",
        |c| c.image.fetches[0].value.mode = Some(0o644),
        Nothing,
    ),
    (
        "ImageRequest.config",
        "more",
        |c| c.image.config.cmd = Some(vec!["sh".into()]),
        InConfig,
    ),
    (
        "Config.env",
        "another value",
        |c| drop(c.image.config.env.insert("A".into(), "2".into())),
        InConfig,
    ),
    (
        "Config.env",
        "another name",
        |c| drop(c.image.config.env.insert("B".into(), "1".into())),
        InConfig,
    ),
    (
        "Config.user",
        "the default, declared",
        |c| c.image.config.user = Some(User::default()),
        Nothing,
    ),
    (
        "Config.user",
        "another",
        |c| user(c, |u| u.uid = 1001),
        Layer("user"),
    ),
    (
        "User.name",
        "another",
        |c| user(c, |u| u.name = "x".into()),
        Layer("user"),
    ),
    (
        "User.uid",
        "another",
        |c| user(c, |u| u.uid = 1001),
        Layer("user"),
    ),
    (
        "User.gid",
        "another",
        |c| user(c, |u| u.gid = 1001),
        Layer("user"),
    ),
    (
        "User.home",
        "another",
        |c| user(c, |u| u.home = "/srv".into()),
        Layer("user"),
    ),
    (
        "Config.workdir",
        "set",
        |c| c.image.config.workdir = Some("/work".into()),
        Layer("user"),
    ),
    (
        "Config.entrypoint",
        "set",
        |c| c.image.config.entrypoint = Some(vec!["x".into()]),
        InConfig,
    ),
    (
        "Config.entrypoint",
        "empty",
        |c| c.image.config.entrypoint = Some(vec![]),
        Nothing,
    ),
    (
        "Config.cmd",
        "set",
        |c| c.image.config.cmd = Some(vec!["x".into()]),
        InConfig,
    ),
    (
        "Config.cmd",
        "empty",
        |c| c.image.config.cmd = Some(vec![]),
        Nothing,
    ),
    (
        "Config.labels",
        "another value",
        |c| drop(c.image.config.labels.insert("l".into(), "2".into())),
        InConfig,
    ),
    (
        "Config.annotations",
        "another value",
        |c| drop(c.image.config.annotations.insert("a".into(), "2".into())),
        InConfig,
    ),
];

#[test]
fn each_field_changes_the_keys_that_the_table_says() {
    let before = full().keys();
    let mut wrong = Vec::new();
    for (field, how, change, expected) in TABLE {
        let mut case = full();
        change(&mut case);
        let found = effect(&before, &case.keys());
        if found != Ok(*expected) {
            wrong.push(format!(
                "{field} ({how}): expected {expected:?}, found {found:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_field_has_a_row() {
    let covered: BTreeSet<&str> = TABLE.iter().map(|(field, ..)| *field).collect();
    assert_eq!(covered, all_fields());
}

#[test]
fn a_wheel_whose_content_is_unknown_has_no_key() {
    use imagewright::identity::{ProjectContent, RequestDocument};
    let case = full();
    let content = ProjectContent {
        files: case.content().files,
        ..ProjectContent::default()
    };
    let error = RequestDocument::new(&case.image, case.platform, &content).unwrap_err();
    assert_eq!(error.path, "dist/model-1.0-py3-none-any.whl");
}
