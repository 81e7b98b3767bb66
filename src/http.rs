//! The one HTTP client: certificates, proxies, time-outs, retry with back-off, and errors without secrets.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use reqwest::{Method, Request, RequestBuilder, Response, StatusCode, header};

use crate::ambient::{Ambient, Login, redact};
use crate::diagnostic::{Explain, Kind};

/// Attempts after the first.
const RETRIES: usize = 4;

/// Before the second attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a server may answer nothing at all, however often it is asked.
const SILENCE: Duration = Duration::from_secs(90);

/// Redirects that one request may follow.
const REDIRECTS: usize = 5;

/// A client for indexes, archives and registries. Clones share connections.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    /// The client of [`Http::once`], made when it is needed.
    direct: Arc<OnceLock<reqwest::Client>>,
    certificates: Vec<reqwest::Certificate>,
    offline: bool,
    pause: Duration,
    silence: Duration,
}

/// Why a request failed; the URL is shown without user info and query.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// `--offline` was given.
    #[error("{url} is needed, but the network is switched off (--offline)")]
    Offline {
        /// Redacted.
        url: String,
    },
    /// No answer.
    #[error("no answer from {url}: {reason}")]
    Unreachable {
        /// Redacted.
        url: String,
        /// Without the URL.
        reason: String,
    },
    /// An answer that is an error.
    #[error("{url} answered {status}")]
    Status {
        /// Redacted.
        url: String,
        /// HTTP status.
        status: StatusCode,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects {reason}")]
    Redirect {
        /// Redacted.
        url: String,
        /// Where to.
        reason: &'static str,
    },
    /// The client could not be set up.
    #[error("cannot set up HTTP: {0}")]
    Setup(String),
}

/// Why there is no answer where HTTPS was expected and plain HTTP, or something else, is spoken.
const NO_TLS: &str = "the server does not speak TLS";

impl HttpError {
    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Wraps a client error of a request to `url`.
    pub fn from_reqwest(url: &str, error: reqwest::Error) -> Self {
        if error.is_redirect() {
            return Self::Redirect {
                url: redact(url),
                reason: "too often, or from HTTPS to HTTP",
            };
        }
        Self::Unreachable {
            url: redact(url),
            reason: innermost(error),
        }
    }

    /// Whether something answered, but not with TLS.
    pub fn is_without_tls(&self) -> bool {
        matches!(self, Self::Unreachable { reason, .. } if reason == NO_TLS)
    }

    /// Whether another attempt may end otherwise.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => !self.is_without_tls(),
            Self::Status { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::Offline { .. } | Self::Redirect { .. } | Self::Setup(_) => false,
        }
    }
}

impl Explain for HttpError {
    fn kind(&self) -> Kind {
        if matches!(self, Self::Redirect { .. }) {
            return Kind::Refused;
        }
        match self.status() {
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Kind::Unauthorised,
            Some(StatusCode::NOT_FOUND | StatusCode::GONE) => Kind::NotFound,
            _ => Kind::Unavailable,
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Offline { .. } => "run once without --offline: what is fetched stays in the store".into(),
            Self::Unreachable { .. } => "check the network, proxy and certificate settings, then try again".into(),
            Self::Status { status, .. } if matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                "put credentials for this host into ~/.netrc (or, for a registry, log in with docker or podman)".into()
            }
            Self::Status { .. } | Self::Redirect { .. } | Self::Setup(_) => return None,
        })
    }
}

impl Http {
    /// A client with the machine's certificates and proxies.
    pub fn new(ambient: &Ambient, offline: bool) -> Result<Self, HttpError> {
        let mut certificates = Vec::new();
        for path in &ambient.certificates {
            let pem = std::fs::read(path)
                .map_err(|error| HttpError::Setup(format!("{}: {error}", path.display())))?;
            certificates.extend(reqwest::Certificate::from_pem_bundle(&pem).map_err(setup)?);
        }
        let client = builder(&certificates).read_timeout(Duration::from_secs(60));
        Ok(Self {
            client: client.redirect(following()).build().map_err(setup)?,
            direct: Arc::default(),
            certificates,
            offline,
            pause: PAUSE,
            silence: SILENCE,
        })
    }

