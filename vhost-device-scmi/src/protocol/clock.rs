//! The clock management protocol (DEN0056, section 4.6), on simulated clocks.

use std::time::Duration;

use super::{Answer, Call, Command, Protocol, Reply, bit, count, counts, domain, name, page};
use crate::name::Name;
use crate::outbox::{MAX_DELAYED, Outbox};
use crate::schedule::{Job, Later};
use crate::wire::{Status, Writer, protocol};

const RATE_CHANGED: u8 = 0;
const RATE_CHANGE_REQUESTED: u8 = 1;

/// Flags of CLOCK_RATE_SET.
mod flag {
    pub const ASYNCHRONOUS: u32 = 1 << 0;
    pub const NO_RESPONSE: u32 = 1 << 1;
    pub const ROUND_UP: u32 = 1 << 2;
    pub const ROUND_NEAREST: u32 = 1 << 3;
    pub const ALL: u32 = ASYNCHRONOUS | NO_RESPONSE | ROUND_UP | ROUND_NEAREST;
}

/// What CLOCK_CONFIG_SET does to the state, in bits 0 and 1.
mod state {
    pub const DISABLE: u32 = 0;
    pub const ENABLE: u32 = 1;
    pub const UNCHANGED: u32 = 3;
}

/// The rates are the lowest, the highest and the step.
const RANGE: u32 = 1 << 12;

/// The rates of a clock, in hertz.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rates {
    /// These, the lowest first.
    List(Vec<u64>),
    /// From the first to the second, in steps of the third.
    Range(u64, u64, u64),
}

impl Rates {
    /// The rate nearest to `wanted` that is not above it, and the one that is not below it.
    fn around(&self, wanted: u64) -> (Option<u64>, Option<u64>) {
        match self {
            Self::List(rates) => {
                let below = rates.iter().rev().find(|rate| **rate <= wanted);
                let above = rates.iter().find(|rate| **rate >= wanted);
                (below.copied(), above.copied())
            }
            Self::Range(low, high, step) => {
                let step = (*step).max(1);
                let down = |rate: u64| rate - (rate - low) % step;
                let below = (wanted >= *low).then(|| down(wanted.min(*high)));
                let above = match below {
                    None => Some(*low),
                    Some(rate) if rate == wanted => Some(rate),
                    Some(rate) => rate.checked_add(step).filter(|rate| rate <= high),
                };
                (below, above.filter(|rate| *rate >= wanted))
            }
        }
    }

    /// The rate that is set for `wanted`, rounded as `flags` say.
    fn choose(&self, wanted: u64, flags: u32) -> Option<u64> {
        let (below, above) = self.around(wanted);
        if flags & flag::ROUND_NEAREST != 0 {
            match (below, above) {
                (Some(below), Some(above)) if above - wanted < wanted - below => Some(above),
                (below, above) => below.or(above),
            }
        } else if flags & flag::ROUND_UP != 0 {
            above
        } else {
            below
        }
    }

    /// Whether the clock can have this rate.
    pub fn contains(&self, rate: u64) -> bool {
        self.around(rate) == (Some(rate), Some(rate))
    }

    /// The lowest.
    pub fn lowest(&self) -> u64 {
        match self {
            Self::List(rates) => rates.first().copied().unwrap_or_default(),
            Self::Range(low, ..) => *low,
        }
    }
}

/// What an agent may do to a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Turn it on and off.
    pub state: bool,
    /// Choose another parent.
    pub parent: bool,
    /// Set its rate.
    pub rate: bool,
}

impl Permissions {
    /// Everything.
    pub const ALL: Self = Self {
        state: true,
        parent: true,
        rate: true,
    };
}

/// What a clock is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What it is called.
    pub name: Name,
    /// The rates to choose from.
    pub rates: Rates,
    /// The rate at first.
    pub rate: u64,
    /// Whether it runs at first.
    pub is_on: bool,
    /// The clocks that it can be derived from, by number; the first one is in use at first.
    pub parents: Vec<u32>,
    /// What an agent may do.
    pub allowed: Permissions,
    /// Rates can be set asynchronously, which takes this long then.
    pub delay: Option<Duration>,
}

#[derive(Debug)]
struct State {
    spec: Clock,
    rate: u64,
    is_on: bool,
    parent: u32,
    tells_changes: bool,
    tells_requests: bool,
}

impl State {
    fn new(spec: Clock) -> Self {
        Self {
            rate: spec.rate,
            is_on: spec.is_on,
            parent: spec.parents.first().copied().unwrap_or_default(),
            tells_changes: false,
            tells_requests: false,
            spec,
        }
    }
}

