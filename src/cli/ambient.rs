//! Reads the machine's configuration into [`Ambient`]: environment, pip's files, netrc, apt's sources, keyrings.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::ambient::{Ambient, Login};

/// What this machine's environment and files contribute.
pub fn read() -> Ambient {
    let home = home();
    let mut ambient = Ambient {
        netrc: netrc(&home),
        debian_mirrors: debian_mirrors(),
        debian_keyrings: keyrings(),
        certificates: certificates(),
        registry_auth: registry_auth(&home),
        index_logins: index_logins(env::vars()),
        ..Ambient::default()
    };
    if let Some(configured) = python_index(&home) {
        let (url, login) = split_login(&configured);
        if let Some(login) = login {
            ambient.index_logins.insert(url.clone(), login);
        }
        ambient.python_index = Some(url);
    }
    ambient
}

/// Asks the keyring for the passwords of logins that have only a user name. `indexes` are (declared name, URL).
///
/// The `keyring` command is the one that pip and uv use; without it, or without an entry, the login stays as it is.
pub fn with_keyring<'a>(
    mut ambient: Ambient,
    indexes: impl Iterator<Item = (&'a str, &'a str)>,
) -> Ambient {
    for (name, url) in indexes {
        let login = ambient
            .index_logins
            .get_mut(&name.to_lowercase().replace('_', "-"));
        if let Some(login) = login.filter(|login| login.password.is_empty())
            && let Some(password) = keyring(url, &login.username)
        {
            login.password = password;
        }
    }
    ambient
}

fn keyring(service: &str, username: &str) -> Option<String> {
    let asked = std::process::Command::new("keyring")
        .args(["get", service, username])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .output()
        .ok()?;
    let password = String::from_utf8(asked.stdout).ok()?;
    let password = password.trim_end_matches(['\r', '\n']);
    (asked.status.success() && !password.is_empty()).then(|| password.to_owned())
}

