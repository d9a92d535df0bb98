//! How chips are written on the command line.
//!
//! ```text
//! CHIP    = HOST | SIM
//! HOST    = ( NUMBER | PATH | NAME | LABEL ) [ "[" LINES "]" ]
//! LINES   = RANGE { "," RANGE }          RANGE = OFFSET [ "-" OFFSET ]
//! SIM     = ( "s" NUMBER | "sim" ) { "," SETTING }
//! SETTING = "lines=" NUMBER | "names=" NAME { "/" NAME } | "wire=" OUTPUT "-" INPUT
//!         | "delay=" MICROSECONDS | "control=" PATH
//! ```

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::config::{ChipId, ChipSpec, HostSpec, MAX_LINES, SimSpec};
use crate::names;

/// Lines of a simulated chip unless it is said.
const SIM_LINES: u16 = 8;

/// Longest time for one access to a simulated chip. The engine gives a worker up much earlier.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// A chip that cannot be read from the text given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Nothing where a chip should be.
    #[error("no chip is given")]
    Empty,
    /// Not a number, or too large a one.
    #[error("{0:?} is not a number of lines from 1 to {MAX_LINES}")]
    Count(String),
    /// Not an offset of a line.
    #[error("{0:?} is not a line below {MAX_LINES}")]
    Offset(String),
    /// A list of lines that is not closed, or is followed by something.
    #[error("{0:?}: a list of lines is written as [3,5-9] at the end")]
    Brackets(String),
    /// A range from high to low.
    #[error("the range {0} goes backwards")]
    Backwards(String),
    /// The same line twice.
    #[error("line {0} is listed twice")]
    Twice(u16),
    /// A setting that simulated chips do not have.
    #[error("{0:?} is not a setting of a simulated chip (lines=, names=, wire=, delay=, control=)")]
    Setting(String),
    /// A wire that is not two lines of the chip.
    #[error("the wire {0:?} is not OUTPUT-INPUT, two lines of the chip")]
    Wire(String),
    /// A second wire to one input.
    #[error("line {0} has two wires that drive it")]
    Driven(u16),
    /// More names than lines.
    #[error("there are more names than lines")]
    Names,
    /// A name that a guest could not be told, or two equal ones.
    #[error("the name {0:?} is not plain ASCII, or is given twice")]
    Name(String),
    /// Not a time.
    #[error("the delay {0:?} is not a number of microseconds up to a minute")]
    Delay(String),
}

impl FromStr for ChipSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (head, settings) = match text.split_once(',') {
            Some((head, settings)) => (head, Some(settings)),
            None => (text, None),
        };
        match sim_lines(head) {
            Some(lines) => Ok(Self::Sim(sim(lines?, settings)?)),
            None => host(text).map(Self::Host),
        }
    }
}

/// The number of lines if this begins a simulated chip.
fn sim_lines(head: &str) -> Option<Result<u16, SpecError>> {
    if head == "sim" {
        return Some(Ok(SIM_LINES));
    }
    let digits = head.strip_prefix('s')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| count(digits))
}

fn count(text: &str) -> Result<u16, SpecError> {
    number(text)
        .filter(|count| (1..=MAX_LINES).contains(count))
        .ok_or_else(|| SpecError::Count(text.into()))
}

fn offset(text: &str) -> Result<u16, SpecError> {
    number(text)
        .filter(|offset| *offset < MAX_LINES)
        .ok_or_else(|| SpecError::Offset(text.into()))
}

/// A number of digits only: `parse` would take a sign too.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn sim(lines: u16, settings: Option<&str>) -> Result<SimSpec, SpecError> {
    let mut spec = SimSpec {
        lines,
        ..SimSpec::default()
    };
    let mut wires = Vec::new();
    for setting in settings.into_iter().flat_map(|text| text.split(',')) {
        let unknown = || SpecError::Setting(setting.into());
        let (key, value) = setting.split_once('=').ok_or_else(unknown)?;
        match key {
            "lines" => spec.lines = count(value)?,
            "names" => spec.names = value.split('/').map(str::to_owned).collect(),
            "wire" => wires.push(value),
            "delay" => spec.delay = delay(value)?,
            "control" if !value.is_empty() => spec.control = Some(value.into()),
            _ => return Err(unknown()),
        }
    }
    check_names(&spec)?;
    spec.wires = read_wires(&wires, spec.lines)?;
    Ok(spec)
}

fn delay(text: &str) -> Result<Duration, SpecError> {
    text.parse()
        .map(Duration::from_micros)
        .ok()
        .filter(|delay| *delay <= MAX_DELAY)
        .ok_or_else(|| SpecError::Delay(text.into()))
}

fn check_names(spec: &SimSpec) -> Result<(), SpecError> {
    if spec.names.len() > usize::from(spec.lines) {
        return Err(SpecError::Names);
    }
    let mut wrong = None;
    names::block(&spec.names, |_, name, _| wrong = Some(name.to_owned()));
    wrong.map_or(Ok(()), |name| Err(SpecError::Name(name)))
}

fn read_wires(texts: &[&str], lines: u16) -> Result<Vec<(u16, u16)>, SpecError> {
    let mut wires: Vec<(u16, u16)> = Vec::new();
    for text in texts {
        let wire = text
            .split_once('-')
            .and_then(|(output, input)| Some((number(output)?, number(input)?)))
            .filter(|(output, input)| output != input && *output < lines && *input < lines)
            .ok_or_else(|| SpecError::Wire((*text).into()))?;
        if wires.iter().any(|(_, input)| *input == wire.1) {
            return Err(SpecError::Driven(wire.1));
        }
        wires.push(wire);
    }
    Ok(wires)
}

