//! What sensors measure, and how often.

use std::str::FromStr;
use std::time::Duration;

/// Most axes of a sensor: as many as a notification has room for.
pub const MAX_AXES: usize = 7;

/// Readings of all axes of a sensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    numbers: [i64; MAX_AXES],
    length: usize,
}

impl Values {
    /// Adds a reading; one too many is left out.
    pub fn push(&mut self, number: i64) {
        if let Some(place) = self.numbers.get_mut(self.length) {
            *place = number;
            self.length += 1;
        }
    }

    /// The readings.
    pub fn numbers(&self) -> &[i64] {
        self.numbers.get(..self.length).unwrap_or_default()
    }
}

impl FromIterator<i64> for Values {
    fn from_iter<I: IntoIterator<Item = i64>>(numbers: I) -> Self {
        let mut values = Self::default();
        for number in numbers {
            values.push(number);
        }
        values
    }
}

/// A quantity with its unit (DEN0056, the sensor type enumeration).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(pub u8);

/// Quantities with names, and the power of ten that readings are multiples of unless another one is chosen.
const NAMED: &[(&str, Quantity, i8)] = &[
    ("temperature", Quantity(2), -3),
    ("voltage", Quantity(5), -3),
    ("current", Quantity(6), -3),
    ("power", Quantity(7), -6),
    ("energy", Quantity(8), -6),
    ("charge", Quantity(9), -3),
    ("light", Quantity(13), -3),
    ("pressure", Quantity(15), -3),
    ("fan", Quantity(19), 0),
    ("frequency", Quantity(20), 0),
    ("time", Quantity(21), -3),
    ("distance", Quantity(31), -3),
    ("angle", Quantity(36), -6),
    ("magnetic", Quantity(45), -6),
    ("resistance", Quantity(49), -3),
    ("humidity", Quantity(65), -3),
    ("count", Quantity(67), 0),
    ("angular-velocity", Quantity(87), -6),
    ("acceleration", Quantity(89), -6),
    ("velocity", Quantity(90), -3),
];

impl Quantity {
    /// Degrees Celsius.
    pub const TEMPERATURE: Self = Self(2);
    /// Volts.
    pub const VOLTAGE: Self = Self(5);
    /// Amperes.
    pub const CURRENT: Self = Self(6);
    /// Watts.
    pub const POWER: Self = Self(7);
    /// Joules.
    pub const ENERGY: Self = Self(8);
    /// Lux.
    pub const LIGHT: Self = Self(13);
    /// Kilopascals.
    pub const PRESSURE: Self = Self(15);
    /// Revolutions per minute.
    pub const FAN: Self = Self(19);
    /// Hertz.
    pub const FREQUENCY: Self = Self(20);
    /// Metres.
    pub const DISTANCE: Self = Self(31);
    /// Radians.
    pub const ANGLE: Self = Self(36);
    /// Gauss.
    pub const MAGNETIC: Self = Self(45);
    /// Ohms.
    pub const RESISTANCE: Self = Self(49);
    /// Per cent.
    pub const PERCENT: Self = Self(65);
    /// A number of something.
    pub const COUNT: Self = Self(67);
    /// Radians per second.
    pub const ANGULAR_VELOCITY: Self = Self(87);
    /// Metres per square second.
    pub const ACCELERATION: Self = Self(89);
    /// Metres per second.
    pub const VELOCITY: Self = Self(90);

    /// The power of ten that readings are multiples of unless another one is chosen.
    pub fn usual_scale(self) -> i8 {
        NAMED
            .iter()
            .find(|(_, quantity, _)| *quantity == self)
            .map_or(0, |(_, _, scale)| *scale)
    }

    /// The names, for help.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, _, _)| *name)
    }
}

impl FromStr for Quantity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        NAMED
            .iter()
            .find(|(name, _, _)| *name == text)
            .map(|(_, quantity, _)| *quantity)
            .or_else(|| text.parse().ok().map(Self))
            .ok_or(())
    }
}

