//! `gc` and `rm`: what goes, what stays, and that nobody who works beside them notices.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::Lab;
use crate::server::Server;
use crate::traces;
use crate::wares::{Random, wheel};

const PATIENCE: Duration = Duration::from_secs(120);

const BASE: &str = "base \"small\" { from \"oci:../base:busybox\"; }\n";
const KINDS: [&str; 4] = ["recipes", "trees", "blobs", "artifacts"];

fn index() -> Server {
    Server::with(&[
        wheel("alpha", "1.0", &["beta"], 60, 20_000),
        wheel("beta", "2.0", &[], 4, 900_000),
        wheel("gamma", "3.0", &["delta"], 200, 1_000),
        wheel("delta", "0.1", &[], 2, 100),
    ])
}

fn lab(server: &Server, images: &str) -> Lab {
    Lab::with(&format!("{BASE}{images}")).env("PIP_INDEX_URL", &server.index())
}

/// A lab that works in the store of another.
fn beside(lab: &Lab, server: &Server, images: &str) -> Lab {
    let store = lab.path("store").display().to_string();
    self::lab(server, images).env("IMAGEWRIGHT_STORE", &store)
}

const ONE: &str = "image \"one\" base=\"small\" { pip \"alpha\"; file \"src/\" to=\"/app\"; }\n";
const TWO: &str = "image \"two\" base=\"small\" { pip \"gamma\"; pip \"beta\"; }\n";

fn one(server: &Server) -> Lab {
    let lab = lab(server, ONE);
    lab.write("src/app.py", "print(1)\n");
    lab
}

/// Lets everything in the store have been used so many days ago.
fn age(lab: &Lab, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 86_400);
    for kind in ["recipes", "trees", "blobs", "artifacts", "cache", "runs"] {
        for entry in fs::read_dir(lab.store().join(kind)).unwrap().flatten() {
            let tree = kind == "trees" && entry.file_type().unwrap().is_dir();
            let path = match tree {
                true => entry.path().with_extension("used"),
                false => entry.path(),
            };
            let file = match tree {
                true => File::create(path),
                false => File::open(path),
            };
            let times = FileTimes::new().set_modified(then).set_accessed(then);
            file.unwrap().set_times(times).unwrap();
        }
    }
}

fn names(lab: &Lab, kind: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(lab.store().join(kind)).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".used"))
        .collect()
}

fn everything(lab: &Lab) -> BTreeSet<String> {
    let of = |kind| {
        names(lab, kind)
            .into_iter()
            .map(move |name| format!("{kind}/{name}"))
    };
    KINDS.into_iter().flat_map(of).collect()
}

#[track_caller]
fn gc(lab: &Lab, arguments: &[&str]) -> Value {
    let arguments = [&["gc", "--json"], arguments].concat();
    let ran = lab.run(&arguments).expect(0, &[]);
    serde_json::from_str(&ran.out).unwrap()
}

fn count(document: &Value, what: &str, kind: &str) -> u64 {
    let kinds = document[what].as_array().unwrap();
    let found = kinds.iter().find(|found| found["kind"] == kind).unwrap();
    found["count"].as_u64().unwrap()
}

/// How many things of the four kinds went.
fn gone(document: &Value) -> u64 {
    KINDS
        .iter()
        .map(|kind| count(document, "removed", kind))
        .sum()
}

/// Unpacks the layers of an image.
#[track_caller]
fn unpack(lab: &Lab, image: &str) {
    lab.run(&["exec", image, "--", "sh", "-c", "true"])
        .expect(0, &[]);
}

