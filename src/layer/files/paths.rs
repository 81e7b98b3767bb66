//! Which paths of an image the small layers may write to, and how folders look that an image has anyway.

/// Folders that every image has with a mode of their own; a layer that passes through them repeats it.
const KNOWN_MODES: [(&str, u32); 4] = [
    ("root", 0o700),
    ("tmp", 0o1777),
    ("var/tmp", 0o1777),
    ("var/local", 0o2775),
];

/// The mode of a parent folder, by its path without leading `/`.
pub fn parent_mode(path: &str) -> u32 {
    KNOWN_MODES
        .iter()
        .find(|(known, _)| *known == path)
        .map_or(0o755, |(_, mode)| *mode)
}

/// First folders that are links in today's distributions: an entry for them would replace the link.
const LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// First folders that a runtime mounts over.
const MOUNTED: [&str; 4] = ["proc", "sys", "dev", "run"];

/// Checks an absolute path of an image; gives it back without leading and trailing `/`.
///
/// # Errors
/// What is the matter with it, worded to follow "cannot be put into an image: ".
pub fn check(path: &str) -> Result<String, &'static str> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err("it is not an absolute path");
    };
    let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    for part in &parts {
        match *part {
            "." | ".." => return Err("it has `.` or `..` in it"),
            part if part.starts_with(".wh.") => {
                return Err("names that begin with `.wh.` delete files of lower layers");
            }
            part if part.contains('\0') => return Err("it has a NUL in it"),
            part if part.len() > 255 => return Err("a name in it is longer than 255 bytes"),
            _ => {}
        }
    }
    match parts.as_slice() {
        [first, ..] if LINKS.contains(first) => {
            Err("that folder is a link into /usr in most images: write `/usr/…`")
        }
        [first, ..] if MOUNTED.contains(first) => Err("the runtime mounts its own folder there"),
        ["var", "run" | "lock", ..] => Err("that folder is a link into /run in most images"),
        parts if parts.iter().map(|part| part.len() + 1).sum::<usize>() > 4000 => {
            Err("it is longer than 4000 bytes")
        }
        _ => Ok(parts.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_places_are_allowed() {
        for (path, clean) in [
            ("/app/", "app"),
            ("/", ""),
            ("//a///b", "a/b"),
            ("/usr/bin/x", "usr/bin/x"),
        ] {
            assert_eq!(check(path).as_deref(), Ok(clean));
        }
        let long = format!("/{}", "x".repeat(256));
        for bad in [
            "app",
            "",
            "/a/../b",
            "/./a",
            "/a/.wh.b",
            "/bin/x",
            "/lib64",
            "/proc/1",
            "/dev/shm/x",
            "/var/run/x",
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
