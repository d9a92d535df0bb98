//! What the protocols of the platform have in common (DEN0056, section 4.2): discovery, and commands in tables.

pub mod base;
pub mod clock;
pub mod performance;
pub mod power;
pub mod reset;
pub mod sensor;
pub mod system;
pub mod voltage;

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use crate::outbox::Outbox;
use crate::quantity::Values;
use crate::schedule::Schedule;
use crate::wire::{Header, Reader, Status, Writer};

const PROTOCOL_VERSION: u8 = 0;
const PROTOCOL_ATTRIBUTES: u8 = 1;
const PROTOCOL_MESSAGE_ATTRIBUTES: u8 = 2;
const NEGOTIATE_PROTOCOL_VERSION: u8 = 0x10;

/// One place of the host where a number is read or written. It may take its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Who does it.
    pub helper: usize,
    /// Which of its places it is.
    pub place: usize,
}

/// What is done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read the numbers.
    Read,
    /// Write the numbers.
    Write(Values),
}

/// The host's places.
pub trait Hosts {
    /// Asks for an operation. The number tells its end: whatever ends with this number or a later one was begun afterwards.
    ///
    /// # Errors
    /// [`Status::HardwareError`] if the host has not answered for too long, [`Status::Busy`] if another number is to be
    /// written.
    fn ask(&mut self, slot: Slot, operation: Operation) -> Result<u64, Status>;
}

/// What the answer of the host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// SENSOR_READING_GET of this sensor.
    Reading(usize),
    /// The next update of this sensor.
    Update(usize),
    /// PERFORMANCE_LEVEL_GET of this domain.
    Level(usize),
    /// PERFORMANCE_LIMITS_GET of this domain.
    Limits(usize),
    /// The limits of this domain are set.
    LimitsSet(usize, performance::Limits),
    /// The level of this domain is set.
    LevelSet(usize, u32),
}

impl Purpose {
    /// Whether numbers are written for it.
    pub fn is_write(self) -> bool {
        matches!(self, Self::LimitsSet(..) | Self::LevelSet(..))
    }
}

/// An answer of the host that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Where.
    pub slot: Slot,
    /// Which operation, as [`Hosts::ask`] numbered it.
    pub number: u64,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a command has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is carried out; the return values are written.
    Done,
    /// The host has to do its part first.
    Wait(Wait),
    /// All settings of the agent are to be forgotten.
    Forget,
}

/// What a command has come to, or the status that says why not.
pub type Answer = Result<Reply, Status>;

/// A command at work.
pub struct Call<'a> {
    /// The header.
    pub header: Header,
    /// The parameters.
    pub input: Reader<'a>,
    /// The return values.
    pub out: Writer<'a>,
    /// Time since the start.
    pub now: Duration,
    /// Whether there is an event queue.
    pub events: bool,
    /// Notifications.
    pub outbox: &'a mut Outbox,
    /// What is carried out later.
    pub schedule: &'a mut Schedule,
    /// The host.
    pub hosts: &'a mut dyn Hosts,
}

/// One command of a protocol.
pub struct Command<P> {
    message: u8,
    /// Bytes of parameters.
    parameters: RangeInclusive<usize>,
    /// It is about notifications, which need an event queue.
    needs_events: bool,
    run: fn(&mut P, &mut Call<'_>) -> Answer,
}

impl<P> Command<P> {
    /// A command with exactly so many bytes of parameters.
    pub const fn new(
        message: u8,
        parameters: usize,
        run: fn(&mut P, &mut Call<'_>) -> Answer,
    ) -> Self {
        Self {
            message,
            parameters: parameters..=parameters,
            needs_events: false,
            run,
        }
    }

    /// Older agents send fewer bytes.
    pub const fn or_shorter(mut self, least: usize) -> Self {
        self.parameters = least..=*self.parameters.end();
        self
    }

    /// A command that only exists with an event queue (VIRTIO 1.3, section 5.16.6.1).
    pub const fn for_events(mut self) -> Self {
        self.needs_events = true;
        self
    }
}

/// A protocol of the platform.
pub trait Protocol: Sized + 'static {
    /// Major version in the upper half, minor version in the lower.
    const VERSION: u32;
    /// What there is beside discovery. MESSAGE_ATTRIBUTES and the dispatcher both look here, so they agree.
    const COMMANDS: &'static [Command<Self>];

