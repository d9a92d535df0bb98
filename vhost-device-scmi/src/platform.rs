//! The platform as one agent sees it: takes commands, answers them, and has things to tell.
//!
//! It knows no rings, no threads and no clock: time is passed in, and the host is a trait.

use std::time::Duration;

use crate::config::Domains;
use crate::outbox::Outbox;
use crate::protocol::base::Base;
use crate::protocol::clock::Clocks;
use crate::protocol::performance::{self, Performance};
use crate::protocol::power::Power;
use crate::protocol::reset::Resets;
use crate::protocol::sensor::Sensors;
use crate::protocol::system::{Decide, System};
use crate::protocol::voltage::Voltages;
use crate::protocol::{Answer, Call, Hosts, Purpose, Reply, Wait, serve};
use crate::quantity::Values;
use crate::schedule::{Job, Later, Schedule};
use crate::wire::{Header, MessageType, Reader, Status, Writer, protocol};

/// Whom the host's answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The delayed response to this command.
    Delayed(Header),
    /// The platform itself, which may tell something then.
    Platform,
}

/// The platform of one connection.
pub struct Platform {
    /// Whether there is an event queue.
    events: bool,
    base: Base,
    power: Power,
    system: System,
    performance: Performance,
    clocks: Clocks,
    sensors: Sensors,
    resets: Resets,
    voltages: Voltages,
    outbox: Outbox,
    schedule: Schedule,
}

impl Platform {
    /// A platform with these domains. `protocols` is what is offered of it, `events` whether there is an event queue.
    pub fn new(domains: Domains, protocols: Vec<u8>, decide: Decide, events: bool) -> Self {
        Self {
            events,
            base: Base::new(protocols),
            power: Power::new(domains.power),
            system: System::new(decide),
            performance: Performance::new(domains.performance),
            clocks: Clocks::new(domains.clocks),
            sensors: Sensors::new(domains.sensors),
            resets: Resets::new(domains.resets),
            voltages: Voltages::new(domains.voltages),
            outbox: Outbox::default(),
            schedule: Schedule::default(),
        }
    }

    /// Takes one command and writes its return values to `out`; the number is how many bytes they are.
    ///
    /// # Errors
    /// The status to answer with, and no return values.
    pub fn command(
        &mut self,
        header: Header,
        parameters: &[u8],
        out: &mut [u8],
        now: Duration,
        hosts: &mut dyn Hosts,
    ) -> Result<(Reply, usize), Status> {
        if header.kind() != MessageType::Command || header.has_reserved_bits() {
            return Err(Status::ProtocolError);
        }
        let mut call = Call {
            header,
            input: Reader::new(parameters),
            out: Writer::new(out),
            now,
            events: self.events,
            outbox: &mut self.outbox,
            schedule: &mut self.schedule,
            hosts,
        };
        let protocol = header.protocol();
        if protocol != protocol::BASE && !self.base.offers(protocol) {
            return Err(Status::NotSupported);
        }
        let answer: Answer = match protocol {
            protocol::BASE => serve(&mut self.base, &mut call),
            protocol::POWER_DOMAIN => serve(&mut self.power, &mut call),
            protocol::SYSTEM_POWER => serve(&mut self.system, &mut call),
            protocol::PERFORMANCE => serve(&mut self.performance, &mut call),
            protocol::CLOCK => serve(&mut self.clocks, &mut call),
            protocol::SENSOR => serve(&mut self.sensors, &mut call),
            protocol::RESET => serve(&mut self.resets, &mut call),
            protocol::VOLTAGE => serve(&mut self.voltages, &mut call),
            _ => Err(Status::NotSupported),
        };
        let length = call.out.length();
        let reply = answer?;
        if reply == Reply::Forget {
            self.forget();
        }
        Ok((reply, length))
    }

    /// Forgets what the agent set up, as for a new one.
    pub fn forget(&mut self) {
        use crate::protocol::Protocol as _;
        self.power.forget();
        self.system.forget();
        self.performance.forget();
        self.clocks.forget();
        self.sensors.forget();
        self.resets.forget();
        self.outbox.forget_notices();
    }

    /// When [`tick`](Self::tick) has something to do, if ever.
    pub fn next_due(&self) -> Option<Duration> {
        let sensors = self.sensors.next_due();
        self.schedule.next().into_iter().chain(sensors).min()
    }

