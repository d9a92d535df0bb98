//! The device and its worker.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use vhost_device_core::{
    ConfigRefused, Device, GuestFault, HostError, Io, QueueIndex, QueueSpec, Ready, Request,
    Segments, Setup, Ticket, Token, Worker, limit, read_struct,
};
use zerocopy::IntoBytes;

use crate::config::ChipSpec;
use crate::host::Chip;
#[cfg(feature = "libgpiod")]
use crate::host::linux::HostChip;
use crate::host::sim::Sim;
use crate::interrupt::{Interrupt, Return};
use crate::line::{Direction, Edge, Edges, Line, Trigger};
use crate::names;
use crate::request::{self, Command};
use crate::wire;

const REQUESTS: QueueIndex = QueueIndex(0);
const EVENTS: QueueIndex = QueueIndex(1);

/// Answers published at a time: the driver works on them while we go on, and has new requests by the time we look.
const ANSWERS: u32 = 8;

/// Most requests with effects beyond their queue in one turn; each begins a batch of its own.
const MAX_WIDER: u32 = 64;

/// A chip that cannot be served.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum OpenError {
    #[error("cannot {action} {object}: {source}")]
    Io {
        action: &'static str,
        object: String,
        source: io::Error,
    },
    #[error("{chip} has no line {line}: it has {count}")]
    NoSuchLine {
        chip: String,
        line: u16,
        count: usize,
    },
    #[error(
        "{chip} has {count} lines; a guest can have from 1 to {}",
        crate::MAX_LINES
    )]
    TooManyLines { chip: String, count: usize },
    #[error("more than one chip has the label {0}")]
    Ambiguous(String),
    #[error("this program is built without libgpiod and has simulated chips only")]
    Unsupported,
}

impl OpenError {
    pub(crate) fn io(action: &'static str, object: impl Display, error: &io::Error) -> Self {
        let source = match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        Self::Io {
            action,
            object: object.to_string(),
            source,
        }
    }
}

/// An opened chip, which each connection uses in turn.
#[derive(Debug)]
enum Opened {
    Sim(Sim),
    #[cfg(feature = "libgpiod")]
    Host(HostChip),
}

impl Opened {
    fn new(spec: &ChipSpec) -> Result<Self, OpenError> {
        match spec {
            ChipSpec::Sim(spec) => {
                let object = || match &spec.control {
                    Some(path) => path.display().to_string(),
                    None => "the simulated chip".to_owned(),
                };
                Sim::open(spec)
                    .map(Self::Sim)
                    .map_err(|error| OpenError::io("listen on", object(), &error))
            }
            #[cfg(feature = "libgpiod")]
            ChipSpec::Host(spec) => HostChip::open(spec).map(Self::Host),
            #[cfg(not(feature = "libgpiod"))]
            ChipSpec::Host(_) => Err(OpenError::Unsupported),
        }
    }

    fn names(&self) -> &[String] {
        match self {
            Self::Sim(sim) => sim.bank().names(),
            #[cfg(feature = "libgpiod")]
            Self::Host(chip) => chip.names(),
        }
    }
}

/// The GPIO device.
#[derive(Debug)]
pub struct Gpio {
    chip: Opened,
    lines: u16,
    names: Arc<[u8]>,
}

impl Gpio {
    /// Opens the chip.
    ///
    /// # Errors
    /// If the chip or one of the wanted lines is not there, or may not be used.
    pub fn open(spec: &ChipSpec) -> Result<Self, OpenError> {
        let chip = Opened::new(spec)?;
        let names = chip.names();
        let block = names::block(names, |line, name, why| {
            log::warn!("line {line}: the guest is not told the name {name:?}, which {why}");
        });
        Ok(Self {
            // The specifications of chips and the kernel's chips are both checked to have at most MAX_LINES.
            lines: u16::try_from(names.len()).unwrap_or(u16::MAX),
            names: block.into(),
            chip,
        })
    }

