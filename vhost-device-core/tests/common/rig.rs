//! A worker with its queues and drivers, without events: everything happens when the test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vhost_device_core::embed::NoReactor;
use vhost_device_core::{
    GuestFault, Io, Memory, Poll, QueueIndex, Request, Runner, Service, Stopped, Worker,
};

use super::driver::{Driver, Place};

/// Counts the interrupts of one queue.
#[derive(Clone, Default)]
pub struct Interrupts(Arc<AtomicU64>);

impl Interrupts {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn notifier(&self) -> impl Fn() + Send + 'static {
        let count = Arc::clone(&self.0);
        move || {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A service made of a closure.
pub struct Answer<F>(pub F);

impl<F> Service for Answer<F>
where
    F: FnMut(QueueIndex, &mut Request<'_>) -> Result<(), GuestFault> + Send + 'static,
{
    fn serve(&mut self, queue: QueueIndex, request: &mut Request<'_>) -> Result<(), GuestFault> {
        self.0(queue, request)
    }
}

/// A worker made of a closure that is called for each kick.
pub struct OnKick<F>(pub F);

impl<F: FnMut(QueueIndex, &mut Io<'_>) + Send + 'static> Worker for OnKick<F> {
    fn kick(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        self.0(queue, io);
    }
}

/// One worker, its queues, and a driver for each.
pub struct Rig<W> {
    pub runner: Runner<W>,
    pub drivers: Vec<Driver>,
    pub interrupts: Vec<Interrupts>,
    pub memory: Arc<Memory>,
}

impl<W: Worker> Rig<W> {
    /// Starts queues of these sizes.
    pub fn new(worker: W, memory: Arc<Memory>, sizes: &[u16], features: u64) -> Self {
        Self::polling(worker, memory, sizes, features, Poll::off())
    }

    /// As [`new`](Self::new), with a worker that polls before it sleeps.
    pub fn polling(
        worker: W,
        memory: Arc<Memory>,
        sizes: &[u16],
        features: u64,
        poll: Poll,
    ) -> Self {
        let mut runner = Runner::new(worker, sizes.len(), Arc::clone(&memory), poll);
        let mut drivers = Vec::new();
        let mut interrupts = Vec::new();
        for (index, size) in (0..).zip(sizes) {
            let driver = Driver::new(memory.map(), Place::of_queue(index, *size), features);
            let counter = Interrupts::default();
            let start = driver.start(index, &memory, counter.notifier());
            runner.start(start).unwrap();
            drivers.push(driver);
            interrupts.push(counter);
        }
        let mut rig = Self {
            runner,
            drivers,
            interrupts,
            memory,
        };
        rig.settle();
        rig
    }

    /// As an event loop does before it sleeps. True if work is left.
    pub fn settle(&mut self) -> bool {
        self.runner.settle(&mut NoReactor)
    }

    /// Kicks a queue, and works until nothing is left.
    pub fn serve(&mut self, queue: u16) {
        self.runner.kick(QueueIndex(queue), &mut NoReactor);
        for _ in 0..10_000 {
            if !self.settle() {
                return;
            }
        }
        panic!("the worker never ran out of work");
    }

    /// Drains and stops a queue, which was running.
    pub fn stop(&mut self, queue: u16) -> Stopped {
        self.runner.stop(QueueIndex(queue), &mut NoReactor).unwrap()
    }
}
