//! Who needs an image of the registry, and what would go with it.

use std::collections::BTreeSet;

use super::{Job, MOST, Target, children};
use crate::catalog::{Record, Status, Summary};
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::manifest::Root;
use crate::registry::Reference;

impl Job<'_> {
    pub(super) async fn refuse(&self, target: &Target, all: &[Target]) -> Result<(), Failure> {
        if self.is_protected(&target.name) {
            return Err(Failure::plain(
                Kind::Refused,
                format!("`{}` is protected", target.name),
                "give --force to remove it all the same",
            ));
        }
        let goes = |name: &str| all.iter().any(|other| other.name == name);
        let on = |child: &str, what: &str| {
            Failure::plain(
                Kind::Refused,
                format!("{what} `{child}` is built on `{}`", target.name),
                format!("remove `{child}` too, or give --force"),
            )
        };
        for child in self.children(target) {
            if !goes(child) && self.exists(child).await? {
                return Err(on(child, "image"));
            }
        }
        let source = self.catalog.source();
        let mut above = self.index.above(&source, &target.digests(), MOST)?;
        above.retain(|found| found.status == Status::Ready && !goes(&found.summary.name));
        for found in above {
            if self.is_there(&found.summary).await? {
                return Err(on(&found.summary.name, "the pushed image"));
            }
        }
        if let Some(tag) = self.holder(target, &target.digest, all).await? {
            return Err(Failure::plain(
                Kind::Refused,
                format!("{} is one platform of `{tag}`", target.digest),
                "remove the image with all its platforms, or give --force",
            ));
        }
        Ok(())
    }

    /// Other names of the target's manifest, which go with it.
    pub(super) async fn other_names(
        &self,
        target: &Target,
        all: &[Target],
    ) -> Result<Vec<String>, Failure> {
        let place = self.catalog.place();
        let mut others = Vec::new();
        let hex = target.digest.hex();
        let found = self.index.by_key(&self.catalog.source(), &hex, MOST)?;
        let names: BTreeSet<String> = found.into_iter().map(|found| found.summary.name).collect();
        for name in names {
            let tag = place.tag(&name, None);
            let same = place.image(&name).repository == target.reference.repository;
            if !same || all.iter().any(|other| other.name == name) {
                continue;
            }
            if self.named(target, &tag).await? == Some(target.digest) {
                others.push(name);
            }
        }
        Ok(others)
    }

    fn is_protected(&self, name: &str) -> bool {
        let declared = self.manifest.image(name);
        declared.is_some_and(|image| image.protected)
    }

    pub(super) fn refuse_shared(
        &self,
        target: &Target,
        name: &str,
        force: bool,
    ) -> Result<(), Failure> {
        let protected = self.is_protected(name);
        let (what, hint) = match (protected, force) {
            (true, _) => ("`, which is protected,", format!("remove `{name}` too")),
            (false, false) => ("`", format!("remove `{name}` too, or give --force")),
            (false, true) => return Ok(()),
        };
        Err(Failure::plain(
            Kind::Refused,
            format!(
                "`{name}{what} is the same image as `{}` and would go with it",
                target.name
            ),
            hint,
        ))
    }

    /// A tag in the target's repository that stays and needs the manifest `digest`: as an image of its own, or as one
    /// platform of an index.
    pub(super) async fn holder(
        &self,
        target: &Target,
        digest: &Digest,
        all: &[Target],
    ) -> Result<Option<String>, Failure> {
        let source = self.catalog.source();
        let mut asked = BTreeSet::new();
        for found in self.index.by_key(&source, &digest.hex(), MOST)? {
            let record = self.index.record(&source, &found.summary.record)?;
            let same = |record: &Record| {
                record.digest == *digest && record.repository == target.reference.repository
            };
            let Some(record) = record.filter(same) else {
                continue;
            };
            let named = record.index.unwrap_or(record.digest);
            if all.iter().any(|other| other.digest == named) {
                continue;
            }
            for tag in record.tags {
                if asked.insert((named, tag.clone()))
                    && self.named(target, &tag).await? == Some(named)
                {
                    return Ok(Some(tag));
                }
            }
        }
        Ok(None)
    }

    /// What a tag in the target's repository names now.
    async fn named(&self, target: &Target, tag: &str) -> Result<Option<Digest>, Failure> {
        let reference = Reference {
            tag: Some(tag.into()),
            digest: None,
            ..target.reference.clone()
        };
        let found = self.catalog.registry().head_manifest(&reference).await?;
        Ok(found.map(|found| found.digest))
    }

    /// Images of the manifest that begin with this one: by its name, or by its reference.
    fn children(&self, target: &Target) -> Vec<&str> {
        let mut children = children(self.manifest, &target.name);
        let place = self.catalog.place();
        let from = self.manifest.images.iter().filter(|image| {
            let Root::From(reference) = &image.root else {
                return false;
            };
            let Ok(from) = reference.value.parse::<Reference>() else {
                return false;
            };
            let here = from.host == target.reference.host
                && from.repository == target.reference.repository;
            let named = from.tag.as_deref() == Some(&*place.tag(&target.name, None));
            here && match from.digest {
                Some(digest) => target.digests().contains(&digest),
                None => named,
            }
        });
        children.extend(from.map(|image| image.name.value.as_str()));
        children
    }

    /// Whether the registry has an image of this declared name.
    async fn exists(&self, name: &str) -> Result<bool, Failure> {
        let place = self.catalog.place();
        let reference = Reference {
            tag: Some(place.tag(name, None)),
            ..place.image(name)
        };
        let found = self.catalog.registry().head_manifest(&reference).await?;
        Ok(found.is_some())
    }

    /// Whether the image of a record is still in the registry.
    async fn is_there(&self, summary: &Summary) -> Result<bool, Failure> {
        let reference = Reference {
            digest: Some(summary.digest),
            ..self.in_repository(summary)
        };
        let found = self.catalog.registry().head_manifest(&reference).await?;
        Ok(found.is_some())
    }
}
