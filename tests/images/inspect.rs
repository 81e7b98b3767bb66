//! What is found in bases, and how what is missing is named.

use std::fs;

use imagewright::diagnostic::{Explain, Kind};
use imagewright::lock::LockedBase;
use imagewright::progress::Silent;
use imagewright::resolve::base::{BaseError, inspect};

use super::support::*;

const GLIBC: &str = "/lib64/ld-linux-x86-64.so.2";
const BANNER: &str = "GNU C Library (X) stable release version 2.31.";

#[test]
fn a_debian_base_tells_all_that_a_lock_needs_and_is_read_once() {
    let test = store();
    let base = inspect_layout(&test.store, python_base(), "python", AMD64).unwrap();
    let python = base.python(None).unwrap();
    assert_eq!(
        (python.path.as_str(), python.minor.to_string().as_str()),
        ("/usr/bin/python3.11", "3.11")
    );
    assert_eq!((python.full.as_str(), python.glibc), ("3.11.2", (2, 36)));
    assert!(base.contents.dpkg && base.contents.passwd.starts_with("root:x:0:0:"));
    assert_eq!(base.contents.os_release["VERSION_CODENAME"], "bookworm");
    assert!(base.layers[0].unpacked > base.layers[0].size);

    let LockedBase::From { digest, .. } = base.locked() else {
        panic!("not a from base")
    };
    let gone = reader(&python_base().join("gone"), "python");
    let again = wait(inspect(
        &test.store,
        &gone,
        "oci:base:python",
        Some(&digest),
        AMD64,
        &Silent,
    ));
    assert_eq!(
        again.unwrap(),
        base,
        "a pinned base that is known needs no reader"
    );
    fs::remove_file(test.store.blob_path(&base.layers[0].digest)).unwrap();
    let lost = wait(inspect(
        &test.store,
        &gone,
        "oci:base:python",
        Some(&digest),
        AMD64,
        &Silent,
    ));
    assert!(
        matches!(lost, Err(BaseError::Read(_))),
        "a lost blob is noticed"
    );
    let back = inspect_layout(&test.store, python_base(), "python", AMD64).unwrap();
    assert_eq!(back, base);
}

/// Inspects an image of these layers and asks for a Python.
fn python_of(layers: &[Vec<u8>], wanted: Option<&str>, env: &[&str]) -> Result<String, BaseError> {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    layout.add("x", layers, "amd64", env);
    let test = store();
    let base = layout.inspect(&test.store, "x")?;
    let python = base.python(wanted.map(|wanted| wanted.parse().unwrap()))?;
    Ok(format!(
        "{} {} {:?}",
        python.path, python.full, python.glibc
    ))
}

#[test]
fn interpreters_are_found_by_path_version_and_links() {
    let libc = elf(62, "", BANNER);
    let (old, new) = (elf(62, GLIBC, "3.9.18"), elf(62, GLIBC, "no version"));
    let lower = tar(&[
        Item::File("usr/lib/x86_64-linux-gnu/libc.so.6", &libc),
        Item::File("usr/bin/python3.9", &old),
        Item::Link("usr/bin/python3", "python3.9"),
        Item::Link("bin", "usr/bin"),
        Item::File("usr/bin/python", b"#!/bin/sh\nexec python3 \"$@\"\n"),
        Item::File("opt/conda/bin/python3.12", &new),
        Item::Link("opt/conda/bin/python3", "/opt/conda/bin/python3.12"),
        Item::File(
            "opt/conda/lib/libpython3.12.so.1.0",
            &elf(62, "", "Python 3.12.7"),
        ),
    ]);
    let conda = ["PATH=/opt/conda/bin:/usr/bin"];
    let all = [lower.clone()];
    assert_eq!(
        python_of(&all, None, &conda).unwrap(),
        "/opt/conda/bin/python3.12 3.12.7 (2, 31)"
    );
    assert_eq!(
        python_of(&all, None, &[]).unwrap(),
        "/usr/bin/python3.9 3.9.18 (2, 31)"
    );
    assert_eq!(
        python_of(&all, Some("3.9"), &conda).unwrap(),
        "/usr/bin/python3.9 3.9.18 (2, 31)"
    );
    let error = python_of(&all, Some("3.13"), &conda).unwrap_err();
    assert!(matches!(error, BaseError::OtherPython { .. }));
    assert!(
        error.to_string().contains("3.12.7") && error.to_string().contains("3.9.18"),
        "{error}"
    );

    let removed = tar(&[
        Item::File("usr/bin/.wh.python3.9", b""),
        Item::File("opt/.wh.conda", b""),
    ]);
    let error = python_of(&[lower, removed], None, &conda).unwrap_err();
    assert!(
        matches!(error, BaseError::NoPython { .. }),
        "whiteouts count: {error}"
    );
}