/// The user's home folder; `/` where there is none.
pub fn home() -> PathBuf {
    env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// URL without user info, and the login that was in it.
fn split_login(text: &str) -> (String, Option<Login>) {
    let Ok(mut url) = url::Url::parse(text) else {
        return (text.to_owned(), None);
    };
    let decode = |part: &str| {
        percent_encoding::percent_decode_str(part)
            .decode_utf8_lossy()
            .into_owned()
    };
    let login = (!url.username().is_empty() || url.password().is_some()).then(|| Login {
        username: decode(url.username()),
        password: decode(url.password().unwrap_or("")),
    });
    let _ = url.set_username("");
    let _ = url.set_password(None);
    (url.into(), login)
}

fn python_index(home: &Path) -> Option<String> {
    ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"]
        .into_iter()
        .find_map(variable)
        .or_else(|| {
            let own = variable("PIP_CONFIG_FILE").map(PathBuf::from);
            let files = [
                home.join(".config/pip/pip.conf"),
                home.join(".pip/pip.conf"),
                PathBuf::from("/etc/pip.conf"),
            ];
            own.into_iter()
                .chain(files)
                .find_map(|path| pip_index(&fs::read_to_string(path).ok()?))
        })
}

/// `index-url` of the `[global]` or `[install]` section of pip's configuration.
fn pip_index(text: &str) -> Option<String> {
    let mut relevant = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            relevant = matches!(section.trim_end_matches(']'), "global" | "install");
        } else if let (true, Some((key, value))) = (relevant, line.split_once('='))
            && matches!(key.trim(), "index-url" | "index_url")
            && !value.trim().is_empty()
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

fn index_logins(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, Login> {
    let all: BTreeMap<String, String> = variables.filter(|(_, value)| !value.is_empty()).collect();
    let mut logins = BTreeMap::new();
    for (key, username) in &all {
        let name = key
            .strip_prefix("IMAGEWRIGHT_INDEX_")
            .and_then(|rest| rest.strip_suffix("_USERNAME"));
        if let Some(name) = name {
            let password = all
                .get(&format!("IMAGEWRIGHT_INDEX_{name}_PASSWORD"))
                .cloned();
            let login = Login {
                username: username.clone(),
                password: password.unwrap_or_default(),
            };
            logins.insert(name.to_lowercase().replace('_', "-"), login);
        }
    }
    logins
}

fn netrc(home: &Path) -> BTreeMap<String, Login> {
    let path = variable("NETRC").map_or_else(|| home.join(".netrc"), PathBuf::from);
    fs::read_to_string(path).map_or_else(|_| BTreeMap::new(), |text| parse_netrc(&text))
}

/// Machines and logins of a netrc text; the first entry of a machine counts, `default` and macros are passed over.
fn parse_netrc(text: &str) -> BTreeMap<String, Login> {
    let mut logins: BTreeMap<String, Login> = BTreeMap::new();
    let uncommented: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let joined = uncommented.join(" ");
    let mut words = joined.split_whitespace();
    let mut current: Option<(String, Login)> = None;
    let empty = || Login {
        username: String::new(),
        password: String::new(),
    };
    let mut close = |entry: Option<(String, Login)>| {
        if let Some((machine, login)) = entry {
            logins.entry(machine).or_insert(login);
        }
    };
    while let Some(word) = words.next() {
        match word {
            "machine" => {
                close(current.take());
                current = words.next().map(|machine| (machine.to_owned(), empty()));
            }
            "default" | "macdef" => close(current.take()),
            "login" => {
                if let (Some((_, login)), Some(value)) = (&mut current, words.next()) {
                    login.username = value.into();
                }
            }
            "password" => {
                if let (Some((_, login)), Some(value)) = (&mut current, words.next()) {
                    login.password = value.into();
                }
            }
            _ => {}
        }
    }
    close(current);
    logins
}

/// Suite → archive URLs, of `IMAGEWRIGHT_DEBIAN_MIRROR` (for every suite, under the key `*`) or of the host's apt sources.
fn debian_mirrors() -> BTreeMap<String, Vec<String>> {
    if let Some(mirror) = variable("IMAGEWRIGHT_DEBIAN_MIRROR") {
        return BTreeMap::from([("*".to_owned(), vec![mirror])]);
    }
    let mut mirrors = BTreeMap::new();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let mut listed: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    listed.sort();
    files.extend(listed);
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if path
            .extension()
            .is_some_and(|extension| extension == "sources")
        {
            apt_deb822(&text, &mut mirrors);
        } else {
            apt_lines(&text, &mut mirrors);
        }
    }
    mirrors
}

fn add_mirror(mirrors: &mut BTreeMap<String, Vec<String>>, suite: &str, url: &str) {
    let url = url.trim_end_matches('/').to_owned();
    if !url.starts_with("http") {
        return;
    }
    let urls = mirrors.entry(suite.to_owned()).or_default();
    if !urls.contains(&url) {
        urls.push(url);
    }
}

fn apt_deb822(text: &str, mirrors: &mut BTreeMap<String, Vec<String>>) {
    for stanza in text.split("\n\n") {
        let field = |name: &str| -> Vec<String> {
            let found = stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim()
                    .eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            });
            found
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let disabled = field("Enabled").first().is_some_and(|value| value == "no");
        if disabled || !field("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        for suite in field("Suites") {
            for url in field("URIs") {
                add_mirror(mirrors, &suite, &url);
            }
        }
    }
}

fn apt_lines(text: &str, mirrors: &mut BTreeMap<String, Vec<String>>) {
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else {
            continue;
        };
        let rest = match rest.trim().strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, after)| after),
            None => rest,
        };
        let mut words = rest.split_whitespace();
        if let (Some(url), Some(suite)) = (words.next(), words.next()) {
            add_mirror(mirrors, suite, url);
        }
    }
}

