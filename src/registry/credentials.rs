//! Credentials from Docker's `config.json` and Podman's `auth.json`, their helpers included
//! (`containers-auth.json(5)`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;

use super::Reference;
use crate::ambient::Login;
use crate::diagnostic::{Explain, Kind};

/// How to prove who we are. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password.
    Login(Login),
    /// A refresh token for the registry's token server.
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Why a credential that is configured cannot be had. Never holds a secret.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum CredentialError {
    #[error("the credential file {} is not valid: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("the credential helper of {} gave no credentials for {host}: {reason}", path.display())]
    Helper {
        path: PathBuf,
        host: String,
        reason: String,
    },
}

impl Explain for CredentialError {
    fn kind(&self) -> Kind {
        Kind::Unauthorised
    }
    fn hint(&self) -> Option<String> {
        Some("log in again with `docker login` or `podman login`".into())
    }
}

/// The machine's credential files.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<PathBuf>,
}

/// The part of a credential file that tells which entry is meant.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    #[serde(default)]
    auths: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

impl Credentials {
    /// Looks into these files, in this order; files that do not exist do not matter.
    pub fn new(files: &[PathBuf]) -> Self {
        Self {
            files: files.to_vec(),
        }
    }

    /// The first credential found for the repository. May start a helper program and wait for it.
    ///
    /// # Errors
    /// When a file is broken, or a helper that is responsible fails.
    pub fn find(&self, reference: &Reference) -> Result<Option<Credential>, CredentialError> {
        for path in &self.files {
            let Ok(bytes) = std::fs::read(path) else {
                continue;
            };
            let broken = |reason: String| CredentialError::File {
                path: path.clone(),
                reason,
            };
            let outline: Outline = serde_json::from_slice(&bytes)
                // A message of the parser may quote the file.
                .map_err(|error| {
                    broken(format!("line {}, column {}", error.line(), error.column()))
                })?;
            let Some(key) = outline.key_for(reference) else {
                continue;
            };
            match docker_credential::get_credential_from_reader(bytes.as_slice(), &key) {
                Ok(found) => return Ok(Some(found.into())),
                Err(error) if outline.is_optional(&key, &error) => {}
                Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
                    let (path, host) = (path.clone(), reference.host.clone());
                    return Err(CredentialError::Helper {
                        path,
                        host,
                        reason: format!("`{helper}` failed"),
                    });
                }
                Err(
                    error @ (CredentialRetrievalError::HelperCommunicationError
                    | CredentialRetrievalError::MalformedHelperResponse),
                ) => {
                    let (path, host) = (path.clone(), reference.host.clone());
                    return Err(CredentialError::Helper {
                        path,
                        host,
                        reason: error.to_string(),
                    });
                }
                Err(error) => return Err(broken(error.to_string())),
            }
        }
        Ok(None)
    }
}

impl Outline {
    /// The key under which the file has something for the repository: the longest matching path first (Podman), then
    /// the host, then the forms that old Docker commands wrote.
    fn key_for(&self, reference: &Reference) -> Option<String> {
        let host = &reference.host;
        let mut candidates = Vec::new();
        let mut path = format!("{host}/{}", reference.repository);
        while path.len() > host.len() {
            candidates.push(path.clone());
            path.truncate(path.rfind('/').unwrap_or(0));
        }
        candidates.push(host.clone());
        for form in [
            "https://{}",
            "https://{}/",
            "https://{}/v2/",
            "https://{}/v1/",
            "http://{}",
        ] {
            candidates.push(form.replace("{}", host));
        }
        if self.cred_helpers.contains_key(host) {
            return Some(host.clone());
        }
        candidates
            .into_iter()
            .find(|key| self.auths.contains_key(key))
            .or_else(|| self.creds_store.is_some().then(|| host.clone()))
    }

    /// Whether the file only might have had something: no entry, or a general helper without one.
    fn is_optional(&self, key: &str, error: &CredentialRetrievalError) -> bool {
        let named = self.cred_helpers.contains_key(key) || self.auths.contains_key(key);
        match error {
            CredentialRetrievalError::NoCredentialConfigured => true,
            CredentialRetrievalError::HelperFailure { stdout, .. } => {
                !named || stdout.contains("credentials not found")
            }
            CredentialRetrievalError::HelperCommunicationError => !named,
            _ => false,
        }
    }
}

impl From<DockerCredential> for Credential {
    fn from(found: DockerCredential) -> Self {
        match found {
            DockerCredential::IdentityToken(token) => Self::IdentityToken(token),
            DockerCredential::UsernamePassword(username, password) => {
                Self::Login(Login { username, password })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, reference: &str) -> Result<Option<Credential>, CredentialError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        let files = [dir.path().join("missing.json"), path];
        Credentials::new(&files).find(&reference.parse().unwrap())
    }

    fn login(username: &str, password: &str) -> Option<Credential> {
        let (username, password) = (username.into(), password.into());
        Some(Credential::Login(Login { username, password }))
    }

    #[test]
    fn docker_and_podman_forms_are_found() {
        // user:pa:ss
        let auth = r#"{"auth":"dXNlcjpwYTpzcw=="}"#;
        for key in [
            "r.example.com",
            "https://r.example.com",
            "https://r.example.com/v1/",
            "r.example.com/ml",
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{auth}}}}}"#);
            assert_eq!(
                find(&text, "r.example.com/ml/a:1").unwrap(),
                login("user", "pa:ss"),
                "{key}"
            );
        }
        let text = format!(r#"{{"auths":{{"r.example.com/other":{auth},"example.com":{auth}}}}}"#);
        assert_eq!(find(&text, "r.example.com/ml/a").unwrap(), None);
        let both = format!(
            r#"{{"auths":{{"r.example.com":{{"auth":"YTpi"}},"r.example.com/ml/a":{auth}}}}}"#
        );
        assert_eq!(
            find(&both, "r.example.com/ml/a").unwrap(),
            login("user", "pa:ss")
        );
        assert_eq!(find(&both, "r.example.com/x").unwrap(), login("a", "b"));
        let token = r#"{"auths":{"r.example.com":{"auth":"","identitytoken":"tok"}}}"#;
        let found = find(token, "r.example.com/a").unwrap().unwrap();
        assert_eq!(found, Credential::IdentityToken("tok".into()));
        assert!(!format!("{found:?}").contains("tok"));
    }

    #[test]
    fn broken_files_and_helpers_are_named_without_secrets() {
        let error = find(
            r#"{"auths": {"r.example.com": "c2VjcmV0" "#,
            "r.example.com/a",
        )
        .unwrap_err();
        assert!(error.to_string().contains("config.json") && !error.to_string().contains("c2Vj"));
        let error = find(
            r#"{"auths":{"r.example.com":{"auth":"%%%"}}}"#,
            "r.example.com/a",
        )
        .unwrap_err();
        assert!(!error.to_string().contains("%%%"), "{error}");
        let missing = r#"{"credHelpers":{"r.example.com":"no-such-helper"}}"#;
        assert!(matches!(
            find(missing, "r.example.com/a"),
            Err(CredentialError::Helper { .. })
        ));
        let general = r#"{"credsStore":"no-such-helper"}"#;
        assert_eq!(find(general, "r.example.com/a").unwrap(), None);
    }
}