#[test]
fn what_a_living_lock_roots_stays_and_goes_when_the_lock_has_gone() {
    let server = index();
    let lab = one(&server);
    let digests = lab.build();
    unpack(&lab, "one");
    age(&lab, 400);
    let all = everything(&lab);
    assert_eq!(gone(&gc(&lab, &[])), 0);
    assert_eq!(everything(&lab), all);
    let again = lab
        .run(&["build", "--json", "--offline"])
        .expect(0, &["\"built\": false"]);
    assert_eq!(again.digests(), digests);

    age(&lab, 400);
    fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    let told = gc(&lab, &["--dry-run"]);
    assert_eq!(everything(&lab), all, "a dry run removes nothing");
    let done = gc(&lab, &[]);
    assert_eq!(told["things"], done["things"], "it tells what would go");
    assert_eq!(done["forgotten_locks"].as_array().unwrap().len(), 1);
    assert!(everything(&lab).is_empty(), "{:?}", everything(&lab));
    assert!(names(&lab, "checked").is_empty() && names(&lab, "cache").is_empty());
    for table in ["images", "layers", "bases", "roots"] {
        let rows = lab.rows(&format!("SELECT count(*) || '' FROM {table}"));
        assert_eq!(rows, [["0"]], "{table}");
    }
    assert_eq!(gc(&lab, &[])["forgotten_locks"], serde_json::json!([]));
    assert_eq!(lab.build(), digests, "everything is fetched and made again");
}

#[test]
fn age_counts_from_the_last_use() {
    let server = index();
    let lab = one(&server);
    let other = beside(&lab, &server, TWO);
    other.build();
    lab.build();
    for lab in [&lab, &other] {
        fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    }
    age(&lab, 10);
    assert_eq!(gone(&gc(&lab, &[])), 0, "ten days are not fourteen");
    // Used now, and gone from every root again.
    other.build();
    fs::remove_file(other.project().join("imagewright.lock")).unwrap();
    let before = everything(&lab);
    gc(&lab, &["--older-than", "9d12h"]);
    let after = everything(&lab);
    assert!(after.len() < before.len() && !after.is_empty());
    lab.run(&["gc", "--older-than", "soon"]).expect(2, &["30d"]);
    let ran = other.run(&["build", "--locked", "--json"]);
    ran.expect(5, &[]);
    let again = other
        .run(&["build", "--json"])
        .expect(0, &["\"built\": false"]);
    assert_eq!(again.digests().len(), 1);
}

#[test]
fn a_lock_that_cannot_be_read_keeps_what_it_might_root() {
    let server = index();
    let lab = one(&server);
    let digests = lab.build();
    unpack(&lab, "one");
    age(&lab, 400);
    let lock = lab.project().join("imagewright.lock");
    let text = fs::read_to_string(&lock).unwrap();
    fs::write(&lock, format!("<<<<<<< ours\n{text}")).unwrap();
    let ran = lab
        .run(&["gc"])
        .expect(0, &["warning", "imagewright.lock", "cannot be read"]);
    assert!(ran.out.contains("recipes"), "{}", ran.out);
    assert!(names(&lab, "trees").is_empty(), "trees are unpacked again");
    fs::write(&lock, text).unwrap();
    let again = lab
        .run(&["build", "--json", "--offline"])
        .expect(0, &["\"built\": false"]);
    assert_eq!(again.digests(), digests);
}

#[test]
fn for_a_size_the_oldest_goes_then_trees_and_never_what_a_lock_roots() {
    let server = index();
    let lab = one(&server);
    lab.build();
    unpack(&lab, "one");
    let other = beside(&lab, &server, TWO);
    other.build();
    fs::remove_file(other.project().join("imagewright.lock")).unwrap();
    let whole = gc(&lab, &["--max-size", "1TB"]);
    assert_eq!(
        (gone(&whole), whole["above_max_size"].as_u64()),
        (0, Some(0))
    );
    let gamma = names(&lab, "artifacts").len();
    let least = gc(&lab, &["--max-size", "0B"]);
    assert_eq!(
        names(&lab, "artifacts").len(),
        gamma - 2,
        "gamma and delta; beta is of both"
    );
    assert!(names(&lab, "trees").is_empty());
    assert!(least["above_max_size"].as_u64().unwrap() > 0);
    lab.run(&["build", "--offline"])
        .expect(0, &["already built"]);
    assert!(gone(&gc(&lab, &["--all"])) > 0);
    assert!(everything(&lab).is_empty());
    lab.run(&["build"]).expect(0, &["new"]);
}

