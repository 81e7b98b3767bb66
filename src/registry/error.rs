//! What a registry can answer instead of what was asked for.

use reqwest::StatusCode;
use serde::Deserialize;

use super::CredentialError;
use crate::diagnostic::{Explain, Kind};
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
    },
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
    #[error("the registry {host} wants authentication that imagewright does not know: {challenge}")]
    Challenge { host: String, challenge: String },
    #[error("the token server {url} of the registry gave no token")]
    NoToken { url: String },
    #[error(
        "the token server {url} of the registry is not reached by HTTPS: no credentials are sent there"
    )]
    InsecureTokenServer { url: String },
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
            Self::TooLarge { .. } | Self::WrongDigest { .. } => Kind::Refused,
            Self::InsecureTokenServer { .. } => Kind::Refused,
            _ => Kind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Http(error) => match error.kind() {
                Kind::Unauthorised => LOG_IN.into(),
                _ => return error.hint(),
            },
            Self::Credentials(error) => return error.hint(),
            Self::Store(error) => return error.hint(),
            Self::NotFound { .. } => "check the name and tag; private images may need a login".into(),
            Self::NoCredentials { .. } | Self::Denied { .. } => LOG_IN.into(),
            Self::TooLarge { .. } | Self::WrongDigest { .. } => {
                "the registry, or something between, sends other bytes than it promised: do not trust it".into()
            }
            Self::Truncated { .. } => "try again".into(),
            _ => return None,
        })
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
    /// The error behind an answer with an error status; `body` is its (start of the) body.
    pub(super) fn from_answer(what: &str, status: StatusCode, body: &[u8]) -> Self {
        let errors = serde_json::from_slice::<Body>(body)
            .unwrap_or_default()
            .errors;
        let (what, message) = (what.to_owned(), words(&errors));
        let code = errors.first().map_or("", |error| error.code.as_str());
        match (status, code) {
            (_, "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN")
            | (StatusCode::NOT_FOUND, _) => Self::NotFound { what, message },
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)
            | (_, "DENIED" | "UNAUTHORIZED") => Self::Denied { what, message },
            _ => Self::Status {
                what,
                status,
                message,
            },
        }
    }
}

/// Codes and messages, cut and without control characters: a server must not write to our terminal.
fn words(errors: &[BodyError]) -> String {
    let all: Vec<String> = errors
        .iter()
        .take(3)
        .map(|error| match error.message.is_empty() {
            true => error.code.clone(),
            false => format!("{} ({})", error.message, error.code),
        })
        .collect();
    let text = all.join(", ");
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_the_kind_and_messages_are_tame() {
        let body =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest \u001b[31munknown"}]}"#;
        let error = RegistryError::from_answer("r/a:1", StatusCode::NOT_FOUND, body);
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("unknown") && !error.to_string().contains('\u{1b}'));
        let denied = RegistryError::from_answer("r/a", StatusCode::FORBIDDEN, b"<html>");
        assert_eq!(denied.kind(), Kind::Unauthorised);
        let other = RegistryError::from_answer("r/a", StatusCode::IM_A_TEAPOT, b"");
        assert_eq!(other.kind(), Kind::Unavailable);
    }
}
