//! A blob's content as the body of a request: read by a thread of its own, a few pieces ahead.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use reqwest::Body;
use tokio::sync::mpsc;

use super::transfers::Counters;

/// Bytes of one piece.
const PIECE: u64 = 256 << 10;
/// Pieces that may wait to be sent.
const AHEAD: usize = 4;

/// Content that can be streamed from any offset.
pub trait BlobContent: Send + Sync {
    /// The bytes from `from` on, in a reader that stands alone: it is read by another thread. A reader that verifies
    /// fails at its end at the latest.
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>>;
}

impl BlobContent for Vec<u8> {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(io::Cursor::new(self[from..].to_vec())))
    }
}

/// A file, as it is.
impl BlobContent for std::path::PathBuf {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = std::fs::File::open(self)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(from))?;
        Ok(Box::new(file))
    }
}

/// Which bytes of a content are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub from: u64,
    pub len: u64,
    /// The content has to end there.
    pub last: bool,
}

/// How far a body has been taken, and what went wrong with its content.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    taken: Arc<AtomicU64>,
    fault: Arc<Mutex<Option<io::Error>>>,
}

impl Meter {
    /// Bytes that the connection has taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Why the content could not be read, once.
    pub fn fault(&self) -> Option<io::Error> {
        self.slot().take()
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<io::Error>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body, and a meter begun anew. Dropping the body ends its thread.
pub(super) fn stream(
    content: &dyn BlobContent,
    span: Span,
    meter: &Meter,
    counters: &Arc<Counters>,
) -> io::Result<Body> {
    meter.taken.store(0, Ordering::Relaxed);
    let reader = content.open(span.from)?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let failed = meter.clone();
    tokio::task::spawn_blocking(move || {
        let result = pump(reader, span, |piece| {
            sender.blocking_send(Ok(piece)).is_ok()
        });
        if let Err(error) = result {
            *failed.slot() = Some(error);
            // The request ends with this; the reason is in the meter.
            let _ = sender.blocking_send(Err(io::Error::other("the content cannot be read")));
        }
    });
    let (taken, counters) = (Arc::clone(&meter.taken), Arc::clone(counters));
    Ok(Body::wrap_stream(stream::unfold(
        receiver,
        move |mut receiver| {
            let (taken, counters) = (Arc::clone(&taken), Arc::clone(&counters));
            async move {
                let piece: io::Result<Bytes> = receiver.recv().await?;
                if let Ok(piece) = &piece {
                    taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    counters.sent(piece.len());
                }
                Some((piece, receiver))
            }
        },
    )))
}

/// Reads what `span` says, and delivers it until nobody takes it. The last piece is delivered only after the content has
/// ended well.
fn pump(
    mut reader: impl Read,
    span: Span,
    mut deliver: impl FnMut(Bytes) -> bool,
) -> io::Result<()> {
    let mut left = span.len;
    while left > 0 {
        let room = left.min(PIECE);
        let mut piece = Vec::with_capacity(room as usize);
        let read = reader.by_ref().take(room).read_to_end(&mut piece)? as u64;
        left -= read;
        if read < room {
            let at = span.from + span.len - left;
            let reason = format!("it ends after {at} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        if left == 0 && span.last {
            end(&mut reader)?;
        }
        if !deliver(piece.into()) {
            break;
        }
    }
    Ok(())
}

fn end(reader: &mut impl Read) -> io::Result<()> {
    let mut more = Vec::new();
    match reader.take(1).read_to_end(&mut more)? {
        0 => Ok(()),
        _ => {
            let reason = "it is longer than it should be";
            Err(io::Error::new(io::ErrorKind::InvalidData, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pumped(content: &[u8], from: u64, len: u64, last: bool) -> (Vec<Bytes>, io::Result<()>) {
        let mut pieces = Vec::new();
        let reader = content.to_vec().open(from).unwrap();
        let result = pump(reader, Span { from, len, last }, |piece| {
            pieces.push(piece);
            true
        });
        (pieces, result)
    }

    #[test]
    fn content_goes_out_in_pieces_and_exactly() {
        let content: Vec<u8> = (0..600_000u32).map(|n| n as u8).collect();
        let (pieces, result) = pumped(&content, 0, 600_000, true);
        result.unwrap();
        assert_eq!(pieces.concat(), content);
        assert!(pieces.iter().all(|piece| piece.len() as u64 <= PIECE));
        let (pieces, result) = pumped(&content, 100_000, 300_000, false);
        result.unwrap();
        assert_eq!(pieces.concat(), content[100_000..400_000]);
        assert!(pumped(&content, 600_000, 0, true).0.is_empty());
    }

    #[test]
    fn the_last_piece_of_wrong_content_never_leaves() {
        let content = vec![7; 300_000];
        let (pieces, result) = pumped(&content, 0, 300_001, true);
        assert!(
            result
                .unwrap_err()
                .to_string()
                .contains("after 300000 bytes")
        );
        assert_eq!(pieces.len(), 1);
        let (pieces, result) = pumped(&content, 0, 299_999, true);
        assert!(result.unwrap_err().to_string().contains("longer"));
        assert_eq!(pieces.len(), 1);
    }

    #[test]
    fn nobody_reads_on_when_nobody_takes() {
        struct Endless(u64);
        impl Read for Endless {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                self.0 += out.len() as u64;
                assert!(self.0 < 10 * PIECE);
                Ok(out.len())
            }
        }
        let span = Span {
            from: 0,
            len: u64::MAX,
            last: true,
        };
        pump(Endless(0), span, |_| false).unwrap();
    }
}
