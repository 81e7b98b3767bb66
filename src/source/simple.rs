//! The simple repository API: which URL has a file. JSON (PEP 691) where the server offers it, else HTML (PEP 503).

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use reqwest::header;
use serde::Deserialize;
use url::Url;

use super::error::SourceError;
use crate::ambient::{IndexLogins, redact};
use crate::http::{Http, HttpError, with_login};

const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";
/// The largest pages of large indexes have about 40 MB.
const LARGEST_PAGE: usize = 256 << 20;

/// File name → URL of the project's page on `index`; empty if the index does not know the project.
pub(super) async fn files(
    http: &Http,
    logins: &IndexLogins,
    index: &str,
    project: &str,
) -> Result<BTreeMap<String, Url>, SourceError> {
    let page = format!("{}/{project}/", index.trim_end_matches('/'));
    let failed = |source| SourceError::list_of(project, source);
    let unreadable = |reason: String| SourceError::Unreadable {
        url: redact(&page),
        reason,
    };
    let mut parsed = Url::parse(&page).map_err(|error| unreadable(error.to_string()))?;
    let login = logins.for_url(&parsed).cloned();
    // The login goes into the header; reqwest would else make a second one of user info.
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    let request = |client: &reqwest::Client| {
        let request = client.get(parsed.clone()).header(header::ACCEPT, ACCEPT);
        with_login(request, login.as_ref())
    };
    let response = match http.send(&page, request).await {
        Err(error)
            if error
                .status()
                .is_some_and(|status| matches!(status.as_u16(), 404 | 410)) =>
        {
            return Ok(BTreeMap::new());
        }
        other => other.map_err(failed)?,
    };
    let base = response.url().clone();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let json = kind.is_some_and(|kind| kind.as_bytes().windows(4).any(|part| part == b"json"));
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| failed(HttpError::from_reqwest(&page, error)))?;
        if body.len() + chunk.len() > LARGEST_PAGE {
            return Err(unreadable(format!("it has more than {LARGEST_PAGE} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(body).map_err(|_| unreadable("it is not UTF-8".into()))?;
    let found = if json {
        from_json(&text, &base)
    } else {
        from_html(&text, &base)
    };
    found.map_err(unreadable)
}

#[derive(Deserialize)]
struct Page {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    url: String,
}

fn from_json(text: &str, base: &Url) -> Result<BTreeMap<String, Url>, String> {
    let page: Page = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let files = page.files.into_iter();
    Ok(files
        .filter_map(|file| Some((file.filename, base.join(&file.url).ok()?)))
        .collect())
}

fn from_html(text: &str, base: &Url) -> Result<BTreeMap<String, Url>, String> {
    let document =
        tl::parse(text, tl::ParserOptions::default()).map_err(|error| error.to_string())?;
    let tags = || document.nodes().iter().filter_map(|node| node.as_tag());
    let href = |tag: &tl::HTMLTag<'_>| {
        let mut attributes = tag.attributes().iter();
        let (_, value) = attributes.find(|(name, _)| name.eq_ignore_ascii_case("href"))?;
        Some(unescape(&value?))
    };
    let declared = tags().find(|tag| tag.name().as_utf8_str().eq_ignore_ascii_case("base"));
    let base = declared
        .and_then(|tag| base.join(&href(tag)?).ok())
        .unwrap_or_else(|| base.clone());
    let links = tags().filter(|tag| tag.name().as_utf8_str().eq_ignore_ascii_case("a"));
    Ok(links
        .filter_map(|tag| {
            let mut url = base.join(href(tag)?.trim()).ok()?;
            url.set_fragment(None);
            let last = url.path_segments()?.next_back()?.to_owned();
            let name = percent_encoding::percent_decode_str(&last)
                .decode_utf8()
                .ok()?;
            Some((name.into_owned(), url))
        })
        .collect())
}

/// HTML character references: the five that markup needs, and numeric ones.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(';').filter(|end| *end <= 10);
        match end.and_then(|end| Some((end, reference(&rest[1..end])?))) {
            Some((end, c)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn reference(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(html: &str) -> Vec<(String, String)> {
        let base = Url::parse("https://host.example/simple/lib/").unwrap();
        let files = from_html(html, &base).unwrap().into_iter();
        files.map(|(name, url)| (name, url.to_string())).collect()
    }

    #[test]
    fn html_links_of_all_kinds() {
        let html = r##"<!DOCTYPE html><html><head><title>x</title></head><body>
            <a href="../../files/lib-1.0-py3-none-any.whl#sha256=aa">lib</a>
            <A HREF='https://other.example/d/lib-2.0%2Blocal-py3-none-any.whl?a=1&amp;b=2#sha256=bb' data-yanked="">y</A>
            <a href="lib-3.0.tar.gz">source</a> <a>no link</a> <a href="">empty</a>
            <a href="/abs/lib-4.0-py3-none-any.whl" data-requires-python="&gt;=3.8">z</a></body></html>"##;
        let found = page(html);
        let url = |name: &str| {
            let mut files = found.iter();
            files
                .find(|(file, _)| file == name)
                .map(|(_, url)| url.as_str())
        };
        assert_eq!(
            url("lib-1.0-py3-none-any.whl"),
            Some("https://host.example/files/lib-1.0-py3-none-any.whl")
        );
        let local = "https://other.example/d/lib-2.0%2Blocal-py3-none-any.whl?a=1&b=2";
        assert_eq!(url("lib-2.0+local-py3-none-any.whl"), Some(local));
        assert_eq!(
            url("lib-3.0.tar.gz"),
            Some("https://host.example/simple/lib/lib-3.0.tar.gz")
        );
        assert_eq!(
            url("lib-4.0-py3-none-any.whl"),
            Some("https://host.example/abs/lib-4.0-py3-none-any.whl")
        );
    }

    #[test]
    fn a_base_element_counts() {
        let html = r#"<html><head><base href="https://cdn.example/x/"></head><body><a href="lib-1.0.whl">l</a></body></html>"#;
        assert_eq!(
            page(html),
            [(
                "lib-1.0.whl".into(),
                "https://cdn.example/x/lib-1.0.whl".into()
            )]
        );
    }

    #[test]
    fn character_references() {
        assert_eq!(unescape("a&amp;b&#39;&#x2B;&bogus;&"), "a&b'+&bogus;&");
    }

    #[test]
    fn json_that_is_none() {
        let base = Url::parse("https://host.example/simple/lib/").unwrap();
        assert!(from_json("{\"files\": 3}", &base).is_err());
        let page = r#"{"files":[{"filename":"f.whl","url":"../../f.whl"},{"filename":"g","url":"https://["}]}"#;
        assert_eq!(from_json(page, &base).unwrap().len(), 1);
    }
}