    /// The same client with another pause before the second attempt; every further pause is twice as long.
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// The pause before the second attempt.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// The client below, to build requests with.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Whether the network is switched off.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Sends what `request` builds, again after transient failures; an error status is an error.
    pub async fn send(
        &self,
        url: &str,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, HttpError> {
        let response = self.exchange(url, request).await?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(HttpError::Status {
                url: redact(url),
                status: response.status(),
            }),
        }
    }

    /// As [`Http::send`], but a status that another attempt would not change is an answer, not an error.
    async fn exchange(
        &self,
        url: &str,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, HttpError> {
        if self.offline {
            return Err(HttpError::Offline { url: redact(url) });
        }
        let heard = Mutex::new(Instant::now());
        let silent = || {
            heard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .elapsed()
        };
        let attempt = || async {
            let left = self.silence.saturating_sub(silent());
            let sent = tokio::time::timeout(left, request(&self.client).send()).await;
            let sent = sent.map_err(|_| HttpError::Unreachable {
                url: redact(url),
                reason: format!("nobody has answered for {} s", self.silence.as_secs()),
            })?;
            let response = sent.map_err(|error| HttpError::from_reqwest(url, error))?;
            let failed = HttpError::Status {
                url: redact(url),
                status: response.status(),
            };
            if !failed.is_transient() {
                return Ok(response);
            }
            wait_as_told(&response).await;
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            Err(failed)
        };
        attempt
            .retry(
                ExponentialBuilder::default()
                    .with_min_delay(self.pause)
                    .with_jitter()
                    .with_max_times(RETRIES),
            )
            .when(|error: &HttpError| error.is_transient() && silent() < self.silence)
            .await
    }

    /// Sends a request once; every status is an answer. The answer's head has to come within `patience`; its body has no
    /// time limit, and neither has what is sent.
    ///
    /// GET and HEAD follow redirects, though never from HTTPS to HTTP. What authorises stays with the first origin.
    ///
    /// # Errors
    /// No answer; a redirect that is not followed; the network is switched off.
    pub async fn once(
        &self,
        mut request: Request,
        patience: Duration,
    ) -> Result<Response, HttpError> {
        let shown = redact(request.url().as_str());
        if self.offline {
            return Err(HttpError::Offline { url: shown });
        }
        let client = self.direct()?;
        let follows = matches!(*request.method(), Method::GET | Method::HEAD);
        for hop in 0..=REDIRECTS {
            let copy = request.try_clone().filter(|_| follows);
            let url = match redact(request.url().as_str()) {
                url if hop == 0 => url,
                url => format!("{shown}, which redirects to {url}"),
            };
            let response = tokio::time::timeout(patience, client.execute(request)).await;
            let response = response.map_err(|_| HttpError::Unreachable {
                url: url.clone(),
                reason: format!("it took longer than {} s", patience.as_secs()),
            })?;
            let response = response.map_err(|error| HttpError::Unreachable {
                url,
                reason: innermost(error),
            })?;
            let (Some(next), Some(target)) = (copy, redirect(&response)) else {
                return Ok(response);
            };
            request = redirected(next, target)?;
        }
        Err(HttpError::Redirect {
            url: shown,
            reason: "too often",
        })
    }

    fn direct(&self) -> Result<reqwest::Client, HttpError> {
        if let Some(client) = self.direct.get() {
            return Ok(client.clone());
        }
        let made = builder(&self.certificates).redirect(reqwest::redirect::Policy::none());
        let made = made.build().map_err(setup)?;
        Ok(self.direct.get_or_init(|| made).clone())
    }

    /// A GET with an optional login, as [`Http::send`].
    pub async fn get(&self, url: &str, login: Option<&Login>) -> Result<Response, HttpError> {
        self.send(url, |client| with_login(client.get(url), login))
            .await
    }
}

/// What an error comes from, without a URL.
fn innermost(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        reason = cause.to_string();
        source = cause.source();
    }
    // What rustls says of an answer that is none of TLS.
    match reason.contains("InvalidContentType") {
        true => NO_TLS.into(),
        false => reason,
    }
}

