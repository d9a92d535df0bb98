//! The reset domain management protocol (DEN0056, section 4.8), on simulated domains.

use std::time::Duration;

use super::{Answer, Call, Command, Protocol, Reply, bit, count, domain, name};
use crate::name::Name;
use crate::outbox::Outbox;
use crate::schedule::{Job, Later};
use crate::wire::{Status, Writer, protocol};

const RESET_ISSUED: u8 = 0;

/// Flags of RESET.
mod flag {
    pub const AUTONOMOUS: u32 = 1 << 0;
    pub const ASSERT: u32 = 1 << 1;
    pub const ASYNCHRONOUS: u32 = 1 << 2;
}

/// The only reset state that there is: all context is lost.
const COLD_RESET: u32 = 0;
/// The latency is not known.
const UNKNOWN: u32 = u32::MAX;

/// What a reset domain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetDomain {
    /// What it is called.
    pub name: Name,
    /// The agent may not reset it.
    pub is_fixed: bool,
    /// Resets can be asynchronous, and take this long then.
    pub delay: Option<Duration>,
}

#[derive(Debug)]
struct State {
    spec: ResetDomain,
    is_asserted: bool,
    is_told: bool,
}

/// The reset protocol.
#[derive(Debug)]
pub struct Resets {
    list: Vec<State>,
}

impl Resets {
    /// A platform with these domains.
    pub fn new(domains: Vec<ResetDomain>) -> Self {
        let states = domains.into_iter().map(|spec| State {
            spec,
            is_asserted: false,
            is_told: false,
        });
        Self {
            list: states.collect(),
        }
    }

    fn attributes_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let delay = one.spec.delay;
        let attributes = bit(31, call.events && delay.is_some())
            | bit(30, call.events)
            | bit(29, one.spec.name.is_long());
        let latency = delay.map_or(UNKNOWN, |delay| {
            u32::try_from(delay.as_micros()).unwrap_or(UNKNOWN)
        });
        call.out.word(attributes)?;
        call.out.word(latency)?;
        call.out.bytes(&one.spec.name.short())?;
        Ok(Reply::Done)
    }

    fn reset(&mut self, call: &mut Call<'_>) -> Answer {
        let (number, one) = domain(&mut self.list, &mut call.input)?;
        let flags = call
            .input
            .flags(flag::AUTONOMOUS | flag::ASSERT | flag::ASYNCHRONOUS)?;
        let state = call.input.word()?;
        if state != COLD_RESET {
            return Err(Status::InvalidParameters);
        }
        if one.spec.is_fixed {
            return Err(Status::Denied);
        }
        if flags & flag::ASYNCHRONOUS == 0 {
            self.apply(number, flags, state, call.outbox);
            return Ok(Reply::Done);
        }
        let delay = one.spec.delay.filter(|_| call.events);
        call.schedule.add(Later {
            due: call.now.saturating_add(delay.ok_or(Status::NotSupported)?),
            header: call.header,
            job: Job::Reset {
                domain: number,
                flags,
                state,
            },
            is_told: true,
        })?;
        Ok(Reply::Done)
    }

    /// Resets a domain as a whole, or asserts or deasserts its line. The reset begins with the assertion.
    pub fn apply(&mut self, number: usize, flags: u32, state: u32, outbox: &mut Outbox) {
        let Some(one) = self.list.get_mut(number) else {
            return;
        };
        let is_autonomous = flags & flag::AUTONOMOUS != 0;
        let is_asserted = !is_autonomous && flags & flag::ASSERT != 0;
        let begins = is_autonomous || (is_asserted && !one.is_asserted);
        one.is_asserted = is_asserted;
        if begins {
            log::debug!("the guest resets {}", one.spec.name);
        }
        if begins && one.is_told {
            outbox.notify(protocol::RESET, RESET_ISSUED, number, |out| {
                out.word(number as u32)?;
                out.word(state)
            });
        }
    }

    fn notify(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        one.is_told = call.input.flags(1)? != 0;
        Ok(Reply::Done)
    }

    fn name_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        name(&one.spec.name, &mut call.out)
    }
}

impl Protocol for Resets {
    const VERSION: u32 = 0x3_0001;
    const COMMANDS: &'static [Command<Self>] = &[
        Command::new(0x3, 4, Self::attributes_get),
        Command::new(0x4, 12, Self::reset),
        Command::new(0x5, 8, Self::notify).for_events(),
        Command::new(0x6, 4, Self::name_get),
    ];

    fn attributes(&self, _: bool, out: &mut Writer<'_>) -> Result<(), Status> {
        out.word(count(&self.list))
    }

    fn forget(&mut self) {
        for one in &mut self.list {
            one.is_told = false;
        }
    }
}