/// A layer, what inspecting it must give, and words of the message.
type Case<'a> = (Vec<u8>, fn(&BaseError) -> bool, &'a str);

#[test]
fn what_is_missing_is_named_with_a_hint() {
    let libc = elf(62, "", BANNER);
    let libc_file = Item::File("lib/libc.so.6", &libc);
    let musl = elf(62, "/lib/ld-musl-x86_64.so.1", "3.12.1");
    let alpine = tar(&[
        Item::File("usr/bin/python3.12", &musl),
        Item::File("lib/ld-musl-x86_64.so.1", &musl),
    ]);
    let bare_alpine = tar(&[Item::File("lib/ld-musl-x86_64.so.1", &musl)]);
    let glibc_python = elf(62, GLIBC, "3.11.4");
    let arm = elf(183, "/lib/ld-linux-aarch64.so.1", "3.11.4");
    let cases: Vec<Case<'_>> = vec![
        (
            tar(&[Item::File("etc/passwd", b"")]),
            |e| matches!(e, BaseError::NoPython { .. }),
            "no Python",
        ),
        (alpine, |e| matches!(e, BaseError::Musl { .. }), "musl"),
        (bare_alpine, |e| matches!(e, BaseError::Musl { .. }), "musl"),
        (
            tar(&[
                Item::File("usr/bin/python3.11", &arm),
                Item::File("lib/libc.so.6", &libc),
            ]),
            |e| matches!(e, BaseError::OtherMachine { .. }),
            "aarch64",
        ),
        (
            tar(&[
                Item::File("usr/bin/pypy3.10", &glibc_python),
                Item::Link("usr/bin/python3", "pypy3.10"),
                libc_file,
            ]),
            |e| matches!(e, BaseError::PyPy { .. }),
            "/usr/bin/pypy3.10",
        ),
        (
            tar(&[Item::File("usr/bin/python3.11", &glibc_python)]),
            |e| matches!(e, BaseError::NoGlibc { .. }),
            "/usr/bin/python3.11",
        ),
    ];
    for (layer, expected, words) in cases {
        let error = python_of(&[layer], None, &[]).unwrap_err();
        assert!(
            expected(&error) && error.to_string().contains(words),
            "{error}"
        );
        assert!(
            error.hint().is_some() && error.kind() == Kind::Usage,
            "{error}"
        );
    }
}

#[test]
fn platforms_and_names_choose_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let empty = tar(&[Item::File("etc/passwd", b"")]);
    layout.add("arm", std::slice::from_ref(&empty), "arm64", &[]);
    let test = store();
    let error = layout.inspect(&test.store, "arm").unwrap_err();
    assert!(
        matches!(&error, BaseError::NoPlatform { found, .. } if found == &["linux/arm64"]),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::NotFound);
    let error = layout.inspect(&test.store, "other").unwrap_err();
    assert!(
        error.to_string().contains("`arm`"),
        "names that exist are told: {error}"
    );

    layout.add("amd", &[empty], "amd64", &[]);
    assert!(layout.inspect(&test.store, "amd").is_ok());
    let mut index = layout.index();
    for (entry, architecture) in index["manifests"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .zip(["arm64", "amd64"])
    {
        entry["platform"] =
            serde_json::json!({"os": "linux", "architecture": architecture, "variant": "v8"});
        entry["annotations"]["org.opencontainers.image.ref.name"] = "both".into();
    }
    layout.write_index(&index);
    for platform in imagewright::manifest::Platform::ALL {
        let found = inspect_layout(&test.store, dir.path(), "both", platform).unwrap();
        assert_eq!(found.platform, platform);
    }
    for entry in index["manifests"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("platform");
    }
    layout.write_index(&index);
    assert!(matches!(
        layout.inspect(&test.store, "both"),
        Err(BaseError::Ambiguous { .. })
    ));
}
