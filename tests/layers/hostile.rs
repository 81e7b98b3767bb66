//! Wheels that lie, or try to escape, are refused by name; broken ones never panic and never become another layer.

use imagewright::diagnostic::{Explain, Kind};
use proptest::prelude::*;

use crate::support::{DEMO, Demo, Fixture, noise};
use crate::zipper::{Zipped, deflate, zip, zip_with};

const INIT: &str = "demo/__init__.py";

/// `demo` with its first entry replaced after RECORD was made.
fn changed(change: impl FnOnce(&mut Zipped)) -> Vec<u8> {
    let mut entries = Demo::new().all();
    change(&mut entries[0]);
    zip(&entries)
}

fn with(entry: Zipped) -> Vec<u8> {
    Demo::new().with(entry).bytes()
}

fn recorded(line: &str) -> Vec<u8> {
    let record = Demo::new().right_record();
    let rest: Vec<&str> = record
        .lines()
        .filter(|line| !line.starts_with(INIT))
        .collect();
    Demo::new()
        .record(&format!("{}\n{line}\n", rest.join("\n")))
        .bytes()
}

#[test]
fn hostile_wheels_are_refused_by_name() {
    let hash = imagewright::layer::wheel::RecordHash::of(b"answer = 42\n").to_string();
    let good = Demo::new().bytes();
    let zeros = vec![0; 1 << 20];
    let overlapping = {
        let mut entries = Demo::new()
            .with(Zipped::stored(
                "b.bin",
                &zip(&[Zipped::stored("a.bin", b"x")]),
            ))
            .all();
        // The directory says that `a.bin` lies inside of the data of `b.bin`.
        let at = entries[..3]
            .iter()
            .map(|entry| 30 + entry.name.len() + entry.data.len())
            .sum::<usize>();
        let mut inner = Zipped::stored("a.bin", b"x");
        inner.header = Some((at + 30 + 5) as u64);
        let record = Demo::new()
            .with(entries[3].clone())
            .with(inner.clone())
            .right_record();
        entries.pop();
        entries.push(Zipped::stored(
            "demo-1.0.dist-info/RECORD",
            record.as_bytes(),
        ));
        entries.push(inner);
        zip(&entries)
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "parent",
            with(Zipped::stored("../evil.py", b"")),
            "`../evil.py` leads out",
        ),
        (
            "inner parent",
            with(Zipped::stored("a/../../evil.py", b"")),
            "leads out",
        ),
        (
            "absolute",
            with(Zipped::stored("/etc/evil", b"")),
            "`/etc/evil` has an absolute path",
        ),
        (
            "drive",
            with(Zipped::stored("C:/evil", b"")),
            "absolute path",
        ),
        ("backslash", with(Zipped::stored("a\\b", b"")), "backslash"),
        ("NUL", with(Zipped::stored("a\0b", b"")), "NUL"),
        (
            "empty component",
            with(Zipped::stored("a//b", b"")),
            "empty component",
        ),
        ("no name", with(Zipped::stored(".", b"")), "no usable name"),
        (
            "long component",
            with(Zipped::stored("x".repeat(256), b"")),
            "255 bytes",
        ),
        (
            "symbolic link",
            with(Zipped::stored("link", b"/etc/passwd").mode(0o120_777)),
            "`link` is a symbolic link",
        ),
        (
            "character device",
            with(Zipped::stored("dev", b"").mode(0o020_666)),
            "is a device",
        ),
        (
            "block device",
            with(Zipped::stored("dev", b"").mode(0o060_666)),
            "is a device",
        ),
        (
            "pipe",
            with(Zipped::stored("pipe", b"").mode(0o010_644)),
            "is a named pipe",
        ),
        (
            "socket",
            with(Zipped::stored("sock", b"").mode(0o140_644)),
            "is a socket",
        ),
        (
            "folder with a file's name",
            with(Zipped::stored("dir", b"").mode(0o040_755)),
            "contradict each other",
        ),
        (
            "folder with content",
            with(Zipped {
                mode: 0o040_755,
                ..Zipped::stored("dir/", b"x")
            }),
            "folder with content",
        ),
        (
            "twice",
            with(Zipped::stored(INIT, b"answer = 42\n")),
            "stands in it twice",
        ),
        (
            "twice after `./`",
            with(Zipped::stored("./demo/__init__.py", b"answer = 42\n")),
            "stands in it twice",
        ),
        (
            "file and folder",
            with(Zipped::stored("demo/__init__.py/x", b"")),
            "is a file and the folder of another entry",
        ),
        (
            "local name",
            changed(|entry| entry.local_name = Some(b"demo/__init_2.py".to_vec())),
            "another name in its local header",
        ),
        (
            "local sizes",
            changed(|entry| entry.local = Some((entry.crc, entry.compressed, 99))),
            "in its local header",
        ),
        (
            "local crc",
            changed(|entry| entry.local = Some((1, entry.compressed, entry.size))),
            "in its local header",
        ),
        (
            "larger than declared",
            changed(|entry| entry.size = 3),
            "RECORD",
        ),
        (
            "larger than declared and recorded",
            {
                let mut demo = Demo::new();
                demo.entries[0].size = 3;
                let record = demo
                    .right_record()
                    .replace(&format!("{hash},12"), &format!("{hash},3"));
                demo.record(&record).bytes()
            },
            "inflates to more",
        ),
        (
            "smaller than declared",
            {
                let mut demo = Demo::new();
                demo.entries[0].size = 30;
                let record = demo
                    .right_record()
                    .replace(&format!("{hash},12"), &format!("{hash},30"));
                demo.record(&record).bytes()
            },
            "inflates to less",
        ),
        (
            "wrong CRC",
            changed(|entry| entry.crc ^= 1),
            "contradicts its CRC",
        ),
        (
            "broken deflate",
            changed(|entry| entry.data[0] = 0xff),
            "broken deflate data",
        ),
        (
            "bytes after deflate",
            changed(|entry| {
                entry.data.push(0);
                entry.compressed += 1;
            }),
            "after the end of its deflate data",
        ),
        (
            "data beyond the file",
            changed(|entry| {
                entry.compressed += 1 << 20;
                entry.method = 8;
            }),
            "beyond the end",
        ),
        (
            "header beyond the file",
            changed(|entry| entry.header = Some(1 << 30)),
            "outside of the file",
        ),
        (
            "header elsewhere",
            changed(|entry| entry.header = Some(3)),
            "no local header",
        ),
        (
            "encrypted",
            changed(|entry| entry.flags |= 1),
            "is encrypted",
        ),
        (
            "unknown method",
            changed(|entry| entry.method = 93),
            "compression method 93",
        ),
        (
            "bomb by ratio",
            changed(|entry| entry.size = 1 << 30),
            "cannot inflate to",
        ),
        (
            "bomb by sum",
            {
                let bomb = |name: &str| Zipped {
                    size: 50 << 30,
                    compressed: 1 << 30,
                    zip64: true,
                    ..Zipped::deflated(name, &zeros)
                };
                Demo::new().with(bomb("a")).with(bomb("b")).bytes()
            },
            "64 GiB",
        ),
        ("overlap", overlapping, "`a.bin` overlaps another entry"),
        (
            "same data twice",
            {
                let mut entries = Demo::new().all();
                let mut copy = entries[0].clone();
                copy.name = b"demo/__init_2.py".to_vec();
                copy.local_name = Some(entries[0].name.clone());
                copy.header = Some(0);
                entries.push(copy);
                zip(&entries)
            },
            "`demo/__init_2.py`",
        ),
        (
            "descriptor lies",
            changed(|entry| {
                *entry = entry.clone().with_descriptor();
                entry.descriptor[5] ^= 1;
            }),
            "data descriptor that contradicts",
        ),
        (
            "not a zip",
            b"hello, I am a wheel".to_vec(),
            "not a zip file",
        ),
        ("empty", Vec::new(), "not a zip file"),
        (
            "truncated",
            good[..good.len() - 30].to_vec(),
            "not a zip file",
        ),
        (
            "bytes after the end",
            [good.clone(), b"more".to_vec()].concat(),
            "not a zip file",
        ),
        (
            "two directories",
            zip_with(b"", &Demo::new().all(), &zip(&[])),
            "two directories",
        ),
        (
            "no dist-info",
            zip(&[Zipped::stored("demo.py", b"")]),
            "no .dist-info",
        ),
        (
            "two dist-infos",
            with(Zipped::stored("other-2.dist-info/METADATA", b"")),
            "two metadata folders",
        ),
        (
            "another name",
            {
                let mut entries = Demo::new().all();
                for entry in &mut entries {
                    entry.name = String::from_utf8(entry.name.clone())
                        .unwrap()
                        .replace("demo-1.0", "evil-1.0")
                        .into_bytes();
                }
                zip(&entries)
            },
            "belongs to another release",
        ),
        (
            "another version in METADATA",
            {
                let metadata =
                    Zipped::stored("demo-1.0.dist-info/METADATA", b"Name: demo\nVersion: 2.0\n");
                Demo::new()
                    .without("demo-1.0.dist-info/METADATA")
                    .with(metadata)
                    .bytes()
            },
            "another release than the file name",
        ),
        (
            "no METADATA",
            Demo::new().without("demo-1.0.dist-info/METADATA").bytes(),
            "has no `demo-1.0.dist-info/METADATA`",
        ),
        (
            "no WHEEL",
            Demo::new().without("demo-1.0.dist-info/WHEEL").bytes(),
            "has no `demo-1.0.dist-info/WHEEL`",
        ),
        (
            "newer format",
            Demo::new()
                .without("demo-1.0.dist-info/WHEEL")
                .with(Zipped::stored(
                    "demo-1.0.dist-info/WHEEL",
                    b"Wheel-Version: 2.0\n",
                ))
                .bytes(),
            "only 1.x",
        ),
        (
            "no RECORD",
            zip(&Demo::new().entries),
            "has no `demo-1.0.dist-info/RECORD`",
        ),
        (
            "unrecorded",
            recorded(""),
            "`demo/__init__.py` is not listed in RECORD",
        ),
        (
            "no hash",
            recorded("demo/__init__.py,,12"),
            "no hash in RECORD",
        ),
        (
            "weak hash",
            recorded("demo/__init__.py,md5=abc,12"),
            "`md5`",
        ),
        (
            "wrong size",
            recorded(&format!("demo/__init__.py,{hash},13")),
            "another size in RECORD",
        ),
        (
            "wrong hash",
            recorded(&format!(
                "demo/__init__.py,{},12",
                imagewright::layer::wheel::RecordHash::of(b"no")
            )),
            "contradicts its hash in RECORD",
        ),
        (
            "RECORD is no table",
            Demo::new().record("x").bytes(),
            "RECORD` has a line without",
        ),
        (
            "unknown data folder",
            with(Zipped::stored("demo-1.0.data/evil/x", b"")),
            "none of purelib",
        ),
        (
            "folder of scripts",
            with(Zipped::stored("demo-1.0.data/scripts/a/b", b"")),
            "folder among scripts",
        ),
        (
            "replaces python",
            with(Zipped::stored("demo-1.0.data/scripts/python3", b"")),
            "`/opt/venv/bin/python3`, a part of the environment",
        ),
        (
            "replaces pyvenv.cfg",
            with(Zipped::stored("demo-1.0.data/data/pyvenv.cfg", b"")),
            "a part of the environment",
        ),
        (
            "command with a path",
            with(Zipped::stored(
                "demo-1.0.dist-info/entry_points.txt",
                b"[console_scripts]\n../x = a:b\n",
            )),
            "is not a file name",
        ),
        (
            "command with code",
            with(Zipped::stored(
                "demo-1.0.dist-info/entry_points.txt",
                b"[console_scripts]\nx = os:system('x')\n",
            )),
            "not `name = module:function`",
        ),
        (
            "two files for one path",
            with(Zipped::stored(
                "demo-1.0.data/purelib/demo/__init__.py",
                b"",
            )),
            "two of its files go to",
        ),
    ];
    assert!(cases.len() >= 25);
    for (name, bytes, expected) in cases {
        let fixture = Fixture::new();
        let error = match fixture.build_bytes(DEMO, &bytes) {
            Ok(_) => panic!("{name}: was accepted"),
            Err(error) => error,
        };
        let message = error.to_string();
        assert!(
            message.contains(DEMO) && message.contains(expected),
            "{name}: {message}"
        );
        assert_eq!(error.kind(), Kind::Refused, "{name}");
        assert!(error.hint().is_some());
    }
    assert!(Fixture::new().build_bytes(DEMO, &good).is_ok());
}

