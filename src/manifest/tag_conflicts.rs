//! Which tags the images of a manifest write, and those that two of them would write.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Destination, ImageRequest, Layout, Spanned};
use super::report::Report;
use super::tags::{KEY_TAGS, symbolic};
use super::values::shorten;
use crate::diagnostic::{Problem, Span};

/// What the fallback tag of referrers begins with (OCI distribution specification, "Referrers Tag Schema").
const REFERRERS_TAG: &str = "sha256";

/// Who writes a tag, and where that stands.
struct Writer<'m> {
    image: &'m ImageRequest,
    place: &'m Spanned<String>,
    /// `None` is the image's own name.
    tag: Option<String>,
}

impl Writer<'_> {
    /// What is written into a repository that the images share.
    fn shared(&self) -> String {
        let name = &self.image.name.value;
        match &self.tag {
            Some(tag) => format!("{name}-{tag}"),
            None => name.clone(),
        }
    }

    /// Repository and tag.
    fn at(&self, registry: &str, layout: Layout) -> (String, String) {
        match layout {
            Layout::Split | Layout::Single => (registry.to_owned(), self.shared()),
            Layout::PerImage => (
                format!("{registry}/{}", self.image.name.value),
                self.tag.clone().unwrap_or_else(|| "latest".into()),
            ),
        }
    }
}

/// Every tag that the images write, `{git}` left as it is.
fn writers(images: &[ImageRequest]) -> impl Iterator<Item = Writer<'_>> {
    images.iter().flat_map(|image| {
        let own = std::iter::once((&image.name, None));
        let tags = image.tags.iter().filter_map(|tag| {
            let text = symbolic(&tag.value, image)?;
            Some((tag, Some(text)))
        });
        let writer = |(place, tag)| Writer { image, place, tag };
        own.chain(tags).map(writer)
    })
}

/// Reports images that would write one tag, and tags and names that belong to imagewright itself.
pub(super) fn conflicts(
    images: &[ImageRequest],
    destinations: &[&Spanned<Destination>],
    report: &mut Report,
) {
    one_tag_each(images, destinations, report);
    let with = |layout: Layout| {
        let mut all = destinations.iter();
        all.find(|destination| destination.layout == layout)
    };
    for writer in writers(images) {
        let shared = writer.shared();
        if let Some(single) = with(Layout::Single)
            && KEY_TAGS.iter().any(|kind| is_key_tag(&shared, kind))
        {
            let label = "images and what machines look up share a repository here";
            report.push(reserved(&writer, &shared).also(single.span, label));
        }
        let mut written = places(destinations).map(|(registry, layout)| {
            let (_, tag) = writer.at(registry, layout);
            tag
        });
        if let Some(tag) = written.find(|tag| is_key_tag(tag, REFERRERS_TAG)) {
            report.push(reserved(&writer, &tag));
        }
    }
    let cache = images.iter().find(|image| image.name.value == "cache");
    if let (Some(image), Some(destination)) = (cache, with(Layout::PerImage)) {
        let problem = Problem::new(
            &image.name.source,
            image.name.span,
            "an image cannot be called `cache` where each image has a repository",
            "this repository holds what machines look up",
        )
        .also(destination.span, "each image has a repository here");
        report.push(problem.help("rename the image, or choose another layout"));
    }
}

/// Where images are pushed to; without a declaration, some place that is named on the command line.
fn places<'m>(
    destinations: &'m [&Spanned<Destination>],
) -> impl Iterator<Item = (&'m str, Layout)> {
    let somewhere = destinations.is_empty().then(|| ("", Layout::default()));
    let declared = destinations.iter();
    let declared = declared.map(|one| (one.registry.as_str(), one.layout));
    declared.chain(somewhere)
}

fn one_tag_each(
    images: &[ImageRequest],
    destinations: &[&Spanned<Destination>],
    report: &mut Report,
) {
    let mut seen: BTreeMap<(String, String), (&str, Writer<'_>)> = BTreeMap::new();
    let mut told: BTreeSet<(Span, Span)> = BTreeSet::new();
    for (registry, layout) in places(destinations) {
        for writer in writers(images) {
            let at = writer.at(registry, layout);
            let Some((before, first)) = seen.get(&at) else {
                seen.insert(at, (registry, writer));
                continue;
            };
            let spans = (first.place.span, writer.place.span);
            if first.image.name.value != writer.image.name.value && told.insert(spans) {
                let (repository, tag) = at;
                let problem = match *before == registry {
                    true => one_tag(first, &writer, &tag).help(
                        "rename one of the two, or give each image a repository: layout=\"per-image\"",
                    ),
                    false => one_tag(first, &writer, &format!("{repository}:{tag}"))
                        .help("rename one of the two, or push to places that have nothing in common"),
                };
                report.push(problem);
            }
        }
    }
}

fn one_tag(first: &Writer<'_>, writer: &Writer<'_>, tag: &str) -> Problem {
    let (one, other) = (&first.image.name.value, &writer.image.name.value);
    let message = format!(
        "the images `{one}` and `{other}` would both be pushed as `{}`",
        shorten(tag)
    );
    let place = writer.place;
    let label = format!("`{other}` writes the tag here");
    Problem::new(&place.source, place.span, message, label)
        .also(first.place.span, format!("`{one}` writes it here"))
}

/// `KIND-` and 64 hex digits, perhaps with a signer behind a point.
fn is_key_tag(tag: &str, kind: &str) -> bool {
    let rest = tag
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('-'));
    let hex = rest.map(|rest| rest.split('.').next().unwrap_or_default());
    hex.is_some_and(|hex| crate::digest::Digest::from_hex(hex).is_ok())
}

fn reserved(writer: &Writer<'_>, tag: &str) -> Problem {
    let (place, tag) = (writer.place, shorten(tag));
    let message = format!("the tag `{tag}` belongs to what machines look up");
    Problem::new(&place.source, place.span, message, "named like a key")
        .help("choose a name or tag without a digest")
}
