//! Reading a registry's records: only new ones, whatever lies between them, whoever else reads, whenever it is killed.

use std::fs;
use std::time::Duration;

use imagewright::catalog::{KeyTag, Record};
use imagewright::digest::Digest;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::faults::{Fault, Weather};
use crate::lab::{Options, PREFIX, Request, Server};
use crate::project::Lab;
use crate::proxy::Proxy;
use crate::records::*;

fn server() -> Server {
    Server::docker_registry(Options {
        delete: true,
        ..Options::default()
    })
}

fn many(count: usize) -> Vec<Record> {
    let names = (0..count).map(|at| format!("image-{at:03}"));
    names
        .enumerate()
        .map(|(at, name)| record(&name, at as i64, &["numpy==1.26.4"]))
        .collect()
}

/// Records that were asked for.
fn fetched(requests: &[Request]) -> usize {
    let wanted =
        |request: &&Request| request.method == "GET" && request.path.contains("/manifests/record-");
    requests.iter().filter(wanted).count()
}

#[test]
fn only_new_records_are_read() {
    let (server, lab) = (server(), Lab::new());
    put(&server, &many(30));
    let (ran, requests) = server.during(|| find(&lab, &server, &[]));
    assert_eq!((names(&ran).len(), fetched(&requests)), (30, 30));
    let (ran, requests) = server.during(|| find(&lab, &server, &[]));
    assert_eq!((names(&ran).len(), fetched(&requests)), (30, 0));
    put(&server, &many(32));
    let (ran, requests) = server.during(|| find(&lab, &server, &["--no-sync"]));
    assert_eq!((names(&ran).len(), requests.len()), (30, 0));
    let (ran, requests) = server.during(|| find(&lab, &server, &[]));
    assert_eq!((names(&ran).len(), fetched(&requests)), (32, 2));
    fs::remove_file(index_path(&lab)).unwrap();
    assert_eq!(names(&find(&lab, &server, &[])).len(), 32, "it may vanish");
}

#[test]
fn records_that_vanish_are_forgotten_and_what_they_superseded_is_current_again() {
    let (server, lab) = (server(), Lab::new());
    let (old, mut new) = (
        record("fraud", 1, &["numpy==1.0"]),
        record("fraud", 2, &["numpy==2.0"]),
    );
    new.supersedes = Some(old.digest);
    put(&server, &[old]);
    let document = serde_json::to_vec(&new).unwrap();
    let tag = KeyTag::Record(Digest::of(&document)).tag();
    let manifest = put_manifest(&server, &tag, &manifest(&document), &[document]);
    let numpy = |arguments: &[&str]| {
        let ran = find(&lab, &server, &[&["--pip", "numpy"], arguments].concat());
        let images = printed(&ran)["images"].take();
        let versions = images.as_array().unwrap().iter().map(|image| {
            let package = image["packages"][0]["version"].as_str().unwrap();
            format!("{package} {}", image["status"].as_str().unwrap())
        });
        versions.collect::<Vec<_>>()
    };
    assert_eq!(numpy(&[]), ["2.0 READY"]);
    assert_eq!(
        numpy(&["--status", "outdated,ready"]),
        ["1.0 OUTDATED", "2.0 READY"]
    );
    remove(&server, cache(&server).repository.as_str(), &manifest);
    assert_eq!(numpy(&["--status", "outdated,ready"]), ["1.0 READY"]);
    let left: i64 = index(&lab)
        .query_row("SELECT count(*) FROM keys", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 7, "keys of one image");
}

