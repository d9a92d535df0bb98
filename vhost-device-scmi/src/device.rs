//! The device and its worker.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_device_core::limit::{self, Limiter};
use vhost_device_core::{
    Buffers, Device, GuestFault, HostError, Io, Memory, Queue, QueueIndex, QueueSpec, Ready,
    Segments, Setup, Ticket, Timer, Token, Worker,
};

use crate::config::{Config, Domains};
use crate::host::{self, Connection, Helper, OpenError};
use crate::platform::{Platform, Recipient};
use crate::protocol::system::Decide;
use crate::protocol::{Reply, Wait};
use crate::quantity::Values;
use crate::wire::{
    FEATURE_P2A_CHANNELS, HEADER_BYTES, Header, LEAST_RESPONSE, MAX_COMMAND, MAX_RESPONSE, Status,
    protocol,
};

const COMMANDS: QueueIndex = QueueIndex(0);
const EVENTS: QueueIndex = QueueIndex(1);

const TIME: Token = Token(0);
const HOST: Token = Token(1);

/// Answers published at a time: the driver works on them while we go on, and has new commands by the time we look.
const ANSWERS: u32 = 8;

/// The SCMI device.
pub struct Scmi {
    domains: Domains,
    protocols: Vec<u8>,
    decide: Decide,
    helpers: Arc<[Arc<Helper>]>,
    patience: Duration,
    /// What timestamps and simulated readings count from.
    start: Instant,
}

impl Scmi {
    /// Opens everything that a configuration names.
    ///
    /// # Errors
    /// If something of it is missing or may not be used.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let opened = host::open(config)?;
        Ok(Self {
            protocols: offered(&opened.domains, config.protocols.as_deref()),
            domains: opened.domains,
            decide: host::power::open(&config.system_power)?,
            helpers: opened.helpers,
            patience: config.timeout,
            start: Instant::now(),
        })
    }
}

/// The protocols that have something behind them, as far as they are wanted.
fn offered(domains: &Domains, wanted: Option<&[u8]>) -> Vec<u8> {
    let there_is = [
        (protocol::POWER_DOMAIN, !domains.power.is_empty()),
        (protocol::SYSTEM_POWER, true),
        (protocol::PERFORMANCE, !domains.performance.is_empty()),
        (protocol::CLOCK, !domains.clocks.is_empty()),
        (protocol::SENSOR, !domains.sensors.is_empty()),
        (protocol::RESET, !domains.resets.is_empty()),
        (protocol::VOLTAGE, !domains.voltages.is_empty()),
    ];
    there_is
        .into_iter()
        .filter(|(_, there_is)| *there_is)
        .map(|(protocol, _)| protocol)
        .filter(|protocol| wanted.is_none_or(|wanted| wanted.contains(protocol)))
        .collect()
}

impl Drop for Scmi {
    fn drop(&mut self) {
        host::end(&self.helpers);
    }
}

impl Device for Scmi {
    type Worker = ScmiWorker;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new(); 2]
    }

    fn features(&self) -> u64 {
        FEATURE_P2A_CHANNELS
    }

    fn worker(self: &Arc<Self>, _: u16, setup: &mut Setup<'_>) -> Result<ScmiWorker, HostError> {
        for helper in self.helpers.iter() {
            let failed = |error| HostError::new("make a thread for the host", error);
            helper.begin().map_err(failed)?;
        }
        let events = setup.features() & FEATURE_P2A_CHANNELS != 0;
        let failed = |error| HostError::new("make a timer", error);
        let timer = setup.reactor().timer(TIME).map_err(failed)?;
        let waker = setup.reactor().waker(HOST).map_err(failed)?;
        Ok(ScmiWorker {
            platform: Platform::new(
                self.domains.clone(),
                self.protocols.clone(),
                Arc::clone(&self.decide),
                events,
            ),
            host: Connection::new(Arc::clone(&self.helpers), &waker, self.patience),
            waiting: Vec::new(),
            response: Box::new([0; MAX_RESPONSE]),
            timer,
            armed: None,
            events,
            device: Arc::clone(self),
        })
    }
}

/// Who gets what the host answers.
enum Whom {
    /// The driver, as the response to this command.
    Request(Ticket, Segments, Header),
    /// Somebody who is told by an event.
    Event(Recipient),
}

/// Something that waits for the host.
struct Waiter {
    whom: Whom,
    wait: Wait,
    deadline: Duration,
}

/// Serves both queues of one connection.
pub struct ScmiWorker {
    device: Arc<Scmi>,
    platform: Platform,
    host: Connection,
    /// At most as many as the command queue has entries, delayed responses may wait and sensors are there.
    waiting: Vec<Waiter>,
    response: Box<[u8; MAX_RESPONSE]>,
    timer: Box<dyn Timer>,
    /// When the timer fires.
    armed: Option<Duration>,
    /// Whether there is an event queue.
    events: bool,
}

