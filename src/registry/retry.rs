//! How often and how long to try again.

use std::time::{Duration, Instant};

use jiff::fmt::rfc2822;
use reqwest::header::{self, HeaderMap};

use super::RegistryError;

/// The longest wait that a server's `Retry-After` is granted.
const LONGEST: Duration = Duration::from_secs(60);

/// How long nobody wonders what a command is doing.
const NOTICE: Duration = Duration::from_secs(8);

/// What a client puts up with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long the head of an answer may take.
    pub answer: Duration,
    /// How long the body of a document may take.
    pub document: Duration,
    /// Attempts of one request.
    pub attempts: u32,
    /// All waits between them together.
    pub waiting: Duration,
    /// After that time without progress there is no further attempt.
    pub whole: Duration,
    /// How long a host may answer nothing at all before it is given up.
    pub silence: Duration,
    /// After that time it is told that a host is waited for.
    pub notice: Duration,
    /// The first wait, in pauses of the HTTP client; it doubles each time.
    pub first: f64,
}

impl Patience {
    /// For work that has to be done.
    pub const LONG: Self = Self {
        answer: Duration::from_secs(60),
        document: Duration::from_secs(120),
        attempts: 6,
        waiting: Duration::from_secs(120),
        whole: Duration::from_secs(180),
        silence: Duration::from_secs(90),
        notice: NOTICE,
        first: 0.25,
    };
    /// For questions whose answers are not needed.
    pub const SHORT: Self = Self {
        answer: Duration::from_secs(4),
        document: Duration::from_secs(8),
        attempts: 2,
        waiting: Duration::from_secs(1),
        whole: Duration::from_secs(2),
        silence: Duration::from_secs(8),
        notice: NOTICE,
        first: 0.1,
    };
}

/// The waits of one request or transfer.
#[derive(Debug)]
pub(super) struct Waits {
    patience: Patience,
    pause: Duration,
    failures: u32,
    waited: Duration,
    since: Instant,
}

impl Waits {
    pub fn new(patience: Patience, pause: Duration) -> Self {
        Self {
            patience,
            pause: pause.mul_f64(patience.first),
            failures: 0,
            waited: Duration::ZERO,
            since: Instant::now(),
        }
    }

    /// The same with at most so many attempts.
    pub fn at_most(mut self, attempts: u32) -> Self {
        self.patience.attempts = self.patience.attempts.min(attempts);
        self
    }

    /// Something was reached: the failures before it do not count any more.
    pub fn progress(&mut self) {
        self.failures = 0;
        self.since = Instant::now();
    }

    /// Waits before the next attempt; gives the error back when it is not worth one, or when there were enough.
    pub async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        match error.is_transient() {
            true => self.pause(error).await,
            false => Err(error),
        }
    }

    /// As [`Waits::after`], with errors that are not transient too.
    pub async fn pause(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        match self.next(error.retry_after()) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    fn next(&mut self, told: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        let late = self.since.elapsed() > self.patience.whole;
        if late || self.failures >= self.patience.attempts {
            return None;
        }
        let own = self.pause * (1 << (self.failures - 1).min(5));
        let wait = match told {
            Some(told) => told.max(own),
            None => own.mul_f64(jitter()),
        };
        self.waited += wait;
        (wait <= LONGEST && self.waited <= self.patience.waiting).then_some(wait)
    }
}

/// Between a half and three halves.
pub(super) fn jitter() -> f64 {
    0.5 + f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, which counts from the answer's own `Date`.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let told = text(header::RETRY_AFTER)?.trim();
    if let Ok(seconds) = told.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = |text: &str| rfc2822::parse(text).ok().map(|date| date.timestamp());
    let wait = at(told)?.duration_since(at(text(header::DATE)?)?);
    Some(Duration::try_from(wait).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().cloned();
        pairs
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |value| {
            headers(&[
                (header::RETRY_AFTER, value),
                (header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
            ])
        };
        assert_eq!(retry_after(&after("7")), Some(Duration::from_secs(7)));
        let date = after("Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(retry_after(&date), Some(Duration::from_secs(10)));
        let past = after("Sun, 06 Nov 1994 08:00:00 GMT");
        assert_eq!(retry_after(&past), Some(Duration::ZERO));
        for bad in ["", "-1", "soon", "99999999999999999999999"] {
            assert_eq!(retry_after(&after(bad)), None, "{bad}");
        }
        let alone = headers(&[(header::RETRY_AFTER, "Sun, 06 Nov 1994 08:49:47 GMT")]);
        assert_eq!(retry_after(&alone), None);
    }

    #[test]
    fn waits_end() {
        let mut waits = Waits::new(Patience::LONG, Duration::from_secs(1));
        let told = Duration::from_secs(3);
        assert!(waits.next(Some(told)).unwrap() >= told);
        let hour = Duration::from_secs(3600);
        assert_eq!(waits.next(Some(hour)), None, "an hour is too long");
        let mut waits = Waits::new(Patience::LONG, Duration::from_secs(1));
        let all = (0..100).map_while(|_| waits.next(None)).count();
        assert_eq!(all as u32, Patience::LONG.attempts - 1);
        let mut waits = Waits::new(Patience::LONG, Duration::from_secs(1));
        let all = (0..10_000).map_while(|_| {
            waits.progress();
            waits.next(None)
        });
        assert!(all.sum::<Duration>() <= Patience::LONG.waiting);
        let mut waits = Waits::new(Patience::SHORT, Duration::from_secs(1));
        assert!(waits.next(None).is_some());
        let mut waits = Waits::new(Patience::SHORT, Duration::from_secs(1));
        waits.since = waits.since.checked_sub(Patience::SHORT.whole).unwrap();
        assert_eq!(waits.next(None), None, "one attempt took all of the time");
    }
}
