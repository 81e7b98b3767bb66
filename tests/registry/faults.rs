//! A proxy between a client and a registry that does what networks and servers do on bad days.
//!
//! What happens to a request follows from the seed, the request and how often it came before, not from the order in
//! which connections are served: a seed that found something finds it again.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lab::{PASSWORD, USER};
use crate::wares::{self, Random, sha256};

/// Most bytes that are passed on at once.
const PIECE: usize = 16 << 10;

/// What can go wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset while the request is on its way; the registry sees a part of it.
    ResetRequest,
    /// The registry does as it is told, but the connection is reset during its answer.
    ResetAnswer,
    /// As [`Fault::ResetAnswer`], but the connection is closed in good order.
    Truncated,
    /// 429 with `Retry-After`.
    TooMany,
    /// 500 instead of the registry.
    Broken,
    /// The registry does as it is told, but 500 is what is heard of it.
    BrokenAfter,
    /// 503 instead of the registry.
    Away,
    /// One byte of the answer's body, or of the digest in its header, is another.
    WrongAnswer,
    /// One byte of the request's body is another.
    WrongRequest,
    /// The upload session is unknown.
    Stale,
    /// Everything comes slowly.
    Drip,
}

impl Fault {
    pub const ALL: [Self; 11] = [
        Self::ResetRequest,
        Self::ResetAnswer,
        Self::Truncated,
        Self::TooMany,
        Self::Broken,
        Self::BrokenAfter,
        Self::Away,
        Self::WrongAnswer,
        Self::WrongRequest,
        Self::Stale,
        Self::Drip,
    ];

    fn concerns(self, request: &Head) -> bool {
        match self {
            Self::Stale => request.is_session(),
            Self::WrongRequest => request.length.unwrap_or(0) > 0,
            _ => true,
        }
    }
}

/// How bad it is.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    pub seed: u64,
    /// Of a thousand requests, how many go wrong.
    pub permille: u64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Only requests that begin so, for example `PUT /v2/team/ml/manifests/`; all if empty.
    pub only: String,
    /// After this many requests nothing is answered any more.
    pub outage: Option<u32>,
    /// Bearer tokens are demanded; each is good for so many requests.
    pub token_uses: Option<u32>,
    /// For every piece of 16 KiB of a request or answer, and for every answer.
    pub slowness: Duration,
}

/// The proxy; its threads end with it, or with their connections.
pub struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    address: String,
    weather: Mutex<Weather>,
    stopped: AtomicBool,
    served: AtomicU32,
    seen: Mutex<BTreeMap<String, u32>>,
    told: Mutex<Vec<String>>,
    tokens: Mutex<BTreeMap<String, u32>>,
}

impl Proxy {
    /// Before the server at `upstream` (host and port).
    pub fn start(upstream: &str, weather: Weather) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            address: address.clone(),
            weather: Mutex::new(weather),
            stopped: AtomicBool::new(false),
            served: AtomicU32::new(0),
            seen: Mutex::default(),
            told: Mutex::default(),
            tokens: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    let _ = shared.serve(stream);
                });
            }
        });
        Self { address, shared }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Another weather from now on; what was counted so far is forgotten.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
        self.shared.seen.lock().unwrap().clear();
        self.shared.told.lock().unwrap().clear();
        self.shared.tokens.lock().unwrap().clear();
        self.shared.served.store(0, Ordering::Relaxed);
    }

    /// What went wrong so far.
    pub fn told(&self) -> Vec<String> {
        self.shared.told.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
    }
}

/// The first lines of a request or an answer.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
    length: Option<u64>,
    chunked: bool,
}

