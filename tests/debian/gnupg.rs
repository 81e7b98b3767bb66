//! GnuPG with keys of the tests' own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A home of gpg, removed in the end.
pub struct GnuPg {
    home: tempfile::TempDir,
}

impl GnuPg {
    /// Without any key.
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { home }
    }

    /// A path in the home.
    pub fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    /// Runs gpg, which must succeed; gives its standard output.
    #[track_caller]
    pub fn run(&self, arguments: &[&str], input: &str) -> Vec<u8> {
        let mut child = Command::new("gpg")
            .args(["--batch", "--quiet", "--no-tty"])
            .args(["--pinentry-mode", "loopback", "--passphrase", ""])
            .arg("--homedir")
            .arg(self.home.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        output.stdout
    }
}

impl Drop for GnuPg {
    fn drop(&mut self) {
        // gpg leaves an agent behind for each home.
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--kill", "gpg-agent"])
            .status();
    }
}
