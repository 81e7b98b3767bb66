//! What a registry can answer instead of what was asked for.

use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use super::CredentialError;
use super::retry::retry_after;
use crate::diagnostic::{Explain, Kind, is_wild};
use crate::digest::Digest;
use crate::http::HttpError;
use crate::store::StoreError;

/// Why a registry did not give what was asked for. Holds no credential and no query string.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum RegistryError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{what} does not exist in the registry{}", said(message))]
    NotFound { what: String, message: String },
    #[error("the registry {host} asks for credentials for {what}; none are configured")]
    NoCredentials { host: String, what: String },
    #[error("the registry refuses {what} to these credentials{}", said(message))]
    Denied { what: String, message: String },
    #[error("the registry answered {status} for {what}{}", said(message))]
    Status {
        what: String,
        status: StatusCode,
        message: String,
        /// What the server told to wait.
        after: Option<Duration>,
    },
    #[error("the registry wants fewer requests than {what} takes{}", said(message))]
    TooManyRequests {
        what: String,
        message: String,
        /// What the server told to wait.
        after: Option<Duration>,
    },
    #[error("the registry does not offer this: {what}{}", said(message))]
    Unsupported { what: String, message: String },
    #[error("the registry does not take the name of {what}{}", said(message))]
    Name { what: String, message: String },
    #[error(
        "the registry does not know the upload of {what} any more{}",
        said(message)
    )]
    UploadLost { what: String, message: String },
    #[error(
        "the registry does not go on with the upload of {what} there{}",
        said(message)
    )]
    OutOfStep { what: String, message: String },
    #[error(
        "the registry says that what was sent as {what} is something else{}",
        said(message)
    )]
    WrongContent { what: String, message: String },
    #[error("the registry does not have all parts of {what}{}", said(message))]
    MissingParts { what: String, message: String },
    #[error("the registry does not accept {what}{}", said(message))]
    InvalidManifest { what: String, message: String },
    #[error("the registry's answer for {what} makes no sense: {reason}")]
    Malformed { what: String, reason: String },
    #[error("cannot read {what} to send it: {source}")]
    Content { what: String, source: io::Error },
    #[error("the transfer of {what} has come to a standstill")]
    Stalled { what: String },
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    #[error("{what} ended after {got} of {size} bytes")]
    Truncated { what: String, got: u64, size: u64 },
    #[error("{what} has {found}, expected {expected}")]
    WrongDigest {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("the registry has {found} bytes of {what}, expected {expected}")]
    WrongSize {
        what: String,
        found: u64,
        expected: u64,
    },
    #[error("others keep changing {what}")]
    Contended { what: String },
    #[error("the registry {host} wants authentication that imagewright does not know: {challenge}")]
    Challenge { host: String, challenge: String },
    #[error("the token server {url} of the registry {host} gave no token: {reason}")]
    NoToken {
        host: String,
        url: String,
        reason: &'static str,
    },
    #[error(
        "the token server {url} of the registry {host} is not reached by HTTPS: nothing is sent there"
    )]
    InsecureTokenServer { host: String, url: String },
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