impl Head {
    /// `None` at the end of the connection.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.take(64 << 10).read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let mut lines = lines.into_iter();
        let Some(first) = lines.next() else {
            return Ok(None);
        };
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect();
        let find = |wanted: &str| {
            let mut headers = headers.iter();
            headers.find_map(|(name, value)| (name == wanted).then_some(value.as_str()))
        };
        Ok(Some(Self {
            length: find("content-length").and_then(|length| length.parse().ok()),
            chunked: find("transfer-encoding") == Some("chunked"),
            first,
            headers,
        }))
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(name, value)| (name == wanted).then_some(value.as_str()))
    }

    fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    fn status(&self) -> u16 {
        self.target().parse().unwrap_or(0)
    }

    /// Whether it goes on with an upload.
    fn is_session(&self) -> bool {
        let path = self.target().split('?').next().unwrap_or_default();
        path.contains("/blobs/uploads/") && !path.ends_with("/uploads/")
    }

    /// What stays the same when the same is tried again.
    fn name(&self) -> String {
        let method = self.first.split(' ').next().unwrap_or_default();
        if !self.is_session() {
            return format!("{method} {}", self.target());
        }
        let (path, query) = self.target().split_once('?').unwrap_or_default();
        let path = path.rsplit_once('/').unwrap_or_default().0;
        let digest = query.split('&').find(|part| part.starts_with("digest="));
        let length = self.length.unwrap_or(0);
        format!("{method} {path}/… {} {length}", digest.unwrap_or_default())
    }

    fn text(&self, without: &[&str], more: &str) -> String {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            if !without.contains(&name.as_str()) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        format!("{text}{more}\r\n")
    }
}

/// How a body is passed on.
#[derive(Clone, Copy, Default)]
struct Manner {
    /// Stop after so many bytes.
    cut: Option<u64>,
    /// Change the byte here.
    flip: Option<u64>,
    /// Before every piece.
    pause: Duration,
}

/// Whether a connection can be used for another request.
enum Next {
    Request,
    Close,
    Reset,
}

