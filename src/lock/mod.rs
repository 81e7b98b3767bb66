//! `imagewright.lock`: what a manifest was resolved to. Knows no network and no clock.

mod diff;
mod fragment;
mod model;
mod once;
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
    use std::collections::{BTreeMap, BTreeSet};

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
    fn a_strangers_fragment_is_exactly_what_this_program_writes() {
        let lock = example();
        let text = lock.only("one", Platform::LinuxAmd64).unwrap().to_text();
        let parse = |text: &str| Lock::parse_only(&SourceText::new("fragment", text.to_owned()));
        let (only, name, platform, image) = parse(&text).unwrap();
        assert_eq!((name.as_str(), platform), ("one", Platform::LinuxAmd64));
        assert_eq!(only.to_text(), text);
        assert_eq!(image, lock.images["one"][&Platform::LinuxAmd64]);
        let deep = "image \"x\" {\n".repeat(50_000);
        for bad in [
            lock.to_text(),
            String::new(),
            text.replace("emitter=1", "emitter=1 /* */"),
            text.replace("emitter=1", "emitter=1\n/-wheel \"x\""),
            text.replace("emitter=1", "emitter=1\n"),
            text.replace("emitter=1", "emitter=0x1"),
            format!("{text}\n"),
            format!("{text}{}", deep),
            format!("{text}{}", "/*".repeat(50_000)),
            format!("{text}{}", "/-a {".repeat(50_000)),
            format!("{text}wheel \"\"\"\n\"\"\"\n"),
            format!("{text}wheel #\"x\"#\n"),
            format!("{text}wheel \"x\\"),
            format!("{text}}}\n"),
        ] {
            assert!(parse(&bad).is_err(), "{:.200}", bad);
        }
        for (at, _) in text.char_indices() {
            assert!(parse(&text[..at]).is_err());
        }
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
    #[test]
    fn no_line_stands_twice_in_its_block() {
        let text = example().to_text();
        let lines: Vec<&str> = text.lines().collect();
        let parse = |text: String| Lock::parse(&SourceText::new("l", text));
        let mut tried = BTreeSet::new();
        for (at, line) in lines.iter().enumerate() {
            if line.ends_with('{')
                || ['}', '/'].iter().any(|c| line.starts_with(*c))
                || line.is_empty()
            {
                continue;
            }
            // The same line, and one that says something else of the same thing.
            for twin in [(*line).to_owned(), line.replace(['0', '1'], "2")] {
                let single = line.trim_start().split(' ').next().unwrap();
                if twin != *line && ["wheel", "deb"].contains(&single) {
                    continue;
                }
                let mut twice = lines.clone();
                twice.insert(at + 1, &twin);
                let problems = parse(twice.join("\n")).expect_err(line).0;
                let found = problems.iter().find(|problem| {
                    let [(again, _), (first, _)] = problem.labels.as_slice() else {
                        return false;
                    };
                    problem.message.contains("stands twice") && first.start < again.start
                });
                assert!(found.is_some(), "{line}: {problems:?}");
                tried.insert(single);
            }
        }
        for name in ["lock", "request", "digest", "base", "python", "os-layer"] {
            assert!(tried.contains(name), "{name} of {tried:?}");
        }
        for (block, end) in [("\nimage ", "\n}\n"), ("\ndebian ", "\n}\n")] {
            let start = text.find(block).unwrap();
            let length = text[start..].find(end).unwrap() + end.len() - 1;
            let block = &text[start..start + length];
            let twice = text.replacen(block, &[block, block].concat(), 1);
            let problems = parse(twice).expect_err(block).to_string();
            assert!(problems.contains("stands twice"), "{problems}");
        }
        for (old, new) in [
            ("lock 1 ", "lock 1 1 "),
            ("sha256=", "sha256=\"00\" sha256="),
            ("platform=", "platform=\"linux/amd64\" platform="),
        ] {
            let problems = parse(text.replacen(old, new, 1)).expect_err(old);
            let told = problems.0.iter().any(|one| one.message.contains("twice"));
            assert!(told, "{old}: {problems:?}");
        }
    }
}
