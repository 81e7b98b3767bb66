//! Looks for secrets in everything that a command leaves behind, in the forms in which they may stand there.

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use flate2::read::MultiGzDecoder;

/// How deep archives in archives are looked through.
const DEPTH: u32 = 6;
/// Most bytes that something unpacks to.
const LIMIT: u64 = 256 << 20;

/// Secrets, and what they look like.
#[derive(Default)]
pub struct Seeker {
    patterns: Vec<(String, Vec<u8>)>,
}

impl Seeker {
    /// For these names and secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut seeker = Self::default();
        for (name, secret) in secrets {
            seeker.add(name, secret);
        }
        seeker
    }

    pub fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= 12, "{name} may occur by chance");
        for (form, pattern) in forms(secret) {
            self.patterns.push((format!("{name}, {form}"), pattern));
        }
    }

    /// Which secrets are in `bytes`, and where, archives and databases unpacked.
    pub fn find(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        self.look(place, bytes, DEPTH, &mut found);
        found
    }

    #[track_caller]
    pub fn assert_none(&self, place: &str, bytes: &[u8]) {
        let found = self.find(place, bytes);
        let said = String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]);
        assert!(found.is_empty(), "{found:#?}\n{said}");
    }

    /// As [`Seeker::find`], in every file and every name below `folder` but in those files; and how many files there are.
    pub fn below(&self, folder: &Path, but: &[PathBuf]) -> (Vec<String>, usize) {
        let (mut found, mut files) = (Vec::new(), 0);
        for entry in walkdir::WalkDir::new(folder).into_iter().flatten() {
            let shown = entry.path().display().to_string();
            let name = entry.file_name().to_string_lossy();
            self.look(&shown, name.as_bytes(), 0, &mut found);
            if entry.file_type().is_symlink() {
                let target = fs::read_link(entry.path()).unwrap();
                self.look(
                    &shown,
                    target.display().to_string().as_bytes(),
                    0,
                    &mut found,
                );
            }
            if !entry.file_type().is_file() || but.iter().any(|path| path == entry.path()) {
                continue;
            }
            let Ok(bytes) = fs::read(entry.path()) else {
                continue;
            };
            files += 1;
            self.look(&shown, &bytes, DEPTH, &mut found);
            if bytes.starts_with(b"SQLite format 3") {
                self.database(entry.path(), &mut found);
            }
        }
        (found, files)
    }

    fn look(&self, place: &str, bytes: &[u8], depth: u32, found: &mut Vec<String>) {
        // Few positions begin like one of the patterns.
        let mut begins = vec![false; 1 << 16];
        let begin = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
        for (_, pattern) in &self.patterns {
            begins[begin(pattern)] = true;
        }
        for at in 0..bytes.len().saturating_sub(1) {
            if begins[begin(&bytes[at..])] {
                let here = self.patterns.iter();
                let here = here.filter(|(_, pattern)| bytes[at..].starts_with(pattern));
                found.extend(here.map(|(name, _)| format!("{name}: {place}")));
            }
        }
        if depth > 0 {
            for (name, inner) in unpacked(bytes) {
                self.look(&format!("{place} > {name}"), &inner, depth - 1, found);
            }
        }
    }

    /// Values that stand in pieces on several pages of the file, or in its write-ahead log.
    fn database(&self, path: &Path, found: &mut Vec<String>) {
        let copy = tempfile::tempdir().unwrap();
        let target = copy.path().join("copy.sqlite");
        for ending in ["", "-wal"] {
            let from = format!("{}{ending}", path.display());
            let _ = fs::copy(from, format!("{}{ending}", target.display()));
        }
        let connection = rusqlite::Connection::open(&target).unwrap();
        let names = |connection: &rusqlite::Connection| -> rusqlite::Result<Vec<String>> {
            let mut all =
                connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table'")?;
            all.query_map([], |row| row.get(0))?.collect()
        };
        for table in names(&connection).unwrap() {
            let mut rows = connection
                .prepare(&format!("SELECT * FROM \"{table}\""))
                .unwrap();
            let columns = rows.column_count();
            let mut rows = rows.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                for column in 0..columns {
                    let value = row.get_ref(column).unwrap();
                    let bytes = value.as_bytes().unwrap_or_default();
                    let place = format!("{} > {table}", path.display());
                    self.look(&place, bytes, DEPTH, found);
                }
            }
        }
    }
}

