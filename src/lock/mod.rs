//! `imagewright.lock`: what a manifest was resolved to. Knows no network and no clock.

mod diff;
mod fragment;
mod model;
mod read;
mod write;

pub use diff::{Change, ImageDiff, diff_images};
pub use model::*;

/// The PEP 503 normalised project name and the version in a wheel's file name, if it is one (PEP 427).
pub fn wheel_name_version(file: &str) -> Option<(String, String)> {
    let stem = file.strip_suffix(".whl")?;
    let parts: Vec<&str> = stem.split('-').collect();
    if !(parts.len() == 5 || parts.len() == 6)
        || parts.iter().any(|part| part.is_empty())
        || file.contains('/')
    {
        return None;
    }
    let version = parts[1].replace('_', "-");
    let version = version
        .parse::<pep440_rs::Version>()
        .map_or(version, |parsed| parsed.to_string());
    Some((normalize(parts[0]), version))
}

/// PEP 503 normalisation: lower case, runs of `-`, `_` and `.` become one `-`.
pub fn normalize(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            other => out.extend(other.to_lowercase()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::diagnostic::SourceText;
    use crate::digest::Digest;
    use crate::manifest::{Platform, PythonMinor};

    fn example() -> Lock {
        let mut lock = Lock {
            emitter: 1,
            ..Lock::default()
        };
        let mut wheel = |file: &str, origin| {
            let (name, version) = wheel_name_version(file).unwrap();
            let wheel = LockedWheel {
                name,
                version,
                sha256: Digest::of(file),
                size: Some(7),
                origin,
            };
            lock.wheels.insert(file.into(), wheel);
        };
        wheel(
            "numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            WheelOrigin::DefaultIndex,
        );
        wheel(
            "churn-1.0-py3-none-any.whl",
            WheelOrigin::Path("dist/ü \"q\"\\.whl".into()),
        );
        wheel(
            "a_b.c-1!2+local.1-2-py3-none-any.whl",
            WheelOrigin::Index("https://i.example/simple".into()),
        );
        let deb = LockedDeb {
            package: "vim".into(),
            version: "2:9.0.1378-2".into(),
            architecture: "amd64".into(),
            sha256: Digest::of("vim"),
            size: 3,
            path: "pool/main/v/vim.deb".into(),
            suite: "bookworm".into(),
        };
        lock.debs.insert("vim_2:9.0.1378-2_amd64".into(), deb);
        let python = LockedPython {
            path: "/usr/bin/python3.11".into(),
            minor: PythonMinor {
                major: 3,
                minor: 11,
            },
            full: "3.11.2".into(),
            glibc: (2, 36),
        };
        let debian = LockedImage {
            request: Digest::of("request"),
            base: LockedBase::Debian {
                suite: "bookworm".into(),
                mirror: None,
                epoch: 1_747_699_200,
                request: Digest::of("base"),
                debs: vec!["vim_2:9.0.1378-2_amd64".into()],
                diff_id: Some(Digest::of("tar")),
            },
            python: python.clone(),
            wheels: lock.wheels.keys().cloned().collect(),
            debs: vec!["vim_2:9.0.1378-2_amd64".into()],
            os_request: Some(Digest::of("os request")),
            os_diff_id: Some(Digest::of("os")),
            digest: Some(Digest::of("image")),
        };
        let from = LockedImage {
            base: LockedBase::From {
                reference: "oci:dir".into(),
                digest: Digest::of("m"),
            },
            debs: vec![],
            os_request: None,
            os_diff_id: None,
            ..debian.clone()
        };
        let other = LockedImage {
            wheels: vec![],
            digest: None,
            ..debian.clone()
        };
        lock.images.insert(
            "one".into(),
            BTreeMap::from([(Platform::LinuxAmd64, debian), (Platform::LinuxArm64, from)]),
        );
        lock.images.insert(
            "two".into(),
            BTreeMap::from([(Platform::LinuxAmd64, other)]),
        );
        lock
    }

    #[test]
    fn reads_back_what_it_writes() {
        let lock = example();
        let text = lock.to_text();
        let read = Lock::parse(&SourceText::new("imagewright.lock", text.clone())).unwrap();
        assert_eq!(read, lock);
        assert_eq!(read.to_text(), text);
        assert_eq!(
            text.matches("\ndebian ").count(),
            1,
            "images with one base share its block"
        );
    }

    #[test]
    fn the_lock_of_one_image_has_only_what_it_uses_and_reads_back() {
        let lock = example();
        for (name, platform, wheels, debs) in [
            ("one", Platform::LinuxAmd64, 3, 1),
            ("one", Platform::LinuxArm64, 3, 0),
            ("two", Platform::LinuxAmd64, 0, 1),
        ] {
            let only = lock.only(name, platform).unwrap();
            assert_eq!((only.wheels.len(), only.debs.len()), (wheels, debs));
            assert_eq!(only.emitter, lock.emitter);
            assert_eq!(only.images.len(), 1);
            assert_eq!(only.images[name].len(), 1);
            assert_eq!(only.images[name][&platform], lock.images[name][&platform]);
            let text = only.to_text();
            let read = Lock::parse(&SourceText::new("fragment", text.clone())).unwrap();
            assert_eq!(read, only);
            assert_eq!(read.only(name, platform).unwrap().to_text(), text);
        }
        assert_eq!(lock.only("two", Platform::LinuxArm64), None);
        assert_eq!(lock.only("three", Platform::LinuxAmd64), None);
    }

    #[test]
    fn every_damage_is_an_error_and_never_a_panic() {
        let text = example().to_text();
        for (at, _) in text.char_indices() {
            let _ = Lock::parse(&SourceText::new("l", &text[..at]));
        }
        for bad in [
            "",
            "lock 2 emitter=1",
            "<<<<<<< HEAD\nlock 1 emitter=1",
            "lock 1 emitter=1\nwheel \"x\" sha256=\"00\"",
            "lock 1 emitter=1\nimage \"x\" platform=\"plan9/amd64\"",
            "lock 1 emitter=1\nfoo",
            "lock 1 emitter=1\nimage \"x\" platform=\"linux/amd64\" { digest \"sha256:0\" }",
            "ü \u{0}",
        ] {
            let problems = Lock::parse(&SourceText::new("l", bad)).unwrap_err();
            assert!(!problems.0.is_empty(), "{bad}");
        }
        let dangling = text.replacen("wheel \"churn", "wheel \"other", 1);
        assert!(Lock::parse(&SourceText::new("l", dangling)).is_err());
    }
}
