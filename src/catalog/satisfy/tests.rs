//! Requests as a manifest writes them against images that do and do not satisfy them.

use std::collections::BTreeMap;

use super::*;
use crate::catalog::{BaseRecord, Keys, PackageRecord, Record, RequestRecord};
use crate::diagnostic::SourceText;
use crate::identity::ProjectContent;
use crate::lock::WheelOrigin;
use crate::manifest::{self, Platform, ProjectFiles};

struct NoFiles;

impl ProjectFiles for NoFiles {
    fn read(&self, path: &str) -> Result<String, String> {
        Err(format!("no {path}"))
    }
}

const OURS: &str = "dist/own-1.0-py3-none-any.whl";

/// The request of an image with these lines, below lines of the manifest's top level.
fn document(top: &str, lines: &str) -> RequestDocument {
    let text = format!(
        "{top}\nbase \"own\" {{ from \"registry.example.com/python:3.11\"; }}\nimage \"a\" base=\"own\" {{\n{lines}\n}}\n"
    );
    from_text(&text)
}

fn from_text(text: &str) -> RequestDocument {
    let manifest = manifest::parse(
        &SourceText::new("imagewright.kdl", text.to_owned()),
        &NoFiles,
    );
    let manifest = manifest.unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    let content = ProjectContent {
        files: BTreeMap::new(),
        wheels: BTreeMap::from([(OURS.to_owned(), Digest::of("own"))]),
    };
    RequestDocument::new(&manifest.images[0], Platform::LinuxAmd64, &content).unwrap()
}

/// An image with these packages, on the same base, asked for what `requested` says.
fn offer(pip: &[(&str, &str)], requested: &RequestDocument) -> Offer {
    let pip = pip.iter().map(|(name, version)| {
        let offered = Offered {
            version: (*version).into(),
            wheel: None,
        };
        ((*name).to_owned(), offered)
    });
    Offer {
        platform: Platform::LinuxAmd64,
        python: "3.11.2".into(),
        root: "registry.example.com/python:3.11".into(),
        base_digest: Some(Digest::of("base")),
        base_request: None,
        request: Digest::of("another request"),
        requested: RequestRecord::from(requested),
        pip: pip.collect(),
        os: BTreeMap::from([("vim".into(), "2:9.0.1378-2".into())]),
    }
}

fn judge(document: &RequestDocument, offer: &Offer) -> Vec<String> {
    let wanted = Wanted {
        document,
        layout: None,
    };
    let reasons = reasons(&wanted, offer);
    reasons.iter().map(ToString::to_string).collect()
}

#[test]
fn versions_markers_extras_and_constraints() {
    const HAS: &[(&str, &str)] = &[
        ("numpy", "1.26.4"),
        ("pandas", "2.2.0"),
        ("torch", "2.3.0rc1"),
        ("odd", "1.0+local"),
    ];
    let asked = document(
        "",
        "pip \"pandas[excel,test]\"\npip \"numpy\"\npip \"x[y]; python_version<'3'\"",
    );
    let image = offer(HAS, &asked);
    for (top, lines, expected) in [
        ("", "", &[][..]),
        ("", "pip \"NumPy\" \">=1.20,<2\"", &[]),
        ("", "pip \"numpy\" \"==1.26.*\"\npip \"pandas\"", &[]),
        ("", "pip \"odd\" \"==1.0\"", &[]),
        ("", "pip \"numpy\" \">=2\"", &["numpy>=2: it has 1.26.4"]),
        ("", "pip \"scipy\"", &["scipy: it has no scipy"]),
        ("", "pip \"scipy; python_version<'3.11'\"", &[]),
        (
            "",
            "pip \"scipy; python_version>='3.11'\"",
            &["scipy ; python_version >= '3.11': it has no scipy"],
        ),
        (
            "",
            "pip \"scipy; python_full_version=='3.11.2'\"",
            &["scipy ; python_full_version == '3.11.2': it has no scipy"],
        ),
        ("", "pip \"scipy; platform_machine=='aarch64'\"", &[]),
        (
            "",
            "pip \"torch\" \">=2\"",
            &["torch>=2: 2.3.0rc1 is a pre-release, which it does not name"],
        ),
        ("", "pip \"torch\" \">=2.3.0rc1\"", &[]),
        ("constraint \"torch\" \">=2.0a1\"", "pip \"torch\"", &[]),
        (
            "",
            "pip \"torch\" \">=2.3\"",
            &[
                "torch>=2.3: it has 2.3.0rc1",
                "torch>=2.3: 2.3.0rc1 is a pre-release, which it does not name",
            ],
        ),
        ("", "pip \"pandas[excel]\"", &[]),
        (
            "",
            "pip \"pandas[excel,performance]\"",
            &[
                "pandas[excel,performance]: it was not asked for pandas[performance], so what that brings need not be there",
            ],
        ),
        (
            "",
            "pip \"numpy[x]\"",
            &["numpy[x]: it was not asked for numpy[x], so what that brings need not be there"],
        ),
        ("constraint \"numpy\" \"<2\"", "", &[]),
        (
            "constraint \"numpy\" \"<1.20\"",
            "pip \"pandas\"",
            &["numpy<1.20: it has 1.26.4"],
        ),
        ("constraint \"scipy\" \"<1.20\"", "pip \"pandas\"", &[]),
        (
            "",
            "pip \"numpy\" \">=2\"\npip \"scipy\"",
            &["numpy>=2: it has 1.26.4", "scipy: it has no scipy"],
        ),
    ] {
        assert_eq!(
            judge(&document(top, lines), &image),
            expected,
            "{top} {lines}"
        );
    }
}