#[test]
fn an_entry_that_is_large_is_checked_as_well() {
    for size in [100_000, 34 << 20] {
        let content = noise(size, 3);
        let good = Zipped::deflated("demo/large.bin", &content);
        let build = |entry: Zipped| {
            let record = Demo::new().with(good.clone()).right_record();
            Fixture::new().build_bytes(DEMO, &Demo::new().with(entry).record(&record).bytes())
        };
        assert!(build(good.clone()).is_ok());
        let refused = |entry: Zipped, expected: &str| {
            let message = build(entry).unwrap_err().to_string();
            assert!(
                message.contains("demo/large.bin") && message.contains(expected),
                "{size}: {message}"
            );
        };
        refused(
            Zipped {
                crc: good.crc ^ 1,
                ..good.clone()
            },
            "CRC",
        );
        let mut data = good.data.clone();
        data.extend(deflate(b"hidden"));
        refused(
            Zipped {
                compressed: data.len() as u64,
                data,
                ..good.clone()
            },
            "after the end",
        );
        let other = Zipped::deflated("demo/large.bin", &noise(size, 4));
        refused(other, "hash in RECORD");
        let data = good.data[..good.data.len() - 9].to_vec();
        refused(
            Zipped {
                compressed: data.len() as u64,
                data,
                ..good.clone()
            },
            "deflate data",
        );
    }
}