    /// Starts the threads of a simulated chip's control socket. Without this nobody serves it.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn begin(&self) -> io::Result<()> {
        match &self.chip {
            Opened::Sim(sim) => sim.begin(),
            #[cfg(feature = "libgpiod")]
            Opened::Host(_) => Ok(()),
        }
    }

    fn config(&self) -> wire::ConfigSpace {
        wire::ConfigSpace {
            ngpio: self.lines.into(),
            padding: [0; 2],
            // A block has at most MAX_LINES names, which the kernel and the command line keep short.
            gpio_names_size: u32::try_from(self.names.len()).unwrap_or_default().into(),
        }
    }
}

impl Device for Gpio {
    type Worker = GpioWorker;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new(); 2]
    }

    fn features(&self) -> u64 {
        wire::FEATURE_IRQ
    }

    /// A chip may sit behind a slow bus, and each access to it is a system call that waits for it.
    fn may_block(&self) -> bool {
        match &self.chip {
            Opened::Sim(sim) => sim.is_slow(),
            #[cfg(feature = "libgpiod")]
            Opened::Host(_) => true,
        }
    }

    fn config_size(&self) -> u32 {
        size_of::<wire::ConfigSpace>() as u32
    }

    fn read_config(&self, offset: u32, out: &mut [u8]) {
        read_struct(&self.config(), offset, out);
    }

    fn write_config(&self, _: u32, _: &[u8]) -> Result<(), ConfigRefused> {
        Err(ConfigRefused)
    }

    fn worker(self: &Arc<Self>, _: u16, setup: &mut Setup<'_>) -> Result<GpioWorker, HostError> {
        let chip: Box<dyn Chip> = match &self.chip {
            Opened::Sim(sim) => Box::new(sim.chip(setup.reactor())?),
            #[cfg(feature = "libgpiod")]
            Opened::Host(host) => Box::new(
                host.chip()
                    .map_err(|error| HostError::new("use the chip", error))?,
            ),
        };
        Ok(GpioWorker {
            chip,
            lines: (0..self.lines).map(|_| LineState::default()).collect(),
            names: Arc::clone(&self.names),
            interrupts: setup.features() & wire::FEATURE_IRQ != 0,
            answers: if self.may_block() { 1 } else { ANSWERS },
            sensed: Vec::new(),
        })
    }
}

/// An event buffer of the driver.
type EventBuffer = (Ticket, Segments);

/// What the driver set up for one line.
#[derive(Debug, Default)]
struct LineState {
    /// The direction, if the driver ever set one; "none" is one.
    direction: Option<Option<Direction>>,
    /// The value for when the line is an output.
    output: bool,
    interrupt: Interrupt<EventBuffer>,
}

impl LineState {
    fn is_output(&self) -> bool {
        self.direction == Some(Some(Direction::Out))
    }

    /// Whether the driver made the line active; an interrupt may have, too.
    fn is_active(&self) -> bool {
        matches!(self.direction, Some(Some(_)))
    }
}

/// Serves both queues of one connection.
pub struct GpioWorker {
    chip: Box<dyn Chip>,
    lines: Vec<LineState>,
    names: Arc<[u8]>,
    /// Whether VIRTIO_GPIO_F_IRQ was agreed on.
    interrupts: bool,
    /// Answers published at a time; one by one where an access takes longer than telling the driver.
    answers: u32,
    /// Edges on their way from the chip to the driver; kept for its room.
    sensed: Vec<(Line, Edge)>,
}

/// A request was refused, and the reason logged if it is the host's.
struct Refused;

/// Logs a failure of the host.
fn refused(line: Line, error: io::Error) -> Refused {
    static LIMITER: limit::Limiter = limit::Limiter::new();
    limit::warn(&LIMITER, format_args!("line {line}: {error}"));
    Refused
}

/// Whether a request was answered, or touches more than its queue and its line's value.
enum Progress {
    Answered,
    Wider(Command),
}

