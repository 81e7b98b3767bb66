//! Debs of an own archive, made by dpkg-deb: fetched, verified, refused.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use imagewright::ambient::Ambient;
use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::lock::LockedDeb;
use imagewright::progress::Silent;
use imagewright::resolve::debian::{AboveRequest, Installed, resolve_above};
use imagewright::source::debian::{DebError, DebSource, fetch_debs, snapshot_url};
use imagewright::store::Store;

use crate::mirror::{Archive, Key, NOW};
use crate::support::{SUITE, load_with, os, run, runtime};

/// Packs a tiny package into the archive's pool; returns its stanza.
fn pack(archive: &Archive, name: &str, depends: &str) -> String {
    let tree = tempfile::tempdir().unwrap();
    let control = format!(
        "Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Archive <archive@example.com>\n\
         Depends: {depends}\nDescription: tiny\n"
    );
    fs::create_dir_all(tree.path().join("DEBIAN")).unwrap();
    fs::create_dir_all(tree.path().join("usr/share").join(name)).unwrap();
    fs::write(tree.path().join("DEBIAN/control"), &control).unwrap();
    fs::write(tree.path().join("usr/share").join(name).join("file"), name).unwrap();
    fs::create_dir_all(archive.path("pool")).unwrap();
    let file = archive.path(&format!("pool/{name}.deb"));
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .arg(tree.path())
        .arg(&file));
    let bytes = fs::read(file).unwrap();
    format!(
        "{control}Filename: pool/{name}.deb\nSize: {}\nSHA256: {}\n\n",
        bytes.len(),
        Digest::of(&bytes).hex()
    )
}

struct Fetching {
    archive: Archive,
    debs: Vec<LockedDeb>,
    _folder: tempfile::TempDir,
    store: Store,
}

impl Fetching {
    /// An archive with two packages, resolved and not yet fetched.
    fn new() -> Self {
        let archive = Archive::new("");
        let stanzas = pack(&archive, "one", "two") + &pack(&archive, "two", "one");
        archive.packages(&stanzas);
        let key = Key::new("ed25519", "0");
        archive.publish(&key.sign(&archive.release()));
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let spec = archive.spec(&key);
        let universe = load_with(&Ambient::default(), &store, &spec, NOW, false).unwrap();
        let request = AboveRequest {
            installed: Installed::Status(""),
            os: &os(&["one"]),
        };
        let debs = resolve_above(&universe, &request, &BTreeMap::new()).unwrap();
        assert_eq!(debs.len(), 2);
        Self {
            archive,
            debs,
            _folder: folder,
            store,
        }
    }

    fn fetch(
        &self,
        ambient: &Ambient,
        mirror: Option<&str>,
        offline: bool,
    ) -> Result<(), DebError> {
        self.fetch_with(ambient, mirror, None, offline)
    }

    fn fetch_with(
        &self,
        ambient: &Ambient,
        mirror: Option<&str>,
        snapshot: Option<&str>,
        offline: bool,
    ) -> Result<(), DebError> {
        let http = Http::new(ambient, offline).unwrap();
        let source = DebSource {
            http: &http,
            ambient,
            store: &self.store,
            progress: &Silent,
            mirror,
            snapshot,
            fallback: None,
        };
        let debs: Vec<&LockedDeb> = self.debs.iter().collect();
        runtime().block_on(fetch_debs(source, &debs))
    }
}

#[test]
fn debs_are_fetched_once_from_the_mirror_that_has_them() {
    let fetching = Fetching::new();
    let empty = Archive::new("");
    let ambient = Ambient {
        debian_mirrors: [(
            SUITE.to_owned(),
            vec![empty.url.clone(), fetching.archive.url.clone()],
        )]
        .into(),
        ..Ambient::default()
    };
    fetching.fetch(&ambient, None, false).unwrap();
    for deb in &fetching.debs {
        let path = fetching.store.artifact(&deb.sha256).unwrap();
        assert_eq!(Digest::of(fs::read(path).unwrap()), deb.sha256);
    }
    fs::remove_dir_all(fetching.archive.path("pool")).unwrap();
    fetching.fetch(&ambient, None, false).unwrap();
    fetching.fetch(&ambient, None, true).unwrap();
}

