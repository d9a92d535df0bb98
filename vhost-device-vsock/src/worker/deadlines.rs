//! What happens when nothing happens: connections that wait for the guest or the host, each kind equally long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use vhost_device_core::Timer;

use crate::connection::Phase;
use crate::pace::REST;
use crate::table::Slot;

/// How long a guest may take to answer a request for a connection, or to confirm the end of one.
pub const LINGER: Duration = Duration::from_secs(8);

/// How long a guest's connection waits for a listener that has too many waiting already; what Linux guests allow.
pub const CONNECT: Duration = Duration::from_secs(2);

/// How much later than that it may be.
const SLACK: Duration = Duration::from_millis(200);

/// How long a guest without room may take to tell of some by itself. Linux tells when a program has read.
const STARVE: Duration = Duration::from_millis(20);

/// Sockets whose rests end within this time are read together: however many there are, the guest is not woken for each.
const TOGETHER: Duration = Duration::from_micros(25);

/// How often a listener that had too many waiting is tried again.
const RECONNECT: Duration = Duration::from_millis(10);

/// How often host programs that were left waiting are looked for, if no connection ends before.
const ACCEPT: Duration = Duration::from_millis(500);

/// The deadlines of one guest's connections.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// In order of time, as all wait equally long.
    lingering: VecDeque<(Instant, Slot, Phase)>,
    /// In order of time: those that the guest has no room for.
    starving: VecDeque<(Instant, Slot)>,
    /// In order of time: those whose sockets are left alone for a moment.
    resting: VecDeque<(Instant, Slot)>,
    /// Until when to try to connect.
    connecting: VecDeque<(Instant, Slot)>,
    /// When to try again.
    retry: Option<Instant>,
    /// What the timer is set to.
    armed: Option<Instant>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The connection has waited long enough, if it still is in this phase.
    Lingered(Slot, Phase),
    /// The guest has had time to tell of room.
    Starved(Slot),
    /// The socket may be read again.
    Rested(Slot),
    /// It is time to try everything again.
    Retry,
}

impl Deadlines {
    /// Waits for the guest to get a connection out of this phase.
    pub fn linger(&mut self, slot: Slot, phase: Phase, now: Instant) {
        self.lingering.push_back((now + LINGER, slot, phase));
    }

    /// Waits for the guest to have room.
    pub fn starve(&mut self, slot: Slot, now: Instant) {
        self.starving.push_back((now + STARVE, slot));
    }

    /// Leaves a socket alone for a moment.
    pub fn rest(&mut self, slot: Slot, now: Instant) {
        self.resting.push_back((now + REST, slot));
    }

    /// Tries to connect again for a while.
    pub fn connect(&mut self, slot: Slot, until: Instant, now: Instant) {
        self.connecting.push_back((until, slot));
        self.retry_at(now + RECONNECT);
    }

    /// Looks for host programs again after a while.
    pub fn accept(&mut self, now: Instant) {
        self.retry_at(now + ACCEPT);
    }

    fn retry_at(&mut self, then: Instant) {
        let soonest = self.retry.map_or(then, |retry| retry.min(then));
        self.retry = Some(soonest);
    }

    /// Connections that are to be tried again, with their deadlines.
    pub fn connecting(&mut self) -> VecDeque<(Instant, Slot)> {
        std::mem::take(&mut self.connecting)
    }

    /// The next thing that is due.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.armed.is_some_and(|armed| armed <= now) {
            self.armed = None;
        }
        if self.retry.is_some_and(|retry| retry <= now) {
            self.retry = None;
            return Some(Due::Retry);
        }
        if let Some(&(until, slot)) = self.resting.front()
            && until <= now + TOGETHER
        {
            self.resting.pop_front();
            return Some(Due::Rested(slot));
        }
        if let Some(&(until, slot)) = self.starving.front()
            && until <= now
        {
            self.starving.pop_front();
            return Some(Due::Starved(slot));
        }
        match self.lingering.front() {
            Some(&(until, slot, phase)) if until <= now => {
                self.lingering.pop_front();
                Some(Due::Lingered(slot, phase))
            }
            _ => None,
        }
    }

    /// Sets the timer to the next deadline. Those of many connections that follow each other closely are one.
    pub fn arm(&mut self, timer: &mut dyn Timer) {
        let first = self.lingering.front().map(|(until, _, _)| *until + SLACK);
        let starving = self.starving.front().map(|(until, _)| *until);
        let resting = self.resting.front().map(|(until, _)| *until);
        let waiting = [first, starving, resting, self.retry];
        let Some(next) = waiting.into_iter().flatten().min() else {
            return;
        };
        if self.armed.is_none_or(|armed| next < armed) {
            timer.arm(next.saturating_duration_since(Instant::now()));
            self.armed = Some(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_due_in_order_and_not_before() {
        let mut deadlines = Deadlines::default();
        let (start, slots) = (Instant::now(), [1, 2].map(Slot::from_bits));
        let closing = Phase::Closing;
        deadlines.linger(slots[0], closing, start);
        deadlines.linger(slots[1], Phase::Asking, start + RECONNECT);
        deadlines.accept(start);
        deadlines.rest(slots[1], start);
        deadlines.rest(slots[0], start + TOGETHER);
        deadlines.connect(slots[0], start + CONNECT, start);
        assert_eq!(deadlines.due(start), None);
        assert_eq!(deadlines.due(start + REST), Some(Due::Rested(slots[1])));
        assert_eq!(deadlines.due(start + REST), Some(Due::Rested(slots[0])));
        assert_eq!(deadlines.due(start + REST), None);
        assert_eq!(deadlines.due(start + RECONNECT), Some(Due::Retry));
        assert_eq!(deadlines.connecting(), [(start + CONNECT, slots[0])]);
        assert_eq!(deadlines.due(start + RECONNECT), None);
        let later = start + LINGER;
        assert_eq!(deadlines.due(later), Some(Due::Lingered(slots[0], closing)));
        assert_eq!(deadlines.due(later), None);
        let last = later + RECONNECT;
        let asking = Due::Lingered(slots[1], Phase::Asking);
        assert_eq!(deadlines.due(last), Some(asking));
    }
}
