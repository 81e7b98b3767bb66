//! One document of every kind and variant, plain and hard ones.

use std::collections::{BTreeMap, BTreeSet};

use imagewright::digest::Digest;
use imagewright::identity::*;
use imagewright::manifest::Platform;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Strings that encoders get wrong: escapes, controls, names whose order by UTF-16 and by code point differ.
pub const HARD: &str =
    "ü \" \\ / \u{8}\t\n\u{c}\r\u{1}\u{1f}\u{7f} \u{20ac} \u{fb33} \u{1f600} </script>";

/// A document of any kind.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Document {
    Request(RequestDocument),
    Set(SetDocument),
    Layer(LayerDocument),
    Content(ContentDocument),
    Image(ImageDocument),
}

impl Document {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
            Self::Set(_) => "set",
            Self::Layer(_) => "layer",
            Self::Content(_) => "content",
            Self::Image(_) => "image",
        }
    }

    pub fn canonical(&self) -> String {
        let bytes = match self {
            Self::Request(document) => canonical_json(document),
            Self::Set(document) => canonical_json(document),
            Self::Layer(document) => canonical_json(document),
            Self::Content(document) => canonical_json(document),
            Self::Image(document) => canonical_json(document),
        };
        String::from_utf8(bytes).unwrap()
    }

    pub fn key(&self) -> Digest {
        match self {
            Self::Request(document) => key(document),
            Self::Set(document) => key(document),
            Self::Layer(document) => key(document),
            Self::Content(document) => key(document),
            Self::Image(document) => key(document),
        }
    }

    /// Reads a JSON value as a document of that kind, in whatever order its members are.
    pub fn parse(kind: &str, value: &Value) -> Result<Self, serde_json::Error> {
        fn of<T: DeserializeOwned>(value: &Value) -> Result<T, serde_json::Error> {
            serde_json::from_value(value.clone())
        }
        match kind {
            "request" => of(value).map(Self::Request),
            "set" => of(value).map(Self::Set),
            "layer" => of(value).map(Self::Layer),
            "content" => of(value).map(Self::Content),
            "image" => of(value).map(Self::Image),
            other => panic!("no kind {other}"),
        }
    }

    /// Reads stored bytes strictly.
    pub fn read(kind: &str, stored: &[u8]) -> Result<Self, DocumentError> {
        fn of<T: DeserializeOwned + Serialize>(stored: &[u8]) -> Result<T, DocumentError> {
            read(stored, 1)
        }
        match kind {
            "request" => of(stored).map(Self::Request),
            "set" => of(stored).map(Self::Set),
            "layer" => of(stored).map(Self::Layer),
            "content" => of(stored).map(Self::Content),
            "image" => of(stored).map(Self::Image),
            other => panic!("no kind {other}"),
        }
    }
}

pub const KINDS: [&str; 5] = ["request", "set", "layer", "content", "image"];

fn os(name: &str, version: Option<&str>) -> OsDocument {
    OsDocument {
        name: name.into(),
        version: version.map(Into::into),
    }
}

fn pip(requirement: &str) -> PipDocument {
    PipDocument {
        requirement: requirement.into(),
        index: None,
        wheel: None,
        hashes: BTreeSet::new(),
    }
}

