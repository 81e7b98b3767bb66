//! What people read when they ask why a key changed.

use imagewright::digest::Digest;
use imagewright::identity::*;
use imagewright::manifest::{Platform, Root, User};

use crate::documents;
use crate::keys::{Case, full, spanned};

/// The sentences for a change of the full request, each with the keys that it changes.
fn told(change: fn(&mut Case)) -> Vec<String> {
    let before = full();
    let mut after = full();
    change(&mut after);
    sentences(&explain(&before.request(), &after.request()))
}

fn sentences(found: &[Difference]) -> Vec<String> {
    found
        .iter()
        .map(|difference| {
            let keys: Vec<String> = difference.changes.iter().map(ToString::to_string).collect();
            format!("{difference} [{}]", keys.join(", "))
        })
        .collect()
}

const ALL: &str = "[request key, set key, layer key, content key, image key]";

#[test]
fn requirements() {
    assert_eq!(
        told(|c| c.image.pip[0].value.pep508 = "numpy>=2".into()),
        ["requirement numpy was `numpy>=1`, is `numpy>=2` [request key]"]
    );
    assert_eq!(
        told(|c| c.image.constraints.clear()),
        ["constraint numpy is gone, was `numpy<2` [request key]"]
    );
    assert_eq!(
        told(|c| c
            .image
            .overrides
            .push(spanned(c.image.pip[0].value.clone()))),
        ["override numpy is new: `numpy>=1` [request key]"]
    );
    let hashes = format!("sha256:{} or sha256:{}", "0".repeat(64), "1".repeat(64));
    assert_eq!(
        told(|c| c.image.pip[1].value.index = None),
        [format!(
            "requirement churn was `churn==1.0` from index https://named.example.com/simple with hash {hashes}, \
             is `churn==1.0` with hash {hashes} [request key]"
        )]
    );
    let wheel = told(|c| {
        drop(
            c.project
                .insert("dist/model-1.0-py3-none-any.whl".into(), "new".into()),
        )
    });
    assert_eq!(
        wheel,
        [format!(
            "requirement model was `model` as model-1.0-py3-none-any.whl ({}), is `model` as \
             model-1.0-py3-none-any.whl ({}) [request key]",
            Digest::of("wheel"),
            Digest::of("new")
        )]
    );
    let two = told(|c| {
        let mut second = c.image.pip[0].clone();
        second.value.pep508 = "numpy<3".into();
        c.image.pip.push(second);
        c.image.pip[0].value.pep508 = "numpy>=2".into();
    });
    assert_eq!(
        two,
        ["requirement numpy was `numpy>=1`, is `numpy<3` and `numpy>=2` [request key]"]
    );
}

#[test]
fn indexes() {
    assert_eq!(
        told(|c| c.image.indexes.swap(0, 1)),
        [
            "the order of indexes was https://first.example.com/simple, https://second.example.com/simple, is \
          https://second.example.com/simple, https://first.example.com/simple [request key]"
        ]
    );
    assert_eq!(
        told(|c| c.image.indexes[0].value.explicit = true),
        ["index is gone, was https://first.example.com/simple [request key]"]
    );
    assert_eq!(
        told(|c| c.image.indexes[3].value.default = false),
        [
            "index is new: https://main.example.com/simple [request key]",
            "the default index was https://main.example.com/simple, is not declared [request key]"
        ]
    );
}

#[test]
fn base_and_os_packages() {
    assert_eq!(
        told(|c| c.image.root = Root::From(spanned("oci:x".into()))),
        ["the base was Debian bookworm, is the image oci:x [request key]"]
    );
    let several = told(|c| {
        let Root::Debian(debian) = &mut c.image.root else {
            unreachable!()
        };
        debian.suite.value = "trixie".into();
        debian.mirror = None;
        debian.components.pop();
        debian.updates = true;
        debian.os.pop();
        c.image.python = None;
    });
    assert_eq!(
        several,
        [
            "the Debian suite was bookworm, is trixie [request key]",
            "the Debian mirror was https://deb.example.com/debian, is not declared [request key]",
            "the Debian components was contrib main, is main [request key]",
            "updates and security suites was not used, is used [request key]",
            "OS package of the base libgomp1 is gone, was any version [request key]",
            "the Python version was 3.11, is the base's own [request key]",
        ]
    );
    assert_eq!(
        told(|c| c.image.os[0].value.version = None),
        ["OS package vim was 2:9.0, is any version [request key]"]
    );
    assert_eq!(
        told(|c| c.platform = Platform::LinuxArm64),
        [
            "the platform was linux/amd64, is linux/arm64 [request key, set key, content key, image key]"
        ]
    );
    assert_eq!(
        told(|c| c.image.exclude_newer = None),
        ["exclude-newer is gone, was 2024-07-01T00:00:00Z [request key]"]
    );
}

