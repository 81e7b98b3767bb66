//! What is in the built-in bases works, as uid 1000.

use imagewright::manifest::{builtin_base, builtin_names};

use crate::support::{locked, project};

/// Module names that are not the project's.
const MODULES: [(&str, &str); 4] = [
    ("opencv-python-headless", "cv2"),
    ("pillow", "PIL"),
    ("scikit-image", "skimage"),
    ("scikit-learn", "sklearn"),
];

/// The names of the `pip` nodes of a built-in base and of those that it stands on.
fn pip(base: &str) -> Vec<String> {
    let text = builtin_base(base).unwrap();
    let value = |line: &str, before: &str| {
        let rest = line.trim().strip_prefix(before)?;
        Some(rest.split('"').next()?.to_owned())
    };
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| value(line, "pip \""))
        .collect();
    let below = text.lines().find_map(|line| {
        let (_, below) = line.strip_prefix("base ")?.split_once("base=\"")?;
        Some(below.split('"').next()?.to_owned())
    });
    if let Some(below) = below {
        names.extend(pip(&below));
    }
    names
}

#[test]
fn every_package_of_every_base_imports() {
    for base in builtin_names() {
        let mut modules: Vec<String> = pip(base)
            .iter()
            .map(|name| {
                let known = MODULES.iter().find(|(known, _)| known == name);
                known
                    .map_or(name.as_str(), |(_, module)| module)
                    .replace('-', "_")
            })
            .collect();
        modules.sort();
        assert!(
            modules.contains(&"pytest".to_owned()),
            "{base}: {modules:?}"
        );
        let script = format!(
            "import os, sys, {}\nprint(os.getuid(), os.environ['HOME'], os.access('/', os.W_OK), sys.prefix)",
            modules.join(", ")
        );
        let said = project().exec(
            base,
            &["python", "-W", "error::ImportWarning", "-c", &script],
        );
        assert_eq!(said, "1000 /home/app False /opt/venv\n", "{base}");
    }
}

#[test]
fn all_is_everything_of_the_others() {
    let all = pip("all");
    for base in builtin_names() {
        for name in pip(base) {
            assert!(all.contains(&name), "`all` lacks {name} of {base}");
        }
    }
    let lock = project().lock();
    for base in builtin_names() {
        for wheel in &locked(&lock, base).wheels {
            let stack = ["nvidia", "torch", "tensorflow", "triton", "cuda", "jax"];
            assert!(
                !stack.iter().any(|name| wheel.starts_with(name)),
                "{base} has {wheel}"
            );
        }
    }
}

#[test]
fn the_texts_read_well() {
    for base in builtin_names() {
        let text = builtin_base(base).unwrap();
        assert!(text.starts_with("// ") && text.ends_with("}\n"), "{base}");
        assert!(!text.contains('\t') && text.lines().all(|line| line.len() <= 100));
    }
}

/// Counts sources and lists those whose bytecode Python would not use (PEP 552: magic number, flags, mtime, size).
const BYTECODE: &str = r#"
import importlib.util, os
count, stale = 0, []
for root in "/usr/lib/python3.11", "/usr/lib/python3":
    for folder, _, files in os.walk(root):
        for path in (os.path.join(folder, name) for name in files if name.endswith(".py")):
            count += 1
            source = os.stat(path)
            wanted = importlib.util.MAGIC_NUMBER + bytes(4)
            wanted += (int(source.st_mtime) & 0xffffffff).to_bytes(4, "little") + source.st_size.to_bytes(4, "little")
            try:
                with open(importlib.util.cache_from_source(path), "rb") as cached:
                    found = cached.read(16)
            except OSError as error:
                found = error
            if found != wanted:
                stale.append((path, found))
print(count > 400, stale)
"#;

/// TLS, time zones, locale.
const SYSTEM: &str = r#"
import datetime, locale, os, ssl, sys, zoneinfo
print(len(ssl.create_default_context().get_ca_certs()) > 100)
print(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset())
print(os.environ["LANG"], locale.setlocale(locale.LC_ALL, ""), sys.getfilesystemencoding(), sys.stdout.encoding)
print("gr\u00fc\u00df".upper())
"#;

#[test]
fn the_system_below_works() {
    for base in ["minimal", "all"] {
        let said = project().exec(base, &["python", "-c", BYTECODE]);
        assert_eq!(said, "True []\n", "{base}");
        let said = project().exec(base, &["python", "-c", SYSTEM]);
        assert_eq!(
            said, "True\n2:00:00\nC.UTF-8 C.UTF-8 utf-8 utf-8\nGRÜSS\n",
            "{base}"
        );
        // A package that dpkg has not configured, or whose dependency is missing, is said here.
        assert_eq!(project().exec(base, &["dpkg", "--audit"]), "", "{base}");
        let said = project().exec(
            base,
            &[
                "sh",
                "-c",
                "id; awk 'BEGIN { print 1 }'; ldconfig -p | head -1",
            ],
        );
        assert!(
            said.starts_with("uid=1000(app) gid=1000(app) groups=1000(app)\n1\n")
                && said.contains("libs found"),
            "{said}"
        );
    }
}