#[test]
fn what_shapes_unnamed_packages_must_be_the_same() {
    const HAS: &[(&str, &str)] = &[("numpy", "1.26.4")];
    let override_ = "override \"numpy\" \"==1.26.4\"";
    let index = "index \"i\" \"https://packages.example.com/simple\"";
    let newer = "exclude-newer \"2025-01-01T00:00:00Z\"";
    for (ours, theirs, about) in [
        ("", "", None),
        (override_, override_, None),
        (override_, "", Some("overrides: it was made without them")),
        (
            "",
            override_,
            Some("overrides: it was made with numpy==1.26.4"),
        ),
        (newer, newer, None),
        ("", newer, None),
        (newer, "", Some("exclude-newer: it was made without")),
        (
            newer,
            "exclude-newer \"2025-01-02T00:00:00Z\"",
            Some("exclude-newer: it was made with 2025-01-02T00:00:00Z"),
        ),
        (index, index, None),
        (index, "", Some("indexes:")),
        ("", index, Some("indexes:")),
        (
            index,
            "index \"i\" \"https://packages.example.com/simple\" default=#true",
            Some("indexes:"),
        ),
    ] {
        let image = offer(HAS, &document(theirs, "pip \"numpy\""));
        let found = judge(&document(ours, "pip \"numpy\""), &image);
        match about {
            None => assert!(found.is_empty(), "{ours} {theirs}: {found:?}"),
            Some(about) => {
                assert!(
                    found.len() == 1 && found[0].starts_with(about),
                    "{ours} {theirs}: {found:?}"
                );
            }
        }
    }
    // An override counts instead of what it overrides.
    let both = document(override_, "pip \"numpy\" \">=2\"");
    assert_eq!(judge(&both, &offer(HAS, &both)), [""; 0]);
}

#[test]
fn base_python_platform_and_os_packages() {
    let plain = document("", "");
    let image = offer(&[], &plain);
    assert_eq!(judge(&plain, &image), [""; 0]);
    let other = Offer {
        platform: Platform::LinuxArm64,
        python: "3.12.1".into(),
        root: "debian bookworm".into(),
        ..image.clone()
    };
    let demanding = from_text(
        "base \"own\" { from \"registry.example.com/python:3.11\"; python \"3.1\"; }\nimage \"a\" base=\"own\" {}\n",
    );
    assert_eq!(
        judge(&demanding, &other),
        [
            "platform linux/amd64: it is for linux/arm64",
            "base registry.example.com/python:3.11: it begins with debian bookworm",
            "Python 3.1: it has 3.12.1",
        ]
    );
    assert_eq!(judge(&demanding, &image), ["Python 3.1: it has 3.11.2"]);
    let unreadable = Offer {
        python: "three".into(),
        ..image.clone()
    };
    assert_eq!(
        judge(&plain, &unreadable),
        ["Python: its version, `three`, cannot be read"]
    );

    for (lines, expected) in [
        ("os \"vim\"", &[][..]),
        ("os \"vim\" \"9.0\"", &[]),
        ("os \"vim\" \"2:9.0.1378-2\"", &[]),
        (
            "os \"vim\" \"9.1\"",
            &["OS package vim 9.1: it has 2:9.0.1378-2"],
        ),
        ("os \"jq\"", &["OS package jq: it is not known to be there"]),
    ] {
        assert_eq!(judge(&document("", lines), &image), expected, "{lines}");
    }
    let mut from_base = image.clone();
    from_base.requested = RequestRecord::from(&document("", "os \"jq\""));
    assert_eq!(judge(&document("", "os \"jq\""), &from_base), [""; 0]);
    assert_eq!(
        judge(&document("", "os \"jq\" \"1.6\""), &from_base).len(),
        1
    );
}

