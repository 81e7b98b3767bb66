//! Hands an image to a container engine on this machine by way of its own command.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{DockerArchive, Image, ImageError, LayerSource};
use crate::digest::Digest;
use crate::progress::Progress;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker Engine; its command finds the daemon (`DOCKER_HOST`, contexts).
    Docker,
    /// Podman.
    Podman,
}

/// A container engine's command.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Which one.
    pub kind: EngineKind,
    /// Its command, a path or a name in PATH.
    pub program: PathBuf,
    /// Options before `load`, for example `-H unix:///…`.
    pub options: Vec<OsString>,
}

impl Engine {
    /// The engine's command by its usual name.
    pub fn new(kind: EngineKind) -> Self {
        let program = match kind {
            EngineKind::Docker => "docker".into(),
            EngineKind::Podman => "podman".into(),
        };
        Self {
            kind,
            program,
            options: Vec::new(),
        }
    }
}

/// How much of the command's messages is kept, in bytes.
const MESSAGE_LIMIT: u64 = 4096;

/// Streams `image` into the engine under `name` (`repository[:tag]`); returns the image ID.
///
/// # Errors
/// When the command cannot be started or fails, or a layer's bytes are not what they must be.
pub fn load(
    engine: &Engine,
    name: &str,
    image: &Image,
    source: &dyn LayerSource,
    progress: &dyn Progress,
) -> Result<Digest, ImageError> {
    let mut child = Command::new(&engine.program)
        .args(&engine.options)
        .arg("load")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| ImageError::NoEngine {
            program: engine.program.clone(),
            source,
        })?;
    let messages = child
        .stderr
        .take()
        .map(|pipe| std::thread::spawn(move || first_bytes(pipe)));
    let archive = DockerArchive { name, image };
    let written = match child.stdin.take() {
        Some(pipe) => archive.write(
            io::BufWriter::with_capacity(256 * 1024, pipe),
            source,
            progress,
        ),
        None => Err(ImageError::Write(io::ErrorKind::BrokenPipe.into())),
    };
    if written.as_ref().is_err_and(|error| !is_broken_pipe(error)) {
        // An archive that ends early must not be taken for a whole one.
        let _ = child.kill();
    }
    let status = child.wait().map_err(ImageError::Write)?;
    let message = messages
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    match written {
        Err(error) if !is_broken_pipe(&error) => Err(error),
        Ok(id) if status.success() => Ok(id),
        _ => Err(ImageError::Engine {
            program: format!("{} load", engine.program.display()),
            status: status.to_string(),
            message,
        }),
    }
}

fn is_broken_pipe(error: &ImageError) -> bool {
    matches!(error, ImageError::Write(source) if source.kind() == io::ErrorKind::BrokenPipe)
}

fn first_bytes(mut pipe: impl Read) -> String {
    let mut start = Vec::new();
    let _ = pipe.by_ref().take(MESSAGE_LIMIT).read_to_end(&mut start);
    let _ = io::copy(&mut pipe, &mut io::sink());
    let text = String::from_utf8_lossy(&start);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .into()
}
