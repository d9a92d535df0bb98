//! How sensors and domains are written on the command line.
//!
//! ```text
//! ENTRY   = ( KIND | "kind=" KIND ) { "," KEY "=" VALUE }        LIST = VALUE { "+" VALUE }
//! ```
//!
//! `devices.txt`, which `--help-devices` prints, lists the kinds and their keys.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::config::{
    CpuFreqSpec, Entry, MAX_ENTRIES, MAX_PARENTS, MAX_TRIPS, SensorSpec, SourceSpec, SystemPower,
};
use crate::name::Name;
use crate::protocol::clock::{Clock, Permissions, Rates};
use crate::protocol::performance::{Level, PerformanceDomain};
use crate::protocol::power::PowerDomain;
use crate::protocol::reset::ResetDomain;
use crate::protocol::voltage::{Levels, VoltageDomain};
use crate::quantity::{Interval, MAX_AXES, Quantity};
use crate::wave::{self, Wave};

/// Longest time that something simulated takes.
const MAX_DELAY_MS: u64 = 60_000;
/// Trip points of a sensor unless it is said.
const TRIPS: u8 = 2;
/// Update intervals of a sensor unless it is said, in milliseconds.
const INTERVALS: [u32; 3] = [1000, 100, 10];

/// A sensor or domain that cannot be read from the text given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// No kind, or none that there is.
    #[error("{0:?} is no kind of sensor or domain (--help-devices lists them)")]
    Kind(String),
    /// Something without an equal sign.
    #[error("{0:?} is not KEY=VALUE")]
    Setting(String),
    /// A key that this kind does not have.
    #[error("{kind} has no {key} (--help-devices lists what it has)")]
    Key {
        /// The kind.
        kind: String,
        /// The key.
        key: String,
    },
    /// The same key twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// A key that this kind must have.
    #[error("{kind} needs {key}")]
    Missing {
        /// The kind.
        kind: String,
        /// The key.
        key: &'static str,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
    /// A value that makes no sense.
    #[error("{key}={value}: {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What would make sense.
        expected: String,
    },
}

/// The settings of one entry.
struct Settings<'a> {
    kind: &'a str,
    list: Vec<(&'a str, &'a str)>,
}

impl<'a> Settings<'a> {
    fn read(text: &'a str) -> Result<Self, SpecError> {
        let mut parts = text.split(',');
        let head = parts.next().unwrap_or_default();
        let kind = head.strip_prefix("kind=").unwrap_or(head);
        let mut list: Vec<(&str, &str)> = Vec::new();
        for part in parts {
            let bad = || SpecError::Setting(part.into());
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            if list.iter().any(|(other, _)| *other == key) {
                return Err(SpecError::Twice(key.into()));
            }
            list.push((key, value));
        }
        Ok(Self { kind, list })
    }