impl Worker for ScmiWorker {
    fn kick(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        match queue {
            EVENTS => self.use_event_buffers(&mut io.queue(EVENTS)),
            _ => {
                self.serve_commands(&mut io.queue(COMMANDS));
                self.send_events(io);
                self.arm();
            }
        }
    }

    fn event(&mut self, token: Token, _: Ready, io: &mut Io<'_>) {
        if token == TIME {
            self.armed = None;
        }
        let now = self.now();
        self.collect(now, io);
        self.tick(now);
        self.send_events(io);
        self.arm();
    }

    /// What waits for the host cannot be left in the ring, since others behind it were answered: it is to be tried again.
    fn quiesce(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        if queue != COMMANDS {
            return;
        }
        let mut queue = io.queue(COMMANDS);
        let mut position = 0;
        while let Some(waiter) = self.waiting.get(position) {
            if !matches!(waiter.whom, Whom::Request(..)) {
                position += 1;
                continue;
            }
            let waiter = self.waiting.swap_remove(position);
            if let Whom::Request(ticket, segments, header) = waiter.whom {
                self.respond(&mut queue, ticket, segments, header, Err(Status::Busy));
            }
        }
        drop(queue);
        self.arm();
    }
}

impl ScmiWorker {
    fn now(&self) -> Duration {
        self.device.start.elapsed()
    }

    fn serve_commands(&mut self, queue: &mut Queue<'_>) {
        self.count_delayed();
        for served in 1u32.. {
            let Some(mut request) = queue.next() else {
                return;
            };
            match self.serve(&mut request) {
                Ok(None) => request.finish(),
                Ok(Some((header, wait))) => {
                    let (ticket, segments) = request.detach();
                    self.wait(Whom::Request(ticket, segments, header), wait);
                }
                Err(fault) => request.fail(fault),
            }
            if served.is_multiple_of(ANSWERS) {
                queue.flush();
            }
        }
    }

    /// Carries out a command and answers it, unless the host has to do its part first.
    fn serve<M: Borrow<Arc<Memory>>>(
        &mut self,
        request: &mut Buffers<M>,
    ) -> Result<Option<(Header, Wait)>, GuestFault> {
        let room = request.writable();
        if room < LEAST_RESPONSE as u64 {
            return Err(GuestFault::ShortAnswer);
        }
        let mut word = [0; HEADER_BYTES];
        request.read_slice(&mut word)?;
        let header = Header(u32::from_le_bytes(word));
        let room = usize::try_from(room).map_or(MAX_RESPONSE, |room| room.min(MAX_RESPONSE));
        let outcome = match self.command(header, request, room) {
            Ok((Reply::Wait(wait), _)) => return Ok(Some((header, wait))),
            Ok((_, length)) => Ok(length),
            Err(status) => Err(status),
        };
        request.write_slice(self.seal(header, outcome))?;
        Ok(None)
    }

    /// Reads a command's parameters, carries it out and writes its return values behind the room for header and status.
    fn command<M: Borrow<Arc<Memory>>>(
        &mut self,
        header: Header,
        request: &mut Buffers<M>,
        room: usize,
    ) -> Result<(Reply, usize), Status> {
        let mut parameters = [0; MAX_COMMAND];
        let length = usize::try_from(request.readable()).unwrap_or(usize::MAX);
        let parameters = parameters.get_mut(..length).ok_or(Status::ProtocolError)?;
        // They are there: memory that is not was found when the chain was walked.
        request
            .read_slice(parameters)
            .map_err(|_| Status::ProtocolError)?;
        let now = self.device.start.elapsed();
        let out = self.response.get_mut(LEAST_RESPONSE..room);
        let out = out.unwrap_or_default();
        self.platform
            .command(header, parameters, out, now, &mut self.host)
    }

    /// Puts header and status before the return values. Only the status is told of a failure.
    fn seal(&mut self, header: Header, outcome: Result<usize, Status>) -> &[u8] {
        let (status, length) = match outcome {
            Ok(length) => (Status::Success, length),
            Err(status) => (status, 0),
        };
        let head = [header.0.to_le_bytes(), (status as i32).to_le_bytes()];
        for (to, from) in self.response.iter_mut().zip(head.as_flattened()) {
            *to = *from;
        }
        self.response
            .get(..LEAST_RESPONSE + length)
            .unwrap_or_default()
    }

    fn wait(&mut self, whom: Whom, wait: Wait) {
        let deadline = self.now().saturating_add(self.device.patience);
        self.waiting.push(Waiter {
            whom,
            wait,
            deadline,
        });
    }

