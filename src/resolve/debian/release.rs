//! `Release` files: which index files an archive has, with their hashes, and until when that is true.

use std::collections::BTreeMap;

use deb822_fast::borrowed::BorrowedParagraphIter;

use super::date;
use crate::digest::Digest;

/// The fields of a Release file that matter here.
#[derive(Clone, Debug)]
pub struct Release {
    /// For example `stable`.
    pub suite: String,
    /// For example `bookworm`.
    pub codename: String,
    /// When it was made, in seconds since 1970.
    pub date: i64,
    /// Until when it may be used.
    pub valid_until: Option<i64>,
    /// Whether index files can be fetched by their hash.
    pub by_hash: bool,
    /// What the archive is made for.
    pub architectures: Vec<String>,
    /// For example `main`.
    pub components: Vec<String>,
    /// Whether packages for all architectures stand in files of their own.
    pub separate_all: bool,
    /// Path below the suite's folder → digest and size in bytes.
    pub files: BTreeMap<String, (Digest, u64)>,
}

impl Release {
    /// Reads a Release file's text.
    ///
    /// # Errors
    /// What is missing or malformed, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let paragraph = BorrowedParagraphIter::new(text)
            .next()
            .ok_or("it is empty")?
            .map_err(|error| format!("it cannot be read: {error}"))?;
        let field = |name: &str| paragraph.get_single(name).unwrap_or("").trim().to_owned();
        let words = |name: &str| -> Vec<String> {
            field(name).split_whitespace().map(Into::into).collect()
        };
        let instant = |name: &str| match field(name) {
            text if text.is_empty() => Ok(None),
            text => date::parse(&text)
                .map(Some)
                .ok_or(format!("its {name} is `{text}`, which is not a date")),
        };
        let mut files = BTreeMap::new();
        for line in paragraph.get("SHA256").unwrap_or(&[]) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            if let &[hash, size, path] = columns.as_slice() {
                let digest = Digest::from_hex(hash).map_err(|error| error.to_string())?;
                let size = size
                    .parse()
                    .map_err(|_| format!("`{size}` is not the size of {path}"))?;
                files.insert(path.to_owned(), (digest, size));
            }
        }
        if files.is_empty() {
            return Err("it lists no SHA-256 hashes".into());
        }
        let separate = field("No-Support-for-Architecture-all");
        let architectures = words("Architectures");
        Ok(Self {
            suite: field("Suite"),
            codename: field("Codename"),
            date: instant("Date")?.ok_or("it has no Date")?,
            valid_until: instant("Valid-Until")?,
            by_hash: field("Acquire-By-Hash") == "yes",
            separate_all: separate != "Packages" && architectures.iter().any(|name| name == "all"),
            architectures,
            components: words("Components"),
            files,
        })
    }

    /// Why this is not the Release file of `suite` at `now` (seconds since 1970; `None`: do not ask the time).
    pub fn objection(&self, suite: &str, now: Option<i64>) -> Option<String> {
        if suite != self.suite && suite != self.codename {
            return Some(format!(
                "it belongs to {} (suite {}), not to {suite}",
                self.codename, self.suite
            ));
        }
        let until = self.valid_until?;
        now.filter(|now| *now > until)
            .map(|_| format!("it was valid until {} only", date::day(until)))
    }

    /// The best compressed form of a component's `Packages` file: its path, digest, size, and size unpacked.
    pub fn packages_file(
        &self,
        component: &str,
        architecture: &str,
    ) -> Option<(String, Digest, u64, u64)> {
        let plain = format!("{component}/binary-{architecture}/Packages");
        [".xz", ".gz", ""].into_iter().find_map(|suffix| {
            let path = format!("{plain}{suffix}");
            let (digest, size) = *self.files.get(&path)?;
            let unpacked = self.files.get(&plain).map_or(MAX_PACKAGES, |file| file.1);
            Some((path, digest, size, unpacked))
        })
    }
}

/// More than any real `Packages` file unpacks to; in bytes.
const MAX_PACKAGES: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Suite: stable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
        Valid-Until: Sun, 12 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\nArchitectures: all amd64\n\
        No-Support-for-Architecture-all: Packages\nComponents: main contrib\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages\n \
        f61f27bd17de546264aa58f40f3aafaac7021e0ef69c17f6b1b4cd7664a037ec 20 main/binary-amd64/Packages.gz\n";

    #[test]
    fn reads_what_matters_and_objects_to_the_wrong_suite_and_time() {
        let release = Release::parse(TEXT).unwrap();
        let (path, _, size, unpacked) = release.packages_file("main", "amd64").unwrap();
        assert_eq!(
            (path.as_str(), size, unpacked),
            ("main/binary-amd64/Packages.gz", 20, 0)
        );
        assert!(release.packages_file("main", "arm64").is_none());
        assert!(release.by_hash && !release.separate_all);
        let until = release.valid_until.unwrap();
        for suite in ["stable", "bookworm"] {
            assert_eq!(release.objection(suite, Some(until)), None);
        }
        assert!(release.objection("trixie", None).is_some());
        let late = release.objection("bookworm", Some(until + 1)).unwrap();
        assert_eq!(late, "it was valid until 2026-07-12 only");
    }

    #[test]
    fn refuses_what_is_no_release_file() {
        for text in [
            "".to_owned(),
            "Suite: x\n".into(),
            TEXT.replace("Date: ", "Dote: "),
            TEXT.replace("11 Jul", "11 Jux"),
            TEXT.replace("e3b0", "zzzz"),
        ] {
            assert!(Release::parse(&text).is_err(), "{text}");
        }
    }
}
