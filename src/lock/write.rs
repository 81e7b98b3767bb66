//! Writes the lock's text (see `read`). Equal locks give equal texts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{LOCK_VERSION, Lock, LockedBase, LockedDeb, LockedImage, LockedWheel, WheelOrigin};
use crate::digest::Digest;
use crate::manifest::Platform;

const HEAD: &str = "// Written by `imagewright lock`. Commit it; do not edit it.\n";

impl Lock {
    /// The lock's text. Equal locks give equal texts.
    pub fn to_text(&self) -> String {
        let mut out = String::from(HEAD);
        line(
            &mut out,
            0,
            "lock",
            &[LOCK_VERSION.to_string()],
            &[("emitter", self.emitter.to_string())],
        );
        if !self.wheels.is_empty() {
            out.push('\n');
        }
        for (file, wheel) in &self.wheels {
            write_wheel(&mut out, file, wheel);
        }
        if !self.debs.is_empty() {
            out.push('\n');
        }
        for (id, deb) in &self.debs {
            write_deb(&mut out, id, deb);
        }
        self.write_bases(&mut out);
        for (name, platforms) in &self.images {
            for (platform, image) in platforms {
                write_image(&mut out, name, *platform, image);
            }
        }
        out
    }

    fn write_bases(&self, out: &mut String) {
        let mut blocks = BTreeMap::new();
        for base in self
            .images
            .values()
            .flat_map(BTreeMap::values)
            .map(|image| &image.base)
        {
            if let LockedBase::Debian { .. } = base {
                blocks.insert(base_id(base), base);
            }
        }
        for (id, base) in blocks {
            let LockedBase::Debian {
                suite,
                mirror,
                epoch,
                request,
                debs,
                diff_id,
            } = base
            else {
                continue;
            };
            let mut properties = vec![
                ("suite", quote(suite)),
                ("epoch", epoch.to_string()),
                ("request", quote(&request.to_string())),
            ];
            if let Some(mirror) = mirror {
                properties.push(("mirror", quote(mirror)));
            }
            if let Some(diff_id) = diff_id {
                properties.push(("diff-id", quote(&diff_id.to_string())));
            }
            out.push('\n');
            open(out, "debian", &[quote(&id)], &properties);
            for deb in debs {
                line(out, 1, "deb", &[quote(deb)], &[]);
            }
            out.push_str("}\n");
        }
    }
}

fn write_wheel(out: &mut String, file: &str, wheel: &LockedWheel) {
    let mut properties = vec![("sha256", quote(&wheel.sha256.hex()))];
    if let Some(size) = wheel.size {
        properties.push(("size", size.to_string()));
    }
    match &wheel.origin {
        WheelOrigin::DefaultIndex => {}
        WheelOrigin::Index(url) => properties.push(("index", quote(url))),
        WheelOrigin::Url(url) => properties.push(("url", quote(url))),
        WheelOrigin::Path(path) => properties.push(("path", quote(path))),
    }
    line(out, 0, "wheel", &[quote(file)], &properties);
}

fn write_deb(out: &mut String, id: &str, deb: &LockedDeb) {
    let properties = [
        ("sha256", quote(&deb.sha256.hex())),
        ("size", deb.size.to_string()),
        ("path", quote(&deb.path)),
        ("suite", quote(&deb.suite)),
    ];
    line(out, 0, "deb", &[quote(id)], &properties);
}

fn write_image(out: &mut String, name: &str, platform: Platform, image: &LockedImage) {
    out.push('\n');
    open(
        out,
        "image",
        &[quote(name)],
        &[("platform", quote(&platform.to_string()))],
    );
    line(out, 1, "request", &[quote(&image.request.to_string())], &[]);
    if let Some(digest) = &image.digest {
        line(out, 1, "digest", &[quote(&digest.to_string())], &[]);
    }
    match &image.base {
        LockedBase::From { reference, digest } => {
            let properties = [
                ("from", quote(reference)),
                ("digest", quote(&digest.to_string())),
            ];
            line(out, 1, "base", &[], &properties);
        }
        base @ LockedBase::Debian { .. } => {
            line(out, 1, "base", &[], &[("debian", quote(&base_id(base)))]);
        }
    }
    let python = &image.python;
    let glibc = format!("{}.{}", python.glibc.0, python.glibc.1);
    let properties = [("full", quote(&python.full)), ("glibc", quote(&glibc))];
    line(out, 1, "python", &[quote(&python.path)], &properties);
    if let Some(request) = &image.os_request {
        let mut properties = vec![("request", quote(&request.to_string()))];
        if let Some(diff_id) = &image.os_diff_id {
            properties.push(("diff-id", quote(&diff_id.to_string())));
        }
        line(out, 1, "os-layer", &[], &properties);
    }
    for deb in &image.debs {
        line(out, 1, "deb", &[quote(deb)], &[]);
    }
    for wheel in &image.wheels {
        line(out, 1, "wheel", &[quote(wheel)], &[]);
    }
    out.push_str("}\n");
}

/// The first 8 hex digits of the digest of what a Debian base consists of (without its diff ID).
fn base_id(base: &LockedBase) -> String {
    let LockedBase::Debian {
        suite,
        mirror,
        epoch,
        request,
        debs,
        ..
    } = base
    else {
        return String::new();
    };
    let mirror = mirror.as_deref().unwrap_or("");
    let mut text = format!("{suite}\n{mirror}\n{epoch}\n{request}\n");
    for deb in debs {
        let _ = writeln!(text, "{deb}");
    }
    Digest::of(text).hex()[..8].to_owned()
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}' | '\u{feff}')
                || ('\u{200e}'..='\u{200f}').contains(&c)
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn line(
    out: &mut String,
    depth: usize,
    name: &str,
    arguments: &[String],
    properties: &[(&str, String)],
) {
    head(out, depth, name, arguments, properties);
    out.push('\n');
}

fn open(out: &mut String, name: &str, arguments: &[String], properties: &[(&str, String)]) {
    head(out, 0, name, arguments, properties);
    out.push_str(" {\n");
}

fn head(
    out: &mut String,
    depth: usize,
    name: &str,
    arguments: &[String],
    properties: &[(&str, String)],
) {
    out.push_str(&"    ".repeat(depth));
    out.push_str(name);
    for argument in arguments {
        let _ = write!(out, " {argument}");
    }
    for (key, value) in properties {
        let _ = write!(out, " {key}={value}");
    }
}
