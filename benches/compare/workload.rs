//! What is measured: pinned sets of wheels, a base image, and a wheel with one very large entry. Made once, then cached.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress};
use imagewright::digest::Digest;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::process::{Call, Outcome, need};

/// Workload W1 as a user would ask for it.
pub const W1_REQUIREMENTS: [&str; 3] = ["pandas==2.2.3", "scikit-learn==1.5.2", "xgboost==2.1.2"];

/// All wheels of W1, so that figures of different days speak of the same bytes.
pub const W1: [&str; 12] = [
    "cloudpickle==3.1.2",
    "joblib==1.6.0",
    "numpy==2.4.6",
    "nvidia-nccl-cu12==2.32.3",
    "pandas==2.2.3",
    "python-dateutil==4.0.0",
    "pytz==2026.6",
    "scikit-learn==1.5.2",
    "scipy==1.17.1",
    "threadpoolctl==3.8.0",
    "tzdata==2026.6",
    "xgboost==2.1.2",
];

/// Forty wheels of everyday size, complete with what they require.
pub const FORTY: [&str; 40] = [
    "annotated-types==0.8.0",
    "anyio==4.16.0",
    "blinker==1.9.0",
    "certifi==2026.10.18",
    "click==8.5.1",
    "contourpy==1.3.3",
    "cycler==0.12.1",
    "flask==3.1.3",
    "fonttools==4.68.0",
    "h11==0.16.0",
    "httpcore==1.0.9",
    "httpx==0.28.1",
    "idna==3.20",
    "iniconfig==2.3.1",
    "itsdangerous==2.2.0",
    "jinja2==3.1.6",
    "kiwisolver==1.5.1",
    "markdown-it-py==4.3.0",
    "markupsafe==3.0.4",
    "matplotlib==3.11.2",
    "mdurl==0.1.2",
    "numpy==2.4.6",
    "packaging==26.3",
    "pillow==13.0.0",
    "pluggy==1.7.0",
    "psutil==7.2.2",
    "pydantic==2.14.3",
    "pydantic-core==2.50.4",
    "pygments==2.21.0",
    "pyparsing==3.3.3",
    "pytest==9.2.0",
    "python-dateutil==4.0.0",
    "pyyaml==6.0.3",
    "rich==15.0.0",
    "sqlalchemy==2.1.9",
    "tqdm==4.70.1",
    "typing-extensions==4.16.0",
    "typing-inspection==0.4.5",
    "tzdata==2026.6",
    "werkzeug==3.1.9",
];

/// The pin of [`FORTY`] that changes, and what it was before.
pub const CHANGED: (&str, &str) = ("numpy==2.4.6", "numpy==2.4.5");

/// The installer of the other side.
const UV: &str = "uv==0.13.8";

/// The wheel with one very large entry.
pub const LARGE: &str = "bigentry==1.0";
/// Bytes of that entry: 1.5 GB.
const LARGE_SIZE: usize = 1_500_000_000;

const SUITE: &str = "bookworm";

/// What stays between runs of the harness.
#[derive(Debug)]
pub struct Cache(pub PathBuf);