#[test]
fn runs_stay_unless_named_and_what_a_run_uses_stays_while_it_runs() {
    let server = index();
    let lab = Lab::new().env("PIP_INDEX_URL", &server.index());
    let run = format!(
        "{BASE}image \"one\" base=\"small\" {{ pip \"alpha\"; }}\nrun \"long\" image=\"one\" {{ env \"MARK\" \"{}\"\n \
         command \"sh\" \"-c\" \"touch /results/here; i=0; while [ $i -lt 40 ]; do sleep 0.1; i=$((i+1)); ls /opt >/dev/null || exit 9; done\"\n \
         resources ram=\"64MB\" cpu=\"500m\"; }}",
        lab.name()
    );
    lab.write("imagewright.kdl", run);
    lab.build();
    let mut running = lab.start(&["test", "--json"]);
    let started = || !names(&lab, "runs").is_empty();
    assert!(running.until(started), "the run has begun");
    std::thread::sleep(Duration::from_secs(1));
    fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    age(&lab, 400);
    let during = gc(&lab, &["--all", "--runs-older-than", "0s"]);
    assert!(count(&during, "kept", "trees") > 0 && count(&during, "kept", "runs") == 1);
    running.wait(PATIENCE).expect(0, &["SUCCEEDED"]);
    let after = gc(&lab, &["--all"]);
    assert_eq!(count(&after, "kept", "trees"), 0);
    assert_eq!(count(&after, "kept", "runs"), 1);
    lab.run(&["jobs"]).expect(0, &["SUCCEEDED", "long"]);
    gc(&lab, &["--runs-older-than", "1h"]);
    assert_eq!(names(&lab, "runs").len(), 1);
    gc(&lab, &["--runs-older-than", "0s"]);
    assert!(names(&lab, "runs").is_empty());
    assert_eq!(lab.run(&["jobs"]).expect(0, &[]).out, "");
    traces::assert_none(&lab, "by gc");
}

#[test]
fn links_and_strangers_are_left_alone() {
    let server = index();
    let lab = one(&server);
    lab.build();
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("dear"), "dear").unwrap();
    let name = "a".repeat(64);
    let link = |to: &Path, kind: &str| {
        std::os::unix::fs::symlink(to, lab.store().join(kind).join(&name)).unwrap();
    };
    link(&outside.join("dear"), "blobs");
    link(&outside, "trees");
    fs::write(lab.store().join("blobs/notes.txt"), "mine").unwrap();
    // A tree with a link to the outside, and folders that nobody may write.
    let tree = lab.store().join("trees").join("b".repeat(64));
    fs::create_dir_all(tree.join("closed")).unwrap();
    std::os::unix::fs::symlink(&outside, tree.join("closed/out")).unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o500);
    fs::set_permissions(tree.join("closed"), closed).unwrap();
    gc(&lab, &["--all"]);
    assert!(!tree.exists());
    assert_eq!(fs::read_to_string(outside.join("dear")).unwrap(), "dear");
    assert!(lab.store().join("blobs/notes.txt").exists());
    assert!(lab.store().join("blobs").join(&name).is_symlink());
}

#[test]
fn removed_images_free_what_nothing_else_needs() {
    let server = index();
    let lab = lab(
        &server,
        &format!("{TWO}image \"three\" base=\"small\" {{ pip \"gamma\"; }}\n"),
    );
    let digests = lab.build();
    lab.run(&["rm", "tow"]).expect(8, &["did you mean `two`?"]);
    lab.run(&["rm", &format!("sha256:{}", "0".repeat(64))])
        .expect(8, &[]);
    let before = everything(&lab);
    lab.run(&["rm", "two", "--now"])
        .expect(0, &["removed two", &digests[0]]);
    let after = everything(&lab);
    assert!(
        after.len() < before.len(),
        "configuration and manifest at least"
    );
    assert!(
        after
            .iter()
            .filter(|name| name.starts_with("artifacts"))
            .count()
            == 3,
        "the lock has them"
    );
    let again = lab.run(&["build", "three", "--offline", "--json"]);
    assert_eq!(
        again.expect(0, &["\"built\": false"]).digests(),
        digests[1..]
    );
    lab.run(&["rm", &digests[1]]).expect(0, &["removed three"]);
    assert_eq!(everything(&lab), after, "gc frees the space");
    assert_eq!(lab.build(), digests);
    fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    lab.run(&["rm", "two", "three", "--now", "--json"])
        .expect(0, &["freed_bytes"]);
    assert!(names(&lab, "recipes").is_empty() && names(&lab, "artifacts").is_empty());
}

