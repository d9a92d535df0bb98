//! The device and its worker.

use std::borrow::Borrow;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use vhost_device_core::limit::{self, Limiter};
use vhost_device_core::{
    Buffers, Device, GuestFault, HostError, Io, Memory, Queue, QueueIndex, QueueSpec, Ready,
    Request, Segments, Setup, Ticket, Timer, Token, Worker,
};

use crate::config::{self, Chip, Config, Temperature};
use crate::group::{Group, Step};
use crate::host::{self, Bus, Failure, OpenError};
use crate::message::{Direction, Message, Refusal, Shape};
use crate::routes::Routes;
use crate::wire::{F_ZERO_LENGTH_REQUEST, OutHeader, Status};

const REQUESTS: QueueIndex = QueueIndex(0);

/// How long a group may stay without its end. A driver makes the requests of a group available one behind the other, and
/// nothing but a stalled or broken one takes this long between two of them.
const GROUP_PATIENCE: Duration = Duration::from_secs(1);

const PATIENCE_ENDS: Token = Token(0);

/// Size of the status behind each request.
const STATUS_BYTES: u64 = 1;

type HostBuses = Vec<Box<dyn Bus>>;

/// The I2C adapter.
pub struct I2c {
    routes: Routes,
    /// Locked for one batch at a time. Only a worker that was given up because its bus is stuck makes another one wait, and
    /// that one does not wait but fails its requests.
    buses: Mutex<HostBuses>,
    may_block: bool,
}

impl I2c {
    /// Opens the buses.
    ///
    /// # Errors
    /// [`OpenError`] if one of them cannot be used.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let buses = config.buses.iter().map(|bus| host::open(bus, config));
        Ok(Self {
            routes: Routes::new(&config.buses),
            buses: Mutex::new(buses.collect::<Result<_, _>>()?),
            may_block: config.buses.iter().any(may_block),
        })
    }
}

/// Whether anything but memory is behind a bus.
fn may_block(bus: &config::Bus) -> bool {
    match bus {
        config::Bus::Adapter { .. } => true,
        config::Bus::Sim { chips } => chips.iter().any(|(_, chip)| match chip {
            Chip::Eeprom { file, .. } => file.is_some(),
            Chip::Lm75(temperature) => matches!(temperature, Temperature::File(_)),
            Chip::Registers => false,
            Chip::Stuck => true,
        }),
    }
}

impl Device for I2c {
    type Worker = I2cWorker;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new()]
    }

    fn features(&self) -> u64 {
        F_ZERO_LENGTH_REQUEST
    }

    fn completes_in_order(&self) -> bool {
        true
    }

    fn may_block(&self) -> bool {
        self.may_block
    }

    fn worker(self: &Arc<Self>, _: u16, setup: &mut Setup<'_>) -> Result<I2cWorker, HostError> {
        if setup.features() & F_ZERO_LENGTH_REQUEST == 0 {
            // section 5.13.6.4: the device MUST reject any driver that does not negotiate it
            let error = io::Error::other("the driver lacks VIRTIO_I2C_F_ZERO_LENGTH_REQUEST");
            return Err(HostError::new("start the queue", error));
        }
        let timer = setup.reactor().timer(PATIENCE_ENDS);
        Ok(I2cWorker {
            device: Arc::clone(self),
            group: Group::new(),
            held: Vec::new(),
            timer: timer.map_err(|error| HostError::new("make a timer", error))?,
            waiting: false,
        })
    }
}

/// Serves the request queue of one connection.
pub struct I2cWorker {
    device: Arc<I2c>,
    group: Group,
    /// The requests of a group whose end is not there yet, one per message.
    held: Vec<(Ticket, Segments)>,
    timer: Box<dyn Timer>,
    /// The timer runs.
    waiting: bool,
}