impl Cache {
    fn folder(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// The wheels of `pins`, downloaded by pip from the index that it is configured for.
    ///
    /// # Errors
    /// When pip or a wheel cannot be had.
    pub fn wheels(&self, pins: &[&str]) -> Outcome<Vec<PathBuf>> {
        let folder = self.folder("wheels")?;
        let missing: Vec<&str> = pins
            .iter()
            .filter(|pin| find_wheel(&folder, pin).is_none())
            .copied()
            .collect();
        if !missing.is_empty() {
            eprintln!("downloading {} wheels", missing.len());
            let platforms = (5..=28).map(|minor| format!("manylinux_2_{minor}_x86_64"));
            let legacy = ["manylinux1", "manylinux2010", "manylinux2014"];
            let platforms = platforms.chain(legacy.map(|name| format!("{name}_x86_64")));
            Call::new(need("python3")?)
                .args(["-m", "pip", "download", "--quiet", "--no-deps"])
                .args(["--only-binary=:all:", "--python-version", "3.11", "--dest"])
                .args([&folder])
                .args(platforms.flat_map(|name| ["--platform".to_owned(), name]))
                .args(missing)
                .run()?;
        }
        pins.iter()
            .map(|pin| {
                find_wheel(&folder, pin).ok_or_else(|| format!("pip brought no wheel of {pin}"))
            })
            .collect()
    }

    /// The `uv` program, out of its wheel.
    ///
    /// # Errors
    /// When the wheel cannot be had or has no program in it.
    pub fn uv(&self) -> Outcome<PathBuf> {
        let program = self.folder("uv")?.join("uv");
        if program.is_file() {
            return Ok(program);
        }
        let text = |error: &dyn std::error::Error| error.to_string();
        let wheel = self.wheels(&[UV])?.remove(0);
        let file = File::open(wheel).map_err(|error| text(&error))?;
        let mut archive = zip::ZipArchive::new(file).map_err(|error| text(&error))?;
        let name = archive
            .file_names()
            .flatten()
            .find(|name| name.ends_with(".data/scripts/uv"))
            .map(Cow::into_owned)
            .ok_or("the wheel of uv has no program")?;
        let mut entry = archive.by_name(&name).map_err(|error| text(&error))?;
        let part = program.with_extension("part");
        File::create(&part)
            .and_then(|mut out| io::copy(&mut entry, &mut out))
            .and_then(|_| fs::set_permissions(&part, fs::Permissions::from_mode(0o755)))
            .and_then(|()| fs::rename(&part, &program))
            .map_err(|error| text(&error))?;
        Ok(program)
    }

    /// A Debian base with Python: the root file system as a tar, and the same tar as an OCI layout.
    ///
    /// # Errors
    /// When mmdebstrap is missing or fails.
    pub fn base(&self) -> Outcome<Base> {
        let folder = self.0.join("base");
        let base = Base {
            tar: folder.join("base.tar"),
            layout: folder.join("oci"),
        };
        if base.layout.join("index.json").is_file() {
            return Ok(base);
        }
        eprintln!("making the base image");
        let part = self.folder("base.part")?;
        let tar = part.join("base.tar");
        Call::new(need("mmdebstrap")?)
            .args(["--quiet", "--variant=apt", "--include=python3", SUITE])
            .args([&tar])
            .run()?;
        write_layout(&tar, &part.join("oci")).map_err(|error| format!("base image: {error}"))?;
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&part, &folder).map_err(|error| error.to_string())?;
        Ok(base)
    }

    /// The contents of `wheels` as one tar.
    ///
    /// # Errors
    /// When a wheel cannot be read or the disk is full.
    pub fn contents(&self, wheels: &[PathBuf]) -> Outcome<PathBuf> {
        let path = self.folder("contents")?.join("w1.tar");
        if !path.is_file() {
            let part = path.with_extension("part");
            write_contents(wheels, &part)
                .and_then(|()| fs::rename(&part, &path))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(path)
    }

    /// A wheel whose one module is 1.5 GB, deflated to about half.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn large(&self) -> Outcome<PathBuf> {
        let path = self.folder("large")?.join("bigentry-1.0-py3-none-any.whl");
        if !path.is_file() {
            let part = path.with_extension("part");
            write_large(&part)
                .and_then(|()| fs::rename(&part, &path))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(path)
    }
}

/// The base image's two forms.
#[derive(Debug)]
pub struct Base {
    /// The root file system.
    pub tar: PathBuf,
    /// An OCI layout of one image with that tar as its one layer.
    pub layout: PathBuf,
}

/// The normalised name (PEP 503) of the project that a wheel's file name starts with.
pub fn project_of(file: &str) -> String {
    let name = file.split('-').next().unwrap_or(file);
    name.to_lowercase().replace(['_', '.'], "-")
}

fn find_wheel(folder: &Path, pin: &str) -> Option<PathBuf> {
    let (name, version) = pin.split_once("==")?;
    fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.ends_with(".whl")
                && project_of(&file) == name
                && file.split('-').nth(1) == Some(version)
        })
}

