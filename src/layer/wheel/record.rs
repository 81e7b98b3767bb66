//! `RECORD`: what a wheel says about its own files, and what the installed distribution will say about its files
//! ("Recording installed projects", The RECORD file).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::digest::Digest;

/// The hash of a file, as a RECORD line has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordHash {
    algorithm: Algorithm,
    /// URL-safe base64 without padding.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl RecordHash {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::Sha256(Sha256::new());
        hasher.update(bytes);
        hasher.finish()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (algorithm, length) = match name {
            "sha256" => (Algorithm::Sha256, 43),
            "sha384" => (Algorithm::Sha384, 64),
            "sha512" => (Algorithm::Sha512, 86),
            _ => {
                return Err(format!(
                    "has the hash algorithm `{name}` in RECORD; only sha256, sha384 and sha512 are safe"
                ));
            }
        };
        let value = value.trim_end_matches('=');
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if value.len() != length || !value.bytes().all(fits) {
            return Err("has a hash in RECORD that is not base64url".into());
        }
        Ok(Self {
            algorithm,
            text: value.into(),
        })
    }

    /// The digest, if it is a SHA-256.
    pub fn sha256(&self) -> Option<Digest> {
        if self.algorithm != Algorithm::Sha256 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(&self.text).ok()?;
        Some(Digest::from_bytes(bytes.try_into().ok()?))
    }

    /// A hasher of the same algorithm.
    pub fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(Sha384::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }
}

impl std::fmt::Display for RecordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        };
        write!(f, "{name}={}", self.text)
    }
}

/// Hashes a file's content.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-384.
    Sha384(Sha384),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// More content.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(inner) => inner.update(bytes),
            Self::Sha384(inner) => inner.update(bytes),
            Self::Sha512(inner) => inner.update(bytes),
        }
    }

    /// The hash as RECORD writes it.
    pub fn finish(self) -> RecordHash {
        let (algorithm, text) = match self {
            Self::Sha256(inner) => (Algorithm::Sha256, base64url(&inner.finalize())),
            Self::Sha384(inner) => (Algorithm::Sha384, base64url(&inner.finalize())),
            Self::Sha512(inner) => (Algorithm::Sha512, base64url(&inner.finalize())),
        };
        RecordHash { algorithm, text }
    }
}

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for digit in 0..=chunk.len() {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

/// One line: the hash and the size of a file, where they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Of the content.
    pub hash: Option<RecordHash>,
    /// In bytes.
    pub size: Option<u64>,
}

/// Path → line.
pub type Record = BTreeMap<String, Line>;

/// Why a RECORD cannot be used: the entry to blame (or RECORD itself) and the reason.
pub type Fault = (Option<String>, String);

/// Reads the text of a RECORD. Paths are taken relative to the wheel's root, also where they begin with `/` or `./`.
pub fn parse(text: &[u8]) -> Result<Record, Fault> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text);
    let mut record = Record::new();
    for row in reader.records() {
        let row = row.map_err(|_| (None, "is not UTF-8 text in CSV form".into()))?;
        if row.len() == 1 && row[0].is_empty() {
            continue;
        }
        let (Some(path), Some(hash), 2..=3) = (row.get(0), row.get(1), row.len()) else {
            return Err((
                None,
                "has a line without the fields path, hash and size".into(),
            ));
        };
        let path = path.trim_start_matches('/').trim_start_matches("./");
        let fail = |reason: String| (Some(path.to_owned()), reason);
        let hash = match hash {
            "" => None,
            hash => Some(RecordHash::parse(hash).map_err(fail)?),
        };
        let size = match row.get(2).unwrap_or("") {
            "" => None,
            size => Some(
                size.parse()
                    .map_err(|_| fail("has a size in RECORD that is no number".into()))?,
            ),
        };
        let line = Line { hash, size };
        match record.insert(path.to_owned(), line.clone()) {
            Some(earlier) if earlier != line => {
                return Err(fail("stands in RECORD twice, differently".into()));
            }
            _ => {}
        }
    }
    Ok(record)
}

/// The text of a RECORD: sorted by path, CSV with `\n` line ends, quotes only where needed.
pub fn write(record: &Record) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    for (path, line) in record {
        let hash = line
            .hash
            .as_ref()
            .map_or(String::new(), ToString::to_string);
        let size = line.size.map_or(String::new(), |size| size.to_string());
        // Writing into memory cannot fail.
        let _ = writer.write_record([path.as_str(), &hash, &size]);
    }
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_agrees_with_known_values() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
        assert_eq!(
            RecordHash::of(b"").to_string(),
            "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
        );
    }

    #[test]
    fn what_is_written_reads_back_with_odd_names() {
        let mut record = Record::new();
        for path in ["a,b", "a\"b", "a b", "a\nb", "ü"] {
            let line = Line {
                hash: Some(RecordHash::of(path.as_bytes())),
                size: Some(3),
            };
            record.insert(path.into(), line);
        }
        record.insert("RECORD".into(), Line::default());
        assert_eq!(parse(&write(&record)).unwrap(), record);
    }

    #[test]
    fn weak_and_broken_lines_are_refused() {
        let hash = RecordHash::of(b"").to_string();
        for bad in [
            "a,md5=abc,0".to_owned(),
            "a,sha1=abc,0".into(),
            "a,sha256=abc,0".into(),
            format!("a,{hash},x"),
            format!("a,{hash},-1"),
            "a".into(),
            format!("a,{hash},0,0"),
            format!("a,{hash},0\na,{hash},1"),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"a,\xff,0").is_err());
        assert_eq!(
            parse(format!("/a,{hash}=,0\n\n./b,,").as_bytes())
                .unwrap()
                .len(),
            2
        );
    }
}
