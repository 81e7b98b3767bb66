//! Registries of the tests' own on loopback, and projects that push to them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imagewright::ambient::Ambient;
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::registry::{Reference, Registry};
use serde_json::{Value, json};

use crate::disk::{Disk, Form};
pub use crate::team::*;
use crate::wares;

/// The login that a registry with `login` demands.
pub const USER: &str = "team";
/// Its password.
pub const PASSWORD: &str = "open-sesame-7";
/// A line of a password file for both: bcrypt, with the least cost.
const HTPASSWD: &str = "team:$2y$04$qtwq4rSOZzsw7nD/A7UP2uxa.8Mm//8SjqsSMw93HQqh/EgpUpsGG\n";

/// How a registry is to be.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Demands [`USER`] and [`PASSWORD`].
    pub login: bool,
    /// Lets manifests be deleted.
    pub delete: bool,
}

/// A registry; ended by its process id, at the latest with the thread that started it.
pub struct Server {
    child: Child,
    address: String,
    folder: tempfile::TempDir,
    disk: Disk,
}

/// One line of the access log.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    pub status: u16,
    /// Of the answer's body.
    pub bytes: u64,
}

impl Server {
    /// Debian's `docker-registry`.
    pub fn docker_registry(options: Options) -> Self {
        Self::distribution(options, "")
    }