impl Shared {
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(Duration::from_secs(120)))?;
        let mut reader = BufReader::new(client.try_clone()?);
        while let Some(request) = Head::read(&mut reader)? {
            match self.exchange(&request, &mut reader, &client)? {
                Next::Request => {}
                Next::Close => break,
                Next::Reset => {
                    let now = Some(Duration::ZERO);
                    let _ = rustix::net::sockopt::set_socket_linger(&client, now);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Answers one request, well or badly.
    fn exchange(
        &self,
        request: &Head,
        body: &mut BufReader<TcpStream>,
        client: &TcpStream,
    ) -> io::Result<Next> {
        let weather = self.weather.lock().unwrap().clone();
        let served = self.served.fetch_add(1, Ordering::Relaxed);
        if weather.outage.is_some_and(|last| served >= last) {
            self.tell("outage", request);
            return Ok(Next::Reset);
        }
        let (fault, mut random) = self.choose(&weather, request);
        if let Some(fault) = fault {
            self.tell(&format!("{fault:?}"), request);
        }
        let instead = match fault {
            Some(Fault::TooMany) => {
                let after = random.next() % 8 / 7;
                Some(refusal(
                    429,
                    "TOOMANYREQUESTS",
                    &format!("Retry-After: {after}\r\n"),
                ))
            }
            Some(Fault::Broken) => Some(refusal(500, "UNKNOWN", "")),
            Some(Fault::Away) => Some(refusal(503, "UNAVAILABLE", "")),
            Some(Fault::Stale) => Some(refusal(404, "BLOB_UPLOAD_UNKNOWN", "")),
            _ => None,
        };
        let instead = match instead {
            None => self.without_token(&weather, request),
            some => some,
        };
        if let Some(answer) = instead {
            copy(request, body, &mut io::sink(), Manner::default())?;
            return finish(client, request, &answer);
        }
        self.forward(request, body, client, fault, &mut random, weather.slowness)
    }

    fn tell(&self, fault: &str, request: &Head) {
        let line = format!("{fault}: {}", request.name());
        self.told.lock().unwrap().push(line);
    }

    fn choose(&self, weather: &Weather, request: &Head) -> (Option<Fault>, Random) {
        let name = request.name();
        let count = {
            let mut seen = self.seen.lock().unwrap();
            let count = seen.entry(name.clone()).or_insert(0);
            *count += 1;
            *count
        };
        // The registry's and the proxy's ports differ from run to run and must not decide.
        let mix = sha256(format!("{} {name} {count}", weather.seed).as_bytes());
        let mut random = Random(u64::from_str_radix(&mix[..16], 16).unwrap() | 1);
        let possible: Vec<Fault> = weather
            .faults
            .iter()
            .copied()
            .filter(|fault| fault.concerns(request))
            .collect();
        let hit = random.next() % 1000 < weather.permille
            && request.first.starts_with(&weather.only)
            && !possible.is_empty();
        let fault = hit.then(|| possible[(random.next() % possible.len() as u64) as usize]);
        (fault, random)
    }

    /// Passes the request on to the registry and its answer back.
    fn forward(
        &self,
        request: &Head,
        body: &mut BufReader<TcpStream>,
        mut client: &TcpStream,
        fault: Option<Fault>,
        random: &mut Random,
        slowness: Duration,
    ) -> io::Result<Next> {
        let upstream = TcpStream::connect(&self.upstream)?;
        upstream.set_nodelay(true)?;
        upstream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let tokens = self.weather.lock().unwrap().token_uses.is_some();
        let without: &[&str] = match tokens {
            true => &["connection", "authorization"],
            false => &["connection"],
        };
        let head = request.text(without, "connection: close\r\n");
        (&upstream).write_all(head.as_bytes())?;
        let pause = match fault {
            Some(Fault::Drip) => drip(request.length.unwrap_or(100_000)),
            _ => slowness,
        };
        let somewhere = |head: &Head, random: &mut Random| {
            random.next() % head.length.unwrap_or(100_000).max(1)
        };
        let mut manner = Manner {
            pause,
            ..Manner::default()
        };
        match fault {
            Some(Fault::ResetRequest) => manner.cut = Some(somewhere(request, random)),
            Some(Fault::WrongRequest) => manner.flip = Some(somewhere(request, random)),
            _ => {}
        }
        copy(request, body, &mut &upstream, manner)?;
        if fault == Some(Fault::ResetRequest) {
            return Ok(Next::Reset);
        }
        let mut upstream = BufReader::new(upstream);
        let Some(mut answer) = Head::read(&mut upstream)? else {
            return Ok(Next::Close);
        };
        std::thread::sleep(slowness);
        if fault == Some(Fault::BrokenAfter) {
            return finish(client, request, &refusal(500, "UNKNOWN", ""));
        }
        let bodyless = request.first.starts_with("HEAD ") || answer.status() == 204;
        let pause = match fault {
            Some(Fault::Drip) => drip(answer.length.unwrap_or(100_000)),
            _ => slowness,
        };
        let mut manner = Manner {
            pause,
            ..Manner::default()
        };
        match fault {
            Some(Fault::ResetAnswer | Fault::Truncated) => {
                // Every third time not even the head arrives.
                if bodyless || random.next().is_multiple_of(3) {
                    return Ok(ending(fault));
                }
                manner.cut = Some(somewhere(&answer, random));
            }
            Some(Fault::WrongAnswer) => {
                if bodyless || answer.length.unwrap_or(0) == 0 {
                    lie(&mut answer, random);
                } else {
                    manner.flip = Some(somewhere(&answer, random));
                }
            }
            _ => {}
        }
        client.write_all(answer.text(&["connection"], "").as_bytes())?;
        if bodyless {
            return Ok(Next::Request);
        }
        copy(&answer, &mut upstream, &mut client, manner)?;
        Ok(match fault {
            Some(Fault::ResetAnswer | Fault::Truncated) => ending(fault),
            _ => Next::Request,
        })
    }

    /// The answer to a request that has no good token; the token server is part of the proxy.
    fn without_token(&self, weather: &Weather, request: &Head) -> Option<String> {
        let uses = weather.token_uses?;
        if request.target().starts_with("/token?") {
            let login = request.header("authorization") == Some(&wares::basic(USER, PASSWORD));
            if !login {
                return Some(refusal(401, "UNAUTHORIZED", ""));
            }
            let mut tokens = self.tokens.lock().unwrap();
            let token = format!("token-{}", tokens.len());
            tokens.insert(token.clone(), uses);
            let body = format!("{{\"token\":\"{token}\",\"expires_in\":60}}");
            return Some(answer(200, &body, ""));
        }
        let mut tokens = self.tokens.lock().unwrap();
        let token = request.header("authorization");
        let token = token.and_then(|token| token.strip_prefix("Bearer "));
        if let Some(left) = token.and_then(|token| tokens.get_mut(token))
            && *left > 0
        {
            *left -= 1;
            return None;
        }
        Some(self.challenge(request))
    }

    fn challenge(&self, request: &Head) -> String {
        let path = request.target().trim_start_matches("/v2/");
        let ends = ["/manifests/", "/blobs/", "/tags/", "/referrers/"];
        let end = ends.iter().filter_map(|end| path.find(end)).min();
        let repository = &path[..end.unwrap_or(0)];
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"lab\",scope=\"repository:{repository}:pull,push\"\r\n",
            self.address
        );
        refusal(401, "UNAUTHORIZED", &challenge)
    }
}

fn ending(fault: Option<Fault>) -> Next {
    match fault {
        Some(Fault::ResetAnswer) => Next::Reset,
        _ => Next::Close,
    }
}

/// The pause before each of a body's pieces that makes a quarter of a second of it.
fn drip(length: u64) -> Duration {
    Duration::from_millis(250) / u32::try_from(length / PIECE as u64 + 10).unwrap_or(u32::MAX)
}

/// Makes the digest in the answer's head another.
fn lie(answer: &mut Head, random: &mut Random) {
    for (name, value) in &mut answer.headers {
        if name == "docker-content-digest" {
            *value = format!("sha256:{}", sha256(&random.next().to_le_bytes()));
        }
    }
}

/// Sends an answer of our own.
fn finish(mut client: &TcpStream, request: &Head, answer: &str) -> io::Result<Next> {
    let end = match request.first.starts_with("HEAD ") {
        true => answer.find("\r\n\r\n").map_or(0, |at| at + 4),
        false => answer.len(),
    };
    client.write_all(&answer.as_bytes()[..end])?;
    Ok(Next::Request)
}

fn refusal(status: u16, code: &str, more: &str) -> String {
    let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"bad weather\"}}]}}");
    answer(status, &body, more)
}

