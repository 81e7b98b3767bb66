//! Locks that prefer versions which the team's images have.

use std::fs;

use crate::lab::{self, Lab, PREFIX, Server};
use crate::mirror::{Archive, Key};
use crate::records::{put, record};
use crate::reuse::{OPEN, assert_pins, later_index, lock_text, pushed};
use crate::wares;

#[test]
fn versions_that_most_images_have_are_preferred() {
    let two = "image \"one\" base=\"small\" { pip \"alpha\"; }\nimage \"two\" base=\"small\" { pip \"beta\"; }";
    let (server, _colleague) = pushed(two, &[]);
    let index = later_index();
    let newest = lab::project(
        server.address(),
        &index,
        "image \"three\" base=\"small\" { pip \"gamma\" \">3\"; }",
    );
    newest.run(&["push"]).expect(0, &[]);

    let mine = "image \"mine\" base=\"small\" { pip \"gamma\"; pip \"alpha\"; }";
    let lab = lab::project(server.address(), &index, mine);
    let words = [
        "beta 2.0, which 2 images have",
        "alpha 1.0, which one image has",
        "delta 0.2, which one image has",
    ];
    lab.run(&["lock", "--prefer-catalog"]).expect(0, &words);
    let preferred = ["alpha-1.0", "beta-2.0", "delta-0.2", "gamma-3.1"];
    assert_pins(&lab, &preferred);
    lab.run(&["lock", "--prefer-catalog"])
        .expect(0, &["is up to date"]);
    // A pin that is to move moves, whatever the images have.
    lab.run(&["lock", "--upgrade", "beta", "--prefer-catalog"])
        .expect(0, &["beta 2.0 -> 2.1"]);
    assert_pins(&lab, &["alpha-1.0", "beta-2.1", "delta-0.2", "gamma-3.1"]);
    // A pin that is there stays, and a specifier binds.
    let more = mine.replace("pip \"alpha\"", "pip \"alpha\" \"!=1.0\"");
    lab.write("imagewright.kdl", lab::manifest(server.address(), &more));
    lab.run(&["lock", "--prefer-catalog"]).expect(0, &[]);
    assert_pins(&lab, &["alpha-1.1", "beta-2.1", "delta-0.2", "gamma-3.1"]);
}

/// A package of an archive's index; `more` is further fields.
fn stanza(name: &str, version: &str, more: &str) -> String {
    let hash = wares::sha256(format!("{name} {version}").as_bytes());
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{more}\
         Filename: pool/{name}_{version}.deb\nSize: 3\nSHA256: {hash}\n\n"
    )
}

#[test]
fn versions_of_os_packages_are_preferred_where_the_archive_still_has_them() {
    let essential = "Essential: yes\nPriority: required\n";
    let archive = Archive::new(
        &[
            stanza("base-files", "12.4", essential),
            stanza("base-files", "12.5", essential),
            stanza("libc6", "2.36-9", essential),
            stanza("python3", "3.11.2-1", ""),
            stanza("python3.11", "3.11.2-6", ""),
            stanza("tool", "1.0-1", ""),
            stanza("tool", "1.1-1", ""),
            stanza("dropped", "2-1", ""),
        ]
        .concat(),
    );
    let key = Key::new("ed25519", "0");
    let release = archive.release();
    let lines = release
        .lines()
        .filter(|line| !line.starts_with("Valid-Until"));
    let release: String = lines.map(|line| format!("{line}\n")).collect();
    archive.publish(&key.sign(&release));

    let server = Server::docker_registry(OPEN);
    let team = [
        record("one", 1, &["os:tool==1.0-1", "os:base-files==12.4"]),
        record("two", 2, &["os:tool==1.0-1", "os:dropped==1-1"]),
        record("three", 3, &["os:tool==1.1-1"]),
    ];
    put(&server, &team);
    let lab = Lab::with(&format!(
        "registry \"{}/{PREFIX}\"\nbase \"own\" {{ debian \"bookworm\" mirror=\"{}\" keyring=\"archive.gpg\"; }}\n\
         image \"mine\" base=\"own\" {{ os \"tool\"; os \"dropped\"; }}\n",
        server.address(),
        archive.url
    ));
    lab.write("archive.gpg", fs::read(&key.public).unwrap());
    let expect = |arguments: &[&str], words: &[&str], debs: [&str; 3]| {
        lab.run(&[&["lock"], arguments].concat()).expect(0, words);
        let text = lock_text(&lab);
        for deb in debs {
            assert!(text.contains(&format!("{deb}_amd64")), "{deb}: {text}");
        }
    };
    let newest = ["base-files_12.5", "tool_1.1-1", "dropped_2-1"];
    expect(&[], &[], newest);
    fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    let preferred = ["base-files_12.4", "tool_1.0-1", "dropped_2-1"];
    let words = [
        "tool 1.0-1, which 2 images have",
        "base-files 12.4, which one image has",
    ];
    expect(&["--prefer-catalog"], &words, preferred);
    expect(&[], &["is up to date"], preferred);
    // A pin that is to move moves, whatever the images have.
    let moved = ["base-files_12.4", "tool_1.1-1", "dropped_2-1"];
    let words = ["os tool 1.0-1 -> 1.1-1"];
    expect(&["--upgrade", "tool", "--prefer-catalog"], &words, moved);
}
