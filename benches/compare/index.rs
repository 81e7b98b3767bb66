//! A Python package index on loopback: the wheels of one folder, as the simple repository API (PEP 503) lists them, with
//! their metadata beside them (PEP 658). Both sides of the comparison install from it, so neither waits for the internet.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use imagewright::digest::Digest;

use crate::process::Outcome;
use crate::workload::project_of;

#[derive(Debug)]
struct Wheel {
    path: PathBuf,
    digest: Digest,
    metadata: Vec<u8>,
}

type Shelf = BTreeMap<String, Wheel>;

/// The server; stops accepting when dropped.
#[derive(Debug)]
pub struct Index {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Index {
    /// Serves `wheels` on a free port.
    ///
    /// # Errors
    /// When a wheel cannot be read or no port is to be had.
    pub fn serve(wheels: &[PathBuf]) -> Outcome<Self> {
        let mut shelf = Shelf::new();
        for path in wheels {
            let wheel = open(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let name = path.file_name().unwrap_or_default();
            shelf.insert(name.to_string_lossy().into_owned(), wheel);
        }
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shelf) = (Arc::clone(&stop), Arc::new(shelf));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shelf) = (stream, Arc::clone(&shelf)) else {
                    continue;
                };
                // A client that goes away ends its own connection only.
                thread::spawn(move || drop(converse(stream, &shelf)));
            }
        });
        Ok(Self { address, stop })
    }

    /// The index's URL.
    pub fn url(&self) -> String {
        format!("http://{}/simple/", self.address)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn open(path: &Path) -> Outcome<Wheel> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let (digest, _) = File::open(path)
        .and_then(Digest::of_reader)
        .map_err(|error| text(&error))?;
    let file = File::open(path).map_err(|error| text(&error))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|error| text(&error))?;
    let name = archive
        .file_names()
        .flatten()
        .find(|name| name.split('/').count() == 2 && name.ends_with(".dist-info/METADATA"))
        .map(Cow::into_owned)
        .ok_or("has no METADATA")?;
    let mut metadata = Vec::new();
    archive
        .by_name(&name)
        .map_err(|error| text(&error))?
        .read_to_end(&mut metadata)
        .map_err(|error| text(&error))?;
    Ok(Wheel {
        path: path.to_owned(),
        digest,
        metadata,
    })
}

/// Answers the requests of one connection until the client closes it.
fn converse(stream: TcpStream, shelf: &Shelf) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
        }
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        answer(&mut writer, method == "HEAD", path, shelf)?;
    }
}

fn answer(writer: &mut TcpStream, head: bool, path: &str, shelf: &Shelf) -> io::Result<()> {
    let html = "text/html; charset=utf-8";
    if let Some(project) = path.strip_prefix("/simple/") {
        let page = page(project.trim_end_matches('/'), shelf);
        return match page {
            Some(page) => bytes(writer, head, "200 OK", html, page.as_bytes()),
            None => bytes(writer, head, "404 Not Found", html, b""),
        };
    }
    let name = path.strip_prefix("/files/").unwrap_or("");
    if let Some(wheel) = name
        .strip_suffix(".metadata")
        .and_then(|name| shelf.get(name))
    {
        return bytes(writer, head, "200 OK", "text/plain", &wheel.metadata);
    }
    let Some(wheel) = shelf.get(name) else {
        return bytes(writer, head, "404 Not Found", html, b"");
    };
    let mut file = File::open(&wheel.path)?;
    let size = file.metadata()?.len();
    header(writer, "200 OK", "application/octet-stream", size)?;
    if !head {
        io::copy(&mut file, writer)?;
    }
    Ok(())
}

fn page(project: &str, shelf: &Shelf) -> Option<String> {
    let mut page = String::from("<!DOCTYPE html><html><body>\n");
    let mut any = false;
    for (name, wheel) in shelf.iter().filter(|(name, _)| project_of(name) == project) {
        any = true;
        let metadata = Digest::of(&wheel.metadata);
        // Writing into a string cannot fail.
        let _ = writeln!(
            page,
            "<a href=\"/files/{name}#sha256={}\" data-dist-info-metadata=\"sha256={meta}\" data-core-metadata=\"sha256={meta}\">{name}</a>",
            wheel.digest.hex(),
            meta = metadata.hex(),
        );
    }
    page.push_str("</body></html>\n");
    any.then_some(page)
}

fn bytes(
    writer: &mut TcpStream,
    head: bool,
    status: &str,
    kind: &str,
    body: &[u8],
) -> io::Result<()> {
    header(writer, status, kind, body.len() as u64)?;
    if head { Ok(()) } else { writer.write_all(body) }
}

fn header(writer: &mut TcpStream, status: &str, kind: &str, size: u64) -> io::Result<()> {
    write!(
        writer,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\nAccept-Ranges: none\r\n\r\n"
    )
}
