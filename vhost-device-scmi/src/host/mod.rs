//! The real things: places of the host where numbers are read and written.

mod attribute;
mod buffer;
mod cpufreq;
mod file;
mod helper;
mod hwmon;
mod iio;
pub mod power;

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::config::{
    Config, CpuFreqSpec, Domains, Entry, MAX_DOMAINS, MAX_HELPERS, SensorSpec, SourceSpec,
};
use crate::name::Name;
use crate::protocol::Slot;
use crate::protocol::performance::PerformanceDomain;
use crate::protocol::sensor::{Sensor, Source};
use crate::quantity::{MAX_AXES, Quantity};
use crate::wave::Wave;

use helper::Place;
pub use helper::{Connection, Helper, end};

/// Something of the host that cannot be used.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum OpenError {
    #[error("cannot {action} {object}: {source}")]
    Io {
        action: &'static str,
        object: String,
        source: io::Error,
    },
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Bad(String),
}

impl OpenError {
    fn io(action: &'static str, object: impl Display, source: io::Error) -> Self {
        Self::Io {
            action,
            object: object.to_string(),
            source,
        }
    }
}

/// A sensor of the host, as it describes itself.
struct Found {
    name: String,
    quantity: Quantity,
    /// Readings are multiples of ten to this power.
    scale: i8,
    axes: Vec<Name>,
    resolution: (u32, i8),
    place: Box<dyn Place>,
}

/// All that the device has, opened.
pub struct Opened {
    /// The domains.
    pub domains: Domains,
    /// The threads that wait for the host on their behalf.
    pub helpers: Arc<[Arc<Helper>]>,
}

/// Opens everything that a configuration names.
///
/// # Errors
/// If something of it is missing, may not be used, or there is too much of it.
pub fn open(config: &Config) -> Result<Opened, OpenError> {
    let mut opener = Opener {
        sysfs: &config.sysfs,
        groups: Vec::new(),
    };
    let mut domains = Domains::default();
    for entry in &config.entries {
        match entry {
            Entry::Sensor(spec) => domains.sensors.push(opener.sensor(spec)?),
            Entry::Power(spec) => domains.power.push(spec.clone()),
            Entry::Performance(spec) => domains.performance.push(spec.clone()),
            Entry::CpuFreq(spec) => domains.performance.push(opener.cpufreq(spec)?),
            Entry::Clock { clock, .. } => domains.clocks.push(clock.clone()),
            Entry::Reset(spec) => domains.resets.push(spec.clone()),
            Entry::Voltage(spec) => domains.voltages.push(spec.clone()),
        }
    }
    name_parents(&config.entries, &mut domains)?;
    let counts = [
        domains.sensors.len(),
        domains.power.len(),
        domains.performance.len(),
        domains.clocks.len(),
        domains.resets.len(),
        domains.voltages.len(),
    ];
    if counts.iter().any(|count| *count > MAX_DOMAINS) {
        return Err(OpenError::Bad(format!(
            "there are more than {MAX_DOMAINS} of a kind"
        )));
    }
    let helpers = opener.groups.into_iter().map(|group| {
        let name = group.thing.display().to_string();
        Helper::new(&name, group.places)
    });
    Ok(Opened {
        domains,
        helpers: helpers.collect(),
    })
}

/// Gives clocks the numbers of their parents.
fn name_parents(entries: &[Entry], domains: &mut Domains) -> Result<(), OpenError> {
    let names: Vec<Name> = domains
        .clocks
        .iter()
        .map(|clock| clock.name.clone())
        .collect();
    let parents = entries.iter().filter_map(|entry| match entry {
        Entry::Clock { parents, .. } => Some(parents),
        _ => None,
    });
    for (clock, parents) in domains.clocks.iter_mut().zip(parents) {
        for parent in parents {
            let number = names.iter().position(|name| name == parent);
            let number = number.and_then(|number| u32::try_from(number).ok());
            clock.parents.push(number.ok_or_else(|| {
                OpenError::Bad(format!(
                    "{} has a parent {parent}, which is no clock",
                    clock.name
                ))
            })?);
        }
    }
    Ok(())
}

/// Places that are waited for together.
struct Group {
    thing: PathBuf,
    places: Vec<Box<dyn Place>>,
}

struct Opener<'a> {
    sysfs: &'a Path,
    groups: Vec<Group>,
}

