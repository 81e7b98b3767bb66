//! URLs, registries and image references. None may hold credentials: those come from the machine's settings.

use url::Url;

use super::mistake::Mistake;
use super::template::{self, Piece};
use super::values::shorten;

/// The URL of an index or archive: http or https, with a host, without user info, query and fragment.
pub(super) fn plain(text: &str) -> Result<(), Mistake> {
    fetch(text)?;
    match text.find(['?', '#']) {
        None => Ok(()),
        Some(at) => Err(Mistake::at(at..text.len(), "the URL has a query or fragment", "not part of an index or archive")
            .help("write the URL up to here; credentials belong into netrc, the keyring or the environment")),
    }
}

/// The URL of a download: as [`plain`], but a query may stand. (Credentials in it are found for every value.)
pub(super) fn fetch(text: &str) -> Result<(), Mistake> {
    no_login(text)?;
    let help = "write a URL such as \"https://packages.example.com/simple\"";
    let parsed = Url::parse(text).map_err(|error| {
        Mistake::whole(
            format!("`{}` is not a URL: {error}", shorten(text)),
            "not a URL",
        )
        .help(help)
    })?;
    if !matches!(parsed.scheme(), "http" | "https") {
        let scheme = parsed.scheme().len().min(text.len());
        return Err(Mistake::at(
            0..scheme,
            format!("`{}` URLs cannot be fetched", shorten(parsed.scheme())),
            "must be https or http",
        )
        .help(help));
    }
    let marked = text
        .get(parsed.scheme().len()..)
        .is_some_and(|rest| rest.starts_with("://"));
    if !marked || text.contains(char::is_whitespace) {
        return Err(
            Mistake::whole(format!("`{}` is not a URL", shorten(text)), "not a URL").help(help),
        );
    }
    Ok(())
}

/// As [`plain`], with `{timestamp}` for a time.
pub(super) fn snapshot(text: &str) -> Result<(), Mistake> {
    plain(text)?;
    for piece in template::pieces(text) {
        let range = match piece {
            Piece::Axis("timestamp", _) => continue,
            Piece::Literal(literal) if !literal.contains(['{', '}']) => continue,
            Piece::Literal(literal) => {
                let start = offset(text, literal);
                start..start + literal.len()
            }
            Piece::Axis(_, range) => range.start - 1..range.end + 1,
            Piece::Stray(range) => range,
        };
        return Err(Mistake::at(
            range,
            "a snapshot's URL knows {timestamp} alone",
            "means nothing here",
        )
        .help(
            "write {timestamp} where the time of the lock belongs, for example 20240630T120000Z",
        ));
    }
    Ok(())
}

/// `HOST[:PORT]/PATH`, lower case, without scheme, tag and digest.
pub(super) fn registry(text: &str) -> Result<(), Mistake> {
    let help =
        "write host and prefix without scheme and tag, for example \"registry.example.com/ml\"";
    no_scheme(text, help)?;
    if let Some((slash, _)) = text.match_indices('/').next()
        && let Some(at) = text[slash..].find([':', '@'])
    {
        return Err(Mistake::at(
            slash + at..text.len(),
            "a tag or digest stands behind the place of images",
            "remove this",
        )
        .help(help));
    }
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    host_and_port(text, host, help)?;
    if !host.contains(['.', ':']) && host != "localhost" {
        return Err(Mistake::at(
            0..host.len(),
            format!("`{}` does not say which registry", shorten(text)),
            "not a host: it has neither a dot nor a port",
        )
        .help(help));
    }
    if path.is_empty() {
        return Err(Mistake::whole(
            format!("`{}` has no path behind the host", shorten(text)),
            "repositories need a name",
        )
        .help(help));
    }
    repository(text, path, host.len() + 1, help)
}

/// `HOST[:PORT]/PATH[:TAG][@sha256:…]` as the OCI distribution specification has it, or `oci:DIR[:TAG]`.
pub(super) fn image(text: &str) -> Result<(), Mistake> {
    let help = "write \"HOST/NAME:TAG\", for example \"registry.example.com/python:3.12-slim\", or \"oci:DIR\" for an OCI layout";
    if let Some(layout) = text.strip_prefix("oci:") {
        return self::layout(text, layout, help);
    }
    no_scheme(text, help)?;
    let rest = without_digest(text, text, help)?;
    let Some((host, path)) = rest.split_once('/') else {
        return Err(Mistake::whole(
            format!("`{}` does not say which registry", shorten(text)),
            "the registry's host is missing",
        )
        .help(help));
    };
    host_and_port(text, host, help)?;
    let (path, found) = path
        .rsplit_once(':')
        .map_or((path, None), |(path, found)| (path, Some(found)));
    repository(text, path, host.len() + 1, help)?;
    found.map_or(Ok(()), |found| image_tag(text, found, help))
}

