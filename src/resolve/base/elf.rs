//! What an ELF file tells about itself: machine, program loader, and version strings in its data.

use serde::{Deserialize, Serialize};

use crate::manifest::Platform;

/// An executable or library of the image, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    /// The machine, in Python's words (`x86_64`), or `ELF machine 40`.
    pub machine: String,
    /// The program loader that it asks for (`PT_INTERP`); libraries and static programs have none.
    pub loader: Option<String>,
    /// Strings in it that are a whole Python 3 version such as `3.11.2`, sorted.
    pub python_versions: Vec<String>,
    /// glibc's own version, if it is glibc's libc.
    pub glibc: Option<(u16, u16)>,
}

impl Binary {
    /// Reads what `bytes` tell; `None` if they are not ELF.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 64 || &bytes[..4] != b"\x7fELF" {
            return None;
        }
        let little_64 = bytes[4] == 2 && bytes[5] == 1;
        let machine = u16_at(bytes, 18)?;
        let machine = match machine {
            62 if little_64 => Platform::LinuxAmd64.machine().to_owned(),
            183 if little_64 => Platform::LinuxArm64.machine().to_owned(),
            _ if bytes[5] != 1 => "big-endian ELF".to_owned(),
            other => format!("ELF machine {other}"),
        };
        Some(Self {
            machine,
            loader: little_64.then(|| loader(bytes)).flatten(),
            python_versions: python_versions(bytes),
            glibc: glibc_version(bytes),
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    usize::try_from(u64::from_le_bytes(field.try_into().ok()?)).ok()
}

/// The content of the segment `PT_INTERP` (System V ABI, program header of a 64-bit object).
fn loader(bytes: &[u8]) -> Option<String> {
    const PT_INTERP: [u8; 4] = [3, 0, 0, 0];
    let table = u64_at(bytes, 32)?;
    let entry = usize::from(u16_at(bytes, 54)?);
    let count = usize::from(u16_at(bytes, 56)?);
    for index in 0..count {
        let header = table.checked_add(entry.checked_mul(index)?)?;
        if bytes.get(header..header.checked_add(4)?)? == PT_INTERP {
            let offset = u64_at(bytes, header + 8)?;
            let length = u64_at(bytes, header + 32)?;
            let text = bytes.get(offset..offset.checked_add(length.min(4096))?)?;
            let text = text.split(|byte| *byte == 0).next()?;
            return String::from_utf8(text.to_vec()).ok();
        }
    }
    None
}

/// Python keeps its version as a string of its own (`PY_VERSION`), perhaps as the tail of a longer one.
fn python_versions(bytes: &[u8]) -> Vec<String> {
    let mut found = std::collections::BTreeSet::new();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == 0) {
        let (text, after) = rest.split_at(at);
        let start = text
            .iter()
            .rposition(|byte| *byte == b' ')
            .map_or(0, |at| at + 1);
        let word = &text[start..];
        if is_python_version(word) {
            found.insert(String::from_utf8_lossy(word).into_owned());
        }
        rest = &after[1..];
    }
    found.into_iter().collect()
}

fn is_python_version(word: &[u8]) -> bool {
    let Some(rest) = word.strip_prefix(b"3.") else {
        return false;
    };
    let digits = |part: &[u8]| (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let rest = rest.strip_suffix(b"+").unwrap_or(rest);
    let Some(dot) = rest.iter().position(|byte| *byte == b'.') else {
        return false;
    };
    let (minor, patch) = (&rest[..dot], &rest[dot + 1..]);
    let end = patch
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(patch.len());
    let release = &patch[end..];
    let pre = [&b"rc"[..], b"a", b"b"]
        .iter()
        .find_map(|mark| release.strip_prefix(*mark));
    digits(minor) && digits(&patch[..end]) && (release.is_empty() || pre.is_some_and(digits))
}

/// glibc's banner: `GNU C Library (…) stable release version 2.36.`
fn glibc_version(bytes: &[u8]) -> Option<(u16, u16)> {
    const BANNER: &[u8] = b"GNU C Library";
    const VERSION: &[u8] = b"release version ";
    let banner = find(bytes, BANNER)?;
    let line = &bytes[banner..bytes.len().min(banner + 400)];
    let version = &line[find(line, VERSION)? + VERSION.len()..];
    let end = version
        .iter()
        .position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let text = std::str::from_utf8(&version[..end]).ok()?;
    let mut numbers = text.split('.').filter(|part| !part.is_empty());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_versions_from_other_words() {
        for good in ["3.11.2", "3.12.0rc1", "3.13.0a4", "3.14.0+"] {
            assert!(is_python_version(good.as_bytes()), "{good}");
        }
        for bad in [
            "3.11", "3.11.", "3.11.2.1", "2.7.18", "3.11.2x", "3..2", "", "3.1111.2",
        ] {
            assert!(!is_python_version(bad.as_bytes()), "{bad}");
        }
        let data = b"junk\x003.11.2\x00Python 3.11.2\x00x3.11.4\x00GLIBC_2.2.5\x00";
        assert_eq!(python_versions(data), ["3.11.2"]);
    }

    #[test]
    fn reads_glibcs_banner() {
        let data =
            b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright\0";
        assert_eq!(glibc_version(data), Some((2, 36)));
        assert_eq!(glibc_version(b"GLIBC_2.36\0"), None);
    }

    #[test]
    fn cut_or_lying_headers_do_not_panic() {
        let mut header = vec![0; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[18] = 62;
        header[32..40].fill(0xff);
        header[54..58].fill(0xff);
        let binary = Binary::parse(&header).unwrap();
        assert_eq!((binary.machine.as_str(), binary.loader), ("x86_64", None));
        assert!(Binary::parse(&header[..40]).is_none());
        assert!(Binary::parse(&[b'#'; 80]).is_none());
    }
}
