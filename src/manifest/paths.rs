//! Paths in the project and in images.

use super::mistake::Mistake;
use super::requirement::normalise;
use super::values::{is_version, shorten};

/// Folders of an image that `file` and `fetch` may not write to, and why.
const RESERVED: &[(&str, &str)] = &[
    ("/opt/venv", "Python packages go there by `pip`"),
    ("/proc", "the runtime mounts it"),
    ("/sys", "the runtime mounts it"),
    ("/dev", "the runtime mounts it"),
    ("/run", "the runtime mounts it"),
    ("/results", "a run collects its results there"),
    ("/etc/passwd", "`user` writes it"),
    ("/etc/group", "`user` writes it"),
    ("/etc/shadow", "`user` writes it"),
    ("/etc/hostname", "the runtime mounts it"),
    ("/etc/hosts", "the runtime mounts it"),
    ("/etc/resolv.conf", "the runtime mounts it"),
    ("/.dockerenv", "the runtime makes it"),
];

/// A path below the manifest's folder, without `.` components; a trailing `/` is kept.
pub(super) fn source(text: &str) -> Result<String, Mistake> {
    let help =
        "paths are relative to the manifest's folder and stay below it, for example \"src/\"";
    let shown = shorten(text);
    if text.is_empty() {
        return Err(Mistake::whole("the path is empty", "nothing here").help(help));
    }
    if text.starts_with('/') || text.starts_with('~') {
        return Err(Mistake::at(
            0..1,
            format!("`{shown}` is not a path in the project"),
            "an absolute path",
        )
        .help(help));
    }
    if let Some(at) = text.find('\\') {
        return Err(
            Mistake::at(at..at + 1, format!("`{shown}` has a backslash"), "write /").help(help),
        );
    }
    let mut parts = Vec::new();
    let mut at = 0;
    for part in text.split('/') {
        if part == ".." {
            return Err(Mistake::at(
                at..at + 2,
                format!("`{shown}` could leave the project"),
                "`..` may not stand in a path",
            )
            .help(help));
        }
        if !part.is_empty() && part != "." {
            parts.push(part);
        }
        at += part.len() + 1;
    }
    let folder = text.ends_with('/') || text.ends_with("/.");
    Ok(match parts.join("/") {
        empty if empty.is_empty() => if folder { "./" } else { "." }.to_owned(),
        path if folder => format!("{path}/"),
        path => path,
    })
}

/// A wheel file of the project: its path, and the normalised name of its distribution.
pub(super) fn wheel(text: &str) -> Result<(String, String), Mistake> {
    let path = source(text)?;
    let file = path.rsplit('/').next().unwrap_or_default();
    let parts: Vec<&str> = file
        .strip_suffix(".whl")
        .unwrap_or_default()
        .split('-')
        .collect();
    let good = matches!(parts.len(), 5 | 6)
        && parts.iter().all(|part| !part.is_empty())
        && is_version(&parts[1].replace('_', "-"));
    if !good {
        return Err(Mistake::whole(format!("`{}` is not the name of a wheel", shorten(text)), "not a wheel")
            .help("a wheel is named like \"dist/churn-1.0-py3-none-any.whl\" (name-version-python-abi-platform)"));
    }
    Ok((path.clone(), normalise(parts[0])))
}

/// An absolute path without `.` and empty components; a trailing `/` is dropped.
pub(super) fn absolute(text: &str) -> Result<String, Mistake> {
    let shown = shorten(text);
    let help = "write an absolute path such as \"/app\"";
    if !text.starts_with('/') {
        return Err(Mistake::whole(
            format!("`{shown}` is not an absolute path"),
            "must begin with /",
        )
        .help(help));
    }
    let mut at = 0;
    for part in text.split('/') {
        if part == ".." || part == "." {
            return Err(Mistake::at(
                at..at + part.len(),
                format!("`{shown}` is not a plain path"),
                format!("`{part}` may not stand in a path"),
            )
            .help(help));
        }
        at += part.len() + 1;
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| part.len() > 255) || text.len() > 4095 {
        return Err(Mistake::whole(
            "the path is too long",
            "longer than Linux allows",
        ));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// An absolute path that project files may be put at; a trailing `/` is kept and means "into this folder".
pub(super) fn target(text: &str) -> Result<String, Mistake> {
    let path = absolute(text)?;
    for (reserved, why) in RESERVED {
        let inside = path
            .strip_prefix(reserved)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if inside {
            return Err(Mistake::whole(
                format!("nothing can be put at `{}`", shorten(text)),
                format!("reserved: {why}"),
            )
            .help("choose another place, for example below \"/app\" or \"/work\""));
        }
    }
    Ok(if text.ends_with('/') && path != "/" {
        format!("{path}/")
    } else {
        path
    })
}

/// Where `from` ends up when it is put at `to`: a trailing `/` of `to` means "into this folder".
pub(super) fn placed(from: &str, to: &str) -> String {
    let folder = to.trim_end_matches('/');
    let content = from.ends_with('/') || from == ".";
    let name = from.rsplit('/').next().unwrap_or_default();
    match to.ends_with('/') {
        true if content || name.is_empty() => {
            if folder.is_empty() { "/" } else { folder }.to_owned()
        }
        true => format!("{folder}/{name}"),
        false => to.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised() {
        assert_eq!(source("./a//b/./c/").unwrap(), "a/b/c/");
        assert_eq!(source("./").unwrap(), "./");
        assert_eq!(source(".").unwrap(), ".");
        assert_eq!(absolute("/a//b/").unwrap(), "/a/b");
        assert_eq!(placed("src/", "/app/"), "/app");
        assert_eq!(placed("a/b.txt", "/app/"), "/app/b.txt");
        assert_eq!(placed("a/b.txt", "/"), "/b.txt");
        assert_eq!(placed("src", "/app"), "/app");
        assert_eq!(
            wheel("dist/My_Pkg-1.0+cpu-py3-none-any.whl").unwrap().1,
            "my-pkg"
        );
        for bad in ["", "/a", "../a", "a/../b", "a/..", "~/x", "a\\b"] {
            assert!(source(bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "a",
            "/a/../b",
            "/./a",
            "/opt/venv",
            "/opt/venv/bin/x",
            "/proc",
            "/etc/passwd",
        ] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert!(target("/opt/venv2").is_ok() && target("/procs").is_ok());
    }
}
