//! Channels of the kernel's Industrial I/O devices (Documentation/ABI/testing/sysfs-bus-iio).

use std::io;
use std::path::{Path, PathBuf};

use super::attribute::{Attribute, first_decimal, optional_text};
use super::helper::Place;
use super::{Found, OpenError, buffer};
use crate::decimal::Linear;
use crate::name::Name;
use crate::quantity::{MAX_AXES, Quantity, Values};

/// What the kernel calls a channel of this kind, what that is, and the power of ten of its unit.
const KINDS: &[(&str, Quantity, i8)] = &[
    ("accel", Quantity::ACCELERATION, 0),
    ("anglvel", Quantity::ANGULAR_VELOCITY, 0),
    ("angl", Quantity::ANGLE, 0),
    ("count", Quantity::COUNT, 0),
    ("current", Quantity::CURRENT, -3),
    ("distance", Quantity::DISTANCE, 0),
    ("energy", Quantity::ENERGY, 0),
    ("humidityrelative", Quantity::PERCENT, -3),
    ("illuminance", Quantity::LIGHT, 0),
    ("magn", Quantity::MAGNETIC, 0),
    ("power", Quantity::POWER, -3),
    ("pressure", Quantity::PRESSURE, 0),
    ("proximity", Quantity::DISTANCE, 0),
    ("resistance", Quantity::RESISTANCE, 0),
    ("temp", Quantity::TEMPERATURE, -3),
    ("velocity", Quantity::VELOCITY, 0),
    ("voltage", Quantity::VOLTAGE, -3),
];

/// The order in which axes are told; others follow by name.
const AXES: [&str; 4] = ["x", "y", "z", "w"];

/// Readings that are processed by the kernel may have this many more digits than their unit.
const PROCESSED_DIGITS: i8 = 3;

/// Numbers of one axis.
#[derive(Debug)]
struct Axis {
    attribute: Attribute,
    /// `None`: the kernel has done it already.
    linear: Option<Linear>,
}

impl Axis {
    /// The power of ten with which readings are exact.
    fn finest(&self) -> i8 {
        match &self.linear {
            Some(linear) => linear.scale.exponent.min(0),
            None => -PROCESSED_DIGITS,
        }
    }

    /// The difference of two raw numbers, as described to the guest; none if it has too many digits for that.
    fn resolution(&self, unit: i8) -> Option<(u32, i8)> {
        let scale = self.linear?.scale;
        let digits = u32::try_from(scale.mantissa.unsigned_abs()).ok()?;
        (digits < 1 << 27).then_some((digits, scale.exponent.saturating_add(unit)))
    }
}

/// A channel with all its axes.
#[derive(Debug)]
struct Channel {
    axes: Vec<Axis>,
    /// Readings are multiples of ten to this power, in the kernel's unit.
    exponent: i8,
}

impl Place for Channel {
    fn read(&mut self) -> io::Result<Values> {
        let exponent = self.exponent;
        let read = |axis: &mut Axis| {
            let number = match &axis.linear {
                Some(linear) => linear.apply(axis.attribute.integer()?, exponent),
                None => axis.attribute.decimal()?.at(exponent),
            };
            number.ok_or_else(|| io::Error::other("the reading is too large"))
        };
        self.axes.iter_mut().map(read).collect()
    }
}