/// Documents that are no records, each with a word of the reason.
fn hostile() -> Vec<(Value, &'static str)> {
    let fine = json!(record("fine", 1, &["numpy==1.0", "os:vim==2:9.0-1"]));
    let with = |pointer: &str, value: Value| {
        let mut document = fine.clone();
        *document.pointer_mut(pointer).unwrap() = value;
        document
    };
    let without = |field: &str| {
        let mut document = fine.clone();
        document.as_object_mut().unwrap().remove(field);
        document
    };
    let package = json!({"name": "a", "version": "1", "layer": null});
    let mut deep = json!(1);
    for _ in 0..500 {
        deep = json!([deep]);
    }
    vec![
        (with("/v", json!(2)), "version 2"),
        (with("/v", json!("1")), "invalid type"),
        (without("digest"), "missing field"),
        (with("/name", json!("../../etc")), "name"),
        (with("/name", json!("Ready")), "name"),
        (with("/name", json!("a\u{1b}[2J")), "control characters"),
        (with("/pip/0/version", json!("1\n2")), "control characters"),
        (
            with("/base/root", json!("a\u{202e}b")),
            "control characters",
        ),
        (with("/pip/0/name", json!("")), "package"),
        (with("/pip/0/name", json!("n".repeat(4000))), "package"),
        (with("/pip/0/layer", json!(7)), "layer"),
        (with("/base/name", json!("n".repeat(4000))), "bytes"),
        (
            with("/pip", json!(vec![package; 20_001])),
            "more than 20000",
        ),
        (
            with("/layers", json!(vec![fine["layers"][0].clone(); 1001])),
            "more than 1000",
        ),
        (with("/base_layers", json!(2)), "layers"),
        (with("/tags", json!(["a b"])), "tags"),
        (with("/repository", json!("a@b")), "repository"),
        (with("/repository", json!("a:b")), "repository"),
        (with("/digest", json!("sha256:00")), "digest"),
        (with("/platform", json!("plan9/mips")), "unknown variant"),
        (with("/pushed_ms", json!(-1)), "time"),
        (with("/pushed_ms", json!(i64::MAX)), "time"),
        (with("/requested", deep.clone()), "invalid type"),
        (with("/base/name", json!({ "\u{e9}": deep })), "recursion"),
        (json!([]), "invalid"),
    ]
}

#[test]
fn hostile_records_are_told_once_and_keep_nobody_else_from_being_found() {
    let (server, lab) = (server(), Lab::new());
    let mut expected = Vec::new();
    for (document, reason) in hostile() {
        let document = document.to_string().into_bytes();
        let tag = KeyTag::Record(Digest::of(&document)).tag();
        put_manifest(&server, &tag, &manifest(&document), &[document]);
        expected.push((tag, reason));
    }
    let fine = serde_json::to_vec(&record("poisoned", 5, &["numpy==6.6"])).unwrap();
    let other = KeyTag::Record(Digest::of("something else")).tag();
    put_manifest(
        &server,
        &other,
        &manifest(&fine),
        std::slice::from_ref(&fine),
    );
    let mut passing = vec![(other, "not the one that its tag names")];
    let tag = KeyTag::Record(Digest::of("not embedded")).tag();
    let mut bare = manifest(&fine);
    bare["config"].as_object_mut().unwrap().remove("data");
    put_manifest(&server, &tag, &bare, std::slice::from_ref(&fine));
    passing.push((tag, "embeds no document"));
    let tag = KeyTag::Record(Digest::of("changed")).tag();
    let mut changed = manifest(&fine);
    changed["config"]["data"] = "e30=".into();
    put_manifest(&server, &tag, &changed, std::slice::from_ref(&fine));
    passing.push((tag, "does not have its digest"));
    let tag = KeyTag::Record(Digest::of("another type")).tag();
    let mut changed = manifest(&fine);
    changed["config"]["mediaType"] = "text/plain".into();
    put_manifest(&server, &tag, &changed, &[fine]);
    passing.push((tag, "media type"));
    put(&server, &many(3));
    let all = expected.len() + passing.len();
    let refused = |lab: &Lab| {
        let index = index(lab);
        let mut statement = index
            .prepare("SELECT hex(record), reason FROM refused")
            .unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap()
            .collect::<Result<Vec<(String, String)>, _>>()
            .unwrap()
    };

    let (ran, requests) = server.during(|| find(&lab, &server, &["--status", "READY,OUTDATED"]));
    assert_eq!(names(&ran), ["image-000", "image-001", "image-002"]);
    assert_eq!(fetched(&requests), all + 3);
    assert_eq!(
        ran.err.matches("warning: record-").count(),
        5,
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains(&format!("{} more tags", all - 5)),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains(['\u{1b}', '\u{202e}']), "{}", ran.err);
    let found = refused(&lab);
    assert_eq!(found.len(), expected.len());
    for (tag, word) in expected {
        let hex = tag.trim_start_matches("record-").to_uppercase();
        let reason = found.iter().find(|(record, _)| *record == hex);
        let reason = &reason
            .unwrap_or_else(|| panic!("{tag} ({word}) was taken"))
            .1;
        assert!(reason.contains(word), "{reason} does not say {word}");
    }

    let (ran, requests) = server.during(|| find(&lab, &server, &[]));
    // What is not what its tag names may have been somebody else's answer: it is asked for again.
    assert_eq!((names(&ran).len(), fetched(&requests)), (3, passing.len()));
    assert_eq!(
        ran.err.lines().count(),
        passing.len(),
        "others are told once"
    );
    for (tag, word) in passing {
        let mut lines = ran.err.lines();
        let told = lines.any(|line| line.contains(&tag) && line.contains(word));
        assert!(told, "{tag} ({word}): {}", ran.err);
    }
}

