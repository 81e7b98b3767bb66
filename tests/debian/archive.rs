//! Signed indexes: what is accepted, and what is refused by name. Own archives.

use std::fs;
use std::path::Path;

use imagewright::ambient::Ambient;
use imagewright::diagnostic::{Explain, Kind};
use imagewright::resolve::debian::{ArchiveError, ArchiveSpec, Universe};
use imagewright::store::Store;

use crate::mirror::{Archive, Key, NOW, SUITE};
use crate::support::{self, load_with};

pub const STANZAS: &str = "Package: tiny\nVersion: 1.0-1\nArchitecture: amd64\nFilename: pool/tiny.deb\n\
    Size: 3\nSHA256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n";

fn empty_store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn load(spec: &ArchiveSpec, now: i64) -> Result<Universe, ArchiveError> {
    let (_folder, store) = empty_store();
    load_with(&Ambient::default(), &store, spec, now, false)
}

fn refusal(spec: &ArchiveSpec, now: i64) -> String {
    let error = load(spec, now).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.hint().is_some());
    error.to_string()
}

#[test]
fn good_signatures_of_primary_keys_and_subkeys_are_accepted_and_work_offline() {
    for algorithm in ["rsa3072", "ed25519"] {
        let key = Key::new(algorithm, "0");
        if algorithm == "rsa3072" {
            key.add_signing_subkey();
        }
        let archive = Archive::new(STANZAS);
        archive.publish(&key.sign(&archive.release()));
        let (_folder, store) = empty_store();
        let spec = archive.spec(&key);
        let load = |now, offline| load_with(&Ambient::default(), &store, &spec, now, offline);
        let universe = load(NOW, false).unwrap();
        assert_eq!((universe.len(), universe.epoch), (1, 1_783_764_997));
        fs::remove_dir_all(archive.path("dists")).unwrap();
        let offline = load(NOW + 30 * 86_400, true).unwrap();
        assert_eq!(offline.len(), 1);
        let error = load(NOW, false).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
}

#[test]
fn one_valid_signature_of_several_suffices() {
    let (key, stranger) = (Key::new("ed25519", "0"), Key::new("ed25519", "0"));
    let archive = Archive::new(STANZAS);
    let secret = stranger.gpg_bytes(&["--export-secret-keys", "--armor"], "", "20260711T000000");
    key.gpg(
        &["--import"],
        std::str::from_utf8(&secret).unwrap(),
        "20260711T000000",
    );
    let fingerprints = [stranger.fingerprint(), key.fingerprint()];
    let arguments = [
        "--clearsign",
        "--digest-algo",
        "SHA512",
        "-u",
        &fingerprints[0],
        "-u",
        &fingerprints[1],
    ];
    archive.publish(&key.gpg(&arguments, &archive.release(), "20260711T110000"));
    assert!(load(&archive.spec(&key), NOW).is_ok());
    assert!(load(&archive.spec(&stranger), NOW).is_ok());
}

#[test]
fn what_is_not_signed_well_is_refused_by_name() {
    let key = Key::new("ed25519", "0");
    let archive = Archive::new(STANZAS);
    let release = archive.release();
    let good = key.sign(&release);
    let spec = archive.spec(&key);
    archive.publish(&release);
    assert!(refusal(&spec, NOW).ends_with("it is not signed"));
    archive.publish("");
    assert!(refusal(&spec, NOW).ends_with("it is not signed"));
    archive.publish(&good.replace("Components: main", "Components: mean"));
    let found = refusal(&spec, NOW);
    assert!(found.ends_with("it was changed after signing"), "{found}");
    // Text outside the signature must not count as the archive's.
    archive.publish(&format!("Suite: evil\n{good}"));
    refusal(&spec, NOW);
    archive.publish(&format!("{good}\nSuite: evil\n"));
    refusal(&spec, NOW);
    archive.publish(&good[..good.len() / 2]);
    refusal(&spec, NOW);
    archive.publish(&Key::new("ed25519", "0").sign(&release));
    let found = refusal(&spec, NOW);
    assert!(found.contains("which the keyring"), "{found}");
    let weak = [
        "--clearsign",
        "--digest-algo",
        "SHA1",
        "--allow-weak-digest-algos",
    ];
    let rsa = Key::new("rsa2048", "0");
    archive.publish(&rsa.gpg(&weak, &release, "20260711T110000"));
    let found = refusal(&archive.spec(&rsa), NOW);
    assert!(found.contains("a hash that is broken"), "{found}");
}

#[test]
fn expired_and_revoked_keys_and_stale_or_foreign_releases_are_refused() {
    let key = Key::new("ed25519", "0");
    let archive = Archive::new(STANZAS);
    let release = archive.release();
    archive.publish(&key.sign(&release));
    let spec = archive.spec(&key);
    assert!(load(&spec, NOW).is_ok());
    let found = refusal(&spec, NOW + 8 * 86_400);
    assert!(
        found.ends_with("it was valid until 2026-07-18 only"),
        "{found}"
    );
    let found = refusal(&spec, NOW - 30 * 86_400);
    assert!(found.contains("from the future"), "{found}");
    let foreign = ArchiveSpec {
        suite: "trixie".into(),
        ..spec.clone()
    };
    fs::create_dir_all(archive.path("dists/trixie")).unwrap();
    fs::copy(
        archive.suite("InRelease"),
        archive.path("dists/trixie/InRelease"),
    )
    .unwrap();
    let found = refusal(&foreign, NOW);
    assert!(found.contains("belongs to bookworm"), "{found}");
    let mortal = Key::new("ed25519", "200d");
    archive.publish(&mortal.sign(&release));
    assert!(load(&archive.spec(&mortal), NOW).is_ok());
    archive.publish(&mortal.sign(&release.replace("Valid-Until", "X-Valid-Until")));
    let found = refusal(&archive.spec(&mortal), NOW + 30 * 86_400);
    assert!(found.contains("expired on 2026-07-20"), "{found}");
    archive.publish(&key.sign(&release));
    key.revoke();
    let found = refusal(&archive.spec(&key), NOW);
    assert!(found.contains("was revoked"), "{found}");
}

#[test]
fn wrong_and_truncated_package_lists_are_refused_and_a_second_mirror_helps() {
    let key = Key::new("ed25519", "0");
    let archive = Archive::new(STANZAS);
    archive.publish(&key.sign(&archive.release()));
    let spec = archive.spec(&key);
    let folder = archive.suite("main/binary-amd64/by-hash/SHA256");
    let file = fs::read_dir(folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let good = fs::read(&file).unwrap();
    for bad in [&good[..good.len() - 1], b"", &[&good[..], b"x"].concat()] {
        fs::write(&file, bad).unwrap();
        let found = refusal(&spec, NOW);
        assert!(
            found.contains("expected sha256:") && found.contains("by-hash"),
            "{found}"
        );
    }
    // The same suite on two of the machine's mirrors, the first of them broken.
    let whole = Archive::new(STANZAS);
    whole.publish(&fs::read_to_string(archive.suite("InRelease")).unwrap());
    let ambient = Ambient {
        debian_mirrors: [(
            SUITE.to_owned(),
            vec![archive.url.clone(), whole.url.clone()],
        )]
        .into(),
        ..Ambient::default()
    };
    let spec = ArchiveSpec {
        mirror: None,
        ..spec
    };
    let (_folder, store) = empty_store();
    assert!(load_with(&ambient, &store, &spec, NOW, false).is_ok());
}

#[test]
fn what_is_missing_is_named_with_ways_out() {
    let key = Key::new("ed25519", "0");
    let archive = Archive::new(STANZAS);
    archive.publish(&key.sign(&archive.release()));
    let spec = archive.spec(&key);
    let fail = |spec: &ArchiveSpec| {
        let error = load(spec, NOW).unwrap_err();
        (
            error.kind(),
            error.to_string(),
            error.hint().unwrap_or_default(),
        )
    };
    let (kind, text, _) = fail(&ArchiveSpec {
        components: vec!["contrib".into()],
        ..spec.clone()
    });
    assert_eq!(kind, Kind::NoResolution);
    assert!(
        text.contains("component contrib") && text.contains("main"),
        "{text}"
    );
    let (kind, text, hint) = fail(&ArchiveSpec {
        mirror: None,
        ..spec.clone()
    });
    assert_eq!(kind, Kind::Usage);
    assert!(
        text.contains(SUITE) && hint.contains("mirror="),
        "{text} {hint}"
    );
    let (kind, _, hint) = fail(&ArchiveSpec {
        keyring: None,
        ..spec.clone()
    });
    assert_eq!(kind, Kind::Usage);
    assert!(
        hint.contains("debian-archive-keyring") && hint.contains("keyring="),
        "{hint}"
    );
    let (_, text, hint) = fail(&ArchiveSpec {
        updates: true,
        ..spec.clone()
    });
    assert!(
        text.contains("bookworm-updates") && hint.contains("updates=#false"),
        "{text} {hint}"
    );
    let broken = archive.path("broken.gpg");
    fs::write(&broken, "no key").unwrap();
    let (kind, text, _) = fail(&ArchiveSpec {
        keyring: Some(broken),
        ..spec.clone()
    });
    assert_eq!(kind, Kind::Usage);
    assert!(text.contains("broken.gpg"), "{text}");
    let (_folder, store) = empty_store();
    let error = load_with(&Ambient::default(), &store, &spec, NOW, true).unwrap_err();
    assert!(matches!(error, ArchiveError::Offline { .. }), "{error}");
}

#[test]
fn the_real_archive_is_accepted_and_only_by_its_keyring() {
    let store = support::shared_store();
    let universe = support::debian(&store);
    assert!(universe.len() > 50_000);
    assert_eq!(
        universe.suites,
        ["bookworm", "bookworm-updates", "bookworm-security"]
    );
    let key = Key::new("ed25519", "0");
    let foreign = ArchiveSpec {
        keyring: Some(Path::new(&key.public).to_owned()),
        ..support::spec(false)
    };
    let error = load_with(
        &support::host_ambient(),
        &store,
        &foreign,
        support::now(),
        false,
    );
    assert_eq!(error.unwrap_err().kind(), Kind::Refused);
}
