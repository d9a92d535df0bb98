//! A whole device on a real event loop, with a driver for each queue; everything runs on the test's own thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_device_core::embed::Embedded;
use vhost_device_core::{Device, Memory, QueueIndex, Start, Stopped};

use super::driver::{Driver, Piece, Place};
use super::reactor::{EpollReactor, Wake};
use super::rig::Interrupts;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An embedded device with its event loop and its drivers.
pub struct Stand<D: Device> {
    pub embedded: Embedded<D>,
    pub reactor: EpollReactor,
    pub drivers: Vec<Driver>,
    pub interrupts: Vec<Interrupts>,
    pub memory: Arc<Memory>,
    busy: bool,
}

impl<D: Device> Stand<D> {
    /// Starts all queues of `device` with this size.
    pub fn new(device: &Arc<D>, memory: Arc<Memory>, size: u16, features: u64) -> Self {
        let queues = device.queues().len() as u16;
        let mut reactor = EpollReactor::new(queues).unwrap();
        let embedded =
            Embedded::new(device, 0, features, Arc::clone(&memory), &mut reactor).unwrap();
        let mut stand = Self {
            embedded,
            reactor,
            drivers: Vec::new(),
            interrupts: Vec::new(),
            memory,
            busy: false,
        };
        for queue in 0..queues {
            let place = Place::of_queue(queue, size);
            let driver = Driver::new(stand.memory.map(), place, features);
            stand.drivers.push(driver);
            stand.interrupts.push(Interrupts::default());
            stand.start(queue);
        }
        stand
    }

    /// Starts a queue where its driver stands.
    pub fn start(&mut self, queue: u16) {
        self.start_at(queue, self.drivers[usize::from(queue)].available_index());
    }

    /// Starts a queue again where it stopped.
    pub fn resume(&mut self, queue: u16, stopped: Stopped) {
        self.start_at(queue, stopped.next_available);
    }

    fn start_at(&mut self, queue: u16, next_available: u16) {
        let notifier = self.interrupts[usize::from(queue)].notifier();
        let start = self.drivers[usize::from(queue)].start(queue, &self.memory, notifier);
        let start = Start {
            next_available,
            ..start
        };
        self.busy |= self.embedded.start(start, &mut self.reactor).unwrap();
    }

    /// Drains and stops a queue, which was running.
    pub fn stop(&mut self, queue: u16) -> Stopped {
        self.embedded
            .stop(QueueIndex(queue), &mut self.reactor)
            .unwrap()
    }

    /// Makes a request available, and kicks if the device wants that.
    pub fn submit(&mut self, queue: u16, pieces: &[Piece]) -> u16 {
        let driver = &mut self.drivers[usize::from(queue)];
        let head = driver.add(pieces).unwrap();
        if driver.decide_kick() {
            self.reactor.kick(queue);
        }
        head
    }

    /// One turn of the event loop, which may sleep up to `limit`. The number of events handled.
    pub fn turn(&mut self, limit: Duration) -> usize {
        let limit = if self.busy { Duration::ZERO } else { limit };
        let wakes = self.reactor.wait(limit);
        self.busy = self.busy && self.embedded.resume(&mut self.reactor);
        for wake in &wakes {
            self.busy |= match wake {
                Wake::Kick(queue) => self.embedded.kick(QueueIndex(*queue), &mut self.reactor),
                Wake::Event(token, ready) => self.embedded.event(*token, *ready, &mut self.reactor),
            };
        }
        wakes.len()
    }

    /// Runs the event loop until `done`, which must come true.
    pub fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "the device did not get there");
            self.turn(Duration::from_millis(10));
        }
    }

    /// Runs the event loop until it has nothing to do for a moment.
    pub fn run_until_idle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.turn(Duration::from_millis(20)) > 0 || self.busy {
            assert!(Instant::now() < deadline, "the device is never idle");
        }
    }
}
