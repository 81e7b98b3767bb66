//! The one HTTP client: certificates, proxies, time-outs, retry with back-off, and errors without secrets.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::{RequestBuilder, Response, StatusCode, header};

use crate::ambient::{Ambient, Login, redact};
use crate::diagnostic::{Explain, Kind};

/// Attempts after the first.
const RETRIES: usize = 4;

/// Before the second attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// A client for indexes, archives and registries. Clones share one connection pool.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    offline: bool,
    pause: Duration,
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
    /// The client could not be set up.
    #[error("cannot set up HTTP: {0}")]
    Setup(String),
}

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
        let error = error.without_url();
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            reason = cause.to_string();
            source = cause.source();
        }
        Self::Unreachable {
            url: redact(url),
            reason,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::Offline { .. } | Self::Setup(_) => false,
        }
    }
}

impl Explain for HttpError {
    fn kind(&self) -> Kind {
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
            Self::Status { .. } | Self::Setup(_) => return None,
        })
    }
}

impl Http {
    /// A client with the machine's certificates and proxies.
    pub fn new(ambient: &Ambient, offline: bool) -> Result<Self, HttpError> {
        let setup = |error: reqwest::Error| HttpError::Setup(error.without_url().to_string());
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("imagewright/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(20))
            .read_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(16);
        for path in &ambient.certificates {
            let pem = std::fs::read(path)
                .map_err(|error| HttpError::Setup(format!("{}: {error}", path.display())))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(setup)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Self {
            client: builder.build().map_err(setup)?,
            offline,
            pause: PAUSE,
        })
    }

    /// The same client with another pause before the second attempt; every further pause is twice as long.
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
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
    pub async fn exchange(
        &self,
        url: &str,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, HttpError> {
        if self.offline {
            return Err(HttpError::Offline { url: redact(url) });
        }
        let attempt = || async {
            let response = request(&self.client)
                .send()
                .await
                .map_err(|error| HttpError::from_reqwest(url, error))?;
            let failed = HttpError::Status {
                url: redact(url),
                status: response.status(),
            };
            if !failed.is_transient() {
                return Ok(response);
            }
            wait_as_told(&response).await;
            Err(failed)
        };
        attempt
            .retry(
                ExponentialBuilder::default()
                    .with_min_delay(self.pause)
                    .with_jitter()
                    .with_max_times(RETRIES),
            )
            .when(HttpError::is_transient)
            .await
    }

    /// A GET with an optional login, as [`Http::send`].
    pub async fn get(&self, url: &str, login: Option<&Login>) -> Result<Response, HttpError> {
        self.send(url, |client| with_login(client.get(url), login))
            .await
    }
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
