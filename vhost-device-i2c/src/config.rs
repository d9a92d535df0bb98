//! What the device is asked to be: buses, and the targets on them that a guest may use.
//!
//! The text form is a list of buses, separated by commas, and each bus is a name and its targets, separated by colons:
//! `6:32:0x29,sim0:0x50=24c02:0x48=lm75@21.5`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::address::Address;
use crate::host::sim::Model;

/// A validated configuration of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The buses behind the guest's adapter.
    pub buses: Buses,
    /// Whether addresses that a driver of the host's kernel holds may be used.
    pub force: bool,
    /// After how long a bus that does not answer is an error.
    pub timeout: Duration,
}

/// The buses behind one adapter of the guest; no address occurs twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buses(Vec<Bus>);

/// One bus and what a guest may use on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bus {
    /// An adapter of the host.
    Adapter {
        /// Which one.
        adapter: Adapter,
        /// The targets that the guest may address.
        addresses: Vec<Address>,
    },
    /// A simulated bus.
    Sim {
        /// The chips on it.
        chips: Vec<(Address, Chip)>,
    },
}

/// How an adapter of the host is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// The number in /dev/i2c-NUMBER.
    Number(u32),
    /// The name that its driver gave it, as `i2cdetect -l` shows it.
    Name(String),
}

/// A simulated chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chip {
    /// A memory, in a file if one is given, else erased at start.
    Eeprom {
        /// Its size and addressing.
        model: Model,
        /// Where its bytes are.
        file: Option<PathBuf>,
    },
    /// 256 registers of one byte, 0 at start.
    Registers,
    /// A temperature sensor.
    Lm75(Temperature),
    /// A target that never lets go of the clock: every transfer to it takes as long as a bus may.
    Stuck,
}

/// What a simulated sensor measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// Always the same, in thousandths of a degree Celsius.
    Constant(i32),
    /// What a file says at the moment, in thousandths of a degree Celsius, as in the kernel's temp1_input.
    File(PathBuf),
}

/// What a simulated sensor measures if nothing is said, in thousandths of a degree Celsius.
const ROOM: i32 = 25_000;

/// A list of buses that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Nothing between two commas, or nothing before the first colon.
    #[error("a bus is missing in {0:?}; write BUS:TARGET[:TARGET...], with a comma between buses")]
    NoBus(String),
    /// A bus without targets.
    #[error("{0:?} names no target; write BUS:TARGET[:TARGET...]")]
    NoTargets(String),
    /// Something on a simulated bus that is no chip.
    #[error("{0:?} is no chip; write ADDRESS=CHIP[@PARAMETER]")]
    NoChip(String),
    /// A chip that nobody knows.
    #[error("no chip {0:?}; there are {chips}", chips = CHIPS)]
    UnknownChip(String),
    /// A parameter that the chip does not take.
    #[error("{0:?} takes no such parameter")]
    Parameter(String),
    /// Not an address, or a range that goes backwards.
    #[error("{0:?} is no I2C address or range of addresses")]
    Address(String),
    /// One address on two buses, or twice on one.
    #[error("{0} is there twice")]
    Twice(Address),
}

const CHIPS: &str = "24c01, 24c02, 24c32, 24c64, 24c256, regs, lm75, stuck";

impl Buses {
    /// The buses, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Bus> {
        self.0.iter()
    }
}

impl Bus {
    /// The addresses that a guest may use.
    pub fn addresses(&self) -> Vec<Address> {
        match self {
            Self::Adapter { addresses, .. } => addresses.clone(),
            Self::Sim { chips, .. } => chips.iter().map(|(address, _)| *address).collect(),
        }
    }
}

impl FromStr for Buses {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let buses: Vec<Bus> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let mut all: Vec<Address> = buses.iter().flat_map(Bus::addresses).collect();
        all.sort_unstable();
        match all.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(&[address, ..]) => Err(ConfigError::Twice(address)),
            _ => Ok(Self(buses)),
        }
    }
}

impl FromStr for Bus {
    type Err = ConfigError;

    /// `NAME:TARGET[:TARGET...]`. A name that begins with `sim` and has only letters and digits is a simulated bus.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let text = text.trim();
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        if is_simulated(name) {
            return simulated(text, rest);
        }
        let (name, targets) = split_name(text);
        if name.is_empty() {
            return Err(ConfigError::NoBus(text.to_owned()));
        }
        if targets.is_empty() {
            return Err(ConfigError::NoTargets(text.to_owned()));
        }
        let mut addresses = Vec::new();
        for target in targets {
            addresses.extend(range(target).ok_or_else(|| ConfigError::Address(target.to_owned()))?);
        }
        Ok(Self::Adapter {
            adapter: name.into(),
            addresses,
        })
    }
}

