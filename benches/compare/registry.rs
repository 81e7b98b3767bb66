//! A docker-registry of our own, and what its access log and its storage tell of a push or a pull.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use imagewright::digest::Digest;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::process::{Daemon, Outcome, need};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A registry, empty at the start; its storage is gone at the end.
#[derive(Debug)]
pub struct Registry {
    daemon: Option<Daemon>,
    address: SocketAddr,
    folder: PathBuf,
}

/// The layers of an image with their sizes in bytes.
pub type Layers = BTreeMap<Digest, u64>;

/// What a registry answered during some work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Requests that were answered.
    pub requests: usize,
    /// Bytes of layers that it received.
    pub layers_in: u64,
    /// Bytes of other blobs that it received.
    pub documents_in: u64,
    /// Bytes of layers that it sent.
    pub layers_out: u64,
    /// Blobs that it mounted.
    pub mounts: usize,
}

/// One line of the access log.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    query: String,
    status: u16,
    bytes: u64,
}

impl Registry {
    /// Starts it with everything it keeps in a new folder below `run`.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(run: &Path) -> Outcome<Self> {
        let program = need("docker-registry")?;
        // Free now; whoever takes it in between makes the start fail, and the step is reported so.
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| error.to_string())?;
        let folder = run.join(format!("registry-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            folder.join("data").display()
        );
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&config, text))
            .map_err(|error| format!("{}: {error}", config.display()))?;
        let args = ["serve".to_owned(), config.display().to_string()];
        let mut daemon = Daemon::start("docker-registry", &program, &args, folder.join("log"))?;
        daemon.await_ready(Duration::from_secs(30), || {
            TcpStream::connect(address).is_ok()
        })?;
        Ok(Self {
            daemon: Some(daemon),
            address,
            folder,
        })
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The processor time that it has used.
    pub fn cpu(&self) -> Duration {
        self.daemon
            .as_ref()
            .and_then(Daemon::cpu)
            .unwrap_or_default()
    }

    /// Does `work` and tells what was asked meanwhile.
    ///
    /// # Errors
    /// That of the work; when the log cannot be read.
    pub fn during<T>(&self, work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Vec<Request>)> {
        let before = self.requests()?.len();
        let result = work()?;
        Ok((result, self.requests()?.split_off(before)))
    }

    /// Every request so far, but our own.
    fn requests(&self) -> Outcome<Vec<Request>> {
        let log = self.folder.join("log");
        // A line is written after its answer: what is in front of one of our own is complete.
        let marker = format!("mark={}", NEXT.fetch_add(1, Ordering::Relaxed));
        let ask = format!("GET /v2/?{marker}. HTTP/1.0\r\n\r\n");
        let mut answer = Vec::new();
        TcpStream::connect(self.address)
            .and_then(|mut stream| {
                stream.write_all(ask.as_bytes())?;
                stream.read_to_end(&mut answer)
            })
            .map_err(|error| format!("docker-registry: {error}"))?;
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit {
            let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
            if text.contains(&format!("{marker}. ")) {
                let all = text.lines().filter_map(Request::parse);
                return Ok(all.filter(|one| !one.query.starts_with("mark=")).collect());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err("docker-registry writes no access log".into())
    }

    /// Counts requests; `layers` are those of the images in question.
    pub fn traffic(&self, requests: &[Request], layers: &Layers) -> Traffic {
        let mut traffic = Traffic {
            requests: requests.len(),
            ..Traffic::default()
        };
        for request in requests {
            let upload = request.path.contains("/blobs/uploads/");
            match (request.method.as_str(), request.status) {
                ("PUT", 201) if upload => {
                    let Some(digest) = request.digest() else {
                        continue;
                    };
                    match layers.get(&digest) {
                        Some(size) => traffic.layers_in += size,
                        None => traffic.documents_in += self.blob(&digest).map_or(0, |blob| blob.1),
                    }
                }
                ("POST", 201) if upload => traffic.mounts += 1,
                ("GET", _) => {
                    let blob = request
                        .path
                        .rsplit_once("/blobs/")
                        .and_then(|(_, text)| text.parse().ok());
                    if blob.is_some_and(|digest: Digest| layers.contains_key(&digest)) {
                        traffic.layers_out += request.bytes;
                    }
                }
                _ => {}
            }
        }
        traffic
    }

    /// The layers of an image of its storage.
    ///
    /// # Errors
    /// When it has no such image.
    pub fn layers(&self, repository: &str, tag: &str) -> Outcome<Layers> {
        let absent = || format!("docker-registry has no {repository}:{tag}");
        let link = self.folder.join(format!(
            "data/docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link"
        ));
        let digest = fs::read_to_string(link).map_err(|_| absent())?;
        let digest = digest.trim().parse().map_err(|_| absent())?;
        let (path, _) = self.blob(&digest).ok_or_else(absent)?;
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let manifest: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let layers = manifest["layers"].as_array().ok_or_else(absent)?;
        layers
            .iter()
            .map(|layer| {
                let digest = layer["digest"].as_str().and_then(|text| text.parse().ok());
                digest.zip(layer["size"].as_u64()).ok_or_else(absent)
            })
            .collect()
    }

    /// Where a blob is, and how long.
    fn blob(&self, digest: &Digest) -> Option<(PathBuf, u64)> {
        let hex = digest.hex();
        let below = format!(
            "data/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        );
        let path = self.folder.join(below);
        let length = fs::metadata(&path).ok()?.len();
        Some((path, length))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.daemon.take());
        // What stays goes with the run's folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Request {
    /// A line of the combined log format.
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split('"').skip(1);
        let mut words = parts.next()?.split(' ');
        let mut numbers = parts.next()?.split_whitespace();
        let method = words.next()?.to_owned();
        let (path, query) = match words.next()? {
            target if !target.starts_with("/v2/") => return None,
            target => target.split_once('?').unwrap_or((target, "")),
        };
        Some(Self {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            status: numbers.next()?.parse().ok()?,
            bytes: numbers.next()?.parse().unwrap_or(0),
        })
    }

    /// The digest that ends an upload.
    fn digest(&self) -> Option<Digest> {
        let pairs = self.query.split('&');
        let text = pairs.filter_map(|pair| pair.strip_prefix("digest=")).next();
        percent_decode_str(text?).decode_utf8().ok()?.parse().ok()
    }
}
