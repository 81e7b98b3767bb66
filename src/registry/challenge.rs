//! `WWW-Authenticate` challenges (RFC 9110, section 11.3): Basic, and the registries' Bearer token flow.

use std::collections::BTreeMap;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// The registry's name for itself.
        service: Option<String>,
        /// What the token is to allow, as the registry words it.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best challenge among the header's values: Bearer before Basic; `None` if neither is offered.
    pub fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = false;
        for value in values {
            let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
            if scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            } else if scheme.eq_ignore_ascii_case("bearer") {
                let mut parameters = parameters(rest);
                if let Some(realm) = parameters.remove("realm") {
                    return Some(Self::Bearer {
                        realm,
                        service: parameters.remove("service"),
                        scope: parameters.remove("scope"),
                    });
                }
            }
        }
        basic.then_some(Self::Basic)
    }
}

/// `name="value", name=token, …`
fn parameters(mut text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = rest.find([',', ' ']).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        found.insert(name, value);
        text = after;
    }
    found
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries_parse() {
        let header = r#"Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:library/python:pull""#;
        let Some(Challenge::Bearer {
            realm,
            service,
            scope,
        }) = Challenge::choose([header].into_iter())
        else {
            panic!("no Bearer challenge");
        };
        assert_eq!(realm, "https://auth.example.com/token");
        assert_eq!(service.as_deref(), Some("registry.example.com"));
        assert_eq!(scope.as_deref(), Some("repository:library/python:pull"));
        assert_eq!(
            Challenge::choose([r#"Basic realm="x""#].into_iter()),
            Some(Challenge::Basic)
        );
        let both = ["Basic realm=x", r#"bearer Realm="a\"b, c" , service=s"#];
        let chosen = Challenge::choose(both.into_iter());
        assert!(matches!(chosen, Some(Challenge::Bearer { realm, .. }) if realm == "a\"b, c"));
        for other in ["Negotiate", "", "Bearer", "Bearer x"] {
            assert_eq!(Challenge::choose([other].into_iter()), None, "{other}");
        }
    }
}