fn victim() -> Vec<u8> {
    Demo::new()
        .with(Zipped::deflated("demo/large.bin", &noise(60_000, 1)))
        .with(Zipped::stored("demo/plain.bin", &noise(50_000, 2)))
        .with(Zipped::deflated("demo/late.bin", &noise(3_000, 3)).with_descriptor())
        .with(Zipped::deflated("demo/wide.bin", &noise(3_000, 4)).zip64())
        .bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A changed wheel is refused, or gives a layer whose files are those that RECORD tells.
    #[test]
    fn mutations_never_panic_and_never_slip_through(
        cut in proptest::option::of(any::<prop::sample::Index>()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
        tail in any::<bool>(),
    ) {
        let original = victim();
        let mut bytes = original.clone();
        for (at, bit) in flips {
            // Half of the cases hit the directory, where structure is.
            let at = if tail { bytes.len() - 1 - at.index(700) } else { at.index(bytes.len()) };
            bytes[at] ^= 1 << bit;
        }
        if let Some(cut) = cut.filter(|_| !tail) {
            bytes.truncate(cut.index(bytes.len()));
        }
        let fixture = Fixture::new();
        if let Ok(layer) = fixture.build_bytes(DEMO, &bytes) {
            let sane = Fixture::new();
            let expected = sane.build_bytes(DEMO, &original).unwrap();
            let (found, expected) = (fixture.tree(&[layer]), sane.tree(&[expected]));
            for (path, node) in &found {
                // A flipped bit may change a mode, or hit what is not content; contents must be the same.
                let content = |node: &crate::support::Node| match node {
                    crate::support::Node::File { content, .. } => Some(content.clone()),
                    _ => None,
                };
                prop_assert_eq!(expected.get(path).map(content), Some(content(node)), "{}", path);
            }
        }
    }
}
