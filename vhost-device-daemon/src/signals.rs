//! SIGTERM, SIGINT and SIGUSR1 as a pollable descriptor.
//!
//! SIGHUP keeps its default action; as number 1 of a pid namespace the process has a parent that signals go to, and which passes these
//! on (see `confine/supervisor.rs`). SIGPIPE needs nothing: the Rust runtime ignores it before `main`, and a write to a
//! connection that is gone is an ordinary error.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{self, SigSet};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What logs the counters.
pub const REPORT: signal::Signal = signal::SIGUSR1;

/// The signals that are handled.
pub const HANDLED: [signal::Signal; 3] = [signal::SIGTERM, signal::SIGINT, REPORT];

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from a service manager.
    Terminate,
    /// SIGINT, from a terminal.
    Interrupt,
    /// SIGUSR1: log the counters.
    Report,
}

/// The receiving end of the process's signals.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks the signals and returns the descriptor that becomes readable when one arrives.
    ///
    /// Call it on the main thread before any other thread exists: threads inherit the mask, and a thread without it
    /// would be ended by the signal's default action, and the process with it.
    pub fn block() -> io::Result<Self> {
        let set = SigSet::from_iter(HANDLED);
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor = SignalFd::with_flags(&set, flags)?;
        Ok(Self { descriptor })
    }

    /// Takes a pending signal, without waiting.
    pub fn take(&self) -> Option<Signal> {
        let info = self.descriptor.read_signal().ok()??;
        Some(match info.ssi_signo {
            number if number == REPORT as u32 => Signal::Report,
            number if number == signal::SIGINT as u32 => Signal::Interrupt,
            _ => Signal::Terminate,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use vhost_device_core::Interest;

    use super::*;
    use crate::engine::Glance;

    fn is_readable(signals: &Signals) -> bool {
        let glance = Glance::at(&signals.as_fd(), Interest::READABLE).unwrap();
        glance.look().readable
    }

    // raise() directs the signal to the calling thread only, so the tests of other threads are not disturbed.

    #[test]
    fn a_signal_makes_the_descriptor_readable_and_is_taken_once() {
        for (number, expected) in [
            (signal::SIGTERM, Signal::Terminate),
            (signal::SIGINT, Signal::Interrupt),
            (signal::SIGUSR1, Signal::Report),
        ] {
            let signals = Signals::block().unwrap();
            assert!(!is_readable(&signals));
            assert_eq!(signals.take(), None);
            signal::raise(number).unwrap();
            assert!(is_readable(&signals));
            assert_eq!(signals.take(), Some(expected));
            assert_eq!(signals.take(), None);
        }
    }

    #[test]
    fn threads_started_later_inherit_the_mask() {
        let _signals = Signals::block().unwrap();
        let mask = std::thread::spawn(SigSet::thread_get_mask)
            .join()
            .unwrap()
            .unwrap();
        assert!(mask.contains(signal::SIGTERM) && mask.contains(signal::SIGINT));
    }

    #[test]
    fn sigpipe_is_ignored_by_the_runtime() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status
            .lines()
            .find_map(|l| l.strip_prefix("SigIgn:"))
            .unwrap();
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        assert_ne!(ignored & (1 << (signal::SIGPIPE as u32 - 1)), 0);
    }
}
