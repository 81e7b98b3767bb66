//! What of a configured system does not go into a layer: secrets, machine identity, logs, locks, caches that nothing
//! reads; and what is rewritten so that the clock does not show. `identity::CLEANING_VERSION` counts these rules.
//!
//! The rules work on what is read, never on the tree: see `emit`.

use std::path::Path;

/// What happens to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is left out.
    Drop,
    /// A regular file of no bytes takes its place.
    Empty,
}

use Action::{Drop, Empty};

/// Pattern → action. `*` stands for any characters but `/`, a trailing `/**` for everything below a folder, which
/// itself stays.
const RULES: &[(&str, Action)] = &[
    // The kernel's and the runtime's own.
    ("dev/**", Drop),
    ("proc/**", Drop),
    ("sys/**", Drop),
    ("run/**", Drop),
    ("tmp/**", Drop),
    ("var/tmp/**", Drop),
    (".imagewright", Drop),
    (".imagewright/**", Drop),
    // What a runtime writes for each container.
    ("etc/hostname", Drop),
    ("etc/hosts", Drop),
    ("etc/resolv.conf", Drop),
    // Logs.
    ("var/log/dpkg.log", Drop),
    ("var/log/alternatives.log", Drop),
    ("var/log/bootstrap.log", Drop),
    ("var/log/fontconfig.log", Drop),
    ("var/log/apt/**", Drop),
    // Caches and locks.
    ("var/cache/ldconfig/aux-cache", Drop),
    ("var/cache/apt/*.bin", Drop),
    ("var/cache/apt/archives/*.deb", Drop),
    ("var/cache/apt/archives/lock", Drop),
    ("var/lib/apt/lists/*", Drop),
    ("var/lib/dpkg/lock", Drop),
    ("var/lib/dpkg/lock-frontend", Drop),
    ("var/lib/dpkg/triggers/Lock", Drop),
    // Backups of the state before the last change.
    ("etc/group-", Drop),
    ("etc/gshadow-", Drop),
    ("etc/passwd-", Drop),
    ("etc/shadow-", Drop),
    ("etc/subgid-", Drop),
    ("etc/subuid-", Drop),
    ("var/cache/debconf/*-old", Drop),
    ("var/lib/dpkg/available", Drop),
    ("var/lib/dpkg/available-old", Drop),
    ("var/lib/dpkg/diversions-old", Drop),
    ("var/lib/dpkg/statoverride-old", Drop),
    ("var/lib/dpkg/status-old", Drop),
    // Machine identity and randomness.
    ("etc/machine-id", Empty),
    ("var/lib/dbus/machine-id", Drop),
    ("var/lib/systemd/catalog/database", Drop),
    ("var/lib/systemd/credential.secret", Drop),
    ("var/lib/systemd/random-seed", Drop),
    ("var/lib/urandom/random-seed", Drop),
    // Secrets that maintainer scripts generate.
    ("etc/ssh/ssh_host_*_key", Drop),
    ("etc/ssh/ssh_host_*_key.pub", Drop),
    ("etc/ssl/certs/ssl-cert-snakeoil.pem", Drop),
    ("etc/ssl/private/ssl-cert-snakeoil.key", Drop),
];

/// Folders whose time is that of the last container in them.
const RESTLESS: [&str; 6] = ["dev", "proc", "run", "sys", "tmp", "var/tmp"];

/// What happens to the path (without leading `/`); `None`: it goes in. `link` is a symbolic link's target.
pub fn action(path: &str, link: Option<&[u8]>) -> Option<Action> {
    let rule = RULES.iter().find(|(pattern, _)| matches(pattern, path));
    if let Some((_, action)) = rule {
        return Some(*action);
    }
    // OpenSSL's hashed name of the certificate above.
    let dangles = path.starts_with("etc/ssl/certs/") && link == Some(b"ssl-cert-snakeoil.pem");
    dangles.then_some(Drop)
}

/// Whether the folder's own mtime says nothing.
pub fn is_restless(path: &str) -> bool {
    RESTLESS.contains(&path)
}

fn matches(pattern: &str, path: &str) -> bool {
    if let Some(folder) = pattern.strip_suffix("/**") {
        return path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'));
    }
    match pattern.split_once('*') {
        None => pattern == path,
        Some((head, tail)) => path
            .strip_prefix(head)
            .and_then(|rest| rest.strip_suffix(tail))
            .is_some_and(|middle| !middle.contains('/')),
    }
}

/// Whether [`rewrite`] wants to see a file's content.
pub fn is_rewritten(path: &str) -> bool {
    ["etc/shadow", "etc/ssl/certs/java/cacerts"].contains(&path) || path.ends_with(".pyc")
}