fn is_simulated(name: &str) -> bool {
    name.strip_prefix("sim")
        .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphanumeric()))
}

fn simulated(text: &str, chips: &str) -> Result<Bus, ConfigError> {
    if chips.is_empty() {
        return Err(ConfigError::NoTargets(text.to_owned()));
    }
    let chips = chips.split(':').map(|item| {
        let (address, chip) = item
            .split_once('=')
            .ok_or_else(|| ConfigError::NoChip(item.to_owned()))?;
        let bad = |_| ConfigError::Address(address.to_owned());
        Ok((address.parse().map_err(bad)?, chip.parse()?))
    });
    Ok(Bus::Sim {
        chips: chips.collect::<Result<_, _>>()?,
    })
}

/// Splits the targets off the end. An adapter's name may contain colons, so it ends where the last text that is no target
/// does; but what follows a plain number or the first colon of a name without blanks must be targets.
fn split_name(text: &str) -> (&str, Vec<&str>) {
    let (first, rest) = text.split_once(':').unwrap_or((text, ""));
    if !first.contains(' ') {
        return (
            first,
            rest.split(':')
                .filter(|target| !target.is_empty())
                .collect(),
        );
    }
    let mut name = text;
    let mut targets = Vec::new();
    while let Some((before, last)) = name.rsplit_once(':')
        && range(last).is_some()
    {
        targets.insert(0, last);
        name = before;
    }
    (name, targets)
}

/// `ADDRESS` or `FIRST-LAST`, both of the same kind.
fn range(text: &str) -> Option<Vec<Address>> {
    let Some((first, last)) = text.split_once('-') else {
        return Some(vec![text.parse().ok()?]);
    };
    match (first.parse().ok()?, last.parse().ok()?) {
        (Address::Seven(first), Address::Seven(last)) if first <= last => {
            Some((first..=last).map(Address::Seven).collect())
        }
        (Address::Ten(first), Address::Ten(last)) if first <= last => {
            Some((first..=last).map(Address::Ten).collect())
        }
        _ => None,
    }
}

impl From<&str> for Adapter {
    /// A number, /dev/i2c-NUMBER or i2c-NUMBER, else a name.
    fn from(text: &str) -> Self {
        let short = text.strip_prefix("/dev/").unwrap_or(text);
        let digits = short.strip_prefix("i2c-").unwrap_or(short);
        match digits.parse() {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Name(text.to_owned()),
        }
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "/dev/i2c-{number}"),
            Self::Name(name) => write!(f, "adapter {name:?}"),
        }
    }
}

impl FromStr for Chip {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (kind, parameter) = match text.split_once('@') {
            Some((kind, parameter)) => (kind, Some(parameter)),
            None => (text, None),
        };
        let refused = || ConfigError::Parameter(text.to_owned());
        if let Some(model) = Model::find(kind) {
            let file = parameter.map(PathBuf::from);
            if file
                .as_ref()
                .is_some_and(|file| file.as_os_str().is_empty())
            {
                return Err(refused());
            }
            return Ok(Self::Eeprom { model, file });
        }
        match (kind, parameter) {
            ("lm75", None) => Ok(Self::Lm75(Temperature::Constant(ROOM))),
            ("lm75", Some(parameter)) => parameter.parse().map(Self::Lm75).map_err(|()| refused()),
            ("regs", None) => Ok(Self::Registers),
            ("stuck", None) => Ok(Self::Stuck),
            ("regs" | "stuck", Some(_)) => Err(refused()),
            _ => Err(ConfigError::UnknownChip(kind.to_owned())),
        }
    }
}

impl FromStr for Temperature {
    type Err = ();

