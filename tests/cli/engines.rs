//! Container engines of the test's own: private sockets, folders and control groups; they end with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::bases::{command, run};

/// A Docker daemon; ended by its process id. One at a time.
pub struct Docker {
    child: Child,
    folder: tempfile::TempDir,
    cgroup: String,
    _alone: MutexGuard<'static, ()>,
}

impl Docker {
    pub fn start() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new()
            .prefix("iw-docker-")
            .tempdir()
            .unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(at("config.json"), "{}").unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let cgroup = format!("/imagewright-cli-{}", std::process::id());
        // The daemon also ends when the tests are killed.
        let child = command("setpriv")
            .args(["--pdeathsig", "TERM", "dockerd"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid"), "--config-file", &at("config.json")])
            .args(["--host", &format!("unix://{}", at("sock"))])
            .args(["--bridge=none", "--iptables=false"])
            .arg(format!("--cgroup-parent={cgroup}"))
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let docker = Self {
            child,
            folder,
            cgroup,
            _alone: alone,
        };
        let end = Instant::now() + Duration::from_secs(60);
        while !docker
            .command(&["version"])
            .output()
            .unwrap()
            .status
            .success()
        {
            let log = fs::read_to_string(docker.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "dockerd does not start: {log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        docker
    }

    /// As `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("sock").display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut docker = command("docker");
        docker
            .args(arguments)
            .env("DOCKER_HOST", self.host())
            .env("HOME", self.folder.path());
        docker
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        succeed(self.command(arguments))
    }

    /// What `python -c CODE` prints in an image, as its default user or as another.
    #[track_caller]
    pub fn python(&self, image: &str, user: Option<&str>, code: &str) -> String {
        self.run(&in_python(image, user, code))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = run("kill", [self.child.id().to_string()]);
        let _ = self.child.wait();
        unmount_below(self.folder.path());
        remove_cgroup(&self.cgroup);
    }
}

/// Podman with its state in a folder of its own.
pub struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("iw-podman-")
            .tempdir()
            .unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            at("root"),
            at("run")
        );
        fs::write(at("storage.conf"), storage).unwrap();
        // runc first: crun refuses machines with both versions of cgroups.
        let runtime = run("sh", ["-c", "command -v runc || command -v crun"]);
        let engine = format!(
            "[containers]\nnetns = \"none\"\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\nruntime = {:?}\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n",
            runtime.trim()
        );
        fs::write(at("containers.conf"), engine).unwrap();
        Self { folder }
    }

    /// The variables that make any `podman` command use this folder.
    pub fn variables(&self) -> Vec<(String, String)> {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        vec![
            ("CONTAINERS_STORAGE_CONF".into(), at("storage.conf")),
            ("CONTAINERS_CONF".into(), at("containers.conf")),
        ]
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let mut podman = command("podman");
        podman.args(arguments).envs(self.variables());
        succeed(podman)
    }

    /// What `python -c CODE` prints in an image, as its default user or as another.
    #[track_caller]
    pub fn python(&self, image: &str, user: Option<&str>, code: &str) -> String {
        self.run(&in_python(image, user, code))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let mut podman = command("podman");
        let _ = podman
            .args(["rmi", "--all", "--force"])
            .envs(self.variables())
            .output();
        unmount_below(self.folder.path());
    }
}

fn in_python<'a>(image: &'a str, user: Option<&'a str>, code: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["run", "--rm", "--network=none"];
    arguments.extend(user.into_iter().flat_map(|user| ["--user", user]));
    arguments.extend([image, "python", "-c", code]);
    arguments
}

#[track_caller]
fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn unmount_below(folder: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points: Vec<&str> = points
        .filter(|point| Path::new(point).starts_with(folder))
        .collect();
    points.reverse();
    for point in points {
        let _ = command("umount").args(["--lazy", point]).status();
    }
}

/// Removes the empty groups that an engine made below its own.
fn remove_cgroup(name: &str) {
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for top in hierarchies.chain([root.clone()]) {
        let top = top.join(name.trim_start_matches('/'));
        for entry in walkdir::WalkDir::new(top)
            .contents_first(true)
            .into_iter()
            .flatten()
        {
            if entry.file_type().is_dir() {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}