impl GpioWorker {
    /// Serves requests until the ring is empty, or it is somebody else's turn.
    fn serve_requests(&mut self, io: &mut Io<'_>) {
        for _ in 0..MAX_WIDER {
            let Some((ticket, mut segments, command)) = self.serve_values(io) else {
                return;
            };
            let result = match command {
                Command::SetDirection(line, direction) => self.set_direction(line, direction, io),
                Command::SetInterrupt(line, trigger) => self.set_interrupt(line, trigger, io),
                _ => Err(Refused),
            };
            let response = response(result.map(|()| 0));
            // There is room: it was looked at before.
            let _ = segments.write(&response);
            let mut queue = io.queue(REQUESTS);
            queue.complete(ticket, segments.written());
            queue.recycle(segments);
        }
        io.queue(REQUESTS).defer();
    }

    /// Answers requests up to the first one that has effects elsewhere: on interrupts, or on what is watched.
    fn serve_values(&mut self, io: &mut Io<'_>) -> Option<(Ticket, Segments, Command)> {
        let mut queue = io.queue(REQUESTS);
        for answered in 1u32.. {
            let mut request = queue.next()?;
            match self.serve_value(&mut request) {
                Ok(Progress::Answered) => request.finish(),
                Ok(Progress::Wider(command)) => {
                    let (ticket, segments) = request.detach();
                    return Some((ticket, segments, command));
                }
                Err(fault) => request.fail(fault),
            }
            if answered.is_multiple_of(self.answers) {
                queue.flush();
            }
        }
        None
    }

    fn serve_value(&mut self, request: &mut Request<'_>) -> Result<Progress, GuestFault> {
        if request.writable() == 0 {
            return Err(GuestFault::ShortAnswer);
        }
        let command = self.decode(request);
        let result = match command {
            None => Err(Refused),
            Some(Command::LineNames) => return self.tell_names(request),
            Some(Command::Direction(line)) => self.direction(line).map(request::encode),
            Some(Command::Value(line)) => self.value(line).map(u8::from),
            Some(Command::SetValue(line, value)) => self.set_value(line, value).map(|()| 0),
            Some(command @ (Command::SetDirection(..) | Command::SetInterrupt(..))) => {
                return Ok(Progress::Wider(command));
            }
        };
        answer(request, response(result))
    }

    /// The command, if it is one and its answer has room.
    fn decode(&self, request: &mut Request<'_>) -> Option<Command> {
        if request.writable() < size_of::<wire::Response>() as u64 {
            return None;
        }
        let header = request.read::<wire::Request>().ok()?;
        // There are at most MAX_LINES.
        request::decode(&header, self.lines.len() as u16)
    }

    fn tell_names(&self, request: &mut Request<'_>) -> Result<Progress, GuestFault> {
        if self.names.is_empty() || request.writable() <= self.names.len() as u64 {
            return answer(request, response(Err(Refused)));
        }
        request.write_slice(&[wire::STATUS_OK])?;
        request.write_slice(&self.names)?;
        Ok(Progress::Answered)
    }

    fn state(&mut self, line: Line) -> Result<&mut LineState, Refused> {
        self.lines.get_mut(line.position()).ok_or(Refused)
    }

    fn direction(&mut self, line: Line) -> Result<Option<Direction>, Refused> {
        match self.state(line)?.direction {
            Some(direction) => Ok(direction),
            None => {
                let direction = self.chip.direction(line);
                direction.map(Some).map_err(|error| refused(line, error))
            }
        }
    }

    fn value(&mut self, line: Line) -> Result<bool, Refused> {
        self.chip.value(line).map_err(|error| refused(line, error))
    }

    fn set_value(&mut self, line: Line, value: bool) -> Result<(), Refused> {
        let state = self.state(line)?;
        if state.is_output() {
            self.chip
                .set_value(line, value)
                .map_err(|error| refused(line, error))?;
        }
        self.state(line)?.output = value;
        Ok(())
    }

