//! The text of `imagewright.lock`: KDL 2, one artifact a line, everything sorted, so that diffs and merges are by line.
//!
//! ```kdl
//! lock 1 emitter=1
//! wheel "numpy-1.26.4-cp311-….whl" sha256="…" size=18250000
//! deb "libgomp1_12.2.0-14_amd64" sha256="…" size=116000 path="pool/…" suite="bookworm"
//! debian "5d0c1f2a" suite="bookworm" epoch=1747699200 {
//!     deb "base-files_12.4_amd64"
//! }
//! image "churn" platform="linux/amd64" {
//!     request "sha256:…"
//!     digest "sha256:…"
//!     base debian="5d0c1f2a"
//!     python "/usr/bin/python3.11" full="3.11.2" glibc="2.36"
//!     wheel "numpy-1.26.4-cp311-….whl"
//! }
//! ```
//! The name of a `debian` block is derived from its content; images with one base share the block.
//!
//! `write` makes this text; this module reads it and tells every mistake in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kdl::{KdlDocument, KdlNode, KdlValue};

use super::{
    LOCK_VERSION, Lock, LockedBase, LockedDeb, LockedImage, LockedPython, LockedWheel, WheelOrigin,
};
use crate::diagnostic::{Problem, Problems, SourceText, Span};
use crate::digest::Digest;
use crate::manifest::Platform;

impl Lock {
    /// Reads a lock's text.
    ///
    /// # Errors
    /// All mistakes with their spans: not KDL (a merge conflict, for example), another version, a reference to an
    /// artifact that the lock does not list.
    pub fn parse(source: &Arc<SourceText>) -> Result<Self, Problems> {
        let mut reader = Reader {
            source: Arc::clone(source),
            problems: Problems::default(),
        };
        let Some(document) = reader.document() else {
            return Err(reader.problems);
        };
        reader.check_once(&document);
        let lock = reader.lock(&document);
        reader.problems.or(lock)
    }
}

/// What to do about a lock that is wrong.
pub(super) const HELP: &str = "the lock is written by `imagewright lock`; restore it from version control, or delete it and lock again";

pub(super) struct Reader {
    pub(super) source: Arc<SourceText>,
    pub(super) problems: Problems,
}

impl Reader {
    pub(super) fn wrong(&mut self, span: Span, message: impl Into<String>) {
        let problem = Problem::new(&self.source, span, message, "here").help(HELP);
        self.problems.0.push(problem);
    }

    fn document(&mut self) -> Option<KdlDocument> {
        if let Some(at) = self.source.text.find("<<<<<<<") {
            self.wrong(Span::new(at, 7), "the lock has an unsolved merge conflict");
            return None;
        }
        match KdlDocument::parse_v2(&self.source.text) {
            Ok(document) => Some(document),
            Err(error) => {
                let span = error.diagnostics.first().map_or(Span::default(), |found| {
                    Span::new(found.span.offset(), found.span.len())
                });
                self.wrong(self.clamp(span), "the lock is not readable");
                None
            }
        }
    }

