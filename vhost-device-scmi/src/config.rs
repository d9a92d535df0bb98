//! What the device is asked to be.

use std::path::PathBuf;
use std::time::Duration;

use crate::name::Name;
use crate::protocol::clock::Clock;
use crate::protocol::performance::{Level, PerformanceDomain};
use crate::protocol::power::PowerDomain;
use crate::protocol::reset::ResetDomain;
use crate::protocol::sensor::Sensor;
use crate::protocol::voltage::VoltageDomain;
use crate::quantity::{Interval, Quantity};
use crate::wave::Wave;

/// Most domains of a protocol.
pub const MAX_DOMAINS: usize = 1024;
/// Most entries of a list, such as the rates of a clock.
pub const MAX_ENTRIES: usize = 1024;
/// Most parents of a clock.
pub const MAX_PARENTS: usize = 255;
/// Most trip points of a sensor.
pub const MAX_TRIPS: u8 = 8;
/// Most places of the host that can be waited for independently; each has a thread.
pub const MAX_HELPERS: usize = 64;

/// The domains of each protocol, in the guest's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Domains {
    /// Sensors.
    pub sensors: Vec<Sensor>,
    /// Power domains.
    pub power: Vec<PowerDomain>,
    /// Performance domains.
    pub performance: Vec<PerformanceDomain>,
    /// Clocks.
    pub clocks: Vec<Clock>,
    /// Reset domains.
    pub resets: Vec<ResetDomain>,
    /// Voltage domains.
    pub voltages: Vec<VoltageDomain>,
}

/// The device.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What there is, in the guest's order.
    pub entries: Vec<Entry>,
    /// What a guest's wish to be shut down or reset comes to.
    pub system_power: SystemPower,
    /// The only protocols that are offered, if not all that have domains.
    pub protocols: Option<Vec<u8>>,
    /// How long the host may take for a reading.
    pub timeout: Duration,
    /// Where sysfs is.
    pub sysfs: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            system_power: SystemPower::Refuse,
            protocols: None,
            timeout: Duration::from_millis(500),
            sysfs: "/sys".into(),
        }
    }
}

/// What a guest's wish to be shut down or reset comes to. It is logged in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SystemPower {
    /// It is denied.
    #[default]
    Refuse,
    /// It is granted; if it is a graceful one the guest is told to carry it out.
    Accept,
    /// It is granted, and a line is written to this file, pipe or socket's path: `shutdown`, `cold-reset`, `warm-reset` or
    /// `suspend`.
    Tell(PathBuf),
}

/// One sensor or domain.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the types say it
pub enum Entry {
    Sensor(Box<SensorSpec>),
    Power(PowerDomain),
    Performance(PerformanceDomain),
    CpuFreq(CpuFreqSpec),
    Clock {
        clock: Clock,
        /// The names of its parents, which have their numbers once all clocks are known.
        parents: Vec<Name>,
    },
    Reset(ResetDomain),
    Voltage(VoltageDomain),
}

/// A sensor. What is not said is taken from its source.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorSpec {
    /// What it is called.
    pub name: Option<Name>,
    /// What it measures.
    pub quantity: Option<Quantity>,
    /// Readings are multiples of ten to this power, -16 to 15.
    pub scale: Option<i8>,
    /// Names of the axes, of a sensor that has any.
    pub axes: Vec<Name>,
    /// The smallest and the largest reading, in units of the quantity.
    pub range: Option<(f64, f64)>,
    /// The update intervals to choose from, the longest first.
    pub intervals: Vec<Interval>,
    /// Trip points; none for a sensor with axes.
    pub trips: u8,
    /// Readings can be asynchronous, and take this long then.
    pub delay: Option<Duration>,
    /// Where readings come from.
    pub source: SourceSpec,
}

/// Where readings come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceSpec {
    /// A curve for each axis.
    Waves(Vec<Wave>),
    /// A file with a line for each point of time, a number for each axis in it, read at the start; and the time from line to
    /// line in seconds.
    Table(PathBuf, f64),
    /// A file with a number for each axis, read each time; or a pipe that numbers come from.
    File(PathBuf),
    /// A channel of an IIO device.
    Iio {
        /// Its folder in sysfs.
        path: PathBuf,
        /// The channel, such as `in_voltage0`; with axes behind it, such as `in_accel`, all of them.
        channel: String,
        /// The device node to read from while updates are wanted.
        buffer: Option<PathBuf>,
    },
    /// A channel of a hardware monitor.
    Hwmon {
        /// Its folder in sysfs, or its name.
        chip: String,
        /// The channel, such as `temp1`.
        channel: String,
    },
}

/// A frequency policy of the host's processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuFreqSpec {
    /// What it is called; the policy's name otherwise.
    pub name: Option<Name>,
    /// Its number.
    pub policy: u32,
    /// The guest may set level and limits.
    pub is_controlled: bool,
    /// The only levels that the guest gets, in kilohertz.
    pub range: Option<(u32, u32)>,
    /// The levels, where the host has no list.
    pub levels: Vec<Level>,
}
