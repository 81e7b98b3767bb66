//! Lists that registries give in pages: `Link: <…>; rel="next"` (RFC 8288; OCI distribution specification, "Listing
//! Tags", "Listing Referrers").

use std::collections::BTreeSet;

use reqwest::header::{self, HeaderMap};
use url::Url;

use super::client::{Answer, Ask};
use super::{Registry, RegistryError};

/// Pages of one list.
const PAGES: usize = 40_000;
/// Pages without anything on them, one after the other.
const EMPTY_PAGES: usize = 8;
/// From so many pages on, each has to hold so many entries on average.
const SPARSE: (usize, usize) = (64, 4);

/// What one list may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of a page.
    pub page: u64,
    /// Bytes of all pages.
    pub all: u64,
    /// Entries of all pages.
    pub entries: usize,
}

impl Registry {
    /// Reads pages from `ask` on; `read` takes the entries out of one.
    ///
    /// # Errors
    /// Those of the registry; a list that is larger than `bounds`, that leads elsewhere or in a circle.
    pub(super) async fn pages<T>(
        &self,
        mut ask: Ask<'_>,
        bounds: Bounds,
        read: impl Fn(&Answer) -> Result<Vec<T>, String>,
    ) -> Result<Vec<T>, RegistryError> {
        let what = ask.what;
        let malformed = |reason: &str| RegistryError::Malformed {
            what: what.to_owned(),
            reason: reason.to_owned(),
        };
        let (mut entries, mut seen, mut empty) = (Vec::new(), BTreeSet::new(), 0);
        let mut left = bounds.all;
        for number in 0..PAGES {
            if !seen.insert(ask.url.to_string()) {
                return Err(malformed("its pages lead in a circle"));
            }
            let answer = self.call(&ask, bounds.page).await?;
            let page = read(&answer).map_err(|reason| malformed(&reason))?;
            left = left
                .checked_sub(answer.body.len() as u64)
                .ok_or_else(|| malformed(&format!("it has more than {} bytes", bounds.all)))?;
            empty = if page.is_empty() { empty + 1 } else { 0 };
            entries.extend(page);
            if entries.len() > bounds.entries {
                return Err(malformed(&format!(
                    "it lists more than {} entries",
                    bounds.entries
                )));
            }
            let Some(next) = next(&answer.headers) else {
                return Ok(entries);
            };
            if empty > EMPTY_PAGES {
                return Err(malformed("its pages are empty and do not end"));
            }
            if number >= SPARSE.0 && entries.len() < number * SPARSE.1 {
                return Err(malformed("its pages hold next to nothing and do not end"));
            }
            let next: Url = self.target(&ask, &answer.url, &next)?;
            if !self.is_own(ask.reference, &next) {
                return Err(malformed("its next page is on another host"));
            }
            ask.url = next;
        }
        Err(malformed("it has too many pages"))
    }
}

/// The target of the link whose relation is `next`.
fn next(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::LINK).iter();
    let mut values = values.filter_map(|value| value.to_str().ok());
    values.find_map(|value| {
        let mut rest = value;
        while let Some((_, after)) = rest.split_once('<') {
            let (target, after) = after.split_once('>')?;
            let (parameters, others) = after.split_once('<').unwrap_or((after, ""));
            if parameters.split([';', ',']).any(is_next) {
                return Some(target.to_owned());
            }
            rest = &after[after.len() - others.len()..];
            rest = match others.is_empty() {
                true => "",
                false => &value[value.len() - rest.len() - 1..],
            };
        }
        None
    })
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    let value = value.trim().trim_matches('"');
    name.trim().eq_ignore_ascii_case("rel")
        && value
            .split(' ')
            .any(|relation| relation.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        let cases = [
            (
                r#"</v2/a/tags/list?n=2&last=b>; rel="next""#,
                Some("/v2/a/tags/list?n=2&last=b"),
            ),
            ("<x>;rel=next", Some("x")),
            (r#"<a>; rel="prev", <b>; rel="last next""#, Some("b")),
            (
                r#"<a>; rel="prev"; title="x, <y>", <b>; REL=next"#,
                Some("b"),
            ),
            (r#"<a>; rel="prev""#, None),
            ("a; rel=next", None),
            ("<a", None),
            ("", None),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, value.parse().unwrap());
            assert_eq!(next(&headers).as_deref(), expected, "{value}");
        }
    }
}
