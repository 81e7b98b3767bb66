//! What commands must not leave behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::lab::Lab;

/// Nothing of the lab is left once its commands have ended: no process, mount, control group, temporary file, and no
/// job that claims to run. What ends by itself gets five seconds to do so.
#[track_caller]
pub fn assert_none(lab: &Lab, when: &str) {
    let limit = Instant::now() + Duration::from_secs(5);
    loop {
        let found = all(lab);
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < limit, "left {when}:\n{}", found.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn all(lab: &Lab) -> Vec<String> {
    let mut found = processes(lab);
    found.extend(mounts(lab));
    found.extend(groups(lab));
    found.extend(names(&lab.store().join("tmp")));
    let beside = names(&lab.project()).into_iter();
    found.extend(beside.filter(|name| name.contains(".imagewright.lock.")));
    if lab.store().join("state.sqlite").exists() {
        let open = "SELECT id || ' ' || state FROM jobs WHERE state IN ('PENDING', 'RUNNING')";
        found.extend(lab.rows(open).into_iter().flatten());
    }
    found
}

/// Processes with the lab's name in their command line or environment.
pub fn processes(lab: &Lab) -> Vec<String> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_ok_and(|pid| pid != own) {
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let known = [read("cmdline"), read("environ")].concat();
            let text = String::from_utf8_lossy(&known).replace('\0', " ");
            if text.contains(lab.name()) {
                found.push(format!("process {name}: {text}"));
            }
        }
    }
    found
}

/// Mounts that this process sees, or any other that does not belong to a living container of the lab.
fn mounts(lab: &Lab) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = text.lines().filter(|line| line.contains(lab.name()));
    lines.map(|line| format!("mount {line}")).collect()
}

/// Control groups of containers that commands of the lab made.
pub fn groups(lab: &Lab) -> Vec<String> {
    let pids = lab.pids();
    let ours = |name: &str| {
        let mut parts = name.strip_prefix("imagewright-").unwrap_or("").split('-');
        parts.any(|part| {
            let decimal = part.parse::<u32>().ok();
            let hex = u32::from_str_radix(part, 16).ok();
            decimal
                .into_iter()
                .chain(hex)
                .any(|pid| pids.contains(&pid))
        })
    };
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if ours(&name) {
                found.push(format!("control group {}", entry.path().display()));
            }
            open.push(entry.path());
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path().display().to_string())
        .collect()
}
