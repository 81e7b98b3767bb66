//! Which user and group ids a container's user namespace has.
//!
//! Root maps ids to themselves: layers on disk carry their real owners and are shared by all containers, and the
//! fence is not the ids but the namespace, whose capabilities count for nothing outside. (Whatever root owns on the
//! machine is out of reach because it is not mounted; the writable rest of `/proc` is made read-only.) Another user
//! has one id, its own, which appears as the one that the container asks for; configuring OS packages needs many and
//! takes them from `/etc/subuid` and `/etc/subgid` with newuidmap(1).

use std::fs;
use std::process::Command;

use nix::unistd::{Uid, User};

use super::Step;
use crate::runtime::{ContainerSpec, Privileges, RuntimeError};

/// Ids that Debian's policy hands out (section 9.2), and what images use.
const IDS: u64 = 65_536;

/// Who runs imagewright.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// uid 0: can map many ids.
    Root,
    /// Anybody else.
    User {
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
    },
}

impl Caller {
    /// This process.
    pub fn this() -> Self {
        if Uid::effective().is_root() {
            Self::Root
        } else {
            Self::User {
                uid: Uid::effective().as_raw(),
                gid: nix::unistd::Gid::effective().as_raw(),
            }
        }
    }
}

/// The ids under which the root file system is prepared.
pub fn setup_ids(caller: Caller, spec: &ContainerSpec) -> (u32, u32) {
    match (caller, spec.privileges) {
        (Caller::Root, _) | (_, Privileges::Dpkg) => (0, 0),
        (Caller::User { .. }, Privileges::Run) => (spec.uid, spec.gid),
    }
}

/// Writes both maps of the child `pid`, which is in a new user namespace.
pub fn write(caller: Caller, spec: &ContainerSpec, pid: i32) -> Result<(), RuntimeError> {
    let put = |file: &str, text: String| {
        fs::write(format!("/proc/{pid}/{file}"), text).step(format!("write {file}"))
    };
    match (caller, spec.privileges) {
        (Caller::Root, _) => {
            put("uid_map", identity("/proc/self/uid_map", spec.uid))?;
            put("gid_map", identity("/proc/self/gid_map", spec.gid))
        }
        (Caller::User { uid, gid }, Privileges::Run) => {
            // Without this an unprivileged user may not write a group map (user_namespaces(7)).
            put("setgroups", "deny".into())?;
            put("uid_map", format!("{} {uid} 1\n", spec.uid))?;
            put("gid_map", format!("{} {gid} 1\n", spec.gid))
        }
        (Caller::User { uid, gid }, Privileges::Dpkg) => {
            map_with("newuidmap", pid, uid, &subordinate("/etc/subuid", uid)?)?;
            map_with("newgidmap", pid, gid, &subordinate("/etc/subgid", uid)?)
        }
    }
}

/// The first [`IDS`] ids that this process has itself, each mapped to itself, and `wanted` if it is another.
fn identity(own_map: &str, wanted: u32) -> String {
    let own = fs::read_to_string(own_map).unwrap_or_default();
    let mut map = String::new();
    for line in own.lines() {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let end = (first + count).min(IDS);
        if end > first {
            map += &format!("{first} {first} {}\n", end - first);
        }
    }
    if u64::from(wanted) >= IDS {
        map += &format!("{wanted} {wanted} 1\n");
    }
    map
}

/// The first range of at least 65,535 ids that `file` gives to the user: `name-or-id:first:count`.
fn subordinate(file: &str, uid: u32) -> Result<(u64, u64), RuntimeError> {
    let name = User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name);
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (owner == name || owner == uid.to_string()).then_some(range)
        })
        .find(|(_, count)| *count >= IDS - 1)
        .ok_or_else(|| RuntimeError::NoSubordinateIds {
            reason: format!("{file} gives user {name} no range of {} ids", IDS - 1),
        })
}

fn map_with(
    tool: &str,
    pid: i32,
    own: u32,
    (first, count): &(u64, u64),
) -> Result<(), RuntimeError> {
    let output = Command::new(tool)
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin")
        .args([pid.to_string(), "0".into(), own.to_string(), "1".into()])
        .args(["1".into(), first.to_string(), count.to_string()])
        .output();
    let reason = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(RuntimeError::NoSubordinateIds {
        reason: format!("{tool}: {reason}"),
    })
}
