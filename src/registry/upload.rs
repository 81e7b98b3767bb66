//! One blob on its way into a repository: sessions, chunks, and going on after a break.

use std::time::{Duration, Instant};

use reqwest::{Method, Response, StatusCode, header};
use tokio::time::MissedTickBehavior;
use url::Url;

use super::body::{self, Meter, Span};
use super::client::{Answer, Ask};
use super::grants::Access;
use super::manifests::RESENT;
use super::push::BODY_LIMIT;
use super::retry::Waits;
use super::standstill::Watch;
use super::{BlobContent, Reference, Registry, RegistryError};
use crate::oci::Descriptor;

/// Bytes of a chunk once a transfer in one request has broken off; some registries take no more.
const CHUNK: u64 = 4 << 20;
/// Sessions that one blob may take.
const SESSIONS: u32 = 12;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

/// An upload that the registry has begun.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The newest `Location`.
    pub url: Url,
    /// Bytes that the registry has.
    pub offset: u64,
    /// The least bytes of a chunk that is not the last one.
    pub least: u64,
}

/// How content is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// In one request, until one breaks off.
    Whole,
    /// In chunks.
    Chunks,
    /// In one request, since the registry takes no chunks.
    WholeOnly,
}

pub(super) struct Upload<'a> {
    registry: &'a Registry,
    repository: &'a Reference,
    blob: &'a Descriptor,
    content: &'a dyn BlobContent,
    what: &'a str,
    advance: &'a (dyn Fn(u64) + Sync),
    told: u64,
    mode: Mode,
    /// Some of the content was sent in a request of its own.
    pieced: bool,
    /// How often it arrived as something else.
    damaged: u32,
}

impl<'a> Upload<'a> {
    pub fn new(
        registry: &'a Registry,
        repository: &'a Reference,
        blob: &'a Descriptor,
        content: &'a dyn BlobContent,
        what: &'a str,
        advance: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        Self {
            registry,
            repository,
            blob,
            content,
            what,
            advance,
            told: 0,
            mode: Mode::Whole,
            pieced: false,
            damaged: 0,
        }
    }

