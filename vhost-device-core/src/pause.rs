//! Letting time pass.

use std::thread;
use std::time::{Duration, Instant};

/// Puts the calling thread to sleep for at least `duration`.
///
/// Unlike [`thread::sleep`] it makes no system call but that by which threads wait for each other, and so needs none in a confined
/// daemon's table.
pub fn pause(duration: Duration) {
    let begin = Instant::now();
    let mut left = duration;
    // It may end early: because somebody woke the thread, or because the process was stopped and continued.
    while !left.is_zero() {
        thread::park_timeout(left);
        left = duration.saturating_sub(begin.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_as_long_as_it_should_be_though_the_thread_is_woken() {
        let sleeper = thread::spawn(|| {
            let begin = Instant::now();
            pause(Duration::from_millis(20));
            begin.elapsed()
        });
        while !sleeper.is_finished() {
            sleeper.thread().unpark();
            thread::yield_now();
        }
        assert!(sleeper.join().unwrap() >= Duration::from_millis(20));
    }
}