/// Writes one image, with `tar` gzipped as its layer, as an OCI image layout.
fn write_layout(tar: &Path, layout: &Path) -> io::Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let (diff_id, _) = Digest::of_reader(File::open(tar)?)?;
    let part = blobs.join("layer.part");
    let mut encoder = GzEncoder::new(BufWriter::new(File::create(&part)?), Compression::new(6));
    io::copy(&mut File::open(tar)?, &mut encoder)?;
    encoder.finish()?.flush()?;
    let (layer, size) = Digest::of_reader(File::open(&part)?)?;
    fs::rename(&part, blobs.join(layer.hex()))?;
    let blob = |document: &serde_json::Value| -> io::Result<(Digest, usize)> {
        let bytes = serde_json::to_vec(document)?;
        let digest = Digest::of(&bytes);
        fs::write(blobs.join(digest.hex()), &bytes)?;
        Ok((digest, bytes.len()))
    };
    let (config, config_size) = blob(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [PATH]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
    }))?;
    let (manifest, manifest_size) = blob(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.to_string(), "size": config_size,
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": layer.to_string(), "size": size,
        }],
    }))?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.to_string(), "size": manifest_size,
            "platform": {"architecture": "amd64", "os": "linux"},
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        }],
    });
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)
}

/// The base image's environment.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn write_contents(wheels: &[PathBuf], path: &Path) -> io::Result<()> {
    let mut builder = tar::Builder::new(BufWriter::new(File::create(path)?));
    for wheel in wheels {
        let mut archive = zip::ZipArchive::new(io::BufReader::new(File::open(wheel)?))?;
        for number in 0..archive.len() {
            let entry = archive.by_index(number)?;
            if entry.is_dir() {
                continue;
            }
            let mut header = tar::Header::new_gnu();
            header.set_size(entry.size());
            header.set_mode(0o644);
            let name = entry.name()?.into_owned();
            builder.append_data(&mut header, name, entry)?;
        }
    }
    builder.into_inner()?.flush()
}

/// A block of deflate that can be repeated, and the bytes that it stands for.
fn repeatable() -> (Vec<u8>, Vec<u8>) {
    // xorshift64*: four of each five bytes are one of sixteen values, so that deflate halves them, as it does machine code.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    };
    let plain: Vec<u8> = (0..4_000_000 / 8)
        .flat_map(|_| {
            let bytes = random();
            let mut block = bytes.map(|byte| byte & 0x0F);
            block[0] = bytes[0];
            block
        })
        .collect();
    let mut deflated = Vec::with_capacity(plain.len());
    // A full flush ends on a byte and forgets the window: copies of the block follow each other freely.
    let done = Compress::new(Compression::new(6), false).compress_vec(
        &plain,
        &mut deflated,
        FlushCompress::Full,
    );
    debug_assert!(done.is_ok());
    (plain, deflated)
}