    /// Degrees Celsius with up to three decimals, or a path, which has a slash.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.contains('/') {
            return Ok(Self::File(text.into()));
        }
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let positive = whole.strip_prefix('-').unwrap_or(whole);
        if !all_digits(positive) || !all_digits(decimals) || decimals.len() > 3 {
            return Err(());
        }
        let thousandths: i32 = format!("{decimals:0<3}").parse().map_err(|_| ())?;
        let degrees: i32 = positive.parse().map_err(|_| ())?;
        let size = degrees
            .checked_mul(1000)
            .and_then(|degrees| degrees.checked_add(thousandths))
            .ok_or(())?;
        Ok(Self::Constant(if whole.starts_with('-') {
            -size
        } else {
            size
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, addresses: &[u8]) -> Bus {
        Bus::Adapter {
            adapter: name.into(),
            addresses: addresses.iter().map(|a| Address::Seven(*a)).collect(),
        }
    }

    #[test]
    fn lists_of_the_public_daemon_are_understood() {
        let table: [(&str, Vec<Bus>); 4] = [
            (
                "6:32:41,9:37",
                vec![adapter("6", &[32, 41]), adapter("9", &[37])],
            ),
            ("i915 gmbus dpd:32", vec![adapter("i915 gmbus dpd", &[32])]),
            (
                "i915 gmbus dpd:32:21,DPDDC-D:10:23",
                vec![
                    adapter("i915 gmbus dpd", &[32, 21]),
                    adapter("DPDDC-D", &[10, 23]),
                ],
            ),
            ("1:4", vec![adapter("1", &[4])]),
        ];
        for (text, buses) in table {
            assert_eq!(text.parse(), Ok(Buses(buses)), "{text:?}");
        }
    }

    #[test]
    fn adapters_are_numbers_paths_or_names_with_colons() {
        assert_eq!(Adapter::from("6"), Adapter::Number(6));
        assert_eq!(Adapter::from("i2c-6"), Adapter::Number(6));
        assert_eq!(Adapter::from("/dev/i2c-6"), Adapter::Number(6));
        assert_eq!(
            Adapter::from("i2c-6-mux"),
            Adapter::Name("i2c-6-mux".into())
        );
        let text = "NVIDIA i2c adapter 1 at 1:00.0:0x20-0x22:t5";
        let expected = Bus::Adapter {
            adapter: Adapter::Name("NVIDIA i2c adapter 1 at 1:00.0".into()),
            addresses: vec![
                Address::Seven(0x20),
                Address::Seven(0x21),
                Address::Seven(0x22),
                Address::Ten(5),
            ],
        };
        assert_eq!(text.parse(), Ok(expected));
    }

    #[test]
    fn simulated_buses_are_made_of_chips() {
        let text = "sim0:0x50=24c02@/tmp/e.bin:0x48=lm75@-5.5:0x49=lm75@/sys/t:0x20=regs:0x150=24c256:9=stuck";
        let chips = vec![
            (
                Address::Seven(0x50),
                Chip::Eeprom {
                    model: Model::find("24c02").unwrap(),
                    file: Some("/tmp/e.bin".into()),
                },
            ),
            (
                Address::Seven(0x48),
                Chip::Lm75(Temperature::Constant(-5500)),
            ),
            (
                Address::Seven(0x49),
                Chip::Lm75(Temperature::File("/sys/t".into())),
            ),
            (Address::Seven(0x20), Chip::Registers),
            (
                Address::Ten(0x150),
                Chip::Eeprom {
                    model: Model::find("24c256").unwrap(),
                    file: None,
                },
            ),
            (Address::Seven(9), Chip::Stuck),
        ];
        assert_eq!(text.parse(), Ok(Buses(vec![Bus::Sim { chips }])));
    }

    #[test]
    fn temperatures_are_degrees_or_files() {
        let table = [
            ("25", Some(25_000)),
            ("21.5", Some(21_500)),
            ("-0.125", Some(-125)),
            ("0.05", Some(50)),
            ("1.2345", None),
            ("1.", None),
            (".5", None),
            ("", None),
            ("-", None),
            ("1e3", None),
            ("99999999999", None),
            ("2147484", None),
        ];
        for (text, value) in table {
            assert_eq!(
                text.parse().ok(),
                value.map(Temperature::Constant),
                "{text:?}"
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            ("", ConfigError::NoBus(String::new())),
            ("6:32,", ConfigError::NoBus(String::new())),
            (":32", ConfigError::NoBus(":32".into())),
            ("6", ConfigError::NoTargets("6".into())),
            ("6:", ConfigError::NoTargets("6:".into())),
            ("sim0", ConfigError::NoTargets("sim0".into())),
            (
                "i915 gmbus dpd",
                ConfigError::NoTargets("i915 gmbus dpd".into()),
            ),
            ("6:1024", ConfigError::Address("1024".into())),
            ("6:5-4", ConfigError::Address("5-4".into())),
            ("6:4-t5", ConfigError::Address("4-t5".into())),
            ("6:x", ConfigError::Address("x".into())),
            ("6:4:4", ConfigError::Twice(Address::Seven(4))),
            ("6:4,7:0x2-0x6", ConfigError::Twice(Address::Seven(4))),
            ("sim:4=regs:4=regs", ConfigError::Twice(Address::Seven(4))),
            ("sim:4", ConfigError::NoChip("4".into())),
            ("sim:x=regs", ConfigError::Address("x".into())),
            ("sim:4=24c99", ConfigError::UnknownChip("24c99".into())),
            ("sim:4=regs@5", ConfigError::Parameter("regs@5".into())),
            ("sim:4=24c02@", ConfigError::Parameter("24c02@".into())),
            (
                "sim:4=lm75@warm",
                ConfigError::Parameter("lm75@warm".into()),
            ),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Buses>(), Err(error), "{text:?}");
        }
    }
}
