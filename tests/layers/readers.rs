//! Independent readers find the same tar in a spliced blob.

use std::process::Command;

use crate::support::{DEMO, Demo, Fixture, noise, run};
use crate::zipper::Zipped;

fn demo() -> Demo {
    let mut demo = Demo::new()
        .with(Zipped::deflated("demo/large.bin", &noise(3_000_000, 1)))
        .with(Zipped::stored("demo/plain.bin", &noise(200_000, 2)))
        .with(Zipped::stored("demo/exact.bin", &noise(65_535 * 2, 3)))
        .with(Zipped::deflated("demo/zeros.bin", &vec![0; 5_000_000]));
    for number in 0..300 {
        demo = demo.with(Zipped::deflated(
            format!("demo/small{number}.py"),
            &noise(number * 61, number as u64),
        ));
    }
    demo
}

#[test]
fn gzip_pigz_and_python_read_the_same_tar() {
    let fixture = Fixture::new();
    let layer = fixture.build_bytes(DEMO, &demo().bytes()).unwrap();
    let tar = fixture.tar(&layer);
    let path = fixture.folder.path().join("layer.tar.gz");
    std::fs::write(&path, fixture.blob(&layer)).unwrap();
    run(Command::new("gzip").arg("-t").arg(&path));
    assert!(
        run(Command::new("gzip").arg("-dc").arg(&path)) == tar,
        "gzip"
    );
    assert!(
        run(Command::new("pigz").arg("-dc").arg(&path)) == tar,
        "pigz"
    );
    let script = "import gzip,sys;sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    assert!(
        run(Command::new("python3").args(["-c", script]).arg(&path)) == tar,
        "Python's gzip"
    );
    let script = "import tarfile,sys
for m in tarfile.open(sys.argv[1]):
    print(m.name, oct(m.mode), m.size, m.mtime, m.type.decode())";
    let listing =
        String::from_utf8(run(Command::new("python3").args(["-c", script]).arg(&path))).unwrap();
    let tree = fixture.tree(&[layer]);
    assert_eq!(listing.lines().count(), tree.len());
    assert!(listing.contains("site-packages/demo/zeros.bin 0o644 5000000 315532800 0\n"));
    let list = run(Command::new("tar").arg("-tzf").arg(&path));
    assert_eq!(String::from_utf8(list).unwrap().lines().count(), tree.len());
}

#[test]
fn a_spliced_layer_is_not_larger_than_a_compressed_one() {
    let fixture = Fixture::new();
    let layer = fixture.build_bytes(DEMO, &demo().bytes()).unwrap();
    let path = fixture.folder.path().join("layer.tar");
    std::fs::write(&path, fixture.tar(&layer)).unwrap();
    let packed = run(Command::new("gzip").arg("-6c").arg(&path)).len() as u64;
    // What is stored in the wheel stays so.
    assert!(
        layer.size < packed * 11 / 10 + 331_070,
        "{} against {packed}",
        layer.size
    );
}