    /// Sends the blob, with the session that a failed mount has left or one of its own.
    pub async fn run(mut self, mut session: Option<Session>) -> Result<(), RegistryError> {
        let mut waits = self.registry.waits();
        let (mut best, mut sessions) = (0, 0);
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None if sessions == SESSIONS => {
                    let (what, message) = (self.what.to_owned(), String::new());
                    return Err(RegistryError::UploadLost { what, message });
                }
                None => {
                    sessions += 1;
                    self.begin().await?
                }
            };
            match self.step(&mut current).await {
                Ok(true) => return Ok(()),
                Ok(false) => session = Some(current),
                Err(error) => {
                    session = self.after(error, current, &mut waits).await?;
                    if session.is_none() && self.arrived().await? {
                        return Ok(());
                    }
                }
            }
            let reached = session.as_ref().map_or(0, |session| session.offset);
            if reached > best {
                best = reached;
                waits.progress();
            }
        }
    }

    async fn begin(&mut self) -> Result<Session, RegistryError> {
        self.pieced = false;
        let ask = self.registry.uploads(self.repository, self.what)?;
        let answer = self.registry.call(&ask, BODY_LIMIT).await?;
        self.registry.session(&ask, &answer, 0)
    }

    /// The answer to the last request may have been lost, not the request.
    async fn arrived(&mut self) -> Result<bool, RegistryError> {
        let there = self
            .registry
            .holds(self.repository, self.blob, Access::Push)
            .await?;
        if there {
            self.tell(self.blob.size);
        }
        Ok(there)
    }

    /// One request; whether it was the last one.
    async fn step(&mut self, session: &mut Session) -> Result<bool, RegistryError> {
        let left = self.blob.size - session.offset;
        let whole = session.offset == 0 && self.mode != Mode::Chunks;
        if whole || left == 0 {
            return self.finish(session, left).await.map(|()| true);
        }
        let len = left.min(CHUNK.max(session.least));
        let end = session.offset + len;
        let range = format!("{}-{}", session.offset, end - 1);
        let ask = self
            .request(Method::PATCH, session.url.clone(), len)
            .header(header::CONTENT_RANGE, &range);
        let span = Span {
            from: session.offset,
            len,
            last: end == self.blob.size,
        };
        let answer = self.send(&ask, span).await?;
        self.pieced = true;
        let next = self.registry.session(&ask, &answer, end)?;
        session.url = next.url;
        session.offset = match answer.header("range") {
            Some(range) => received(range)
                .filter(|at| *at <= end)
                .ok_or_else(|| self.lost())?,
            None => end,
        };
        match session.offset < end {
            true => Err(self.lost()),
            false => Ok(false),
        }
    }

    /// The request that ends an upload, with all or nothing of the content.
    async fn finish(&mut self, session: &Session, len: u64) -> Result<(), RegistryError> {
        let mut url = session.url.clone();
        let digest = self.blob.digest.to_string();
        url.query_pairs_mut().append_pair("digest", &digest);
        let ask = self.request(Method::PUT, url, len);
        let span = Span {
            from: session.offset,
            len,
            last: true,
        };
        let answer = self.send(&ask, span).await?;
        match answer.header("docker-content-digest") {
            Some(found) if found != digest => Err(RegistryError::Malformed {
                what: self.what.to_owned(),
                reason: "it names another digest than was sent".into(),
            }),
            _ => Ok(()),
        }
    }

    fn request(&self, method: Method, url: Url, len: u64) -> Ask<'a> {
        self.registry
            .ask_url(self.repository, self.what, method, url, Access::Push)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, &len.to_string())
    }

    async fn send(&mut self, ask: &Ask<'a>, span: Span) -> Result<Answer, RegistryError> {
        let registry = self.registry;
        let response = self.drive(ask, span).await?;
        let response = registry.success(ask, response).await?;
        // The body says nothing; it is read so that the connection serves again.
        let (status, headers) = (response.status(), response.headers().clone());
        let url = response.url().clone();
        let read =
            super::client::read_limited(response, ask.what, BODY_LIMIT, registry.patience.document);
        let body = read.await.unwrap_or_default();
        Ok(Answer {
            status,
            headers,
            url,
            body,
        })
    }

    /// Sends content, telling of progress and watching for a standstill.
    async fn drive(&mut self, ask: &Ask<'a>, span: Span) -> Result<Response, RegistryError> {
        let (content, what, registry) = (self.content, self.what, self.registry);
        let unreadable = |source| RegistryError::Content {
            what: what.to_owned(),
            source,
        };
        let meter = Meter::default();
        let mut make = || {
            if span.len == 0 {
                return Ok(reqwest::Body::default());
            }
            body::stream(content, span, &meter, &registry.transfers).map_err(unreadable)
        };
        let mut attempt = std::pin::pin!(registry.attempt(ask, Duration::MAX, &mut make));
        let mut watch = Watch::new(span.len, Instant::now());
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                result = &mut attempt => {
                    self.tell(span.from + meter.taken());
                    return match meter.fault() {
                        Some(fault) => Err(unreadable(fault)),
                        None => result,
                    };
                }
                _ = tick.tick() => {
                    self.tell(span.from + meter.taken());
                    if watch.is_over(meter.taken(), Instant::now()) {
                        return Err(RegistryError::Stalled { what: what.to_owned() });
                    }
                }
            }
        }
    }

    fn tell(&mut self, reached: u64) {
        let reached = reached.min(self.blob.size);
        if reached > self.told {
            (self.advance)(reached - self.told);
            self.told = reached;
        }
    }

    fn lost(&self) -> RegistryError {
        RegistryError::UploadLost {
            what: self.what.to_owned(),
            message: String::new(),
        }
    }

    /// What is left of a session after `error`; `None` begins a new one.
    ///
    /// # Errors
    /// `error`, if nothing is to be gained by going on.
    async fn after(
        &mut self,
        error: RegistryError,
        session: Session,
        waits: &mut Waits,
    ) -> Result<Option<Session>, RegistryError> {
        let chunks = self.mode == Mode::Chunks;
        let large = self.blob.size > CHUNK;
        match &error {
            // What was put together from parts may have been put together wrongly.
            RegistryError::WrongContent { .. } if self.pieced => self.mode = Mode::WholeOnly,
            // It may have been damaged on its way.
            RegistryError::WrongContent { .. } if self.damaged + 1 < RESENT => self.damaged += 1,
            RegistryError::Status { status, .. }
                if *status == StatusCode::PAYLOAD_TOO_LARGE
                    && self.mode == Mode::Whole
                    && large =>
            {
                self.mode = Mode::Chunks;
            }
            RegistryError::Unsupported { .. } | RegistryError::Status { .. }
                if chunks && !error.is_transient() =>
            {
                self.mode = Mode::WholeOnly;
            }
            // A session that is gone, or an answer that does not tell whether it was the last one.
            RegistryError::UploadLost { .. }
            | RegistryError::NotFound { .. }
            | RegistryError::Malformed { .. } => {}
            RegistryError::OutOfStep { .. } => {
                waits.pause(error).await?;
                let stood = session.offset;
                let resumed = self.resume(session).await;
                // A session that stands where we went on, and does not go on there, is of no use.
                return Ok(resumed.filter(|session| session.offset != stood));
            }
            _ if error.is_transient() => {
                waits.after(error).await?;
                if self.mode == Mode::Whole && large {
                    self.mode = Mode::Chunks;
                }
                return Ok(self.resume(session).await);
            }
            _ => return Err(error),
        }
        waits.pause(error).await?;
        Ok(None)
    }

    /// Asks the registry how far it has come.
    async fn resume(&self, session: Session) -> Option<Session> {
        if self.mode == Mode::WholeOnly {
            return None;
        }
        let ask = self.registry.ask_url(
            self.repository,
            self.what,
            Method::GET,
            session.url.clone(),
            Access::Push,
        );
        let answer = self.registry.call_once(&ask, BODY_LIMIT).await.ok()?;
        let known = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::ACCEPTED);
        let offset = received(answer.header("range")?).filter(|_| known)?;
        let url = match answer.header("location") {
            Some(location) => self.registry.target(&ask, &answer.url, location).ok()?,
            None => session.url,
        };
        (offset <= self.blob.size).then_some(Session {
            url,
            offset,
            least: session.least,
        })
    }
}

/// How much a `Range: 0-<last>` says is there. `0-0` and `0--1` are what registries write for nothing.
fn received(range: &str) -> Option<u64> {
    let range = range.trim().trim_start_matches("bytes=");
    match range.strip_prefix("0-")? {
        "0" | "-1" => Some(0),
        last => last.parse::<u64>().ok()?.checked_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_uploads_are_read() {
        let cases = [
            ("0-0", Some(0)),
            ("0--1", Some(0)),
            ("0--2", None),
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("5-9", None),
            ("0-", None),
            ("", None),
            ("0-18446744073709551615", None),
            ("0-18446744073709551616", None),
            ("-1", None),
        ];
        for (range, expected) in cases {
            assert_eq!(received(range), expected, "{range}");
        }
    }
}
