//! Disks that are full or must not be written: what is said, what stays whole, and how space is made.

use std::fs;

use serde_json::Value;

use crate::input::{GOOD, expected, good_wheels};
use crate::lab::Lab;
use crate::server::Server;
use crate::traces;

#[test]
fn a_full_disk_is_told_and_does_no_harm() {
    let server = Server::with(&good_wheels());
    let expected = expected();
    for size in ["256k", "700k", "1200k", "2m"] {
        let lab = Lab::with(GOOD).env("PIP_INDEX_URL", &server.index());
        let ran = lab.privately(
            &format!(
                "mkdir store && mount -t tmpfs -o size={size} none store && \
                 for what in lock build; do \"$1\" -C project $what --json >/dev/null; echo \"$what ended with $?\" >&2; done; \
                 mount -o remount,size=200m store && exec \"$1\" -C project build --json"
            ),
        );
        let ran = ran.expect(
            0,
            &[
                "build ended with 4",
                "No space left on device",
                "IMAGEWRIGHT_STORE",
            ],
        );
        assert_eq!(ran.digests(), expected, "{size}");
    }
}

#[test]
fn a_full_disk_under_an_export_leaves_no_half_archive() {
    let server = Server::with(&good_wheels());
    let lab = Lab::with(GOOD).env("PIP_INDEX_URL", &server.index());
    lab.build();
    for format in [
        "--oci out/x",
        "--oci-archive out/x",
        "--docker-archive out/x",
    ] {
        let ran = lab.privately(
            &format!(
                "mkdir -p out && mount -t tmpfs -o size=600k none out && \
                 \"$1\" -C project export app {format}; code=$?; find out -type f -size +300k; exit $code"
            ),
        );
        let ran = ran.expect(
            4,
            &[
                "No space left on device",
                "/out/",
                "that disk is full",
                "imagewright gc",
            ],
        );
        assert_eq!(ran.out, "", "nothing half-written stays");
    }
    traces::assert_none(&lab, "by exports on a full disk");
    // A project's folder that is full: the lock that was there stays as it was.
    let before = fs::read_to_string(lab.project().join("imagewright.lock")).unwrap();
    let ran = lab.privately(
        "mkdir full && mount -t tmpfs -o size=64k none full && cp project/* full && \
         sed -i '1s/.*/base \"small\" { from \"oci:..\\/base:busybox\"; env \"A\" \"1\"; }/' full/imagewright.kdl && \
         { cat /dev/zero > full/fill; } 2>/dev/null; \"$1\" -C full lock; code=$?; cat full/imagewright.lock; exit $code",
    );
    let words = ["cannot write", "that disk is full", "imagewright gc"];
    assert_eq!(ran.expect(4, &words).out, before);
    // And one without a manifest stays without.
    let ran = lab.privately(
        "mkdir new && mount -t tmpfs -o size=64k none new && { cat /dev/zero > new/fill; } 2>/dev/null; \
         \"$1\" -C new init; code=$?; ls -A new; exit $code",
    );
    assert_eq!(
        ran.expect(4, &["imagewright.kdl", "that disk is full"]).out,
        "fill\n"
    );
}

/// How a disk comes to have no room for what is new: without bytes, without files.
const FILLED: [&str; 2] = [
    "{ cat /dev/zero > store/fill; } 2>/dev/null",
    "mkdir store/fill; { cd store/fill; seq 1000 | xargs touch; cd ../..; } 2>/dev/null",
];

/// Builds, removes the lock, fills the disk, sees a build fail, and frees with `command`; then lists what the store has
/// and builds again with room.
#[track_caller]
fn assert_frees(filled: &str, command: &str) -> Value {
    let server = Server::with(&good_wheels());
    let lab = Lab::with(GOOD).env("PIP_INDEX_URL", &server.index());
    let script = format!(
        "mkdir store && mount -t tmpfs -o size=64m,nr_inodes=1000 none store && \"$1\" -C project build >/dev/null || exit 90
         rm project/imagewright.lock; {filled}
         if echo 1 2>/dev/null > store/more; then exit 91; fi
         \"$1\" -C project build >/dev/null; test $? = 4 || exit 92
         \"$1\" -C project {command} --json > freed || exit 93
         \"$1\" find --local --json > found || exit 94
         rm -r store/fill && exec \"$1\" -C project build --json"
    );
    let ran = lab.privately(&script);
    let words = ["/store is full", "imagewright gc", "IMAGEWRIGHT_STORE"];
    assert_eq!(ran.expect(0, &words).digests(), expected());
    let told = |name| serde_json::from_str(&fs::read_to_string(lab.path(name)).unwrap()).unwrap();
    let found: Value = told("found");
    assert_eq!(found["images"].as_array().map(Vec::len), Some(0), "{found}");
    told("freed")
}

#[test]
fn a_collection_makes_space_on_a_full_disk() {
    for filled in FILLED {
        let freed = assert_frees(filled, "gc --older-than 0s");
        let things = freed["things"].as_array().unwrap();
        assert!(things.len() > 5, "{freed}");
    }
}

#[test]
fn a_removed_image_makes_space_on_a_full_disk() {
    for filled in FILLED {
        let freed = assert_frees(filled, "rm app --now");
        assert!(freed["freed_bytes"].as_u64() > Some(0), "{freed}");
    }
}

#[test]
fn a_read_only_store_is_told_as_such() {
    let server = Server::with(&good_wheels());
    let lab = Lab::with(GOOD).env("PIP_INDEX_URL", &server.index());
    lab.build();
    for command in ["build", "gc --dry-run", "find --local"] {
        let script = format!(
            "mount --bind store store && mount -o remount,bind,ro store && exec \"$1\" -C project {command}"
        );
        let words = ["/store/store-v1 is read-only", "IMAGEWRIGHT_STORE"];
        lab.privately(&script).expect(4, &words);
    }
}
