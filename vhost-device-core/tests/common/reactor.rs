//! A reactor on epoll, eventfd and timerfd, as a VMM would have one.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vhost_device_core::{Interest, Reactor, Ready, Timer, Token, Waker};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

/// Above the 32 bits of a worker's tokens: the event is a kick, and the lower bits are the queue.
const KICK: u64 = 1 << 32;

/// Events taken from the kernel at once.
const EVENTS: usize = 16;

/// What woke the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum Wake {
    Kick(u16),
    Event(Token, Ready),
}

enum Source {
    Descriptor(RawFd),
    Timer(Arc<Mutex<TimerFd>>),
    Waker(Arc<EventFd>),
}

impl Source {
    fn descriptor(&self) -> RawFd {
        match self {
            Self::Descriptor(fd) => *fd,
            Self::Timer(timer) => timer.lock().unwrap().as_raw_fd(),
            Self::Waker(event) => event.as_raw_fd(),
        }
    }
}

/// An event loop for one worker.
pub struct EpollReactor {
    epoll: Epoll,
    kicks: Vec<EventFd>,
    sources: HashMap<Token, Source>,
    pub config_changes: u32,
}

impl EpollReactor {
    pub fn new(queues: u16) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut kicks = Vec::new();
        for queue in 0..queues {
            let kick = EventFd::new(EFD_NONBLOCK)?;
            let event = EpollEvent::new(EventSet::IN, KICK | u64::from(queue));
            epoll.ctl(ControlOperation::Add, kick.as_raw_fd(), event)?;
            kicks.push(kick);
        }
        Ok(Self {
            epoll,
            kicks,
            sources: HashMap::new(),
            config_changes: 0,
        })
    }

    /// Kicks a queue as the driver does.
    pub fn kick(&self, queue: u16) {
        self.kicks[usize::from(queue)].write(1).unwrap();
    }

    /// Waits up to `limit` for something to happen.
    pub fn wait(&mut self, limit: Duration) -> Vec<Wake> {
        let mut events = [EpollEvent::default(); EVENTS];
        let count = match self.epoll.wait(limit.as_millis() as i32, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            result => result.unwrap(),
        };
        events[..count]
            .iter()
            .map(|event| self.translate(event))
            .collect()
    }

    fn translate(&mut self, event: &EpollEvent) -> Wake {
        if event.data() & KICK != 0 {
            let queue = event.data() as u16;
            self.kicks[usize::from(queue)].read().unwrap();
            return Wake::Kick(queue);
        }
        let token = Token(event.data() as u32);
        match self.sources.get(&token) {
            Some(Source::Timer(timer)) => drop(timer.lock().unwrap().wait().unwrap()),
            Some(Source::Waker(event)) => drop(event.read().unwrap()),
            _ => {}
        }
        let set = event.event_set();
        let ready = Ready {
            readable: set.contains(EventSet::IN),
            writable: set.contains(EventSet::OUT),
            hangup: set.contains(EventSet::HANG_UP),
            error: set.contains(EventSet::ERROR),
        };
        Wake::Event(token, ready)
    }

    fn add(&mut self, token: Token, source: Source, events: EventSet) -> io::Result<()> {
        if self.sources.contains_key(&token) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let event = EpollEvent::new(events, token.0.into());
        self.epoll
            .ctl(ControlOperation::Add, source.descriptor(), event)?;
        self.sources.insert(token, source);
        Ok(())
    }
}

fn events(interest: Interest) -> EventSet {
    let mut events = EventSet::empty();
    events.set(EventSet::IN, interest.readable);
    events.set(EventSet::OUT, interest.writable);
    events
}

impl Reactor for EpollReactor {
    fn watch(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: Token) -> io::Result<()> {
        self.add(token, Source::Descriptor(fd.as_raw_fd()), events(interest))
    }

    fn interest(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let source = self.sources.get(&token).ok_or(io::ErrorKind::NotFound)?;
        let event = EpollEvent::new(events(interest), token.0.into());
        self.epoll
            .ctl(ControlOperation::Modify, source.descriptor(), event)
    }

    fn unwatch(&mut self, token: Token) {
        if let Some(source) = self.sources.remove(&token) {
            let event = EpollEvent::default();
            self.epoll
                .ctl(ControlOperation::Delete, source.descriptor(), event)
                .unwrap();
        }
    }

    fn timer(&mut self, token: Token) -> io::Result<Box<dyn Timer>> {
        let timer = Arc::new(Mutex::new(TimerFd::new()?));
        self.add(token, Source::Timer(Arc::clone(&timer)), EventSet::IN)?;
        Ok(Box::new(SharedTimer(timer)))
    }

    fn waker(&mut self, token: Token) -> io::Result<Waker> {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        self.add(token, Source::Waker(Arc::clone(&event)), EventSet::IN)?;
        Ok(Waker::new(move || event.write(1).unwrap()))
    }

    fn config_changed(&mut self) {
        self.config_changes += 1;
    }
}

struct SharedTimer(Arc<Mutex<TimerFd>>);

impl Timer for SharedTimer {
    fn arm(&mut self, after: Duration) {
        self.0.lock().unwrap().reset(after, None).unwrap();
    }

    fn disarm(&mut self) {
        self.0.lock().unwrap().clear().unwrap();
    }
}
