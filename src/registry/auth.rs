//! Proving who we are: Basic, and the registries' Bearer tokens (distribution's token authentication, and its OAuth2
//! form for identity tokens).

use reqwest::header::{self, HeaderValue};
use reqwest::{Method, Request, Response};
use serde::Deserialize;
use url::Url;

use super::challenge::Challenge;
use super::client::{Registry, read_limited};
use super::error::tame;
use super::grants::{Grant, Proof, Scopes};
use super::reference::{is_loopback, split_port};
use super::{Credential, Reference, RegistryError};
use crate::ambient::redact;

/// Most bytes of a token server's answer.
const ANSWER_LIMIT: u64 = 1 << 20;
/// Most bytes of a token.
const TOKEN_LIMIT: usize = 64 << 10;
/// Most scopes that a challenge may name, and their bytes.
const SCOPES: (usize, usize) = (16, 4096);

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// Answers the challenge of a refused request that was sent with `used`.
    pub(super) async fn answer(
        &self,
        reference: &Reference,
        what: &str,
        wanted: &Scopes,
        used: Option<&Grant>,
        response: &Response,
    ) -> Result<Grant, RegistryError> {
        let challenge = challenge(reference, response)?;
        let turn = self.grants.turn(reference);
        let _mine = turn.lock().await;
        let newer = self.grants.find(reference, wanted);
        if let Some(newer) =
            newer.filter(|newer| used.is_none_or(|used| newer.number > used.number))
        {
            return Ok(newer);
        }
        let credentials = self.credentials.clone();
        let subject = reference.clone();
        let found = tokio::task::spawn_blocking(move || credentials.find(&subject)).await;
        let credential = found.ok().transpose()?.flatten();
        let mut scopes = wanted.clone();
        let proof = match (challenge, credential.clone()) {
            (Challenge::Basic, Some(Credential::Login(login))) => Proof::Basic(login),
            (Challenge::Basic, _) => {
                return Err(RegistryError::NoCredentials {
                    host: reference.host.clone(),
                    what: what.into(),
                });
            }
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                credential,
            ) => {
                let named = scope.as_deref().filter(|scope| scope.len() <= SCOPES.1);
                let named = named.unwrap_or_default().split_whitespace();
                named.take(SCOPES.0).for_each(|scope| scopes.add(scope));
                let service = service.as_deref();
                let token = self.token(&reference.host, &realm, service, &scopes, credential);
                Proof::Bearer(token.await?)
            }
        };
        Ok(self.grants.keep(reference, scopes, proof, credential))
    }

    /// Asks the token server that the registry `host` names as `realm`.
    async fn token(
        &self,
        host: &str,
        realm: &str,
        service: Option<&str>,
        scopes: &Scopes,
        credential: Option<Credential>,
    ) -> Result<String, RegistryError> {
        let (host, shown) = (host.to_owned(), redact(realm));
        let refused = |reason| RegistryError::NoToken {
            host: host.clone(),
            url: shown.clone(),
            reason,
        };
        let mut url = Url::parse(realm).map_err(|_| refused("its address is not a URL"))?;
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let permitted = match url.scheme() {
            "https" => true,
            "http" if credential.is_none() && self.is_plain(&host) => true,
            "http" => self.may_have_credentials(&host, &url),
            _ => return Err(refused("its address is not one of HTTP")),
        };
        if !permitted {
            return Err(RegistryError::InsecureTokenServer { host, url: shown });
        }
        let what = format!("a token of {shown} for {host}");
        let secrets = credential.as_ref().map(Credential::secrets);
        let secrets = secrets.unwrap_or_default();
        let request = token_request(url, service, scopes, credential.as_ref());
        self.transfers.request();
        let response = self.http.once(request, self.patience.answer).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = read_limited(response, &what, ANSWER_LIMIT, self.patience.document).await?;
        if !status.is_success() {
            return Err(RegistryError::from_answer(
                &what, status, &headers, &bytes, &secrets,
            ));
        }
        let answer: TokenAnswer = serde_json::from_slice(&bytes)
            .map_err(|_| refused("its answer is not a token document"))?;
        let token = answer.token.filter(|token| !token.is_empty());
        let token = token.or(answer.access_token).unwrap_or_default();
        match token {
            token if token.is_empty() => Err(refused("its answer holds none")),
            token if token.len() > TOKEN_LIMIT => Err(refused("it is too long")),
            token if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(refused("it holds characters that no token has"))
            }
            token => Ok(token),
        }
    }

    /// Whether credentials for the registry `host` may go to this token server: by HTTPS, within this machine, or to
    /// the registry's own machine if it is declared to be talked to without TLS.
    fn may_have_credentials(&self, host: &str, server: &Url) -> bool {
        let name = server.host_str().unwrap_or_default();
        let own = self.is_plain(host) && split_port(host).0 == name;
        server.scheme() == "https" || is_loopback(name) || own
    }
}

fn challenge(reference: &Reference, response: &Response) -> Result<Challenge, RegistryError> {
    let values = response.headers().get_all(header::WWW_AUTHENTICATE);
    let values: Vec<&str> = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    Challenge::choose(values.iter().copied()).ok_or_else(|| {
        let schemes = values.iter().filter_map(|value| value.split(' ').next());
        RegistryError::Challenge {
            host: reference.host.clone(),
            challenge: tame(&schemes.collect::<Vec<_>>().join(", "), &[]),
        }
    })
}

/// With a login or nothing a GET, with an identity token a POST.
fn token_request(
    mut url: Url,
    service: Option<&str>,
    scopes: &Scopes,
    credential: Option<&Credential>,
) -> Request {
    let service = service.map(|service| ("service", service));
    let Some(Credential::IdentityToken(token)) = credential else {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(service);
        query.extend_pairs(scopes.texts().map(|scope| ("scope", scope)));
        drop(query);
        let mut request = Request::new(Method::GET, url);
        if let Some(Credential::Login(login)) = credential
            && let Some(value) = Proof::Basic(login.clone()).header()
        {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        return request;
    };
    let scope = scopes.texts().collect::<Vec<_>>().join(" ");
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(service)
        .extend_pairs([
            ("scope", scope.as_str()),
            ("grant_type", "refresh_token"),
            ("client_id", "imagewright"),
            ("refresh_token", token),
        ])
        .finish();
    let mut request = Request::new(Method::POST, url);
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(header::CONTENT_TYPE, form);
    *request.body_mut() = Some(body.into());
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::Ambient;
    use crate::http::Http;

    #[test]
    fn credentials_go_by_https_within_this_machine_or_to_a_host_declared_plain() {
        let ambient = Ambient::default();
        let registry = Registry::new(Http::new(&ambient, false).unwrap(), &ambient);
        let registry = registry.with_plain_http(["lab.example.com:5000".to_owned()]);
        for (host, server, expected) in [
            ("hub.example.com", "https://tokens.example.com/t", true),
            ("hub.example.com", "http://tokens.example.com/t", false),
            ("hub.example.com", "http://hub.example.com/t", false),
            ("hub.example.com", "http://127.0.0.1:5001/t", true),
            ("127.0.0.1:5000", "http://tokens.example.com/t", false),
            (
                "lab.example.com:5000",
                "http://lab.example.com:5001/t",
                true,
            ),
            ("lab.example.com:5000", "http://tokens.example.com/t", false),
        ] {
            let url = Url::parse(server).unwrap();
            let found = registry.may_have_credentials(host, &url);
            assert_eq!(found, expected, "{host} {server}");
        }
    }
}
