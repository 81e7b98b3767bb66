//! A root file system, a runtime, and a recorder of output.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use imagewright::runtime::Network;
use imagewright::runtime::{
    Cancel, ContainerSpec, Embedded, Ended, Limits, Output, Privileges, Runtime, RuntimeError,
};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_imagewright");

/// One temporary folder with a root file system and a runtime in it.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub runtime: Embedded,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        busybox_root(&folder.path().join("root"));
        let program = std::env::var_os("RUNTIME_TEST_PROGRAM").unwrap_or_else(|| PROGRAM.into());
        let runtime = Embedded::with_helper(folder.path(), Path::new(&program));
        Self { folder, runtime }
    }

    /// A container that runs a shell script as uid 1000.
    pub fn spec(&self, script: &str) -> ContainerSpec {
        spec(&self.folder.path().join("root"), script)
    }

    pub fn run(&self, spec: &ContainerSpec) -> Result<(Ended, Recorder), RuntimeError> {
        let recorder = Recorder::default();
        let ended = self.runtime.run(spec, &recorder, &Cancel::new())?;
        Ok((ended, recorder))
    }

    /// Standard output of a script that must succeed.
    pub fn says(&self, spec: &ContainerSpec) -> String {
        let (ended, recorder) = self.run(spec).unwrap();
        let (out, err) = (recorder.out(), recorder.err());
        assert_eq!(
            ended.outcome,
            imagewright::runtime::Outcome::Exited(0),
            "out: {out}\nerr: {err}"
        );
        out
    }
}

pub fn spec(root: &Path, script: &str) -> ContainerSpec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ContainerSpec {
        id: format!("test-{}-{number}", std::process::id()),
        lower: vec![root.into()],
        upper: None,
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: BTreeMap::from([("PATH".into(), "/bin".into())]),
        cwd: "/work".into(),
        uid: 1000,
        gid: 1000,
        hostname: "bench".into(),
        mounts: Vec::new(),
        limits: Limits::default(),
        network: Network::None,
        privileges: Privileges::Run,
        read_only: false,
    }
}

/// A root with busybox and its applets.
pub fn busybox_root(root: &Path) {
    for folder in ["bin", "etc", "proc", "dev", "sys", "tmp", "root"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let busybox = static_busybox();
    fs::copy(&busybox, root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "echo", "id", "hostname", "sleep", "kill", "ls", "mount", "umount", "ps",
        "env", "pwd", "touch", "mkdir", "rm", "dd", "head", "yes", "tail", "grep", "ip", "nc",
        "unshare", "mknod", "ln", "chmod", "chown", "seq", "mkfifo", "test", "true", "false",
        "stat", "df", "wc", "find", "cp", "printf", "dmesg", "chroot", "nproc", "readlink",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
}

fn static_busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
        .expect("these tests need the package busybox-static")
}

/// Keeps what a container printed.
#[derive(Default)]
pub struct Recorder {
    out: Mutex<Vec<u8>>,
    err: Mutex<Vec<u8>>,
}

impl Recorder {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.lock().unwrap()).into_owned()
    }
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap()).into_owned()
    }
}

impl Output for Recorder {
    fn stdout(&self, bytes: &[u8]) {
        self.out.lock().unwrap().extend_from_slice(bytes);
    }
    fn stderr(&self, bytes: &[u8]) {
        self.err.lock().unwrap().extend_from_slice(bytes);
    }
}