    fn clamp(&self, span: Span) -> Span {
        let text = &self.source.text;
        let boundary = |mut at: usize| {
            at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = boundary(span.start);
        let end = boundary(start + span.len);
        Span::new(start, end - start)
    }

    pub(super) fn span(&self, node: &KdlNode) -> Span {
        self.clamp(Span::new(node.span().offset(), node.name().value().len()))
    }

    fn lock(&mut self, document: &KdlDocument) -> Lock {
        let mut lock = Lock::default();
        let mut bases = BTreeMap::new();
        let mut version = None;
        for node in document.nodes() {
            match node.name().value() {
                "lock" => {
                    version = self.number(node, None);
                    lock.emitter = self.number(node, Some("emitter")).unwrap_or(0);
                }
                "wheel" => self.wheel(node, &mut lock),
                "deb" => self.deb(node, &mut lock),
                "debian" => self.debian(node, &mut bases),
                "image" => self.image(node, &bases, &mut lock),
                other => self.wrong(
                    self.span(node),
                    format!("`{other}` is nothing that a lock contains"),
                ),
            }
        }
        if version != Some(LOCK_VERSION) {
            let found =
                version.map_or("no version".into(), |found: u32| format!("version {found}"));
            self.wrong(
                Span::default(),
                format!("the lock has {found}, this imagewright reads version {LOCK_VERSION}"),
            );
        }
        self.check_references(&lock);
        lock
    }

    fn wheel(&mut self, node: &KdlNode, lock: &mut Lock) {
        let (Some(file), Some(sha256)) = (self.text(node, None), self.hex(node, "sha256")) else {
            return;
        };
        let Some((name, version)) = super::wheel_name_version(&file) else {
            self.wrong(
                self.span(node),
                format!("`{file}` is not a wheel's file name"),
            );
            return;
        };
        let optional = |key: &str| {
            node.get(key)
                .and_then(KdlValue::as_string)
                .map(str::to_owned)
        };
        let origin = if let Some(url) = optional("index") {
            WheelOrigin::Index(url)
        } else if let Some(url) = optional("url") {
            WheelOrigin::Url(url)
        } else if let Some(path) = optional("path") {
            WheelOrigin::Path(path)
        } else {
            WheelOrigin::DefaultIndex
        };
        let size = node
            .get("size")
            .and_then(KdlValue::as_integer)
            .and_then(|size| u64::try_from(size).ok());
        let wheel = LockedWheel {
            name,
            version,
            sha256,
            size,
            origin,
        };
        lock.wheels.insert(file, wheel);
    }

    fn deb(&mut self, node: &KdlNode, lock: &mut Lock) {
        let fields = (
            self.text(node, None),
            self.hex(node, "sha256"),
            self.number(node, Some("size")),
            self.text(node, Some("path")),
            self.text(node, Some("suite")),
        );
        let (Some(id), Some(sha256), Some(size), Some(path), Some(suite)) = fields else {
            return;
        };
        let parts: Vec<&str> = id.split('_').collect();
        let [package, version, architecture] = parts[..] else {
            self.wrong(
                self.span(node),
                format!("`{id}` does not name a package, version and architecture"),
            );
            return;
        };
        let deb = LockedDeb {
            package: package.into(),
            version: version.into(),
            architecture: architecture.into(),
            sha256,
            size,
            path,
            suite,
        };
        lock.debs.insert(id, deb);
    }

    fn debian(&mut self, node: &KdlNode, bases: &mut BTreeMap<String, LockedBase>) {
        let fields = (
            self.text(node, None),
            self.text(node, Some("suite")),
            self.number(node, Some("epoch")),
            self.digest(node, Some("request")),
        );
        let (Some(id), Some(suite), Some(epoch), Some(request)) = fields else {
            return;
        };
        let mirror = node
            .get("mirror")
            .and_then(KdlValue::as_string)
            .map(str::to_owned);
        let diff_id = node
            .get("diff-id")
            .and_then(|_| self.digest(node, Some("diff-id")));
        let debs = children(node)
            .filter_map(|child| self.text(child, None))
            .collect();
        let base = LockedBase::Debian {
            suite,
            mirror,
            epoch,
            request,
            debs,
            diff_id,
        };
        bases.insert(id, base);
    }

    fn image(&mut self, node: &KdlNode, bases: &BTreeMap<String, LockedBase>, lock: &mut Lock) {
        let (Some(name), Some(platform)) =
            (self.text(node, None), self.text(node, Some("platform")))
        else {
            return;
        };
        let platform = match platform.parse::<Platform>() {
            Ok(platform) => platform,
            Err(message) => return self.wrong(self.span(node), message),
        };
        let (mut request, mut digest, mut base, mut python) = (None, None, None, None);
        let (mut os_request, mut os_diff_id) = (None, None);
        let (mut wheels, mut debs) = (Vec::new(), Vec::new());
        for child in children(node) {
            match child.name().value() {
                "request" => request = self.digest(child, None),
                "digest" => digest = self.digest(child, None),
                "base" => base = self.base(child, bases),
                "python" => python = self.python(child),
                "os-layer" => {
                    os_request = self.digest(child, Some("request"));
                    os_diff_id = child
                        .get("diff-id")
                        .and_then(|_| self.digest(child, Some("diff-id")));
                }
                "wheel" => wheels.extend(self.text(child, None)),
                "deb" => debs.extend(self.text(child, None)),
                other => self.wrong(
                    self.span(child),
                    format!("`{other}` is nothing that a locked image contains"),
                ),
            }
        }
        let (Some(request), Some(base), Some(python)) = (request, base, python) else {
            self.wrong(
                self.span(node),
                format!("image `{name}` lacks its request, base or python"),
            );
            return;
        };
        let image = LockedImage {
            request,
            base,
            python,
            wheels,
            debs,
            os_request,
            os_diff_id,
            digest,
        };
        lock.images.entry(name).or_default().insert(platform, image);
    }

    fn base(&mut self, node: &KdlNode, bases: &BTreeMap<String, LockedBase>) -> Option<LockedBase> {
        if node.get("from").is_some() {
            let reference = self.text(node, Some("from"))?;
            let digest = self.digest(node, Some("digest"))?;
            return Some(LockedBase::From { reference, digest });
        }
        let id = self.text(node, Some("debian"))?;
        if !bases.contains_key(&id) {
            self.wrong(
                self.span(node),
                format!("no `debian \"{id}\"` block stands above"),
            );
        }
        bases.get(&id).cloned()
    }

    fn python(&mut self, node: &KdlNode) -> Option<LockedPython> {
        let path = self.text(node, None)?;
        let full = self.text(node, Some("full"))?;
        let glibc = self.text(node, Some("glibc"))?;
        let short: String = full.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let parsed = glibc
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (Ok(minor), Some(glibc)) = (short.parse(), parsed) else {
            self.wrong(
                self.span(node),
                "the Python or glibc version cannot be read",
            );
            return None;
        };
        Some(LockedPython {
            path,
            minor,
            full,
            glibc,
        })
    }

    fn check_references(&mut self, lock: &Lock) {
        for (name, image) in lock
            .images
            .iter()
            .flat_map(|(name, all)| all.values().map(move |image| (name, image)))
        {
            let base_debs: &[String] = match &image.base {
                LockedBase::Debian { debs, .. } => debs,
                LockedBase::From { .. } => &[],
            };
            let missing_debs = base_debs
                .iter()
                .chain(&image.debs)
                .filter(|id| !lock.debs.contains_key(*id));
            let missing_wheels = image
                .wheels
                .iter()
                .filter(|file| !lock.wheels.contains_key(*file));
            for missing in missing_wheels.chain(missing_debs) {
                self.wrong(
                    Span::default(),
                    format!("image `{name}` uses `{missing}`, which the lock does not list"),
                );
            }
        }
    }

    fn value<'a>(&mut self, node: &'a KdlNode, key: Option<&str>) -> Option<&'a KdlValue> {
        let found = match key {
            Some(key) => node.get(key),
            None => node.get(0),
        };
        if found.is_none() {
            let what = key.map_or("its argument".into(), |key| format!("`{key}=`"));
            self.wrong(
                self.span(node),
                format!("`{}` lacks {what}", node.name().value()),
            );
        }
        found
    }

    fn text(&mut self, node: &KdlNode, key: Option<&str>) -> Option<String> {
        let value = self.value(node, key)?;
        let text = value.as_string().map(str::to_owned);
        if text.is_none() {
            self.wrong(self.span(node), "a string is expected");
        }
        text
    }

    fn number<N: TryFrom<i128>>(&mut self, node: &KdlNode, key: Option<&str>) -> Option<N> {
        let value = self.value(node, key)?;
        let number = value
            .as_integer()
            .and_then(|number| N::try_from(number).ok());
        if number.is_none() {
            self.wrong(self.span(node), "a number is expected");
        }
        number
    }

    fn digest(&mut self, node: &KdlNode, key: Option<&str>) -> Option<Digest> {
        let text = self.text(node, key)?;
        text.parse()
            .map_err(|error| self.wrong(self.span(node), format!("{error}")))
            .ok()
    }

    fn hex(&mut self, node: &KdlNode, key: &str) -> Option<Digest> {
        let text = self.text(node, Some(key))?;
        Digest::from_hex(&text)
            .map_err(|error| self.wrong(self.span(node), format!("{error}")))
            .ok()
    }
}

fn children(node: &KdlNode) -> impl Iterator<Item = &KdlNode> {
    node.children().into_iter().flat_map(KdlDocument::nodes)
}