fn keyrings() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = [
        "/usr/share/keyrings",
        "/etc/apt/trusted.gpg.d",
        "/etc/apt/keyrings",
    ]
    .into_iter()
    .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
    .map(|entry| entry.path())
    .filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("debian-archive") && (name.ends_with(".gpg") || name.ends_with(".asc"))
    })
    .filter(|path| !path.to_string_lossy().contains("removed"))
    .collect();
    found.sort();
    found
}

fn certificates() -> Vec<PathBuf> {
    let declared = variable("SSL_CERT_FILE").map(PathBuf::from);
    declared.into_iter().filter(|path| path.is_file()).collect()
}

fn registry_auth(home: &Path) -> Vec<PathBuf> {
    let docker = variable("DOCKER_CONFIG").map_or_else(|| home.join(".docker"), PathBuf::from);
    let runtime = variable("XDG_RUNTIME_DIR")
        .map(|folder| PathBuf::from(folder).join("containers/auth.json"));
    variable("REGISTRY_AUTH_FILE")
        .map(PathBuf::from)
        .into_iter()
        .chain([docker.join("config.json")])
        .chain(runtime)
        .chain([home.join(".config/containers/auth.json")])
        .filter(|path| path.is_file())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netrc_in_all_its_layouts() {
        let text = "# machine commented login x password y\nmachine a.example login u password p\n\
                    machine b.example\n  login v\n  password q\ndefault login d password d\nmachine a.example login z password z";
        let logins = parse_netrc(text);
        assert_eq!(
            logins.keys().collect::<Vec<_>>(),
            ["a.example", "b.example"]
        );
        assert_eq!(
            (
                logins["a.example"].username.as_str(),
                logins["a.example"].password.as_str()
            ),
            ("u", "p")
        );
        assert_eq!(logins["b.example"].password, "q");
        assert!(!format!("{logins:?}").contains('q'));
    }

    #[test]
    fn apt_sources_of_both_forms() {
        let mut mirrors = BTreeMap::new();
        apt_deb822(
            "Types: deb\n# comment\nURIs: http://m.example/debian/\nSuites: bookworm bookworm-updates\n\nTypes: deb\nEnabled: no\nURIs: http://off.example\nSuites: bookworm\n\nTypes: deb-src\nURIs: http://src.example\nSuites: bookworm",
            &mut mirrors,
        );
        apt_lines(
            "# deb http://x bookworm main\ndeb [arch=amd64 signed-by=/k] https://s.example/sec bookworm-security main\ndeb cdrom:[x] bookworm main",
            &mut mirrors,
        );
        assert_eq!(mirrors["bookworm"], ["http://m.example/debian"]);
        assert_eq!(mirrors["bookworm-updates"], ["http://m.example/debian"]);
        assert_eq!(mirrors["bookworm-security"], ["https://s.example/sec"]);
        assert_eq!(mirrors.len(), 3);
    }

    #[test]
    fn pip_configuration_and_user_info() {
        assert_eq!(
            pip_index(
                "[list]\nindex-url = a\n[global]\ncert=x\nindex-url = https://i.example/simple"
            ),
            Some("https://i.example/simple".into())
        );
        assert_eq!(pip_index("[global]\nextra-index-url = b"), None);
        let (url, login) = split_login("https://us%40er:p%2Fw@i.example/simple");
        assert_eq!(url, "https://i.example/simple");
        assert!(
            login
                == Some(Login {
                    username: "us@er".into(),
                    password: "p/w".into()
                })
        );
    }

    #[test]
    fn logins_of_named_indexes() {
        let variables = [
            ("IMAGEWRIGHT_INDEX_TEAM_ML_USERNAME", "u"),
            ("IMAGEWRIGHT_INDEX_TEAM_ML_PASSWORD", "p"),
            ("IMAGEWRIGHT_INDEX_EMPTY_USERNAME", ""),
            ("IMAGEWRIGHT_INDEX_EMPTY_PASSWORD", "p"),
            ("OTHER", "x"),
        ];
        let logins = index_logins(
            variables
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into())),
        );
        assert_eq!(logins.keys().collect::<Vec<_>>(), ["team-ml"]);
    }
}
