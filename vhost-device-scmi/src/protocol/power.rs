//! The power domain management protocol (DEN0056, section 4.3), on simulated domains that are on or off.

use std::time::Duration;

use super::{Answer, Call, Command, Protocol, Reply, bit, count, domain, name, no_statistics};
use crate::name::Name;
use crate::outbox::Outbox;
use crate::schedule::{Job, Later};
use crate::wire::{Status, Writer, protocol};

const STATE_CHANGED: u8 = 0;
const STATE_CHANGE_REQUESTED: u8 = 1;

/// The power states that there are: on, and off with the context lost.
pub mod state {
    #![allow(missing_docs)]
    pub const ON: u32 = 0;
    pub const OFF: u32 = 1 << 30;
}

/// What a power domain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerDomain {
    /// What it is called.
    pub name: Name,
    /// Whether it is on at first.
    pub is_on: bool,
    /// The agent may not change it.
    pub is_fixed: bool,
    /// Changes can be asynchronous, and take this long then.
    pub delay: Option<Duration>,
}

#[derive(Debug)]
struct State {
    spec: PowerDomain,
    state: u32,
    tells_changes: bool,
    tells_requests: bool,
}

impl State {
    fn new(spec: PowerDomain) -> Self {
        Self {
            state: if spec.is_on { state::ON } else { state::OFF },
            tells_changes: false,
            tells_requests: false,
            spec,
        }
    }
}

/// The power domain protocol.
#[derive(Debug)]
pub struct Power {
    list: Vec<State>,
}

impl Power {
    /// A platform with these domains.
    pub fn new(domains: Vec<PowerDomain>) -> Self {
        Self {
            list: domains.into_iter().map(State::new).collect(),
        }
    }

    fn attributes_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let attributes = bit(31, call.events)
            | bit(30, call.events && one.spec.delay.is_some())
            | bit(29, true)
            | bit(28, call.events)
            | bit(27, one.spec.name.is_long());
        call.out.word(attributes)?;
        call.out.bytes(&one.spec.name.short())?;
        Ok(Reply::Done)
    }

    fn state_set(&mut self, call: &mut Call<'_>) -> Answer {
        let is_asynchronous = call.input.flags(1)? != 0;
        let (number, one) = domain(&mut self.list, &mut call.input)?;
        let state = call.input.word()?;
        if !matches!(state, state::ON | state::OFF) {
            return Err(Status::InvalidParameters);
        }
        if one.tells_requests {
            let source = number as u32;
            call.outbox.notify(
                protocol::POWER_DOMAIN,
                STATE_CHANGE_REQUESTED,
                number,
                |out| {
                    out.word(source)?;
                    out.word(state)
                },
            );
        }
        if one.spec.is_fixed && state != one.state {
            return Err(Status::Denied);
        }
        if is_asynchronous {
            let delay = one.spec.delay.filter(|_| call.events);
            call.schedule.add(Later {
                due: call.now.saturating_add(delay.ok_or(Status::NotSupported)?),
                header: call.header,
                job: Job::PowerState {
                    domain: number,
                    state,
                },
                is_told: true,
            })?;
        } else {
            self.set(number, state, call.outbox);
        }
        Ok(Reply::Done)
    }

    /// Changes the state of a domain.
    pub fn set(&mut self, number: usize, state: u32, outbox: &mut Outbox) {
        let Some(one) = self.list.get_mut(number) else {
            return;
        };
        let has_changed = one.state != state;
        one.state = state;
        if has_changed && one.tells_changes {
            outbox.notify(protocol::POWER_DOMAIN, STATE_CHANGED, number, |out| {
                out.word(number as u32)?;
                out.word(state)
            });
        }
    }

    fn state_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        call.out.word(one.state)?;
        Ok(Reply::Done)
    }

    fn state_notify(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        one.tells_changes = call.input.flags(1)? != 0;
        Ok(Reply::Done)
    }

    fn state_change_requested_notify(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        one.tells_requests = call.input.flags(1)? != 0;
        Ok(Reply::Done)
    }

    fn name_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        name(&one.spec.name, &mut call.out)
    }
}

impl Protocol for Power {
    const VERSION: u32 = 0x3_0001;
    const COMMANDS: &'static [Command<Self>] = &[
        Command::new(0x3, 4, Self::attributes_get),
        Command::new(0x4, 12, Self::state_set),
        Command::new(0x5, 4, Self::state_get),
        Command::new(0x6, 8, Self::state_notify).for_events(),
        Command::new(0x7, 8, Self::state_change_requested_notify).for_events(),
        Command::new(0x8, 4, Self::name_get),
    ];

    fn attributes(&self, _: bool, out: &mut Writer<'_>) -> Result<(), Status> {
        out.word(count(&self.list))?;
        no_statistics(out)
    }

    /// States stay: turning a domain off is for whoever uses it.
    fn forget(&mut self) {
        for one in &mut self.list {
            one.tells_changes = false;
            one.tells_requests = false;
        }
    }
}