impl Opener<'_> {
    /// Adds a place of `thing`.
    fn add(&mut self, thing: &Path, place: Box<dyn Place>) -> Result<Slot, OpenError> {
        let helper = match self.groups.iter().position(|group| group.thing == thing) {
            Some(helper) => helper,
            None if self.groups.len() >= MAX_HELPERS => {
                return Err(OpenError::Bad(format!(
                    "more than {MAX_HELPERS} things of the host are used"
                )));
            }
            None => {
                self.groups.push(Group {
                    thing: thing.to_owned(),
                    places: Vec::new(),
                });
                self.groups.len() - 1
            }
        };
        let mut slot = Slot { helper, place: 0 };
        if let Some(group) = self.groups.get_mut(helper) {
            slot.place = group.places.len();
            group.places.push(place);
        }
        Ok(slot)
    }

    fn sensor(&mut self, spec: &SensorSpec) -> Result<Sensor, OpenError> {
        let (found, thing) = match &spec.source {
            SourceSpec::Waves(waves) => return simulated(spec, waves.clone()),
            SourceSpec::Table(path, step) => {
                return simulated(spec, file::table(path, axes(spec), *step)?);
            }
            SourceSpec::File(path) => (file::open(path, spec)?, path.clone()),
            SourceSpec::Iio {
                path,
                channel,
                buffer,
            } => (
                iio::open(path, channel, spec.scale, buffer.as_deref())?,
                path.clone(),
            ),
            SourceSpec::Hwmon { chip, channel } => {
                let folder = hwmon::find(chip, self.sysfs)?;
                (hwmon::open(&folder, channel, spec.scale)?, folder)
            }
        };
        let name = match &spec.name {
            Some(name) => name.clone(),
            None => tellable(&found.name)?,
        };
        let axes = if spec.axes.len() == found.axes.len() {
            spec.axes.clone()
        } else {
            found.axes
        };
        let sensor = Sensor {
            name,
            quantity: spec.quantity.unwrap_or(found.quantity),
            scale: found.scale,
            range: spec
                .range
                .map_or((i64::MIN, i64::MAX), |range| scaled(range, found.scale)),
            resolution: found.resolution,
            intervals: spec.intervals.clone(),
            trips: if axes.is_empty() { spec.trips } else { 0 },
            axes,
            delay: spec.delay,
            source: Source::Host(self.add(&thing, found.place)?),
        };
        Ok(sensor)
    }

    fn cpufreq(&mut self, spec: &CpuFreqSpec) -> Result<PerformanceDomain, OpenError> {
        let opened = cpufreq::open(spec, self.sysfs)?;
        let thing = PathBuf::from(&opened.name);
        let sustained = opened.levels.last().map_or(0, |level| level.level);
        Ok(PerformanceDomain {
            name: match &spec.name {
                Some(name) => name.clone(),
                None => tellable(&opened.name)?,
            },
            levels: opened.levels,
            sustained,
            is_fixed: !spec.is_controlled,
            host: Some(self.add(&thing, opened.place)?),
        })
    }
}

/// A name that the host gave, as far as a guest can be told it.
fn tellable(name: &str) -> Result<Name, OpenError> {
    let text: String = name
        .chars()
        .map(|letter| {
            if matches!(letter, ' '..='~') {
                letter
            } else {
                '?'
            }
        })
        .take(crate::wire::LONG_NAME - 1)
        .collect();
    text.parse().map_err(OpenError::Bad)
}

fn axes(spec: &SensorSpec) -> usize {
    spec.axes.len().clamp(1, MAX_AXES)
}

fn simulated(spec: &SensorSpec, waves: Vec<Wave>) -> Result<Sensor, OpenError> {
    let quantity = spec.quantity.unwrap_or(Quantity::TEMPERATURE);
    let scale = spec.scale.unwrap_or(quantity.usual_scale());
    let name = spec.name.clone();
    let name = name.ok_or_else(|| OpenError::Bad("a simulated sensor needs a name".into()))?;
    let range = spec.range.or_else(|| whole_range(&waves));
    Ok(Sensor {
        name,
        quantity,
        scale,
        range: range.map_or((i64::MIN, i64::MAX), |range| scaled(range, scale)),
        resolution: (1, scale),
        axes: spec.axes.clone(),
        intervals: spec.intervals.clone(),
        trips: if spec.axes.is_empty() { spec.trips } else { 0 },
        delay: spec.delay,
        source: Source::Waves(waves),
    })
}

/// What the readings of all axes are within, if that is known.
fn whole_range(waves: &[Wave]) -> Option<(f64, f64)> {
    let ranges = waves.iter().map(Wave::range).collect::<Option<Vec<_>>>()?;
    let low = ranges.iter().map(|range| range.0).reduce(f64::min)?;
    let high = ranges.iter().map(|range| range.1).reduce(f64::max)?;
    Some((low, high))
}

/// As multiples of ten to the power of `scale`; a conversion stops at the limits of the type.
fn scaled((low, high): (f64, f64), scale: i8) -> (i64, i64) {
    let factor = 10f64.powi(-i32::from(scale));
    (
        (low * factor).round() as i64,
        (high * factor).round() as i64,
    )
}