impl Explain for RegistryError {
    fn kind(&self) -> Kind {
        match self {
            Self::Http(error) => error.kind(),
            Self::Credentials(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::NotFound { .. } => Kind::NotFound,
            Self::NoCredentials { .. } | Self::Denied { .. } => Kind::Unauthorised,
            Self::Name { .. } => Kind::Usage,
            Self::TooLarge { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::WrongContent { .. }
            | Self::InvalidManifest { .. }
            | Self::Malformed { .. }
            | Self::Unsupported { .. }
            | Self::NoToken { .. }
            | Self::InsecureTokenServer { .. } => Kind::Refused,
            _ => Kind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Http(error) if error.kind() == Kind::Unauthorised => LOG_IN,
            Self::Http(error) if error.is_without_tls() => {
                "check host and port; if the registry has plain HTTP only, declare it: registry \"HOST/PATH\" plain-http=#true"
            }
            Self::Http(error) => return error.hint(),
            Self::Credentials(error) => return error.hint(),
            Self::Store(error) => return error.hint(),
            Self::NotFound { .. } => "check the name and tag; private images may need a login",
            Self::NoCredentials { host, .. } => {
                return Some(format!(
                    "log in with `docker login {host}` or `podman login {host}`"
                ));
            }
            Self::Denied { .. } => {
                "the credentials that are configured for it are wrong, or may not do this: log in as somebody who may, with `docker login` or `podman login`"
            }
            Self::TooLarge { .. } | Self::WrongDigest { .. } => {
                "the registry, or something between, sends other bytes than it promised: do not trust it"
            }
            Self::WrongSize { .. } => {
                "its copy is damaged, and it takes none that it believes to have: remove the blob from its storage, then push again"
            }
            Self::Malformed { .. } => {
                "check that this is a registry, and that no proxy or login page answers in its place"
            }
            Self::Unsupported { .. } => "the registry's administrator may have switched it off",
            Self::Name { .. } => "choose another repository or tag",
            Self::WrongContent { .. } | Self::Content { .. } => {
                "the copy in the store may be damaged: build the image again"
            }
            Self::MissingParts { .. } => "the registry may have removed them meanwhile: push again",
            Self::TooManyRequests { .. } => "wait a while, then try again",
            Self::Truncated { .. }
            | Self::Stalled { .. }
            | Self::UploadLost { .. }
            | Self::OutOfStep { .. }
            | Self::Contended { .. } => "try again",
            Self::Status { .. } => "try again; if it stays so, the registry's own log tells why",
            Self::InvalidManifest { .. }
            | Self::Challenge { .. }
            | Self::NoToken { .. }
            | Self::InsecureTokenServer { .. } => return None,
        };
        Some(hint.into())
    }
}

const LOG_IN: &str = "log in to this registry with `docker login` or `podman login`";

/// The error body of the distribution API (distribution specification, "Error Codes").
#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<BodyError>,
}

#[derive(Deserialize)]
struct BodyError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl RegistryError {
    /// The error behind an answer with an error status; `body` is its (start of the) body. No text of `secrets` is
    /// repeated.
    pub(super) fn from_answer(
        what: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        secrets: &[String],
    ) -> Self {
        let errors = serde_json::from_slice::<Body>(body)
            .unwrap_or_default()
            .errors;
        let (what, message) = (what.to_owned(), words(&errors, secrets));
        let after = retry_after(headers);
        // Next to other codes too: they are of the search for the parts.
        if errors
            .iter()
            .any(|error| error.code == "MANIFEST_BLOB_UNKNOWN")
        {
            return Self::MissingParts { what, message };
        }
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Self::OutOfStep { what, message };
        }
        let code = errors.first().map_or("", |error| error.code.as_str());
        match code {
            "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" => return Self::NotFound { what, message },
            "BLOB_UNKNOWN" if status == StatusCode::NOT_FOUND => {
                return Self::NotFound { what, message };
            }
            "BLOB_UNKNOWN" => return Self::MissingParts { what, message },
            "BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID" => {
                return Self::UploadLost { what, message };
            }
            "RANGE_INVALID" => return Self::OutOfStep { what, message },
            "DIGEST_INVALID" | "SIZE_INVALID" => return Self::WrongContent { what, message },
            "MANIFEST_INVALID" | "MANIFEST_UNVERIFIED" | "TAG_INVALID" => {
                return Self::InvalidManifest { what, message };
            }
            "NAME_INVALID" => return Self::Name { what, message },
            "UNSUPPORTED" => return Self::Unsupported { what, message },
            "TOOMANYREQUESTS" => {
                return Self::TooManyRequests {
                    what,
                    message,
                    after,
                };
            }
            "DENIED" | "UNAUTHORIZED" => return Self::Denied { what, message },
            _ => {}
        }
        match status {
            StatusCode::NOT_FOUND => Self::NotFound { what, message },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied { what, message },
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                Self::Unsupported { what, message }
            }
            StatusCode::TOO_MANY_REQUESTS => Self::TooManyRequests {
                what,
                message,
                after,
            },
            status => Self::Status {
                what,
                status,
                message,
                after,
            },
        }
    }

    /// Whether another attempt may end otherwise.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Http(error) => error.is_transient(),
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::TooManyRequests { .. } | Self::Truncated { .. } | Self::Stalled { .. } => true,
            _ => false,
        }
    }

    /// What the server told to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { after, .. } | Self::TooManyRequests { after, .. } => *after,
            _ => None,
        }
    }

    /// The registry answered, and did not do it for a reason of its own.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Status { status, .. } => status.is_client_error(),
            Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::NoCredentials { .. }
            | Self::Unsupported { .. }
            | Self::Name { .. }
            | Self::WrongContent { .. }
            | Self::OutOfStep { .. }
            | Self::UploadLost { .. } => true,
            _ => false,
        }
    }
}

