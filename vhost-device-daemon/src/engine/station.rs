//! A station serves the queues of one worker for one connection, on whatever thread its events arrive.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use vhost_device_core::{
    Device, Memory, Poll, QueueIndex, Ready, Runner, Setup, Start, Stopped, Token,
};

use super::bell::Bell;
use super::mailbox::{Command, Mailbox, Reply};
use super::reactor::{EventLoop, KickWatch, Tag, Watches};
use super::session::Hangup;

/// Everything that a station needs; the same for each station of a connection but for the worker's index.
pub struct Plan<D> {
    /// The device.
    pub device: Arc<D>,
    /// Which of its workers.
    pub worker: u16,
    /// Longest busy-poll.
    pub poll: Duration,
    /// Ends the connection.
    pub hangup: Hangup,
}

impl<D> Clone for Plan<D> {
    fn clone(&self) -> Self {
        Self {
            device: Arc::clone(&self.device),
            worker: self.worker,
            poll: self.poll,
            hangup: self.hangup.clone(),
        }
    }
}

/// One worker at work.
pub struct Station<D: Device> {
    plan: Plan<D>,
    generation: u32,
    events: Arc<EventLoop>,
    mailbox: Arc<Mailbox>,
    memory: Arc<Memory>,
    // Before the worker: epoll forgets a descriptor only while it is open, unless no duplicate of it is left.
    watches: Watches,
    runner: Option<Runner<D::Worker>>,
    kicks: Vec<Option<KickWatch>>,
    ended: bool,
}

impl<D: Device> Station<D> {
    /// A station whose events arrive on `events`, tagged with `generation`.
    ///
    /// # Errors
    /// If there is no mailbox to be had.
    pub fn new(plan: Plan<D>, generation: u32, events: &Arc<EventLoop>) -> std::io::Result<Self> {
        let bell = Bell::new(events, Tag::Mail(generation))?;
        let queues = plan.device.queues().len();
        Ok(Self {
            plan,
            generation,
            events: Arc::clone(events),
            mailbox: Arc::new(Mailbox::new(bell)),
            memory: Arc::default(),
            watches: Watches::new(Arc::clone(events), generation),
            runner: None,
            kicks: (0..queues).map(|_| None).collect(),
            ended: false,
        })
    }

    /// Where it takes commands.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The generation that this station's events are tagged with.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the connection is over, or was given up.
    pub fn is_ended(&self) -> bool {
        self.ended || self.mailbox.is_closed()
    }

    /// Handles one event.
    pub fn handle(&mut self, tag: Tag, ready: Ready) {
        self.guarded(|station| match tag {
            Tag::Own(_) => {}
            Tag::Mail(_) => station.mail(),
            Tag::Kick(_, queue) => station.kick(queue, ready),
            Tag::Worker(_, token) => station.event(token, ready),
        });
    }

    /// To be called before sleeping. True if work is left.
    pub fn settle(&mut self) -> bool {
        let mut more = false;
        self.guarded(|station| {
            if let Some(runner) = &mut station.runner {
                more = runner.settle(&mut station.watches);
            }
        });
        more
    }

    /// To be called after sleeping.
    pub fn woke(&mut self) {
        if let Some(runner) = &mut self.runner {
            runner.woke();
        }
    }

