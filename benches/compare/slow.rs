//! A relay on loopback that holds every request back for a while, as a registry far away does: what it adds to a
//! command is that time for each request that waits for the answer to another.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::process::Outcome;

/// The relay; takes no more connections when dropped.
#[derive(Debug)]
pub struct Slow {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Slow {
    /// Relays to `target`, each request `delay` late.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn start(target: SocketAddr, delay: Duration) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // A connection that breaks ends itself only.
                let _ = stream.and_then(|client| relay(client, target, delay));
            }
        });
        Ok(Self { address, stop })
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// Both directions, a thread each. The first bytes after an answer begin a request.
fn relay(client: TcpStream, target: SocketAddr, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let answered = Arc::new(AtomicBool::new(true));
    let (up, down) = (Arc::clone(&answered), answered);
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        pump(from, to, || {
            if up.swap(false, Ordering::SeqCst) {
                thread::sleep(delay);
            }
        })
    });
    thread::spawn(move || pump(server, client, || down.store(true, Ordering::SeqCst)));
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, before: impl Fn()) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        before();
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