#[test]
fn a_debian_base_was_asked_for_the_same() {
    let debian = |lines: &str| {
        from_text(&format!(
            "base \"own\" {{ debian \"bookworm\"; python \"3.11\"; {lines} }}\nimage \"a\" base=\"own\" {{}}\n"
        ))
    };
    let (plain, more) = (debian(""), debian("os \"jq\""));
    let made_of = |document: &RequestDocument| Offer {
        root: "debian bookworm".into(),
        base_digest: None,
        base_request: Some(document.base_key()),
        ..offer(&[], document)
    };
    assert_eq!(judge(&plain, &made_of(&plain)), [""; 0]);
    let found = judge(&plain, &made_of(&more));
    assert!(
        found.len() == 1 && found[0].starts_with("base debian bookworm: its base was asked for"),
        "{found:?}"
    );
}

#[test]
fn an_image_layout_is_what_the_folder_holds_here() {
    let text = |reference: &str| {
        from_text(&format!(
            "base \"own\" {{ from \"{reference}\"; }}\nimage \"a\" base=\"own\" {{}}\n"
        ))
    };
    let pinned = format!("oci:base@{}", Digest::of("index"));
    let (here, elsewhere) = (Some(Digest::of("base")), Some(Digest::of("other")));
    for (reference, layout, satisfied) in [
        ("oci:base", here, true),
        ("oci:base", elsewhere, false),
        ("oci:base", None, false),
        (&*pinned, None, true),
    ] {
        let document = text(reference);
        let image = Offer {
            root: reference.into(),
            ..offer(&[], &document)
        };
        let wanted = Wanted {
            document: &document,
            layout,
        };
        assert_eq!(
            reasons(&wanted, &image).is_empty(),
            satisfied,
            "{reference} {layout:?}"
        );
    }
}

#[test]
fn files_indexes_and_hashes_are_seen_in_the_lock_alone() {
    let index = "index \"i\" \"https://packages.example.com/simple/\" explicit=#true";
    let hash = Digest::of("file");
    let from_index = WheelOrigin::Index("https://packages.example.com/simple".into());
    let from_file = WheelOrigin::Path("elsewhere/own-1.0-py3-none-any.whl".into());
    let url = WheelOrigin::Url("https://files.example.com/own-1.0-py3-none-any.whl".into());
    let any = WheelOrigin::DefaultIndex;
    let (own, named) = (
        "pip \"own\" wheel=\"dist/own-1.0-py3-none-any.whl\"",
        "pip \"own\" index=\"i\"",
    );
    for (top, lines, sha256, origin, expected) in [
        (index, named, hash, &from_index, None),
        (
            index,
            named,
            hash,
            &any,
            Some("it is not from https://packages.example.com/simple"),
        ),
        (
            index,
            "pip \"own\"",
            hash,
            &from_index,
            Some("does not declare for it"),
        ),
        (
            "",
            "pip \"own\"",
            hash,
            &from_index,
            Some("does not declare for it"),
        ),
        ("", "", hash, &from_index, Some("does not declare for it")),
        ("", own, Digest::of("own"), &from_file, None),
        (
            "",
            own,
            hash,
            &from_file,
            Some("it has another file than own-1.0-py3-none-any.whl"),
        ),
        (
            "",
            own,
            hash,
            &any,
            Some("it has another file than own-1.0-py3-none-any.whl"),
        ),
        (
            "",
            "pip \"own\"",
            Digest::of("own"),
            &from_file,
            Some("of another project"),
        ),
        ("", "pip \"own\"", hash, &any, None),
        (
            "",
            "pip \"own\"",
            hash,
            &url,
            Some("the manifest does not name"),
        ),
    ] {
        let document = document(top, lines);
        let mut image = offer(&[("own", "1.0")], &document);
        image.pip.get_mut("own").unwrap().wheel = Some((sha256, origin.clone()));
        let found = judge(&document, &image).join("\n");
        match expected {
            None => assert_eq!(found, "", "{top} {lines} {origin:?}"),
            Some(expected) => assert!(
                found.contains(expected),
                "{top} {lines} {origin:?}: {found}"
            ),
        }
    }

    let mut hashed = document("", "pip \"own\" \"==1.0\"");
    hashed.pip = hashed
        .pip
        .into_iter()
        .map(|line| identity::PipDocument {
            hashes: [hash.to_string()].into(),
            ..line
        })
        .collect();
    let mut image = offer(&[("own", "1.0")], &hashed);
    let wanted = Wanted {
        document: &hashed,
        layout: None,
    };
    let found = reasons(&wanted, &image);
    assert!(found.len() == 1 && found[0].unproven, "{found:?}");
    for (file, good) in [("file", true), ("other", false)] {
        image.pip.get_mut("own").unwrap().wheel = Some((Digest::of(file), any.clone()));
        assert_eq!(reasons(&wanted, &image).is_empty(), good, "{file}");
    }
}