/// The clock protocol.
#[derive(Debug)]
pub struct Clocks {
    list: Vec<State>,
}

impl Clocks {
    /// A platform with these clocks.
    pub fn new(clocks: Vec<Clock>) -> Self {
        Self {
            list: clocks.into_iter().map(State::new).collect(),
        }
    }

    fn attributes_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let spec = &one.spec;
        let attributes = bit(31, call.events)
            | bit(30, call.events)
            | bit(29, spec.name.is_long())
            | bit(28, !spec.parents.is_empty())
            | bit(1, spec.allowed != Permissions::ALL)
            | bit(0, one.is_on);
        call.out.word(attributes)?;
        call.out.bytes(&spec.name.short())?;
        // how long it takes to turn it on: not known
        call.out.word(0)?;
        Ok(Reply::Done)
    }

    fn describe_rates(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let first = call.input.word()?;
        let range;
        let (rates, flag) = match &one.spec.rates {
            Rates::List(rates) => (rates.as_slice(), 0),
            Rates::Range(low, high, step) => {
                range = [*low, *high, *step];
                // the three belong together
                if first != 0 {
                    return Err(Status::OutOfRange);
                }
                if call.out.room() < 4 + size_of_val(&range) {
                    return Err(Status::ProtocolError);
                }
                (range.as_slice(), RANGE)
            }
        };
        let (told, remaining) = page(rates.len(), first, &call.out, 4, 8)?;
        call.out.word(counts(&told, remaining) | flag)?;
        for rate in rates.get(told).unwrap_or_default() {
            call.out.double(*rate)?;
        }
        Ok(Reply::Done)
    }

    fn rate_set(&mut self, call: &mut Call<'_>) -> Answer {
        let flags = call.input.flags(flag::ALL)?;
        let (number, one) = domain(&mut self.list, &mut call.input)?;
        let wanted = call.input.double()?;
        if one.tells_requests {
            tell(RATE_CHANGE_REQUESTED, number, wanted, call.outbox);
        }
        if !one.spec.allowed.rate {
            return Err(Status::Denied);
        }
        let rate = one.spec.rates.choose(wanted, flags);
        let rate = rate.ok_or(Status::InvalidParameters)?;
        if flags & flag::ASYNCHRONOUS != 0 {
            let delay = one.spec.delay.filter(|_| call.events);
            call.schedule.add(Later {
                due: call.now.saturating_add(delay.ok_or(Status::NotSupported)?),
                header: call.header,
                job: Job::ClockRate {
                    clock: number,
                    rate,
                },
                is_told: flags & flag::NO_RESPONSE == 0,
            })?;
        } else {
            self.set(number, rate, call.outbox);
        }
        Ok(Reply::Done)
    }

    /// Changes the rate of a clock.
    pub fn set(&mut self, number: usize, rate: u64, outbox: &mut Outbox) {
        let Some(one) = self.list.get_mut(number) else {
            return;
        };
        let has_changed = one.rate != rate;
        one.rate = rate;
        if has_changed && one.tells_changes {
            tell(RATE_CHANGED, number, rate, outbox);
        }
    }

    fn rate_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        call.out.double(one.rate)?;
        Ok(Reply::Done)
    }

    /// Extended configurations, which there are none of, have their type in bits 16 to 23. Agents of version 2 send no value
    /// for one.
    fn config_set(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let attributes = call.input.flags(0x00ff_0003)?;
        if attributes >> 16 != 0 {
            return Err(Status::NotSupported);
        }
        let is_on = match attributes {
            state::DISABLE => false,
            state::ENABLE => true,
            state::UNCHANGED => one.is_on,
            _ => return Err(Status::InvalidParameters),
        };
        if !one.spec.allowed.state && is_on != one.is_on {
            return Err(Status::Denied);
        }
        one.is_on = is_on;
        Ok(Reply::Done)
    }

    fn config_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        if call.input.flags(0xff)? != 0 {
            return Err(Status::NotSupported);
        }
        call.out.word(0)?;
        call.out.word(bit(0, one.is_on))?;
        call.out.word(0)?;
        Ok(Reply::Done)
    }

    fn name_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        name(&one.spec.name, &mut call.out)
    }

    fn rate_notify(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        one.tells_changes = call.input.flags(1)? != 0;
        Ok(Reply::Done)
    }

    fn rate_change_requested_notify(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        one.tells_requests = call.input.flags(1)? != 0;
        Ok(Reply::Done)
    }

    fn possible_parents_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let parents = &one.spec.parents;
        if parents.is_empty() {
            return Err(Status::NotSupported);
        }
        let first = call.input.word()?;
        let (told, remaining) = page(parents.len(), first, &call.out, 4, 4)?;
        // both numbers have eight bits; the configuration allows no more
        let returned = u32::try_from(told.len()).unwrap_or(0);
        call.out.word(returned & 0xff | remaining << 24)?;
        for parent in parents.get(told).unwrap_or_default() {
            call.out.word(*parent)?;
        }
        Ok(Reply::Done)
    }

    fn parent_set(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let parent = call.input.word()?;
        if one.spec.parents.is_empty() {
            return Err(Status::NotSupported);
        }
        if !one.spec.parents.contains(&parent) {
            return Err(Status::InvalidParameters);
        }
        if !one.spec.allowed.parent && parent != one.parent {
            return Err(Status::Denied);
        }
        one.parent = parent;
        Ok(Reply::Done)
    }

    fn parent_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        if one.spec.parents.is_empty() {
            return Err(Status::NotSupported);
        }
        call.out.word(one.parent)?;
        Ok(Reply::Done)
    }

    fn permissions_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let allowed = one.spec.allowed;
        call.out
            .word(bit(31, allowed.state) | bit(30, allowed.parent) | bit(29, allowed.rate))?;
        Ok(Reply::Done)
    }
}

