//! The default user's layer: a line in `/etc/passwd` and `/etc/group`, the home and working folders.
//!
//! Folders belong to the user and to group 0 with mode 0775, so that they also serve a container that runs under an
//! arbitrary uid: engines give such a process group 0.

use super::tree::{Content, Tree};
use super::{FilesError, layer, paths};
use crate::identity::{LayerDocument, UserDocument};
use crate::layer::Layer;
use crate::layer::entry::Entry;
use crate::manifest::User;
use crate::store::Store;

/// The working folder of images that declare none; every image has it.
pub const WORK: &str = "/work";

/// Folders of the system that stay root's, also when one of them is the home or working folder.
const SYSTEM: [&str; 16] = [
    "",
    "boot",
    "etc",
    "home",
    "media",
    "mnt",
    "opt",
    "root",
    "srv",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/local",
    "var",
    "var/tmp",
];

/// What the layer is made from.
#[derive(Clone, Copy, Debug)]
pub struct UserParts<'a> {
    /// The user.
    pub user: &'a User,
    /// The declared working folder.
    pub workdir: Option<&'a str>,
    /// The parent's `/etc/passwd`; empty if it has none.
    pub passwd: &'a str,
    /// The parent's `/etc/group`; empty if it has none.
    pub group: &'a str,
}

impl UserParts<'_> {
    /// The document behind the layer key.
    pub fn document(&self) -> LayerDocument {
        let user = UserDocument {
            name: self.user.name.clone(),
            uid: self.user.uid,
            gid: self.user.gid,
            home: self.user.home.clone(),
        };
        let workdir = self.workdir.map(Into::into);
        LayerDocument::user(user, self.passwd.as_bytes(), self.group.as_bytes(), workdir)
    }
}

/// The user's layer. It belongs above layers of project files, so that its folders keep their owner.
///
/// # Errors
/// When the name or uid is taken by another user of the base, a path is not allowed, or the store fails.
pub fn user(store: &Store, parts: UserParts<'_>) -> Result<Layer, FilesError> {
    let document = parts.document();
    let user = parts.user;
    let comment = format!("user {} ({}:{})", user.name, user.uid, user.gid);
    layer(store, &document, comment, || tree(parts))
}

fn tree(parts: UserParts<'_>) -> Result<Tree, FilesError> {
    check_fields(parts.user)?;
    let mut tree = Tree::default();
    tree.file("etc/passwd", passwd(parts)?, 0o644);
    tree.file("etc/group", group(parts)?, 0o644);
    let folders = [Some(parts.user.home.as_str()), Some(WORK), parts.workdir];
    for folder in folders.into_iter().flatten() {
        let path = paths::check(folder).map_err(|reason| FilesError::Target {
            path: folder.into(),
            reason,
        })?;
        if !SYSTEM.contains(&path.as_str()) {
            let mut entry = Entry::folder(path);
            (entry.uid, entry.gid, entry.mode) = (parts.user.uid, 0, 0o775);
            tree.put(entry, Content::Bytes(Vec::new()));
        }
    }
    Ok(tree)
}

/// `useradd`'s default grammar for names; no separator of the files anywhere.
fn check_fields(user: &User) -> Result<(), FilesError> {
    let name_fine = user.name.len() <= 32
        && user
            .name
            .starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && user
            .name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    if !name_fine {
        return Err(FilesError::Name {
            what: "user name",
            value: user.name.clone(),
        });
    }
    if user.home.contains([':', '\n', '\0']) {
        return Err(FilesError::Name {
            what: "home folder",
            value: user.home.clone(),
        });
    }
    Ok(())
}

fn lines(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    text.lines().map(|line| (line, line.split(':').collect()))
}

fn conflict(user: &User, file: &'static str, line: &str) -> FilesError {
    let line = line.chars().take(200).collect();
    FilesError::User {
        name: user.name.clone(),
        uid: user.uid,
        file,
        line,
    }
}

