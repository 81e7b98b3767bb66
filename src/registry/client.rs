//! The client: addresses, sending, retrying, and turning answers into errors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Request, Response, StatusCode};
use url::Url;

use super::grants::{Access, Grant, Grants, Scopes};
use super::reference::is_loopback;
use super::retry::{Patience, Waits};
use super::silence::Listener;
use super::transfers::Counters;
use super::{Credentials, Reference, RegistryError, Transfers};
use crate::ambient::Ambient;
use crate::http::{Http, HttpError};
use crate::progress::SharedProgress;

/// Most bytes of an error's answer.
const ANSWER_LIMIT: u64 = 64 << 10;
/// How often one request is sent again with newer credentials: many requests share tokens, whose end may come between.
const REFUSALS: u32 = 6;

/// A client for registries; clones share connections, tokens and counts.
#[derive(Clone)]
pub struct Registry {
    pub(super) http: Http,
    pub(super) credentials: Credentials,
    pub(super) grants: Arc<Grants>,
    pub(super) transfers: Arc<Counters>,
    pub(super) patience: Patience,
    plain: Arc<BTreeSet<String>>,
    /// Host → why it did not answer an impatient client.
    pub(super) silent: Option<Arc<Mutex<BTreeMap<String, String>>>>,
    pub(super) listener: Option<Arc<Listener>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// One request, which may be sent several times.
pub(super) struct Ask<'a> {
    pub reference: &'a Reference,
    /// What it is about, for messages.
    pub what: &'a str,
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub scopes: Scopes,
}

/// An answer with a status of success, read to its end.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Where it came from, redirects followed.
    pub url: Url,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl<'a> Ask<'a> {
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = bytes.into();
        self
    }

    fn request(&self, body: Body) -> Request {
        let mut request = Request::new(self.method.clone(), self.url.clone());
        *request.headers_mut() = self.headers.clone();
        *request.body_mut() = Some(body);
        request
    }
}

impl Registry {
    /// A client with the machine's credential files.
    pub fn new(http: Http, ambient: &Ambient) -> Self {
        Self {
            http,
            credentials: Credentials::new(&ambient.registry_auth),
            grants: Arc::default(),
            transfers: Arc::default(),
            patience: Patience::LONG,
            plain: Arc::default(),
            silent: None,
            listener: None,
        }
    }

    /// The same, telling `progress` of a host that lets itself be waited for.
    pub fn with_progress(mut self, progress: SharedProgress) -> Self {
        self.listener = Some(Arc::new(Listener::new(progress)));
        self
    }

    /// The same, talking plain HTTP to these hosts (with port where references have one) too.
    pub fn with_plain_http(mut self, hosts: impl IntoIterator<Item = String>) -> Self {
        Arc::make_mut(&mut self.plain).extend(hosts);
        self
    }

    /// A clone for questions that work goes on without: it waits for seconds only, and a host that did not answer is not
    /// asked again.
    pub fn impatient(&self) -> Self {
        Self {
            patience: Patience::SHORT,
            silent: Some(self.silent.clone().unwrap_or_default()),
            ..self.clone()
        }
    }

    /// What this client and its clones have moved so far.
    pub fn transfers(&self) -> Transfers {
        self.transfers.read()
    }

    /// Whether a host is talked to without TLS.
    pub(super) fn is_plain(&self, host: &str) -> bool {
        is_loopback(host) || self.plain.contains(host)
    }

