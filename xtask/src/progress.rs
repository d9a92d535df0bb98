//! What a person sees on standard error while a long step runs.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a line of a terminal is rewritten.
const TERMINAL_TICK: Duration = Duration::from_secs(1);

/// How often a log gets a sign of life.
const LOG_TICK: Duration = Duration::from_secs(30);

/// What takes less is not worth a line.
const SHORT: Duration = Duration::from_secs(1);

/// How many steps are under way, one inside the other. The innermost one has the line.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// A running step: its name and the time it has taken so far.
pub struct Progress {
    label: String,
    start: Instant,
    if_long: bool,
    // dropping the sender ends the ticker
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Announces a step and goes on to show the elapsed time until [`Progress::done`] or drop.
    pub fn start(label: impl Into<String>) -> Self {
        Self::new(label.into(), false)
    }

    /// As [`Progress::start`], but a step that takes less than a second is not mentioned.
    pub fn start_if_long(label: impl Into<String>) -> Self {
        Self::new(label.into(), true)
    }

    fn new(label: String, if_long: bool) -> Self {
        let start = Instant::now();
        let depth = DEPTH.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = channel::<()>();
        let text = label.clone();
        let ticker = thread::spawn(move || {
            let terminal = stderr().is_terminal();
            let pause = |time| receiver.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
            if if_long && !pause(SHORT) {
                return;
            }
            if !terminal {
                eprintln!("{text} ...");
            }
            loop {
                let innermost = DEPTH.load(Ordering::Relaxed) == depth;
                if innermost {
                    show(terminal, &text, start.elapsed());
                }
                if !pause(if terminal { TERMINAL_TICK } else { LOG_TICK }) {
                    return;
                }
            }
        });
        Self {
            label,
            start,
            if_long,
            ticker: Some((sender, ticker)),
        }
    }

    /// Ends the step with its result, for example "ok" or "12 passed".
    pub fn done(mut self, result: &str) {
        self.stop();
        let elapsed = self.start.elapsed();
        if !self.if_long || elapsed >= SHORT {
            eprintln!("{}: {result} [{}]", self.label, seconds(elapsed));
        }
    }

    fn stop(&mut self) {
        let Some((sender, ticker)) = self.ticker.take() else {
            return;
        };
        drop(sender);
        // a ticker that panicked has nothing more to show
        let _ = ticker.join();
        DEPTH.fetch_sub(1, Ordering::Relaxed);
        if stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

fn show(terminal: bool, label: &str, elapsed: Duration) {
    if terminal {
        eprint!("\r\x1b[K{label} [{}]", seconds(elapsed));
        // a progress line that cannot be shown is no reason to fail
        let _ = stderr().flush();
    } else if elapsed >= LOG_TICK {
        eprintln!("{label} ... [{}]", seconds(elapsed));
    }
}

/// A duration as people read it: "0.4 s", "75 s".
pub fn seconds(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(10) {
        format!("{:.1} s", elapsed.as_secs_f64())
    } else {
        format!("{} s", elapsed.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_a_fraction_and_long_ones_do_not() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.4 s");
        assert_eq!(seconds(Duration::from_millis(75_900)), "75 s");
    }

    #[test]
    fn a_step_ends_its_ticker_at_once() {
        let start = Instant::now();
        Progress::start_if_long("nothing").done("ok");
        drop(Progress::start("left by an error"));
        assert!(start.elapsed() < LOG_TICK / 2);
    }
}
