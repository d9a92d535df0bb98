//! The two halves of a device model: [`Device`] lives as long as the process, [`Worker`] as long as one connection.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::fault::GuestFault;
use crate::ids::{QueueIndex, Token};
use crate::request::Request;
use crate::ring::MAX_QUEUE_SIZE;
use crate::runner::Io;

/// One virtqueue of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Largest size accepted, in descriptors; at most [`MAX_QUEUE_SIZE`].
    pub max_size: u16,
    /// Which worker serves it, from 0. A queue belongs to one worker, so a worker's state needs no locks.
    pub worker: u16,
}

impl QueueSpec {
    /// A queue of any legal size, served by the first worker.
    pub const fn new() -> Self {
        Self {
            max_size: MAX_QUEUE_SIZE,
            worker: 0,
        }
    }
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self::new()
    }
}

/// A write to a configuration field that the driver may not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the driver may not write this part of the configuration")]
pub struct ConfigRefused;

/// A host resource that cannot be used.
#[derive(Debug, Error)]
#[error("{operation}: {source}")]
pub struct HostError {
    /// What was tried, with the name of the resource.
    pub operation: String,
    /// Why it failed.
    pub source: io::Error,
}

impl HostError {
    /// An error of `operation`, which names the resource.
    pub fn new(operation: impl Into<String>, source: io::Error) -> Self {
        Self {
            operation: operation.into(),
            source,
        }
    }
}

/// Whether saving and loading the device's state is possible.
#[derive(Debug, Error)]
pub enum StateError {
    /// The device does not implement it.
    #[error("this device does not save its state")]
    Unsupported,
    /// The bytes are not a state of this device.
    #[error("not a valid state: {0}")]
    Invalid(String),
}

/// A device: what it offers, its configuration space, and the host resources that it opened. One per socket, as long as
/// the process lives; frontends come and go.
pub trait Device: Send + Sync + 'static {
    /// The part that moves: made anew for each connection.
    type Worker: Worker;

    /// The virtqueues, by index.
    fn queues(&self) -> Vec<QueueSpec>;

    /// Feature bits of this device type (0 to 23, and 50 up). Ring and transport bits are not the device's business.
    fn features(&self) -> u64 {
        0
    }

    /// Whether every queue's requests complete in the order in which they were made available. VIRTIO_F_IN_ORDER is
    /// offered if so.
    fn completes_in_order(&self) -> bool {
        false
    }

    /// Whether a worker may wait for the host for longer than about a millisecond. Its queues then get a thread of their
    /// own, which may be given up when the host does not answer.
    fn may_block(&self) -> bool {
        false
    }

    /// Size of the configuration space in bytes.
    fn config_size(&self) -> u32 {
        0
    }

    /// Fills `out` with the configuration space from `offset`. The range is within [`config_size`](Self::config_size).
    fn read_config(&self, offset: u32, out: &mut [u8]) {
        let _ = (offset, out);
    }

    /// Takes a driver's write to the configuration space. The range is within [`config_size`](Self::config_size).
    ///
    /// # Errors
    /// [`ConfigRefused`] if any byte of it is not writable by the driver; nothing is changed then.
    fn write_config(&self, offset: u32, data: &[u8]) -> Result<(), ConfigRefused> {
        let _ = (offset, data);
        Err(ConfigRefused)
    }

    /// Makes the worker that serves the queues whose [`QueueSpec::worker`] is `index`, when the first of them starts.
    ///
    /// # Errors
    /// [`HostError`] if a host resource cannot be used now; the connection is refused.
    fn worker(
        self: &Arc<Self>,
        index: u16,
        setup: &mut Setup<'_>,
    ) -> Result<Self::Worker, HostError>;

    /// The guest or the frontend reset the device: forget what the last driver set up.
    fn reset(&self) {}

    /// The device's state, for migration and restarts.
    ///
    /// # Errors
    /// [`StateError::Unsupported`] unless the device implements it.
    fn save(&self) -> Result<Vec<u8>, StateError> {
        Err(StateError::Unsupported)
    }

    /// Takes over a state from [`save`](Self::save).
    ///
    /// # Errors
    /// [`StateError::Unsupported`] unless the device implements it, [`StateError::Invalid`] for bytes it did not make.
    fn load(&self, state: &[u8]) -> Result<(), StateError> {
        let _ = state;
        Err(StateError::Unsupported)
    }
}

/// Which directions of a descriptor are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Wake when there is something to read.
    pub readable: bool,
    /// Wake when there is room to write.
    pub writable: bool,
}

impl Interest {
    /// Only errors and hang-ups.
    pub const NONE: Self = Self {
        readable: false,
        writable: false,
    };
    /// Something to read.
    pub const READABLE: Self = Self {
        readable: true,
        writable: false,
    };
    /// Room to write.
    pub const WRITABLE: Self = Self {
        readable: false,
        writable: true,
    };
    /// Both.
    pub const BOTH: Self = Self {
        readable: true,
        writable: true,
    };
}