#[test]
fn an_image_that_another_begins_with_is_removed_with_it_or_by_force() {
    let server = index();
    let above =
        "base \"on_one\" { image \"one\"; }\nimage \"upper\" base=\"on_one\" { pip \"delta\"; }\n";
    let lab = lab(&server, &format!("{ONE}{above}"));
    lab.write("src/app.py", "");
    lab.build();
    lab.run(&["rm", "one"])
        .expect(7, &["`upper` is built on `one`", "--force"]);
    lab.run(&["rm", "one", "--force"]).expect(0, &[]);
    lab.build();
    lab.run(&["rm", "one", "upper"]).expect(0, &[]);
    lab.run(&["rm", "one"]).expect(8, &[]);
}

/// Builds the project, and reads every byte of what was built.
#[track_caller]
fn build_and_export(lab: &Lab, name: &str, expected: &[String]) {
    assert_eq!(lab.build(), expected);
    let archive = lab.path("archive.tar");
    let ran = lab.run(&["export", name, "--oci-archive", archive.to_str().unwrap()]);
    ran.expect(0, &[]);
    fs::remove_file(archive).unwrap();
}

#[test]
fn collections_in_a_loop_do_not_disturb_builds() {
    const ROUNDS: usize = 12;
    let server = index();
    let shared = Lab::new();
    let projects = [("one", ONE), ("two", TWO)];
    let labs: Vec<Lab> = projects
        .iter()
        .map(|(_, images)| {
            let lab = beside(&shared, &server, images);
            lab.write("src/app.py", "print(2)\n");
            lab
        })
        .collect();
    let expected: Vec<Vec<String>> = labs.iter().map(Lab::build).collect();
    let collector = beside(&shared, &server, "");
    let ended = std::sync::atomic::AtomicBool::new(false);
    let collected = std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let (mut rounds, mut things) = (0, 0);
            while !ended.load(std::sync::atomic::Ordering::Relaxed) || rounds == 0 {
                things += gone(&gc(&collector, &["--all"]));
                rounds += 1;
            }
            (rounds, things)
        });
        let building: Vec<_> = labs
            .iter()
            .zip(projects)
            .zip(&expected)
            .map(|((lab, (name, _)), expected)| {
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        build_and_export(lab, name, expected);
                    }
                })
            })
            .collect();
        let built: Vec<_> = building.into_iter().map(|thread| thread.join()).collect();
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        let collected = collecting.join().unwrap();
        built.into_iter().for_each(|built| built.unwrap());
        collected
    });
    eprintln!(
        "{collected:?} collections and things that went beside {ROUNDS} builds of two projects"
    );
    assert!(collected.1 > 0, "there was something to collect");
    traces::assert_none(&shared, "by collections and builds");
}

#[test]
fn a_killed_collection_leaves_a_store_that_works() {
    let server = index();
    let lab = one(&server);
    let expected = lab.build();
    unpack(&lab, "one");
    let started = std::time::Instant::now();
    gc(&lab, &["--all"]);
    let whole = started.elapsed();
    let mut killed = 0;
    for moment in Random::seeded("gc").moments(12, whole) {
        lab.build();
        unpack(&lab, "one");
        let running = lab.start(&["gc", "--all"]);
        std::thread::sleep(moment);
        running.signal(Signal::KILL);
        killed += usize::from(running.wait(PATIENCE).code.is_none());
        build_and_export(&lab, "one", &expected);
        unpack(&lab, "one");
        traces::assert_none(&lab, &format!("by a collection killed after {moment:?}"));
    }
    assert!(killed > 3, "only {killed} of 12 were killed");
}
