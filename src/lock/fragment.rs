//! The lock of one image alone, which lies beside its record in a registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Lock, LockedBase, LockedImage};
use crate::diagnostic::{Problem, Problems, SourceText, Span};
use crate::manifest::Platform;

impl Lock {
    /// The media type of the text of [`Lock::only`] as a blob.
    pub const MEDIA_TYPE: &'static str = "application/vnd.imagewright.lock.v1+kdl";

    /// The lock of one image for one platform: its pins and the artifacts that it uses, nothing else. `None` if the
    /// lock does not have it.
    pub fn only(&self, name: &str, platform: Platform) -> Option<Self> {
        let image = self.images.get(name)?.get(&platform)?;
        let mut only = Self {
            emitter: self.emitter,
            ..Self::default()
        };
        only.copy_artifacts(self, image);
        let platforms = BTreeMap::from([(platform, image.clone())]);
        only.images.insert(name.to_owned(), platforms);
        Some(only)
    }

    /// Reads what [`Lock::only`] wrote, from a stranger: a text that [`Lock::to_text`] would not have written is refused
    /// before the parser sees it, which is patient with what a person wrote and slow with what an attacker did.
    ///
    /// # Errors
    /// As [`Lock::parse`]; when the text is not exactly the one that its content has, or is of other than one image.
    pub fn parse_only(
        source: &Arc<SourceText>,
    ) -> Result<(Self, String, Platform, LockedImage), Problems> {
        let wrong = |message: &str| {
            let problem = Problem::new(source, Span::default(), message, "here");
            Problems(vec![problem])
        };
        let foreign = "it is not the text that imagewright writes";
        if !has_shape(&source.text) {
            return Err(wrong(foreign));
        }
        let lock = Self::parse(source)?;
        if lock.to_text() != source.text {
            return Err(wrong(foreign));
        }
        let mut images = lock.images.iter().flat_map(|(name, platforms)| {
            let platforms = platforms.iter();
            platforms.map(move |(platform, image)| (name.clone(), *platform, image.clone()))
        });
        match (images.next(), images.next()) {
            (Some((name, platform, image)), None)
                if lock.only(&name, platform).as_ref() == Some(&lock) =>
            {
                Ok((lock, name, platform, image))
            }
            _ => Err(wrong("it is not the lock of one image alone")),
        }
    }

    /// Copies the artifacts that `image` uses from `other`, as far as it has them.
    pub fn copy_artifacts(&mut self, other: &Self, image: &LockedImage) {
        for file in &image.wheels {
            if let Some(wheel) = other.wheels.get(file) {
                self.wheels.insert(file.clone(), wheel.clone());
            }
        }
        for id in image.base.debs().iter().chain(&image.debs) {
            if let Some(deb) = other.debs.get(id) {
                self.debs.insert(id.clone(), deb.clone());
            }
        }
    }
}

impl LockedBase {
    /// Keys into `Lock::debs` of what the base itself consists of; none of an image.
    pub fn debs(&self) -> &[String] {
        match self {
            Self::Debian { debs, .. } => debs,
            Self::From { .. } => &[],
        }
    }
}

/// Whether every line is one that [`Lock::to_text`] could have written: closed strings on one line, blocks of one
/// level, and no comment but the first line.
fn has_shape(text: &str) -> bool {
    let mut depth = 0;
    for (at, line) in text.lines().enumerate() {
        if at == 0 && line.starts_with("// ") {
            continue;
        }
        if line == "}" {
            depth -= 1;
        } else {
            let Some(opens) = plain_line(line) else {
                return false;
            };
            depth += i32::from(opens);
        }
        if !(0..=1).contains(&depth) {
            return false;
        }
    }
    depth == 0
}

/// Whether the line opens a block; `None` if it holds what the writer never writes outside strings.
fn plain_line(line: &str) -> Option<bool> {
    let (line, opens) = match line.strip_suffix(" {") {
        Some(line) => (line, true),
        None => (line, false),
    };
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                loop {
                    match characters.next()? {
                        '\\' => {
                            characters.next()?;
                        }
                        '"' => break,
                        _ => {}
                    }
                }
                if characters.peek().is_some_and(|next| *next != ' ') {
                    return None;
                }
            }
            'a'..='z' | '0'..='9' | '-' | '=' | ' ' => {}
            _ => return None,
        }
    }
    Some(opens)
}
