//! The rate limit, as arithmetic: time is passed in.

use std::time::{Duration, Instant};

use crate::config::Limit;

/// Bytes left in the present period. A period begins with the first byte after the one before has passed.
#[derive(Debug)]
pub struct Limiter {
    limit: Limit,
    begun: Option<Instant>,
    used: u64,
}

impl Limiter {
    /// A limiter that has given nothing yet.
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            begun: None,
            used: 0,
        }
    }

    /// How many bytes may be given at `now`.
    ///
    /// # Errors
    /// How long to wait if there are none.
    pub fn available(&mut self, now: Instant) -> Result<u64, Duration> {
        let begun = *self.begun.get_or_insert(now);
        let passed = now.saturating_duration_since(begun);
        if passed >= self.limit.period {
            self.begun = Some(now);
            self.used = 0;
        }
        match self.limit.bytes.get().saturating_sub(self.used) {
            0 => Err(self.limit.period - passed),
            left => Ok(left),
        }
    }

    /// Counts bytes given.
    pub fn spend(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever asks when and for how much: no window of one period, wherever it begins, gets more than twice the
        /// limit, and no period counted from its first byte more than the limit.
        #[test]
        fn no_period_gives_more_than_its_limit(
            bytes in 1u64..5000,
            period_ms in 1u64..500,
            asks in prop::collection::vec((0u64..200, 1u64..3000), 1..200),
        ) {
            let period = Duration::from_millis(period_ms);
            let limit = Limit { bytes: NonZeroU64::new(bytes).unwrap(), period };
            let mut limiter = Limiter::new(limit);
            let start = Instant::now();
            let mut now = start;
            let mut given: Vec<(Instant, u64)> = Vec::new();
            for (pause, wanted) in asks {
                now += Duration::from_millis(pause);
                match limiter.available(now) {
                    Ok(left) => {
                        prop_assert!(left > 0 && left <= bytes);
                        let take = wanted.min(left);
                        limiter.spend(take);
                        given.push((now, take));
                    }
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO && wait <= period);
                        prop_assert!(limiter.available(now + wait).is_ok());
                        now += wait;
                    }
                }
            }
            for (from, _) in &given {
                let window: u64 = given
                    .iter()
                    .filter(|(at, _)| at >= from && *at < *from + period)
                    .map(|(_, bytes)| bytes)
                    .sum();
                prop_assert!(window <= 2 * bytes);
            }
            let periods = now.duration_since(start).as_millis() as u64 / period_ms + 1;
            let total: u64 = given.iter().map(|(_, bytes)| bytes).sum();
            prop_assert!(total <= periods * bytes);
        }
    }
}
