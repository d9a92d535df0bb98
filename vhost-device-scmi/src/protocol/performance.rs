//! The performance domain management protocol (DEN0056, section 4.5), on simulated domains and on the host's.
//!
//! A level is a frequency in kilohertz. A domain has one only within the limits that the agent set.

use super::{
    Answer, Call, Command, Operation, Protocol, Purpose, Reply, Slot, Wait, bit, count, counts,
    domain, name, no_statistics, page,
};
use crate::name::Name;
use crate::outbox::Outbox;
use crate::quantity::Values;
use crate::wire::{Status, Writer, protocol};

const LIMITS_CHANGED: u8 = 0;
const LEVEL_CHANGED: u8 = 1;

/// Power is told in milliwatts, in the protocol's attributes.
const MILLIWATTS: u32 = 1 << 16;
const LEVEL_BYTES: usize = 20;

/// One level of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Kilohertz.
    pub level: u32,
    /// Milliwatts; 0 if not known.
    pub power: u32,
    /// Microseconds until it is reached; 0 if not known.
    pub latency: u16,
}

/// What the level is kept within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The highest level.
    pub max: u32,
    /// The lowest level.
    pub min: u32,
}

impl Limits {
    fn contains(self, level: u32) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

/// What a performance domain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerformanceDomain {
    /// What it is called.
    pub name: Name,
    /// The levels to choose from, the lowest first; at least one.
    pub levels: Vec<Level>,
    /// The level at first, and the one that can be sustained.
    pub sustained: u32,
    /// The agent may not change it.
    pub is_fixed: bool,
    /// The host's place that gives level, lowest and highest level, and takes the latter two; without one it is simulated.
    pub host: Option<Slot>,
}

#[derive(Debug)]
struct State {
    spec: PerformanceDomain,
    /// The lowest and the highest level.
    range: Limits,
    limits: Limits,
    level: u32,
    tells_limits: bool,
    tells_level: bool,
}

impl State {
    fn new(spec: PerformanceDomain) -> Self {
        let level = |level: Option<&Level>| level.map_or(spec.sustained, |level| level.level);
        let range = Limits {
            max: level(spec.levels.last()),
            min: level(spec.levels.first()),
        };
        Self {
            range,
            limits: range,
            level: spec.sustained,
            tells_limits: false,
            tells_level: false,
            spec,
        }
    }

    fn change_limits(&mut self, number: usize, limits: Limits, outbox: &mut Outbox) {
        let has_changed = self.limits != limits;
        self.limits = limits;
        if has_changed && self.tells_limits {
            outbox.notify(protocol::PERFORMANCE, LIMITS_CHANGED, number, |out| {
                out.word(number as u32)?;
                out.word(limits.max)?;
                out.word(limits.min)
            });
        }
    }

    fn change_level(&mut self, number: usize, level: u32, outbox: &mut Outbox) {
        let has_changed = self.level != level;
        self.level = level;
        if has_changed && self.tells_level {
            outbox.notify(protocol::PERFORMANCE, LEVEL_CHANGED, number, |out| {
                out.word(number as u32)?;
                out.word(level)
            });
        }
    }

    /// The level of the table within the limits that is nearest to the present one.
    fn level_within(&self, limits: Limits) -> Option<u32> {
        let levels = self.spec.levels.iter().map(|level| level.level);
        levels
            .filter(|level| limits.contains(*level))
            .min_by_key(|level| level.abs_diff(self.level))
    }
}

/// The performance protocol.
#[derive(Debug)]
pub struct Performance {
    list: Vec<State>,
}

impl Performance {
    /// A platform with these domains.
    pub fn new(domains: Vec<PerformanceDomain>) -> Self {
        Self {
            list: domains.into_iter().map(State::new).collect(),
        }
    }

