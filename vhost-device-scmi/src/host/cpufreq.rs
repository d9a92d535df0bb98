//! Frequency policies of the host's processors (Documentation/admin-guide/pm/cpufreq.rst).

use std::io;
use std::path::{Path, PathBuf};

use super::OpenError;
use super::attribute::{Attribute, nonsense, optional_text};
use super::helper::Place;
use crate::config::CpuFreqSpec;
use crate::protocol::performance::Level;
use crate::quantity::Values;

/// Levels between the lowest and the highest frequency, both included, where the host has no list.
const STEPS: u32 = 8;

/// A policy's present frequency and its limits.
#[derive(Debug)]
struct Policy {
    current: Attribute,
    min: Attribute,
    max: Attribute,
    /// The limits that were there before any were written.
    original: Option<Values>,
}

impl Policy {
    fn limits(&mut self) -> io::Result<Values> {
        let numbers = [self.min.integer()?, self.max.integer()?];
        Ok(numbers.into_iter().collect())
    }
}

impl Place for Policy {
    /// The frequency, the lowest and the highest one, in kilohertz.
    fn read(&mut self) -> io::Result<Values> {
        let numbers = [
            self.current.integer()?,
            self.min.integer()?,
            self.max.integer()?,
        ];
        Ok(numbers.into_iter().collect())
    }

    /// Takes the lowest and the highest frequency. The kernel never has the lowest above the highest, not for a moment.
    fn write(&mut self, values: &Values) -> io::Result<()> {
        let [min, max] = values.numbers() else {
            return Err(nonsense());
        };
        if self.original.is_none() {
            self.original = Some(self.limits()?);
        }
        if *max < self.min.integer()? {
            self.min.write(*min)?;
            self.max.write(*max)
        } else {
            self.max.write(*max)?;
            self.min.write(*min)
        }
    }

    fn restore(&mut self) -> io::Result<()> {
        match self.original {
            Some(limits) => self.write(&limits),
            None => Ok(()),
        }
    }
}

/// An opened policy.
pub struct Opened {
    /// Its folder's name.
    pub name: String,
    /// The levels that the guest gets, the lowest first.
    pub levels: Vec<Level>,
    /// Where they are read and set.
    pub place: Box<dyn Place>,
}

/// Opens a policy.
pub fn open(spec: &CpuFreqSpec, sysfs: &Path) -> Result<Opened, OpenError> {
    let name = format!("policy{}", spec.policy);
    let folder = sysfs.join("devices/system/cpu/cpufreq").join(&name);
    let limit = |file: &str| {
        let path = folder.join(file);
        if spec.is_controlled {
            Attribute::open_writable(&path)
        } else {
            Attribute::open(&path)
        }
    };
    let policy = Policy {
        current: Attribute::open(&folder.join("scaling_cur_freq"))?,
        min: limit("scaling_min_freq")?,
        max: limit("scaling_max_freq")?,
        original: None,
    };
    Ok(Opened {
        levels: levels(spec, &folder)?,
        name,
        place: Box::new(policy),
    })
}

fn levels(spec: &CpuFreqSpec, folder: &Path) -> Result<Vec<Level>, OpenError> {
    let mut levels = spec.levels.clone();
    if levels.is_empty() {
        let frequencies = match optional_text(&folder.join("scaling_available_frequencies")) {
            Some(list) => list
                .split_whitespace()
                .map(|number| number.parse().ok())
                .collect::<Option<Vec<u32>>>()
                .ok_or_else(|| {
                    OpenError::Bad(format!("{} lists no frequencies", folder.display()))
                })?,
            None => between(
                frequency(folder.join("cpuinfo_min_freq"))?,
                frequency(folder.join("cpuinfo_max_freq"))?,
            ),
        };
        levels = frequencies
            .into_iter()
            .map(|level| Level {
                level,
                power: 0,
                latency: 0,
            })
            .collect();
    }
    if let Some((low, high)) = spec.range {
        levels.retain(|level| (low..=high).contains(&level.level));
    }
    levels.sort_by_key(|level| level.level);
    levels.dedup_by_key(|level| level.level);
    if levels.is_empty() {
        let none = format!(
            "no frequency of {} is one that the guest may have",
            folder.display()
        );
        return Err(OpenError::Bad(none));
    }
    Ok(levels)
}

fn frequency(path: PathBuf) -> Result<u32, OpenError> {
    let number = Attribute::open(&path)?
        .integer()
        .map_err(|error| OpenError::io("read", path.display(), error))?;
    u32::try_from(number).map_err(|_| OpenError::Bad(format!("{} is no frequency", path.display())))
}

fn between(low: u32, high: u32) -> Vec<u32> {
    let width = u64::from(high.saturating_sub(low));
    (0..STEPS)
        .map(|step| {
            low + u32::try_from(width * u64::from(step) / u64::from(STEPS - 1)).unwrap_or(0)
        })
        .collect()
}