    /// Writes the answer to PROTOCOL_ATTRIBUTES.
    ///
    /// # Errors
    /// If it has no room.
    fn attributes(&self, events: bool, out: &mut Writer<'_>) -> Result<(), Status>;

    /// What PROTOCOL_MESSAGE_ATTRIBUTES tells of a command.
    fn message_attributes(&self, message: u8) -> u32 {
        let _ = message;
        0
    }

    /// Forgets what the agent set up: notifications, trip points, ...
    fn forget(&mut self) {}
}

/// Carries out a command.
pub fn serve<P: Protocol>(protocol: &mut P, call: &mut Call<'_>) -> Answer {
    match call.header.message() {
        PROTOCOL_VERSION => {
            expect(call, 0)?;
            call.out.word(P::VERSION)?;
        }
        PROTOCOL_ATTRIBUTES => {
            expect(call, 0)?;
            protocol.attributes(call.events, &mut call.out)?;
        }
        PROTOCOL_MESSAGE_ATTRIBUTES => {
            expect(call, 4)?;
            let message = u8::try_from(call.input.word()?).map_err(|_| Status::NotFound)?;
            if !exists::<P>(message, call.events) {
                return Err(Status::NotFound);
            }
            call.out.word(protocol.message_attributes(message))?;
        }
        NEGOTIATE_PROTOCOL_VERSION => {
            expect(call, 4)?;
            let version = call.input.word()?;
            // Minor versions only add to what was there.
            if version >> 16 != P::VERSION >> 16 || version > P::VERSION {
                return Err(Status::NotSupported);
            }
        }
        message => {
            let command = find::<P>(message, call.events).ok_or(Status::NotSupported)?;
            if !command.parameters.contains(&call.input.left()) {
                return Err(Status::ProtocolError);
            }
            return (command.run)(protocol, call);
        }
    }
    Ok(Reply::Done)
}

fn expect(call: &Call<'_>, parameters: usize) -> Result<(), Status> {
    if call.input.left() == parameters {
        Ok(())
    } else {
        Err(Status::ProtocolError)
    }
}

fn find<P: Protocol>(message: u8, events: bool) -> Option<&'static Command<P>> {
    P::COMMANDS
        .iter()
        .find(|command| command.message == message && (events || !command.needs_events))
}

fn exists<P: Protocol>(message: u8, events: bool) -> bool {
    matches!(
        message,
        PROTOCOL_VERSION
            | PROTOCOL_ATTRIBUTES
            | PROTOCOL_MESSAGE_ATTRIBUTES
            | NEGOTIATE_PROTOCOL_VERSION
    ) || find::<P>(message, events).is_some()
}

/// The domain with the number that comes next.
fn domain<'d, D>(
    domains: &'d mut [D],
    input: &mut Reader<'_>,
) -> Result<(usize, &'d mut D), Status> {
    let number = usize::try_from(input.word()?).map_err(|_| Status::NotFound)?;
    let domain = domains.get_mut(number).ok_or(Status::NotFound)?;
    Ok((number, domain))
}

/// The number of domains as attributes tell it. The configuration has at most [`crate::config::MAX_DOMAINS`].
fn count<D>(domains: &[D]) -> u32 {
    u32::try_from(domains.len()).unwrap_or(u32::MAX)
}

/// The address and length of statistics in shared memory, which there are none of.
fn no_statistics(out: &mut Writer<'_>) -> Result<(), Status> {
    out.double(0)?;
    out.word(0)
}

/// Writes an extended name.
fn name(name: &crate::name::Name, out: &mut Writer<'_>) -> Answer {
    out.word(0)?;
    out.bytes(&name.long())?;
    Ok(Reply::Done)
}

/// A bit if a condition holds.
fn bit(number: u32, is_set: bool) -> u32 {
    u32::from(is_set) << number
}

/// How many entries of a list go into this response: all from `first` on, as far as there is room for entries of `size`
/// bytes behind `head` bytes. The second number is what remains.
fn page(
    length: usize,
    first: u32,
    out: &Writer<'_>,
    head: usize,
    size: usize,
) -> Result<(Range<usize>, u32), Status> {
    let first = usize::try_from(first).map_err(|_| Status::OutOfRange)?;
    if first >= length {
        return Err(Status::OutOfRange);
    }
    let fits = out.room().saturating_sub(head) / size;
    let end = length.min(first.saturating_add(fits));
    if end == first {
        return Err(Status::ProtocolError);
    }
    let remaining = u32::try_from(length - end).unwrap_or(u32::MAX);
    Ok((first..end, remaining))
}

/// The numbers of entries returned and remaining, as most lists begin with.
fn counts(entries: &Range<usize>, remaining: u32) -> u32 {
    let returned = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    returned & 0xfff | remaining << 16
}
