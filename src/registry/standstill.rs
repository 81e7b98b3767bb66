//! A request that sends content and does not get on.

use std::time::{Duration, Instant};

/// How long the connection may take nothing.
const STANDSTILL: Duration = Duration::from_secs(120);
/// How long the registry may think about a blob when it has all of it.
const VERDICT: Duration = Duration::from_secs(600);

/// Notices when a request does not get on.
pub(super) struct Watch {
    size: u64,
    taken: u64,
    since: Instant,
}

impl Watch {
    pub fn new(size: u64, now: Instant) -> Self {
        Self {
            size,
            taken: 0,
            since: now,
        }
    }

    /// Told how much was taken: whether that has not changed for too long.
    pub fn is_over(&mut self, taken: u64, now: Instant) -> bool {
        if taken != self.taken {
            self.taken = taken;
            self.since = now;
        }
        let limit = match taken < self.size {
            true => STANDSTILL,
            false => VERDICT,
        };
        now.duration_since(self.since) > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_noticed_and_progress_is_not_one() {
        let mut now = Instant::now();
        let mut watch = Watch::new(10, now);
        for taken in 1..9 {
            now += STANDSTILL / 2;
            assert!(!watch.is_over(taken, now));
        }
        now += STANDSTILL * 2;
        assert!(watch.is_over(8, now));
        assert!(!watch.is_over(10, now));
        now += STANDSTILL * 2;
        assert!(!watch.is_over(10, now), "the registry may think for longer");
    }
}
