//! Control groups: memory, CPU and process limits of one container, on version 1, hybrid and version 2 machines.
//!
//! A container's group is made next to or below the group that imagewright itself is in, so that limits above us
//! keep counting. Its name carries the process id and start time of its owner, and [`sweep`] removes the groups of
//! the dead. Never kills a process: a group with processes in it is not removed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Limits;

const PREFIX: &str = "imagewright-";
const V1_CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// Length of a CPU quota's period in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Where this process may make groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parents {
    /// Version 1: controller → folder of our own group.
    V1(BTreeMap<&'static str, PathBuf>),
    /// Version 2: the folder that hands controllers to its children.
    V2(PathBuf),
    /// No place where this user may make groups; the reason.
    None(String),
}

/// One container's group; removed on drop.
#[derive(Debug)]
pub struct Cgroup {
    /// Controller (`""` on version 2) → folder.
    folders: BTreeMap<&'static str, PathBuf>,
}

impl Parents {
    /// Looks at this machine.
    pub fn detect() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let v1 = v1_parents(&own, &mounts);
        if !v1.is_empty() {
            return if v1.values().all(|folder| can_make_groups(folder)) {
                Self::V1(v1)
            } else {
                Self::None("this user may not make control groups (version 1)".into())
            };
        }
        v2_parent(&own, &mounts, enable).map_or_else(
            || Self::None("no control group is delegated to this user".into()),
            Self::V2,
        )
    }

    fn folders(&self) -> Vec<&Path> {
        match self {
            Self::V1(folders) => folders.values().map(PathBuf::as_path).collect(),
            Self::V2(folder) => vec![folder],
            Self::None(_) => Vec::new(),
        }
    }
}

/// Controller → folder of the group that the process with this `/proc/self/cgroup` is in.
fn v1_parents(own: &str, mountinfo: &str) -> BTreeMap<&'static str, PathBuf> {
    let mut found = BTreeMap::new();
    for controller in V1_CONTROLLERS {
        let group = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            let path = fields.next()?;
            controllers
                .split(',')
                .any(|c| c == controller)
                .then_some(path)
        });
        let mount = cgroup_mounts(mountinfo, "cgroup")
            .find(|(_, _, options)| options.split(',').any(|o| o == controller));
        if let (Some(group), Some((root, point, _))) = (group, mount) {
            found.insert(controller, place(root, point, group));
        }
    }
    found
}

/// `(root within the hierarchy, mount point, super options)` of every mount of that type.
fn cgroup_mounts<'a>(
    mountinfo: &'a str,
    fstype: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    mountinfo.lines().filter_map(move |line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        (after.next()? == fstype).then_some(())?;
        Some((root, point, after.nth(1)?))
    })
}

fn place(root: &str, point: &str, group: &str) -> PathBuf {
    let below = group.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
    Path::new(point).join(below.trim_start_matches('/'))
}

/// The nearest ancestor of our own group whose children get controllers, or can be made to.
fn v2_parent(own: &str, mountinfo: &str, enable: impl Fn(&Path)) -> Option<PathBuf> {
    let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, point, _) = cgroup_mounts(mountinfo, "cgroup2").next()?;
    let own = place(root, point, group);
    own.ancestors()
        .take_while(|folder| folder.starts_with(point))
        .find(|folder| {
            enable(folder);
            let offered =
                fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
            offered.split_whitespace().any(|c| c == "memory") && can_make_groups(folder)
        })
        .map(Path::to_owned)
}

/// Asks a group to hand controllers to its children. Refused with EBUSY where the group itself has processes, with
/// EACCES where it is not ours.
fn enable(folder: &Path) {
    for controller in ["+memory", "+pids", "+cpu"] {
        let _ = fs::write(folder.join("cgroup.subtree_control"), controller);
    }
}

fn can_make_groups(parent: &Path) -> bool {
    let probe = parent.join(format!("{PREFIX}{}-probe", owner(std::process::id())));
    let made = fs::create_dir(&probe).is_ok();
    made && fs::remove_dir(&probe).is_ok()
}

