//! Requests, wheels, a server and the judge (`uv`) for these tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use imagewright::ambient::Ambient;
use imagewright::diagnostic::{Explain, SourceText, Span};
use imagewright::digest::Digest;
use imagewright::lock::LockedPython;
use imagewright::manifest::{Index, PipRequirement, Platform, PythonMinor, Spanned};
use imagewright::progress::Silent;
use imagewright::resolve::python::{
    ProjectWheel, PythonError, PythonRequest, Resolution, Upgrade, resolve,
};

// ---------------------------------------------------------------- requests

/// A request, one line of text each; spans are those of the lines.
pub struct Case {
    text: Arc<SourceText>,
    requirements: Vec<Spanned<PipRequirement>>,
    constraints: Vec<Spanned<PipRequirement>>,
    overrides: Vec<Spanned<PipRequirement>>,
    indexes: Vec<Spanned<Index>>,
    exclude_newer: Option<Spanned<String>>,
    pub platform: Platform,
    pub python: LockedPython,
    pub project: BTreeMap<String, ProjectWheel>,
    pub pins: Vec<(String, String)>,
    pub upgrade: Upgrade,
    pub ambient: Ambient,
    pub offline: bool,
    pub cache: PathBuf,
}

impl Case {
    /// Lines are PEP 508 requirements; `constraint X`, `override X`, `exclude-newer T`, `index NAME URL [explicit|
    /// default]`, and `X @index=NAME`, `X @hash=sha256:…`, `NAME @wheel=PATH`.
    pub fn new(lines: &str) -> Self {
        let text = SourceText::new("imagewright.kdl", lines);
        let mut case = Self {
            text,
            requirements: vec![],
            constraints: vec![],
            overrides: vec![],
            indexes: vec![],
            exclude_newer: None,
            platform: Platform::LinuxAmd64,
            python: python("3.11.2"),
            project: BTreeMap::new(),
            pins: vec![],
            upgrade: Upgrade::None,
            ambient: ambient(),
            offline: false,
            cache: shared_cache(),
        };
        let mut start = 0;
        for line in lines.split_inclusive('\n') {
            case.line(line.trim_end(), Span::new(start, line.trim_end().len()));
            start += line.len();
        }
        case
    }

    fn line(&mut self, line: &str, span: Span) {
        let spanned = |value: PipRequirement| Spanned {
            value,
            source: Arc::clone(&self.text),
            span,
        };
        if line.is_empty() {
        } else if let Some(rest) = line.strip_prefix("constraint ") {
            self.constraints.push(spanned(requirement(rest)));
        } else if let Some(rest) = line.strip_prefix("override ") {
            self.overrides.push(spanned(requirement(rest)));
        } else if let Some(rest) = line.strip_prefix("exclude-newer ") {
            self.exclude_newer = Some(Spanned {
                value: rest.into(),
                source: Arc::clone(&self.text),
                span,
            });
        } else if let Some(rest) = line.strip_prefix("index ") {
            let mut words = rest.split(' ');
            let (name, url) = (words.next().unwrap(), words.next().unwrap());
            let flag = words.next();
            let index = Index {
                name: name.into(),
                url: url.into(),
                default: flag == Some("default"),
                explicit: flag == Some("explicit"),
            };
            self.indexes.push(Spanned {
                value: index,
                source: Arc::clone(&self.text),
                span,
            });
        } else {
            self.requirements.push(spanned(requirement(line)));
        }
    }

    /// Resolves in a cache that no other test shares.
    pub fn own_cache(mut self, folder: &Path) -> Self {
        self.cache = folder.join("cache");
        self
    }

    pub fn resolve(&self) -> Result<Resolution, PythonError> {
        let request = PythonRequest {
            requirements: &self.requirements,
            constraints: &self.constraints,
            overrides: &self.overrides,
            indexes: &self.indexes,
            exclude_newer: self.exclude_newer.as_ref(),
            platform: self.platform,
            python: &self.python,
            project_wheels: &self.project,
            pins: &self.pins,
            upgrade: &self.upgrade,
        };
        runtime().block_on(resolve(
            &request,
            &self.ambient,
            &self.cache,
            self.offline,
            &Silent,
        ))
    }

