//! A proxy between a client and a registry that does what the weather says.

use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::faults::{Fault, Past, Told, Trouble, Weather};
use crate::tokens::Tokens;
use crate::wares::{Random, sha256};
use crate::wire::{Head, Manner, PIECE, copy, refusal};

/// The proxy; its threads end with it, or with their connections.
pub struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `Content-Range`.
    pub range: Option<String>,
    pub length: u64,
    /// Of the answer, once its head is on its way.
    pub status: Option<u16>,
}

impl Asked {
    /// Whether a blob's content is on its way.
    pub fn is_sending(&self) -> bool {
        self.length > 0 && self.target.contains("/blobs/uploads/") && self.status.is_none()
    }

    pub fn puts_manifest(&self) -> bool {
        self.method == "PUT" && self.target.contains("/manifests/")
    }
}

struct Shared {
    upstream: String,
    weather: Mutex<Weather>,
    stopped: AtomicBool,
    served: AtomicU32,
    pieces: AtomicU64,
    past: Mutex<Past>,
    told: Mutex<Vec<Told>>,
    asked: Mutex<Vec<Asked>>,
    tokens: Mutex<Tokens>,
}

impl Proxy {
    /// Before the server at `upstream` (host and port).
    pub fn start(upstream: &str, weather: Weather) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            weather: Mutex::new(weather),
            stopped: AtomicBool::new(false),
            served: AtomicU32::new(0),
            pieces: AtomicU64::new(0),
            past: Mutex::default(),
            told: Mutex::default(),
            asked: Mutex::default(),
            tokens: Mutex::new(Tokens::of(&address)),
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

    /// Another weather from now on; what came so far is forgotten.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
        *self.shared.past.lock().unwrap() = Past::default();
        self.shared.told.lock().unwrap().clear();
        self.shared.asked.lock().unwrap().clear();
        *self.shared.tokens.lock().unwrap() = Tokens::of(&self.address);
        self.shared.served.store(0, Ordering::Relaxed);
        self.shared.pieces.store(0, Ordering::Relaxed);
    }

    /// What went wrong so far.
    pub fn told(&self) -> Vec<Told> {
        self.shared.told.lock().unwrap().clone()
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How many pieces of bodies, and answers, have passed.
    pub fn pieces(&self) -> u64 {
        self.shared.pieces.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
    }
}

/// Whether a connection can be used for another request.
enum Next {
    Request,
    Close,
    Reset,
}