fn strings(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

pub fn python() -> PythonDocument {
    PythonDocument {
        minor: "3.11".into(),
        prefix: "/opt/venv".into(),
    }
}

pub fn plain_request() -> RequestDocument {
    RequestDocument {
        v: 1,
        platform: Platform::LinuxAmd64,
        base: BaseDocument::From {
            reference: "registry.example.com/python:3.11-slim".into(),
        },
        python: None,
        os: BTreeSet::new(),
        pip: BTreeSet::from([pip("numpy")]),
        constraints: BTreeSet::new(),
        overrides: BTreeSet::new(),
        exclude_newer: None,
        indexes: vec![],
        default_index: None,
        files: BTreeMap::new(),
        fetches: BTreeSet::new(),
        config: ConfigDocument::default(),
    }
}

pub fn full_config() -> ConfigDocument {
    ConfigDocument {
        env: strings(&[("OMP_NUM_THREADS", "1"), ("TEXT", HARD), ("_", "")]),
        user: UserDocument {
            name: "data".into(),
            uid: 2_147_483_647,
            gid: 0,
            home: "/srv/data".into(),
        },
        workdir: Some("/work".into()),
        entrypoint: Some(vec!["python".into(), "-m".into(), "app".into()]),
        cmd: Some(vec![String::new(), "--x=ü".into()]),
        labels: strings(&[
            ("\u{1f600}", "beyond the basic plane, sorts first by UTF-16"),
            ("\u{fb33}", "sorts first by code point"),
            ("a.b", "1"),
            ("a-b", "2"),
        ]),
        annotations: strings(&[(
            "org.opencontainers.image.source",
            "https://git.example.com/m",
        )]),
    }
}

pub fn full_request() -> RequestDocument {
    RequestDocument {
        v: 1,
        platform: Platform::LinuxArm64,
        base: BaseDocument::Debian {
            suite: "bookworm".into(),
            mirror: Some("https://deb.example.com/debian".into()),
            components: BTreeSet::from(["main".into(), "contrib".into()]),
            updates: true,
            os: BTreeSet::from([os("libgomp1", None), os("python3", None)]),
        },
        python: Some("3.11".into()),
        os: BTreeSet::from([
            os("vim", None),
            os("vim", Some("2:9.0")),
            os("vim-tiny", None),
        ]),
        pip: BTreeSet::from([
            pip("a"),
            pip("a-b"),
            pip("tensorflow[and-cuda]>=2.16 ; python_version < '3.13'"),
            PipDocument {
                index: Some("https://packages.example.com/simple".into()),
                hashes: BTreeSet::from([Digest::of("b").to_string(), Digest::of("a").to_string()]),
                ..pip("churn==1.0")
            },
            PipDocument {
                wheel: Some(WheelFileDocument {
                    file: "model-1.0-py3-none-any.whl".into(),
                    sha256: Digest::of("wheel"),
                }),
                ..pip("model")
            },
        ]),
        constraints: BTreeSet::from([pip("numpy<2")]),
        overrides: BTreeSet::from([pip("attrs==23.1.0")]),
        exclude_newer: Some("2024-07-01T00:00:00Z".into()),
        indexes: vec![
            "https://z.example.com/simple".into(),
            "https://a.example.com/simple".into(),
        ],
        default_index: Some("https://mirror.example.com/simple".into()),
        files: BTreeMap::from([
            ("/app".into(), FileDocument::Folder { mode: 0o755 }),
            (
                "/app/main.py".into(),
                FileDocument::File {
                    sha256: Digest::of("main"),
                    mode: 0o644,
                },
            ),
            (
                "/app/naïve \u{1f600}".into(),
                FileDocument::Link {
                    target: "main.py".into(),
                },
            ),
        ]),
        fetches: BTreeSet::from([
            FetchDocument {
                sha256: Digest::of("weights"),
                to: "/opt/m.bin".into(),
                mode: FetchDocument::DEFAULT_MODE,
            },
            FetchDocument {
                sha256: Digest::of("tool"),
                to: "/opt/tool".into(),
                mode: 0o755,
            },
        ]),
        config: full_config(),
    }
}

fn wheel(name: &str) -> WheelDocument {
    WheelDocument {
        name: name.into(),
        sha256: Digest::of(name),
    }
}

/// What a lock pins above an image, with nothing configured.
pub fn plain_set() -> SetDocument {
    SetDocument {
        v: 1,
        emitter: EMITTER_VERSION,
        cleaning: CLEANING_VERSION,
        platform: Platform::LinuxAmd64,
        base: SetBase::From {
            digest: Digest::of("manifest"),
        },
        python: SetPython {
            path: "/usr/local/bin/python3.12".into(),
            minor: "3.12".into(),
            full: "3.12.4".into(),
        },
        debs: BTreeSet::new(),
        wheels: BTreeSet::from([wheel("numpy")]),
        files: BTreeMap::new(),
        fetches: BTreeSet::new(),
        config: ConfigDocument::default(),
    }
}

/// Something in every field.
pub fn full_set() -> SetDocument {
    let request = full_request();
    SetDocument {
        platform: Platform::LinuxArm64,
        base: SetBase::Debian {
            suite: "bookworm".into(),
            epoch: 1_747_699_200,
            debs: BTreeSet::from([Digest::of("libc6"), Digest::of("dash")]),
        },
        debs: BTreeSet::from([Digest::of("vim"), Digest::of("vim-runtime")]),
        wheels: BTreeSet::from([wheel("six"), wheel("attrs"), wheel("attrs-b")]),
        files: request.files,
        fetches: request.fetches,
        config: full_config(),
        ..plain_set()
    }
}

/// A layer of every kind.
pub fn layers() -> Vec<(&'static str, LayerDocument)> {
    let user = UserDocument::default();
    vec![
        (
            "one wheel",
            LayerDocument::wheels(python(), [wheel("numpy")]),
        ),
        (
            "bucket of wheels",
            LayerDocument::wheels(
                python(),
                [wheel("six"), wheel("attrs"), wheel("attrs-b"), wheel("six")],
            ),
        ),
        (
            "collisions",
            LayerDocument::collisions(
                python(),
                BTreeMap::from([
                    ("/opt/venv/bin/tool".into(), Digest::of("b")),
                    (
                        "/opt/venv/lib/python3.11/site-packages/x/ü.py".into(),
                        Digest::of("a"),
                    ),
                ]),
            ),
        ),
        (
            "skeleton",
            LayerDocument::skeleton(python(), "/usr/bin/python3.11"),
        ),
        (
            "default user above an empty root",
            LayerDocument::user(user.clone(), b"", b"", None),
        ),
        (
            "user with a working folder",
            LayerDocument::user(
                UserDocument {
                    name: "data".into(),
                    uid: 2000,
                    gid: 3000,
                    home: "/srv/data".into(),
                },
                b"root:x:0:0:root:/root:/bin/bash\n",
                b"root:x:0:\n",
                Some("/work".into()),
            ),
        ),
        ("files", LayerDocument::files(full_request().files)),
        ("no files", LayerDocument::files(BTreeMap::new())),
        (
            "download",
            LayerDocument::fetch(&FetchDocument {
                sha256: Digest::of("weights"),
                to: "/opt/m.bin".into(),
                mode: 0o600,
            }),
        ),
        (
            "Debian base",
            LayerDocument::debian(
                "amd64",
                [Digest::of("libc6"), Digest::of("dash"), Digest::of("dash")],
                1_747_699_200,
                vec![],
            ),
        ),
        (
            "OS packages above a base, dates before 1970",
            LayerDocument::debian("arm64", [], -1, vec![Digest::of("z"), Digest::of("a")]),
        ),
        (
            "the largest integer",
            LayerDocument::debian("amd64", [], i64::MAX, vec![]),
        ),
    ]
}

/// Every document that has a vector.
pub fn all() -> Vec<(String, Document)> {
    let mut all = vec![
        (
            "plain request".to_owned(),
            Document::Request(plain_request()),
        ),
        ("full request".to_owned(), Document::Request(full_request())),
        ("plain set".to_owned(), Document::Set(plain_set())),
        ("full set".to_owned(), Document::Set(full_set())),
    ];
    for (name, layer) in layers() {
        all.push((name.into(), Document::Layer(layer)));
    }
    let keys: Vec<Digest> = layers().iter().map(|(_, layer)| key(layer)).collect();
    let empty = ContentDocument::new(Platform::LinuxAmd64, None, vec![]);
    let above = ContentDocument::new(
        Platform::LinuxArm64,
        Some(Digest::of("manifest")),
        keys[..3].iter().rev().copied().collect(),
    );
    let plain = ImageDocument::new(&empty, ConfigDocument::default());
    let full = ImageDocument::new(&above, full_config());
    all.push(("empty content".into(), Document::Content(empty)));
    all.push(("content above an image".into(), Document::Content(above)));
    all.push(("image without settings".into(), Document::Image(plain)));
    all.push(("image with all settings".into(), Document::Image(full)));
    all
}