    /// `name==version` of every pin, or the error in words.
    pub fn pins(&self) -> Vec<String> {
        let resolution = self
            .resolve()
            .unwrap_or_else(|error| panic!("{}", told(&error)));
        let pins = resolution.pins().into_iter();
        let mut pins: Vec<_> = pins
            .map(|(name, version)| format!("{name}=={version}"))
            .collect();
        pins.sort();
        pins
    }

    /// The lines of text that an error's labels mark, over all its problems.
    pub fn marked(&self, error: &PythonError) -> BTreeSet<String> {
        let problems = error.problems().iter();
        problems
            .flat_map(|problem| &problem.labels)
            .map(|(span, _)| self.text.text[span.start..span.start + span.len].to_owned())
            .collect()
    }
}

/// Everything that a person would read of an error.
pub fn told(error: &dyn Explain) -> String {
    let mut text = format!("{error}\nhint: {}", error.hint().unwrap_or_default());
    for problem in error.problems() {
        text += &format!(
            "\n{problem}\n{:?}\nhelp: {:?}",
            problem.labels, problem.help
        );
    }
    text
}

fn requirement(text: &str) -> PipRequirement {
    let mut words: Vec<&str> = text.split(' ').collect();
    let mut take = |key: &str| -> Vec<String> {
        let (found, rest): (Vec<_>, Vec<_>) = words
            .iter()
            .copied()
            .partition(|word| word.starts_with(key));
        words = rest;
        found
            .iter()
            .map(|word| word[key.len()..].to_owned())
            .collect()
    };
    let index = take("@index=").pop();
    let wheel = take("@wheel=").pop();
    let hashes = take("@hash=");
    let pep508 = words.join(" ");
    let end = pep508
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(pep508.len());
    PipRequirement {
        name: pep508[..end].to_lowercase().replace(['_', '.'], "-"),
        pep508,
        index,
        wheel,
        hashes,
        constraint: false,
    }
}

/// CPython of a bookworm base.
pub fn python(full: &str) -> LockedPython {
    let minor: PythonMinor = full.rsplit_once('.').unwrap().0.parse().unwrap();
    LockedPython {
        path: format!("/usr/bin/python{minor}"),
        minor,
        full: full.into(),
        glibc: (2, 36),
    }
}

/// The mirror that this machine is told to use, if any; nothing else.
pub fn ambient() -> Ambient {
    let mirror = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"];
    Ambient {
        python_index: mirror.iter().find_map(|name| std::env::var(name).ok()),
        ..Ambient::default()
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn temporary() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// What the real index answered is asked for once per build folder.
fn shared_cache() -> PathBuf {
    temporary().join("resolver-cache")
}

// ---------------------------------------------------------------- the judge

/// `uv`, installed into the build folder once.
fn uv() -> &'static Path {
    static UV: OnceLock<PathBuf> = OnceLock::new();
    UV.get_or_init(|| {
        let venv = temporary().join("judge");
        let uv = venv.join("bin/uv");
        if !uv.exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
            run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "uv"]));
        }
        uv
    })
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The pins of `uv pip compile` for a requirements file, with more arguments.
pub fn uv_pins(requirements: &str, machine: &str, more: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("requirements.in");
    std::fs::write(&input, requirements).unwrap();
    let mut command = Command::new(uv());
    for (name, _) in std::env::vars() {
        if name.starts_with("UV_") || name.starts_with("PIP_") {
            command.env_remove(name);
        }
    }
    command.args([
        "pip",
        "compile",
        "--quiet",
        "--no-config",
        "--no-header",
        "--no-annotate",
    ]);
    command.args(["--only-binary", ":all:", "--python-version", "3.11.2"]);
    command
        .arg("--python-platform")
        .arg(format!("{machine}-manylinux_2_36"));
    command
        .arg("--cache-dir")
        .arg(temporary().join("judge-cache"));
    if let Some(mirror) = ambient().python_index {
        command.arg("--default-index").arg(mirror);
    }
    command.args(more).arg(&input).current_dir(folder.path());
    let lines = run(&mut command);
    let mut pins: Vec<String> = lines
        .lines()
        .filter(|line| line.contains("=="))
        .map(|line| line.trim().to_owned())
        .collect();
    pins.sort();
    pins
}