/// `DIR[:TAG][@sha256:…]`. A layout may lie outside the project, where several projects share it.
fn layout(text: &str, layout: &str, help: &str) -> Result<(), Mistake> {
    let layout = without_digest(text, layout, help)?;
    let (folder, tag) = match layout.rsplit_once(':') {
        Some((folder, tag)) if !tag.contains('/') => (folder, Some(tag)),
        _ => (layout, None),
    };
    if folder.is_empty() || folder.contains('\0') {
        return Err(
            Mistake::whole("`oci:` names no folder", "the layout's folder is missing").help(help),
        );
    }
    tag.map_or(Ok(()), |found| image_tag(text, found, help))
}

/// `rest`, the end of `text`, without the digest after `@`, which must be one.
fn without_digest<'a>(text: &str, rest: &'a str, help: &str) -> Result<&'a str, Mistake> {
    let Some((before, digest)) = rest.split_once('@') else {
        return Ok(rest);
    };
    if digest.parse::<crate::digest::Digest>().is_err() {
        let start = text.len() - digest.len() - 1;
        return Err(Mistake::at(
            start..text.len(),
            "the digest is not a SHA-256",
            "not `@sha256:` and 64 hex digits",
        )
        .help(help));
    }
    Ok(before)
}

/// User info before the first slash of a text that has no scheme (with one, it is found in every value).
fn no_login(text: &str) -> Result<(), Mistake> {
    let host = text.split('/').next().unwrap_or_default();
    match host.rfind('@') {
        Some(at) if !host[at..].contains("sha256:") => Err(Mistake::at(0..at, "the value holds a user name or password", "a manifest must not hold secrets")
            .help("remove it; imagewright takes credentials from netrc, the keyring or the environment of the machine that builds")
            .secret()),
        _ => Ok(()),
    }
}

fn no_scheme(text: &str, help: &str) -> Result<(), Mistake> {
    no_login(text)?;
    match text.find("://") {
        Some(at) => Err(Mistake::at(
            0..at + 3,
            "a scheme stands before the registry",
            "remove this",
        )
        .help(help)),
        None => Ok(()),
    }
}

/// Where `part`, a slice of `text`, begins in it.
pub(super) fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize)
        .saturating_sub(text.as_ptr() as usize)
        .min(text.len())
}

fn host_and_port(text: &str, host: &str, help: &str) -> Result<(), Mistake> {
    let (name, port) = host
        .rsplit_once(':')
        .map_or((host, None), |(name, port)| (name, Some(port)));
    let good_port =
        port.is_none_or(|port| port.parse::<u16>().is_ok_and(|n| n > 0) && !port.starts_with('+'));
    let good_name = !name.is_empty()
        && name.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        });
    if good_name && good_port {
        return Ok(());
    }
    Err(Mistake::at(
        0..host.len().min(text.len()),
        format!("`{}` is not a registry's host", shorten(host)),
        "not a host and port",
    )
    .help(help))
}

fn repository(text: &str, path: &str, at: usize, help: &str) -> Result<(), Mistake> {
    let mut start = at;
    for part in path.split('/') {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = part.starts_with(edge)
            && part.ends_with(edge)
            && part.chars().all(|c| edge(c) || "._-".contains(c));
        if !good {
            let end = (start + part.len()).min(text.len());
            return Err(Mistake::at(
                start.min(end)..end,
                format!("`{}` is not part of a repository's name", shorten(part)),
                "lower-case letters, digits and `.`, `_`, `-` between them",
            )
            .help(help));
        }
        start += part.len() + 1;
    }
    Ok(())
}

fn image_tag(text: &str, found: &str, help: &str) -> Result<(), Mistake> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if found.starts_with(word)
        && found.len() <= 128
        && found.chars().all(|c| word(c) || ".-".contains(c))
    {
        return Ok(());
    }
    let start = offset(text, found);
    Err(Mistake::at(
        start..start + found.len(),
        format!("`{}` is not a tag", shorten(found)),
        "not a tag",
    )
    .help(help))
}
