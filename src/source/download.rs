//! One download: resumed after breaks, restarted where the server does not resume, verified before it counts.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Response, StatusCode, header};
use url::Url;

use super::FetchContext;
use super::error::SourceError;
use crate::ambient::{Login, redact};
use crate::digest::Digest;
use crate::http::{HttpError, with_login};
use crate::progress::{Progress, Stage};
use crate::store::{Pending, StoreError};

/// Breaks in a row that bring no new byte.
const FRUITLESS: u32 = 4;
/// Breaks altogether.
const BREAKS: u32 = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// What to download.
#[derive(Debug)]
pub struct Download<'a> {
    /// For messages: package, version and file.
    pub what: String,
    /// For the progress display.
    pub label: &'a str,
    /// Where it is; user info is ignored.
    pub url: Url,
    /// Basic authentication.
    pub login: Option<Login>,
    /// What it must be.
    pub sha256: Digest,
    /// Its length in bytes, where known.
    pub size: Option<u64>,
}

/// Bytes so far, and what is needed to ask for the rest.
struct Part<'a> {
    pending: Pending,
    received: u64,
    /// A strong validator (RFC 9110, section 8.8).
    validator: Option<header::HeaderValue>,
    bar: Option<Bar<'a>>,
    /// The most bytes that any try had.
    most: u64,
}

/// One piece of progress; over when dropped, also when the download is given up.
struct Bar<'a> {
    progress: &'a dyn Progress,
    id: u64,
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.progress.end(self.id);
    }
}

/// How a response's body ended.
enum End {
    Complete,
    Broken(String),
}

