//! The voltage domain management protocol (DEN0056, section 4.9), on simulated regulators.

use std::time::Duration;

use super::{Answer, Call, Command, Protocol, Reply, bit, count, counts, domain, name, page};
use crate::name::Name;
use crate::schedule::{Job, Later};
use crate::wire::{Status, Writer};

/// Modes of a domain: the architecture's off and on.
mod mode {
    pub const OFF: u32 = 0;
    pub const ON: u32 = 7;
}

const ASYNCHRONOUS: u32 = 1;
/// The levels are the lowest, the highest and the step.
const SEGMENTED: u32 = 1 << 12;

/// The levels of a regulator, in microvolts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Levels {
    /// These, the lowest first.
    List(Vec<i32>),
    /// From the first to the second, in steps of the third.
    Range(i32, i32, i32),
}

impl Levels {
    /// Whether a level is one of them.
    pub fn contains(&self, level: i32) -> bool {
        match self {
            Self::List(levels) => levels.contains(&level),
            Self::Range(low, high, step) => {
                let above = i64::from(level) - i64::from(*low);
                (*low..=*high).contains(&level) && above % i64::from((*step).max(1)) == 0
            }
        }
    }

    /// The lowest.
    pub fn lowest(&self) -> i32 {
        match self {
            Self::List(levels) => levels.first().copied().unwrap_or_default(),
            Self::Range(low, ..) => *low,
        }
    }
}

/// What a voltage domain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoltageDomain {
    /// What it is called.
    pub name: Name,
    /// The levels to choose from.
    pub levels: Levels,
    /// The level at first.
    pub level: i32,
    /// Whether it is on at first.
    pub is_on: bool,
    /// The agent may not change it.
    pub is_fixed: bool,
    /// Changes can be asynchronous, and take this long then.
    pub delay: Option<Duration>,
}

#[derive(Debug)]
struct State {
    spec: VoltageDomain,
    mode: u32,
    level: i32,
}

/// The voltage protocol.
#[derive(Debug)]
pub struct Voltages {
    list: Vec<State>,
}

impl Voltages {
    /// A platform with these domains.
    pub fn new(domains: Vec<VoltageDomain>) -> Self {
        let states = domains.into_iter().map(|spec| State {
            mode: if spec.is_on { mode::ON } else { mode::OFF },
            level: spec.level,
            spec,
        });
        Self {
            list: states.collect(),
        }
    }

    fn attributes_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let is_asynchronous = call.events && one.spec.delay.is_some();
        call.out
            .word(bit(31, is_asynchronous) | bit(30, one.spec.name.is_long()))?;
        call.out.bytes(&one.spec.name.short())?;
        Ok(Reply::Done)
    }

    fn describe_levels(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let first = call.input.word()?;
        let range;
        let (levels, flag) = match &one.spec.levels {
            Levels::List(levels) => (levels.as_slice(), 0),
            Levels::Range(low, high, step) => {
                range = [*low, *high, *step];
                // the three belong together
                if first != 0 {
                    return Err(Status::OutOfRange);
                }
                if call.out.room() < 4 + size_of_val(&range) {
                    return Err(Status::ProtocolError);
                }
                (range.as_slice(), SEGMENTED)
            }
        };
        let (told, remaining) = page(levels.len(), first, &call.out, 4, 4)?;
        call.out.word(counts(&told, remaining) | flag)?;
        for level in levels.get(told).unwrap_or_default() {
            call.out.signed(*level)?;
        }
        Ok(Reply::Done)
    }

    fn config_set(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        let mode = call.input.word()?;
        if !matches!(mode, mode::OFF | mode::ON) {
            return Err(Status::InvalidParameters);
        }
        if one.spec.is_fixed && mode != one.mode {
            return Err(Status::Denied);
        }
        one.mode = mode;
        Ok(Reply::Done)
    }

    fn config_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        call.out.word(one.mode)?;
        Ok(Reply::Done)
    }

    fn level_set(&mut self, call: &mut Call<'_>) -> Answer {
        let (number, one) = domain(&mut self.list, &mut call.input)?;
        let is_asynchronous = call.input.flags(ASYNCHRONOUS)? != 0;
        let level = call.input.word()? as i32;
        if !one.spec.levels.contains(level) {
            return Err(Status::OutOfRange);
        }
        if one.spec.is_fixed && level != one.level {
            return Err(Status::Denied);
        }
        if is_asynchronous {
            let delay = one.spec.delay.filter(|_| call.events);
            call.schedule.add(Later {
                due: call.now.saturating_add(delay.ok_or(Status::NotSupported)?),
                header: call.header,
                job: Job::VoltageLevel {
                    domain: number,
                    level,
                },
                is_told: true,
            })?;
        } else {
            one.level = level;
        }
        Ok(Reply::Done)
    }

    /// Changes the level of a domain.
    pub fn set(&mut self, number: usize, level: i32) {
        if let Some(one) = self.list.get_mut(number) {
            one.level = level;
        }
    }

    fn level_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        call.out.signed(one.level)?;
        Ok(Reply::Done)
    }

    fn name_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, one) = domain(&mut self.list, &mut call.input)?;
        name(&one.spec.name, &mut call.out)
    }
}

impl Protocol for Voltages {
    const VERSION: u32 = 0x2_0001;
    const COMMANDS: &'static [Command<Self>] = &[
        Command::new(0x3, 4, Self::attributes_get),
        Command::new(0x4, 8, Self::describe_levels),
        Command::new(0x5, 8, Self::config_set),
        Command::new(0x6, 4, Self::config_get),
        Command::new(0x7, 12, Self::level_set),
        Command::new(0x8, 4, Self::level_get),
        Command::new(0x9, 4, Self::name_get),
    ];

    fn attributes(&self, _: bool, out: &mut Writer<'_>) -> Result<(), Status> {
        out.word(count(&self.list))
    }
}