    fn attributes_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let spec = &one.spec;
        let attributes = bit(31, !spec.is_fixed)
            | bit(30, !spec.is_fixed)
            | bit(29, call.events)
            | bit(28, call.events)
            | bit(26, spec.name.is_long());
        call.out.word(attributes)?;
        // no limit on how often it is changed
        call.out.word(0)?;
        call.out.word(spec.sustained)?;
        call.out.word(spec.sustained)?;
        call.out.bytes(&spec.name.short())?;
        Ok(Reply::Done)
    }

    fn describe_levels(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let levels = &one.spec.levels;
        let first = call.input.word()?;
        let (told, remaining) = page(levels.len(), first, &call.out, 4, LEVEL_BYTES)?;
        call.out.word(counts(&told, remaining))?;
        for (index, level) in levels.iter().enumerate().take(told.end).skip(told.start) {
            call.out.word(level.level)?;
            call.out.word(level.power)?;
            call.out.word(level.latency.into())?;
            // the frequency in kilohertz, and the index for domains whose levels are set by index
            call.out.word(level.level)?;
            call.out.word(u32::try_from(index).unwrap_or(u32::MAX))?;
        }
        Ok(Reply::Done)
    }

    fn limits_set(&mut self, call: &mut Call<'_>) -> Answer {
        let (number, one) = domain(&mut self.list, &mut call.input)?;
        let limits = Limits {
            max: call.input.word()?,
            min: call.input.word()?,
        };
        if one.spec.is_fixed {
            return Err(Status::Denied);
        }
        if limits.min > limits.max || limits.max == 0 {
            return Err(Status::InvalidParameters);
        }
        if !one.range.contains(limits.min) || !one.range.contains(limits.max) {
            return Err(Status::OutOfRange);
        }
        let level = one.level_within(limits).ok_or(Status::OutOfRange)?;
        if let Some(slot) = one.spec.host {
            return write(call, slot, limits, Purpose::LimitsSet(number, limits));
        }
        one.change_limits(number, limits, call.outbox);
        one.change_level(number, level, call.outbox);
        Ok(Reply::Done)
    }

    fn limits_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (number, one) = domain(&mut self.list, &mut call.input)?;
        if let Some(slot) = one.spec.host {
            return read(call, slot, Purpose::Limits(number));
        }
        call.out.word(one.limits.max)?;
        call.out.word(one.limits.min)?;
        Ok(Reply::Done)
    }

    fn level_set(&mut self, call: &mut Call<'_>) -> Answer {
        let (number, one) = domain(&mut self.list, &mut call.input)?;
        let level = call.input.word()?;
        if one.spec.is_fixed {
            return Err(Status::Denied);
        }
        let is_known = one.spec.levels.iter().any(|known| known.level == level);
        if !is_known || !one.limits.contains(level) {
            return Err(Status::OutOfRange);
        }
        if let Some(slot) = one.spec.host {
            let exactly = Limits {
                max: level,
                min: level,
            };
            return write(call, slot, exactly, Purpose::LevelSet(number, level));
        }
        one.change_level(number, level, call.outbox);
        Ok(Reply::Done)
    }

    fn level_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (number, one) = domain(&mut self.list, &mut call.input)?;
        if let Some(slot) = one.spec.host {
            return read(call, slot, Purpose::Level(number));
        }
        call.out.word(one.level)?;
        Ok(Reply::Done)
    }

    fn notify_limits(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        one.tells_limits = call.input.flags(1)? != 0;
        Ok(Reply::Done)
    }

    fn notify_level(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        one.tells_level = call.input.flags(1)? != 0;
        Ok(Reply::Done)
    }

    fn name_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        name(&one.spec.name, &mut call.out)
    }

    /// The host wrote limits.
    pub fn limits_are_set(&mut self, number: usize, limits: Limits, outbox: &mut Outbox) {
        if let Some(one) = self.list.get_mut(number) {
            one.change_limits(number, limits, outbox);
        }
    }

    /// The host wrote a level.
    pub fn level_is_set(&mut self, number: usize, level: u32, outbox: &mut Outbox) {
        if let Some(one) = self.list.get_mut(number) {
            one.change_level(number, level, outbox);
        }
    }
}

fn read(call: &mut Call<'_>, slot: Slot, purpose: Purpose) -> Answer {
    let number = call.hosts.ask(slot, Operation::Read)?;
    Ok(Reply::Wait(Wait {
        slot,
        number,
        purpose,
    }))
}

fn write(call: &mut Call<'_>, slot: Slot, limits: Limits, purpose: Purpose) -> Answer {
    let values: Values = [limits.min, limits.max]
        .into_iter()
        .map(i64::from)
        .collect();
    let number = call.hosts.ask(slot, Operation::Write(values))?;
    Ok(Reply::Wait(Wait {
        slot,
        number,
        purpose,
    }))
}

/// Writes what the host read: level, lowest and highest level.
///
/// # Errors
/// If the host gave something else, or there is no room.
pub fn write_level(values: &Values, out: &mut Writer<'_>) -> Result<(), Status> {
    let [level, ..] = values.numbers() else {
        return Err(Status::HardwareError);
    };
    out.word(u32::try_from(*level).map_err(|_| Status::HardwareError)?)
}

/// As [`write_level`], for the limits.
///
/// # Errors
/// As [`write_level`].
pub fn write_limits(values: &Values, out: &mut Writer<'_>) -> Result<(), Status> {
    let [_, min, max] = values.numbers() else {
        return Err(Status::HardwareError);
    };
    out.word(u32::try_from(*max).map_err(|_| Status::HardwareError)?)?;
    out.word(u32::try_from(*min).map_err(|_| Status::HardwareError)?)
}

impl Protocol for Performance {
    const VERSION: u32 = 0x4_0000;
    const COMMANDS: &'static [Command<Self>] = &[
        Command::new(0x3, 4, Self::attributes_get),
        Command::new(0x4, 8, Self::describe_levels),
        Command::new(0x5, 12, Self::limits_set),
        Command::new(0x6, 4, Self::limits_get),
        Command::new(0x7, 8, Self::level_set),
        Command::new(0x8, 4, Self::level_get),
        Command::new(0x9, 8, Self::notify_limits).for_events(),
        Command::new(0xa, 8, Self::notify_level).for_events(),
        Command::new(0xc, 4, Self::name_get),
    ];

    fn attributes(&self, _: bool, out: &mut Writer<'_>) -> Result<(), Status> {
        out.word(count(&self.list) | MILLIWATTS)?;
        no_statistics(out)
    }

    /// Levels stay, but limits go: they were this agent's.
    fn forget(&mut self) {
        for one in &mut self.list {
            one.tells_limits = false;
            one.tells_level = false;
            one.limits = one.range;
        }
    }
}
