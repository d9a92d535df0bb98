//! A limit on how often guest mistakes are logged: a hostile guest must not fill a disk or slow a ring down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::fault::{GuestFault, RingFault};
use crate::ids::QueueIndex;

/// Lines a second that one [`Limiter`] lets through.
pub const LINES_PER_SECOND: u64 = 10;

/// Lets through [`LINES_PER_SECOND`] lines a second and counts the rest. Lock-free; under contention a few lines more or
/// less may pass.
#[derive(Debug, Default)]
pub struct Limiter {
    /// The current second in the upper half, lines let through in it in the lower half.
    window: AtomicU64,
    suppressed: AtomicU64,
}

impl Limiter {
    /// A limiter that has let nothing through yet.
    pub const fn new() -> Self {
        Self {
            window: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written in second `now`; if so, how many were held back since the last one.
    pub fn admit(&self, now: u64) -> Option<u64> {
        let second = now & 0xffff_ffff;
        let window = self.window.load(Ordering::Relaxed);
        let lines = if window >> 32 == second {
            window & 0xffff_ffff
        } else {
            0
        };
        if lines >= LINES_PER_SECOND {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.window
            .store((second << 32) | (lines + 1), Ordering::Relaxed);
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

fn second() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs()
}

/// Logs one line at `warn`, unless too many were logged this second.
pub fn warn(limiter: &Limiter, line: std::fmt::Arguments<'_>) {
    if !log::log_enabled!(log::Level::Warn) {
        return;
    }
    match limiter.admit(second()) {
        Some(0) => log::warn!("{line}"),
        Some(held_back) => log::warn!("{line} ({held_back} similar lines held back)"),
        None => {}
    }
}

/// Reports a guest's mistake.
pub(crate) fn guest_fault(queue: QueueIndex, fault: GuestFault) {
    static LIMITER: Limiter = Limiter::new();
    warn(
        &LIMITER,
        format_args!("queue {queue}: request refused: {fault}"),
    );
}

/// Reports a corrupt ring. Limited too: a guest can reset its device and corrupt it again as often as it likes.
pub(crate) fn ring_fault(queue: QueueIndex, fault: RingFault) {
    static LIMITER: Limiter = Limiter::new();
    warn(
        &LIMITER,
        format_args!("queue {queue}: {fault}; the queue stops until it is set up anew"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_pass_and_the_next_one_tells_how_many_did_not() {
        let limiter = Limiter::new();
        let passed = (0..100).filter(|_| limiter.admit(5).is_some()).count();
        assert_eq!(passed as u64, LINES_PER_SECOND);
        assert_eq!(limiter.admit(6), Some(90));
        assert_eq!(limiter.admit(6), Some(0));
    }
}