#[test]
fn without_the_registry_nobody_says_what_there_is_but_when_told_not_to_ask() {
    let lab = Lab::new();
    let server = server();
    put(&server, &many(2));
    assert_eq!(names(&find(&lab, &server, &[])).len(), 2);
    let offline = find(&lab, &server, &["--offline"]);
    assert_eq!(names(&offline).len(), 2);
    assert!(
        offline.err.contains("--offline") && offline.err.contains("before"),
        "{offline:?}"
    );
    let place = place(&server);
    drop(server);
    let arguments = ["find", "--registry", &place];
    let ran = lab.run(&arguments);
    let ran = ran.expect(4, &[&place, "cannot be read", "help: ", "--no-sync"]);
    assert_eq!(ran.out, "");
    let arguments = ["find", "--json", "--no-sync", "--registry", &place];
    let ran = lab.run(&arguments);
    assert_eq!((names(&ran).len(), ran.err.as_str()), (2, ""));

    let locked = Server::docker_registry(Options {
        login: true,
        ..Options::default()
    });
    let ran = find(&lab, &locked, &[]);
    ran.expect(6, &["log in"]);
}

#[test]
fn what_did_not_come_across_is_asked_for_again() {
    let (server, lab) = (server(), Lab::new());
    put(&server, &many(3));
    let cache = cache(&server).repository;
    let path = server.blob_path(&server.tags(&cache)[0].1);
    let whole = fs::read(&path).unwrap();
    let damaged = String::from_utf8(whole.clone()).unwrap();
    fs::write(&path, damaged.replace("schemaVersion", "schemaversion")).unwrap();
    for _ in 0..2 {
        let ran = find(&lab, &server, &[]);
        assert_eq!(names(&ran).len(), 2);
        assert!(ran.err.contains("expected sha256:"), "{ran:?}");
    }
    fs::write(&path, whole).unwrap();
    let ran = find(&lab, &server, &[]);
    assert_eq!((names(&ran).len(), ran.err.as_str()), (3, ""));
}

#[test]
fn a_registry_that_does_not_give_all_its_records_does_not_tell_what_there_is() {
    let (server, lab) = (server(), Lab::new());
    let documents = put(&server, &many(3));
    let weather = Weather {
        permille: 1000,
        faults: vec![Fault::Broken],
        only: format!(
            "GET /v2/{PREFIX}/cache/manifests/record-{}",
            documents[1].hex()
        ),
        ..Weather::default()
    };
    let proxy = Proxy::start(server.address(), weather);
    let place = format!("{}/{PREFIX}", proxy.address());
    let arguments = ["find", "--json", "--registry", &place];
    let ran = lab.run(&arguments);
    let ran = ran.expect(4, &["cannot be read", "500", "--no-sync"]);
    assert_eq!(ran.out, "");
    let before = lab.run(&[&arguments[..], &["--no-sync"]].concat());
    assert_eq!(
        names(&before),
        ["image-000", "image-002"],
        "what came is kept"
    );
    proxy.set(Weather::default());
    let (ran, requests) = server.during(|| lab.run(&arguments));
    assert_eq!((names(&ran).len(), fetched(&requests)), (3, 1));
}