    /// Answers whatever the host is through with, or too late for.
    fn collect(&mut self, now: Duration, io: &mut Io<'_>) {
        if self.waiting.is_empty() {
            return;
        }
        let mut queue = io.queue(COMMANDS);
        let mut position = 0;
        while let Some(waiter) = self.waiting.get(position) {
            let outcome = self.host.outcome(&waiter.wait);
            let outcome =
                outcome.or((waiter.deadline <= now).then_some(Err(Status::HardwareError)));
            match outcome {
                Some(values) => {
                    let waiter = self.waiting.swap_remove(position);
                    self.resume(waiter, values, now, &mut queue);
                }
                None => position += 1,
            }
        }
    }

    fn resume(
        &mut self,
        waiter: Waiter,
        values: Result<Values, Status>,
        now: Duration,
        queue: &mut Queue<'_>,
    ) {
        let purpose = waiter.wait.purpose;
        match waiter.whom {
            Whom::Event(recipient) => {
                self.platform.resume_event(recipient, purpose, values, now);
            }
            Whom::Request(ticket, segments, header) => {
                let room = usize::try_from(segments.writable());
                let room = room.map_or(MAX_RESPONSE, |room| room.min(MAX_RESPONSE));
                let out = self.response.get_mut(LEAST_RESPONSE..room);
                let outcome = self
                    .platform
                    .resume(purpose, values, out.unwrap_or_default(), now);
                self.respond(queue, ticket, segments, header, outcome);
            }
        }
    }

    fn respond(
        &mut self,
        queue: &mut Queue<'_>,
        ticket: Ticket,
        mut segments: Segments,
        header: Header,
        outcome: Result<usize, Status>,
    ) {
        // Memory that went away meanwhile gets nothing.
        let _ = segments.write_slice(self.seal(header, outcome));
        queue.complete(ticket, segments.written());
        queue.recycle(segments);
    }

    /// Does what is due.
    fn tick(&mut self, now: Duration) {
        if self.platform.next_due().is_none_or(|due| due > now) {
            return;
        }
        let deadline = now.saturating_add(self.device.patience);
        let waiting = &mut self.waiting;
        self.platform.tick(now, &mut self.host, |recipient, wait| {
            waiting.push(Waiter {
                whom: Whom::Event(recipient),
                wait,
                deadline,
            });
        });
    }

    /// Counts what will be answered by a delayed response.
    fn count_delayed(&mut self) {
        let is_delayed =
            |waiter: &&Waiter| matches!(waiter.whom, Whom::Event(Recipient::Delayed(_)));
        let delayed = self.waiting.iter().filter(is_delayed).count();
        self.platform.set_waiting(delayed);
    }

    /// Sends what waits, as far as the driver gave buffers.
    fn send_events(&mut self, io: &mut Io<'_>) {
        static LIMITER: Limiter = Limiter::new();
        let outbox = self.platform.outbox();
        let dropped = outbox.take_dropped();
        if dropped > 0 {
            limit::warn(
                &LIMITER,
                format_args!("{dropped} notifications were dropped for want of buffers"),
            );
        }
        if !outbox.is_empty() {
            self.use_event_buffers(&mut io.queue(EVENTS));
        }
    }

    /// Takes buffers as long as there is something to send in them, and those that nothing can be sent in. The first good one
    /// that is not needed stays where it is, and so does what is behind it.
    fn use_event_buffers(&mut self, queue: &mut Queue<'_>) {
        let outbox = self.platform.outbox();
        while let Some(mut request) = queue.next() {
            if request.readable() > 0 || !self.events {
                request.fail(GuestFault::WrongQueue);
                continue;
            }
            let Some(event) = outbox.first() else {
                if request.writable() < LEAST_RESPONSE as u64 {
                    request.fail(GuestFault::ShortAnswer);
                    continue;
                }
                request.put_back();
                return;
            };
            if request.write_slice(event.bytes()).is_ok() {
                request.finish();
                outbox.remove_first();
            } else {
                let is_lost = event.is_notice();
                request.fail(GuestFault::ShortAnswer);
                if is_lost {
                    outbox.remove_first();
                }
            }
        }
    }

    /// Sets the timer for whatever is next.
    fn arm(&mut self) {
        let deadlines = self.waiting.iter().map(|waiter| waiter.deadline);
        let next = deadlines.chain(self.platform.next_due()).min();
        if next == self.armed {
            return;
        }
        self.armed = next;
        match next {
            None => self.timer.disarm(),
            Some(due) => {
                let after = due.saturating_sub(self.now());
                self.timer.arm(after.max(Duration::from_nanos(1)));
            }
        }
    }
}
