//! One epoll instance per thread, and what its 64-bit tags mean.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use vhost_device_core::{Interest, QueueIndex, Reactor, Ready, Timer, Token, Waker};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::bell::Bell;
use super::deadlines::{Deadlines, OneShot};
use super::wait;

/// Events taken from the kernel at a time.
const EVENTS: usize = 32;

/// What an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Something of the thread itself, by number.
    Own(u32),
    /// A command waits in the mailbox of the station of this generation.
    Mail(u32),
    /// The driver kicked a queue of the station of this generation.
    Kick(u32, QueueIndex),
    /// Something that the worker of the station of this generation watches.
    Worker(u32, Token),
}

const GENERATION_BITS: u64 = 24;

impl Tag {
    fn encode(self) -> u64 {
        let pack = |kind: u64, generation: u32, value: u32| {
            let generation = u64::from(generation) & ((1 << GENERATION_BITS) - 1);
            kind << 56 | generation << 32 | u64::from(value)
        };
        match self {
            Self::Own(value) => pack(0, 0, value),
            Self::Mail(generation) => pack(1, generation, 0),
            Self::Kick(generation, queue) => pack(2, generation, u32::from(queue.0)),
            Self::Worker(generation, token) => pack(3, generation, token.0),
        }
    }

    fn decode(data: u64) -> Self {
        let generation = (data >> 32) as u32 & ((1 << GENERATION_BITS) - 1);
        let value = data as u32;
        match data >> 56 {
            0 => Self::Own(value),
            1 => Self::Mail(generation),
            2 => Self::Kick(generation, QueueIndex(value as u16)),
            _ => Self::Worker(generation, Token(value)),
        }
    }

    /// The station that the event belongs to; `None` for the thread's own.
    pub fn generation(self) -> Option<u32> {
        match self {
            Self::Own(_) => None,
            Self::Mail(generation) | Self::Kick(generation, _) | Self::Worker(generation, _) => {
                Some(generation)
            }
        }
    }
}

/// A thread's epoll instance.
pub struct EventLoop {
    epoll: Epoll,
    deadlines: Arc<Deadlines>,
}

impl EventLoop {
    /// An empty epoll instance.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            deadlines: Arc::new(Deadlines::new()),
        })
    }

    /// Adds a descriptor, level-triggered.
    pub fn add(&self, fd: RawFd, interest: Interest, tag: Tag) -> io::Result<()> {
        self.control(ControlOperation::Add, fd, events(interest), tag)
    }

    /// Adds a descriptor, edge-triggered: each new write to an eventfd is an event, and nobody has to read it. That saves
    /// a system call per kick, and a reader cannot be made to block by a frontend that reads the counter away.
    pub fn add_edge(&self, fd: RawFd, tag: Tag) -> io::Result<()> {
        let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
        self.control(ControlOperation::Add, fd, events, tag)
    }

    /// Changes what is watched.
    pub fn modify(&self, fd: RawFd, interest: Interest, tag: Tag) -> io::Result<()> {
        self.control(ControlOperation::Modify, fd, events(interest), tag)
    }

    /// Tells of a descriptor once, if it is readable, and then no more until it is asked to again.
    pub fn tell_once(&self, fd: RawFd, tag: Tag) -> io::Result<()> {
        let events = EventSet::IN | EventSet::ONE_SHOT;
        self.control(ControlOperation::Modify, fd, events, tag)
    }

    /// Adds a descriptor, or changes what is watched of it, edge-triggered.
    fn control_edges(
        &self,
        operation: ControlOperation,
        fd: RawFd,
        interest: Interest,
        tag: Tag,
    ) -> io::Result<()> {
        let events = events(interest) | EventSet::EDGE_TRIGGERED;
        self.control(operation, fd, events, tag)
    }

    /// Removes a descriptor. One that the kernel no longer knows is as good as removed.
    pub fn remove(&self, fd: RawFd) {
        let _ = self
            .epoll
            .ctl(ControlOperation::Delete, fd, EpollEvent::default());
    }

    fn control(
        &self,
        operation: ControlOperation,
        fd: RawFd,
        events: EventSet,
        tag: Tag,
    ) -> io::Result<()> {
        self.epoll
            .ctl(operation, fd, EpollEvent::new(events, tag.encode()))
    }

    /// Waits and calls `each` for what is ready, timers included. `None` waits without end.
    pub fn wait(
        &self,
        timeout: Option<Duration>,
        mut each: impl FnMut(Tag, Ready),
    ) -> io::Result<()> {
        let mut buffer = [EpollEvent::default(); EVENTS];
        let timeout = timeout.into_iter().chain(self.deadlines.remaining()).min();
        let count = match wait::for_events(&self.epoll, &mut buffer, timeout) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for event in buffer.iter().take(count) {
            each(Tag::decode(event.data()), ready(event.event_set()));
        }
        while let Some(tag) = self.deadlines.fire() {
            each(tag, ready(EventSet::IN));
        }
        Ok(())
    }
}