    /// A device that panics ends its connection, nothing else.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            log::error!("the device model panicked; closing the connection");
            self.ended = true;
            self.mailbox.close();
            self.plan.hangup.now();
        }
    }

    fn mail(&mut self) {
        if let Some(command) = self.mailbox.take() {
            let reply = self.carry_out(command);
            self.mailbox.answer(reply);
        }
    }

    fn kick(&mut self, queue: QueueIndex, ready: Ready) {
        if ready.hangup || ready.error {
            log::warn!(
                "queue {queue}: the kick descriptor is broken; the queue gets no more kicks"
            );
            self.unwatch_kick(queue);
        }
        if let Some(runner) = &mut self.runner {
            runner.kick(queue, &mut self.watches);
        }
    }

    fn event(&mut self, token: Token, ready: Ready) {
        if self.watches.acknowledge(token)
            && let Some(runner) = &mut self.runner
        {
            runner.event(token, ready, &mut self.watches);
        }
    }

    fn carry_out(&mut self, command: Command) -> Reply {
        match command {
            Command::Start(start, kick) => match self.start(*start, kick) {
                Ok(()) => Reply::Done(None),
                Err(why) => Reply::Refused(why),
            },
            Command::Stop(queue) => Reply::Done(self.stop(queue)),
            Command::Call(queue, notifier) => {
                if let Some(runner) = &mut self.runner {
                    runner.set_notifier(queue, notifier);
                }
                Reply::Done(None)
            }
            Command::Memory(memory) => {
                if let Some(runner) = &mut self.runner {
                    runner.set_memory(Arc::clone(&memory));
                }
                self.memory = memory;
                Reply::Done(None)
            }
            Command::Reset => {
                self.clear();
                Reply::Done(None)
            }
            Command::End => {
                self.clear();
                self.ended = true;
                Reply::Done(None)
            }
        }
    }

    fn start(&mut self, start: Start, kick: OwnedFd) -> Result<(), String> {
        let queue = start.index;
        self.make_worker(start.features)?;
        let watch = KickWatch::new(&self.events, kick, self.generation, queue)
            .map_err(|error| format!("the kick descriptor cannot be watched: {error}"))?;
        if let Some(slot) = self.kicks.get_mut(queue.position()) {
            *slot = Some(watch);
        }
        if let Some(runner) = &mut self.runner {
            runner.start(start).map_err(|fault| fault.to_string())?;
        }
        Ok(())
    }

    fn make_worker(&mut self, features: u64) -> Result<(), String> {
        if self.runner.is_some() {
            return Ok(());
        }
        let mut setup = Setup::new(features, &mut self.watches);
        let worker = self
            .plan
            .device
            .worker(self.plan.worker, &mut setup)
            .map_err(|error| error.to_string())?;
        self.runner = Some(Runner::new(
            worker,
            self.kicks.len(),
            Arc::clone(&self.memory),
            Poll::new(self.plan.poll),
        ));
        Ok(())
    }

    fn stop(&mut self, queue: QueueIndex) -> Option<Stopped> {
        self.unwatch_kick(queue);
        let stopped = self.runner.as_mut()?.stop(queue, &mut self.watches)?;
        log::debug!("queue {queue} stopped: {:?}", stopped.counters);
        Some(stopped)
    }

    fn unwatch_kick(&mut self, queue: QueueIndex) {
        if let Some(slot) = self.kicks.get_mut(queue.position()) {
            *slot = None;
        }
    }

    /// Stops every queue and drops the worker with all that it watches.
    fn clear(&mut self) {
        for position in 0..self.kicks.len() {
            if let Ok(index) = u16::try_from(position) {
                self.stop(QueueIndex(index));
            }
        }
        // In this order, as the fields are dropped.
        self.watches = Watches::new(Arc::clone(&self.events), self.generation);
        self.runner = None;
    }
}

impl<D: Device> Drop for Station<D> {
    fn drop(&mut self) {
        self.mailbox.leave();
    }
}

/// Runs a station on a thread of its own until its connection ends, and returns its mailbox.
///
/// # Errors
/// If the thread or its event loop cannot be made.
pub fn spawn<D: Device>(
    plan: Plan<D>,
) -> std::io::Result<(Arc<Mailbox>, std::thread::JoinHandle<()>)> {
    let events = Arc::new(EventLoop::new()?);
    let mut station = Station::new(plan, 0, &events)?;
    let mailbox = Arc::clone(station.mailbox());
    let thread = std::thread::Builder::new()
        .name(format!("queues-{}", station.plan.worker))
        .spawn(move || serve(&mut station, &events))?;
    Ok((mailbox, thread))
}

fn serve<D: Device>(station: &mut Station<D>, events: &EventLoop) {
    let mut more = false;
    while !station.is_ended() {
        let timeout = more.then_some(Duration::ZERO);
        let mut first = true;
        let result = events.wait(timeout, |tag, ready| {
            if std::mem::take(&mut first) && !more {
                station.woke();
            }
            station.handle(tag, ready);
        });
        if let Err(error) = result {
            log::error!("cannot wait for events: {error}");
            station.plan.hangup.now();
            return;
        }
        more = station.settle();
    }
}