impl Worker for I2cWorker {
    fn kick(&mut self, _: QueueIndex, io: &mut Io<'_>) {
        let device = Arc::clone(&self.device);
        let mut buses = lock(&device.buses);
        let mut queue = io.queue(REQUESTS);
        if device.may_block {
            // Each request is told at once, and a stop does not wait for the whole ring.
            queue = queue.at_most(1);
        }
        while self.step(&mut queue, buses.as_deref_mut()) {}
        self.watch_the_clock();
    }

    fn event(&mut self, _: Token, _: Ready, io: &mut Io<'_>) {
        static LIMITER: Limiter = Limiter::new();
        self.waiting = false;
        limit::warn(&LIMITER, format_args!("a group without an end was refused"));
        self.abandon(&mut io.queue(REQUESTS));
        self.group.reset();
    }

    /// A group that is half there stays in the ring: whoever serves it next finds it whole.
    fn quiesce(&mut self, _: QueueIndex, io: &mut Io<'_>) {
        let mut queue = io.queue(REQUESTS);
        while let Some((ticket, segments)) = self.held.pop() {
            queue.put_back(ticket);
            queue.recycle(segments);
        }
        self.group.reset();
        self.watch_the_clock();
    }
}

/// The buses, unless a worker before this one still waits for them.
fn lock(buses: &Mutex<HostBuses>) -> Option<MutexGuard<'_, HostBuses>> {
    match buses.try_lock() {
        Ok(buses) => Some(buses),
        // chips are consistent after each message
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl I2cWorker {
    /// Serves one request. False if there is none.
    fn step(&mut self, queue: &mut Queue<'_>, buses: Option<&mut HostBuses>) -> bool {
        if self.is_in_group() {
            return self.step_in_group(queue, buses);
        }
        let Some(mut request) = queue.next() else {
            return false;
        };
        match self.receive(&mut request) {
            Step::Hold => self.held.push(request.detach()),
            Step::Run => {
                let status = self.transfer(buses).status(0);
                finish(request, self.group.answer(0), status);
                self.group.clear();
            }
            Step::Fail => finish(request, &[], Status::Error),
        }
        // the clock starts anew for each group
        self.waiting &= !self.is_in_group();
        true
    }

    /// Whether the next request belongs to the ones before it.
    fn is_in_group(&self) -> bool {
        !self.held.is_empty() || self.group.is_failing()
    }

    /// Serves one request of a group that has begun. A chain that cannot be read ends its group there: nobody knows what its
    /// flags were.
    fn step_in_group(&mut self, queue: &mut Queue<'_>, buses: Option<&mut HostBuses>) -> bool {
        let faults = queue.faults();
        let next = queue.next().map(Request::detach);
        if queue.faults() != faults {
            self.abandon(queue);
            self.group.reset();
        }
        let Some((ticket, mut segments)) = next else {
            return false;
        };
        let step = self.receive(&mut segments);
        self.held.push((ticket, segments));
        match step {
            Step::Hold => {}
            Step::Run => {
                let outcome = self.transfer(buses);
                self.answer(queue, &outcome);
            }
            Step::Fail => self.abandon(queue),
        }
        true
    }

    /// Reads a request and adds it to the group.
    fn receive<M: Borrow<Arc<Memory>>>(&mut self, buffers: &mut Buffers<M>) -> Step {
        let has_status = buffers.reserve_tail(STATUS_BYTES).is_ok();
        let Ok(header) = buffers.read::<OutHeader>() else {
            return self.group.add(Err(Refusal::NoHeader), false, |_| Ok(()));
        };
        let shape = if has_status {
            Shape::decode(&header, buffers.readable(), buffers.writable())
        } else {
            Err(Refusal::NoStatus)
        };
        let shape = shape.and_then(|shape| self.permit(shape));
        self.group.add(shape, header.fail_next(), |room| {
            buffers.read_slice(room).map_err(|_| Refusal::Memory)
        })
    }

    /// Refuses what the guest may not address, and groups that no single bus can carry out.
    fn permit(&self, shape: Shape) -> Result<Shape, Refusal> {
        let bus = self
            .device
            .routes
            .bus(shape.address)
            .ok_or(Refusal::Denied)?;
        match self.group.first() {
            Some(first) if self.device.routes.bus(first.address) != Some(bus) => {
                Err(Refusal::TwoBuses)
            }
            _ => Ok(shape),
        }
    }

    /// Has the bus carry out the group.
    fn transfer(&mut self, buses: Option<&mut HostBuses>) -> Outcome {
        let first = self.group.first().map(|message| message.address);
        let bus = first.and_then(|address| self.device.routes.bus(address));
        let (messages, bytes) = self.group.transfer();
        let result = match (buses, bus) {
            (Some(buses), Some(bus)) => match buses.get_mut(bus) {
                Some(bus) => bus.transfer(messages, bytes),
                None => Err(Failure::whole(host::not_acknowledged())),
            },
            _ => Err(Failure::whole(io::ErrorKind::ResourceBusy.into())),
        };
        match result {
            Ok(()) => Outcome {
                done: messages.len(),
            },
            Err(failure) => {
                report(messages, &failure);
                Outcome { done: failure.done }
            }
        }
    }

    /// Answers all requests of the group.
    fn answer(&mut self, queue: &mut Queue<'_>, outcome: &Outcome) {
        for (number, (ticket, mut segments)) in self.held.drain(..).enumerate() {
            // without room for a status the used length stays 0
            let _ = put(
                &mut segments,
                self.group.answer(number),
                outcome.status(number),
            );
            queue.complete(ticket, segments.written());
            queue.recycle(segments);
        }
        self.group.clear();
    }

    /// Fails all requests of the group.
    fn abandon(&mut self, queue: &mut Queue<'_>) {
        self.answer(queue, &Outcome { done: 0 });
    }

    /// Sees to it that a group does not stay without its end for ever.
    fn watch_the_clock(&mut self) {
        let wanted = self.is_in_group();
        if wanted && !self.waiting {
            self.timer.arm(GROUP_PATIENCE);
        } else if !wanted && self.waiting {
            self.timer.disarm();
        }
        self.waiting = wanted;
    }
}

/// How far a transfer came.
struct Outcome {
    /// Messages carried out.
    done: usize,
}

impl Outcome {
    fn status(&self, message: usize) -> Status {
        if message < self.done {
            Status::Ok
        } else {
            Status::Error
        }
    }
}

/// Ends a request with its answer, or with used length 0 if there is not even room for the status.
fn finish(mut request: Request<'_>, data: &[u8], status: Status) {
    match put(&mut request, data, status) {
        Ok(()) => request.finish(),
        Err(fault) => request.fail(fault),
    }
}

/// Writes what was read, if all went well, and the status.
fn put<M: Borrow<Arc<Memory>>>(
    buffers: &mut Buffers<M>,
    data: &[u8],
    status: Status,
) -> Result<(), GuestFault> {
    let status = match status {
        Status::Ok => match buffers.write_slice(data) {
            Ok(()) => Status::Ok,
            Err(_) => Status::Error,
        },
        Status::Error => Status::Error,
    };
    buffers.write_tail(&[status as u8])
}

/// A target that does not answer is everyday life on a bus, above all while a guest looks for targets; anything else is
/// for the log.
fn report(messages: &[Message], failure: &Failure) {
    static LIMITER: Limiter = Limiter::new();
    let Some(message) = messages.get(failure.done).or(messages.first()) else {
        return;
    };
    let verb = match message.direction {
        Direction::Read => "read from",
        Direction::Write => "write to",
    };
    let (address, error) = (message.address, &failure.error);
    match error.raw_os_error() {
        Some(libc::ENXIO | libc::EREMOTEIO) => log::debug!("cannot {verb} {address}: {error}"),
        _ => limit::warn(&LIMITER, format_args!("cannot {verb} {address}: {error}")),
    }
}
