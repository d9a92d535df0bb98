//! Drives one worker and its rings: the same for the daemon's engine and for a VMM that embeds a device.

use std::sync::Arc;

use crate::device::{Interest, Reactor, Ready, Worker};
use crate::fault::RingFault;
use crate::ids::{QueueIndex, Token};
use crate::memory::Memory;
use crate::poll::Poll;
use crate::ring::{Counters, Notifier, Queue, Ring, Start};

/// Most rounds over all queues in one turn, so that a driver that never stops adding requests cannot keep the thread from
/// its other duties.
const MAX_ROUNDS: u32 = 4;

/// A worker's view of the world while it is called.
pub struct Io<'a> {
    rings: &'a mut [Option<Ring>],
    memory: &'a Arc<Memory>,
    reactor: &'a mut dyn Reactor,
}

impl Io<'_> {
    /// Opens a batch on a queue. A queue that is not running, or not this worker's, is simply empty.
    pub fn queue(&mut self, index: QueueIndex) -> Queue<'_> {
        match self.rings.get_mut(index.position()) {
            Some(Some(ring)) => ring.queue(self.memory),
            _ => Queue::stopped(),
        }
    }

    /// Whether a queue is running.
    pub fn is_running(&self, index: QueueIndex) -> bool {
        matches!(self.rings.get(index.position()), Some(Some(ring)) if ring.fault().is_none())
    }

    /// Changes what is watched under `token`; errors are logged, since the caller has nothing better to do.
    pub fn interest(&mut self, token: Token, interest: Interest) {
        if let Err(error) = self.reactor.interest(token, interest) {
            log::warn!("cannot change what is watched: {error}");
        }
    }

    /// Where descriptors, timers and wakers are registered.
    pub fn reactor(&mut self) -> &mut dyn Reactor {
        self.reactor
    }
}

/// Where a stopped queue can be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The available index that the next back-end starts at.
    pub next_available: u16,
    /// Why the queue was already dead, if it was.
    pub fault: Option<RingFault>,
    /// What happened while it ran.
    pub counters: Counters,
}

/// One worker with its rings, its memory and its polling state.
pub struct Runner<W> {
    worker: W,
    rings: Vec<Option<Ring>>,
    memory: Arc<Memory>,
    poll: Poll,
    runs: u32,
}

impl<W: Worker> Runner<W> {
    /// A runner for `worker` of a device with `queues` queues in all; it drives only those that are started here.
    pub fn new(worker: W, queues: usize, memory: Arc<Memory>, poll: Poll) -> Self {
        Self {
            worker,
            rings: (0..queues).map(|_| None).collect(),
            memory,
            poll,
            runs: 0,
        }
    }

    /// Starts a queue. What is already in it is served when the caller settles: whoever asked for the start must not wait
    /// for the host.
    ///
    /// # Errors
    /// [`RingFault::Unmapped`] if the ring is not in guest memory.
    pub fn start(&mut self, start: Start) -> Result<(), RingFault> {
        let Some(slot) = self.rings.get_mut(start.index.position()) else {
            return Ok(());
        };
        self.runs = self.runs.wrapping_add(1);
        *slot = Some(Ring::start(start, &self.memory, self.runs)?);
        Ok(())
    }

    /// Stops a queue after the worker has drained it. `None` if it was not running.
    pub fn stop(&mut self, index: QueueIndex, reactor: &mut dyn Reactor) -> Option<Stopped> {
        self.rings.get(index.position())?.as_ref()?;
        let (worker, mut io) = self.io(reactor);
        worker.quiesce(index, &mut io);
        let ring = self.rings.get_mut(index.position())?.take()?;
        // A ring that died of a fault takes no completions any more; that is the guest's doing, not the worker's.
        if ring.in_flight() > 0 && ring.fault().is_none() {
            log::error!(
                "queue {index}: {} requests were still open when it stopped",
                ring.in_flight()
            );
        }
        Some(Stopped {
            next_available: ring.next_available(),
            fault: ring.fault(),
            counters: ring.counters(),
        })
    }

    /// The used index that the driver of a running queue sees.
    pub fn published(&self, index: QueueIndex) -> Option<u16> {
        Some(self.rings.get(index.position())?.as_ref()?.published())
    }

    /// Whether any queue runs.
    pub fn is_running(&self) -> bool {
        self.rings.iter().any(Option::is_some)
    }

    /// Exchanges guest memory. Running queues keep their addresses; requests in flight keep the memory they started with.
    pub fn set_memory(&mut self, memory: Arc<Memory>) {
        self.memory = memory;
    }

    /// Exchanges the way to interrupt the driver of a running queue.
    pub fn set_notifier(&mut self, index: QueueIndex, notifier: Box<dyn Notifier>) {
        if let Some(Some(ring)) = self.rings.get_mut(index.position()) {
            ring.set_notifier(notifier);
        }
    }

    /// The driver kicked a queue.
    pub fn kick(&mut self, index: QueueIndex, reactor: &mut dyn Reactor) {
        let (worker, mut io) = self.io(reactor);
        if io.is_running(index) {
            worker.kick(index, &mut io);
        }
    }

    /// Something that the worker watches is ready.
    pub fn event(&mut self, token: Token, ready: Ready, reactor: &mut dyn Reactor) {
        let (worker, mut io) = self.io(reactor);
        worker.event(token, ready, &mut io);
    }

    /// To be called before sleeping: polls for a moment if that is wanted, asks the driver for kicks, and serves what came
    /// in meanwhile. True if work is left and the caller should not sleep but come back soon.
    pub fn settle(&mut self, reactor: &mut dyn Reactor) -> bool {
        self.spin(reactor);
        for _ in 0..MAX_ROUNDS {
            if !self.round(reactor) {
                return false;
            }
        }
        true
    }

    /// To be called when the thread woke up, so that polling adapts to how long it slept.
    pub fn woke(&mut self) {
        self.poll.woke();
    }

    /// Serves each queue that has work, asking for kicks on the way. True if any had.
    fn round(&mut self, reactor: &mut dyn Reactor) -> bool {
        let mut any = false;
        for position in 0..self.rings.len() {
            let Some(Some(ring)) = self.rings.get_mut(position) else {
                continue;
            };
            let index = ring.index();
            if ring.take_more() || ring.rearm(&self.memory) {
                any = true;
                self.kick(index, reactor);
            }
        }
        any
    }

    fn spin(&mut self, reactor: &mut dyn Reactor) {
        if !self.is_running() {
            return;
        }
        let Some(mut window) = self.poll.begin() else {
            return;
        };
        while window.is_open() {
            if self.sweep(reactor) {
                window.hit();
            } else {
                std::hint::spin_loop();
            }
        }
        self.poll.end(window);
    }

    /// Serves each queue in which polling finds new requests, and what the worker finds. True if there was anything.
    fn sweep(&mut self, reactor: &mut dyn Reactor) -> bool {
        let mut any = false;
        for position in 0..self.rings.len() {
            let Some(Some(ring)) = self.rings.get_mut(position) else {
                continue;
            };
            let index = ring.index();
            if ring.take_more() || ring.poll(&self.memory) {
                any = true;
                self.kick(index, reactor);
            }
        }
        let (worker, mut io) = self.io(reactor);
        any | worker.poll(&mut io)
    }

    fn io<'a>(&'a mut self, reactor: &'a mut dyn Reactor) -> (&'a mut W, Io<'a>) {
        let io = Io {
            rings: &mut self.rings,
            memory: &self.memory,
            reactor,
        };
        (&mut self.worker, io)
    }
}