fn events(interest: Interest) -> EventSet {
    let mut events = EventSet::empty();
    if interest.readable {
        events |= EventSet::IN | EventSet::READ_HANG_UP;
    }
    if interest.writable {
        events |= EventSet::OUT;
    }
    events
}

fn ready(events: EventSet) -> Ready {
    Ready {
        readable: events.contains(EventSet::IN),
        writable: events.contains(EventSet::OUT),
        hangup: events.intersects(EventSet::HANG_UP | EventSet::READ_HANG_UP),
        error: events.contains(EventSet::ERROR),
    }
}

/// Something watched for a worker.
enum Watched {
    Foreign(RawFd),
    Edges(RawFd),
    /// A timer, which has no descriptor.
    Timer,
    Waker(Arc<Bell>),
}

impl Watched {
    /// What the kernel watches; a timer has no descriptor.
    fn fd(&self) -> Option<RawFd> {
        match self {
            Self::Foreign(fd) | Self::Edges(fd) => Some(*fd),
            Self::Timer => None,
            Self::Waker(bell) => Some(bell.as_raw_fd()),
        }
    }

    fn leave(&self, events: &EventLoop) {
        if let Some(fd) = self.fd() {
            events.remove(fd);
        }
    }
}

/// The reactor of one worker: its tokens on the thread's epoll instance.
pub struct Watches {
    events: Arc<EventLoop>,
    generation: u32,
    watched: BTreeMap<Token, Watched>,
}

impl Watches {
    /// No tokens yet.
    pub fn new(events: Arc<EventLoop>, generation: u32) -> Self {
        Self {
            events,
            generation,
            watched: BTreeMap::new(),
        }
    }

    /// Takes note of an event: false if the token is not watched any more. Timers are settled here, so that workers need not.
    pub fn acknowledge(&self, token: Token) -> bool {
        match self.watched.get(&token) {
            None => false,
            Some(Watched::Foreign(_) | Watched::Edges(_) | Watched::Waker(_)) => true,
            Some(Watched::Timer) => {
                let tag = Tag::Worker(self.generation, token);
                self.events.deadlines.acknowledge(tag)
            }
        }
    }

    /// A token names one thing.
    fn check_free(&self, token: Token) -> io::Result<()> {
        match self.watched.contains_key(&token) {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => Ok(()),
        }
    }

    fn insert(&mut self, token: Token, watched: Watched, interest: Interest) -> io::Result<()> {
        self.check_free(token)?;
        let tag = Tag::Worker(self.generation, token);
        match &watched {
            Watched::Foreign(fd) => self.events.add(*fd, interest, tag)?,
            Watched::Edges(fd) => {
                self.events
                    .control_edges(ControlOperation::Add, *fd, interest, tag)?;
            }
            Watched::Timer | Watched::Waker(_) => {}
        }
        self.watched.insert(token, watched);
        Ok(())
    }
}

impl Reactor for Watches {
    fn watch(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: Token) -> io::Result<()> {
        self.insert(token, Watched::Foreign(fd.as_raw_fd()), interest)
    }

    fn watch_edges(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        token: Token,
    ) -> io::Result<()> {
        self.insert(token, Watched::Edges(fd.as_raw_fd()), interest)
    }