    fn set_direction(
        &mut self,
        line: Line,
        direction: Option<Direction>,
        io: &mut Io<'_>,
    ) -> Result<(), Refused> {
        match direction {
            Some(direction) => self.activate(line, direction),
            None => {
                self.deactivate(line, io);
                Ok(())
            }
        }
    }

    fn activate(&mut self, line: Line, direction: Direction) -> Result<(), Refused> {
        let state = self.state(line)?;
        let output = state.output;
        let done = match (direction, state.interrupt.trigger()) {
            // it is one, and edges go on being detected
            (Direction::In, Some(_)) => Ok(()),
            (Direction::Out, Some(_)) => return Err(Refused),
            (Direction::In, None) => self.chip.set_input(line),
            (Direction::Out, None) => self.chip.set_output(line, output),
        };
        done.map_err(|error| refused(line, error))?;
        self.state(line)?.direction = Some(Some(direction));
        Ok(())
    }

    /// Lets a line go and forgets all about it.
    fn deactivate(&mut self, line: Line, io: &mut Io<'_>) {
        self.chip.release(line, io.reactor());
        let Some(state) = self.lines.get_mut(line.position()) else {
            return;
        };
        let buffer = state.interrupt.disable();
        *state = LineState {
            direction: Some(None),
            ..LineState::default()
        };
        give_back(io, buffer, Return::Invalid);
    }

    fn set_interrupt(
        &mut self,
        line: Line,
        trigger: Option<Trigger>,
        io: &mut Io<'_>,
    ) -> Result<(), Refused> {
        if !self.interrupts {
            return Err(Refused);
        }
        match trigger {
            None => self.disable(line, io),
            Some(trigger) => self.enable(line, trigger, io),
        }
    }

    fn enable(&mut self, line: Line, trigger: Trigger, io: &mut Io<'_>) -> Result<(), Refused> {
        let Self { chip, lines, .. } = self;
        let state = lines.get_mut(line.position()).ok_or(Refused)?;
        if state.interrupt.trigger() == Some(trigger) {
            return Ok(());
        }
        let result = if is_output(chip.as_mut(), line, state) {
            Err(Refused)
        } else {
            chip.detect(line, trigger.edges(), io.reactor())
                .map_err(|error| refused(line, error))
        };
        let buffer = match result {
            Ok(()) => state.interrupt.enable(trigger, look(chip.as_mut(), line)),
            Err(Refused) => {
                state.interrupt.refuse();
                None
            }
        };
        give_back(io, buffer, Return::Valid);
        result
    }

    fn disable(&mut self, line: Line, io: &mut Io<'_>) -> Result<(), Refused> {
        let state = self.state(line)?;
        let was_enabled = state.interrupt.trigger().is_some();
        let is_active = state.is_active();
        let buffer = state.interrupt.disable();
        give_back(io, buffer, Return::Invalid);
        if was_enabled && !is_active {
            self.chip.release(line, io.reactor());
        } else if was_enabled && let Err(error) = self.chip.detect(line, Edges::NONE, io.reactor())
        {
            // The interrupt is off all the same: nothing is delivered any more.
            refused(line, error);
        }
        Ok(())
    }

    /// Takes the driver's event buffers.
    fn serve_events(&mut self, io: &mut Io<'_>) {
        let mut queue = io.queue(EVENTS);
        loop {
            let Some(mut request) = queue.next() else {
                return;
            };
            if request.writable() == 0 {
                request.fail(GuestFault::ShortAnswer);
                continue;
            }
            let line = request.read::<wire::IrqRequest>();
            let line = line.ok().map(|header| Line(header.gpio.get()));
            let (ticket, segments) = request.detach();
            let buffer = (ticket, segments);
            if let Some((buffer, status)) = self.unmask(line, buffer) {
                complete(&mut queue, buffer, status);
            }
        }
    }

