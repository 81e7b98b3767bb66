//! The least that any builder of these layers must do: inflate every entry once and hash the bytes on both sides.
//!
//! No tar, no gzip framing, no checks, no files written. Wheels are dealt out largest task first to as many threads as the
//! machine has processors; a wheel's contents and its compressed bytes are tasks of their own.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flate2::{Decompress, FlushDecompress, Status};
use nix::sys::resource::{UsageWho, getrusage};
use sha2::{Digest as _, Sha256};

use crate::process::{Outcome, cpu_of};

/// Entries above this are streamed, as a builder with bounded memory must.
const WHOLE: u64 = 32 << 20;
const CHUNK: usize = 256 << 10;

/// Where an entry's compressed bytes are.
#[derive(Clone, Debug)]
struct Entry {
    offset: u64,
    compressed: u64,
    size: u64,
    stored: bool,
}

#[derive(Debug)]
enum Work {
    Contents(PathBuf, Vec<Entry>),
    Blob(PathBuf),
}

/// What the bare work cost.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// From first to last byte.
    pub wall: Duration,
    /// CPU time of all threads.
    pub cpu: Duration,
    /// Uncompressed bytes.
    pub unpacked: u64,
    /// Compressed bytes.
    pub packed: u64,
}

/// Does the bare work over `wheels` on `threads` threads.
///
/// # Errors
/// When a wheel cannot be read.
pub fn measure(wheels: &[PathBuf], threads: usize) -> Outcome<Floor> {
    let (mut tasks, mut unpacked, mut packed) = (Vec::new(), 0, 0);
    for path in wheels {
        let entries = entries(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let size = path.metadata().map_err(|error| error.to_string())?.len();
        // Rough costs in units of one byte streamed and hashed; only their order matters.
        let cost: u64 = entries
            .iter()
            .map(|entry| {
                if entry.size > WHOLE {
                    entry.size * 3
                } else {
                    entry.size * 2
                }
            })
            .sum();
        unpacked += entries.iter().map(|entry| entry.size).sum::<u64>();
        packed += size;
        tasks.push((cost, Work::Contents(path.clone(), entries)));
        tasks.push((size, Work::Blob(path.clone())));
    }
    tasks.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
    let next = AtomicUsize::new(0);
    let (started, cpu) = (Instant::now(), cpu_time()?);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| drain(&tasks, &next)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .map_err(|_| "a thread of the floor panicked".to_owned())?
                .map_err(|error| format!("the floor cannot be measured: {error}"))
        })
    })?;
    Ok(Floor {
        wall: started.elapsed(),
        cpu: cpu_time()?.saturating_sub(cpu),
        unpacked,
        packed,
    })
}

fn drain(tasks: &[(u64, Work)], next: &AtomicUsize) -> io::Result<()> {
    let mut bench = Bench::new();
    while let Some((_, work)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
        // Kept from being optimised away.
        std::hint::black_box(match work {
            Work::Contents(path, entries) => bench.contents(path, entries)?,
            Work::Blob(path) => bench.blob(path)?,
        });
    }
    Ok(())
}

/// CPU time of this process so far.
fn cpu_time() -> Outcome<Duration> {
    getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| cpu_of(&usage))
        .map_err(|error| error.to_string())
}

/// One thread's buffers.
struct Bench {
    input: Vec<u8>,
    output: Vec<u8>,
    whole: libdeflater::Decompressor,
}

impl Bench {
    fn new() -> Self {
        Self {
            input: vec![0; CHUNK],
            output: vec![0; CHUNK],
            whole: libdeflater::Decompressor::new(),
        }
    }

    fn blob(&mut self, path: &Path) -> io::Result<[u8; 32]> {
        let (mut file, mut hash) = (File::open(path)?, Sha256::new());
        loop {
            match file.read(&mut self.input)? {
                0 => return Ok(hash.finalize().into()),
                n => hash.update(&self.input[..n]),
            }
        }
    }

    fn contents(&mut self, path: &Path, entries: &[Entry]) -> io::Result<[u8; 32]> {
        let (file, mut hash) = (File::open(path)?, Sha256::new());
        for entry in entries {
            if entry.stored {
                self.copy(&file, entry, &mut hash)?;
            } else if entry.size > WHOLE {
                self.stream(&file, entry, &mut hash)?;
            } else {
                self.inflate(&file, entry, &mut hash)?;
            }
        }
        Ok(hash.finalize().into())
    }

    fn copy(&mut self, file: &File, entry: &Entry, hash: &mut Sha256) -> io::Result<()> {
        let (mut at, end) = (entry.offset, entry.offset + entry.compressed);
        while at < end {
            let n = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            file.read_exact_at(&mut self.input[..n], at)?;
            hash.update(&self.input[..n]);
            at += n as u64;
        }
        Ok(())
    }

    fn inflate(&mut self, file: &File, entry: &Entry, hash: &mut Sha256) -> io::Result<()> {
        let (compressed, size) = (length(entry.compressed)?, length(entry.size)?);
        grow(&mut self.input, compressed);
        grow(&mut self.output, size);
        file.read_exact_at(&mut self.input[..compressed], entry.offset)?;
        let written = self
            .whole
            .deflate_decompress(&self.input[..compressed], &mut self.output[..size])
            .map_err(|error| io::Error::other(error.to_string()))?;
        hash.update(&self.output[..written]);
        Ok(())
    }

    fn stream(&mut self, file: &File, entry: &Entry, hash: &mut Sha256) -> io::Result<()> {
        let mut inflater = Decompress::new(false);
        let (mut at, end) = (entry.offset, entry.offset + entry.compressed);
        let (mut from, mut filled) = (0, 0);
        loop {
            if from == filled && at < end {
                filled = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                from = 0;
                file.read_exact_at(&mut self.input[..filled], at)?;
                at += filled as u64;
            }
            let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
            let status = inflater
                .decompress(
                    &self.input[from..filled],
                    &mut self.output[..CHUNK],
                    FlushDecompress::None,
                )
                .map_err(io::Error::other)?;
            from += length(inflater.total_in() - before_in)?;
            let written = length(inflater.total_out() - before_out)?;
            hash.update(&self.output[..written]);
            if status == Status::StreamEnd {
                return Ok(());
            }
            if from == filled && at == end && written == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn grow(buffer: &mut Vec<u8>, size: usize) {
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
}

fn length(size: u64) -> io::Result<usize> {
    usize::try_from(size).map_err(io::Error::other)
}

fn entries(path: &Path) -> io::Result<Vec<Entry>> {
    let mut archive = zip::ZipArchive::new(io::BufReader::new(File::open(path)?))?;
    let mut entries = Vec::with_capacity(archive.len());
    for number in 0..archive.len() {
        let file = archive.by_index_raw(number)?;
        entries.push(Entry {
            offset: file
                .data_start()
                .ok_or_else(|| io::Error::other("an entry without data"))?,
            compressed: file.compressed_size(),
            size: file.size(),
            stored: file.compression() == zip::CompressionMethod::Stored,
        });
    }
    Ok(entries)
}
