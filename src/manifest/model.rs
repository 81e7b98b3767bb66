//! What a manifest says, before and after its bases are merged in.
//!
//! [`Manifest`] is the text's content, spans kept. [`ImageRequest`] is everything one image asks for, its base
//! chain merged: the type that `lock`, `identity` and `resolve` work on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{SourceText, Span};
use crate::digest::Digest;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// The file that holds it (the manifest, a built-in base, a requirements file).
    pub source: Arc<SourceText>,
    /// Its bytes there.
    pub span: Span,
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// An operating system and CPU architecture as OCI names them.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub enum Platform {
    /// 64-bit x86.
    #[serde(rename = "linux/amd64")]
    LinuxAmd64,
    /// 64-bit ARM.
    #[serde(rename = "linux/arm64")]
    LinuxArm64,
}

impl Platform {
    /// All that a manifest can name.
    pub const ALL: [Self; 2] = [Self::LinuxAmd64, Self::LinuxArm64];

    /// As OCI writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "linux/amd64",
            Self::LinuxArm64 => "linux/arm64",
        }
    }

    /// The architecture as OCI and Debian call it.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "amd64",
            Self::LinuxArm64 => "arm64",
        }
    }

    /// The architecture as Python's `platform_machine` and wheel tags call it.
    pub fn machine(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "x86_64",
            Self::LinuxArm64 => "aarch64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Platform {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a platform that imagewright builds for"))
    }
}

/// A Python minor version such as 3.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PythonMinor {
    /// 3.
    pub major: u8,
    /// For example 11.
    pub minor: u8,
}

impl fmt::Display for PythonMinor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for PythonMinor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        match parsed {
            Some((major, minor)) => Ok(Self { major, minor }),
            None => Err(format!(
                "`{text}` is not a Python version of the form `3.11`"
            )),
        }
    }
}

/// A `pip` node: one PEP 508 requirement.
#[derive(Clone, Debug)]
pub struct PipRequirement {
    /// The PEP 503 normalised name.
    pub name: String,
    /// The requirement as PEP 508 text, canonical: normalised name, sorted extras, canonical sorted specifiers, marker.
    /// For `pip "x" wheel="…"` it is the name alone.
    pub pep508: String,
    /// The index (by its declared name) that must serve it.
    pub index: Option<String>,
    /// A wheel file in the project folder (path relative to the manifest).
    pub wheel: Option<String>,
    /// Hashes (`sha256:…`) that a requirements file allows; empty means any.
    pub hashes: Vec<String>,
    /// True for a constraint that came from `-c` or a constraint node rather than a requirement.
    pub constraint: bool,
}

/// What an `index` node declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// How `index=` and the lock name it.
    pub name: String,
    /// The PEP 503/691 simple API's URL, without credentials.
    pub url: String,
    /// Replaces the default index.
    pub default: bool,
    /// Serves only the packages that name it with `index=`.
    pub explicit: bool,
}

/// An `os` node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OsRequirement {
    /// Debian's package name.
    pub name: String,
    /// A full Debian version or an upstream version; begins with a digit.
    pub version: Option<String>,
}

/// Where an image's root file system begins.
#[derive(Clone, Debug)]
pub enum Root {
    /// Made from a Debian suite's packages.
    Debian(Debian),
    /// Another OCI image.
    From(Spanned<String>),
}

/// A `debian` node.
#[derive(Clone, Debug)]
pub struct Debian {
    /// For example `bookworm`.
    pub suite: Spanned<String>,
    /// The archive's URL, if the manifest declares one; else the machine's settings give it.
    pub mirror: Option<Spanned<String>>,
    /// Archive components; default `main`.
    pub components: Vec<String>,
    /// Path of a keyring file in the project; default: the archive keys built into imagewright or the machine's.
    pub keyring: Option<Spanned<String>>,
    /// Also use `<suite>-updates` and `<suite>-security`.
    pub updates: bool,
    /// URL of an archive that keeps superseded packages below the same paths; in no key.
    pub snapshot: Option<Spanned<String>>,
    /// OS packages of the base itself.
    pub os: Vec<Spanned<OsRequirement>>,
}

/// A `file` node: project files that go into the image or a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSpec {
    /// Path relative to the manifest; a trailing `/` means the folder's content.
    pub from: String,
    /// Absolute path in the image.
    pub to: String,
    /// Permission bits that replace the default 0644/0755.
    pub mode: Option<u32>,
}

/// A `fetch` node: a download pinned by its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchSpec {
    /// Without credentials.
    pub url: String,
    /// Of the file.
    pub sha256: Digest,
    /// Absolute path in the image.
    pub to: String,
    /// Permission bits that replace the default 0644.
    pub mode: Option<u32>,
}

/// A `user` node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// Home folder.
    pub home: String,
}

impl Default for User {
    fn default() -> Self {
        Self {
            name: "app".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/app".into(),
        }
    }
}

/// What goes into the OCI image configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Environment, in the order of names.
    pub env: BTreeMap<String, String>,
    /// The user that the image runs as; `None`: the default user.
    pub user: Option<User>,
    /// Absolute.
    pub workdir: Option<String>,
    /// Entry point.
    pub entrypoint: Option<Vec<String>>,
    /// Default command.
    pub cmd: Option<Vec<String>>,
    /// Image labels.
    pub labels: BTreeMap<String, String>,
    /// Manifest annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Everything that one image asks for, its base chain merged in. Nothing in it depends on the machine.
