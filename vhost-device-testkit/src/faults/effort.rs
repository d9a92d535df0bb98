//! How long the long cases run.

use std::time::{Duration, Instant};

/// Environment variable that makes the long cases run their full number of rounds, however long that takes.
pub const LONG_RUN: &str = "TESTKIT_LONG";

/// A number of rounds that is cut short by the clock, except in a long run.
pub struct Effort {
    rounds: u64,
    least: u64,
    end: Option<Instant>,
    done: u64,
}

impl Effort {
    /// Up to `rounds` rounds within `time`, but never fewer than `least`.
    pub fn new(rounds: u64, least: u64, time: Duration) -> Self {
        let long = std::env::var_os(LONG_RUN).is_some_and(|value| value != "0");
        Self {
            rounds,
            least,
            end: (!long).then(|| Instant::now() + time),
            done: 0,
        }
    }

    /// The number of the next round, or `None` when there was enough.
    pub fn next(&mut self) -> Option<u64> {
        let late = self.end.is_some_and(|end| Instant::now() >= end);
        if self.done >= self.rounds || (late && self.done >= self.least) {
            return None;
        }
        self.done += 1;
        Some(self.done - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_cuts_rounds_short_but_not_below_the_least() {
        let mut effort = Effort::new(100, 5, Duration::ZERO);
        let mut rounds = 0;
        while effort.next().is_some() {
            rounds += 1;
        }
        let long = std::env::var_os(LONG_RUN).is_some_and(|value| value != "0");
        assert_eq!(rounds, if long { 100 } else { 5 });
        let mut effort = Effort::new(3, 1, Duration::from_secs(60));
        assert_eq!(
            (effort.next(), effort.next(), effort.next(), effort.next()),
            (Some(0), Some(1), Some(2), None)
        );
    }
}
