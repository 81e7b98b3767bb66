//! A user's folder, store and environment for the program, and what it answered.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::bases::python_base;
use crate::index::Server;
use crate::wheels::wheel;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_imagewright");

/// What of the host reaches the program: how its package index and its Debian archive are reached, and nothing else.
const PASSED: [&str; 14] = [
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IMAGEWRIGHT_DEBIAN_MIRROR",
    "NETRC",
    "NO_PROXY",
    "PIP_CONFIG_FILE",
    "PIP_INDEX_URL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A project, a home and a store of their own.
pub struct TestContext {
    folder: PathBuf,
    /// Removes the folder at the end.
    _temporary: Option<tempfile::TempDir>,
    /// The store's folder.
    pub store: PathBuf,
    /// More variables of the environment.
    pub variables: Vec<(String, String)>,
}

impl TestContext {
    /// With an empty store.
    pub fn new() -> Self {
        let temporary = tempfile::Builder::new()
            .prefix("imagewright-cli-")
            .tempdir()
            .unwrap();
        let mut context = Self::at(temporary.path());
        context._temporary = Some(temporary);
        context
    }

    /// Below the build folder, for a test that others go on from; with the store that outlives the tests, so that
    /// Debian bases and large wheels get there once per version.
    pub fn kept(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("cli")
            .join(name);
        let _ = fs::remove_dir_all(&folder);
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-cache/cli-store");
        Self {
            store: cache.join(env!("CARGO_PKG_VERSION")),
            ..Self::at(&folder)
        }
    }

    fn at(folder: &Path) -> Self {
        for name in ["project", "home"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        Self {
            folder: folder.into(),
            _temporary: None,
            store: folder.join("store"),
            variables: Vec::new(),
        }
    }

    /// With this manifest.
    pub fn of(manifest: &str) -> Self {
        let context = Self::new();
        context.write("imagewright.kdl", manifest);
        context
    }

    /// On the Python base, which the manifest can name `oci:base:python`.
    pub fn on_python(manifest: &str) -> Self {
        let context = Self::of(manifest);
        std::os::unix::fs::symlink(python_base(), context.path("base")).unwrap();
        context
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn project(&self) -> PathBuf {
        self.folder().join("project")
    }

    /// A path in the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.project().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn lock_text(&self) -> String {
        self.read("imagewright.lock")
    }

    /// Replaces a piece of the manifest, which must be there.
    pub fn edit(&self, old: &str, new: &str) {
        let text = self.read("imagewright.kdl");
        assert!(text.contains(old), "{text}");
        self.write("imagewright.kdl", text.replace(old, new));
    }

    /// The program in the project's folder, in the test's environment.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.command_of(PROGRAM, arguments)
    }

    /// Another program in the same environment.
    pub fn command_of(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.project())
            .env_clear()
            .envs(
                std::env::vars_os().filter(|(name, _)| PASSED.iter().any(|passed| name == passed)),
            )
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.folder().join("home"))
            .env("IMAGEWRIGHT_STORE", &self.store)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        if let Some(file) = pip_config().filter(|_| std::env::var_os("PIP_CONFIG_FILE").is_none()) {
            command.env("PIP_CONFIG_FILE", file);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Calls the program.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments))
    }

    /// Calls the program, which must succeed; what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).success().stdout
    }

    /// The same with `--json`, read.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.ok(&arguments)).unwrap()
    }

    /// Calls the program, which must end with this exit code; its messages.
    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
        ran.stderr
    }

    /// The digest of a built image.
    pub fn digest(&self, image: &str) -> String {
        let document = self.json(&["build", image]);
        document["images"][0]["digest"].as_str().unwrap().to_owned()
    }
}

/// The user's own pip configuration, which another HOME would hide.
fn pip_config() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    [".config/pip/pip.conf", ".pip/pip.conf"]
        .map(|name| home.join(name))
        .into_iter()
        .find(|path| path.is_file())
}

/// How a call ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(mut command: Command) -> Self {
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self::read(&output)
    }

    fn read(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// A package index on loopback with these releases: name, version, requirements.
pub fn index(releases: &[(&str, &str, &[&str])]) -> Server {
    let server = Server::start();
    publish(&server, releases);
    server
}

/// Makes exactly these the index's releases of the packages named.
pub fn publish(server: &Server, releases: &[(&str, &str, &[&str])]) {
    let mut names: Vec<&str> = releases.iter().map(|release| release.0).collect();
    names.dedup();
    for name in names {
        let files: Vec<_> = releases
            .iter()
            .filter(|release| release.0 == name)
            .map(|(name, version, requires)| wheel(name, version, requires, &[]))
            .collect();
        server.project(name, &files);
    }
}

/// The releases that most tests need.
pub const RELEASES: [(&str, &str, &[&str]); 5] = [
    ("alpha", "1.0", &["beta>=1"]),
    ("alpha", "2.0", &["beta>=1.1"]),
    ("beta", "1.0", &[]),
    ("beta", "1.1", &[]),
    ("gamma", "1.0", &[]),
];

/// A manifest whose images stand on the Python base and take their packages from `server`.
pub fn manifest(server: &Server, images: &str) -> String {
    format!(
        "index \"local\" \"{}\" default=#true\nbase \"own\" {{ from \"oci:base:python\"; }}\n\n{images}",
        server.index()
    )
}