    /// Does what is due. `wait` is told of what the host has to do for it.
    pub fn tick(
        &mut self,
        now: Duration,
        hosts: &mut dyn Hosts,
        mut wait: impl FnMut(Recipient, Wait),
    ) {
        while let Some(later) = self.schedule.take_due(now) {
            self.carry_out(&later, now, hosts, &mut wait);
        }
        self.sensors.tick(now, hosts, &mut self.outbox, |one| {
            wait(Recipient::Platform, one);
        });
    }

    fn carry_out(
        &mut self,
        later: &Later,
        now: Duration,
        hosts: &mut dyn Hosts,
        wait: &mut impl FnMut(Recipient, Wait),
    ) {
        let outbox = &mut self.outbox;
        match later.job {
            Job::ClockRate { clock, rate } => {
                self.clocks.set(clock, rate, outbox);
                if later.is_told {
                    outbox.respond(later.header, |out| {
                        out.word(clock as u32)?;
                        out.double(rate)
                    });
                }
            }
            Job::PowerState { domain, state } => {
                self.power.set(domain, state, outbox);
                outbox.respond(later.header, |out| {
                    out.word(domain as u32)?;
                    out.word(state)
                });
            }
            Job::Reset {
                domain,
                flags,
                state,
            } => {
                self.resets.apply(domain, flags, state, outbox);
                outbox.respond(later.header, |out| out.word(domain as u32));
            }
            Job::VoltageLevel { domain, level } => {
                self.voltages.set(domain, level);
                outbox.respond(later.header, |out| {
                    out.word(domain as u32)?;
                    out.signed(level)
                });
            }
            Job::SensorReading { sensor } => match self.sensors.read_later(sensor, now, hosts) {
                Ok(Err(one)) => wait(Recipient::Delayed(later.header), one),
                Ok(Ok(values)) => outbox.respond(later.header, |out| {
                    self.sensors.write_reading(sensor, true, &values, now, out)
                }),
                Err(status) => outbox.respond(later.header, |_| Err(status)),
            },
        }
    }

    /// The host did its part of a command that is answered now. Writes the return values; the number is how many bytes
    /// they are.
    ///
    /// # Errors
    /// The status to answer with.
    pub fn resume(
        &mut self,
        purpose: Purpose,
        values: Result<Values, Status>,
        out: &mut [u8],
        now: Duration,
    ) -> Result<usize, Status> {
        let mut out = Writer::new(out);
        self.finish(purpose, values?, now, &mut out)?;
        Ok(out.length())
    }

    /// The host did its part of something that is not answered on the command queue.
    pub fn resume_event(
        &mut self,
        recipient: Recipient,
        purpose: Purpose,
        values: Result<Values, Status>,
        now: Duration,
    ) {
        match (recipient, purpose) {
            (Recipient::Platform, Purpose::Update(sensor)) => {
                self.sensors.updated(sensor, values, now, &mut self.outbox);
            }
            (Recipient::Delayed(header), Purpose::Reading(sensor)) => {
                let sensors = &self.sensors;
                self.outbox.respond(header, |out| {
                    sensors.write_reading(sensor, true, &values?, now, out)
                });
            }
            // nothing else is asked for so
            _ => {}
        }
    }

    fn finish(
        &mut self,
        purpose: Purpose,
        values: Values,
        now: Duration,
        out: &mut Writer<'_>,
    ) -> Result<(), Status> {
        match purpose {
            Purpose::Reading(sensor) | Purpose::Update(sensor) => {
                self.sensors.write_reading(sensor, false, &values, now, out)
            }
            Purpose::Level(_) => performance::write_level(&values, out),
            Purpose::Limits(_) => performance::write_limits(&values, out),
            Purpose::LimitsSet(domain, limits) => {
                self.performance
                    .limits_are_set(domain, limits, &mut self.outbox);
                Ok(())
            }
            Purpose::LevelSet(domain, level) => {
                self.performance
                    .level_is_set(domain, level, &mut self.outbox);
                Ok(())
            }
        }
    }

    /// What waits for buffers of the event queue.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Says how many delayed responses wait for the host, so that their number stays bounded.
    pub fn set_waiting(&mut self, waiting: usize) {
        let taken = self.outbox.delayed() + waiting;
        self.schedule.set_taken(taken);
    }
}
