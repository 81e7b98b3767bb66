//! A whole request and the keys that follow from it, with what resolving would answer held fixed.

use std::collections::BTreeMap;
use std::sync::Arc;

use imagewright::diagnostic::{SourceText, Span};
use imagewright::digest::Digest;
use imagewright::identity::*;
use imagewright::manifest::*;

use crate::documents;

/// A value with some span.
pub fn spanned<T>(value: T) -> Spanned<T> {
    let source: Arc<SourceText> = SourceText::new("imagewright.kdl", "image \"one\"\n");
    Spanned {
        value,
        source,
        span: Span { start: 0, len: 5 },
    }
}

/// A request on one platform and the project that it stands in.
#[derive(Clone, Debug)]
pub struct Case {
    pub image: ImageRequest,
    pub platform: Platform,
    /// Path in the project → content.
    pub project: BTreeMap<String, String>,
}

/// All keys of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    pub request: Digest,
    pub layers: BTreeMap<String, Digest>,
    pub content: Digest,
    pub image: Digest,
}

impl Case {
    /// What the project's folder adds: a small stand-in for the reader of files, which knows no ignore rules.
    pub fn content(&self) -> ProjectContent {
        let mut content = ProjectContent::default();
        for spec in &self.image.files {
            for (path, text) in &self.project {
                let target = match spec.from.strip_suffix('/') {
                    Some(folder) => path
                        .strip_prefix(folder)
                        .and_then(|rest| rest.strip_prefix('/'))
                        .map(|rest| format!("{}/{rest}", spec.to)),
                    None => (*path == spec.from).then(|| spec.to.clone()),
                };
                if let Some(target) = target {
                    let file = FileDocument::File {
                        sha256: Digest::of(text),
                        mode: spec.mode.unwrap_or(0o644),
                    };
                    content.files.insert(target, file);
                }
            }
        }
        for wheel in self.image.pip.iter().filter_map(|pip| pip.wheel.as_ref()) {
            if let Some(text) = self.project.get(wheel) {
                content.wheels.insert(wheel.clone(), Digest::of(text));
            }
        }
        content
    }

    pub fn request(&self) -> RequestDocument {
        RequestDocument::new(&self.image, self.platform, &self.content()).unwrap()
    }

    /// The layers above the base: one wheel whatever was asked for, and those that the manifest itself decides.
    pub fn layers(&self) -> Vec<(LayerDocument, String)> {
        let request = self.request();
        let wheel = WheelDocument {
            name: "numpy".into(),
            sha256: Digest::of("numpy"),
        };
        let config = request.config.clone();
        let mut layers = vec![
            (
                LayerDocument::user(config.user, b"root", b"root", config.workdir),
                "user".to_owned(),
            ),
            (
                LayerDocument::skeleton(documents::python(), "/usr/bin/python3.11"),
                "skeleton".to_owned(),
            ),
            (
                LayerDocument::wheels(documents::python(), [wheel]),
                "numpy".to_owned(),
            ),
        ];
        if !request.files.is_empty() {
            layers.push((LayerDocument::files(request.files), "files".to_owned()));
        }
        for fetch in &request.fetches {
            layers.push((LayerDocument::fetch(fetch), "download".to_owned()));
        }
        layers
    }

    pub fn keys(&self) -> Keys {
        let request = self.request();
        let layers = self.layers();
        let order = layers.iter().map(|(layer, _)| key(layer)).collect();
        let from = Some(Digest::of("the base's manifest"));
        let content = ContentDocument::new(self.platform, from, order);
        Keys {
            request: key(&request),
            layers: layers
                .iter()
                .map(|(layer, name)| (name.clone(), key(layer)))
                .collect(),
            content: key(&content),
            image: key(&ImageDocument::new(&content, request.config)),
        }
    }
}

/// What a change does to the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No key changes.
    Nothing,
    /// The request key; the others if resolving then answers differently.
    Request,
    /// The request key and the image key.
    Config,
    /// The request key, the content key and the image key.
    Platform,
    /// The request key, this layer's key, the content key and the image key.
    Layer(&'static str),
}

