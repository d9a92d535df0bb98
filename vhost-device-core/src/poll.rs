//! A bounded, adaptive busy-poll: a thread that is about to sleep looks at its rings a little longer, if that pays.
//!
//! The window never exceeds the configured maximum. It doubles when polling finds work or when a sleep turns out shorter
//! than the maximum, and halves when polling finds nothing; below a microsecond it closes. An idle device sleeps.

use std::time::{Duration, Instant};

const SMALLEST: Duration = Duration::from_micros(1);
/// No window is longer, whatever was asked for: the thread has other duties.
const LARGEST: Duration = Duration::from_millis(100);

/// Polling state of one thread.
#[derive(Debug)]
pub struct Poll {
    max: Duration,
    window: Duration,
    slept: Option<Instant>,
}

impl Poll {
    /// Polls up to `max` before each sleep; zero turns it off, and costs nothing then. Below a microsecond it is off too,
    /// above a tenth of a second it is cut.
    pub fn new(max: Duration) -> Self {
        let max = if max < SMALLEST {
            Duration::ZERO
        } else {
            max.min(LARGEST)
        };
        Self {
            max,
            window: max,
            slept: None,
        }
    }

    /// No polling.
    pub fn off() -> Self {
        Self::new(Duration::ZERO)
    }

    pub(crate) fn begin(&mut self) -> Option<Window> {
        if self.max.is_zero() {
            return None;
        }
        let now = Instant::now();
        self.slept = Some(now);
        (self.window >= SMALLEST).then(|| Window {
            length: self.window,
            deadline: now + self.window,
            last: now + self.max * 4,
            hits: 0,
        })
    }

    pub(crate) fn end(&mut self, window: Window) {
        self.slept = Some(Instant::now());
        if window.hits > 0 {
            self.grow();
        } else {
            self.window /= 2;
        }
    }

    pub(crate) fn woke(&mut self) {
        if let Some(slept) = self.slept.take()
            && slept.elapsed() <= self.max
        {
            self.grow();
        }
    }

    fn grow(&mut self) {
        self.window = (self.window * 2).clamp(SMALLEST, self.max);
    }
}

/// One stretch of polling. Work found restarts it, up to a few times the maximum.
#[derive(Debug)]
pub(crate) struct Window {
    length: Duration,
    deadline: Instant,
    last: Instant,
    hits: u32,
}

impl Window {
    pub fn is_open(&self) -> bool {
        Instant::now() < self.deadline
    }

    pub fn hit(&mut self) {
        self.hits += 1;
        self.deadline = (Instant::now() + self.length).min(self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_that_is_off_never_opens_a_window() {
        assert!(Poll::off().begin().is_none());
    }

    #[test]
    fn the_window_closes_when_nothing_is_found_and_opens_again_after_short_sleeps() {
        let mut poll = Poll::new(Duration::from_millis(50));
        for _ in 0..20 {
            if let Some(window) = poll.begin() {
                poll.end(window);
            }
        }
        assert!(poll.begin().is_none(), "idle polling must end");
        poll.woke();
        assert!(
            poll.begin().is_some(),
            "a sleep shorter than the maximum would have been a hit"
        );
    }

    #[test]
    fn work_found_never_keeps_a_window_open_beyond_its_bound() {
        let max = Duration::from_millis(2);
        let mut poll = Poll::new(max);
        let start = Instant::now();
        let mut window = poll.begin().unwrap();
        while window.is_open() {
            window.hit();
        }
        assert!(
            start.elapsed() < max * 40,
            "the bound is four times the maximum"
        );
    }
}