    fn interest(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let watched = self.watched.get(&token).ok_or(io::ErrorKind::NotFound)?;
        let tag = Tag::Worker(self.generation, token);
        match watched {
            Watched::Foreign(fd) => self.events.modify(*fd, interest, tag),
            Watched::Edges(fd) => {
                self.events
                    .control_edges(ControlOperation::Modify, *fd, interest, tag)
            }
            Watched::Timer | Watched::Waker(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn unwatch(&mut self, token: Token) {
        if let Some(watched) = self.watched.remove(&token) {
            watched.leave(&self.events);
        }
    }

    fn timer(&mut self, token: Token) -> io::Result<Box<dyn Timer>> {
        self.insert(token, Watched::Timer, Interest::NONE)?;
        let tag = Tag::Worker(self.generation, token);
        Ok(Box::new(OneShot::new(&self.events.deadlines, tag)))
    }

    fn waker(&mut self, token: Token) -> io::Result<Waker> {
        self.check_free(token)?;
        let bell = Bell::new(&self.events, Tag::Worker(self.generation, token))?;
        let bell = Arc::new(bell);
        self.watched
            .insert(token, Watched::Waker(Arc::clone(&bell)));
        Ok(Waker::new(move || bell.ring()))
    }

    fn config_changed(&mut self) {
        // The vhost crate's back-end channel has no CONFIG_CHANGE_MSG; ARCHITECTURE.md lists it as a limit.
        log::debug!("the configuration changed; the frontend cannot be told");
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for watched in self.watched.values() {
            watched.leave(&self.events);
        }
    }
}

/// A queue's kick descriptor on an event loop; removed when dropped.
pub struct KickWatch {
    events: Arc<EventLoop>,
    fd: OwnedFd,
}

impl KickWatch {
    /// Watches `fd` for kicks of `queue`.
    pub fn new(
        events: &Arc<EventLoop>,
        fd: OwnedFd,
        generation: u32,
        queue: QueueIndex,
    ) -> io::Result<Self> {
        events.add_edge(fd.as_fd().as_raw_fd(), Tag::Kick(generation, queue))?;
        Ok(Self {
            events: Arc::clone(events),
            fd,
        })
    }
}

impl Drop for KickWatch {
    fn drop(&mut self) {
        self.events.remove(self.fd.as_raw_fd());
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;

    #[test]
    fn tags_survive_the_trip_through_the_kernel() {
        for tag in [
            Tag::Own(7),
            Tag::Mail(3),
            Tag::Kick(0x00ff_ffff, QueueIndex(0xffff)),
            Tag::Worker(1, Token(u32::MAX)),
        ] {
            assert_eq!(Tag::decode(tag.encode()), tag);
        }
    }

    #[test]
    fn each_write_to_an_edge_watched_eventfd_is_an_event_though_nobody_reads_it() {
        let events = Arc::new(EventLoop::new().unwrap());
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        events.add_edge(kick.as_raw_fd(), Tag::Own(1)).unwrap();
        for _ in 0..3 {
            kick.write(1).unwrap();
            let mut seen = 0;
            events.wait(Some(Duration::ZERO), |_, _| seen += 1).unwrap();
            assert_eq!(seen, 1);
            events.wait(Some(Duration::ZERO), |_, _| seen += 1).unwrap();
            assert_eq!(seen, 1, "no new write, no event");
        }
    }

    #[test]
    fn edges_are_told_once_and_again_when_what_is_watched_changes() {
        let events = Arc::new(EventLoop::new().unwrap());
        let mut watches = Watches::new(Arc::clone(&events), 1);
        let source = EventFd::new(EFD_NONBLOCK).unwrap();
        let token = Token(4);
        // SAFETY: the descriptor is open as long as `source` lives.
        let fd = unsafe { BorrowedFd::borrow_raw(source.as_raw_fd()) };
        watches.watch_edges(fd, Interest::READABLE, token).unwrap();
        let seen = |events: &EventLoop| {
            let mut seen = Vec::new();
            events
                .wait(Some(Duration::ZERO), |_, ready| seen.push(ready))
                .unwrap();
            seen
        };
        source.write(1).unwrap();
        assert_eq!(seen(&events).len(), 1);
        assert!(
            seen(&events).is_empty(),
            "it is still readable, but that is no news"
        );
        watches.interest(token, Interest::BOTH).unwrap();
        let again = seen(&events);
        assert!(matches!(again[..], [ready] if ready.readable && ready.writable));
        assert!(seen(&events).is_empty());
        assert!(watches.acknowledge(token), "nobody reads it");
    }

    #[test]
    fn a_timer_set_anew_does_not_fire_for_its_old_setting() {
        let events = Arc::new(EventLoop::new().unwrap());
        let mut watches = Watches::new(Arc::clone(&events), 1);
        let mut timer = watches.timer(Token(9)).unwrap();
        let seen = || {
            let mut seen = Vec::new();
            let enough = Some(Duration::from_millis(20));
            events.wait(enough, |tag, _| seen.push(tag)).unwrap();
            seen
        };
        timer.arm(Duration::from_millis(1));
        assert_eq!(seen(), [Tag::Worker(1, Token(9))], "the wait ends for it");
        timer.disarm();
        assert!(!watches.acknowledge(Token(9)));
        timer.arm(Duration::from_millis(1));
        assert_eq!(seen().len(), 1);
        assert!(watches.acknowledge(Token(9)));
        assert!(!watches.acknowledge(Token(9)), "it fires once");
        assert!(watches.timer(Token(9)).is_err(), "a token names one thing");
    }
}
