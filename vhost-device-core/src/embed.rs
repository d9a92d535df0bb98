//! Drives a device from rings that a VMM owns, with no vhost-user in the path.
//!
//! The VMM keeps its threads and its event loop: it implements [`Reactor`] on that loop (or uses [`NoReactor`] for devices
//! that only answer requests), calls [`Embedded::kick`] when the driver notified a queue, and [`Embedded::event`] when
//! something it watches for the device is ready. Each returns true if work was left for the sake of fairness: the VMM calls
//! [`Embedded::resume`] then, after its other duties.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::device::{Device, HostError, Interest, QueueSpec, Reactor, Ready, Setup, Timer, Waker};
use crate::fault::RingFault;
use crate::ids::{QueueIndex, Token};
use crate::memory::Memory;
use crate::poll::Poll;
use crate::ring::Start;
use crate::runner::{Runner, Stopped};

/// One worker of an embedded device.
pub struct Embedded<D: Device> {
    runner: Runner<D::Worker>,
}

impl<D: Device> Embedded<D> {
    /// Makes the worker `index` of `device` for a driver that acknowledged `features`.
    ///
    /// # Errors
    /// [`HostError`] if the device cannot use its host resource.
    pub fn new(
        device: &Arc<D>,
        index: u16,
        features: u64,
        memory: Arc<Memory>,
        reactor: &mut dyn Reactor,
    ) -> Result<Self, HostError> {
        let queues: Vec<QueueSpec> = device.queues();
        let worker = device.worker(index, &mut Setup::new(features, reactor))?;
        Ok(Self {
            runner: Runner::new(worker, queues.len(), memory, Poll::off()),
        })
    }

    /// Starts a queue and serves what is in it.
    ///
    /// # Errors
    /// [`RingFault::Unmapped`] if the ring is not in guest memory.
    pub fn start(&mut self, start: Start, reactor: &mut dyn Reactor) -> Result<bool, RingFault> {
        self.runner.start(start)?;
        Ok(self.resume(reactor))
    }

    /// Drains and stops a queue.
    pub fn stop(&mut self, queue: QueueIndex, reactor: &mut dyn Reactor) -> Option<Stopped> {
        self.runner.stop(queue, reactor)
    }

    /// The driver notified a queue.
    pub fn kick(&mut self, queue: QueueIndex, reactor: &mut dyn Reactor) -> bool {
        self.runner.kick(queue, reactor);
        self.resume(reactor)
    }

    /// Something that the device watches is ready.
    pub fn event(&mut self, token: Token, ready: Ready, reactor: &mut dyn Reactor) -> bool {
        self.runner.event(token, ready, reactor);
        self.resume(reactor)
    }

    /// Guest memory changed.
    pub fn set_memory(&mut self, memory: Arc<Memory>) {
        self.runner.set_memory(memory);
    }

    /// Goes on with work that was left. True if there still is some.
    pub fn resume(&mut self, reactor: &mut dyn Reactor) -> bool {
        self.runner.settle(reactor)
    }
}

/// A reactor for devices that watch nothing: every registration is refused.
#[derive(Debug, Default)]
pub struct NoReactor;

impl Reactor for NoReactor {
    fn watch(&mut self, _: BorrowedFd<'_>, _: Interest, _: Token) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn interest(&mut self, _: Token, _: Interest) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unwatch(&mut self, _: Token) {}

    fn timer(&mut self, _: Token) -> io::Result<Box<dyn Timer>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn waker(&mut self, _: Token) -> io::Result<Waker> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn config_changed(&mut self) {}
}
