//! Readings from ordinary files and pipes.

use std::io;
use std::path::Path;

use super::attribute::{Attribute, nonsense};
use super::helper::Place;
use super::{Found, OpenError, axes};
use crate::config::{MAX_ENTRIES, SensorSpec};
use crate::decimal::Decimal;
use crate::quantity::{Quantity, Values};
use crate::wave::{Wave, number};

/// A file with a number for each axis in its first line, or a pipe that such lines come from.
#[derive(Debug)]
struct Line {
    attribute: Attribute,
    axes: usize,
    scale: i8,
}

impl Place for Line {
    fn read(&mut self) -> io::Result<Values> {
        let line = self.attribute.line()?;
        let mut values = Values::default();
        for word in line.split_whitespace().take(self.axes) {
            let decimal: Decimal = word.parse().map_err(|()| nonsense())?;
            values.push(decimal.at(self.scale).ok_or_else(nonsense)?);
        }
        if values.numbers().len() < self.axes {
            return Err(nonsense());
        }
        Ok(values)
    }
}

/// Opens a file that is read for each reading.
pub fn open(path: &Path, spec: &SensorSpec) -> Result<Found, OpenError> {
    let quantity = spec.quantity.unwrap_or(Quantity::TEMPERATURE);
    let scale = spec.scale.unwrap_or(quantity.usual_scale());
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(Found {
        name: name.to_string_lossy().into_owned(),
        quantity,
        scale,
        axes: spec.axes.clone(),
        resolution: (1, scale),
        place: Box::new(Line {
            attribute: Attribute::open(path)?,
            axes: axes(spec),
            scale,
        }),
    })
}

/// Reads a file with a line of numbers, one for each axis, for each step of `step` seconds.
pub fn table(path: &Path, axes: usize, step: f64) -> Result<Vec<Wave>, OpenError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| OpenError::io("read", path.display(), error))?;
    let mut columns = vec![Vec::new(); axes];
    for (position, line) in text.lines().enumerate() {
        let bad = || {
            OpenError::Bad(format!(
                "line {} of {} is not {axes} numbers",
                position + 1,
                path.display()
            ))
        };
        let numbers: Vec<f64> = line
            .split_whitespace()
            .map(number)
            .collect::<Option<_>>()
            .ok_or_else(bad)?;
        if numbers.len() != axes || position >= MAX_ENTRIES {
            return Err(bad());
        }
        for (column, number) in columns.iter_mut().zip(numbers) {
            column.push(number);
        }
    }
    if columns.iter().any(Vec::is_empty) {
        return Err(OpenError::Bad(format!("{} is empty", path.display())));
    }
    Ok(columns
        .into_iter()
        .map(|column| Wave::Table(column.into(), step))
        .collect())
}