#[test]
fn registries_are_kept_apart() {
    let (one, two, lab) = (server(), server(), Lab::new());
    put(&one, &many(2));
    put(&two, &[record("image-000", 7, &["numpy==2.0"])]);
    for _ in 0..2 {
        let here = ["image-000", "image-001"];
        assert_eq!(
            names(&find(&lab, &one, &["--status", "ready,outdated"])),
            here
        );
        assert_eq!(
            names(&find(&lab, &two, &["--status", "ready,outdated"])),
            ["image-000"]
        );
    }
    assert_eq!(names(&find(&lab, &one, &["--pip", "numpy==2"])), [""; 0]);
    assert_eq!(names(&lab.run(&["find", "--json", "--local"])), [""; 0]);
    let token = printed(&find(&lab, &one, &["--page-size", "1"]));
    let token = token["next_page_token"].as_str().unwrap();
    let ran = find(&lab, &two, &["--page-token", token]);
    ran.expect(2, &["another registry"]);
    drop(one);
    assert_eq!(names(&find(&lab, &two, &[])), ["image-000"]);
}

#[test]
fn eight_processes_read_into_one_store_at_once() {
    let (server, lab) = (server(), Lab::new());
    put(&server, &many(120));
    let place = place(&server);
    let arguments = ["find", "--json", "--all", "--registry", &place];
    let (all, requests) = server.during(|| {
        let running: Vec<_> = (0..8).map(|_| lab.start(&arguments)).collect();
        let ended = running
            .into_iter()
            .map(|one| one.wait(Duration::from_secs(120)));
        ended.collect::<Vec<_>>()
    });
    for ran in &all {
        assert_eq!(names(ran).len(), 120);
        assert_eq!((&ran.out, ran.err.as_str()), (&all[0].out, ""));
    }
    assert_eq!(fetched(&requests), 120, "each record is read once");
}

#[test]
fn a_sync_that_was_killed_is_done_again() {
    let (server, lab) = (server(), Lab::new());
    put(&server, &many(200));
    let place = place(&server);
    for enough in [1, 60, 150] {
        let before = fetched(&server.requests());
        let mut running = lab.start(&["find", "--registry", &place]);
        running.until(|| fetched(&server.requests()) >= before + enough);
        running.signal(Signal::KILL);
        running.wait(Duration::from_secs(20));
    }
    let ran = find(&lab, &server, &["--all"]);
    assert_eq!((names(&ran).len(), ran.err.as_str()), (200, ""));
    let sound: String = index(&lab)
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok");
}

#[test]
fn a_damaged_index_is_set_aside_and_made_anew() {
    let (server, lab) = (server(), Lab::new());
    put(&server, &many(40));
    assert_eq!(names(&find(&lab, &server, &[])).len(), 40);
    let path = index_path(&lab);
    let whole = fs::read(&path).unwrap();
    let mut holes = whole.clone();
    for page in holes.chunks_mut(4096).skip(1) {
        page.fill(0xa5);
    }
    let half = whole[..whole.len() / 2].to_vec();
    let changed = rusqlite::Connection::open_in_memory().unwrap();
    changed
        .execute_batch("CREATE TABLE images (id); PRAGMA user_version = 77")
        .unwrap();
    let other = lab.path("other.sqlite");
    changed
        .execute("VACUUM INTO ?1", [other.display().to_string()])
        .unwrap();
    for (what, damage) in [
        ("text", b"this is no database, whoever wrote it".repeat(99)),
        ("overwritten pages", holes),
        ("the first half", half),
        ("a later version", fs::read(&other).unwrap()),
    ] {
        for ending in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{ending}", path.display()));
        }
        fs::write(&path, damage).unwrap();
        let ran = find(&lab, &server, &["--pip", "numpy"]);
        assert_eq!(names(&ran).len(), 40, "{what}: {ran:?}");
        assert!(path.with_extension("sqlite.damaged").exists(), "{what}");
    }
}
