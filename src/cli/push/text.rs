//! What `push` tells people.

use super::PushedDocument;
use crate::catalog::publish::Traffic;
use crate::cli::output::size;

/// One image at one destination, as lines.
pub(super) fn of(image: &PushedDocument, dry_run: bool) -> String {
    let pushed = &image.pushed;
    let tags: Vec<String> = pushed
        .tags
        .iter()
        .map(|tag| format!("{}:{tag}", pushed.repository))
        .collect();
    let done = match (pushed.is_unchanged(), dry_run) {
        (true, _) => "already pushed",
        (false, true) => "would be pushed",
        (false, false) => "pushed",
    };
    let mut lines = vec![
        format!("{} {done}: {}", image.name, tags.join(", ")),
        format!("  {}", pushed.digest),
        format!(
            "  layers: {}; documents: {}",
            moved(&pushed.layers),
            moved(&pushed.documents)
        ),
    ];
    if let Some(sources) = &image.sources {
        let told = match *sources == Traffic::default() {
            true => "kept already".into(),
            false => moved(sources),
        };
        lines.push(format!("  sources: {told}"));
    }
    if let Some(before) = pushed.supersedes {
        lines.push(format!("  supersedes {before}"));
    }
    for platform in &pushed.kept {
        lines.push(format!("  {platform} stays as it was"));
    }
    if let Some(key) = &image.signed_by {
        lines.push(format!("  signed by {key}"));
    }
    lines.join("\n")
}

/// `2 uploaded (1.2 MB), 3 there already (40 MB)`
fn moved(traffic: &Traffic) -> String {
    let parts = [
        (traffic.uploaded, "uploaded"),
        (traffic.mounted, "mounted"),
        (traffic.existing, "there already"),
    ];
    let told: Vec<String> = parts
        .iter()
        .filter(|(count, _)| count.count > 0)
        .map(|(count, what)| format!("{} {what} ({})", count.count, size(count.bytes)))
        .collect();
    match told.is_empty() {
        true => "none".into(),
        false => told.join(", "),
    }
}
