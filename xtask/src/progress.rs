//! What a person sees on standard error while a long step runs.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a line of a terminal is rewritten.
const TERMINAL_TICK: Duration = Duration::from_secs(1);

/// How often a log gets a sign of life.
const LOG_TICK: Duration = Duration::from_secs(30);

/// A running step: its name and the time it has taken so far.
pub struct Progress {
    label: String,
    start: Instant,
    // dropping the sender ends the ticker
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Announces the step and goes on to show the elapsed time until [`Progress::done`] or drop.
    pub fn start(label: impl Into<String>) -> Self {
        let label = label.into();
        let start = Instant::now();
        let terminal = stderr().is_terminal();
        if !terminal {
            eprintln!("{label} ...");
        }
        let (sender, receiver) = channel::<()>();
        let text = label.clone();
        let ticker = thread::spawn(move || {
            let tick = if terminal { TERMINAL_TICK } else { LOG_TICK };
            loop {
                show(terminal, &text, start.elapsed());
                if receiver.recv_timeout(tick) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self {
            label,
            start,
            ticker: Some((sender, ticker)),
        }
    }

    /// Ends the step with its result, for example "ok" or "12 passed".
    pub fn done(mut self, result: &str) {
        self.stop();
        eprintln!(
            "{}: {result} [{}]",
            self.label,
            seconds(self.start.elapsed())
        );
    }

    fn stop(&mut self) {
        if let Some((sender, ticker)) = self.ticker.take() {
            drop(sender);
            // a ticker that panicked has nothing more to show
            let _ = ticker.join();
            if stderr().is_terminal() {
                eprint!("\r\x1b[K");
            }
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