    /// `http` goes on with `more`.
    fn distribution(options: Options, more: &str) -> Self {
        let folder = folder();
        let root = folder.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: '{root}/data'}}\n  delete: {{enabled: {}}}\n",
            options.delete
        );
        if options.login {
            fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: test, path: '{root}/htpasswd'}}}}\n"
            ));
        }
        Self::start(Form::Distribution, folder, |folder, address| {
            let path = folder.join("config.yml");
            fs::write(
                &path,
                format!("{config}http: {{addr: '{address}'{more}}}\n"),
            )
            .unwrap();
            let mut command = lasting("docker-registry");
            command.arg("serve").arg(path);
            command
        })
    }

    /// Debian's `docker-registry` behind TLS, with [`USER`]'s login. Its requests are not known.
    pub fn with_tls(certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.display(), key.display());
        let tls = format!(", tls: {{certificate: '{certificate}', key: '{key}'}}");
        let login = Options {
            login: true,
            delete: false,
        };
        Self::distribution(login, &tls)
    }

    /// olareg, which has the referrers API; `None`, with a word, on a machine without it and without Go.
    pub fn olareg() -> Option<Self> {
        let olareg = olareg()?;
        Some(Self::start(Form::Layouts, folder(), |folder, address| {
            let (host, port) = address.split_once(':').unwrap();
            let mut command = lasting(&olareg);
            command.args(["serve", "--api-delete", "--gc-frequency", "-1s"]);
            command.args(["--addr", host, "--port", port, "--dir"]);
            command.arg(folder.join("data"));
            command
        }))
    }

    /// Another process may take the free port first: then once more.
    fn start(
        form: Form,
        folder: tempfile::TempDir,
        command: impl Fn(&Path, &str) -> Command,
    ) -> Self {
        let mut log = String::new();
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            drop(listener);
            let file = |name| fs::File::create(folder.path().join(name)).unwrap();
            let mut child = command(folder.path(), &address)
                .stdout(file("access.log"))
                .stderr(file("error.log"))
                .spawn()
                .unwrap();
            if answers(&mut child, &address) {
                let disk = Disk {
                    form,
                    root: folder.path().join(match form {
                        Form::Distribution => "data/docker/registry/v2",
                        Form::Layouts => "data",
                    }),
                };
                return Self {
                    child,
                    address,
                    folder,
                    disk,
                };
            }
            let _ = child.kill();
            let _ = child.wait();
            log = fs::read_to_string(folder.path().join("error.log")).unwrap();
        }
        panic!("the registry does not start: {log}");
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A reference in this registry.
    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    /// Every request so far that was answered, in the order of their ends.
    pub fn requests(&self) -> Vec<Request> {
        // Lines are written after the answer; a request of our own, known by its query, comes behind all others.
        let marker = format!("mark={}", Digest::of(format!("{:?}", Instant::now())).hex());
        let limit = Instant::now() + Duration::from_secs(10);
        let _ = get(&self.address, &format!("/v2/?{marker}"));
        loop {
            let log = fs::read_to_string(self.folder.path().join("access.log")).unwrap();
            if log.contains(&marker) {
                let all = log.lines().filter_map(Request::parse);
                return all
                    .filter(|request| !request.query.contains("mark="))
                    .collect();
            }
            assert!(Instant::now() < limit, "the registry writes no access log");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What `work` made the registry answer, and its result.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<Request>) {
        let before = self.requests().len();
        let result = work();
        (result, self.requests().split_off(before))
    }

    /// Size of a blob that the storage holds.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        let data = fs::metadata(self.blob_path(digest)).ok()?;
        Some(data.len())
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.disk.blob_path(digest)
    }

    /// The folder of its storage.
    pub fn storage(&self) -> PathBuf {
        self.disk.root.clone()
    }

    /// All repositories with a manifest, sorted.
    pub fn repositories(&self) -> Vec<String> {
        self.disk.repositories()
    }

    /// All tags of a repository with the digests that they name.
    pub fn tags(&self, repository: &str) -> Vec<(String, Digest)> {
        self.disk.tags(repository)
    }

    /// Every tag of every repository names a manifest that is there with everything that it names, all with their
    /// digests and sizes.
    #[track_caller]
    pub fn assert_whole(&self) {
        self.assert_whole_below("", "");
    }

    /// As [`Server::assert_whole`], of the repositories whose names begin so.
    #[track_caller]
    pub fn assert_whole_below(&self, prefix: &str, when: &str) {
        let repositories = self.repositories().into_iter();
        for repository in repositories.filter(|name| name.starts_with(prefix)) {
            if let Err(problem) = self.disk.whole(&repository) {
                panic!("{problem} {when}");
            }
        }
    }

    /// Every blob that a manifest of this registry names as a file system layer.
    pub fn layers(&self) -> BTreeSet<Digest> {
        self.disk.layers()
    }

    /// Bytes of file system layers that these requests carried, down and up.
    pub fn layer_bytes(&self, requests: &[Request]) -> (u64, u64) {
        let layers = self.layers();
        let down = requests.iter().filter(|request| {
            request.method == "GET" && request.blob().is_some_and(|blob| layers.contains(&blob))
        });
        let up = requests.iter().filter_map(Request::uploaded);
        let up = up.filter(|blob| layers.contains(blob));
        (
            down.map(|request| request.bytes).sum(),
            up.filter_map(|blob| self.blob_size(&blob)).sum(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Request {
    /// Of the "combined" format: `host - user [time] "METHOD URL PROTOCOL" status bytes "referer" "agent"`.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("] \"")?;
        let (request, rest) = rest.split_once("\" ")?;
        let mut request = request.split(' ');
        let method = request.next()?.to_owned();
        let url = request.next()?;
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let mut numbers = rest.split(' ');
        Some(Self {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            status: numbers.next()?.parse().ok()?,
            bytes: numbers.next()?.parse().ok()?,
        })
    }

    /// The digest of a blob's own URL.
    pub fn blob(&self) -> Option<Digest> {
        let (_, digest) = self.path.split_once("/blobs/")?;
        digest.parse().ok()
    }

    /// The digest of a blob that came to be stored by this request's body.
    pub fn uploaded(&self) -> Option<Digest> {
        let finishes = matches!(self.method.as_str(), "PUT" | "POST") && self.status == 201;
        (finishes && self.path.contains("/blobs/uploads/"))
            .then(|| self.parameter("digest"))?
            .and_then(|digest| digest.parse().ok())
    }

    /// The digest of a blob that this request mounted.
    pub fn mounted(&self) -> Option<Digest> {
        (self.method == "POST" && self.status == 201)
            .then(|| self.parameter("mount"))?
            .and_then(|digest| digest.parse().ok())
    }

    fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find_map(|(found, value)| (found == name).then(|| value.into_owned()))
    }
}

/// A program that ends with the thread that started it.
fn lasting(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command.stdin(Stdio::null());
    command
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("iw-registry-")
        .tempdir()
        .unwrap()
}

/// What `tests/run` builds, else one on `PATH`. Without either it is an error where Go could have built it.
fn olareg() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/olareg");
    let found = Some(built).filter(|path| path.is_file());
    let found = found.or_else(|| on_path("olareg"));
    if found.is_none() {
        assert!(
            on_path("go").is_none(),
            "these tests need olareg: `tests/run` builds it into target/tools"
        );
        eprintln!("skipped: no olareg");
    }
    found
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn answers(child: &mut Child, address: &str) -> bool {
    let limit = Instant::now() + Duration::from_secs(20);
    while Instant::now() < limit {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        // One that wants TLS says so with HTTP/1.0.
        if get(address, "/v2/").is_ok_and(|answer| answer.starts_with("HTTP/1.")) {
            return child.try_wait().unwrap().is_none();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// The whole answer.
pub fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A file like docker's `config.json` with the login for these hosts.
pub fn login_file(folder: &Path, hosts: &[&str]) -> PathBuf {
    let basic = wares::basic(USER, PASSWORD);
    let auth = basic.trim_start_matches("Basic ");
    let auths: serde_json::Map<String, Value> = hosts
        .iter()
        .map(|host| ((*host).to_owned(), json!({ "auth": auth })))
        .collect();
    fs::create_dir_all(folder).unwrap();
    let path = folder.join("config.json");
    fs::write(&path, json!({ "auths": auths }).to_string()).unwrap();
    path
}

/// A client, with the logins of these files.
pub fn client(logins: &[PathBuf]) -> Registry {
    let ambient = Ambient {
        registry_auth: logins.to_vec(),
        ..Ambient::default()
    };
    Registry::new(Http::new(&ambient, false).unwrap(), &ambient)
}

/// Runs `future` to its end, on two threads.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
