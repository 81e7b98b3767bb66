//! Layers unpacked for the runtime: what other tools unpack, and nothing outside of the tree.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use imagewright::digest::Digest;
use imagewright::layer::pack::Packer;
use imagewright::layer::tree::{unpack, unpack_all};
use imagewright::layer::{Layer, LayerContent, LayerError};
use imagewright::progress::Silent;

use crate::support::{DEMO, Demo, Fixture, Node, noise, run, tree_of_folder};
use crate::zipper::Zipped;

/// Tars by hand: type flag, path, link target, mode, content.
struct Tar(Vec<u8>);

impl Tar {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn entry(mut self, flag: u8, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_uid(7);
        header.set_gid(8);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn folder(self, path: &str) -> Self {
        self.entry(b'5', path, "", 0o755, b"")
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(b'0', path, "", 0o644, content)
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, 0o777, b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// The layer of `blob`, in which `tar` is.
fn layer(fixture: &Fixture, blob: &[u8], tar: &[u8], diff_id: Digest) -> Layer {
    let digest = fixture.store.put_blob(blob).unwrap();
    Layer {
        key: diff_id,
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        digest,
        size: blob.len() as u64,
        diff_id,
        unpacked: tar.len() as u64,
        comment: "foreign".into(),
        content: LayerContent::Blob,
    }
}

fn unpacked(fixture: &Fixture, tar: &[u8]) -> Result<PathBuf, LayerError> {
    unpack(&fixture.store, &layer(fixture, tar, tar, Digest::of(tar)))
}

#[test]
fn a_wheel_layer_unpacks_to_its_tar() {
    let fixture = Fixture::new();
    let bytes = Demo::new()
        .with(Zipped::deflated("demo/large.bin", &noise(400_000, 1)).mode(0o100_755))
        .with(Zipped::stored("demo/plain.bin", &noise(200_000, 2)))
        .bytes();
    let layer = fixture.build_bytes(DEMO, &bytes).unwrap();
    let layers = [layer.clone(), layer.clone()];
    let paths = unpack_all(&fixture.store, &layers, 2, &Silent).unwrap();
    assert_eq!(paths[0], paths[1]);
    assert_eq!(paths[0], fixture.store.tree_path(&layer.diff_id));
    assert_eq!(tree_of_folder(&paths[0]), fixture.tree(&layers));
    let meta = fs::metadata(paths[0].join("opt/venv")).unwrap();
    assert_eq!((meta.mtime(), meta.mode() & 0o7777), (315_532_800, 0o755));
    assert_eq!(fs::metadata(&paths[0]).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn every_compression_gives_the_same_tree() {
    let tar = Tar::new()
        .folder("etc/")
        .file("etc/a", &noise(900_000, 1))
        .end();
    let mut packer = Packer::new(Vec::new());
    std::io::Write::write_all(&mut packer, &tar).unwrap();
    let (gzip, _) = packer.finish().unwrap();
    let zstd = zstd::encode_all(tar.as_slice(), 3).unwrap();
    let mut trees = Vec::new();
    for blob in [&tar, &gzip, &zstd] {
        let fixture = Fixture::new();
        let path = unpack(
            &fixture.store,
            &layer(&fixture, blob, &tar, Digest::of(&tar)),
        )
        .unwrap();
        trees.push(tree_of_folder(&path));
    }
    assert_eq!(trees[0].len(), 2);
    assert!(trees[0] == trees[1] && trees[1] == trees[2]);
}

#[test]
fn a_foreign_tar_unpacks_as_tar_does_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let long = "deep/".repeat(60);
    fs::create_dir_all(root.join(&long)).unwrap();
    fs::write(root.join(&long).join("ünï"), b"x").unwrap();
    fs::write(root.join("tool"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("tool"), root.join("twin")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("absolute")).unwrap();
    std::os::unix::fs::symlink(format!("../{}", "y".repeat(150)), root.join("longlink")).unwrap();
    fs::create_dir(root.join("locked")).unwrap();
    fs::write(root.join("locked/in"), b"in").unwrap();
    fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o555)).unwrap();
    for format in ["gnu", "posix", "ustar"] {
        let mut tar = Command::new("tar");
        tar.arg("--format")
            .arg(format)
            .arg("-C")
            .arg(&root)
            .arg("-cf-")
            .arg("--sort=name");
        if format == "ustar" {
            tar.args(["--exclude", "longlink", "--exclude", "deep"]);
        }
        let tar = run(tar.arg("."));
        let fixture = Fixture::new();
        let path = unpacked(&fixture, &tar).unwrap();
        let mut expected = tree_of_folder(&root);
        if format == "ustar" {
            expected.retain(|path, _| !path.starts_with("deep") && path != "longlink");
        }
        assert_eq!(tree_of_folder(&path), expected, "{format}");
        let inode = |name: &str| fs::metadata(path.join(name)).unwrap().ino();
        assert_eq!(inode("tool"), inode("twin"));
        let time =
            |root: &std::path::Path| fs::symlink_metadata(root.join("locked")).unwrap().mtime();
        assert_eq!(time(&path), time(&root));
        assert_eq!(
            fs::metadata(path.join("locked")).unwrap().mode() & 0o7777,
            0o555
        );
    }
}

#[test]
fn links_planted_by_earlier_entries_stay_inside() {
    let outside = tempfile::tempdir().unwrap();
    let outside_path = outside.path().to_str().unwrap();
    fs::write(outside.path().join("victim"), b"untouched").unwrap();
    let tar = Tar::new()
        .link("out", outside_path)
        .file("out/victim", b"evil")
        .link("up", "../../../../../../../..")
        .file("up/climbed", b"c")
        .link("passwd", "/etc/passwd")
        .file("passwd", b"mine")
        .folder("real/")
        .link("alias", "/real")
        .file("alias/through", b"t")
        .end();
    let fixture = Fixture::new();
    let path = unpacked(&fixture, &tar);
    assert_eq!(
        fs::read(outside.path().join("victim")).unwrap(),
        b"untouched"
    );
    // The link's target does not exist in the tree: that is refused rather than made.
    let Err(error) = path else {
        panic!("a dangling parent was accepted")
    };
    assert!(error.to_string().contains("`out/victim`"), "{error}");

    let tar = Tar::new()
        .link("up", "../../../../../../../..")
        .file("up/climbed", b"c")
        .link("passwd", "/etc/passwd")
        .file("passwd", b"mine")
        .folder("real/")
        .link("alias", "/real")
        .file("alias/through", b"t")
        .end();
    let path = unpacked(&fixture, &tar).unwrap();
    assert_eq!(fs::read(path.join("climbed")).unwrap(), b"c");
    assert_eq!(fs::read(path.join("real/through")).unwrap(), b"t");
    assert!(fs::symlink_metadata(path.join("passwd")).unwrap().is_file());
    assert!(fs::read_to_string("/etc/passwd").unwrap().contains("root"));
}

#[test]
fn hostile_tars_are_refused_by_name() {
    let huge = {
        let mut tar = Tar::new().file("x", b"").0;
        tar[124..136].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
        let sum: u32 = tar[..148]
            .iter()
            .chain(&tar[156..512])
            .map(|&b| u32::from(b))
            .sum::<u32>()
            + 256;
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar
    };
    let mut wrong_sum = Tar::new().file("x", b"").end();
    wrong_sum[3] = b'z';
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "parent",
            Tar::new().file("a/../../evil", b"").end(),
            "`a/../../evil` leads out",
        ),
        (
            "hard link out",
            Tar::new()
                .entry(b'1', "x", "../../etc/passwd", 0o644, b"")
                .end(),
            "leads out",
        ),
        (
            "hard link to nothing",
            Tar::new().entry(b'1', "x", "etc/passwd", 0o644, b"").end(),
            "`x` is a hard link to something",
        ),
        (
            "hard link to a folder",
            Tar::new()
                .folder("d")
                .entry(b'1', "x", "d", 0o644, b"")
                .end(),
            "hard link to a folder",
        ),
        (
            "link to nowhere",
            Tar::new().link("x", "").end(),
            "link to nowhere",
        ),
        (
            "unknown type",
            Tar::new().entry(b'Z', "x", "", 0o644, b"").end(),
            "unknown type",
        ),
        (
            "sparse",
            Tar::new().entry(b'S', "x", "", 0o644, b"").end(),
            "sparse",
        ),
        (
            "long name",
            Tar::new()
                .entry(b'L', "x", "", 0o644, &vec![b'a'; 2 << 20])
                .end(),
            "longer than 1 MiB",
        ),
        (
            "bad PAX",
            Tar::new().entry(b'x', "x", "", 0o644, b"99 path=a\n").end(),
            "PAX header",
        ),
        (
            "file over a full folder",
            Tar::new().folder("d").file("d/x", b"").file("d", b"").end(),
            "not empty",
        ),
        (
            "truncated",
            Tar::new().file("x", &[1; 5000]).0[..2000].to_vec(),
            "truncated",
        ),
        (
            "truncated header",
            Tar::new().file("x", b"").0[..100].to_vec(),
            "truncated",
        ),
        ("size", huge, ""),
        ("checksum", wrong_sum, "checksum"),
        (
            "text",
            b"this is not a tar at all".repeat(40),
            "cannot be read",
        ),
        (
            "whiteout of nothing",
            Tar::new().file("a/.wh.", b"").end(),
            "removes nothing",
        ),
        (
            "whiteout of the parent",
            Tar::new().file("a/.wh...", b"").end(),
            "removes nothing",
        ),
        (
            "broken gzip",
            [&[0x1f, 0x8b, 8, 0][..], &[7; 100]].concat(),
            "cannot be read",
        ),
    ];
    for (name, tar, expected) in cases {
        let fixture = Fixture::new();
        let message = match unpacked(&fixture, &tar) {
            Ok(path) => panic!("{name}: {:?}", tree_of_folder(&path)),
            Err(error) => error.to_string(),
        };
        assert!(
            message.contains(expected) && message.contains("`foreign`"),
            "{name}: {message}"
        );
        assert!(!fixture.store.tree_path(&Digest::of(&tar)).exists());
        let left = fs::read_dir(fixture.store.scratch().path())
            .unwrap()
            .count();
        assert_eq!(left, 0, "{name}: partial trees are removed");
    }
}

#[test]
fn a_tar_that_is_longer_than_it_should_be_is_not_unpacked() {
    let fixture = Fixture::new();
    let tar = Tar::new().file("x", &noise(3 << 20, 1)).end();
    let mut bomb = layer(&fixture, &tar, &tar, Digest::of(&tar));
    bomb.unpacked = tar.len() as u64 - 1;
    let error = unpack(&fixture.store, &bomb).unwrap_err().to_string();
    assert!(error.contains("more than its"), "{error}");
    assert!(!fixture.store.tree_path(&bomb.diff_id).exists());
    bomb.unpacked += 1;
    unpack(&fixture.store, &bomb).unwrap();
}

#[test]
fn a_tar_with_another_diff_id_never_becomes_a_tree() {
    let fixture = Fixture::new();
    let tar = Tar::new().file("x", b"1").end();
    let wrong = layer(&fixture, &tar, &tar, Digest::of("other"));
    let error = unpack(&fixture.store, &wrong).unwrap_err().to_string();
    assert!(error.contains(&Digest::of("other").to_string()), "{error}");
    assert!(!fixture.store.tree_path(&wrong.diff_id).exists());
    let blob = fixture.store.blob_path(&wrong.digest);
    assert!(blob.exists(), "the blob is what its name says");
    fs::write(&blob, &tar[..1000]).unwrap();
    assert!(unpack(&fixture.store, &wrong).is_err());
    assert!(!blob.exists(), "a damaged blob is removed");
    let mut missing = wrong;
    missing.digest = Digest::of("nowhere");
    assert!(matches!(
        unpack(&fixture.store, &missing),
        Err(LayerError::Missing { .. })
    ));
}

#[test]
fn whiteouts_take_overlays_form() {
    let tar = Tar::new()
        .folder("etc/")
        .file("etc/.wh.gone", b"")
        .file("etc/.wh.back", b"")
        .file("etc/back", b"again")
        .file("etc/.wh.renewed", b"")
        .folder("etc/renewed/")
        .folder("var/")
        .file("var/.wh..wh..opq", b"")
        .file("var/new", b"n")
        .file(".wh..wh.plnk", b"")
        .end();
    let fixture = Fixture::new();
    let path = unpacked(&fixture, &tar).unwrap();
    let gone = fs::symlink_metadata(path.join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(fs::read(path.join("etc/back")).unwrap(), b"again");
    for opaque in ["var", "etc/renewed"] {
        let mut value = [0; 8];
        let mut read = |name: &str| rustix::fs::getxattr(path.join(opaque), name, &mut value).ok();
        let found = read("trusted.overlay.opaque").or(read("user.overlay.opaque"));
        assert_eq!(found, Some(1), "{opaque}");
    }
    let names: Vec<String> = tree_of_folder(&path)
        .into_iter()
        .filter(|(_, node)| matches!(node, Node::File { .. }))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(names, ["etc/back", "var/new"]);
}

#[test]
fn root_keeps_owners_devices_and_capabilities() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut record = b"SCHILY.xattr.security.capability=".to_vec();
    record.extend_from_slice(capability);
    let record = [format!("{} ", record.len() + 4).as_bytes(), &record, b"\n"].concat();
    let forbidden = b"39 SCHILY.xattr.user.overlay.opaque=yy\n";
    assert_eq!(forbidden.len(), 39);
    let tar = Tar::new()
        .entry(b'x', "pax", "", 0o644, &record)
        .entry(b'0', "ping", "", 0o4755, b"ping")
        .entry(b'x', "pax", "", 0o644, forbidden)
        .folder("dir")
        .entry(b'6', "pipe", "", 0o600, b"")
        .entry(b'3', "null", "", 0o666, b"")
        .link("link", "ping")
        .end();
    let fixture = Fixture::new();
    let path = unpacked(&fixture, &tar).unwrap();
    let meta = fs::metadata(path.join("ping")).unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.mtime()),
        (7, 8, 0o4755, 1_000_000_000)
    );
    let mut value = [0; 64];
    let length =
        rustix::fs::getxattr(path.join("ping"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
    assert!(rustix::fs::getxattr(path.join("dir"), "user.overlay.opaque", &mut value).is_err());
    assert!(
        fs::metadata(path.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let link = fs::symlink_metadata(path.join("link")).unwrap();
    assert_eq!((link.uid(), link.mtime()), (7, 1_000_000_000));
    let trees = fs::metadata(path.parent().unwrap()).unwrap();
    assert_eq!(trees.mode() & 0o777, 0o700);
}

/// Not a test by itself: unpacks the tar named by `TREE_TAR` as whoever runs it.
#[test]
#[ignore = "run by another test"]
fn unpack_one() {
    let tar = fs::read(std::env::var("TREE_TAR").unwrap()).unwrap();
    let fixture = Fixture::new();
    let path = unpacked(&fixture, &tar).unwrap();
    let meta = fs::metadata(path.join("locked/file")).unwrap();
    assert_eq!(meta.uid(), rustix::process::geteuid().as_raw());
    assert!(!path.join("null").exists());
    let gone = fs::symlink_metadata(path.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(
        fs::metadata(path.join("locked")).unwrap().mode() & 0o777,
        0o500
    );
}

#[test]
fn without_privileges_everything_belongs_to_the_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let tar = Tar::new()
        .entry(b'5', "locked", "", 0o500, b"")
        .entry(b'0', "locked/file", "", 0o4755, b"f")
        .entry(b'3', "null", "", 0o666, b"")
        .file(".wh.gone", b"")
        .end();
    let path = folder.path().join("layer.tar");
    fs::write(&path, tar).unwrap();
    // Where the test program lies may be closed to other users.
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    run(Command::new("setpriv")
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups"])
        .arg(&program)
        .args(["--exact", "--ignored", "trees::unpack_one"])
        .env("TREE_TAR", &path)
        .env("TMPDIR", folder.path()));
}