#[test]
fn changed_cut_and_vanished_debs_are_named() {
    let fetching = Fetching::new();
    let mirror = Some(fetching.archive.url.as_str());
    let fail = || {
        fetching
            .fetch(&Ambient::default(), mirror, false)
            .unwrap_err()
    };
    let file = fetching.archive.path("pool/one.deb");
    let good = fs::read(&file).unwrap();
    let mut changed = good.clone();
    changed[100] ^= 1;
    for bad in [
        &changed[..],
        &good[..good.len() - 1],
        &[&good[..], b"more"].concat(),
    ] {
        fs::write(&file, bad).unwrap();
        let error = fail();
        assert_eq!(error.kind(), Kind::Refused);
        let text = error.to_string();
        let expected = fetching.debs[0].sha256.to_string();
        assert!(
            text.starts_with("one 1.0 from http://")
                && text.contains(" has sha256:")
                && text.contains(&expected),
            "{text}"
        );
        assert!(fetching.store.artifact(&fetching.debs[0].sha256).is_none());
    }
    fs::remove_file(&file).unwrap();
    let error = fail();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(
        error
            .to_string()
            .starts_with("the archive no longer has one 1.0"),
        "{error}"
    );
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("lock --upgrade") && hint.contains("snapshot="),
        "{hint}"
    );
    let error = fetching
        .fetch(&Ambient::default(), None, false)
        .unwrap_err();
    assert!(matches!(error, DebError::NoMirror { .. }), "{error}");
    let error = fetching
        .fetch(&Ambient::default(), mirror, true)
        .unwrap_err();
    assert!(error.to_string().contains("--offline"), "{error}");
}

#[test]
fn a_snapshot_gives_what_the_archive_has_dropped() {
    let fetching = Fetching::new();
    let archive = &fetching.archive;
    let declared = format!("{}/kept/{{timestamp}}/", archive.url);
    let snapshot = snapshot_url(&declared, 1_719_748_800);
    assert_eq!(
        snapshot,
        format!("{}/kept/20240630T120000Z/", archive.url),
        "the time of the lock in UTC"
    );
    let kept = archive.path("kept/20240630T120000Z");
    fs::create_dir_all(&kept).unwrap();
    fs::rename(archive.path("pool"), kept.join("pool")).unwrap();
    let fetch = |snapshot: Option<&str>| {
        fetching.fetch_with(&Ambient::default(), Some(&archive.url), snapshot, false)
    };
    assert_eq!(fetch(None).unwrap_err().kind(), Kind::NotFound);
    fetch(Some(&snapshot)).unwrap();
    for deb in &fetching.debs {
        assert!(fetching.store.artifact(&deb.sha256).is_some());
    }
}

#[test]
fn a_snapshot_that_has_nothing_does_no_harm_and_every_place_is_named() {
    let fetching = Fetching::new();
    let archive = &fetching.archive;
    let snapshot = format!("{}/kept", archive.url);
    let fetch = || {
        fetching.fetch_with(
            &Ambient::default(),
            Some(&archive.url),
            Some(&snapshot),
            false,
        )
    };
    fs::rename(archive.path("pool/one.deb"), archive.path("one.deb")).unwrap();
    let error = fetch().unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let told = error.to_string();
    let expected = format!(
        "one 1.0 cannot be fetched: {snapshot}/pool/one.deb does not exist; {}/pool/one.deb does not exist",
        archive.url
    );
    assert_eq!(told, expected);
    fs::create_dir_all(archive.path("kept/pool")).unwrap();
    fs::write(archive.path("kept/pool/one.deb"), "other bytes").unwrap();
    let error = fetch().unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(
        error.to_string().contains("from http://") && error.to_string().contains("does not exist"),
        "{error}"
    );
    fs::rename(archive.path("one.deb"), archive.path("pool/one.deb")).unwrap();
    fetch().unwrap();
}
