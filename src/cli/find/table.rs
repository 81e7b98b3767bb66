//! What `find` prints for people: a row for each image, within 80 columns where names allow it.

use unicode_width::UnicodeWidthStr as _;

use super::{FindDocument, FoundDocument, NearDocument};
use crate::cli::context::Context;
use crate::cli::output;
use crate::diagnostic::counted;
use crate::report::{align, neutral, shorten};

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Most columns of a name, a base and the like: whoever can push chooses them.
const NAME_WIDTH: usize = 60;
const CELL_WIDTH: usize = 24;
/// What packages on a line of their own begin with.
const INDENT: &str = "    ";
/// Most reasons that are told of one image.
const REASONS: usize = 10;

const HEAD: [&str; 7] = [
    "NAME", "DIGEST", "BASE", "PYTHON", "PLATFORM", "STATUS", "PUSHED",
];

/// The table on standard output; on standard error that there is more, or nothing.
pub(super) fn print(context: &Context, document: &FindDocument) {
    let tell = |text: &str| context.progress.tell(text);
    if document.images.is_empty() {
        tell("no image satisfies this");
        for line in document.nearest.iter().flat_map(near) {
            tell(&line);
        }
        return;
    }
    output::raw(table(&document.images).as_bytes());
    if let Some(token) = &document.next_page_token {
        tell(&format!("there are more: --page-token {token}"));
    }
}

/// Packages stand in a column if all fit, else on lines below their image.
fn table(images: &[FoundDocument]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(images.iter().map(row));
    let packages: Vec<Vec<String>> = images.iter().map(packages).collect();
    let text = align(&rows, &[]);
    let widest = text.lines().map(|line| line.width()).max().unwrap_or(0);
    let lines = text.lines().map(|line| (line, line.width()));
    let joined = packages.iter().map(|packages| packages.join(", "));
    let column: Vec<String> = std::iter::once("PACKAGES".to_owned())
        .chain(joined)
        .collect();
    let longest = column.iter().map(|cell| cell.width()).max().unwrap_or(0);
    if packages.iter().all(Vec::is_empty) {
        return text;
    }
    if widest + 2 + longest <= WIDTH {
        let lines = lines.zip(column).map(|((line, width), cell)| {
            let padding = " ".repeat(widest - width + 2);
            format!("{line}{padding}{cell}\n")
        });
        return lines.collect();
    }
    let mut below = std::iter::once(String::new()).chain(packages.iter().map(|list| wrapped(list)));
    let lines = lines.map(|(line, _)| format!("{line}\n{}", below.next().unwrap_or_default()));
    lines.collect()
}

fn row(image: &FoundDocument) -> [String; 7] {
    let day = image.pushed.split('T').next().unwrap_or_default();
    [
        shorten(&neutral(&image.name), NAME_WIDTH),
        image.digest.short(),
        shorten(&neutral(&image.base), CELL_WIDTH),
        shorten(&neutral(&image.python), CELL_WIDTH),
        image.platform.to_string(),
        image.status.as_str().into(),
        day.to_owned(),
    ]
}

fn packages(image: &FoundDocument) -> Vec<String> {
    let packages = image.packages.iter();
    let texts = packages.map(|package| neutral(&format!("{} {}", package.name, package.version)));
    texts
        .map(|text| shorten(&text, WIDTH - INDENT.len() - 1))
        .collect()
}

/// Lines of the list, indented.
fn wrapped(list: &[String]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (at, text) in list.iter().enumerate() {
        let comma = if at + 1 < list.len() { "," } else { "" };
        match lines.last_mut() {
            Some(line) if line.width() + text.width() + 1 + comma.len() <= WIDTH => {
                *line += &format!(" {text}{comma}");
            }
            _ => lines.push(format!("{INDENT}{text}{comma}")),
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn near(image: &NearDocument) -> Vec<String> {
    let (name, digest) = (neutral(&image.name), image.digest.short());
    let mut lines = vec![format!(
        "{name} for {} ({digest}) comes near, but:",
        image.platform
    )];
    let reasons = image.reasons.iter().take(REASONS);
    lines.extend(reasons.map(|reason| format!("  {}", neutral(reason))));
    let more = image.reasons.len().saturating_sub(REASONS);
    if more > 0 {
        lines.push(format!("  and {}", counted(more, "more reason")));
    }
    lines
}