    /// Unmasks a line's interrupt. Returns a buffer that goes back at once.
    fn unmask(&mut self, line: Option<Line>, buffer: EventBuffer) -> Option<(EventBuffer, Return)> {
        let Self { chip, lines, .. } = self;
        let state = line
            .filter(|_| self.interrupts)
            .and_then(|line| Some((line, lines.get_mut(line.position())?)));
        match state {
            Some((line, state)) => state.interrupt.unmask(buffer, look(chip.as_mut(), line)),
            None => Some((buffer, Return::Invalid)),
        }
    }

    /// Tells the driver of the edges that the chip saw.
    fn deliver(&mut self, io: &mut Io<'_>) {
        let Self {
            chip,
            lines,
            sensed,
            ..
        } = self;
        let mut queue = io.queue(EVENTS);
        for (line, edge) in sensed.drain(..) {
            let state = lines.get_mut(line.position());
            let buffer =
                state.and_then(|state| state.interrupt.sense(edge, look(chip.as_mut(), line)));
            if let Some(buffer) = buffer {
                complete(&mut queue, buffer, Return::Valid);
            }
        }
    }
}

/// Whether a line is an output, be it by the host's doing. A chip that cannot tell will tell why when it is used.
fn is_output(chip: &mut dyn Chip, line: Line, state: &LineState) -> bool {
    match state.direction {
        Some(direction) => direction == Some(Direction::Out),
        None => chip
            .direction(line)
            .is_ok_and(|direction| direction == Direction::Out),
    }
}

/// The level of a line, when it is needed. A line that cannot be read interrupts nobody.
fn look(chip: &mut dyn Chip, line: Line) -> impl FnOnce() -> bool {
    move || match chip.value(line) {
        Ok(value) => value,
        Err(error) => {
            refused(line, error);
            false
        }
    }
}

fn response(result: Result<u8, Refused>) -> wire::Response {
    match result {
        Ok(value) => wire::Response {
            status: wire::STATUS_OK,
            value,
        },
        Err(Refused) => wire::Response {
            status: wire::STATUS_ERR,
            value: 0,
        },
    }
}

/// Answers with as much of the response as there is room for; a status alone says that the request failed.
fn answer(request: &mut Request<'_>, response: wire::Response) -> Result<Progress, GuestFault> {
    let bytes = response.as_bytes();
    let room = usize::try_from(request.writable()).unwrap_or(bytes.len());
    request.write_slice(bytes.get(..room).unwrap_or(bytes))?;
    Ok(Progress::Answered)
}

fn give_back(io: &mut Io<'_>, buffer: Option<EventBuffer>, status: Return) {
    if let Some(buffer) = buffer {
        complete(&mut io.queue(EVENTS), buffer, status);
    }
}

fn complete(queue: &mut vhost_device_core::Queue<'_>, buffer: EventBuffer, status: Return) {
    let (ticket, mut segments) = buffer;
    let status = match status {
        Return::Valid => wire::IRQ_STATUS_VALID,
        Return::Invalid => wire::IRQ_STATUS_INVALID,
    };
    // A buffer without room was refused when it came.
    let _ = segments.write_slice(&[status]);
    queue.complete(ticket, segments.written());
    queue.recycle(segments);
}

impl Worker for GpioWorker {
    fn kick(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        match queue {
            EVENTS => self.serve_events(io),
            _ => self.serve_requests(io),
        }
    }

    fn event(&mut self, token: Token, ready: Ready, io: &mut Io<'_>) {
        let sensed = &mut self.sensed;
        self.chip
            .events(token, ready, io.reactor(), &mut |line, edge| {
                sensed.push((line, edge));
            });
        self.deliver(io);
    }

    /// Buffers of the event queue go back as invalid. Lines stay as they are: the frontend may only be pausing.
    fn quiesce(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        if queue != EVENTS {
            return;
        }
        let mut queue = io.queue(EVENTS);
        for state in &mut self.lines {
            if let Some(buffer) = state.interrupt.mask() {
                complete(&mut queue, buffer, Return::Invalid);
            }
        }
    }
}