    /// A request for `path` (from `/` on, below the repository).
    pub(super) fn ask<'a>(
        &self,
        reference: &'a Reference,
        what: &'a str,
        method: Method,
        path: &str,
        access: Access,
    ) -> Result<Ask<'a>, RegistryError> {
        let url = format!("{}{path}", self.endpoint(reference));
        let url = Url::parse(&url).map_err(|_| RegistryError::Name {
            what: what.into(),
            message: "it makes no URL".into(),
        })?;
        Ok(self.ask_url(reference, what, method, url, access))
    }

    pub(super) fn ask_url<'a>(
        &self,
        reference: &'a Reference,
        what: &'a str,
        method: Method,
        url: Url,
        access: Access,
    ) -> Ask<'a> {
        Ask {
            reference,
            what,
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scopes: Scopes::of(&reference.repository, access),
        }
    }

    fn endpoint(&self, reference: &Reference) -> String {
        match self.is_plain(&reference.host) {
            true => format!("http://{}/v2/{}", reference.host, reference.repository),
            false => reference.endpoint(),
        }
    }

    /// Whether `url` is on the registry itself: only there credentials go.
    pub(super) fn is_own(&self, reference: &Reference, url: &Url) -> bool {
        Url::parse(&self.endpoint(reference)).is_ok_and(|own| own.origin() == url.origin())
    }

    /// Where an answer leads to. A registry behind a proxy that ends TLS may name itself with `http`: it is `https` then.
    ///
    /// # Errors
    /// When that is no URL, or leaves HTTPS.
    pub(super) fn target(
        &self,
        ask: &Ask<'_>,
        from: &Url,
        location: &str,
    ) -> Result<Url, RegistryError> {
        let malformed = |reason: &str| RegistryError::Malformed {
            what: ask.what.to_owned(),
            reason: reason.to_owned(),
        };
        let mut url = from
            .join(location)
            .map_err(|_| malformed("it leads to something that is not a URL"))?;
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let downgrade = url.scheme() == "http" && from.scheme() == "https";
        if downgrade && (url.host() != from.host() || url.set_scheme("https").is_err()) {
            return Err(malformed("it leads from HTTPS to HTTP"));
        }
        match url.scheme() {
            "https" | "http" => Ok(url),
            _ => Err(malformed("it leads to something that is not HTTP")),
        }
    }

    /// Sends a request, again after transient failures; its answer is read to its end, at most `limit` bytes.
    ///
    /// # Errors
    /// Every status but those of success.
    pub(super) async fn call(&self, ask: &Ask<'_>, limit: u64) -> Result<Answer, RegistryError> {
        let once = |answer| self.call_within(ask, limit, answer);
        self.patiently(&ask.reference.host, once).await
    }

    /// As [`Registry::call`], without a second attempt.
    pub(super) async fn call_once(
        &self,
        ask: &Ask<'_>,
        limit: u64,
    ) -> Result<Answer, RegistryError> {
        self.call_within(ask, limit, self.patience.answer).await
    }

    async fn call_within(
        &self,
        ask: &Ask<'_>,
        limit: u64,
        patience: Duration,
    ) -> Result<Answer, RegistryError> {
        let response = self.open_once(ask, patience).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let url = response.url().clone();
        let body = read_limited(response, ask.what, limit, self.patience.document).await?;
        Ok(Answer {
            status,
            headers,
            url,
            body,
        })
    }

    /// As [`Registry::call`], with the answer's body still to be read.
    pub(super) async fn open(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        let once = |answer| self.open_once(ask, answer);
        self.patiently(&ask.reference.host, once).await
    }

    async fn open_once(
        &self,
        ask: &Ask<'_>,
        patience: Duration,
    ) -> Result<Response, RegistryError> {
        let mut body = || Ok(Body::from(ask.body.clone()));
        let response = self.attempt(ask, patience, &mut body).await?;
        self.success(ask, response).await
    }

    /// Turns an error status into an error.
    pub(super) async fn success(
        &self,
        ask: &Ask<'_>,
        response: Response,
    ) -> Result<Response, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = read_limited(response, ask.what, ANSWER_LIMIT, self.patience.document).await;
        let secrets = self.grants.secrets(ask.reference);
        let body = body.unwrap_or_default();
        Err(RegistryError::from_answer(
            ask.what, status, &headers, &body, &secrets,
        ))
    }

    /// Sends a request, and again if the registry asks for credentials or newer ones. `body` makes the body anew each
    /// time.
    pub(super) async fn attempt(
        &self,
        ask: &Ask<'_>,
        patience: Duration,
        body: &mut (dyn FnMut() -> Result<Body, RegistryError> + Send),
    ) -> Result<Response, RegistryError> {
        let own = self.is_own(ask.reference, &ask.url);
        let mut grant = self.grants.find(ask.reference, &ask.scopes).filter(|_| own);
        let mut refusals = 0;
        loop {
            let mut request = ask.request(body()?);
            if let Some(grant) = &grant {
                grant.authorise(request.headers_mut());
            }
            self.transfers.request();
            let response = self.http.once(request, patience).await?;
            let here = own && self.is_own(ask.reference, response.url());
            if response.status() != StatusCode::UNAUTHORIZED {
                grant.iter().for_each(Grant::works);
                return Ok(response);
            }
            // One that has let others through has come to its end; one that never has is refused.
            let ended = grant.as_ref().is_some_and(Grant::has_worked) && refusals < REFUSALS;
            // Who is given credentials and asks for none does not mean that others would do.
            let asks = response
                .headers()
                .contains_key(reqwest::header::WWW_AUTHENTICATE);
            if !here || (refusals > 0 && !ended) || (grant.is_some() && !asks) {
                return Ok(response);
            }
            refusals += 1;
            let used = grant.take();
            grant = Some(
                self.answer(
                    ask.reference,
                    ask.what,
                    &ask.scopes,
                    used.as_ref(),
                    &response,
                )
                .await?,
            );
        }
    }

    pub(super) fn waits(&self) -> Waits {
        Waits::new(self.patience, self.http.pause())
    }
}

/// The whole body of an answer.
///
/// # Errors
/// When it is larger than `limit` bytes, breaks off, or takes longer than `time`.
pub(super) async fn read_limited(
    response: Response,
    what: &str,
    limit: u64,
    time: Duration,
) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge {
        what: what.into(),
        limit,
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(too_large());
    }
    let url = response.url().clone();
    let read = async {
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| HttpError::from_reqwest(url.as_str(), error))?;
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    let stalled = |_| RegistryError::Stalled { what: what.into() };
    tokio::time::timeout(time, read).await.map_err(stalled)?
}