/// The content as it goes into the layer. `source` gives size and clamped mtime of a file of the same tree.
pub fn rewrite(
    path: &str,
    content: Vec<u8>,
    epoch: i64,
    source: impl Fn(&str) -> Option<(u64, i64)>,
) -> Vec<u8> {
    if path == "etc/shadow" {
        return shadow(content, epoch);
    }
    if path == "etc/ssl/certs/java/cacerts" {
        return super::keystore::with_time(content, epoch);
    }
    if path.ends_with(".pyc") {
        return bytecode(path, content, source);
    }
    content
}

/// shadow(5): the third field is the day of the last change, which is the day of the build.
fn shadow(content: Vec<u8>, epoch: i64) -> Vec<u8> {
    let Ok(text) = String::from_utf8(content.clone()) else {
        return content;
    };
    let today = epoch / 86_400;
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let mut fields: Vec<String> = line.split(':').map(Into::into).collect();
        if let Some(changed) = fields.get_mut(2)
            && changed.parse::<i64>().is_ok_and(|day| day > today)
        {
            *changed = today.to_string();
        }
        lines.push(fields.join(":"));
    }
    lines.join("\n").into_bytes()
}

/// PEP 552: with SOURCE_DATE_EPOCH set, Python writes bytecode that is checked by the source's hash, which costs every
/// import a read of the source. The source's mtime is fixed here, so the header by size and time is as good.
fn bytecode(
    path: &str,
    mut content: Vec<u8>,
    source: impl Fn(&str) -> Option<(u64, i64)>,
) -> Vec<u8> {
    const CHECKED_HASH: [u8; 4] = [3, 0, 0, 0];
    if content.get(4..8) != Some(&CHECKED_HASH) || content.len() < 16 {
        return content;
    }
    let Some((size, mtime)) = source_of(path).and_then(|path| source(&path)) else {
        return content;
    };
    content[4..8].fill(0);
    content[8..12].copy_from_slice(&(mtime as u32).to_le_bytes());
    content[12..16].copy_from_slice(&(size as u32).to_le_bytes());
    content
}

/// `a/__pycache__/b.cpython-311.pyc` → `a/b.py`.
fn source_of(path: &str) -> Option<String> {
    let path = Path::new(path);
    let stem = path.file_name()?.to_str()?.split('.').next()?;
    let folder = path.parent()?;
    if folder.file_name()? != "__pycache__" {
        return None;
    }
    Some(
        folder
            .parent()?
            .join(format!("{stem}.py"))
            .to_str()?
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_whole_paths() {
        for (path, expected) in [
            ("etc/machine-id", Some(Empty)),
            ("etc/ssh/ssh_host_ed25519_key", Some(Drop)),
            ("etc/ssh/ssh_host_rsa_key.pub", Some(Drop)),
            ("etc/ssh/sshd_config", None),
            ("run/lock", Some(Drop)),
            ("run", None),
            ("running", None),
            ("var/lib/apt/lists/x/y", None),
            ("var/lib/dpkg/status", None),
            ("var/lib/dpkg/status-old", Some(Drop)),
        ] {
            assert_eq!(action(path, None), expected, "{path}");
        }
        let link = Some(&b"ssl-cert-snakeoil.pem"[..]);
        assert_eq!(action("etc/ssl/certs/0a1b.0", link), Some(Drop));
        assert_eq!(action("etc/ssl/certs/0a1b.0", Some(b"ISRG.pem")), None);
    }

    #[test]
    fn the_day_of_the_build_does_not_show() {
        let found = shadow(
            b"root:*:20777:0:99999:7:::\nold:*:19000:0:::::\n".to_vec(),
            20_600 * 86_400,
        );
        assert_eq!(found, b"root:*:20600:0:99999:7:::\nold:*:19000:0:::::\n");
    }

    #[test]
    fn bytecode_is_checked_by_size_and_time() {
        let mut content = b"MAGI\x03\0\0\0hashhashcode".to_vec();
        let source = |path: &str| (path == "usr/lib/a.py").then_some((7, 9));
        let found = bytecode(
            "usr/lib/__pycache__/a.cpython-311.pyc",
            content.clone(),
            source,
        );
        assert_eq!(found, b"MAGI\0\0\0\0\x09\0\0\0\x07\0\0\0code");
        content[4] = 0;
        let found = bytecode(
            "usr/lib/__pycache__/a.cpython-311.pyc",
            content.clone(),
            source,
        );
        assert_eq!(found, content);
    }
}
