//! Bases, wheels and manifests to work with, small enough to be built in a moment.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn cache() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("robustness");
    fs::create_dir_all(&cache).unwrap();
    cache
}

/// Makes `name` in the cache once, also when several processes want it.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let target = cache().join(name);
    let lock = File::create(cache().join(format!("{name}.lock"))).unwrap();
    rustix::fs::flock(lock.as_fd(), rustix::fs::FlockOperation::LockExclusive).unwrap();
    if !target.exists() {
        let work = tempfile::tempdir_in(cache()).unwrap();
        make(&work.path().join("made"));
        fs::rename(work.path().join("made"), &target).unwrap();
    }
    target
}

/// A layout with the image `busybox`: a shell, and what makes a Python and a glibc for the resolver.
pub fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| once("base-v2", |path| layout(path, "busybox", &busybox_tar())))
}

/// A layout with the image `debian`: bookworm with dpkg and Python, made by mmdebstrap.
pub fn debian_base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        once("debian-v1", |path| {
            let work = tempfile::tempdir_in(cache()).unwrap();
            let tar = work.path().join("base.tar");
            let out = Command::new("mmdebstrap")
                .args(["--variant=essential", "--include=python3-minimal"])
                .args(
                    ["doc", "man", "locale", "info"]
                        .map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")),
                )
                .arg("bookworm")
                .arg(&tar)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
            layout(path, "debian", &fs::read(tar).unwrap());
        })
    })
}

/// Writes a layout with one image of one layer.
fn layout(dir: &Path, name: &str, tar: &[u8]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8]| {
        fs::write(blobs.join(sha256(bytes)), bytes).unwrap();
        json!({"digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()})
    };
    let typed = |mut descriptor: Value, kind: &str| {
        descriptor["mediaType"] = format!("application/vnd.oci.image.{kind}").into();
        descriptor
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).unwrap();
    let layer = typed(blob(&gzip.finish().unwrap()), "layer.v1.tar+gzip");
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(tar))]},
    });
    let config = typed(blob(config.to_string().as_bytes()), "config.v1+json");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    let mut manifest = typed(blob(manifest.to_string().as_bytes()), "manifest.v1+json");
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn busybox_tar() -> Vec<u8> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|path| fs::read(path).ok())
        .expect("these tests need the package busybox-static");
    let mut tar = tar::Builder::new(Vec::new());
    let header = |size: usize, kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size as u64);
        header.set_entry_type(kind);
        header
    };
    for folder in [
        "bin", "etc", "proc", "dev", "sys", "tmp", "usr", "usr/bin", "usr/lib", "work",
    ] {
        let mut header = header(0, tar::EntryType::Directory);
        tar.append_data(&mut header, folder, &[][..]).unwrap();
    }
    let loader = "/lib64/ld-linux-x86-64.so.2";
    let files: [(&str, Vec<u8>); 4] = [
        ("bin/busybox", busybox),
        ("etc/passwd", b"root:x:0:0::/root:/bin/sh\n".to_vec()),
        (
            "usr/lib/libc.so.6",
            elf("", "GNU C Library (X) stable release version 2.36."),
        ),
        ("usr/bin/python3.11", elf(loader, "3.11.2")),
    ];
    for (path, content) in files {
        let mut header = header(content.len(), tar::EntryType::Regular);
        tar.append_data(&mut header, path, content.as_slice())
            .unwrap();
    }
    for applet in [
        "sh", "cat", "echo", "sleep", "ls", "dd", "head", "yes", "tail", "seq", "mkfifo", "true",
        "false", "ln", "touch", "env", "printf", "xargs", "setsid", "mkdir", "kill", "id", "awk",
    ] {
        let mut header = header(0, tar::EntryType::Symlink);
        let path = format!("bin/{applet}");
        tar.append_link(&mut header, path, "busybox").unwrap();
    }
    tar.into_inner().unwrap()
}

/// The start of an x86-64 ELF program that asks for `loader` and holds `text`.
fn elf(loader: &str, text: &str) -> Vec<u8> {
    let mut bytes = vec![0; 120];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[18..20].copy_from_slice(&62u16.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    bytes[64..68].copy_from_slice(&3u32.to_le_bytes());
    bytes[72..80].copy_from_slice(&120u64.to_le_bytes());
    bytes[96..104].copy_from_slice(&(loader.len() as u64 + 1).to_le_bytes());
    for part in [loader, text] {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// A wheel with `files` files of `each` bytes: `(file name, bytes)`.
pub fn wheel(
    name: &str,
    version: &str,
    requires: &[&str],
    files: usize,
    each: usize,
) -> (String, Vec<u8>) {
    let mut noise = Random(
        sha256(name.as_bytes())
            .bytes()
            .fold(1, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte)),
    );
    let files = (0..files).map(|number| {
        let bytes = (0..each)
            .map(|_| b'a' + (noise.next() % 26) as u8)
            .collect();
        (format!("{name}/part_{number}.py"), bytes)
    });
    let requires: String = requires
        .iter()
        .map(|requirement| format!("Requires-Dist: {requirement}\n"))
        .collect();
    wheel_of(name, version, &requires, files.collect())
}

/// A wheel with these files and these lines of metadata: `(file name, bytes)`.
pub fn wheel_of(
    name: &str,
    version: &str,
    metadata: &str,
    files: Vec<(String, Vec<u8>)>,
) -> (String, Vec<u8>) {
    let info = format!("{name}-{version}.dist-info");
    let mut content = vec![
        (
            format!("{info}/METADATA"),
            format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}")
                .into_bytes(),
        ),
        (
            format!("{info}/WHEEL"),
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
                .to_vec(),
        ),
    ];
    content.extend(files);
    let record: String = content
        .iter()
        .map(|(path, bytes)| {
            format!(
                "{path},sha256={},{}\n",
                base64(&Sha256::digest(bytes)),
                bytes.len()
            )
        })
        .collect();
    content.push((
        format!("{info}/RECORD"),
        format!("{record}{info}/RECORD,,\n").into_bytes(),
    ));
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (path, bytes) in content {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .last_modified_time(zip::DateTime::default());
        zip.start_file(path, options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    (format!("{name}-{version}-py3-none-any.whl"), bytes)
}

/// RFC 4648, section 5, without padding.
fn base64(bytes: &[u8]) -> String {
    encode(
        bytes,
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
    )
}

/// `Authorization` of RFC 7617.
pub fn basic(user: &str, password: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = encode(format!("{user}:{password}").as_bytes(), alphabet);
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    format!("Basic {text}")
}

fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, at| {
            word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for at in 0..=chunk.len() {
            out.push(alphabet[(word >> (18 - 6 * at)) as usize & 63] as char);
        }
    }
    out
}

/// Xorshift: the same numbers for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Of the seed in `ROBUSTNESS_SEED`, else of the clock; printed, so that a failure can be repeated.
    pub fn seeded(what: &str) -> Self {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = std::env::var("ROBUSTNESS_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| clock.unwrap().as_nanos() as u64 | 1);
        eprintln!("{what}: ROBUSTNESS_SEED={seed}");
        Self(seed)
    }

    /// `count` moments over a duration, one in each equal part of it.
    pub fn moments(&mut self, count: u32, over: std::time::Duration) -> Vec<std::time::Duration> {
        let part = over / count;
        (0..count)
            .map(|number| part * number + part.mul_f64((self.next() % 1000) as f64 / 1000.0))
            .collect()
    }
}
