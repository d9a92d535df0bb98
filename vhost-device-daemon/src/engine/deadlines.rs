//! The timers of a thread: deadlines that it does not sleep past.
//!
//! A deadline is the timeout of the thread's next wait, so that timers need neither descriptors nor system calls of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vhost_device_core::Timer;

use super::reactor::Tag;

/// No deadline at all.
const NEVER: u64 = u64::MAX;

/// A timer that was set.
#[derive(Debug)]
struct Entry {
    tag: Tag,
    /// In nanoseconds since the origin.
    at: u64,
    /// The thread was told, and has not looked yet.
    fired: bool,
}

/// The timers that are set.
#[derive(Debug)]
pub struct Deadlines {
    origin: Instant,
    /// The earliest of those that have not fired. Read alone: a thread without timers takes no lock.
    next: AtomicU64,
    entries: Mutex<Vec<Entry>>,
}

impl Deadlines {
    /// No timers.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            next: AtomicU64::new(NEVER),
            entries: Mutex::default(),
        }
    }

    /// How long until the next timer fires; `None` without one.
    pub fn remaining(&self) -> Option<Duration> {
        let next = self.next.load(Ordering::Relaxed);
        (next != NEVER).then(|| Duration::from_nanos(next.saturating_sub(self.now())))
    }

    /// Takes note that a timer fires now, one at a time, the earliest first.
    pub fn fire(&self) -> Option<Tag> {
        let next = self.next.load(Ordering::Relaxed);
        if next == NEVER || next > self.now() {
            return None;
        }
        let mut entries = self.lock();
        let due = entries
            .iter_mut()
            .find(|entry| !entry.fired && entry.at == next)?;
        due.fired = true;
        let tag = due.tag;
        self.update(&entries);
        Some(tag)
    }

    /// Whether a timer fired and was not set anew or switched off since; asking settles it.
    pub fn acknowledge(&self, tag: Tag) -> bool {
        let mut entries = self.lock();
        let fired = entries
            .iter()
            .position(|entry| entry.tag == tag && entry.fired);
        fired
            .map(|position| entries.swap_remove(position))
            .is_some()
    }

    fn set(&self, tag: Tag, after: Option<Duration>) {
        let mut entries = self.lock();
        entries.retain(|entry| entry.tag != tag);
        if let Some(after) = after {
            let after = u64::try_from(after.as_nanos()).unwrap_or(NEVER);
            let at = self.now().saturating_add(after).min(NEVER - 1);
            entries.push(Entry {
                tag,
                at,
                fired: false,
            });
        }
        self.update(&entries);
    }

    fn update(&self, entries: &[Entry]) {
        let waiting = entries.iter().filter(|entry| !entry.fired);
        let next = waiting.map(|entry| entry.at).min();
        self.next.store(next.unwrap_or(NEVER), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(NEVER)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A timer of a worker, which is set on the thread that the worker runs on. It is switched off when dropped.
#[derive(Debug)]
pub struct OneShot {
    deadlines: Arc<Deadlines>,
    tag: Tag,
}

impl OneShot {
    /// A timer that is not set.
    pub fn new(deadlines: &Arc<Deadlines>, tag: Tag) -> Self {
        Self {
            deadlines: Arc::clone(deadlines),
            tag,
        }
    }
}

impl Timer for OneShot {
    fn arm(&mut self, after: Duration) {
        self.deadlines.set(self.tag, Some(after));
    }

    fn disarm(&mut self) {
        self.deadlines.set(self.tag, None);
    }
}

impl Drop for OneShot {
    fn drop(&mut self) {
        self.disarm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines_and_once() {
        let deadlines = Arc::new(Deadlines::new());
        assert_eq!(deadlines.remaining(), None);
        let mut late = OneShot::new(&deadlines, Tag::Own(1));
        let mut early = OneShot::new(&deadlines, Tag::Own(2));
        let mut never = OneShot::new(&deadlines, Tag::Own(3));
        late.arm(Duration::from_millis(2));
        early.arm(Duration::from_millis(1));
        never.arm(Duration::MAX);
        assert!(deadlines.remaining().unwrap() <= Duration::from_millis(1));
        assert_eq!(deadlines.fire(), None);
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(deadlines.fire(), Some(Tag::Own(2)));
        assert_eq!(deadlines.fire(), Some(Tag::Own(1)));
        assert_eq!(deadlines.fire(), None);
        assert!(deadlines.remaining().unwrap() > Duration::from_secs(1 << 30));
        assert!(deadlines.acknowledge(Tag::Own(2)));
        assert!(!deadlines.acknowledge(Tag::Own(2)), "settled");
        late.arm(Duration::from_secs(60));
        assert!(!deadlines.acknowledge(Tag::Own(1)), "set anew");
        drop((late, never));
        assert_eq!(deadlines.remaining(), None);
    }
}