/// A record of an image with these packages that was asked for what `requested` says.
fn record(name: &str, pushed_ms: i64, pip: &[(&str, &str)], requested: &RequestDocument) -> Record {
    let key = |what: &str| Digest::of(format!("{name} {what}"));
    let pip = pip.iter().map(|(name, version)| PackageRecord {
        name: (*name).into(),
        version: (*version).into(),
        requested: true,
        layer: None,
    });
    Record {
        v: Record::VERSION,
        name: name.into(),
        platform: Platform::LinuxAmd64,
        repository: "team/ml".into(),
        tags: vec![name.into()],
        digest: key("manifest"),
        index: None,
        config: key("config"),
        keys: Keys {
            request: identity::key(requested),
            set: key("set"),
            content: key("content"),
            image: key("image"),
        },
        emitter: identity::EMITTER_VERSION,
        python: "3.11.2".into(),
        base: BaseRecord {
            name: "own".into(),
            root: "registry.example.com/python:3.11".into(),
            digest: Some(Digest::of("base")),
            request: None,
        },
        requested: requested.into(),
        pip: pip.collect(),
        os: Vec::new(),
        layers: Vec::new(),
        base_layers: 0,
        version: None,
        git: None,
        pushed_ms,
        supersedes: None,
        lock: None,
        sbom: None,
        removed: false,
        signatures: Vec::new(),
    }
}

fn choice(document: &RequestDocument, records: &[Record]) -> Choice {
    let wanted = Wanted {
        document,
        layout: None,
    };
    choose(&wanted, records.iter().cloned().map(Ok)).unwrap()
}

#[test]
fn the_same_request_then_the_least_then_the_newest_is_taken() {
    let asked = document("", "pip \"numpy\"");
    let other = document("", "pip \"numpy\" \">=1\"");
    let small: &[(&str, &str)] = &[("numpy", "1.26.4")];
    let large: &[(&str, &str)] = &[("numpy", "2.0.0"), ("pandas", "2.2.0"), ("six", "1.16.0")];
    let records = [
        record("large-old", 1, large, &other),
        record("large-new", 9, large, &other),
        record("small-old", 2, small, &other),
        record("small-new", 3, small, &other),
        record("same-old", 4, large, &asked),
        record("same-new", 5, large, &asked),
        record("none", 100, &[("six", "1.16.0")], &asked),
    ];
    let expected = [
        "same-new",
        "same-old",
        "small-new",
        "small-old",
        "large-new",
        "large-old",
    ];
    let mut reversed = records.to_vec();
    reversed.reverse();
    for records in [&records[..], &reversed] {
        let found = choice(&asked, records);
        let names: Vec<&str> = found.fitting.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, expected);
        assert_eq!((found.seen, found.closest), (7, Vec::new()));
    }

    let asked = document("", "pip \"numpy\" \">=2\"\npip \"scipy\"");
    let found = choice(&asked, &records);
    assert!(found.fitting.is_empty());
    let (closest, reasons) = &found.closest[0];
    assert_eq!(closest.name, "large-new");
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    assert_eq!(reasons, ["scipy: it has no scipy"]);
    assert_eq!(choice(&asked, &[]).seen, 0);
}

#[test]
fn what_a_record_cannot_prove_counts_if_it_was_made_for_this_very_request() {
    let own = "pip \"own\" wheel=\"dist/own-1.0-py3-none-any.whl\"";
    let asked = document("", own);
    let wanted = Wanted {
        document: &asked,
        layout: None,
    };
    let has: &[(&str, &str)] = &[("own", "1.0")];
    assert_eq!(satisfy(&wanted, &record("same", 1, has, &asked)), []);
    let other = satisfy(
        &wanted,
        &record("other", 1, has, &document("", "pip \"own\"")),
    );
    assert!(other.len() == 1 && other[0].unproven, "{other:?}");
    let without = satisfy(&wanted, &record("liar", 1, &[], &asked));
    assert!(without.len() == 1 && !without[0].unproven, "{without:?}");
    // It may still be right, as its lock will tell.
    assert_eq!(
        choice(
            &asked,
            &[record("other", 1, has, &document("", "pip \"own\""))]
        )
        .fitting
        .len(),
        1
    );
}

#[test]
fn narrowing_leaves_nothing_out_that_satisfies() {
    let names = |top: &str, lines: &str| -> Vec<String> {
        let query = narrowed(&document(top, lines));
        assert_eq!(query.platform, Some(Platform::LinuxAmd64));
        query.pip.into_iter().map(|filter| filter.name).collect()
    };
    let lines = "pip \"NumPy[x]\" \">=1\"\npip \"six\"\npip \"scipy; python_version<'3'\"\npip \"a-b\" \"~=1.0\"";
    assert_eq!(names("", lines), ["a-b", "numpy", "six"]);
    assert_eq!(names("override \"six\" \"<2\"", lines), [""; 0]);
    assert_eq!(names("", ""), [""; 0]);
}