// ---------------------------------------------------------------- wheels

/// A wheel with a module `<name>.py` of `payload` bytes that do not compress.
pub fn wheel(name: &str, version: &str, requires: &[&str], payload: usize) -> (String, Vec<u8>) {
    wheel_tagged(name, version, "py3-none-any", requires, payload)
}

pub fn wheel_tagged(
    name: &str,
    version: &str,
    tag: &str,
    requires: &[&str],
    payload: usize,
) -> (String, Vec<u8>) {
    let info = format!("{name}-{version}.dist-info");
    let mut metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    for requirement in requires {
        metadata += &format!("Requires-Dist: {requirement}\n");
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(payload)
    .collect();
    let files = [
        (format!("{name}.bin"), noise),
        (format!("{info}/METADATA"), metadata.into_bytes()),
        (
            format!("{info}/WHEEL"),
            format!("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
                .into_bytes(),
        ),
        (format!("{info}/RECORD"), Vec::new()),
    ];
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (path, bytes) in files {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        zip.start_file(path, options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    (format!("{name}-{version}-{tag}.whl"), bytes)
}

// ---------------------------------------------------------------- a server

/// How a path is answered.
#[derive(Clone, Default)]
pub struct Page {
    pub kind: &'static str,
    pub body: Vec<u8>,
    /// Only with this `Authorization`; else 401.
    pub authorization: Option<String>,
    /// Answers to the first requests, one after the other, before the page itself.
    pub first: Vec<Trouble>,
    /// Honours `Range`.
    pub ranges: bool,
    /// Sent as `ETag`.
    pub etag: Option<&'static str>,
    /// 302 to there.
    pub redirect: Option<String>,
}

#[derive(Clone)]
pub enum Trouble {
    /// Announces everything, sends so many bytes of the body, then closes.
    Cut(usize),
    /// An error status with header lines.
    Status(u16, &'static str),
    /// Sends these bytes instead, complete.
    Instead(Vec<u8>),
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.headers.lines();
        lines.find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }
}

type Pages = Arc<Mutex<BTreeMap<String, Page>>>;

/// A server on loopback. Ends with the test.
pub struct Server {
    address: SocketAddr,
    pages: Pages,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            pages: Pages::default(),
            seen: Arc::default(),
        };
        let (pages, seen) = (Arc::clone(&server.pages), Arc::clone(&server.seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pages, seen) = (Arc::clone(&pages), Arc::clone(&seen));
                std::thread::spawn(move || {
                    let _ = serve(stream, &pages, &seen);
                });
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn put(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.into(), page);
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Page)) {
        change(self.pages.lock().unwrap().get_mut(path).unwrap());
    }

    pub fn remove(&self, path: &str) {
        self.pages.lock().unwrap().remove(path);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// A file below `/files/`.
    pub fn file(&self, name: &str, bytes: &[u8]) {
        self.put(
            &format!("/files/{name}"),
            Page {
                kind: "application/octet-stream",
                body: bytes.to_vec(),
                ranges: true,
                etag: Some("\"1\""),
                ..Page::default()
            },
        );
    }

    /// The simple API's HTML page of a package (PEP 503), with relative links and hashes, and its files.
    pub fn project(&self, name: &str, files: &[(String, Vec<u8>)]) {
        let mut html = format!("<!DOCTYPE html><html><body><h1>Links for {name}</h1>\n");
        for (file, bytes) in files {
            let hash = Digest::of(bytes).hex();
            html += &format!("<a href=\"../../files/{file}#sha256={hash}\">{file}</a><br/>\n");
            self.file(file, bytes);
        }
        self.put(
            &format!("/simple/{name}/"),
            Page {
                kind: "text/html",
                body: html.into_bytes(),
                ..Page::default()
            },
        );
    }

    pub fn index(&self) -> String {
        self.url("/simple")
    }
}

fn serve(stream: TcpStream, pages: &Pages, seen: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut headers = String::new();
        while !headers.ends_with("\r\n\r\n") && headers != "\r\n" {
            if reader.by_ref().read_line(&mut headers)? == 0 {
                return Ok(());
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let request = Seen { path, headers };
        seen.lock().unwrap().push(request.clone());
        let head = first.starts_with("HEAD");
        if !answer(&stream, &request, head, pages)? {
            return Ok(());
        }
    }
}

/// True if the connection may go on.
fn answer(
    mut stream: &TcpStream,
    request: &Seen,
    head: bool,
    pages: &Pages,
) -> std::io::Result<bool> {
    let (page, trouble) = {
        let mut pages = pages.lock().unwrap();
        let Some(page) = pages.get_mut(&request.path) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        };
        let trouble = (!page.first.is_empty()).then(|| page.first.remove(0));
        (page.clone(), trouble)
    };
    if let Some(wanted) = &page.authorization
        && request.header("authorization").as_ref() != Some(wanted)
    {
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    }
    if let Some(target) = &page.redirect {
        let text = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(text.as_bytes())?;
        return Ok(true);
    }
    if let Some(Trouble::Status(status, lines)) = trouble {
        let text = format!("HTTP/1.1 {status} Trouble\r\n{lines}Content-Length: 0\r\n\r\n");
        stream.write_all(text.as_bytes())?;
        return Ok(true);
    }
    let whole = match &trouble {
        Some(Trouble::Instead(bytes)) => bytes.clone(),
        _ => page.body.clone(),
    };
    let range = request.header("range").filter(|_| page.ranges);
    let if_range = request.header("if-range");
    let still_same = if_range.is_none() || if_range.as_deref() == page.etag;
    let (status, body, extra) = match range.filter(|_| still_same) {
        Some(range) => {
            let (from, to) = bounds(&range, whole.len());
            let extra = format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, whole.len());
            ("206 Partial Content", whole[from..to].to_vec(), extra)
        }
        None => ("200 OK", whole, String::new()),
    };
    let etag = page
        .etag
        .map(|etag| format!("ETag: {etag}\r\n"))
        .unwrap_or_default();
    let accepts = if page.ranges {
        "Accept-Ranges: bytes\r\n"
    } else {
        ""
    };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{etag}{accepts}{extra}\r\n",
        page.kind,
        body.len()
    );
    stream.write_all(text.as_bytes())?;
    if head {
        return Ok(true);
    }
    if let Some(Trouble::Cut(bytes)) = trouble {
        stream.write_all(&body[..bytes.min(body.len())])?;
        stream.flush()?;
        return Ok(false);
    }
    stream.write_all(&body)?;
    Ok(true)
}

fn bounds(range: &str, len: usize) -> (usize, usize) {
    let spec = range.strip_prefix("bytes=").unwrap();
    match spec.split_once('-').unwrap() {
        ("", last) => (len.saturating_sub(last.parse().unwrap()), len),
        (from, "") => (from.parse().unwrap(), len),
        (from, to) => (
            from.parse().unwrap(),
            (to.parse::<usize>().unwrap() + 1).min(len),
        ),
    }
}

/// `Authorization` of RFC 7617 for a login.
pub fn basic(user: &str, password: &str) -> String {
    let request = reqwest::Client::new()
        .get("http://localhost/")
        .basic_auth(user, Some(password))
        .build()
        .unwrap();
    request.headers()["authorization"]
        .to_str()
        .unwrap()
        .to_owned()
}