fn passwd(parts: UserParts<'_>) -> Result<String, FilesError> {
    let UserParts { user, passwd, .. } = parts;
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    for (line, fields) in lines(passwd) {
        let [name, _, known_uid, known_gid, _, home, ..] = fields.as_slice() else {
            continue;
        };
        let same = (*name, *known_uid, *known_gid, *home)
            == (
                user.name.as_str(),
                uid.as_str(),
                gid.as_str(),
                user.home.as_str(),
            );
        if same {
            return Ok(passwd.into());
        }
        if *name == user.name || *known_uid == uid {
            return Err(conflict(user, "passwd", line));
        }
    }
    let mut text = ended(passwd);
    if text.is_empty() && user.uid != 0 {
        text.push_str("root:x:0:0:root:/root:/bin/sh\n");
    }
    text.push_str(&format!(
        "{0}:x:{uid}:{gid}:{0}:{1}:/bin/sh\n",
        user.name, user.home
    ));
    Ok(text)
}

/// A group of the number, whatever its name, is enough.
fn group(parts: UserParts<'_>) -> Result<String, FilesError> {
    let UserParts { user, group, .. } = parts;
    let gid = user.gid.to_string();
    if lines(group).any(|(_, fields)| fields.get(2) == Some(&gid.as_str())) {
        return Ok(group.into());
    }
    if let Some((line, _)) =
        lines(group).find(|(_, fields)| fields.first() == Some(&user.name.as_str()))
    {
        return Err(conflict(user, "group", line));
    }
    let mut text = ended(group);
    if text.is_empty() && user.gid != 0 {
        text.push_str("root:x:0:\n");
    }
    text.push_str(&format!("{}:x:{gid}:\n", user.name));
    Ok(text)
}

fn ended(text: &str) -> String {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Explain;

    fn parts<'a>(user: &'a User, passwd: &'a str, group: &'a str) -> UserParts<'a> {
        UserParts {
            user,
            workdir: None,
            passwd,
            group,
        }
    }

    #[test]
    fn lines_are_added_once_and_conflicts_are_named() {
        let user = User::default();
        let base = "root:x:0:0:root:/root:/bin/bash";
        let added = passwd(parts(&user, base, "")).unwrap();
        assert_eq!(
            added,
            format!("{base}\napp:x:1000:1000:app:/home/app:/bin/sh\n")
        );
        assert_eq!(passwd(parts(&user, &added, "")).unwrap(), added);
        assert!(
            passwd(parts(&user, "", ""))
                .unwrap()
                .starts_with("root:x:0:0:")
        );
        for taken in [
            "node:x:1000:1000::/home/node:/bin/sh",
            "app:x:5:5::/:/bin/sh",
            "app:x:1000:1000::/other:/bin/sh",
        ] {
            let error = passwd(parts(&user, taken, "")).unwrap_err();
            assert!(error.to_string().contains(taken), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_group_of_the_number_is_enough() {
        let user = User::default();
        assert_eq!(
            group(parts(&user, "", "users:x:1000:\n")).unwrap(),
            "users:x:1000:\n"
        );
        assert_eq!(
            group(parts(&user, "", "a:x:1:")).unwrap(),
            "a:x:1:\napp:x:1000:\n"
        );
        assert!(group(parts(&user, "", "app:x:7:\n")).is_err());
    }

    #[test]
    fn separators_in_names_are_refused() {
        for (name, home) in [
            ("a:b", "/h"),
            ("root\nx", "/h"),
            ("", "/h"),
            ("app", "/h:x"),
            ("app", "/h\nx"),
        ] {
            let user = User {
                name: name.into(),
                home: home.into(),
                ..User::default()
            };
            assert!(tree(parts(&user, "", "")).is_err(), "{name:?} {home:?}");
        }
        let user = User {
            home: "relative".into(),
            ..User::default()
        };
        assert!(matches!(
            tree(parts(&user, "", "")),
            Err(FilesError::Target { .. })
        ));
    }
}
