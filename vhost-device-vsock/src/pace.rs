//! How soon what a host program writes is read.
//!
//! A program that writes little at a time, again and again, wakes its reader by each write, and the reader the guest: that
//! costs more than the bytes. So a socket that was emptied many times in close succession, while the guest sent nothing that
//! the program may be answering, is left alone for a moment before it is read again.

use std::time::{Duration, Instant};

/// How long a socket is left alone. The kernel adds its timer slack, which is as long again.
pub const REST: Duration = Duration::from_micros(50);

/// Reads that follow each other within this time are in close succession.
const CLOSE: Duration = Duration::from_micros(100);

/// So many of them are a stream.
const MANY: u8 = 16;

/// A program that writes this much in that time fills its socket before the rest is over, and has to wait then.
const MUCH: usize = 32 * 1024;

/// A rest that took longer than this does not pay: the timers are coarse, or there is much else to do.
const OVERSLEPT: Duration = Duration::from_micros(300);

/// What the reads of one connection were like lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When the socket was last found empty.
    emptied: Option<Instant>,
    /// How many times that was so in close succession, at most [`MANY`].
    count: u8,
    /// The socket is being left alone; what the last read brought before that.
    resting: Option<u32>,
}

impl Pace {
    /// A read brought `bytes` and emptied the socket. True if it should be left alone for [`REST`] now.
    pub fn emptied(&mut self, bytes: usize, now: Instant) -> bool {
        let since = self
            .emptied
            .replace(now)
            .map(|then| now.saturating_duration_since(then));
        let rested = self.resting.take();
        let Some(bytes) = u32::try_from(bytes).ok().filter(|_| bytes < MUCH) else {
            self.count = 0;
            return false;
        };
        self.count = match (rested, since) {
            // it has to bring more than one read did before
            (Some(before), Some(since)) if since < OVERSLEPT && bytes / 2 >= before => {
                self.resting = Some(before);
                return true;
            }
            (None, Some(since)) if since <= CLOSE => (self.count + 1).min(MANY),
            _ => 0,
        };
        let rests = self.count == MANY;
        self.resting = rests.then_some(bytes);
        rests
    }

    /// Nothing came, or the guest sent something and may wait for an answer.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(5);

    /// A pace with a program that wrote 64 bytes at a time until the socket is left alone; and when that was.
    fn resting() -> (Pace, Instant) {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..MANY {
            assert!(!pace.emptied(64, now), "too early");
            now += SHORT;
        }
        assert!(pace.emptied(64, now));
        (pace, now)
    }

    #[test]
    fn a_program_that_writes_little_again_and_again_is_read_after_rests() {
        let (mut pace, mut now) = resting();
        for _ in 0..100 {
            now += REST;
            assert!(pace.emptied(40 * 64, now));
        }
    }

    #[test]
    fn a_rest_has_to_pay() {
        for (bytes, rest) in [(64, REST), (40 * 64, OVERSLEPT), (MUCH, REST)] {
            let (mut pace, now) = resting();
            assert!(!pace.emptied(bytes, now + rest), "{bytes} after {rest:?}");
            assert!(!pace.emptied(64, now + rest + SHORT), "it begins anew");
        }
    }

    #[test]
    fn a_program_that_the_guest_talks_to_is_read_at_once() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..1000 {
            now += SHORT;
            assert!(!pace.emptied(64, now));
            pace.reset();
        }
    }

    #[test]
    fn programs_that_write_now_and_then_or_much_are_read_at_once() {
        for (bytes, pause) in [(64, CLOSE + SHORT), (MUCH, SHORT)] {
            let (mut pace, mut now) = (Pace::default(), Instant::now());
            for _ in 0..1000 {
                now += pause;
                assert!(!pace.emptied(bytes, now));
            }
        }
    }
}
