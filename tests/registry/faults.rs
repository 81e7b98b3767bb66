//! What networks and servers do on bad days, and when.
//!
//! What happens to a request follows from the seed, the request and how often it came before, not from the order in
//! which connections are served: a seed that found something finds it again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::wares::{Random, sha256};
use crate::wire::{Head, refusal};

/// What can go wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection is reset while the request is on its way; the registry sees a part of it.
    ResetRequest,
    /// The registry does as it is told, but the connection is reset during its answer.
    ResetAnswer,
    /// As [`Fault::ResetAnswer`], but the connection is closed in good order.
    Truncated,
    /// 429 with `Retry-After`, in seconds or as a date.
    TooMany,
    /// 500 instead of the registry.
    Broken,
    /// The registry does as it is told, but 500 is what is heard of it.
    BrokenAfter,
    /// 503 instead of the registry.
    Away,
    /// One byte of the answer's body, or of the digest in its header, is another.
    WrongAnswer,
    /// One byte of the request's body is another.
    WrongRequest,
    /// 404: the upload session is unknown.
    Stale,
    /// 416: the content is not what the upload session goes on with.
    Misplaced,
    /// Everything comes slowly.
    Drip,
    /// The token is not good any more.
    Expired,
    /// Nothing is answered any more.
    Outage,
    /// This status, code, and headers instead of the registry.
    Answer(u16, &'static str, &'static str),
}

impl Fault {
    /// Those that come by chance.
    pub const ALL: [Self; 12] = [
        Self::ResetRequest,
        Self::ResetAnswer,
        Self::Truncated,
        Self::TooMany,
        Self::Broken,
        Self::BrokenAfter,
        Self::Away,
        Self::WrongAnswer,
        Self::WrongRequest,
        Self::Stale,
        Self::Misplaced,
        Self::Drip,
    ];

    /// Whether only what is written can suffer it.
    pub fn of_writing(self) -> bool {
        matches!(self, Self::Stale | Self::Misplaced | Self::WrongRequest)
    }

    fn concerns(self, request: &Head) -> bool {
        match self {
            Self::Stale | Self::Misplaced => request.is_session(),
            Self::WrongRequest => request.length.unwrap_or(0) > 0,
            _ => true,
        }
    }

    /// The answer that the registry is not asked for.
    pub fn instead(self, random: &mut Random) -> Option<String> {
        // A second more in one of eight.
        let later = random.next() % 8 / 7;
        let after = match random.next() % 2 {
            0 => format!("Retry-After: {later}\r\n"),
            _ => format!(
                "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:3{} GMT\r\n",
                7 + later
            ),
        };
        Some(match self {
            Self::TooMany => refusal(429, "TOOMANYREQUESTS", &after),
            Self::Broken => refusal(500, "UNKNOWN", ""),
            Self::Away => refusal(503, "UNAVAILABLE", &after),
            Self::Stale => refusal(404, "BLOB_UPLOAD_UNKNOWN", ""),
            Self::Misplaced => match random.next() % 2 {
                0 => refusal(416, "RANGE_INVALID", ""),
                _ => refusal(416, "SIZE_INVALID", ""),
            },
            Self::Answer(status, code, more) => refusal(status, code, more),
            _ => return None,
        })
    }
}

/// How bad it is.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    pub seed: u64,
    /// Of a thousand requests, how many go wrong.
    pub permille: u64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Only requests that begin so, for example `PUT `; all if empty.
    pub only: String,
    /// The same request suffers no more often than so.
    pub passing: Option<u32>,
    /// What happens for certain; the first that fits decides.
    pub script: Vec<Cue>,
    /// After this many requests nothing is answered any more.
    pub outage: Option<u32>,
    /// Bearer tokens are demanded; each is good for so many requests.
    pub token_uses: Option<u32>,
    /// For every piece of 16 KiB of a request or answer, and for every answer.
    pub slowness: Duration,
}

/// What happens to certain requests.
#[derive(Clone, Debug)]
pub struct Cue {
    /// What the request begins with, for example `PATCH `.
    pub request: &'static str,
    /// The least bytes of its body.
    pub least: u64,
    /// How many of them suffer it.
    pub times: u32,
    pub fault: Fault,
    /// Where in the body.
    pub at: Option<u64>,
}

impl Cue {
    /// The first request that begins so and has a body of some length.
    pub fn once(request: &'static str, fault: Fault) -> Self {
        Self {
            request,
            least: 100_000,
            times: 1,
            fault,
            at: None,
        }
    }

    /// Where in the body.
    pub fn at(self, at: u64) -> Self {
        Self {
            at: Some(at),
            ..self
        }
    }

    /// All such requests, with a body or without.
    pub fn always(request: &'static str, fault: Fault) -> Self {
        Self {
            least: 0,
            times: u32::MAX,
            ..Self::once(request, fault)
        }
    }
}

/// What is to go wrong with a request now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    pub fault: Option<Fault>,
    /// Where in the body; else anywhere.
    pub at: Option<u64>,
}

/// What came before, as far as it decides.
#[derive(Debug, Default)]
pub struct Past {
    seen: BTreeMap<String, u32>,
    /// How often each cue was followed.
    followed: Vec<u32>,
}

impl Past {
    /// What happens to a request, and where further chance comes from.
    pub fn choose(&mut self, weather: &Weather, request: &Head) -> (Trouble, Random) {
        let name = request.name();
        let count = self.seen.entry(name.clone()).or_insert(0);
        *count += 1;
        let count = *count;
        // The registry's and the proxy's ports differ from run to run and must not decide.
        let mix = sha256(format!("{} {name} {count}", weather.seed).as_bytes());
        let mut random = Random(u64::from_str_radix(&mix[..16], 16).unwrap() | 1);
        if let Some(trouble) = self.follow(weather, request) {
            return (trouble, random);
        }
        let possible: Vec<Fault> = weather
            .faults
            .iter()
            .copied()
            .filter(|fault| fault.concerns(request))
            .collect();
        let hit = random.next() % 1000 < weather.permille
            && request.first.starts_with(&weather.only)
            && weather.passing.is_none_or(|times| count <= times)
            && !possible.is_empty();
        let fault = hit.then(|| possible[(random.next() % possible.len() as u64) as usize]);
        (Trouble { fault, at: None }, random)
    }

    fn follow(&mut self, weather: &Weather, request: &Head) -> Option<Trouble> {
        self.followed.resize(weather.script.len(), 0);
        let cues = weather.script.iter().zip(&mut self.followed);
        let (cue, followed) = cues.into_iter().find(|(cue, followed)| {
            request.first.starts_with(cue.request)
                && request.length.unwrap_or(0) >= cue.least
                && **followed < cue.times
        })?;
        *followed += 1;
        Some(Trouble {
            fault: Some(cue.fault),
            at: cue.at,
        })
    }
}

/// Something that went wrong.
#[derive(Clone)]
pub struct Told {
    pub fault: Fault,
    pub request: String,
    /// Bytes of the body that had passed, if it was within one.
    pub at: Option<u64>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.fault, self.request)?;
        self.at.map_or(Ok(()), |at| write!(f, " at {at}"))
    }
}
