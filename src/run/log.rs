//! A job's log files, capped: a run that writes without end neither fills the disk nor waits for us.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Bytes kept of each stream.
pub const LOG_CAP: u64 = 64 << 20;

/// One stream's file.
#[derive(Debug)]
pub struct Log {
    file: File,
    room: u64,
    dropped: u64,
    failed: Option<std::io::Error>,
}

impl Log {
    /// Starts the file at `path`, which keeps `cap` bytes.
    pub fn create(path: &Path, cap: u64) -> std::io::Result<Self> {
        Ok(Self {
            file: File::create(path)?,
            room: cap,
            dropped: 0,
            failed: None,
        })
    }

    /// Keeps what there is room for; returns that part.
    pub fn append<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let keep = usize::try_from(self.room).map_or(bytes.len(), |room| room.min(bytes.len()));
        let kept = &bytes[..keep];
        if self.failed.is_none() {
            self.failed = self.file.write_all(kept).err();
        }
        self.room -= keep as u64;
        self.dropped += (bytes.len() - keep) as u64;
        kept
    }

    /// Ends the file, with a note where it was cut. Returns what a person should know.
    pub fn finish(mut self, name: &str) -> Option<String> {
        if let Some(error) = self.failed {
            return Some(format!("the log of {name} is incomplete: {error}"));
        }
        if self.dropped == 0 {
            return None;
        }
        let note = format!(
            "the log of {name} was cut: {} more bytes were not kept",
            self.dropped
        );
        let _ = writeln!(self.file, "\n[imagewright: {note}]");
        Some(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_up_to_the_cap_and_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::create(&path, 5).unwrap();
        assert_eq!(log.append(b"abc"), b"abc");
        assert_eq!(log.append(b"defg"), b"de");
        assert_eq!(log.append(b"h"), b"");
        assert!(log.finish("stdout").unwrap().contains("3 more bytes"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("abcde\n[imagewright:"), "{text}");
    }
}