/// Codes and messages, cut, and without what could write to our terminal or repeats a secret.
fn words(errors: &[BodyError], secrets: &[String]) -> String {
    let all: Vec<String> = errors
        .iter()
        .take(3)
        .map(|error| match error.message.is_empty() {
            true => error.code.clone(),
            false => format!("{} ({})", error.message, error.code),
        })
        .collect();
    tame(&all.join(", "), secrets)
}

/// At most 300 characters of a foreign text, with neither control and direction characters nor secrets.
pub(super) fn tame(text: &str, secrets: &[String]) -> String {
    let mut text: String = text.chars().filter(|c| !is_wild(*c)).collect();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.as_str(), "…");
    }
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> RegistryError {
        let status = StatusCode::from_u16(status).unwrap();
        RegistryError::from_answer("r/a", status, &HeaderMap::new(), body.as_bytes(), &[])
    }

    #[test]
    fn codes_decide_the_kind_and_messages_are_tame() {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest \u001b[31m\u202eunknown"}]}"#;
        let error = answer(404, body);
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("[31munknown"), "{error}");
        let codes = [
            (401, "UNAUTHORIZED", Kind::Unauthorised),
            (403, "DENIED", Kind::Unauthorised),
            (404, "NAME_UNKNOWN", Kind::NotFound),
            (404, "BLOB_UNKNOWN", Kind::NotFound),
            (404, "MANIFEST_BLOB_UNKNOWN", Kind::Unavailable),
            (404, "BLOB_UPLOAD_UNKNOWN", Kind::Unavailable),
            (416, "SIZE_INVALID", Kind::Unavailable),
            (400, "RANGE_INVALID", Kind::Unavailable),
            (400, "DIGEST_INVALID", Kind::Refused),
            (400, "SIZE_INVALID", Kind::Refused),
            (400, "MANIFEST_INVALID", Kind::Refused),
            (400, "NAME_INVALID", Kind::Usage),
            (405, "UNSUPPORTED", Kind::Refused),
            (429, "TOOMANYREQUESTS", Kind::Unavailable),
            (403, "<html>", Kind::Unauthorised),
            (405, "", Kind::Refused),
            (418, "", Kind::Unavailable),
            (503, "", Kind::Unavailable),
        ];
        for (status, code, kind) in codes {
            let body = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
            let error = answer(status, &body);
            assert_eq!(error.kind(), kind, "{code}: {error:?}");
            assert!(error.to_string().contains("r/a"), "{error}");
        }
    }

    #[test]
    fn missing_parts_are_told_whatever_else_went_wrong() {
        let codes = [
            r#"{"code":"DIGEST_INVALID"}"#,
            r#"{"code":"MANIFEST_BLOB_UNKNOWN"}"#,
        ];
        let error = answer(400, &format!(r#"{{"errors":[{}]}}"#, codes.join(",")));
        assert!(
            matches!(error, RegistryError::MissingParts { .. }),
            "{error:?}"
        );
    }

    #[test]
    fn any_body_gives_an_error_of_bounded_length() {
        let long = format!(
            r#"{{"errors":[{{"code":"X","message":"{}"}}]}}"#,
            "y".repeat(100_000)
        );
        for body in [
            "",
            "null",
            "[]",
            "{\"errors\":7}",
            "{\"errors\":[null]}",
            &long,
        ] {
            let error = answer(400, body);
            assert!(error.to_string().chars().count() < 400, "{error}");
        }
    }

    #[test]
    fn a_secret_that_a_server_repeats_stays_out() {
        let body = br#"{"errors":[{"code":"DENIED","message":"bad header: Bearer T0KEN!"}]}"#;
        let secrets = ["T0KEN".to_owned(), String::new()];
        let (status, headers) = (StatusCode::FORBIDDEN, HeaderMap::new());
        let error = RegistryError::from_answer("r/a", status, &headers, body, &secrets);
        assert!(!format!("{error}{error:?}").contains("T0KEN"), "{error}");
    }
}