/// A request that is being answered.
struct Exchange<'a> {
    request: &'a Head,
    client: &'a TcpStream,
    /// Its place in what was asked.
    number: usize,
    trouble: Trouble,
    random: Random,
    slowness: Duration,
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
            self.tell(Fault::Outage, request, None);
            return Ok(Next::Reset);
        }
        let (trouble, mut random) = self.past.lock().unwrap().choose(&weather, request);
        let mut instead = None;
        if let Some(fault) = trouble.fault {
            instead = fault.instead(&mut random);
            if instead.is_some() {
                self.tell(fault, request, None);
            }
        }
        if let (None, Some(uses)) = (&instead, weather.token_uses) {
            let (answer, ended) = self.tokens.lock().unwrap().judge(request, uses);
            if ended {
                self.tell(Fault::Expired, request, None);
            }
            instead = answer;
        }
        let exchange = Exchange {
            request,
            client,
            number: self.ask(request),
            trouble,
            random,
            slowness: weather.slowness,
        };
        match instead {
            Some(answer) => {
                copy(request, body, &mut io::sink(), Manner::default())?;
                self.finish(&exchange, &answer)
            }
            None => self.forward(exchange, body),
        }
    }

    fn tell(&self, fault: Fault, request: &Head, at: Option<u64>) {
        self.told.lock().unwrap().push(Told {
            fault,
            request: request.name(),
            at,
        });
    }

    fn ask(&self, request: &Head) -> usize {
        let mut asked = self.asked.lock().unwrap();
        asked.push(Asked {
            method: request.method().into(),
            target: request.target().into(),
            range: request.header("content-range").map(Into::into),
            length: request.length.unwrap_or(0),
            status: None,
        });
        asked.len() - 1
    }

    fn answered(&self, number: usize, status: u16) {
        if let Some(asked) = self.asked.lock().unwrap().get_mut(number) {
            asked.status = Some(status);
        }
    }

    /// Passes the request on to the registry and its answer back.
    fn forward(
        &self,
        mut exchange: Exchange<'_>,
        body: &mut BufReader<TcpStream>,
    ) -> io::Result<Next> {
        let upstream = TcpStream::connect(&self.upstream)?;
        upstream.set_nodelay(true)?;
        upstream.set_read_timeout(Some(Duration::from_secs(60)))?;
        if !self.request(&mut exchange, body, &upstream)? {
            return Ok(Next::Reset);
        }
        let request = exchange.request;
        let mut upstream = BufReader::new(upstream);
        let Some(answer) = Head::read(&mut upstream)? else {
            return Ok(Next::Close);
        };
        std::thread::sleep(exchange.slowness);
        if exchange.trouble.fault == Some(Fault::BrokenAfter) {
            self.tell(Fault::BrokenAfter, request, None);
            return self.finish(&exchange, &refusal(500, "UNKNOWN", ""));
        }
        self.answer(&mut exchange, answer, &mut upstream)
    }

    /// Passes the request on; false if it broke off.
    fn request(
        &self,
        exchange: &mut Exchange<'_>,
        body: &mut BufReader<TcpStream>,
        mut upstream: &TcpStream,
    ) -> io::Result<bool> {
        let request = exchange.request;
        let tokens = self.weather.lock().unwrap().token_uses.is_some();
        let without: &[&str] = match tokens {
            true => &["connection", "authorization"],
            false => &["connection"],
        };
        let head = request.text(without, "connection: close\r\n");
        upstream.write_all(head.as_bytes())?;
        let fault = exchange.trouble.fault;
        let mut manner = exchange.manner(request.length, &self.pieces);
        match fault {
            Some(Fault::ResetRequest) => manner.cut = Some(exchange.somewhere(request)),
            Some(Fault::WrongRequest) => manner.flip = Some(exchange.somewhere(request)),
            _ => {}
        }
        let (passed, done) = copy(request, body, &mut upstream, manner)?;
        let at = (passed > 0).then_some(passed);
        match fault {
            Some(Fault::ResetRequest) => {
                self.tell(Fault::ResetRequest, request, at);
                return Ok(false);
            }
            Some(Fault::WrongRequest) if done => self.tell(Fault::WrongRequest, request, at),
            _ => {}
        }
        Ok(true)
    }

    /// Passes the answer back.
    fn answer(
        &self,
        exchange: &mut Exchange<'_>,
        mut answer: Head,
        upstream: &mut BufReader<TcpStream>,
    ) -> io::Result<Next> {
        let (request, mut client) = (exchange.request, exchange.client);
        let fault = exchange.trouble.fault;
        let bodyless = request.method() == "HEAD" || answer.status() == 204;
        let mut manner = exchange.manner(answer.length, &self.pieces);
        match fault {
            Some(fault @ (Fault::ResetAnswer | Fault::Truncated)) => {
                // Every third time not even the head arrives.
                if bodyless || exchange.random.next().is_multiple_of(3) {
                    self.tell(fault, request, None);
                    return Ok(ending(fault));
                }
                manner.cut = Some(exchange.somewhere(&answer));
            }
            Some(Fault::WrongAnswer)
                if (bodyless || answer.length.unwrap_or(0) == 0)
                    && lie(&mut answer, &mut exchange.random) =>
            {
                self.tell(Fault::WrongAnswer, request, None);
            }
            Some(Fault::WrongAnswer) => manner.flip = Some(exchange.somewhere(&answer)),
            Some(Fault::Drip) => self.tell(Fault::Drip, request, None),
            _ => {}
        }
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.answered(exchange.number, answer.status());
        let head = answer.text(&["connection"], "");
        for part in head.as_bytes().chunks(match fault {
            Some(Fault::Drip) => 40,
            _ => head.len(),
        }) {
            std::thread::sleep(manner.pause);
            client.write_all(part)?;
        }
        if bodyless {
            return Ok(Next::Request);
        }
        let (passed, done) = copy(&answer, upstream, &mut client, manner)?;
        let at = (passed > 0).then_some(passed);
        Ok(match fault {
            Some(fault @ (Fault::ResetAnswer | Fault::Truncated)) if done => {
                self.tell(fault, request, at);
                ending(fault)
            }
            Some(Fault::WrongAnswer) if manner.flip.is_some() && done => {
                self.tell(Fault::WrongAnswer, request, at);
                Next::Request
            }
            _ => Next::Request,
        })
    }

    /// Sends an answer of our own.
    fn finish(&self, exchange: &Exchange<'_>, answer: &str) -> io::Result<Next> {
        let end = match exchange.request.method() {
            "HEAD" => answer.find("\r\n\r\n").map_or(0, |at| at + 4),
            _ => answer.len(),
        };
        let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
        self.answered(exchange.number, status.unwrap_or(0));
        let mut client = exchange.client;
        client.write_all(&answer.as_bytes()[..end])?;
        Ok(Next::Request)
    }
}

impl Exchange<'_> {
    /// A place in a body.
    fn somewhere(&mut self, head: &Head) -> u64 {
        let length = head.length.unwrap_or(1_000).max(1);
        let anywhere = self.random.next() % length;
        self.trouble.at.unwrap_or(anywhere)
    }

    fn manner<'p>(&self, length: Option<u64>, pieces: &'p AtomicU64) -> Manner<'p> {
        Manner {
            pause: match self.trouble.fault {
                Some(Fault::Drip) => drip(length.unwrap_or(100_000)),
                _ => self.slowness,
            },
            pieces: Some(pieces),
            ..Manner::default()
        }
    }
}

fn ending(fault: Fault) -> Next {
    match fault {
        Fault::ResetAnswer => Next::Reset,
        _ => Next::Close,
    }
}

/// The pause before each of a body's pieces that makes a quarter of a second of it.
fn drip(length: u64) -> Duration {
    Duration::from_millis(250) / u32::try_from(length / PIECE as u64 + 10).unwrap_or(u32::MAX)
}

/// Makes the digest in the answer's head another, if there is one.
fn lie(answer: &mut Head, random: &mut Random) -> bool {
    let mut headers = answer.headers.iter_mut();
    let digest = headers.find(|(name, _)| name == "docker-content-digest");
    let lie = format!("sha256:{}", sha256(&random.next().to_le_bytes()));
    digest.map(|(_, value)| *value = lie).is_some()
}