/// `<pid>-<start time in clock ticks since boot>`: names a process for good.
fn owner(pid: u32) -> String {
    format!("{pid}-{}", start_time(pid).unwrap_or(0))
}

/// When a living process started, in clock ticks since boot (proc(5), `/proc/pid/stat` field 22).
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Removes the groups whose owner is dead.
pub fn sweep(parents: &Parents) {
    for parent in parents.folders() {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(owner) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            let mut fields = owner.split('-').map(str::parse::<u64>);
            let (Some(Ok(pid)), Some(Ok(started))) = (fields.next(), fields.next()) else {
                continue;
            };
            let alive = u32::try_from(pid).ok().and_then(start_time) == Some(started);
            if !alive {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Cgroup {
    /// Makes the group of container `id` with its limits; says in the second value which limits it cannot enforce.
    pub fn create(parents: &Parents, id: &str, limits: &Limits) -> io::Result<(Self, Vec<String>)> {
        let name = format!("{PREFIX}{}-{id}", owner(std::process::id()));
        let mut group = Self {
            folders: BTreeMap::new(),
        };
        let parents = match parents {
            Parents::V1(folders) => folders.clone(),
            Parents::V2(folder) => BTreeMap::from([("", folder.clone())]),
            Parents::None(_) => BTreeMap::new(),
        };
        for (controller, parent) in parents {
            let folder = parent.join(&name);
            fs::create_dir(&folder)?;
            group.folders.insert(controller, folder);
        }
        let missing = group.apply(limits)?;
        Ok((group, missing))
    }

    fn apply(&self, limits: &Limits) -> io::Result<Vec<String>> {
        let mut missing = Vec::new();
        for (resource, files) in limit_files(limits, self.folders.contains_key("")) {
            let Some(folder) = self.folder(resource) else {
                missing.push(resource.to_owned());
                continue;
            };
            for (file, value, required) in files {
                let path = folder.join(file);
                match fs::write(&path, &value) {
                    Err(_) if !required => {}
                    Err(_) if !path.exists() => missing.push(resource.to_owned()),
                    other => other.map_err(|error| {
                        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                    })?,
                }
            }
        }
        Ok(missing)
    }

    fn folder(&self, controller: &str) -> Option<&PathBuf> {
        self.folders
            .get("")
            .or_else(|| self.folders.get(controller))
    }

    /// Moves a process into the group; its future children are born there.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        self.folders
            .values()
            .try_for_each(|folder| fs::write(folder.join("cgroup.procs"), pid.to_string()))
    }

    /// Whether the kernel killed a process of the group for want of memory.
    pub fn oom_killed(&self) -> bool {
        let Some(folder) = self.folder("memory") else {
            return false;
        };
        ["memory.oom_control", "memory.events"].iter().any(|file| {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            text.lines()
                .filter_map(|line| line.strip_prefix("oom_kill "))
                .any(|count| count.trim() != "0")
        })
    }

    /// Highest memory use in bytes.
    pub fn peak_memory(&self) -> Option<u64> {
        let folder = self.folder("memory")?;
        ["memory.max_usage_in_bytes", "memory.peak"]
            .iter()
            .find_map(|file| {
                fs::read_to_string(folder.join(file))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            })
    }
}

/// `(resource, [(file, value, required)])` for the declared limits.
#[expect(clippy::type_complexity, reason = "a table read in one place")]
fn limit_files(
    limits: &Limits,
    v2: bool,
) -> Vec<(&'static str, Vec<(&'static str, String, bool)>)> {
    let mut table = Vec::new();
    if let Some(bytes) = limits.memory_bytes {
        let value = bytes.to_string();
        table.push((
            "memory",
            if v2 {
                vec![
                    ("memory.max", value, true),
                    ("memory.swap.max", "0".into(), false),
                ]
            } else {
                vec![
                    ("memory.limit_in_bytes", value.clone(), true),
                    ("memory.memsw.limit_in_bytes", value, false),
                    ("memory.swappiness", "0".into(), false),
                ]
            },
        ));
    }
    if let Some(millis) = limits.cpu_millis {
        // The kernel takes no quota below one millisecond.
        let quota = (millis * CPU_PERIOD_US / 1000).max(1000);
        table.push((
            "cpu",
            if v2 {
                vec![("cpu.max", format!("{quota} {CPU_PERIOD_US}"), true)]
            } else {
                vec![
                    ("cpu.cfs_period_us", CPU_PERIOD_US.to_string(), true),
                    ("cpu.cfs_quota_us", quota.to_string(), true),
                ]
            },
        ));
    }
    if let Some(pids) = limits.pids {
        // One more for the helper that watches from inside; setting up takes two processes for a moment.
        let value = (pids.max(2) + 1).to_string();
        table.push(("pids", vec![("pids.max", value, true)]));
    }
    table
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in self.folders.values() {
            // Processes that were killed a moment ago are counted until they are gone.
            for _ in 0..50 {
                match fs::remove_dir(folder) {
                    Err(error) if error.raw_os_error() == Some(16) => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    _ => break,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
24 23 0:20 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
25 23 0:21 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
26 23 0:22 / /sys/fs/cgroup/unified rw shared:3 - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn finds_its_own_groups_below_each_mount() {
        let own = "4:memory:/a/b\n3:cpu,cpuacct:/docker/abc/x\n0::/\n";
        let found = v1_parents(own, MOUNTS);
        assert_eq!(found["memory"], Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(found["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct/x"));
        assert!(!found.contains_key("pids"));
    }

    #[test]
    fn on_version_2_takes_the_nearest_group_that_hands_out_controllers() {
        let root = tempfile::tempdir().unwrap();
        let slice = root.path().join("slice");
        let scope = slice.join("session.scope");
        fs::create_dir_all(&scope).unwrap();
        let mounts = format!(
            "26 23 0:22 / {} rw - cgroup2 cgroup2 rw",
            root.path().display()
        );
        let own = "0::/slice/session.scope\n";
        assert_eq!(v2_parent(own, &mounts, |_| ()), None);
        fs::write(scope.join("cgroup.subtree_control"), "").unwrap();
        fs::write(slice.join("cgroup.subtree_control"), "cpu memory pids").unwrap();
        assert_eq!(v2_parent(own, &mounts, |_| ()), Some(slice));
        let granted = |folder: &Path| {
            let _ = fs::write(folder.join("cgroup.subtree_control"), "memory");
        };
        assert_eq!(v2_parent(own, &mounts, granted), Some(scope));
    }

    #[test]
    fn applies_and_reads_version_2_files() {
        let root = tempfile::tempdir().unwrap();
        let parents = Parents::V2(root.path().into());
        let limits = Limits {
            memory_bytes: Some(1000),
            cpu_millis: Some(1500),
            pids: Some(7),
            timeout_ms: None,
        };
        let (group, missing) = Cgroup::create(&parents, "x", &limits).unwrap();
        assert!(missing.is_empty());
        let folder = group.folders[""].clone();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(read("memory.max"), "1000");
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("pids.max"), "8");
        assert!(!group.oom_killed());
        fs::write(folder.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        fs::write(folder.join("memory.peak"), "4096\n").unwrap();
        assert!(group.oom_killed());
        assert_eq!(group.peak_memory(), Some(4096));
    }

    #[test]
    fn sweeps_groups_of_the_dead_only() {
        let root = tempfile::tempdir().unwrap();
        let dead = root.path().join("imagewright-4194305-1-job");
        let recycled = root
            .path()
            .join(format!("imagewright-{}-1-job", std::process::id()));
        let living = root
            .path()
            .join(format!("imagewright-{}-job", owner(std::process::id())));
        let foreign = root.path().join("other-4194305-1");
        for folder in [&dead, &recycled, &living, &foreign] {
            fs::create_dir(folder).unwrap();
        }
        sweep(&Parents::V2(root.path().into()));
        assert!(!dead.exists() && !recycled.exists());
        assert!(living.exists() && foreign.exists());
    }
}