fn host(text: &str) -> Result<HostSpec, SpecError> {
    let brackets = || SpecError::Brackets(text.into());
    let (chip, lines) = match text.split_once('[') {
        None if text.contains([']', ',']) => return Err(brackets()),
        None => (text, None),
        Some((chip, rest)) => {
            let list = rest.strip_suffix(']').ok_or_else(brackets)?;
            (chip, Some(ranges(list)?))
        }
    };
    let chip = match chip {
        "" => return Err(SpecError::Empty),
        path if path.contains('/') => ChipId::Path(path.into()),
        name => match name.parse() {
            Ok(number) if name.bytes().all(|byte| byte.is_ascii_digit()) => ChipId::Number(number),
            _ => ChipId::Name(name.into()),
        },
    };
    Ok(HostSpec { chip, lines })
}

fn ranges(list: &str) -> Result<Vec<u16>, SpecError> {
    let mut lines = Vec::new();
    for range in list.split(',') {
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (offset(first)?, offset(last)?),
            None => (offset(range)?, offset(range)?),
        };
        if first > last {
            return Err(SpecError::Backwards(range.into()));
        }
        for line in first..=last {
            if lines.contains(&line) {
                return Err(SpecError::Twice(line));
            }
            lines.push(line);
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host_spec(chip: ChipId, lines: Option<&[u16]>) -> ChipSpec {
        ChipSpec::Host(HostSpec {
            chip,
            lines: lines.map(<[u16]>::to_vec),
        })
    }

    fn sim_spec(lines: u16) -> SimSpec {
        SimSpec {
            lines,
            ..SimSpec::default()
        }
    }

    #[test]
    fn chips_are_read_as_documented() {
        let name = |name: &str| ChipId::Name(name.into());
        let table = [
            ("0", host_spec(ChipId::Number(0), None)),
            ("12", host_spec(ChipId::Number(12), None)),
            ("gpiochip2", host_spec(name("gpiochip2"), None)),
            ("pinctrl-bcm", host_spec(name("pinctrl-bcm"), None)),
            ("INT34C5:00", host_spec(name("INT34C5:00"), None)),
            ("sensor", host_spec(name("sensor"), None)),
            ("./s8", host_spec(ChipId::Path("./s8".into()), None)),
            (
                "/dev/gpiochip1[4]",
                host_spec(ChipId::Path("/dev/gpiochip1".into()), Some(&[4])),
            ),
            (
                "gpiochip0[3,5-9]",
                host_spec(name("gpiochip0"), Some(&[3, 5, 6, 7, 8, 9])),
            ),
            ("0[9,2-2]", host_spec(ChipId::Number(0), Some(&[9, 2]))),
            ("s4", ChipSpec::Sim(sim_spec(4))),
            ("s1024", ChipSpec::Sim(sim_spec(1024))),
            ("sim", ChipSpec::Sim(sim_spec(8))),
            (
                "sim,lines=3,names=led//button,wire=0-2,wire=0-1,delay=1500,control=/run/c",
                ChipSpec::Sim(SimSpec {
                    lines: 3,
                    names: vec!["led".into(), String::new(), "button".into()],
                    wires: vec![(0, 2), (0, 1)],
                    delay: Duration::from_micros(1500),
                    control: Some("/run/c".into()),
                }),
            ),
            (
                "s2,wire=1-0",
                ChipSpec::Sim(SimSpec {
                    wires: vec![(1, 0)],
                    ..sim_spec(2)
                }),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn mistakes_are_told_apart() {
        use SpecError as E;
        let table = [
            ("", E::Empty),
            ("[1]", E::Empty),
            ("s0", E::Count("0".into())),
            ("s1025", E::Count("1025".into())),
            ("s99999999999", E::Count("99999999999".into())),
            ("sim,lines=", E::Count(String::new())),
            ("0[]", E::Offset(String::new())),
            ("0[1,]", E::Offset(String::new())),
            ("0[+1]", E::Offset("+1".into())),
            ("0[1024]", E::Offset("1024".into())),
            ("0[1", E::Brackets("0[1".into())),
            ("0[1]x", E::Brackets("0[1]x".into())),
            ("0,1", E::Brackets("0,1".into())),
            ("0[5-3]", E::Backwards("5-3".into())),
            ("0[1-4,3]", E::Twice(3)),
            ("s4,colour=red", E::Setting("colour=red".into())),
            ("s4,", E::Setting(String::new())),
            ("s4,control=", E::Setting("control=".into())),
            ("s4,wire=0-4", E::Wire("0-4".into())),
            ("s4,wire=1-1", E::Wire("1-1".into())),
            ("s4,wire=1", E::Wire("1".into())),
            ("s4,wire=0-1,wire=2-1", E::Driven(1)),
            ("s1,names=a/b", E::Names),
            ("s2,names=a/a", E::Name("a".into())),
            ("s2,names=\u{e4}", E::Name("\u{e4}".into())),
            ("s2,delay=-1", E::Delay("-1".into())),
            ("s2,delay=60000001", E::Delay("60000001".into())),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<ChipSpec>(), Err(expected), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_chip_within_bounds_or_a_mistake(text in "[-s0-9a-z,=/\\[\\]]{0,40}") {
            match text.parse::<ChipSpec>() {
                Ok(ChipSpec::Sim(spec)) => {
                    prop_assert!((1..=MAX_LINES).contains(&spec.lines));
                    prop_assert!(spec.names.len() <= usize::from(spec.lines));
                }
                Ok(ChipSpec::Host(spec)) => {
                    let lines = spec.lines.unwrap_or_else(|| vec![0]);
                    prop_assert!(!lines.is_empty() && lines.iter().all(|line| *line < MAX_LINES));
                }
                Err(_) => {}
            }
        }
    }
}
