//! A package index on loopback that can be as wrong as a test needs it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::wares::sha256;

/// An answer.
#[derive(Clone)]
pub struct Page {
    pub status: u16,
    pub kind: &'static str,
    pub body: Vec<u8>,
    /// Bytes of the body that are sent, whatever is announced.
    pub cut: Option<usize>,
}

impl Page {
    pub fn new(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            kind,
            body: body.into(),
            cut: None,
        }
    }

    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::new("text/plain", "trouble")
        }
    }
}

#[derive(Default)]
struct Shared {
    pages: BTreeMap<String, Page>,
    /// Only with this `Authorization`.
    authorization: Option<String>,
    refused: usize,
    /// Requests that came with a login.
    logins: usize,
    served: usize,
}

/// The server; its threads end with the test binary.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let pages = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let pages = Arc::clone(&pages);
                std::thread::spawn(move || {
                    let _ = answer(stream, &pages);
                });
            }
        });
        Self { address, shared }
    }

    /// With the pages and files of these wheels.
    pub fn with(wheels: &[(String, Vec<u8>)]) -> Self {
        let server = Self::start();
        for wheel in wheels {
            server.add(wheel);
        }
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The simple index.
    pub fn index(&self) -> String {
        format!("http://{}/simple", self.address)
    }

    pub fn put(&self, path: &str, page: Page) {
        self.shared.lock().unwrap().pages.insert(path.into(), page);
    }

    pub fn demand(&self, authorization: String) {
        self.shared.lock().unwrap().authorization = Some(authorization);
    }

    /// Requests (without, with) what was demanded.
    pub fn counts(&self) -> (usize, usize) {
        let shared = self.shared.lock().unwrap();
        (shared.refused, shared.served)
    }

    /// Requests that came with a login.
    pub fn logins(&self) -> usize {
        self.shared.lock().unwrap().logins
    }

    /// A wheel's file, and the page of its project.
    pub fn add(&self, (file, bytes): &(String, Vec<u8>)) {
        let name = file.split('-').next().unwrap();
        self.page(name, file, &sha256(bytes));
        self.put(
            &format!("/files/{file}"),
            Page::new("application/octet-stream", bytes.clone()),
        );
    }

    /// The page of a project with one file (PEP 503).
    pub fn page(&self, name: &str, file: &str, hash: &str) {
        let html = format!(
            "<!DOCTYPE html><html><body><a href=\"/files/{file}#sha256={hash}\">{file}</a></body></html>"
        );
        self.put(&format!("/simple/{name}/"), Page::new("text/html", html));
    }
}

/// An address that nobody listens at.
pub fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn answer(mut stream: TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut authorization = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
    }
    let path = first.split(' ').nth(1).unwrap_or("/");
    let page = {
        let mut shared = shared.lock().unwrap();
        shared.logins += usize::from(authorization.is_some());
        if shared.authorization.is_some() && shared.authorization != authorization {
            shared.refused += 1;
            Page::status(401)
        } else {
            shared.served += 1;
            shared
                .pages
                .get(path)
                .cloned()
                .unwrap_or_else(|| Page::status(404))
        }
    };
    let head = format!(
        "HTTP/1.1 {} Answer\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        page.status,
        page.kind,
        page.body.len()
    );
    stream.write_all(head.as_bytes())?;
    if !first.starts_with("HEAD") {
        let end = page.cut.unwrap_or(page.body.len()).min(page.body.len());
        stream.write_all(&page.body[..end])?;
    }
    Ok(())
}