fn tell(message: u8, number: usize, rate: u64, outbox: &mut Outbox) {
    outbox.notify(protocol::CLOCK, message, number, |out| {
        out.word(number as u32)?;
        out.double(rate)
    });
}

impl Protocol for Clocks {
    const VERSION: u32 = 0x3_0000;
    const COMMANDS: &'static [Command<Self>] = &[
        Command::new(0x3, 4, Self::attributes_get),
        Command::new(0x4, 8, Self::describe_rates),
        Command::new(0x5, 16, Self::rate_set),
        Command::new(0x6, 4, Self::rate_get),
        Command::new(0x7, 12, Self::config_set).or_shorter(8),
        Command::new(0x8, 4, Self::name_get),
        Command::new(0x9, 8, Self::rate_notify).for_events(),
        Command::new(0xa, 8, Self::rate_change_requested_notify).for_events(),
        Command::new(0xb, 8, Self::config_get),
        Command::new(0xc, 8, Self::possible_parents_get),
        Command::new(0xd, 8, Self::parent_set),
        Command::new(0xe, 4, Self::parent_get),
        Command::new(0xf, 4, Self::permissions_get),
    ];

    fn attributes(&self, events: bool, out: &mut Writer<'_>) -> Result<(), Status> {
        // An agent that sees a number here may set every clock asynchronously (Linux does).
        let is_asynchronous =
            events && !self.list.is_empty() && self.list.iter().all(|one| one.spec.delay.is_some());
        let outstanding = if is_asynchronous {
            MAX_DELAYED as u32
        } else {
            0
        };
        out.word(count(&self.list) | outstanding << 16)
    }

    /// Rates and states stay: turning a clock off is for whoever uses it.
    fn forget(&mut self) {
        for one in &mut self.list {
            one.tells_changes = false;
            one.tells_requests = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_rounded_as_asked() {
        let list = Rates::List(vec![100, 200, 400]);
        let range = Rates::Range(100, 400, 100);
        for rates in [&list, &range] {
            let table = [
                (200, 0, Some(200)),
                (200, flag::ROUND_UP, Some(200)),
                (199, 0, Some(100)),
                (101, flag::ROUND_UP, Some(200)),
                (149, flag::ROUND_NEAREST, Some(100)),
                (151, flag::ROUND_NEAREST, Some(200)),
                (99, 0, None),
                (99, flag::ROUND_UP, Some(100)),
                (99, flag::ROUND_NEAREST, Some(100)),
                (401, 0, Some(400)),
                (401, flag::ROUND_UP, None),
                (u64::MAX, flag::ROUND_NEAREST, Some(400)),
            ];
            for (wanted, flags, expected) in table {
                assert_eq!(
                    rates.choose(wanted, flags),
                    expected,
                    "{rates:?} {wanted} {flags}"
                );
            }
        }
        assert!(list.contains(400) && range.contains(300));
        assert!(!list.contains(300) && !range.contains(301));
    }

    proptest! {
        #[test]
        fn a_chosen_rate_is_one_of_the_clock(low: u64, length: u64, step: u64, wanted: u64, flags in 0u32..16) {
            let high = low.saturating_add(length);
            let rates = Rates::Range(low, high, step);
            if let Some(rate) = rates.choose(wanted, flags) {
                prop_assert!(rates.contains(rate));
            }
        }
    }
}