fn answer(status: u16, body: &str, more: &str) -> String {
    format!(
        "HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

/// Passes a body on; says how many bytes of it. What the receiver does not take is read nevertheless.
fn copy(
    head: &Head,
    reader: &mut impl BufRead,
    writer: &mut impl Write,
    manner: Manner,
) -> io::Result<u64> {
    if head.chunked {
        return copy_chunked(reader, writer, manner);
    }
    let mut passed = 0;
    let pieces = head.length.unwrap_or(0);
    copy_length(reader, writer, pieces, manner, &mut passed)?;
    Ok(passed)
}

fn copy_chunked(
    reader: &mut impl BufRead,
    writer: &mut impl Write,
    manner: Manner,
) -> io::Result<u64> {
    let mut passed = 0;
    loop {
        let mut line = String::new();
        reader.take(1 << 10).read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16)
            .map_err(|_| io::Error::other("a chunk without size"))?;
        let _ = writer.write_all(line.as_bytes());
        let until = passed + size;
        copy_length(reader, writer, until, manner, &mut passed)?;
        if passed < until {
            return Ok(passed);
        }
        let mut end = String::new();
        reader.take(2).read_line(&mut end)?;
        let _ = writer.write_all(end.as_bytes());
        if size == 0 {
            return Ok(passed);
        }
    }
}

/// Passes bytes on until `until` have passed.
fn copy_length(
    reader: &mut impl BufRead,
    writer: &mut impl Write,
    until: u64,
    manner: Manner,
    passed: &mut u64,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    while *passed < until {
        let end = manner.cut.unwrap_or(until).min(until);
        if *passed >= end {
            break;
        }
        let size = buffer.len().min((end - *passed) as usize);
        let read = reader.read(&mut buffer[..size])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = manner.flip.and_then(|at| at.checked_sub(*passed))
            && at < read as u64
        {
            buffer[at as usize] ^= 1;
        }
        std::thread::sleep(manner.pause);
        let _ = writer.write_all(&buffer[..read]);
        *passed += read as u64;
    }
    Ok(())
}
