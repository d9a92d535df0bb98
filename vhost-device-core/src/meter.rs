//! Totals of a queue over the life of the device, for people and programs that watch it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault::GuestFault;
use crate::ring::Counters;

/// Always, but in the build that `cargo xtask bench metrics` compares with, to show what counting costs.
const COUNTED: bool = cfg!(not(uncounted));

/// The totals of one queue. It outlives the runs of the queue and may be read from any thread while the queue is served.
///
/// The worker that serves the queue is the only writer of what counts per request; so nothing is locked, and a
/// number is at most one batch old.
#[derive(Debug, Default)]
pub struct Meter {
    requests: AtomicU64,
    bytes: AtomicU64,
    notified: AtomicU64,
    suppressed: AtomicU64,
    dropped: AtomicU64,
    starts: AtomicU64,
    corruptions: AtomicU64,
    faults: [AtomicU64; GuestFault::ALL.len()],
}

/// What a [`Meter`] showed at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests taken from the ring.
    pub requests: u64,
    /// Bytes read from and written to requests' buffers.
    pub bytes: u64,
    /// Notifications sent to the driver.
    pub notified: u64,
    /// Batches after which the driver asked not to be notified.
    pub suppressed: u64,
    /// What the device dropped because a limit was reached; the device's documentation says what that is.
    pub dropped: u64,
    /// How often the queue was started: once for each set-up by a driver, and each reset or reconnect adds one.
    pub starts: u64,
    /// How often the ring was found corrupt and stopped for it.
    pub corruptions: u64,
    /// Requests that ended with a fault, in the order of [`GuestFault::ALL`].
    pub faults: [u64; GuestFault::ALL.len()],
}

impl Meter {
    /// What it shows now.
    pub fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            requests: load(&self.requests),
            bytes: load(&self.bytes),
            notified: load(&self.notified),
            suppressed: load(&self.suppressed),
            dropped: load(&self.dropped),
            starts: load(&self.starts),
            corruptions: load(&self.corruptions),
            faults: self.faults.each_ref().map(load),
        }
    }

    /// Adds what happened to a run's counters since it was told `last`.
    pub(crate) fn advance(&self, last: &mut Counters, now: &Counters) {
        if !COUNTED || last == now {
            return;
        }
        add(&self.requests, now.requests.wrapping_sub(last.requests));
        add(&self.bytes, now.bytes.wrapping_sub(last.bytes));
        add(&self.notified, now.notified.wrapping_sub(last.notified));
        add(
            &self.suppressed,
            now.suppressed.wrapping_sub(last.suppressed),
        );
        add(&self.dropped, now.dropped.wrapping_sub(last.dropped));
        *last = *now;
    }

    pub(crate) fn started(&self) {
        add(&self.starts, 1);
    }

    pub(crate) fn corrupted(&self) {
        add(&self.corruptions, 1);
    }

    pub(crate) fn refused(&self, fault: GuestFault) {
        if let Some(counter) = self.faults.get(fault as usize) {
            add(counter, 1);
        }
    }
}

/// A load and a store cost a tenth of an atomic addition, and there is one writer.
fn add(counter: &AtomicU64, number: u64) {
    if COUNTED {
        let value = counter.load(Ordering::Relaxed);
        counter.store(value.wrapping_add(number), Ordering::Relaxed);
    }
}

/// Adds to one of a run's [`Counters`].
pub(crate) fn count(counter: &mut u64, number: u64) {
    if COUNTED {
        *counter += number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_between_two_looks_is_added_also_if_requests_went_back() {
        let meter = Meter::default();
        let counters = |requests, bytes| Counters {
            requests,
            bytes,
            ..Counters::default()
        };
        let mut last = Counters::default();
        meter.advance(&mut last, &counters(5, 500));
        meter.advance(&mut last, &counters(3, 510));
        let totals = meter.totals();
        assert_eq!((totals.requests, totals.bytes), (3, 510));
    }

    #[test]
    fn every_fault_has_a_counter_and_a_name_of_its_own() {
        let meter = Meter::default();
        let mut names = Vec::new();
        for (position, fault) in GuestFault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, position);
            meter.refused(fault);
            assert!(!names.contains(&fault.name()), "{fault}");
            names.push(fault.name());
        }
        assert_eq!(meter.totals().faults, [1; GuestFault::ALL.len()]);
    }
}
