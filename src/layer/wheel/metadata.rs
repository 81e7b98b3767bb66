//! The small texts that describe a wheel: its file name, `WHEEL`, `METADATA`, `entry_points.txt`.

use std::collections::BTreeMap;
use std::str::FromStr;

use pep440_rs::Version;

/// Name and version, as a wheel's file name or `.dist-info` folder says them (binary distribution format, "File name
/// convention").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameVersion {
    /// PEP 503 normalised.
    pub name: String,
    /// PEP 440.
    pub version: Version,
}

impl NameVersion {
    /// From `{name}-{version}(-{build})?-{python}-{abi}-{platform}.whl`.
    pub fn of_file_name(file_name: &str) -> Result<Self, String> {
        let stem = file_name.strip_suffix(".whl");
        let parts: Vec<&str> = stem.map_or(Vec::new(), |stem| stem.split('-').collect());
        match parts.as_slice() {
            [name, version, _, _, _] | [name, version, _, _, _, _] => Self::of(name, version),
            _ => Err(
                "its file name is not that of a wheel (name-version-python-abi-platform.whl)"
                    .into(),
            ),
        }
    }

    /// From `{name}-{version}`.
    pub fn of_dist_info(stem: &str) -> Result<Self, String> {
        match stem.split_once('-') {
            Some((name, version)) => Self::of(name, version),
            None => Err(format!("`{stem}.dist-info` has no version in its name")),
        }
    }

    /// From both apart.
    pub fn of(name: &str, version: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if !name.chars().all(fits) || !ends(name.chars().next()) || !ends(name.chars().last()) {
            return Err(format!("`{name}` is not the name of a project"));
        }
        let parsed = Version::from_str(&version.replace('_', "-"));
        Ok(Self {
            name: normalise(name),
            version: parsed.map_err(|_| format!("`{version}` is not a version"))?,
        })
    }

    /// Whether both mean the same release; `self` may lack the local version of `other`.
    pub fn fits(&self, other: &Self) -> bool {
        let without_local = || other.version.clone().without_local();
        self.name == other.name
            && (self.version == other.version || self.version == without_local())
    }
}

/// PEP 503: lower case, runs of `-`, `_` and `.` become one `-`.
pub fn normalise(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

/// The value of a header in an e-mail-like text (`WHEEL`, `METADATA`); the body is not looked at.
pub fn header<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case(key))
        .map(|(_, value)| value.trim())
}

/// `WHEEL` must say version 1.something ("abort if major version is greater").
pub fn check_wheel_version(text: &str) -> Result<(), String> {
    let Some(version) = header(text, "Wheel-Version") else {
        return Err("says no Wheel-Version".into());
    };
    match version.split_once('.') {
        Some(("1", minor)) if minor.parse::<u32>().is_ok() => Ok(()),
        _ => Err(format!("says Wheel-Version `{version}`; only 1.x is known")),
    }
}

/// One command that a wheel declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// What is imported.
    pub module: String,
    /// What is called; may have dots.
    pub function: String,
}

/// The commands of `entry_points.txt` by name (entry points specification). A name of `gui_scripts` replaces the same of
/// `console_scripts`. Extras are read and ignored, as the specification says.
pub fn launchers(text: &str) -> Result<BTreeMap<String, Launcher>, String> {
    let mut found = [BTreeMap::new(), BTreeMap::new()];
    let mut section = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = match name.trim() {
                "console_scripts" => Some(0),
                "gui_scripts" => Some(1),
                _ => None,
            };
        } else if let Some(section) = section {
            let launcher = launcher(line).ok_or_else(|| {
                format!("has the line `{line}`, which is not `name = module:function`")
            })?;
            found[section].insert(launcher.0, launcher.1);
        }
    }
    let [mut all, gui] = found;
    all.extend(gui);
    Ok(all)
}

fn launcher(line: &str) -> Option<(String, Launcher)> {
    let (name, value) = line.split_once('=')?;
    let reference = match value.split_once('[') {
        Some((reference, extras)) => {
            extras.trim_end().strip_suffix(']')?;
            reference
        }
        None => value,
    };
    let (module, function) = reference.split_once(':')?;
    let dotted = |text: &str| {
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let part = |part: &str| !part.is_empty() && part.chars().all(fits);
        text.split('.').all(part).then(|| text.to_owned())
    };
    let launcher = Launcher {
        module: dotted(module.trim())?,
        function: dotted(function.trim())?,
    };
    Some((name.trim().to_owned(), launcher))
}

impl Launcher {
    /// The text of the command that runs with `shebang` (without newline).
    pub fn script(&self, shebang: &str) -> String {
        let Self { module, function } = self;
        let import = function.split('.').next().unwrap_or(function);
        format!(
            "{shebang}
# Runs {module}:{function}, an entry point of the wheel that brought it.
import sys

from {module} import {import}

if __name__ == \"__main__\":
    for suffix in (\"-script.pyw\", \".exe\"):
        sys.argv[0] = sys.argv[0].removesuffix(suffix)
    sys.exit({function}())
"
        )
    }
}

/// The first line of a script for `interpreter`. Kernels cut shebangs at 127 bytes and split them at the first space;
/// then `/bin/sh` starts the interpreter by way of a line that Python reads as a string.
pub fn shebang(interpreter: &str) -> String {
    if interpreter.len() + 3 <= 127 && !interpreter.contains(char::is_whitespace) {
        return format!("#!{interpreter}");
    }
    let quoted = interpreter.replace('\'', "'\"'\"'");
    format!("#!/bin/sh\n'''exec' '{quoted}' \"$0\" \"$@\"\n' '''")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_read_or_are_refused() {
        let good = NameVersion::of_file_name("Ruamel.YAML_x-1.0+cu12.1-2-cp311-cp311-linux.whl");
        let good = good.unwrap();
        assert_eq!(good.name, "ruamel-yaml-x");
        assert_eq!(good.version.to_string(), "1.0+cu12.1");
        for bad in [
            "a-1-py3-none.whl",
            "a-1-py3-none-any.zip",
            "-1-py3-none-any.whl",
            "a-x.y-py3-none-any.whl",
        ] {
            assert!(NameVersion::of_file_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entry_points_follow_the_specification() {
        let text = "# c\n[console_scripts]\n a = m.n : f.g [x, y]\nb=m:f\n\n[other]\nz = nothing\n[gui_scripts]\nb = w:f\n";
        let found = launchers(text).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            (found["a"].module.as_str(), found["a"].function.as_str()),
            ("m.n", "f.g")
        );
        assert_eq!(found["b"].module, "w");
        assert!(found["a"].script("#!/p").contains("from m.n import f\n"));
        for bad in [
            "x",
            "x = m",
            "x = m:f(1)",
            "x = m:f [y",
            "x = m:f; import os",
        ] {
            assert!(
                launchers(&format!("[console_scripts]\n{bad}\n")).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn long_interpreters_go_through_a_shell() {
        assert_eq!(shebang("/opt/venv/bin/python"), "#!/opt/venv/bin/python");
        let long = format!("/{}/python", "x".repeat(130));
        assert!(shebang(&long).starts_with("#!/bin/sh\n'''exec' '/xxx"));
        assert!(shebang("/a b/python").starts_with("#!/bin/sh\n"));
    }
}
