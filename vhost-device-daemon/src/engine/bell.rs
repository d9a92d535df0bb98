//! How a thread wakes another one that waits for events.
//!
//! A bell is a descriptor that is always ready, of which the kernel is asked to tell once. So bells are made without a system call
//! for them, and there is nothing to write or to read.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

use nix::sys::eventfd::{EfdFlags, EventFd};
use vhost_device_core::Interest;

use super::reactor::{EventLoop, Tag};

/// Ends the wait of an event loop's thread.
pub struct Bell {
    events: Arc<EventLoop>,
    descriptor: OwnedFd,
    tag: Tag,
}

impl Bell {
    /// A bell that is heard as `tag`. The first one of a process takes a system call that a confined daemon does not have.
    ///
    /// # Errors
    /// If descriptors or memory run out.
    pub fn new(events: &Arc<EventLoop>, tag: Tag) -> io::Result<Self> {
        let descriptor = ready()?;
        events.add(descriptor.as_raw_fd(), Interest::NONE, tag)?;
        Ok(Self {
            events: Arc::clone(events),
            descriptor,
            tag,
        })
    }

    /// Is heard once, however often it was rung until then.
    pub fn ring(&self) {
        // The only error is that nobody listens any more.
        let _ = self.events.tell_once(self.as_raw_fd(), self.tag);
    }

    /// Is not heard any more.
    pub fn mute(&self) {
        self.events.remove(self.as_raw_fd());
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // Closed alone it would stay: what is behind all bells is one and the same.
        self.mute();
    }
}

/// A descriptor of its own for what is always ready.
fn ready() -> io::Result<OwnedFd> {
    static READY: OnceLock<EventFd> = OnceLock::new();
    let ready = match READY.get() {
        Some(ready) => ready,
        None => {
            let new = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC)?;
            READY.get_or_init(|| new)
        }
    };
    ready.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn heard(events: &EventLoop) -> Vec<Tag> {
        let mut heard = Vec::new();
        let note = |tag, _| heard.push(tag);
        events.wait(Some(Duration::ZERO), note).unwrap();
        heard
    }

    #[test]
    fn a_bell_is_heard_once_each_time_it_is_rung() {
        let events = Arc::new(EventLoop::new().unwrap());
        let [one, other] = [1, 2].map(|tag| Bell::new(&events, Tag::Own(tag)).unwrap());
        assert!(heard(&events).is_empty(), "nobody rang");
        for _ in 0..3 {
            one.ring();
            one.ring();
            assert_eq!(heard(&events), [Tag::Own(1)]);
            assert!(heard(&events).is_empty());
        }
        other.ring();
        one.ring();
        one.mute();
        one.ring();
        assert_eq!(heard(&events), [Tag::Own(2)]);
        other.ring();
        drop(other);
        assert!(heard(&events).is_empty());
    }

    #[test]
    fn a_bell_ends_the_wait_of_another_thread() {
        let events = Arc::new(EventLoop::new().unwrap());
        let bell = Bell::new(&events, Tag::Own(1)).unwrap();
        let waiter = std::thread::spawn(move || {
            for _ in 0..100 {
                let mut rung = false;
                while !rung {
                    events.wait(None, |_, _| rung = true).unwrap();
                }
                std::thread::park();
            }
        });
        while !waiter.is_finished() {
            bell.ring();
            waiter.thread().unpark();
        }
        waiter.join().unwrap();
    }
}
