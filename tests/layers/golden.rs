//! Wheel → layer key, diff ID and digest, fixed for ever. If one of these changes, every published image changes: raise
//! `identity::EMITTER_VERSION`, and only then write the new values down.

use crate::support::{DEMO, Demo, Fixture, noise};
use crate::zipper::{Zipped, zip_with};

fn vector(bytes: &[u8]) -> String {
    let fixture = Fixture::new();
    let layer = fixture.build_bytes(DEMO, bytes).unwrap();
    fixture.tar(&layer);
    format!(
        "{}\n{}\n{}\n",
        layer.key.hex(),
        layer.diff_id.hex(),
        layer.digest.hex()
    )
}

fn entry_points() -> Zipped {
    Zipped::deflated(
        "demo-1.0.dist-info/entry_points.txt",
        b"[console_scripts]\ndemo = demo:main\n[gui_scripts]\ndemo-gui = demo.gui:App.run [gui]\n",
    )
}

#[test]
fn golden_vectors() {
    let cases = [
        ("plain", Demo::new().bytes()),
        (
            "stored",
            Demo::new()
                .with(Zipped::stored("demo/small.bin", &noise(1000, 1)))
                .with(Zipped::stored("demo/large.bin", &noise(200_000, 2)))
                .bytes(),
        ),
        (
            "deflate_above_32_kib",
            Demo::new()
                .with(Zipped::deflated("demo/large.bin", &noise(32_769, 3)))
                .with(Zipped::deflated("demo/edge.bin", &noise(32_768, 4)).mode(0o100_755))
                .bytes(),
        ),
        (
            "deflate_above_32_mib",
            Demo::new()
                .with(Zipped::deflated("demo/huge.bin", &noise((32 << 20) + 1, 5)))
                .bytes(),
        ),
        (
            "many_small",
            (0..200)
                .fold(Demo::new(), |demo, n| {
                    demo.with(Zipped::deflated(
                        format!("demo/m{n}.py"),
                        &noise(n * 97, n as u64),
                    ))
                })
                .bytes(),
        ),
        (
            "zip64",
            Demo::new()
                .with(Zipped::deflated("demo/wide.bin", &noise(50_000, 6)).zip64())
                .bytes(),
        ),
        (
            "data_descriptor",
            Demo::new()
                .with(Zipped::deflated("demo/late.bin", &noise(50_000, 7)).with_descriptor())
                .bytes(),
        ),
        (
            "scripts_and_data",
            Demo::new()
                .with(Zipped::deflated(
                    "demo-1.0.data/scripts/tool",
                    b"#!python\nprint()\n",
                ))
                .with(Zipped::deflated(
                    "demo-1.0.data/data/etc/demo.conf",
                    b"x=1\n",
                ))
                .with(Zipped::stored("demo-1.0.data/headers/demo.h", b"//\n"))
                .bytes(),
        ),
        ("entry_points", Demo::new().with(entry_points()).bytes()),
        (
            "odd_names",
            Demo::new()
                .with(Zipped::folder("demo/empty/"))
                .with(Zipped::stored(
                    format!("demo/{}/ünï.txt", "long/".repeat(40).trim_end_matches('/')),
                    b"u",
                ))
                .bytes(),
        ),
        (
            "prefix_and_comment",
            zip_with(b"prefix", &Demo::new().all(), b"comment"),
        ),
    ];
    for (name, bytes) in cases {
        insta::assert_snapshot!(name, vector(&bytes));
    }
}
