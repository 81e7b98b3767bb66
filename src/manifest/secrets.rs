//! What looks like a credential. A manifest is committed and ends up in images: secrets have no place in it.

use std::ops::Range;

/// Beginnings of well-known tokens, and how many characters must follow at least.
const TOKEN_PREFIXES: &[(&str, usize, &str)] = &[
    ("ghp_", 30, "a GitHub token"),
    ("gho_", 30, "a GitHub token"),
    ("ghu_", 30, "a GitHub token"),
    ("ghs_", 30, "a GitHub token"),
    ("ghr_", 30, "a GitHub token"),
    ("github_pat_", 20, "a GitHub token"),
    ("glpat-", 16, "a GitLab token"),
    ("pypi-", 40, "a package index token"),
    ("hf_", 30, "a Hugging Face token"),
    ("xoxb-", 20, "a Slack token"),
    ("xoxp-", 20, "a Slack token"),
    ("xoxa-", 20, "a Slack token"),
    ("sk-", 32, "an API key"),
    ("sk_live_", 16, "an API key"),
    ("rk_live_", 16, "an API key"),
    ("AKIA", 16, "an AWS access key"),
    ("ASIA", 16, "an AWS access key"),
    ("AIza", 30, "a Google API key"),
    ("npm_", 30, "a package index token"),
    ("dckr_pat_", 20, "a Docker token"),
    ("eyJhbGciOi", 30, "a JSON web token"),
];

/// Query parameters that carry credentials.
const SECRET_PARAMETERS: &[&str] = &[
    "token",
    "access_token",
    "auth",
    "auth_token",
    "private_token",
    "api_key",
    "apikey",
    "key",
    "password",
    "passwd",
    "pwd",
    "secret",
    "client_secret",
    "sig",
    "signature",
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "x-goog-signature",
    "x-goog-credential",
    "awsaccesskeyid",
    "jwt",
];

/// The bytes of `text` that look like a secret whatever they are used for, and what they look like.
pub(super) fn in_value(text: &str) -> Option<(Range<usize>, &'static str)> {
    if let Some(at) = text.find("-----BEGIN ")
        && text[at..].contains("PRIVATE KEY")
    {
        return Some((at..text.len(), "a private key"));
    }
    in_url(text).or_else(|| token(text))
}

fn token(text: &str) -> Option<(Range<usize>, &'static str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    for (prefix, rest, what) in TOKEN_PREFIXES {
        for (at, _) in text.match_indices(prefix) {
            let begins = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
            let tail = &text[at + prefix.len()..];
            let len = tail.find(|c| !part(c)).unwrap_or(tail.len());
            if begins
                && len >= *rest
                && tail[..len].contains(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase())
            {
                return Some((at..at + prefix.len() + len, what));
            }
        }
    }
    None
}

/// User info or a credential parameter in the first URL that has one.
fn in_url(text: &str) -> Option<(Range<usize>, &'static str)> {
    for (scheme, _) in text.match_indices("://") {
        let start = scheme + 3;
        let rest = &text[start..];
        let url_end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>'))
            .unwrap_or(rest.len());
        let url = &rest[..url_end];
        let authority = &url[..url.find(['/', '?', '#', '\\']).unwrap_or(url.len())];
        if let Some(at) = authority.rfind('@')
            && at > 0
        {
            return Some((start..start + at, "a user name or password"));
        }
        if let Some(range) = secret_parameter(url) {
            return Some((start + range.start..start + range.end, "a credential"));
        }
    }
    None
}

fn secret_parameter(url: &str) -> Option<Range<usize>> {
    let mut at = url.find('?')? + 1;
    for pair in url[at..].split(['&', '#', ';']) {
        if let Some((key, value)) = pair.split_once('=')
            && !value.is_empty()
            && SECRET_PARAMETERS.contains(&key.to_ascii_lowercase().as_str())
        {
            let start = at + key.len() + 1;
            return Some(start..start + value.len());
        }
        at += pair.len() + 1;
    }
    None
}

/// Whether a variable of that name usually holds a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let last = upper.rsplit('_').next().unwrap_or_default();
    let ends = [
        "TOKEN",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "SECRET",
        "SECRETS",
        "CREDENTIAL",
        "CREDENTIALS",
        "APIKEY",
    ];
    let pairs = [
        "API_KEY",
        "ACCESS_KEY",
        "ACCESS_KEY_ID",
        "SECRET_KEY",
        "PRIVATE_KEY",
        "AUTH_KEY",
        "ENCRYPTION_KEY",
    ];
    ends.contains(&last)
        || pairs
            .iter()
            .any(|pair| upper == *pair || upper.ends_with(&format!("_{pair}")))
        || (upper.contains("SECRET") && !upper.ends_with("_FILE") && !upper.ends_with("_PATH"))
        || ["PASSWORD", "APIKEY"]
            .iter()
            .any(|tail| upper.ends_with(tail))
}

/// Whether a value under such a name is no secret after all: empty, or a special token of a vocabulary.
pub(super) fn is_harmless(value: &str) -> bool {
    let special = |open: char, close: char| {
        value.starts_with(open) && value.ends_with(close) && value.len() <= 32
    };
    value.is_empty() || special('<', '>') || special('[', ']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_seen_and_harmless_values_are_not() {
        for secret in [
            "https://user:pw@packages.example.com/simple",
            "https://token@packages.example.com/simple",
            "postgres://u:p@db/x",
            "https://example.com/m.bin?x=1&access_token=abc",
            "-----BEGIN RSA PRIVATE KEY-----",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nabc",
            concat!("Bearer gh", "p_0123456789abcdefghijklmnopqrstuvwxyz"),
            concat!("AKI", "AIOSFODNN7EXAMPLE"),
        ] {
            assert!(in_value(secret).is_some(), "{secret}");
        }
        for harmless in [
            "https://example.com/@scope/x?download=true",
            "git@example.com:x/y",
            "sk-learn",
            "hf_model",
            "1",
            "",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert!(in_value(harmless).is_none(), "{harmless}");
        }
        for name in [
            "HF_TOKEN",
            "DB_PASSWORD",
            "PGPASSWORD",
            "SECRET",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "OPENAI_API_KEY",
            "client_secret",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "TOKENIZERS_PARALLELISM",
            "MAX_TOKENS",
            "OMP_NUM_THREADS",
            "KEYBOARD",
            "TOKEN_FILE",
            "SECRET_FILE",
            "PWD",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(is_harmless("<pad>") && !is_harmless("hunter2"));
    }
}
