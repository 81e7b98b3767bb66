//! `push` again: what the registry has lost comes back, and what somebody else has put there is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use imagewright::digest::Digest;
use serde_json::Value;

use crate::lab::{self, Options, PREFIX, Server};
use crate::pushing::{ONE, counts, digest, documents, push, writes};
use crate::sample::{self, Sample};

/// The file that says what a tag of a repository names.
fn link_in(server: &Server, repository: &str, tag: &str) -> PathBuf {
    let repository = server.storage().join("repositories").join(repository);
    repository
        .join("_manifests/tags")
        .join(tag)
        .join("current/link")
}

/// The same in the cache.
fn link(server: &Server, tag: &str) -> PathBuf {
    link_in(server, &format!("{PREFIX}/cache"), tag)
}

/// Removes a tag whose file this is.
fn untag(link: &Path) {
    fs::remove_dir_all(link.ancestors().nth(2).unwrap()).unwrap();
}

#[test]
fn pushing_again_brings_back_what_the_registry_has_lost() {
    let server = Server::docker_registry(Options::default());
    let index = lab::index();
    let lab = lab::project(server.address(), &index, ONE);
    let pushed = &push(&lab, &[])["images"][0];
    let again = || server.during(|| push(&lab, &[])["images"][0].clone());
    let (same, requests) = again();
    assert!(writes(&requests).is_empty(), "{requests:#?}");
    assert_eq!(digest(&same), digest(pushed));

    // The data of a layer.
    let layers = server.layers();
    let lost = layers
        .iter()
        .max_by_key(|layer| server.blob_size(layer))
        .unwrap();
    let path = server.blob_path(lost);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let dry = &push(&lab, &["--dry-run"])["images"][0];
    let (mended, requests) = again();
    assert_eq!(mended["layers"], dry["layers"]);
    assert_eq!(counts(&mended)[0], 1, "{mended:#}");
    assert_eq!(server.layer_bytes(&requests).1, bytes.len() as u64);
    assert!(fs::read(&path).unwrap() == bytes);
    server.assert_whole();

    // What of a layer is no more all of it the registry believes to have, and takes it from nobody.
    fs::write(&path, &bytes[1..]).unwrap();
    let words = [
        &lost.to_string(),
        "bytes of",
        "its copy is damaged",
        "remove",
    ];
    let ran = lab.run(&["push"]);
    ran.expect(7, &words);
    // Who needs its bytes is told which blob it is, and makes them.
    let other = lab::project(server.address(), &index, ONE);
    let lock = fs::read(lab.project().join("imagewright.lock")).unwrap();
    other.write("imagewright.lock", &lock);
    let archive = other.path("one.tar").display().to_string();
    let ran = other.run(&["export", "one", "--oci-archive", &archive]);
    let ran = ran.expect(0, &[]);
    let ended = format!("ended after {} of {} bytes", bytes.len() - 1, bytes.len());
    for word in [&lost.to_string(), &ended, "building one without it"] {
        assert!(ran.err.contains(word), "{}", ran.err);
    }
    fs::remove_file(&path).unwrap();
    push(&lab, &[]);
    server.assert_whole();

    // The tags of the keys: the cache is asked by them.
    let keyed = |kind| documents(&server, &format!("{PREFIX}/cache"), kind);
    for kind in ["set-", "image-", "layer-", "record-", "name-"] {
        let before = keyed(kind);
        // Of records, the last one.
        let time = |tag: &(&String, &Value)| tag.1["pushed_ms"].as_i64();
        let (tag, _) = before.iter().max_by_key(time).unwrap();
        untag(&link(&server, tag));
        assert!(keyed(kind).len() < before.len());
        push(&lab, &[]);
        let after = keyed(kind);
        match kind {
            // The one that is lost has another in its place, written later.
            "record-" => assert_eq!(after.len(), before.len()),
            _ => assert!(after.keys().eq(before.keys()), "{kind}"),
        }
        lab.run(&["find"]).expect(0, &["one"]);
    }
    let (_, requests) = again();
    assert!(writes(&requests).is_empty(), "{requests:#?}");
    server.assert_whole();

    // What the record names, and what leads from the image to its SBOM.
    let record = keyed("name-").into_values().next().unwrap();
    let lock = record["lock"]["digest"].as_str().unwrap();
    fs::remove_file(server.blob_path(&lock.parse().unwrap())).unwrap();
    let layers = keyed("layer-").into_values();
    let paths = layers.filter_map(|layer| Some(layer["paths"]["digest"].as_str()?.to_owned()));
    let paths = paths.max().unwrap();
    fs::remove_file(server.blob_path(&paths.parse().unwrap())).unwrap();
    let subject = record["digest"].as_str().unwrap().replace(':', "-");
    let listed = |server: &Server| {
        let tags = server.tags(PREFIX);
        tags.iter().any(|(tag, _)| *tag == subject)
    };
    assert!(listed(&server));
    untag(&link_in(&server, PREFIX, &subject));
    push(&lab, &[]);
    assert!(listed(&server));
    server.assert_whole();
}

