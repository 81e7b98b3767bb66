//! Memory does not grow with the largest entry of a wheel.

use std::io::Write;
use std::process::Command;

use crate::support::{DEMO, Fixture, run};

/// Not a test by itself: builds the wheel named by `MEMORY_WHEEL` and tells the peak of its memory.
#[test]
#[ignore = "run by another test"]
fn build_and_tell_peak() {
    let fixture = Fixture::new();
    let path = std::env::var("MEMORY_WHEEL").unwrap();
    let pin = fixture.add(std::path::Path::new(&path));
    fixture.build(&[pin], 2).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib = peak.split_whitespace().nth(1).unwrap();
    std::fs::write(std::env::var("MEMORY_OUT").unwrap(), kib).unwrap();
}

#[test]
fn a_single_entry_of_500_mb_fits_into_300_mb() {
    let folder = tempfile::tempdir().unwrap();
    for (name, method) in [("deflated", "ZIP_DEFLATED"), ("stored", "ZIP_STORED")] {
        let wheel = folder.path().join(DEMO);
        let script = format!(
            "
import base64, hashlib, random, sys, zipfile
block = random.Random(1).randbytes(1 << 20)
hasher = hashlib.sha256()
with zipfile.ZipFile(sys.argv[1], 'w', zipfile.{method}, compresslevel=1) as archive:
    with archive.open('demo/huge.bin', 'w', force_zip64=True) as out:
        for number in range(500):
            piece = number.to_bytes(8, 'little') + block[: 1000000 - 8]
            hasher.update(piece)
            out.write(piece)
    texts = {{'METADATA': 'Name: demo\\nVersion: 1.0\\n', 'WHEEL': 'Wheel-Version: 1.0\\n'}}
    lines = ['demo-1.0.dist-info/RECORD,,']
    def line(path, digest, size):
        text = base64.urlsafe_b64encode(digest).rstrip(b'=').decode()
        lines.append(f'{{path}},sha256={{text}},{{size}}')
    line('demo/huge.bin', hasher.digest(), 500000000)
    for name, text in texts.items():
        archive.writestr('demo-1.0.dist-info/' + name, text)
        line('demo-1.0.dist-info/' + name, hashlib.sha256(text.encode()).digest(), len(text))
    archive.writestr('demo-1.0.dist-info/RECORD', '\\n'.join(lines) + '\\n')
"
        );
        let mut python = Command::new("python3");
        run(python.args(["-c", &script]).arg(&wheel));
        let out = folder.path().join("out");
        let program = std::env::current_exe().unwrap();
        run(Command::new(program)
            .args(["--exact", "--ignored", "memory::build_and_tell_peak"])
            .env("MEMORY_WHEEL", &wheel)
            .env("MEMORY_OUT", &out));
        let kib: u64 = std::fs::read_to_string(out).unwrap().parse().unwrap();
        writeln!(std::io::stderr(), "{name}: peak {} MB", kib / 1000).unwrap();
        assert!(kib < 300_000, "{name}: {kib} KiB");
    }
}
