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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, Entry};
    use crate::outbox::{MAX_DELAYED, MAX_NOTICES};
    use crate::protocol::{Operation, Slot};
    use crate::wire::{MAX_COMMAND, MAX_EVENT, MAX_RESPONSE};

    const ENTRIES: [&str; 8] = [
        "sim,name=room,value=square:20:40:0.002,intervals=10+1",
        "sim,name=motion,type=acceleration,value=count+count+count,delay=3",
        "clock,name=bus,rates=1+2+3,parents=pll,delay=2",
        "clock,name=pll,rates=100:200:10,allow=state,delay=0",
        "power,name=a-domain-with-a-long-name,delay=1",
        "perf,name=cpu,levels=1+2+3",
        "reset,name=usb,delay=0",
        "voltage,name=core,levels=-1+1,delay=0",
    ];

    struct NoHosts;

    impl Hosts for NoHosts {
        fn ask(&mut self, _: Slot, _: Operation) -> Result<u64, Status> {
            Err(Status::HardwareError)
        }
    }

    fn platform(events: bool) -> Platform {
        let config = Config {
            entries: ENTRIES.map(|text| text.parse::<Entry>().unwrap()).into(),
            ..Config::default()
        };
        let domains = crate::host::open(&config).unwrap().domains;
        Platform::new(
            domains,
            (0x11..=0x17).collect(),
            Arc::new(|_| Ok(())),
            events,
        )
    }

    /// A command that is mostly one: random words would hardly ever be.
    fn message() -> impl Strategy<Value = (u32, Vec<u8>, usize)> {
        let small = prop_oneof![8 => 0u32..4, 1 => any::<u32>()];
        let header = prop_oneof![
            20 => (0x10u32..0x18, 0u32..0x12, 0u32..0x400)
                .prop_map(|(protocol, message, token)| protocol << 10 | message | token << 18),
            1 => any::<u32>(),
        ];
        let words = prop::collection::vec(small, 0..6);
        let parameters = (words, 0usize..12).prop_map(|(words, odd)| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            if odd < 3 {
                bytes.truncate(bytes.len().saturating_sub(odd));
            }
            bytes
        });
        let room = prop_oneof![3 => Just(128usize), 1 => 0usize..=MAX_RESPONSE - 8];
        (header, parameters, room)
    }

    proptest! {
        /// Whatever agents say, in whatever order: answers stay within their room, what waits stays within its bounds, and
        /// an agent without an event queue is told nothing.
        #[test]
        fn any_sequence_of_messages_is_answered_within_bounds(
            events: bool,
            messages in prop::collection::vec((message(), 0u64..3), 1..400),
        ) {
            let mut platform = platform(events);
            let mut now = Duration::ZERO;
            for ((header, parameters, room), pause) in messages {
                now += Duration::from_millis(pause);
                let mut out = [0xa5u8; MAX_RESPONSE];
                platform.set_waiting(0);
                let answer = platform.command(Header(header), &parameters, &mut out[..room], now, &mut NoHosts);
                if let Ok((reply, length)) = answer {
                    prop_assert!(length <= room);
                    prop_assert!(!matches!(reply, Reply::Wait(_)));
                    prop_assert!(parameters.len() <= MAX_COMMAND);
                }
                prop_assert!(out[room..].iter().all(|byte| *byte == 0xa5));
                if platform.next_due().is_some_and(|due| due <= now) {
                    platform.tick(now, &mut NoHosts, |_, _| unreachable!("there is no host"));
                }
                prop_assert!(platform.next_due().is_none_or(|due| due > now));
                prop_assert!(platform.outbox().delayed() <= MAX_DELAYED);
            }
            prop_assert!(events || platform.outbox().is_empty());
            let mut told = 0;
            while let Some(event) = platform.outbox().first() {
                prop_assert!((8..=MAX_EVENT).contains(&event.bytes().len()));
                platform.outbox().remove_first();
                told += 1;
            }
            prop_assert!(told <= MAX_DELAYED + MAX_NOTICES);
        }
    }

    #[test]
    fn a_clock_that_stood_still_for_long_ticks_once() {
        let mut platform = platform(true);
        let mut out = [0; 64];
        let header = Header::new(protocol::SENSOR, 0xb, MessageType::Command, 0);
        let on = [0, 0, 0, 0, 1, 0, 0, 0];
        platform
            .command(header, &on, &mut out, Duration::ZERO, &mut NoHosts)
            .unwrap();
        let late = Duration::from_secs(3600);
        platform.tick(late, &mut NoHosts, |_, _| {});
        assert_eq!(platform.next_due(), Some(late + Duration::from_millis(10)));
        platform.outbox().remove_first();
        assert!(platform.outbox().is_empty());
    }
}