/// The bits of a small signed number, as powers of ten are described.
pub fn exponent_bits(exponent: i8) -> u32 {
    u32::from(exponent as u8) & 0x1f
}

/// The power of ten in five bits.
fn exponent_of(bits: u32) -> i8 {
    let bits = (bits & 0x1f) as i8;
    if bits >= 16 { bits - 32 } else { bits }
}

/// Time between two readings: `seconds` times ten to the power of `exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The digits.
    pub seconds: u16,
    /// The power of ten, -16 to 15.
    pub exponent: i8,
}

impl Interval {
    /// Shortest interval that is offered.
    pub const MIN_MS: u32 = 1;
    /// Longest interval that is offered.
    pub const MAX_MS: u32 = 3_600_000;

    /// A number of milliseconds from [`MIN_MS`](Self::MIN_MS) to [`MAX_MS`](Self::MAX_MS).
    pub fn from_millis(millis: u32) -> Option<Self> {
        if !(Self::MIN_MS..=Self::MAX_MS).contains(&millis) {
            return None;
        }
        let (mut digits, mut exponent) = (millis, -3);
        while digits % 10 == 0 {
            digits /= 10;
            exponent += 1;
        }
        let seconds = u16::try_from(digits).ok()?;
        Some(Self { seconds, exponent })
    }

    /// As a duration; what is longer than some centuries is cut.
    pub fn duration(self) -> Duration {
        let nanos = i32::from(self.exponent) + 9;
        let seconds = u128::from(self.seconds);
        let power = 10u128.pow(nanos.unsigned_abs());
        let nanos = if nanos >= 0 {
            seconds * power
        } else {
            seconds / power
        };
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// As SENSOR_LIST_UPDATE_INTERVALS tells it.
    pub fn listed(self) -> u32 {
        u32::from(self.seconds) << 5 | exponent_bits(self.exponent)
    }

    /// As the sensor configuration has it, in bits 11 to 31.
    pub fn configured(self) -> u32 {
        u32::from(self.seconds) << 16 | exponent_bits(self.exponent) << 11
    }

    /// What a sensor configuration asks for.
    pub fn from_configuration(word: u32) -> Self {
        Self {
            seconds: (word >> 16) as u16,
            exponent: exponent_of(word >> 11),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_keep_their_length_on_the_way_to_the_guest_and_back() {
        for millis in [1, 10, 15, 100, 999, 1000, 65_535, 60_000, 3_600_000] {
            let interval = Interval::from_millis(millis).unwrap();
            let expected = Duration::from_millis(millis.into());
            assert_eq!(interval.duration(), expected, "{millis}");
            assert_eq!(
                Interval::from_configuration(interval.configured()),
                interval
            );
            assert_eq!(interval.listed() >> 5, u32::from(interval.seconds));
        }
        assert_eq!(Interval::from_millis(0), None);
        assert_eq!(Interval::from_millis(3_600_001), None);
        // too many digits
        assert_eq!(Interval::from_millis(65_537), None);
    }

    #[test]
    fn every_word_is_an_interval() {
        for exponent in 0..32u32 {
            let word = 0xffff << 16 | exponent << 11;
            let _ = Interval::from_configuration(word).duration();
        }
        let long = Interval::from_configuration(0xffff << 16 | 15 << 11);
        assert_eq!(long.duration(), Duration::from_nanos(u64::MAX));
        let short = Interval::from_configuration(1 << 16 | 0x10 << 11);
        assert_eq!(short.duration(), Duration::ZERO);
    }

    #[test]
    fn quantities_have_names_or_numbers() {
        assert_eq!("temperature".parse(), Ok(Quantity::TEMPERATURE));
        assert_eq!("89".parse(), Ok(Quantity::ACCELERATION));
        assert_eq!("256".parse::<Quantity>(), Err(()));
        assert_eq!("hope".parse::<Quantity>(), Err(()));
        assert_eq!(Quantity(200).usual_scale(), 0);
    }
}
