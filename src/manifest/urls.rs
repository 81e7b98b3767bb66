//! URLs, registries and image references. None may hold credentials: those come from the machine's settings.

use url::Url;

use super::mistake::Mistake;
use super::paths;
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

/// `HOST[:PORT][/PATH]`, lower case, without scheme, tag and digest.
pub(super) fn registry(text: &str) -> Result<(), Mistake> {
    let help =
        "write host and prefix without scheme and tag, for example \"registry.example.com/ml\"";
    no_scheme(text, help)?;
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    host_and_port(text, host, help)?;
    if text.contains('/') {
        repository(text, path, host.len() + 1, help)?;
    }
    Ok(())
}

/// `HOST[:PORT]/PATH[:TAG][@sha256:…]` as the OCI distribution specification has it, or `oci:DIR[:TAG]`.
pub(super) fn image(text: &str) -> Result<(), Mistake> {
    let help = "write \"HOST/NAME:TAG\", for example \"registry.example.com/python:3.12-slim\", or \"oci:DIR\" for an OCI layout";
    if let Some(folder) = text.strip_prefix("oci:") {
        let (folder, tag) = folder
            .rsplit_once(':')
            .map_or((folder, None), |(folder, tag)| (folder, Some(tag)));
        paths::source(folder).map_err(|mistake| mistake.shifted(4))?;
        return tag.map_or(Ok(()), |found| image_tag(text, found, help));
    }
    no_scheme(text, help)?;
    let (rest, digest) = text
        .split_once('@')
        .map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    if digest.is_some_and(|digest| digest.parse::<crate::digest::Digest>().is_err()) {
        return Err(Mistake::at(
            rest.len()..text.len(),
            "the digest is not a SHA-256",
            "not `@sha256:` and 64 hex digits",
        )
        .help(help));
    }
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

fn offset(text: &str, part: &str) -> usize {
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
