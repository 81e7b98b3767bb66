//! The other side: a Docker Engine of our own, on a private socket and folder; it ends with us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Call, Daemon, Measured, Outcome, find, need, temp_prefix};

/// A Docker Engine of our own.
#[derive(Debug)]
pub struct Engine {
    daemon: Option<Daemon>,
    client: PathBuf,
    socket: String,
    /// Short: socket paths have at most 107 bytes.
    sockets: tempfile::TempDir,
    data: PathBuf,
    cgroup: String,
}

impl Engine {
    /// Starts it with everything it keeps below `folder`.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(folder: &Path) -> Outcome<Self> {
        let (client, program) = (need("docker")?, need("dockerd")?);
        let data = folder.join("docker");
        let sockets = tempfile::Builder::new()
            .prefix(&temp_prefix(std::process::id()))
            .tempdir()
            .map_err(|error| error.to_string())?;
        let at = |name: &str| sockets.path().join(name).display().to_string();
        let socket = format!("unix://{}", at("docker.sock"));
        let cgroup = cgroup_of(std::process::id());
        let args = [
            "--host".to_owned(),
            socket.clone(),
            "--data-root".to_owned(),
            data.display().to_string(),
            "--exec-root".to_owned(),
            at("exec"),
            "--pidfile".to_owned(),
            at("docker.pid"),
            format!("--cgroup-parent={cgroup}"),
            // Nothing of the host's network is touched.
            "--bridge=none".to_owned(),
            "--iptables=false".to_owned(),
        ];
        let daemon = Daemon::start("dockerd", &program, &args, folder.join("dockerd.log"))?;
        let mut engine = Self {
            daemon: None,
            client,
            socket,
            sockets,
            data,
            cgroup,
        };
        let probe = (engine.client.clone(), engine.socket.clone());
        engine
            .daemon
            .insert(daemon)
            .await_ready(Duration::from_secs(60), || {
                let version = Command::new(&probe.0)
                    .args(["--host", &probe.1, "version"])
                    .output();
                version.is_ok_and(|output| output.status.success())
            })?;
        Ok(engine)
    }

    /// A command of the client.
    pub fn call(&self, args: &[&str]) -> Call {
        Call::new(&self.client)
            .args(["--host", &self.socket])
            .args(args)
            .env("DOCKER_CONFIG", self.sockets.path())
            // Debian's engine has no BuildKit.
            .env("DOCKER_BUILDKIT", "0")
    }

    /// Runs a command of the client.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, args: &[&str]) -> Outcome<Measured> {
        self.call(args).run()
    }

    /// The largest resident set of the daemon so far, in KiB.
    pub fn peak_kib(&self) -> Option<u64> {
        self.daemon.as_ref()?.peak_kib()
    }

    /// The processor time that the daemon has used.
    pub fn cpu(&self) -> Duration {
        self.daemon
            .as_ref()
            .and_then(Daemon::cpu)
            .unwrap_or_default()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.daemon.take());
        unmount_below(&self.data);
        unmount_below(self.sockets.path());
        remove_cgroup(&self.cgroup);
    }
}

/// Takes down mounts that a daemon that had to be killed left behind.
pub fn unmount_below(folder: &Path) {
    let (Some(umount), Ok(table)) = (find("umount"), fs::read_to_string("/proc/self/mountinfo"))
    else {
        return;
    };
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| Path::new(point).starts_with(folder)) {
        // What stays shows when the folder is removed.
        let _ = Command::new(&umount).args(["--lazy", point]).status();
    }
}

fn cgroup_of(pid: u32) -> String {
    format!("/imagewright-compare-{pid}")
}

/// Removes what a harness that was killed left outside its own folder.
pub fn sweep_after(pid: u32) {
    let prefix = temp_prefix(pid);
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            unmount_below(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    remove_cgroup(&cgroup_of(pid));
}

/// Removes the empty groups that the engine made below its own.
fn remove_cgroup(name: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    let tops = hierarchies
        .map(|entry| entry.path())
        .chain([root.to_owned()])
        .map(|path| path.join(name.trim_start_matches('/')));
    for top in tops.filter(|top| top.is_dir()) {
        let below = walkdir::WalkDir::new(&top).contents_first(true);
        for entry in below
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_dir())
        {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