#[test]
fn what_stands_in_the_place_of_a_record_is_told() {
    let server = Server::docker_registry(Options::default());
    let index = lab::index();
    let lab = lab::project(server.address(), &index, ONE);
    push(&lab, &[]);
    let cache = format!("{PREFIX}/cache");
    let tags = server.tags(&cache);
    let find = |kind: &str| tags.iter().find(|(tag, _)| tag.starts_with(kind)).unwrap();
    let ((set, _), (_, layer)) = (find("set-"), find("layer-"));
    fs::write(link(&server, set), layer.to_string()).unwrap();
    let ran = lab.run(&["push"]).expect(0, &[]);
    for word in [set, "delete it in the registry", "push again"] {
        assert!(ran.err.contains(word), "{}", ran.err);
    }
    // Who follows that advice serves colleagues again.
    untag(&link(&server, set));
    let ran = lab.run(&["push"]).expect(0, &[]);
    assert!(!ran.err.contains("delete it"), "{}", ran.err);
    let colleague = lab::colleague(&lab, server.address());
    let build = || colleague.run(&["build", "--locked"]).expect(0, &[]);
    let (_, requests) = server.during(build);
    assert_eq!(server.layer_bytes(&requests), (0, 0));
}

#[test]
fn the_last_of_two_pushes_at_a_time_has_the_name_and_the_newest_record() {
    let server = Server::docker_registry(Options::default());
    let prefix = format!("{}/race", server.address());
    let (one, other) = (Sample::new(1), Sample::new(2));
    let catalog = || sample::catalog(lab::client(&[]), &prefix);
    let calls = AtomicI64::new(0);
    // The other push comes and goes when the records of the first are about to be written, and its clock is ahead.
    let clock = || {
        if calls.fetch_add(1, Ordering::Relaxed) > 0 {
            return 3;
        }
        std::thread::scope(|scope| {
            let pushing = || lab::wait(other.publish_by(&|| 2, &catalog())).map(|_| ());
            scope.spawn(pushing).join().unwrap().unwrap();
        });
        1
    };
    let pushed = lab::wait(one.publish_by(&clock, &catalog())).unwrap();
    let named = server.tags("race");
    let found = named.iter().find(|(tag, _)| tag == "sample").unwrap();
    assert_eq!(found.1, one.image.digest());
    assert_eq!(pushed.supersedes, Some(other.image.digest()));
    let records = documents(&server, "race/cache", "record-");
    let newest = records
        .values()
        .max_by_key(|record| record["pushed_ms"].as_i64());
    let newest = newest.unwrap();
    let text = |digest: Digest| digest.to_string();
    assert_eq!(newest["digest"], text(one.image.digest()));
    assert_eq!(newest["supersedes"], text(other.image.digest()));
    server.assert_whole();

    // Where the name and its last record differ all the same, who pushes again sets it right.
    lab::wait(other.publish_by(&|| 100, &catalog())).unwrap();
    let link = link_in(&server, "race", "sample");
    fs::write(link, text(one.image.digest())).unwrap();
    let link = link_in(&server, "race", "sample-stable");
    fs::write(link, text(one.image.digest())).unwrap();
    let pushed = lab::wait(one.publish_by(&|| 50, &catalog())).unwrap();
    let [record] = pushed.records.as_slice() else {
        panic!("{pushed:?}");
    };
    let records = documents(&server, "race/cache", "record-");
    let record = &records[&format!("record-{}", record.hex())];
    // Its clock is behind that of the other push, which it comes after all the same.
    assert_eq!(record["pushed_ms"], 101);
    assert_eq!(record["digest"], text(one.image.digest()));
    let again = lab::wait(one.publish_by(&|| 51, &catalog())).unwrap();
    assert!(again.records.is_empty());
    server.assert_whole();
}
