//! One wheel, one layer: whatever the machine, the number of jobs, the umask, the time zone, the folder.

use std::process::Command;

use crate::support::{DEMO, Demo, Fixture, noise, run};
use crate::zipper::Zipped;

fn wheels() -> Vec<(String, Vec<u8>)> {
    (0..12_usize)
        .map(|number| {
            let name = format!("demo{number}");
            let mut demo = Demo::new();
            demo = demo
                .with(Zipped::deflated(
                    format!("{name}/large.bin"),
                    &noise(1_500_000 * (number % 3) + 40_000, number as u64),
                ))
                .with(Zipped::stored(
                    format!("{name}/plain.bin"),
                    &noise(100_000, 9),
                ))
                .with(Zipped::deflated(
                    format!("{name}/small.py"),
                    &noise(900 * number, 7),
                ));
            let mut entries = demo.without("demo/__init__.py").all();
            for entry in &mut entries {
                let path = String::from_utf8(entry.name.clone()).unwrap();
                let path = path.replace("demo-1.0", &format!("{name}-1.0"));
                *entry = match path.rsplit('/').next() {
                    Some("METADATA") => {
                        Zipped::stored(&path, format!("Name: {name}\nVersion: 1.0\n").as_bytes())
                    }
                    _ => Zipped {
                        name: path.into_bytes(),
                        ..entry.clone()
                    },
                };
            }
            let list = Demo {
                entries: entries[..entries.len() - 1].to_vec(),
                record: None,
            };
            let record = list.right_record().replace(
                "demo-1.0.dist-info/RECORD",
                &format!("{name}-1.0.dist-info/RECORD"),
            );
            *entries.last_mut().unwrap() =
                Zipped::stored(format!("{name}-1.0.dist-info/RECORD"), record.as_bytes());
            (
                format!("{name}-1.0-py3-none-any.whl"),
                crate::zipper::zip(&entries),
            )
        })
        .collect()
}

fn build(jobs: usize, backwards: bool, checked: bool) -> String {
    let fixture = Fixture::new();
    let mut pins: Vec<_> = wheels()
        .iter()
        .map(|(name, bytes)| fixture.add_bytes(name, bytes))
        .collect();
    if backwards {
        pins.reverse();
    }
    if checked {
        for pin in &pins {
            imagewright::layer::build::verify_wheel(&fixture.store, pin).unwrap();
        }
    }
    let layers = fixture.build(&pins, jobs).unwrap();
    layers
        .iter()
        .map(|layer| {
            format!(
                "{} {} {} {}\n",
                layer.key, layer.diff_id, layer.digest, layer.comment
            )
        })
        .collect()
}

#[test]
fn jobs_order_and_what_was_checked_before_change_nothing() {
    let expected = build(1, false, false);
    assert!(expected.lines().count() > 5, "{expected}");
    for (jobs, backwards, checked) in [(8, false, false), (2, true, true), (8, true, false)] {
        assert_eq!(build(jobs, backwards, checked), expected);
    }
}

/// Not a test by itself: prints what `build` gives, for the test below.
#[test]
#[ignore = "run by another test"]
fn print_layers() {
    std::fs::write(
        std::env::var_os("LAYERS_OUT").unwrap(),
        build(3, false, false),
    )
    .unwrap();
}

#[test]
fn umask_time_zone_locale_and_folder_change_nothing() {
    let expected = build(2, false, false);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let program = std::env::current_exe().unwrap();
    run(Command::new("sh")
        .args([
            "-c",
            "umask 077; exec \"$0\" --exact --ignored determinism::print_layers",
        ])
        .arg(program)
        .current_dir(folder.path())
        .env("TZ", "Asia/Kathmandu")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("HOME", folder.path())
        .env("TMPDIR", folder.path())
        .env("SOURCE_DATE_EPOCH", "1234567890")
        .env("LAYERS_OUT", &out));
    assert_eq!(std::fs::read_to_string(out).unwrap(), expected);
}

#[test]
fn a_layer_does_not_depend_on_how_the_wheel_is_called_on_disk() {
    let bytes = Demo::new().bytes();
    let one = Fixture::new().build_bytes(DEMO, &bytes).unwrap();
    let two = Fixture::new()
        .build_bytes("demo-1.0-1-py2.py3-none-any.whl", &bytes)
        .unwrap();
    assert_eq!(
        (one.key, one.digest, one.diff_id),
        (two.key, two.digest, two.diff_id)
    );
}