/// The effect that a change has had.
pub fn effect(before: &Keys, after: &Keys) -> Result<Effect, String> {
    let names = before.layers.keys().chain(after.layers.keys());
    let mut layers: Vec<&String> = names
        .filter(|name| before.layers.get(*name) != after.layers.get(*name))
        .collect();
    layers.sort();
    layers.dedup();
    let changed = (
        before.request != after.request,
        layers.as_slice(),
        before.content != after.content,
        before.image != after.image,
    );
    Ok(match changed {
        (false, [], false, false) => Effect::Nothing,
        (true, [], false, false) => Effect::Request,
        (true, [], false, true) => Effect::Config,
        (true, [], true, true) => Effect::Platform,
        (true, [layer], true, true) => {
            let known = ["user", "skeleton", "numpy", "files", "download"];
            let name = known.into_iter().find(|name| name == layer);
            Effect::Layer(name.ok_or(format!("an unknown layer {layer}"))?)
        }
        other => return Err(format!("an effect without a name: {other:?}")),
    })
}

fn pip(pep508: &str) -> PipRequirement {
    let end = pep508.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    PipRequirement {
        name: pep508[..end.unwrap_or(pep508.len())].into(),
        pep508: pep508.into(),
        index: None,
        wheel: None,
        hashes: vec![],
        constraint: false,
    }
}

/// A request that has something in every field.
pub fn full() -> Case {
    let index = |name: &str, default, explicit| {
        spanned(Index {
            name: name.into(),
            url: format!("https://{name}.example.com/simple"),
            default,
            explicit,
        })
    };
    let os = |name: &str, version: Option<&str>| {
        spanned(OsRequirement {
            name: name.into(),
            version: version.map(Into::into),
        })
    };
    let image = ImageRequest {
        name: spanned("one".into()),
        base: "tabular".into(),
        root: Root::Debian(Debian {
            suite: spanned("bookworm".into()),
            mirror: Some(spanned("https://deb.example.com/debian".into())),
            components: vec!["main".into(), "contrib".into()],
            keyring: Some(spanned("keys.gpg".into())),
            updates: false,
            snapshot: None,
            os: vec![os("python3", None), os("libgomp1", None)],
        }),
        python: Some(spanned(PythonMinor {
            major: 3,
            minor: 11,
        })),
        platforms: vec![Platform::LinuxAmd64],
        os: vec![os("vim", Some("2:9.0")), os("git", None)],
        pip: vec![
            spanned(pip("numpy>=1")),
            spanned(PipRequirement {
                index: Some("named".into()),
                hashes: vec![
                    format!("sha256:{}", "1".repeat(64)),
                    format!("sha256:{}", "0".repeat(64)),
                ],
                ..pip("churn==1.0")
            }),
            spanned(PipRequirement {
                wheel: Some("dist/model-1.0-py3-none-any.whl".into()),
                ..pip("model")
            }),
        ],
        constraints: vec![spanned(PipRequirement {
            constraint: true,
            ..pip("numpy<2")
        })],
        overrides: vec![spanned(pip("attrs==23.1.0"))],
        exclude_newer: Some(spanned("2024-07-01T00:00:00Z".into())),
        indexes: vec![
            index("first", false, false),
            index("second", false, false),
            index("named", false, true),
            index("main", true, false),
        ],
        files: vec![spanned(FileSpec {
            from: "src/".into(),
            to: "/app".into(),
            mode: None,
        })],
        fetches: vec![spanned(FetchSpec {
            url: "https://models.example.com/m.bin".into(),
            sha256: Digest::of("m"),
            to: "/opt/m.bin".into(),
            mode: None,
        })],
        tags: Vec::new(),
        version: None,
        protected: false,
        config: Config {
            env: BTreeMap::from([("A".into(), "1".into())]),
            user: None,
            workdir: None,
            entrypoint: None,
            cmd: None,
            labels: BTreeMap::from([("l".into(), "1".into())]),
            annotations: BTreeMap::from([("a".into(), "1".into())]),
        },
    };
    let project = [
        ("src/main.py", "print(1)"),
        ("dist/model-1.0-py3-none-any.whl", "wheel"),
        ("lib/model-1.0-py3-none-any.whl", "wheel"),
        ("elsewhere/main.py", "print(1)"),
    ];
    Case {
        image,
        platform: Platform::LinuxAmd64,
        project: project
            .map(|(path, text)| (path.into(), text.into()))
            .into(),
    }
}