impl Download<'_> {
    /// Downloads into the store, as artifact `sha256`.
    pub(super) async fn run(&self, ctx: &FetchContext<'_>) -> Result<(), SourceError> {
        match self.attempt(ctx, true).await {
            // A file that changed between two parts of it: whole, it may be right.
            Err(Failure::Mixed(_)) => self.attempt(ctx, false).await,
            other => other,
        }
        .map_err(|failure| match failure {
            Failure::Mixed(error) | Failure::Final(error) => error,
        })
    }

    async fn attempt(&self, ctx: &FetchContext<'_>, resume: bool) -> Result<(), Failure> {
        let mut part = begin(ctx)?;
        let resumed = self.fill(ctx, &mut part, resume).await?;
        let target = ctx.store.artifact_path(&self.sha256);
        let (expected, what) = (self.sha256, self.what.clone());
        let size = part.received;
        let pending = part.pending;
        let commit = move || pending.commit_verified(&target, &expected, &what);
        let committed = tokio::task::spawn_blocking(commit).await;
        match committed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(StoreError::WrongDigest { found, .. })) => {
                let error = SourceError::WrongHash {
                    what: self.what.clone(),
                    url: redact(self.url.as_str()),
                    expected: self.sha256,
                    found,
                    size,
                };
                Err(if resumed {
                    Failure::Mixed(error)
                } else {
                    Failure::Final(error)
                })
            }
            Ok(Err(error)) => Err(Failure::Final(error.into())),
            Err(_) => Err(Failure::Final(self.broken_off(size, "interrupted".into()))),
        }
    }

    /// Fills `part` until it is complete; true if it came in more than one piece.
    async fn fill<'b>(
        &self,
        ctx: &FetchContext<'b>,
        part: &mut Part<'b>,
        resume: bool,
    ) -> Result<bool, SourceError> {
        let (mut breaks, mut fruitless, mut resumed) = (0, 0, false);
        loop {
            let before = part.received;
            let reason = match self.receive(ctx, part).await? {
                End::Complete => return Ok(resumed),
                End::Broken(reason) => reason,
            };
            breaks += 1;
            fruitless = if part.received > before {
                0
            } else {
                fruitless + 1
            };
            if fruitless > FRUITLESS || breaks > BREAKS {
                return Err(self.broken_off(part.most, reason));
            }
            tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(fruitless)).await;
            if resume && part.received > 0 {
                resumed = true;
            } else {
                restart(ctx, part)?;
            }
        }
    }

    /// One request for what is missing, read as far as it goes.
    async fn receive<'b>(
        &self,
        ctx: &FetchContext<'b>,
        part: &mut Part<'b>,
    ) -> Result<End, SourceError> {
        let response = match self.request(ctx, part).await {
            Ok(response) => response,
            Err(error) if error.status() == Some(StatusCode::RANGE_NOT_SATISFIABLE) => {
                restart(ctx, part)?;
                return Ok(End::Broken("the server refuses to resume".into()));
            }
            Err(error) => return Err(self.http(error)),
        };
        if part.received > 0 && !continues(&response, part.received) {
            restart(ctx, part)?;
            if response.status() == StatusCode::PARTIAL_CONTENT {
                return Ok(End::Broken("the server resumed at another place".into()));
            }
        }
        part.validator = validator(&response).or(part.validator.take());
        let end = part.received + response.content_length().unwrap_or(0);
        let announced = response.content_length().map(|_| end);
        let bar = part.bar.get_or_insert_with(|| Bar {
            progress: ctx.progress,
            id: ctx
                .progress
                .begin(Stage::Fetch, self.label, self.size.or(announced)),
        });
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    return Ok(End::Broken(match HttpError::from_reqwest("", error) {
                        HttpError::Unreachable { reason, .. } => reason,
                        other => other.to_string(),
                    }));
                }
            };
            part.pending.append(&chunk)?;
            part.received += chunk.len() as u64;
            part.most = part.most.max(part.received);
            ctx.progress.advance(bar.id, chunk.len() as u64);
            if let Some(expected) = self.size.filter(|size| part.received > *size) {
                return Err(SourceError::TooLong {
                    what: self.what.clone(),
                    url: redact(self.url.as_str()),
                    expected,
                });
            }
        }
        let expected = self.size.or(announced).unwrap_or(part.received);
        if part.received < expected {
            let reason = format!("{expected} bytes were expected");
            if announced.is_some_and(|announced| part.received >= announced) {
                // The server has no more than this: asking for the rest would be refused.
                restart(ctx, part)?;
            }
            return Ok(End::Broken(reason));
        }
        Ok(End::Complete)
    }

    async fn request(
        &self,
        ctx: &FetchContext<'_>,
        part: &Part<'_>,
    ) -> Result<Response, HttpError> {
        let mut url = self.url.clone();
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let build = |client: &reqwest::Client| {
            // Hashes are over the file as stored, not over a compressed transfer of it.
            let mut request = client
                .get(url.clone())
                .header(header::ACCEPT_ENCODING, "identity");
            if part.received > 0 {
                request = request.header(header::RANGE, format!("bytes={}-", part.received));
                if let Some(validator) = &part.validator {
                    request = request.header(header::IF_RANGE, validator);
                }
            }
            with_login(request, self.login.as_ref())
        };
        ctx.http.send(self.url.as_str(), build).await
    }

    fn http(&self, source: HttpError) -> SourceError {
        let what = self.what.clone();
        match source {
            HttpError::Offline { .. } => SourceError::Offline { what },
            HttpError::Status {
                url,
                status: StatusCode::NOT_FOUND | StatusCode::GONE,
            } => SourceError::Dropped { what, from: url },
            source => SourceError::Http { what, source },
        }
    }

    fn broken_off(&self, received: u64, reason: String) -> SourceError {
        SourceError::BrokenOff {
            what: self.what.clone(),
            url: redact(self.url.as_str()),
            received,
            reason,
        }
    }
}

fn begin<'b>(ctx: &FetchContext<'b>) -> Result<Part<'b>, SourceError> {
    Ok(Part {
        pending: ctx.store.pending()?,
        received: 0,
        validator: None,
        bar: None,
        most: 0,
    })
}

/// From the first byte again.
fn restart<'b>(ctx: &FetchContext<'b>, part: &mut Part<'b>) -> Result<(), SourceError> {
    let most = part.most;
    *part = Part {
        most,
        ..begin(ctx)?
    };
    Ok(())
}

/// Whether a wrong digest may come from joining parts of two different files.
enum Failure {
    Mixed(SourceError),
    Final(SourceError),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Final(error)
    }
}

/// Whether a response goes on at byte `offset` (RFC 9110, section 14.4).
fn continues(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE);
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.and_then(|value| {
            value
                .to_str()
                .ok()?
                .strip_prefix("bytes ")?
                .split('-')
                .next()?
                .parse()
                .ok()
        }) == Some(offset)
}

fn validator(response: &Response) -> Option<header::HeaderValue> {
    let etag = response.headers().get(header::ETAG)?;
    (!etag.as_bytes().starts_with(b"W/")).then(|| etag.clone())
}