#[test]
fn files_downloads_and_settings() {
    assert_eq!(
        told(|c| drop(c.project.insert("src/main.py".into(), "print(2)".into()))),
        [format!(
            "file /app/main.py was {} (mode 0644), is {} (mode 0644) {ALL}",
            Digest::of("print(1)"),
            Digest::of("print(2)")
        )]
    );
    assert_eq!(
        told(|c| c.image.fetches.clear()),
        [format!(
            "download /opt/m.bin is gone, was {} (mode 0644) {ALL}",
            Digest::of("m")
        )]
    );
    let settings = told(|c| {
        c.image.config.env.insert("A".into(), "\"2\"".into());
        c.image.config.user = Some(User {
            uid: 7,
            ..User::default()
        });
        c.image.config.workdir = Some("/work".into());
        c.image.config.entrypoint = Some(vec!["a b".into(), "c".into()]);
        c.image.config.labels.clear();
    });
    assert_eq!(
        settings,
        [
            r#"environment variable A was "1", is "\"2\"" [request key, set key, image key]"#
                .to_owned(),
            format!(
                "the user was app (uid 1000, gid 1000, home /home/app), is app (uid 7, gid 1000, home /home/app) {ALL}"
            ),
            format!("the working folder was not set, is \"/work\" {ALL}"),
            r#"the entry point was not set, is "a b" "c" [request key, set key, image key]"#.into(),
            r#"label l is gone, was "1" [request key, set key, image key]"#.into(),
        ]
    );
}

fn wheels(names: &[(&str, &str)]) -> LayerDocument {
    let wheels = names.iter().map(|(name, content)| WheelDocument {
        name: (*name).into(),
        sha256: Digest::of(content),
    });
    LayerDocument::wheels(documents::python(), wheels)
}

#[test]
fn layers_find_their_counterparts() {
    let name = |layers: Vec<(LayerDocument, &str)>| -> Vec<(LayerDocument, String)> {
        layers
            .into_iter()
            .map(|(layer, name)| (layer, name.into()))
            .collect()
    };
    let before = name(vec![
        (
            LayerDocument::skeleton(documents::python(), "/usr/bin/python3.11"),
            "skeleton",
        ),
        (wheels(&[("numpy", "1")]), "numpy 1.26.4"),
        (wheels(&[("pandas", "1")]), "pandas 2.2.3"),
        (wheels(&[("six", "1"), ("attrs", "1")]), "small wheels 1"),
        (wheels(&[("idna", "1"), ("pip", "1")]), "small wheels 2"),
        (
            LayerDocument::debian("amd64", [Digest::of("vim")], 1, vec![Digest::of("base")]),
            "OS packages",
        ),
    ]);
    let after = name(vec![
        (
            LayerDocument::debian("amd64", [Digest::of("nano")], 1, vec![Digest::of("base")]),
            "OS packages",
        ),
        (
            wheels(&[("idna", "1"), ("six", "1"), ("attrs", "2")]),
            "small wheels 1",
        ),
        (wheels(&[("numpy", "2")]), "numpy 2.0.0"),
        (wheels(&[("pandas", "1")]), "pandas 2.2.3"),
        (
            LayerDocument::skeleton(documents::python(), "/usr/bin/python3"),
            "skeleton",
        ),
        (
            LayerDocument::files(documents::full_request().files),
            "project files",
        ),
    ]);
    let compared = explain_layers(&before, &after);
    assert_eq!(
        (
            compared.unchanged,
            compared.changed,
            compared.added,
            compared.removed
        ),
        (1, 4, 1, 1)
    );
    let keys = "[layer key, content key, image key]";
    let rest = "[content key, image key]";
    let d = |text: &str| Digest::of(text);
    assert_eq!(
        sentences(&compared.differences),
        [
            format!(
                "layer skeleton: the interpreter was /usr/bin/python3.11, is /usr/bin/python3 {keys}"
            ),
            format!(
                "layer numpy 2.0.0: wheel numpy was {}, is {} {keys}",
                d("1"),
                d("2")
            ),
            format!(
                "layer small wheels 1: wheel attrs was {}, is {} {keys}",
                d("1"),
                d("2")
            ),
            format!("layer small wheels 1: wheel idna is new: {} {keys}", d("1")),
            format!("layer small wheels 2 is gone, was 2 wheels {rest}"),
            format!(
                "layer OS packages: OS package files was {}, is {} {keys}",
                d("vim"),
                d("nano")
            ),
            format!("layer project files is new: 3 files {rest}"),
        ]
    );
    let same = explain_layers(&before, &before);
    assert_eq!((same.unchanged, same.differences.len()), (before.len(), 0));
}

#[test]
fn contents_tell_base_and_order() {
    let layers = vec![Digest::of("a"), Digest::of("b"), Digest::of("c")];
    let before = ContentDocument::new(Platform::LinuxAmd64, Some(Digest::of("m")), layers.clone());
    let after = ContentDocument::new(
        Platform::LinuxAmd64,
        Some(Digest::of("n")),
        vec![layers[2], layers[0], Digest::of("new")],
    );
    let short = |text: &str| Digest::of(text).short();
    assert_eq!(
        sentences(&explain_content(&before, &after)),
        [
            format!(
                "the base image's digest was {}, is {} [content key, image key]",
                Digest::of("m"),
                Digest::of("n")
            ),
            format!(
                "the order of layers was {}, {}, is {}, {} [content key, image key]",
                short("a"),
                short("c"),
                short("c"),
                short("a")
            ),
        ]
    );
}

#[test]
fn differences_are_data_too() {
    let difference = Difference {
        what: "requirement numpy".into(),
        before: None,
        after: Some("`numpy`".into()),
        changes: vec![KeyKind::Request, KeyKind::Image],
    };
    let json = serde_json::json!({
        "what": "requirement numpy", "before": null, "after": "`numpy`", "changes": ["request", "image"],
    });
    assert_eq!(serde_json::to_value(&difference).unwrap(), json);
    let schema = serde_json::to_value(schemars::schema_for!(LayerComparison)).unwrap();
    assert!(
        schema["$defs"]["Difference"]["properties"]["changes"].is_object(),
        "{schema}"
    );
}