/// Opens a channel of the device in `folder`. `scale` is the power of ten that the guest gets, if one is chosen; `buffer` is the
/// device's node, if readings are to be taken from there.
pub fn open(
    folder: &Path,
    channel: &str,
    scale: Option<i8>,
    buffer: Option<&Path>,
) -> Result<Found, OpenError> {
    let kind = channel.strip_prefix("in_").unwrap_or(channel);
    let (quantity, unit) = KINDS
        .iter()
        .find(|(name, ..)| kind.starts_with(name))
        .map_or((Quantity(1), 0), |(_, quantity, unit)| (*quantity, *unit));
    let suffixes = suffixes(folder, channel)?;
    let parts: Vec<String> = suffixes
        .iter()
        .map(|suffix| format!("{channel}{suffix}"))
        .collect();
    let axes = parts
        .iter()
        .map(|full| open_axis(folder, channel, full))
        .collect::<Result<Vec<Axis>, _>>()?;
    let finest = axes.iter().map(Axis::finest).min().unwrap_or_default();
    let scale = scale.unwrap_or_else(|| finest.saturating_add(unit).clamp(-16, 15));
    let exponent = scale.saturating_sub(unit);
    // as Linux wants them in the guest: with an upper case letter behind the last underscore
    let name = |suffix: &String| format!("{kind}{}", suffix.to_uppercase()).parse();
    Ok(Found {
        name: told_name(folder, kind),
        quantity,
        scale,
        axes: match suffixes.as_slice() {
            [only] if only.is_empty() => Vec::new(),
            several => several
                .iter()
                .map(name)
                .collect::<Result<Vec<Name>, _>>()
                .map_err(OpenError::Bad)?,
        },
        resolution: axes
            .iter()
            .find_map(|axis| axis.resolution(unit))
            .unwrap_or((1, scale)),
        place: match buffer {
            None => Box::new(Channel { axes, exponent }),
            Some(node) => {
                let linears = axes
                    .iter()
                    .map(|axis| axis.linear.unwrap_or(Linear::IDENTITY));
                let linears = linears.collect();
                Box::new(buffer::open(folder, node, &parts, linears, exponent)?)
            }
        },
    })
}

/// What follows the channel's name in the names of its readings: nothing, or an underscore and an axis each.
fn suffixes(folder: &Path, channel: &str) -> Result<Vec<String>, OpenError> {
    let entries = folder
        .read_dir()
        .map_err(|error| OpenError::io("look into", folder.display(), error))?;
    let mut suffixes: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| {
            let rest = file.strip_prefix(channel)?;
            let suffix = rest.strip_suffix("_raw").or(rest.strip_suffix("_input"))?;
            (suffix.is_empty() || suffix.starts_with('_')).then(|| suffix.to_owned())
        })
        .collect();
    let order = |suffix: &String| {
        let axis = suffix.trim_start_matches('_');
        AXES.iter()
            .position(|known| *known == axis)
            .unwrap_or(AXES.len())
    };
    suffixes.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.cmp(b)));
    suffixes.dedup();
    // a channel with a reading of its own is that one
    if suffixes.iter().any(String::is_empty) {
        suffixes = vec![String::new()];
    }
    match suffixes.len() {
        0 => Err(OpenError::Missing(format!(
            "{} has no channel {channel}",
            folder.display()
        ))),
        1..=MAX_AXES => Ok(suffixes),
        count => Err(OpenError::Bad(format!(
            "{channel} of {} has {count} parts; {MAX_AXES} are possible",
            folder.display()
        ))),
    }
}

fn open_axis(folder: &Path, channel: &str, full: &str) -> Result<Axis, OpenError> {
    let processed = folder.join(format!("{full}_input"));
    if processed.exists() {
        let attribute = Attribute::open(&processed)?;
        return Ok(Axis {
            attribute,
            linear: None,
        });
    }
    let attribute = Attribute::open(&folder.join(format!("{full}_raw")))?;
    let number = |what: &str| first_decimal(&places(folder, channel, full, what));
    let linear = Linear {
        offset: number("offset")?.unwrap_or(Linear::IDENTITY.offset),
        scale: number("scale")?.unwrap_or(Linear::IDENTITY.scale),
    };
    Ok(Axis {
        attribute,
        linear: Some(linear),
    })
}

/// Where a scale or an offset can be: with the axis, with the channel, or with all channels of its kind.
fn places(folder: &Path, channel: &str, full: &str, what: &str) -> Vec<PathBuf> {
    // in_voltage1-voltage2 shares with others like it what begins with in_voltage-voltage
    let shared = channel.replace(|part: char| part.is_ascii_digit(), "");
    let kind = channel
        .split(|part: char| part.is_ascii_digit())
        .next()
        .unwrap_or(channel);
    // the channel may be a single axis
    let whole = channel.rsplit_once('_').map_or(channel, |(whole, _)| whole);
    [full, channel, &shared, kind, whole]
        .iter()
        .map(|name| folder.join(format!("{name}_{what}")))
        .collect()
}

/// The device's and the channel's names, as far as a guest can be told them.
fn told_name(folder: &Path, kind: &str) -> String {
    match optional_text(&folder.join("name")) {
        Some(device) if !device.is_empty() => format!("{device}_{kind}"),
        _ => kind.to_owned(),
    }
}