fn setup(error: reqwest::Error) -> HttpError {
    HttpError::Setup(error.without_url().to_string())
}

fn builder(certificates: &[reqwest::Certificate]) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("imagewright/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(20))
        // It would tell another host the query of an index's URL.
        .referer(false)
        .pool_max_idle_per_host(16);
    certificates.iter().fold(builder, |builder, certificate| {
        builder.add_root_certificate(certificate.clone())
    })
}

/// Redirects of indexes and archives. What authorises stays with the first host and port: that is the client's own rule.
fn following() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let downgrade = attempt.url().scheme() == "http"
            && attempt.previous().iter().any(|url| url.scheme() == "https");
        match downgrade || attempt.previous().len() > REDIRECTS {
            true => attempt.error("it is not followed"),
            false => attempt.follow(),
        }
    })
}

/// Where an answer sends the client on to.
fn redirect(response: &Response) -> Option<url::Url> {
    let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let target = response.url().join(location).ok()?;
    moved.then_some(target)
}

fn redirected(mut request: Request, target: url::Url) -> Result<Request, HttpError> {
    let refused = |reason| HttpError::Redirect {
        url: redact(request.url().as_str()),
        reason,
    };
    match (request.url().scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(refused("from HTTPS to HTTP")),
        _ => return Err(refused("to something that is not HTTP")),
    }
    if request.url().origin() != target.origin() {
        let headers = request.headers_mut();
        for name in [
            header::AUTHORIZATION,
            header::COOKIE,
            header::PROXY_AUTHORIZATION,
        ] {
            headers.remove(name);
        }
    }
    *request.url_mut() = target;
    Ok(request)
}

/// Adds Basic authentication.
pub fn with_login(request: RequestBuilder, login: Option<&Login>) -> RequestBuilder {
    match login {
        Some(login) => request.basic_auth(&login.username, Some(&login.password)),
        None => request,
    }
}

/// Honours `Retry-After` in seconds, at most half a minute.
async fn wait_as_told(response: &Response) {
    let seconds = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(seconds) = seconds {
        tokio::time::sleep(Duration::from_secs(seconds.min(30))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str) -> Request {
        let mut request = Request::new(Method::GET, url.parse().unwrap());
        for name in ["authorization", "cookie", "accept"] {
            let value = header::HeaderValue::from_static("x");
            request.headers_mut().insert(name, value);
        }
        request
    }

    #[test]
    fn what_authorises_stays_with_the_origin_and_https_is_not_left() {
        let from = "https://a.example/x";
        for (target, kept) in [
            ("https://a.example/y?sig=1", true),
            ("https://a.example:443/y", true),
            ("https://a.example:444/y", false),
            ("https://b.example/x", false),
        ] {
            let request = redirected(asked(from), target.parse().unwrap()).unwrap();
            for name in ["authorization", "cookie"] {
                assert_eq!(request.headers().contains_key(name), kept, "{target}");
            }
            assert!(request.headers().contains_key("accept"), "{target}");
        }
        for target in [
            "http://a.example/x",
            "http://a.example:443/x",
            "ftp://a.example/",
            "file:///x",
        ] {
            let error = redirected(asked(from), target.parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{target}");
        }
        let request = redirected(asked("http://a.example/x"), from.parse().unwrap()).unwrap();
        assert!(!request.headers().contains_key("authorization"));
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/simple/", server.local_addr().unwrap());
        let mut http = Http::new(&Ambient::default(), false).unwrap();
        http.silence = Duration::from_millis(200);
        let asked = http.get(&url, None);
        let ended = tokio::time::timeout(Duration::from_secs(30), asked).await;
        let error = ended.unwrap().unwrap_err().to_string();
        assert!(error.contains("nobody has answered for 0 s"), "{error}");
    }
}
