//! Channels of the kernel's hardware monitors (Documentation/hwmon/sysfs-interface.rst).

use std::io;
use std::path::{Path, PathBuf};

use super::attribute::{Attribute, optional_text};
use super::helper::Place;
use super::{Found, OpenError};
use crate::quantity::{Quantity, Values};

/// What the kernel calls a channel of this kind, what that is, and the power of ten of its unit.
const KINDS: &[(&str, Quantity, i8)] = &[
    ("temp", Quantity::TEMPERATURE, -3),
    ("in", Quantity::VOLTAGE, -3),
    ("curr", Quantity::CURRENT, -3),
    ("power", Quantity::POWER, -6),
    ("energy", Quantity::ENERGY, -6),
    ("fan", Quantity::FAN, 0),
    ("humidity", Quantity::PERCENT, -3),
    ("freq", Quantity::FREQUENCY, 0),
];

#[derive(Debug)]
struct Channel {
    attribute: Attribute,
    /// Readings are multiples of ten to this power, in the kernel's unit.
    exponent: i8,
}

impl Place for Channel {
    fn read(&mut self) -> io::Result<Values> {
        let number = self.attribute.decimal()?.at(self.exponent);
        let number = number.ok_or_else(|| io::Error::other("the reading is too large"))?;
        Ok([number].into_iter().collect())
    }
}

/// The folder of a monitor that is given by its path or by its name.
pub fn find(chip: &str, sysfs: &Path) -> Result<PathBuf, OpenError> {
    if chip.contains('/') {
        return Ok(chip.into());
    }
    let class = sysfs.join("class/hwmon");
    let entries = class
        .read_dir()
        .map_err(|error| OpenError::io("look into", class.display(), error))?;
    let mut known = Vec::new();
    let mut found = Vec::new();
    for folder in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = optional_text(&folder.join("name")).unwrap_or_default();
        let is_it = name == chip || folder.file_name().is_some_and(|own| own == chip);
        if is_it {
            found.push(folder);
        }
        known.push(name);
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(OpenError::Missing(format!(
            "there is no hardware monitor {chip:?} (there are: {})",
            known.join(" ")
        ))),
        _ => Err(OpenError::Bad(format!(
            "several hardware monitors are called {chip:?}; give the path of one"
        ))),
    }
}

/// Opens a channel of the monitor in `folder`. `scale` is the power of ten that the guest gets, if one is chosen.
pub fn open(folder: &Path, channel: &str, scale: Option<i8>) -> Result<Found, OpenError> {
    let kind = channel.trim_end_matches(|end: char| end.is_ascii_digit());
    let (_, quantity, unit) = KINDS
        .iter()
        .find(|(name, ..)| *name == kind)
        .ok_or_else(|| {
            OpenError::Bad(format!("{channel:?} is no channel of a hardware monitor"))
        })?;
    let attribute = Attribute::open(&folder.join(format!("{channel}_input")))?;
    let scale = scale.unwrap_or(*unit);
    let label = optional_text(&folder.join(format!("{channel}_label")));
    let chip = optional_text(&folder.join("name")).unwrap_or_default();
    Ok(Found {
        name: label.unwrap_or_else(|| format!("{chip}_{channel}")),
        quantity: *quantity,
        scale,
        axes: Vec::new(),
        resolution: (1, *unit),
        place: Box::new(Channel {
            attribute,
            exponent: scale.saturating_sub(*unit),
        }),
    })
}
