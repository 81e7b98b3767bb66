//! A server by hand before a real registry: a test decides, request by request, whether the registry answers or which
//! bytes come in its place.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Most bytes of a request that are read.
const LIMIT: u64 = 256 << 20;

/// A request, read to its end.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query; a whole URL where the server is asked as a proxy.
    pub target: String,
    /// Names are in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, wanted: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(name, value)| (name == wanted).then_some(value.as_str()))
    }

    /// Method and path, as `GET /v2/a/tags/list`.
    pub fn line(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }

    /// As it came, but for what concerns one connection only.
    fn text(&self, target: &str) -> Vec<u8> {
        let mut text = format!("{} {target} HTTP/1.1\r\n", self.method);
        let own = ["connection", "transfer-encoding", "content-length"];
        let hop = ["proxy-authorization", "proxy-connection"];
        for (name, value) in &self.headers {
            if !own.contains(&name.as_str()) && !hop.contains(&name.as_str()) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let length = self.body.len();
        text.push_str(&format!(
            "content-length: {length}\r\nconnection: close\r\n\r\n"
        ));
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum Answer {
    /// What the registry says.
    Honest,
    /// What it says to somebody who calls it by this host: addresses in its answer are there.
    As(String),
    /// These bytes, head included; then the connection ends.
    Bytes(Vec<u8>),
    /// A beginning, and a piece again and again until nobody takes it any more.
    Endless {
        begin: Vec<u8>,
        piece: Vec<u8>,
        pause: Duration,
    },
    /// The connection is reset.
    Reset,
    /// The bytes of the connection go to this address and back, after this answer.
    Tunnel(String),
}

impl Answer {
    /// With a body; `headers` are whole lines.
    pub fn new(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} Answer\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
        );
        Self::Bytes([head.as_bytes(), body].concat())
    }

    pub fn json(status: u16, headers: &str, body: &str) -> Self {
        let headers = format!("content-type: application/json\r\n{headers}");
        Self::new(status, &headers, body)
    }
}

type Decide = dyn Fn(&Request) -> Answer + Send + Sync;

/// The server; its threads end with it, or with their connections.
pub struct Impostor {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    decide: Mutex<Arc<Decide>>,
    seen: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

impl Impostor {
    /// Before the server at `upstream` (host and port).
    pub fn before(
        upstream: &str,
        decide: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            decide: Mutex::new(Arc::new(decide)),
            seen: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    let _ = shared.serve(&stream);
                });
            }
        });
        Self { address, shared }
    }

    /// Alone.
    pub fn alone(decide: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::before("", decide)
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Decides otherwise from now on, and forgets what was asked.
    pub fn decide(&self, decide: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *self.shared.decide.lock().unwrap() = Arc::new(decide);
        self.shared.seen.lock().unwrap().clear();
    }

    /// All that was asked, without bodies.
    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let Some(request) = read(&mut reader)? else {
            return Ok(());
        };
        let noted = Request {
            body: Vec::new(),
            ..request.clone()
        };
        self.seen.lock().unwrap().push(noted);
        let decide = Arc::clone(&self.decide.lock().unwrap());
        let mut writer = stream;
        match decide(&request) {
            Answer::Honest => self.forward(request, stream),
            Answer::As(host) => {
                let mut request = request;
                request.headers.retain(|(name, _)| name != "host");
                request.headers.push(("host".into(), host));
                self.forward(request, stream)
            }
            Answer::Bytes(bytes) => {
                let head = bytes.windows(4).position(|end| end == b"\r\n\r\n");
                let end = match (request.method.as_str(), head) {
                    ("HEAD", Some(head)) => head + 4,
                    _ => bytes.len(),
                };
                writer.write_all(&bytes[..end])
            }
            Answer::Endless {
                begin,
                piece,
                pause,
            } => {
                writer.write_all(&begin)?;
                while !self.stopped.load(Ordering::Relaxed) {
                    writer.write_all(&piece)?;
                    std::thread::sleep(pause);
                }
                Ok(())
            }
            Answer::Reset => Ok(rustix::net::sockopt::set_socket_linger(
                stream,
                Some(Duration::ZERO),
            )?),
            Answer::Tunnel(target) => tunnel(stream, &target),
        }
    }

    /// Asks the registry, or, as a proxy, the host that stands in the request.
    fn forward(&self, request: Request, mut client: &TcpStream) -> io::Result<()> {
        let (host, target) = match request.target.strip_prefix("http://") {
            Some(rest) => {
                let path = rest.find('/').unwrap_or(rest.len());
                (&rest[..path], &rest[path..])
            }
            None => (self.upstream.as_str(), request.target.as_str()),
        };
        let mut upstream = TcpStream::connect(host)?;
        upstream.set_read_timeout(Some(Duration::from_secs(60)))?;
        upstream.write_all(&request.text(target))?;
        io::copy(&mut upstream, &mut client).map(drop)
    }
}

fn tunnel(mut client: &TcpStream, target: &str) -> io::Result<()> {
    let upstream = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    io::copy(&mut &upstream, &mut client).map(drop)
}

/// `None` at the end of the connection.
fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let line = |reader: &mut dyn BufRead| -> io::Result<String> {
        let mut text = String::new();
        reader.take(64 << 10).read_line(&mut text)?;
        Ok(text.trim_end().to_owned())
    };
    let first = line(reader)?;
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        let text = line(reader)?;
        let Some((name, value)) = text.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = u64::from_str_radix(&line(reader)?, 16).map_err(io::Error::other)?;
            let mut chunk = reader.take(size.min(LIMIT));
            chunk.read_to_end(&mut request.body)?;
            line(reader)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = request.header("content-length") {
        let length: u64 = length.parse().map_err(io::Error::other)?;
        reader
            .take(length.min(LIMIT))
            .read_to_end(&mut request.body)?;
    }
    Ok(Some(request))
}