#[derive(Clone, Debug)]
pub struct ImageRequest {
    /// As declared.
    pub name: Spanned<String>,
    /// Name of the outermost base, for messages.
    pub base: String,
    /// Where the file system begins.
    pub root: Root,
    /// Demanded by the manifest; for a Debian root always the suite's own. `None`: whatever the `from` image has.
    pub python: Option<Spanned<PythonMinor>>,
    /// Sorted, not empty.
    pub platforms: Vec<Platform>,
    /// OS packages above the base: the image's own layer.
    pub os: Vec<Spanned<OsRequirement>>,
    /// Requirements, from the base's as well as the image's lines and requirements files.
    pub pip: Vec<Spanned<PipRequirement>>,
    /// Version constraints.
    pub constraints: Vec<Spanned<PipRequirement>>,
    /// Requirements that replace what packages themselves declare.
    pub overrides: Vec<Spanned<PipRequirement>>,
    /// RFC 3339 instant; files uploaded later do not exist for the resolver.
    pub exclude_newer: Option<Spanned<String>>,
    /// Declared indexes, in order of preference.
    pub indexes: Vec<Spanned<Index>>,
    /// Project files.
    pub files: Vec<Spanned<FileSpec>>,
    /// Downloads.
    pub fetches: Vec<Spanned<FetchSpec>>,
    /// OCI configuration.
    pub config: Config,
    /// Tags beside the name's own, with `{version}` and `{git}`; in no key.
    pub tags: Vec<Spanned<String>>,
    /// What `{version}` stands for; in no key.
    pub version: Option<Spanned<String>>,
    /// Whether a name or tag that exists with another image is left alone; in no key.
    pub protected: bool,
}

/// A `run` node.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// As declared; unique among runs.
    pub name: Spanned<String>,
    /// A declared image.
    pub image: Spanned<String>,
    /// Groups runs; default `default`.
    pub project: String,
    /// Project files, mounted as the run's own layer.
    pub files: Vec<Spanned<FileSpec>>,
    /// Axis name → values, in declared order.
    pub matrix: Vec<(String, Vec<String>)>,
    /// Argument vector; `{axis}` is replaced by the cell's value.
    pub command: Vec<String>,
    /// Environment; values may contain `{axis}`.
    pub env: BTreeMap<String, String>,
    /// Working folder; default `/work`.
    pub workdir: Option<String>,
    /// What it may use.
    pub resources: Resources,
    /// In milliseconds.
    pub timeout_ms: u64,
    /// Network access.
    pub network: Network,
}

/// Requests and limits; limits are twice the requests unless declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Resources {
    /// Requested memory in bytes.
    pub ram_bytes: u64,
    /// Requested CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory limit in bytes.
    pub ram_limit_bytes: u64,
    /// CPU limit in thousandths of a core.
    pub cpu_limit_millis: u64,
    /// Most processes and threads at one time.
    pub pids_limit: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            ram_bytes: 4_000_000_000,
            cpu_millis: 1500,
            ram_limit_bytes: 8_000_000_000,
            cpu_limit_millis: 3000,
            pids_limit: 4096,
        }
    }
}

/// A run's network.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Loopback only.
    #[default]
    None,
    /// The machine's own.
    Host,
}

/// A place that images are pushed to: a `registry` or `push` node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host and path without trailing `/`, for example `registry.example.com/ml`.
    pub registry: String,
    /// Which repositories there are below it.
    pub layout: Layout,
    /// Whether it is spoken to without TLS although it is not this machine itself.
    pub plain_http: bool,
}

/// How images and what machines look up share the repositories of a destination.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Images as tags of the path itself, the rest in `cache` below it.
    #[default]
    Split,
    /// Everything in one repository.
    Single,
    /// A repository per image below the path, the rest in `cache` beside them.
    PerImage,
}

/// A public key whose signatures are believed: a `trust` node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustedKey(
    /// Ed25519 (RFC 8032).
    pub [u8; 32],
);

/// The whole manifest, bases merged into the images.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The text it came from.
    pub source: Arc<SourceText>,
    /// Where images are pushed to and looked up.
    pub registry: Option<Spanned<Destination>>,
    /// Where else images are pushed to.
    pub pushes: Vec<Spanned<Destination>>,
    /// Whose signatures are believed.
    pub trust: Vec<Spanned<TrustedKey>>,
    /// In declared order.
    pub images: Vec<ImageRequest>,
    /// In declared order.
    pub runs: Vec<RunSpec>,
    /// Project name → description.
    pub projects: BTreeMap<String, String>,
    /// Image → the images that it begins with (`image` in a base of its own).
    pub parents: BTreeMap<String, BTreeSet<String>>,
}

impl Manifest {
    /// The image of that name.
    pub fn image(&self, name: &str) -> Option<&ImageRequest> {
        self.images.iter().find(|image| image.name.value == name)
    }
}

/// Access to the project's text files (`pip-from`), so that the parser itself touches none.
pub trait ProjectFiles {
    /// The UTF-8 text of the file at `path`, relative to the manifest's folder; errors are worded for people.
    fn read(&self, path: &str) -> Result<String, String>;
}