/// A secret as it may be written. In base64 what stands before and after it decides: the middle does not change.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = hex::encode(secret);
    let percent = |hex: &str| {
        let pairs = hex.as_bytes().chunks(2);
        pairs.flat_map(|pair| [b"%", pair].concat()).collect()
    };
    let mut forms = vec![
        ("plain", secret.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("HEX", hex.to_uppercase().into_bytes()),
        ("percent", percent(&hex)),
        ("PERCENT", percent(&hex.to_uppercase())),
    ];
    for before in 0..3_usize {
        let padded = [&vec![0; before][..], secret].concat();
        let (start, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for (form, text) in [
            ("base64", STANDARD_NO_PAD.encode(&padded)),
            ("base64url", URL_SAFE_NO_PAD.encode(&padded)),
        ] {
            let pattern = text.as_bytes()[start..end].to_vec();
            if !forms.iter().any(|(_, known)| *known == pattern) {
                forms.push((form, pattern));
            }
        }
    }
    forms
}

/// What is inside, if it is compressed or an archive.
fn unpacked(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    if bytes.starts_with(b"\x1f\x8b") {
        return vec![("gzip".into(), all_of(MultiGzDecoder::new(bytes)))];
    }
    if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        let decoder = zstd::Decoder::new(bytes).unwrap();
        return vec![("zstd".into(), all_of(decoder))];
    }
    if bytes.starts_with(b"PK\x03\x04")
        && let Ok(mut zip) = zip::ZipArchive::new(Cursor::new(bytes))
    {
        let entries = 0..zip.len();
        let read = entries.filter_map(|at| {
            let entry = zip.by_index(at).ok()?;
            let name = entry.enclosed_name().unwrap_or_default();
            Some((name.display().to_string(), all_of(entry)))
        });
        return read.collect();
    }
    if bytes.get(257..262) == Some(b"ustar") {
        let mut tar = tar::Archive::new(bytes);
        let entries = tar.entries().into_iter().flatten().flatten();
        return entries
            .map(|entry| (entry.path().unwrap().display().to_string(), all_of(entry)))
            .collect();
    }
    Vec::new()
}

/// What can be read.
fn all_of(reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = reader.take(LIMIT).read_to_end(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SECRET: &[u8] = b"canary>>?self7f3a";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    fn tar(bytes: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, "file", bytes).unwrap();
        tar.into_inner().unwrap()
    }

    fn zip(bytes: &[u8]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated);
        zip.start_file("file", options).unwrap();
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn a_planted_secret_is_found_in_every_form_and_place() {
        let seeker = Seeker::new([("it", SECRET)]);
        let text = String::from_utf8(SECRET.to_vec()).unwrap();
        let standard = base64::engine::general_purpose::STANDARD;
        let mut forms = vec![
            text.clone(),
            hex::encode(&text),
            hex::encode(&text).to_uppercase(),
            text.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            URL_SAFE_NO_PAD.encode(&text),
        ];
        for user in ["", "u:", "me:", "you:", "user:"] {
            forms.push(standard.encode(format!("{user}{text}")));
            forms.push(standard.encode(format!("{{\"{user}\":\"{text}\"}}")));
        }
        for form in &forms {
            let long = format!("{}{form}{}", "x".repeat(20_000), "y".repeat(20_000));
            let long = long.as_bytes();
            let folder = tempfile::tempdir().unwrap();
            let database = folder.path().join("state.sqlite");
            let connection = rusqlite::Connection::open(&database).unwrap();
            connection
                .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (v)")
                .unwrap();
            for (name, bytes) in [
                ("plain", long.to_vec()),
                ("layer", [gzip(b"first"), gzip(&tar(long))].concat()),
                ("archive", tar(&gzip(&tar(&gzip(long))))),
                ("wheel", zip(long)),
                ("packed", zstd::encode_all(long, 1).unwrap()),
            ] {
                let path = folder.path().join(name);
                fs::write(&path, bytes).unwrap();
                assert_ne!(seeker.below(&path, &[]).0.len(), 0, "{form} in {name}");
                assert_eq!(seeker.below(&path, std::slice::from_ref(&path)).0.len(), 0);
                fs::remove_file(path).unwrap();
            }
            let packed = zstd::encode_all(long, 1).unwrap();
            for value in [long, packed.as_slice()] {
                connection
                    .execute("INSERT INTO t VALUES (?1)", [value])
                    .unwrap();
                assert_ne!(
                    seeker.below(folder.path(), &[]).0.len(),
                    0,
                    "{form} in a row"
                );
                connection.execute("DELETE FROM t", []).unwrap();
                connection
                    .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); VACUUM")
                    .unwrap();
            }
        }
        assert!(seeker.find("", b"canary>>?self7f3b").is_empty());
        assert!(seeker.find("", &gzip(b"nothing of that kind")).is_empty());
    }

    #[test]
    fn a_name_and_the_target_of_a_link_are_looked_at() {
        let seeker = Seeker::new([("it", &b"canary-self-7f3a"[..])]);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a-canary-self-7f3a")).unwrap();
        std::os::unix::fs::symlink("/x/canary-self-7f3a", folder.path().join("b")).unwrap();
        assert_eq!(seeker.below(folder.path(), &[]).0.len(), 2);
    }
}
