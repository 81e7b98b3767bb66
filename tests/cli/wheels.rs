//! Wheels made by the test: same arguments, same bytes.

use imagewright::layer::wheel::RecordHash;

use crate::zipper::{Zipped, zip};

/// File name and bytes of a wheel with a module that knows its own name and version, and these files more.
pub fn wheel(
    name: &str,
    version: &str,
    requires: &[&str],
    more: &[(&str, Vec<u8>)],
) -> (String, Vec<u8>) {
    let info = format!("{name}-{version}.dist-info");
    let mut metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    for requirement in requires {
        metadata += &format!("Requires-Dist: {requirement}\n");
    }
    let module = format!("name = {name:?}\nversion = {version:?}\n");
    let tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let mut files = vec![
        (format!("{name}/__init__.py"), module.into_bytes()),
        (format!("{info}/METADATA"), metadata.into_bytes()),
        (format!("{info}/WHEEL"), tags.into()),
    ];
    files.extend(
        more.iter()
            .map(|(path, bytes)| ((*path).to_owned(), bytes.clone())),
    );
    let mut record = String::new();
    for (path, bytes) in &files {
        record += &format!("{path},{},{}\n", RecordHash::of(bytes), bytes.len());
    }
    record += &format!("{info}/RECORD,,\n");
    files.push((format!("{info}/RECORD"), record.into_bytes()));
    let entries: Vec<Zipped> = files
        .iter()
        .map(|(path, bytes)| entry(path, bytes))
        .collect();
    (format!("{name}-{version}-py3-none-any.whl"), zip(&entries))
}

/// What does not compress is stored.
fn entry(path: &str, bytes: &[u8]) -> Zipped {
    if path.ends_with(".bin") {
        Zipped::stored(path, bytes)
    } else {
        Zipped::deflated(path, bytes)
    }
}

/// Bytes that do not compress.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(len);
    out
}