/// Writes a wheel by hand: the zip crate cannot be given deflated bytes.
fn write_large(path: &Path) -> io::Result<()> {
    let (plain, deflated) = repeatable();
    let times = LARGE_SIZE / plain.len();
    let (mut crc, mut hash) = (crc32fast::Hasher::new(), Sha256::new());
    for _ in 0..times {
        crc.update(&plain);
        hash.update(&plain);
    }
    let digest: [u8; 32] = hash.finalize().into();
    // An empty last block with the fixed code ends the stream.
    let end = [0x03, 0x00];
    let size = plain.len() * times;
    let metadata = b"Metadata-Version: 2.1\nName: bigentry\nVersion: 1.0\n".as_slice();
    let wheel =
        b"Wheel-Version: 1.0\nGenerator: compare\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            .as_slice();
    let line = |name: &str, bytes: &[u8]| {
        let digest = *Digest::of(bytes).bytes();
        format!("{name},sha256={},{}\n", base64url(&digest), bytes.len())
    };
    let info = "bigentry-1.0.dist-info";
    let record = format!(
        "bigentry.bin,sha256={},{size}\n{}{}{info}/RECORD,,\n",
        base64url(&digest),
        line(&format!("{info}/METADATA"), metadata),
        line(&format!("{info}/WHEEL"), wheel),
    );
    let mut zip = HandZip::new(BufWriter::new(File::create(path)?));
    let compressed = deflated.len() * times + end.len();
    zip.begin("bigentry.bin", 8, crc.finalize(), compressed, size)?;
    for _ in 0..times {
        zip.bytes(&deflated)?;
    }
    zip.bytes(&end)?;
    for (name, bytes) in [
        ("METADATA", metadata),
        ("WHEEL", wheel),
        ("RECORD", record.as_bytes()),
    ] {
        let crc = crc32fast::hash(bytes);
        zip.begin(&format!("{info}/{name}"), 0, crc, bytes.len(), bytes.len())?;
        zip.bytes(bytes)?;
    }
    zip.finish()
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().enumerate().fold(0_u32, |word, (i, byte)| {
            word | (u32::from(*byte) << (16 - 8 * i))
        });
        for digit in 0..=group.len() {
            text.push(char::from(DIGITS[(word >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

/// Zip entries with known sizes and checksums (APPNOTE 4.3), below 4 GiB.
struct HandZip<W> {
    out: W,
    at: u64,
    directory: Vec<u8>,
    entries: u16,
}

impl<W: Write> HandZip<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            at: 0,
            directory: Vec::new(),
            entries: 0,
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn begin(
        &mut self,
        name: &str,
        method: u16,
        crc: u32,
        compressed: usize,
        size: usize,
    ) -> io::Result<()> {
        let narrow = |value: usize| u32::try_from(value).map_err(io::Error::other);
        let offset = u32::try_from(self.at).map_err(io::Error::other)?;
        let mut common = Vec::new();
        common.extend(20_u16.to_le_bytes());
        common.extend(0_u16.to_le_bytes());
        common.extend(method.to_le_bytes());
        // 1980-01-01, 00:00.
        common.extend(0_u16.to_le_bytes());
        common.extend(0x21_u16.to_le_bytes());
        common.extend(crc.to_le_bytes());
        common.extend(narrow(compressed)?.to_le_bytes());
        common.extend(narrow(size)?.to_le_bytes());
        common.extend(
            u16::try_from(name.len())
                .map_err(io::Error::other)?
                .to_le_bytes(),
        );
        common.extend(0_u16.to_le_bytes());
        self.directory.extend(b"PK\x01\x02\x14\x03");
        self.directory.extend(&common);
        self.directory.extend([0; 6]);
        self.directory.extend((0o100_644_u32 << 16).to_le_bytes());
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries += 1;
        self.bytes(b"PK\x03\x04")?;
        self.bytes(&common)?;
        self.bytes(name.as_bytes())
    }

    fn finish(mut self) -> io::Result<()> {
        let narrow = |value: u64| u32::try_from(value).map_err(io::Error::other);
        let (offset, size) = (narrow(self.at)?, narrow(self.directory.len() as u64)?);
        let directory = std::mem::take(&mut self.directory);
        self.bytes(&directory)?;
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend(self.entries.to_le_bytes());
        end.extend(self.entries.to_le_bytes());
        end.extend(size.to_le_bytes());
        end.extend(offset.to_le_bytes());
        end.extend([0; 2]);
        self.bytes(&end)?;
        self.out.flush()
    }
}

/// Reads files into the page cache, so that both sides find them there.
pub fn warm(paths: &[PathBuf]) {
    let mut buffer = vec![0; 1 << 20];
    for path in paths {
        if let Ok(mut file) = File::open(path) {
            while matches!(file.read(&mut buffer), Ok(n) if n > 0) {}
        }
    }
}