/// What woke a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// There is something to read, or a timer or waker fired.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other end is gone.
    pub hangup: bool,
    /// The descriptor is in error.
    pub error: bool,
}

/// A one-shot timer of a worker.
pub trait Timer: Send {
    /// Fires once after `after` (at least a nanosecond); an earlier setting is replaced.
    fn arm(&mut self, after: Duration);
    /// Does not fire any more.
    fn disarm(&mut self);
}

/// Wakes a worker from another thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`, which must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes the worker; several wakes before it runs are one event.
    pub fn wake(&self) {
        (self.0)();
    }
}

/// What waits for events on behalf of a worker: the daemon's epoll loop, or a VMM's own.
pub trait Reactor {
    /// Watches `fd` (level-triggered) under `token`. The reactor keeps no copy of the descriptor: unwatch it before it is
    /// closed.
    ///
    /// # Errors
    /// From the operating system: the descriptor cannot be watched, or the token is in use.
    fn watch(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: Token) -> io::Result<()>;
    /// As [`watch`](Self::watch), but edge-triggered: one event for each change, for a worker that remembers what is ready
    /// and so need not say at every turn what it waits for. A reactor that cannot do that sends the same events again and
    /// again.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    fn watch_edges(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        token: Token,
    ) -> io::Result<()> {
        self.watch(fd, interest, token)
    }
    /// Changes what is watched under `token`. What is ready now is an event again.
    ///
    /// # Errors
    /// From the operating system; also if the token is unknown.
    fn interest(&mut self, token: Token, interest: Interest) -> io::Result<()>;
    /// Forgets `token`.
    fn unwatch(&mut self, token: Token);
    /// Makes a timer that fires as an event with `token`.
    ///
    /// # Errors
    /// From the operating system, when descriptors run out.
    fn timer(&mut self, token: Token) -> io::Result<Box<dyn Timer>>;
    /// Makes a waker that fires as an event with `token`.
    ///
    /// # Errors
    /// From the operating system, when descriptors run out.
    fn waker(&mut self, token: Token) -> io::Result<Waker>;
    /// Tells the driver that the configuration space changed.
    fn config_changed(&mut self);
}

/// What a worker learns, and may arrange, while it is made.
pub struct Setup<'a> {
    features: u64,
    reactor: &'a mut dyn Reactor,
}

impl<'a> Setup<'a> {
    /// For whoever makes workers: the features agreed on and where events come from.
    pub fn new(features: u64, reactor: &'a mut dyn Reactor) -> Self {
        Self { features, reactor }
    }

    /// All feature bits that the driver acknowledged.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Where descriptors, timers and wakers are registered.
    pub fn reactor(&mut self) -> &mut dyn Reactor {
        self.reactor
    }
}

/// Serves one or more queues of a device for one connection. It runs on one thread and owns its state.
pub trait Worker: Send + 'static {
    /// The driver made buffers available on `queue`, or the queue has just started. Take them all, or come back for the
    /// rest by an event: see [`Queue::next`](crate::Queue::next).
    fn kick(&mut self, queue: QueueIndex, io: &mut Io<'_>);

    /// A descriptor, timer or waker is ready.
    fn event(&mut self, token: Token, ready: Ready, io: &mut Io<'_>) {
        let _ = (token, ready, io);
    }

    /// The thread polls before it sleeps: looks whether the host has something that is likely to come now, which an event
    /// would tell only after the thread slept. True if there was something. It is called very often, so it has to be cheap.
    fn poll(&mut self, io: &mut Io<'_>) -> bool {
        let _ = io;
        false
    }

    /// The queue is about to stop: return with nothing of it outstanding. Every detached request has been completed, and
    /// nothing writes to its buffers any more.
    fn quiesce(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        let _ = (queue, io);
    }
}

/// The simplest device: one request in, one answer out.
pub trait Service: Send + 'static {
    /// Whether a request usually takes longer than telling the driver does (tens of microseconds and up). Each is then a
    /// batch by itself: its answer is published at once, and other events are seen between requests.
    const SLOW: bool = false;

    /// Reads the request and writes its answer; it is completed when this returns.
    ///
    /// # Errors
    /// [`GuestFault`] where the request has no room for a status that would say so: it is completed with used length 0.
    fn serve(&mut self, queue: QueueIndex, request: &mut Request<'_>) -> Result<(), GuestFault>;
}

/// Makes a [`Service`] a [`Worker`].
#[derive(Debug)]
pub struct Serve<S>(pub S);

impl<S: Service> Worker for Serve<S> {
    fn kick(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        let mut batch = io.queue(queue);
        if S::SLOW {
            batch = batch.at_most(1);
        }
        loop {
            let Some(mut request) = batch.next() else {
                break;
            };
            match self.0.serve(queue, &mut request) {
                Ok(()) => request.finish(),
                Err(fault) => request.fail(fault),
            }
        }
    }
}
