//! HTTP/1.1 as it goes over the wire: heads, and bodies that can be passed on badly.

use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most bytes that are passed on at once.
pub const PIECE: usize = 16 << 10;

/// The first lines of a request or an answer.
pub struct Head {
    pub first: String,
    pub headers: Vec<(String, String)>,
    pub length: Option<u64>,
    pub chunked: bool,
}

impl Head {
    /// `None` at the end of the connection.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
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
        let mut head = Self {
            first,
            headers,
            length: None,
            chunked: false,
        };
        head.length = head
            .header("content-length")
            .and_then(|length| length.parse().ok());
        head.chunked = head.header("transfer-encoding") == Some("chunked");
        Ok(Some(head))
    }

    pub fn header(&self, wanted: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(name, value)| (name == wanted).then_some(value.as_str()))
    }

    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.target().parse().unwrap_or(0)
    }

    /// Whether it goes on with an upload.
    pub fn is_session(&self) -> bool {
        let path = self.target().split('?').next().unwrap_or_default();
        path.contains("/blobs/uploads/") && !path.ends_with("/uploads/")
    }

    /// What stays the same when the same is tried again.
    pub fn name(&self) -> String {
        let method = self.method();
        if !self.is_session() {
            return format!("{method} {}", self.target());
        }
        let (path, query) = self.target().split_once('?').unwrap_or_default();
        let path = path.rsplit_once('/').unwrap_or_default().0;
        let digest = query.split('&').find(|part| part.starts_with("digest="));
        let length = self.length.unwrap_or(0);
        format!("{method} {path}/… {} {length}", digest.unwrap_or_default())
    }

    pub fn text(&self, without: &[&str], more: &str) -> String {
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
pub struct Manner<'a> {
    /// Stop after so many bytes.
    pub cut: Option<u64>,
    /// Change the byte here.
    pub flip: Option<u64>,
    /// Before every piece.
    pub pause: Duration,
    /// Counts the pieces.
    pub pieces: Option<&'a AtomicU64>,
}

/// Passes a body on; says how many bytes of it, and whether that was what was asked for (a byte that lies behind the end
/// cannot be changed). What the receiver does not take is read nevertheless.
pub fn copy(
    head: &Head,
    reader: &mut impl BufRead,
    writer: &mut impl Write,
    manner: Manner<'_>,
) -> io::Result<(u64, bool)> {
    let mut passed = 0;
    match head.chunked {
        true => copy_chunked(reader, writer, manner, &mut passed)?,
        false => {
            let length = head.length.unwrap_or(0);
            copy_length(reader, writer, length, manner, &mut passed)?;
        }
    }
    let done = match (manner.cut, manner.flip) {
        (Some(at), _) => passed == at,
        (_, Some(at)) => passed > at,
        _ => true,
    };
    Ok((passed, done))
}

fn copy_chunked(
    reader: &mut impl BufRead,
    writer: &mut impl Write,
    manner: Manner<'_>,
    passed: &mut u64,
) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.take(1 << 10).read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16)
            .map_err(|_| io::Error::other("a chunk without size"))?;
        let _ = writer.write_all(line.as_bytes());
        let until = *passed + size;
        copy_length(reader, writer, until, manner, passed)?;
        if *passed < until {
            return Ok(());
        }
        let mut end = String::new();
        reader.take(2).read_line(&mut end)?;
        let _ = writer.write_all(end.as_bytes());
        if size == 0 {
            return Ok(());
        }
    }
}

/// Passes bytes on until `until` have passed.
fn copy_length(
    reader: &mut impl BufRead,
    writer: &mut impl Write,
    until: u64,
    manner: Manner<'_>,
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
        if let Some(pieces) = manner.pieces {
            pieces.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// A whole answer with a body.
pub fn answer(status: u16, body: &str, more: &str) -> String {
    format!(
        "HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

/// A whole answer with an error of the distribution specification.
pub fn refusal(status: u16, code: &str, more: &str) -> String {
    let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"bad weather\"}}]}}");
    answer(status, &body, more)
}
