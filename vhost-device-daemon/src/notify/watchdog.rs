//! Signs of life for a service manager that asks for them, in the protocol of `sd_watchdog_enabled(3)`: `WATCHDOG_USEC` tells
//! how long the daemon may be silent, `WATCHDOG_PID` which process is meant.

use std::env;
use std::time::{Duration, Instant};

use super::tell;

/// When the next sign of life is due. There is none of these where nobody asks: an idle daemon sleeps.
#[derive(Debug)]
pub struct Watchdog {
    interval: Duration,
    next: Instant,
}

impl Watchdog {
    /// What the service manager asks for in the environment.
    pub fn from_environment() -> Option<Self> {
        let variable = |name: &str| env::var(name).ok();
        let silence = interpret(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            std::process::id(),
        )?;
        // Half of the time, as the protocol's manual advises: one sign may come late.
        let interval = silence / 2;
        Some(Self {
            interval,
            next: Instant::now() + interval,
        })
    }

    /// When to come back.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Gives a sign of life if it is time for one.
    pub fn keep(&mut self, now: Instant) {
        if now >= self.next {
            self.next = now + self.interval;
            tell("WATCHDOG=1");
        }
    }
}

/// How long this process may be silent; `None` if nobody minds.
fn interpret(microseconds: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own_pid)) {
        return None;
    }
    match microseconds?.parse() {
        Ok(0) => None,
        Ok(silence) => Some(Duration::from_micros(silence)),
        Err(error) => {
            log::warn!("WATCHDOG_USEC is not a number of microseconds: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_time_for_this_process_counts() {
        let minute = Some(Duration::from_secs(60));
        let cases = [
            (None, None, None),
            (None, Some("42"), None),
            (Some("60000000"), None, minute),
            (Some("60000000"), Some("42"), minute),
            (Some("60000000"), Some("41"), None),
            (Some("60000000"), Some(""), None),
            (Some("0"), Some("42"), None),
            (Some("-1"), None, None),
            (Some("soon"), Some("42"), None),
        ];
        for (microseconds, pid, expected) in cases {
            assert_eq!(
                interpret(microseconds, pid, 42),
                expected,
                "{microseconds:?} {pid:?}"
            );
        }
    }

    #[test]
    fn a_sign_is_due_once_in_each_interval() {
        let start = Instant::now();
        let interval = Duration::from_secs(30);
        let mut watchdog = Watchdog {
            interval,
            next: start + interval,
        };
        watchdog.keep(start);
        assert_eq!(watchdog.next(), start + interval);
        watchdog.keep(start + interval);
        assert_eq!(watchdog.next(), start + 2 * interval);
        // late ones are not made up for
        watchdog.keep(start + 10 * interval);
        assert_eq!(watchdog.next(), start + 11 * interval);
    }
}
