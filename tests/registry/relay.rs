//! A proxy as `HTTP_PROXY` and `HTTPS_PROXY` name it: every host that is asked for is one server on loopback.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::wire::Head;

/// The proxy; its threads end with the test binary.
pub struct Relay {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    /// To the server at `upstream` (host and port).
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, upstream) = (Arc::clone(&asked), upstream.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, upstream) = (Arc::clone(&log), upstream.clone());
                std::thread::spawn(move || {
                    let _ = pass(stream, &upstream, &log);
                });
            }
        });
        Self { address, asked }
    }

    /// The variables that send everything through it, but for loopback.
    pub fn variables(&self) -> [(String, String); 3] {
        let url = format!("http://{}", self.address);
        [
            ("http_proxy", url.as_str()),
            ("https_proxy", url.as_str()),
            ("no_proxy", "127.0.0.1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    /// Method and target of the first request of every connection.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn pass(client: TcpStream, upstream: &str, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let Some(head) = Head::read(&mut reader)? else {
        return Ok(());
    };
    let line = format!("{} {}", head.method(), head.target());
    log.lock().unwrap().push(line);
    let mut server = TcpStream::connect(upstream)?;
    match head.method() {
        "CONNECT" => (&client).write_all(b"HTTP/1.1 200 Established\r\n\r\n")?,
        _ => server.write_all(head.text(&[], "").as_bytes())?,
    }
    let (mut answers, mut back) = (server.try_clone()?, client);
    let answering = std::thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut reader, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    let _ = answering.join();
    Ok(())
}