    /// Takes a setting out.
    fn take(&mut self, key: &str) -> Option<&'a str> {
        let position = self.list.iter().position(|(other, _)| *other == key)?;
        Some(self.list.remove(position).1)
    }

    fn need(&mut self, key: &'static str) -> Result<&'a str, SpecError> {
        self.take(key).ok_or_else(|| SpecError::Missing {
            kind: self.kind.into(),
            key,
        })
    }

    /// Takes a setting out that `read` makes sense of.
    fn parse<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, SpecError> {
        self.take(key)
            .map(|value| read(value).ok_or_else(|| wrong(key, value, expected)))
            .transpose()
    }

    /// Takes a list out, with something in it, but no more than `most`.
    fn list<T>(
        &mut self,
        key: &str,
        most: usize,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<Vec<T>>, SpecError> {
        self.parse(key, expected, |value| {
            let list: Option<Vec<T>> = value.split('+').map(&read).collect();
            list.filter(|list| list.len() <= most)
        })
    }

    fn name(&mut self) -> Result<Option<Name>, SpecError> {
        self.take("name")
            .map(|value| {
                value
                    .parse()
                    .map_err(|expected: String| wrong("name", value, &expected))
            })
            .transpose()
    }

    fn needed_name(&mut self) -> Result<Name, SpecError> {
        let kind = self.kind;
        self.name()?.ok_or_else(|| SpecError::Missing {
            kind: kind.into(),
            key: "name",
        })
    }

    fn delay(&mut self) -> Result<Option<Duration>, SpecError> {
        let delay = self.parse("delay", "not milliseconds up to a minute", |value| {
            value.parse().ok().filter(|ms| *ms <= MAX_DELAY_MS)
        })?;
        Ok(delay.map(Duration::from_millis))
    }

    fn is_on(&mut self, usual: bool) -> Result<bool, SpecError> {
        let state = self.parse("state", "neither on nor off", |value| match value {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        })?;
        Ok(state.unwrap_or(usual))
    }

    fn yes(&mut self, key: &str) -> Result<bool, SpecError> {
        let answer = self.parse(key, "neither yes nor no", |value| match value {
            "yes" | "true" => Some(true),
            "no" | "false" => Some(false),
            _ => None,
        })?;
        Ok(answer.unwrap_or(false))
    }

    /// Nothing may be left.
    fn end(self) -> Result<(), SpecError> {
        match self.list.first() {
            None => Ok(()),
            Some((key, _)) => Err(SpecError::Key {
                kind: self.kind.into(),
                key: (*key).into(),
            }),
        }
    }
}

fn wrong(key: &str, value: &str, expected: &str) -> SpecError {
    SpecError::Value {
        key: key.into(),
        value: value.into(),
        expected: expected.into(),
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

impl FromStr for Entry {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut settings = Settings::read(text)?;
        let entry = match settings.kind {
            "fake" => fake(&mut settings)?,
            "sim" => sim(&mut settings)?,
            "file" => {
                let source = SourceSpec::File(settings.need("path")?.into());
                sensor(&mut settings, source)?
            }
            "iio" => iio(&mut settings)?,
            "hwmon" => {
                let source = SourceSpec::Hwmon {
                    chip: settings.need("chip")?.into(),
                    channel: settings.need("channel")?.into(),
                };
                sensor(&mut settings, source)?
            }
            "clock" => clock(&mut settings)?,
            "power" => Self::Power(PowerDomain {
                name: settings.needed_name()?,
                is_on: settings.is_on(false)?,
                is_fixed: settings.yes("fixed")?,
                delay: settings.delay()?,
            }),
            "perf" => perf(&mut settings)?,
            "cpufreq" => cpufreq(&mut settings)?,
            "reset" => Self::Reset(ResetDomain {
                name: settings.needed_name()?,
                is_fixed: settings.yes("fixed")?,
                delay: settings.delay()?,
            }),
            "voltage" => voltage(&mut settings)?,
            other => return Err(SpecError::Kind(other.into())),
        };
        settings.end()?;
        Ok(entry)
    }
}

/// Update intervals in milliseconds, the longest first.
fn intervals(mut list: Vec<u32>) -> Vec<Interval> {
    list.sort_unstable_by(|a, b| b.cmp(a));
    list.dedup();
    list.into_iter().filter_map(Interval::from_millis).collect()
}

fn quantities() -> String {
    let names: Vec<&str> = Quantity::names().collect();
    format!(
        "no quantity; there are {}, and numbers up to 255",
        names.join(" ")
    )
}

fn sensor(settings: &mut Settings<'_>, source: SourceSpec) -> Result<Entry, SpecError> {
    let (min, max) = (
        settings.parse("min", "not a number", wave::number)?,
        settings.parse("max", "not a number", wave::number)?,
    );
    let range = match (min, max) {
        (Some(min), Some(max)) if min <= max => Some((min, max)),
        (None, None) => None,
        _ => {
            return Err(SpecError::Conflict(
                "min and max go together, in this order",
            ));
        }
    };
    let axes = settings.list("axes", MAX_AXES, "not names of one to seven axes", |name| {
        name.parse().ok()
    })?;
    let millis = "not milliseconds up to an hour, with no more than four digits that count";
    let list = settings.list("intervals", MAX_ENTRIES, millis, |text| {
        number(text).filter(|millis| Interval::from_millis(*millis).is_some())
    })?;
    Ok(Entry::Sensor(Box::new(SensorSpec {
        name: settings.name()?,
        quantity: settings.parse("type", &quantities(), |value| value.parse().ok())?,
        scale: settings.parse("scale", "not from -16 to 15", |value| {
            number(value).filter(|scale| (-16..=15).contains(scale))
        })?,
        axes: axes.unwrap_or_default(),
        range,
        intervals: intervals(list.unwrap_or(INTERVALS.to_vec())),
        trips: settings
            .parse("trips", "not from 0 to 8", |value| {
                number(value).filter(|trips| *trips <= MAX_TRIPS)
            })?
            .unwrap_or(TRIPS),
        delay: settings.delay()?,
        source,
    })))
}

/// What three axes are called. Linux makes an IIO device only of axes whose names end like this.
fn xyz() -> Vec<Name> {
    ["axis_X", "axis_Y", "axis_Z"]
        .iter()
        .filter_map(|axis| axis.parse().ok())
        .collect()
}

fn fake(settings: &mut Settings<'_>) -> Result<Entry, SpecError> {
    let name = settings.needed_name()?;
    Ok(Entry::Sensor(Box::new(SensorSpec {
        name: Some(name),
        quantity: Some(Quantity::ACCELERATION),
        scale: Some(0),
        axes: xyz(),
        range: None,
        intervals: intervals(INTERVALS.to_vec()),
        trips: 0,
        delay: None,
        source: SourceSpec::Waves(vec![Wave::Count(0.0); 3]),
    })))
}

fn sim(settings: &mut Settings<'_>) -> Result<Entry, SpecError> {
    let waves = match settings.take("value") {
        Some(value) => Some(
            value
                .split('+')
                .map(str::parse)
                .collect::<Result<Vec<Wave>, String>>()
                .map_err(|expected| wrong("value", value, &expected))?,
        ),
        None => None,
    };
    let values = settings.take("values");
    let step = settings.parse("step", "not milliseconds", |value| {
        number(value).filter(|step: &u32| *step > 0)
    })?;
    let source = match (waves, values) {
        (Some(waves), None) if step.is_none() => SourceSpec::Waves(waves),
        (None, Some(path)) => {
            SourceSpec::Table(path.into(), f64::from(step.unwrap_or(1000)) / 1000.0)
        }
        (None, None) => SourceSpec::Waves(vec![Wave::Constant(0.0)]),
        _ => {
            return Err(SpecError::Conflict(
                "value does not go with values and step",
            ));
        }
    };
    let mut entry = sensor(settings, source)?;
    if let Entry::Sensor(spec) = &mut entry {
        if spec.name.is_none() {
            return Err(SpecError::Missing {
                kind: "sim".into(),
                key: "name",
            });
        }
        if let SourceSpec::Waves(waves) = &spec.source {
            fit_axes(&mut spec.axes, waves.len())?;
        }
    }
    Ok(entry)
}

/// Several curves need as many axes; if those have no names they get the usual ones.
fn fit_axes(axes: &mut Vec<Name>, curves: usize) -> Result<(), SpecError> {
    if axes.is_empty() && curves == 3 {
        *axes = xyz();
    }
    if axes.len().max(1) == curves {
        Ok(())
    } else {
        Err(SpecError::Conflict("there must be a name for each curve"))
    }
}

fn iio(settings: &mut Settings<'_>) -> Result<Entry, SpecError> {
    let source = SourceSpec::Iio {
        path: settings.need("path")?.into(),
        channel: settings.need("channel")?.into(),
        buffer: settings.take("buffer").map(Into::into),
    };
    sensor(settings, source)
}

/// Three numbers with colons between them: the lowest, the highest, and the step.
fn range<T: FromStr + PartialOrd + Default>(text: &str) -> Option<(T, T, T)> {
    let mut parts = text.split(':');
    let (low, high, step): (T, T, T) = (
        number(parts.next()?)?,
        number(parts.next()?)?,
        number(parts.next()?)?,
    );
    (parts.next().is_none() && low <= high && step > T::default()).then_some((low, high, step))
}

/// A list in order, without anything twice.
fn ascending<T: FromStr + Ord>(text: &str) -> Option<Vec<T>> {
    let mut list = text.split('+').map(number).collect::<Option<Vec<T>>>()?;
    list.sort_unstable();
    list.dedup();
    (list.len() <= MAX_ENTRIES).then_some(list)
}

fn clock(settings: &mut Settings<'_>) -> Result<Entry, SpecError> {
    let rates = settings.need("rates")?;
    let rates = if rates.contains(':') {
        range(rates).map(|(low, high, step)| Rates::Range(low, high, step))
    } else {
        ascending(rates).map(Rates::List)
    }
    .ok_or_else(|| wrong("rates", rates, "neither a list of hertz nor LOW:HIGH:STEP"))?;
    let rate = settings.parse("rate", "none of the clock's rates", |value| {
        number(value).filter(|rate| rates.contains(*rate))
    })?;
    let parents = settings
        .list("parents", MAX_PARENTS, "not names of clocks", |name| {
            name.parse().ok()
        })?
        .unwrap_or_default();
    let clock = Clock {
        name: settings.needed_name()?,
        rate: rate.unwrap_or(rates.lowest()),
        rates,
        is_on: settings.is_on(false)?,
        parents: Vec::new(),
        allowed: settings
            .parse(
                "allow",
                "not a list of state, rate and parent, or none",
                permissions,
            )?
            .unwrap_or(Permissions::ALL),
        delay: settings.delay()?,
    };
    Ok(Entry::Clock { clock, parents })
}

fn permissions(text: &str) -> Option<Permissions> {
    let mut allowed = Permissions {
        state: false,
        parent: false,
        rate: false,
    };
    if text == "none" {
        return Some(allowed);
    }
    for one in text.split('+') {
        match one {
            "state" => allowed.state = true,
            "parent" => allowed.parent = true,
            "rate" => allowed.rate = true,
            _ => return None,
        }
    }
    Some(allowed)
}

fn levels(settings: &mut Settings<'_>) -> Result<Option<Vec<Level>>, SpecError> {
    let expected = "not a list of KILOHERTZ[:MILLIWATTS[:MICROSECONDS]]";
    let levels = settings.list("levels", MAX_ENTRIES, expected, |text| {
        let mut parts = text.split(':');
        let level = Level {
            level: number(parts.next()?)?,
            power: parts.next().map_or(Some(0), number)?,
            latency: parts.next().map_or(Some(0), number)?,
        };
        (parts.next().is_none() && level.level > 0).then_some(level)
    })?;
    Ok(levels.map(|mut levels| {
        levels.sort_by_key(|level| level.level);
        levels.dedup_by_key(|level| level.level);
        levels
    }))
}

fn perf(settings: &mut Settings<'_>) -> Result<Entry, SpecError> {
    let levels = levels(settings)?.ok_or_else(|| SpecError::Missing {
        kind: "perf".into(),
        key: "levels",
    })?;
    let highest = levels.last().map_or(0, |level| level.level);
    let sustained = settings.parse("sustained", "none of the levels", |value| {
        number(value).filter(|wanted| levels.iter().any(|level| level.level == *wanted))
    })?;
    Ok(Entry::Performance(PerformanceDomain {
        name: settings.needed_name()?,
        sustained: sustained.unwrap_or(highest),
        levels,
        is_fixed: settings.yes("fixed")?,
        host: None,
    }))
}

fn cpufreq(settings: &mut Settings<'_>) -> Result<Entry, SpecError> {
    let limits = (
        settings.parse("min", "not kilohertz", number)?,
        settings.parse("max", "not kilohertz", number)?,
    );
    let policy = settings.need("policy")?;
    Ok(Entry::CpuFreq(CpuFreqSpec {
        name: settings.name()?,
        policy: number(policy).ok_or_else(|| wrong("policy", policy, "not a number"))?,
        is_controlled: settings.yes("control")?,
        range: match limits {
            (None, None) => None,
            (low, high) => Some((low.unwrap_or(0), high.unwrap_or(u32::MAX))),
        },
        levels: levels(settings)?.unwrap_or_default(),
    }))
}

fn voltage(settings: &mut Settings<'_>) -> Result<Entry, SpecError> {
    let levels = settings.need("levels")?;
    let levels = if levels.contains(':') {
        range(levels).map(|(low, high, step)| Levels::Range(low, high, step))
    } else {
        ascending(levels).map(Levels::List)
    }
    .ok_or_else(|| {
        wrong(
            "levels",
            levels,
            "neither a list of microvolts nor LOW:HIGH:STEP",
        )
    })?;
    let level = settings.parse("level", "none of the levels", |value| {
        number(value).filter(|level| levels.contains(*level))
    })?;
    Ok(Entry::Voltage(VoltageDomain {
        name: settings.needed_name()?,
        level: level.unwrap_or(levels.lowest()),
        levels,
        is_on: settings.is_on(false)?,
        is_fixed: settings.yes("fixed")?,
        delay: settings.delay()?,
    }))
}

impl FromStr for SystemPower {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "accept" => Ok(Self::Accept),
            _ => match text.strip_prefix("tell=") {
                Some(path) if !path.is_empty() => Ok(Self::Tell(path.into())),
                _ => Err("expected refuse, accept or tell=FILE".into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sensor_of(text: &str) -> SensorSpec {
        match text.parse() {
            Ok(Entry::Sensor(spec)) => *spec,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn sensors_are_read_as_documented() {
        let spec = sensor_of(
            "sim,name=a b,type=voltage,scale=-6,value=1.5,min=0,max=3.3,intervals=5+1000,trips=8,delay=7",
        );
        assert_eq!(spec.name.unwrap().text(), "a b");
        assert_eq!(
            (spec.quantity, spec.scale),
            (Some(Quantity::VOLTAGE), Some(-6))
        );
        assert_eq!(spec.range, Some((0.0, 3.3)));
        let intervals: Vec<Duration> = spec.intervals.iter().map(|one| one.duration()).collect();
        assert_eq!(intervals, [1000, 5].map(Duration::from_millis));
        assert_eq!(
            (spec.trips, spec.delay),
            (8, Some(Duration::from_millis(7)))
        );
        assert_eq!(spec.source, SourceSpec::Waves(vec![Wave::Constant(1.5)]));

        let spec = sensor_of("kind=iio,path=/x,channel=in_temp,buffer=/dev/iio:device0");
        let SourceSpec::Iio {
            path,
            channel,
            buffer,
        } = spec.source
        else {
            panic!("{spec:?}");
        };
        assert_eq!((path, channel.as_str()), ("/x".into(), "in_temp"));
        assert_eq!(buffer, Some("/dev/iio:device0".into()));

        let spec = sensor_of("fake,name=foo");
        assert_eq!(
            (spec.axes.len(), spec.quantity),
            (3, Some(Quantity::ACCELERATION))
        );
    }

    #[test]
    fn lists_are_put_in_order() {
        let Ok(Entry::Clock { clock, parents }) = "clock,name=c,rates=3+1+2+1,parents=b+a".parse()
        else {
            panic!("no clock");
        };
        assert_eq!((clock.rates, clock.rate), (Rates::List(vec![1, 2, 3]), 1));
        let names: Vec<&str> = parents.iter().map(Name::text).collect();
        assert_eq!(names, ["b", "a"]);
        let Ok(Entry::Performance(domain)) = "perf,name=p,levels=2:20:200+1".parse() else {
            panic!("no performance domain");
        };
        let levels: Vec<_> = domain
            .levels
            .iter()
            .map(|one| (one.level, one.power, one.latency))
            .collect();
        assert_eq!(
            (levels, domain.sustained),
            (vec![(1, 0, 0), (2, 20, 200)], 2)
        );
    }

    #[test]
    fn every_kind_and_key_is_described() {
        let help = include_str!("devices.txt");
        for kind in [
            "sim", "file", "iio", "hwmon", "fake", "clock", "power", "perf", "cpufreq", "reset",
            "voltage",
        ] {
            assert!(
                help.contains(&format!("\n  {kind} ")),
                "{kind} is not described"
            );
            assert!(
                !matches!(kind.parse::<Entry>(), Err(SpecError::Kind(_))),
                "{kind}"
            );
        }
        for key in [
            "name",
            "value",
            "values",
            "step",
            "path",
            "channel",
            "buffer",
            "chip",
            "type",
            "scale",
            "axes",
            "min",
            "max",
            "intervals",
            "trips",
            "delay",
            "rates",
            "rate",
            "state",
            "parents",
            "allow",
            "fixed",
            "levels",
            "sustained",
            "policy",
            "control",
            "level",
        ] {
            assert!(
                help.contains(&format!("{key}=")) || help.contains(key),
                "{key} is not described"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_entry_or_a_mistake(text in "\\PC{0,60}") {
            let _ = text.parse::<Entry>();
        }

        #[test]
        fn any_settings_are_an_entry_or_a_mistake(
            kind in "sim|file|iio|hwmon|fake|clock|power|perf|cpufreq|reset|voltage",
            settings in prop::collection::vec(
                (
                    "name|value|values|step|path|channel|type|scale|axes|min|max|intervals|trips|delay|rates|rate|state|\
                     parents|allow|fixed|levels|level|sustained|policy|control|chip",
                    "[-0-9:+.a-z]{0,12}",
                ),
                0..6,
            ),
        ) {
            let mut text = kind;
            for (key, value) in settings {
                text += &format!(",{key}={value}");
            }
            if let Ok(Entry::Sensor(spec)) = text.parse() {
                prop_assert!(spec.axes.len() <= MAX_AXES);
                prop_assert!(!spec.intervals.is_empty());
            }
        }
    }
}
