//! What simulated sensors read: a number, or a curve over time.

use std::f64::consts::TAU;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Readings of one axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Wave {
    /// Always the same.
    Constant(f64),
    /// From the first to the second number in so many seconds, then anew.
    Ramp(f64, f64, f64),
    /// Around the first number, by at most the second, with a period of so many seconds.
    Sine(f64, f64, f64),
    /// The first number for half a period of so many seconds, then the second.
    Square(f64, f64, f64),
    /// One more on each reading, from this number on.
    Count(f64),
    /// A list, one for each step of so many seconds, then anew.
    Table(Arc<[f64]>, f64),
}

impl Wave {
    /// The reading at a time since the start, `readings` having been taken before.
    pub fn at(&self, time: Duration, readings: u64) -> f64 {
        let phase = |period: f64| (time.as_secs_f64() / period).fract();
        match self {
            Self::Constant(value) => *value,
            Self::Ramp(from, to, period) => from + (to - from) * phase(*period),
            Self::Sine(centre, amplitude, period) => {
                centre + amplitude * (TAU * phase(*period)).sin()
            }
            Self::Square(first, second, period) => {
                if phase(*period) < 0.5 {
                    *first
                } else {
                    *second
                }
            }
            Self::Count(from) => from + readings as f64,
            Self::Table(values, step) => {
                let steps = (time.as_secs_f64() / step) as usize;
                let position = steps.checked_rem(values.len()).unwrap_or_default();
                values.get(position).copied().unwrap_or_default()
            }
        }
    }

    /// The smallest and the largest reading, if there are such.
    pub fn range(&self) -> Option<(f64, f64)> {
        let ordered = |a: f64, b: f64| (a.min(b), a.max(b));
        match self {
            Self::Constant(_) | Self::Count(_) => None,
            Self::Ramp(from, to, _) => Some(ordered(*from, *to)),
            Self::Sine(centre, amplitude, _) => {
                Some(ordered(centre - amplitude, centre + amplitude))
            }
            Self::Square(first, second, _) => Some(ordered(*first, *second)),
            Self::Table(values, _) => Some(
                values
                    .iter()
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                        (low.min(*value), high.max(*value))
                    }),
            ),
        }
    }
}

impl FromStr for Wave {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read(text).ok_or_else(|| {
            format!(
                "{text:?} is not a number, count[:FROM], ramp:FROM:TO:SECONDS, sine:CENTRE:AMPLITUDE:SECONDS or \
                 square:FIRST:SECOND:SECONDS"
            )
        })
    }
}

fn read(text: &str) -> Option<Wave> {
    let mut parts = text.split(':');
    let head = parts.next()?;
    let numbers = parts.map(number).collect::<Option<Vec<f64>>>()?;
    Some(match (head, numbers.as_slice()) {
        ("count", []) => Wave::Count(0.0),
        ("count", [from]) => Wave::Count(*from),
        ("ramp", [from, to, period]) => Wave::Ramp(*from, *to, positive(*period)?),
        ("sine", [centre, amplitude, period]) => {
            Wave::Sine(*centre, *amplitude, positive(*period)?)
        }
        ("square", [first, second, period]) => Wave::Square(*first, *second, positive(*period)?),
        (_, []) => Wave::Constant(number(head)?),
        _ => return None,
    })
}

/// A number as it is written, within what a reading could hold.
pub fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.abs() < 1e18)
}

fn positive(number: f64) -> Option<f64> {
    (number >= 1e-6).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(text: &str) -> Wave {
        text.parse().unwrap()
    }

    #[test]
    fn curves_are_where_they_should_be_at_each_quarter() {
        let quarters = |text: &str| {
            let wave = wave(text);
            [0u64, 1, 2, 3, 4].map(|quarter| wave.at(Duration::from_secs(quarter), quarter).round())
        };
        assert_eq!(quarters("21"), [21.0; 5]);
        assert_eq!(quarters("ramp:0:100:4"), [0.0, 25.0, 50.0, 75.0, 0.0]);
        assert_eq!(quarters("sine:50:10:4"), [50.0, 60.0, 50.0, 40.0, 50.0]);
        assert_eq!(quarters("square:1:2:4"), [1.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(quarters("count"), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(quarters("count:7"), [7.0, 8.0, 9.0, 10.0, 11.0]);
    }

    #[test]
    fn a_table_is_read_from_the_beginning_again() {
        let wave = Wave::Table([1.0, 2.0].into(), 0.5);
        let read = [0u64, 500, 999, 1000].map(|time| wave.at(Duration::from_millis(time), 0));
        assert_eq!(read, [1.0, 2.0, 2.0, 1.0]);
        assert_eq!(Wave::Table([].into(), 1.0).at(Duration::ZERO, 0), 0.0);
        assert_eq!(wave.range(), Some((1.0, 2.0)));
    }

    #[test]
    fn ranges_contain_the_curve() {
        assert_eq!(wave("sine:5:-2:1").range(), Some((3.0, 7.0)));
        assert_eq!(wave("ramp:9:1:1").range(), Some((1.0, 9.0)));
        assert_eq!(wave("count").range(), None);
    }

    #[test]
    fn other_texts_are_no_curves() {
        for text in [
            "",
            "ramp",
            "ramp:1:2",
            "ramp:1:2:0",
            "sine:1:2:-1",
            "x",
            "nan",
            "inf",
            "1:2",
            "1e19",
        ] {
            assert!(text.parse::<Wave>().is_err(), "{text}");
        }
    }
}
