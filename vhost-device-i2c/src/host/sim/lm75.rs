//! The LM75 temperature sensor.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{Chip, not_acknowledged};
use crate::config::Temperature;
use crate::host::OpenError;

/// Registers by their numbers; the chip looks at three bits of a number.
const TEMPERATURE: u8 = 0;
const CONFIGURATION: u8 = 1;
const HYSTERESIS: u8 = 2;
const SHUTDOWN_LIMIT: u8 = 3;
const REGISTER_MASK: u8 = 7;

/// Configuration bits that exist; the others read as 0.
const CONFIGURATION_BITS: u8 = 0x1f;
/// Configuration bit: measure no more.
const SHUTDOWN: u8 = 1;

/// What the limits are after power-on: 75 and 80 degrees.
const POWER_ON_HYSTERESIS: i16 = 75 << 8;
const POWER_ON_LIMIT: i16 = 80 << 8;
/// Bits of a limit that exist: 9, as many as a measured value has.
const LIMIT_BITS: i16 = !0x7f;

/// What the chip can measure, in thousandths of a degree.
const LOWEST: i32 = -55_000;
const HIGHEST: i32 = 125_000;

/// Longest content of a file with a temperature.
const FILE_BYTES: usize = 16;

/// One sensor.
pub struct Lm75 {
    source: Source,
    pointer: u8,
    configuration: u8,
    hysteresis: i16,
    limit: i16,
    /// The last value measured.
    measured: i16,
    /// What was read last; registers that do not exist show it.
    last: i16,
}

/// What is measured, in thousandths of a degree.
enum Source {
    Constant(i32),
    File(File),
}

impl Lm75 {
    /// A sensor after power-on.
    ///
    /// # Errors
    /// If the file with the temperature cannot be opened.
    pub fn open(temperature: &Temperature) -> Result<Self, OpenError> {
        let source = match temperature {
            Temperature::Constant(value) => Source::Constant(*value),
            Temperature::File(path) => {
                let fail = |error| OpenError::Io {
                    action: "open",
                    object: path.display().to_string(),
                    error,
                };
                Source::File(File::open(path).map_err(fail)?)
            }
        };
        Ok(Self {
            source,
            pointer: TEMPERATURE,
            configuration: 0,
            hysteresis: POWER_ON_HYSTERESIS,
            limit: POWER_ON_LIMIT,
            measured: 0,
            last: 0,
        })
    }

    /// The register that the pointer is at, as the chip would send it.
    fn register(&mut self) -> io::Result<i16> {
        Ok(match self.pointer & REGISTER_MASK {
            TEMPERATURE => self.measure()?,
            CONFIGURATION => i16::from_be_bytes([self.configuration; 2]),
            HYSTERESIS => self.hysteresis,
            SHUTDOWN_LIMIT => self.limit,
            _ => self.last,
        })
    }

    fn measure(&mut self) -> io::Result<i16> {
        if self.configuration & SHUTDOWN == 0 {
            self.measured = match &self.source {
                Source::Constant(value) => encode(*value),
                Source::File(file) => encode(read(file)?),
            };
        }
        Ok(self.measured)
    }

    fn set(&mut self, value: &[u8]) {
        match (self.pointer & REGISTER_MASK, value) {
            (CONFIGURATION, [value, ..]) => self.configuration = value & CONFIGURATION_BITS,
            (HYSTERESIS, [high, low, ..]) => self.hysteresis = limit(*high, *low),
            (SHUTDOWN_LIMIT, [high, low, ..]) => self.limit = limit(*high, *low),
            // the temperature cannot be written, and half a limit is none
            _ => {}
        }
    }
}

fn limit(high: u8, low: u8) -> i16 {
    i16::from_be_bytes([high, low]) & LIMIT_BITS
}

/// Half degrees in the upper nine bits.
fn encode(thousandths: i32) -> i16 {
    let half_degrees = thousandths.clamp(LOWEST, HIGHEST).div_euclid(500);
    (half_degrees << 7) as i16
}

/// The temperature in a file.
fn read(file: &File) -> io::Result<i32> {
    let mut buffer = [0; FILE_BYTES];
    let length = file.read_at(&mut buffer, 0)?;
    let text = buffer.get(..length).unwrap_or_default();
    str::from_utf8(text)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        // a sensor that cannot measure does not answer
        .ok_or_else(not_acknowledged)
}

impl Chip for Lm75 {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((pointer, value)) = bytes.split_first() {
            self.pointer = *pointer;
            self.set(value);
        }
        Ok(())
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let value = self.register()?;
        self.last = value;
        // a controller that goes on reading gets the register again
        for (byte, part) in out.iter_mut().zip(value.to_be_bytes().into_iter().cycle()) {
            *byte = part;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use vhost_device_testkit::process::TempDir;

    use super::*;

    fn chip(temperature: i32) -> Lm75 {
        Lm75::open(&Temperature::Constant(temperature)).unwrap()
    }

    fn register<const N: usize>(chip: &mut Lm75, number: u8) -> [u8; N] {
        let mut out = [0; N];
        chip.write(&[number]).unwrap();
        chip.read(&mut out).unwrap();
        out
    }

    #[test]
    fn temperatures_are_encoded_as_in_the_data_sheet() {
        let table = [
            (125_000, [0x7d, 0x00]),
            (25_000, [0x19, 0x00]),
            (500, [0x00, 0x80]),
            (0, [0x00, 0x00]),
            (-500, [0xff, 0x80]),
            (-25_000, [0xe7, 0x00]),
            (-55_000, [0xc9, 0x00]),
            (21_749, [0x15, 0x80]),
            (999_999, [0x7d, 0x00]),
            (i32::MIN, [0xc9, 0x00]),
        ];
        for (temperature, expected) in table {
            assert_eq!(
                register(&mut chip(temperature), TEMPERATURE),
                expected,
                "{temperature}"
            );
        }
    }

    /// The steps of the Linux driver's detection, which tell an LM75 from other chips.
    #[test]
    fn it_is_told_from_other_chips_by_its_quirks() {
        let mut chip = chip(21_500);
        let [configuration] = register(&mut chip, CONFIGURATION);
        assert_eq!(configuration & 0xe0, 0);
        for limit in [HYSTERESIS, SHUTDOWN_LIMIT] {
            let value: [u8; 1] = register(&mut chip, limit);
            assert_ne!(value, [0]);
            for missing in 4..=7 {
                assert_eq!(register(&mut chip, missing), value);
            }
        }
        for base in (8..=248).step_by(40) {
            for number in [CONFIGURATION, HYSTERESIS, SHUTDOWN_LIMIT] {
                let value: [u8; 1] = register(&mut chip, number);
                assert_eq!(register(&mut chip, base + number), value);
            }
        }
    }

    #[test]
    fn limits_and_configuration_can_be_set_and_the_temperature_cannot() {
        let mut chip = chip(21_500);
        chip.write(&[HYSTERESIS, 0x12, 0xff]).unwrap();
        chip.write(&[SHUTDOWN_LIMIT, 0x34]).unwrap();
        chip.write(&[CONFIGURATION, 0xfe]).unwrap();
        chip.write(&[TEMPERATURE, 1, 2]).unwrap();
        assert_eq!(register(&mut chip, HYSTERESIS), [0x12, 0x80]);
        assert_eq!(
            register(&mut chip, SHUTDOWN_LIMIT),
            [80, 0],
            "half a value is none"
        );
        assert_eq!(register(&mut chip, CONFIGURATION), [0x1e]);
        assert_eq!(register(&mut chip, TEMPERATURE), [0x15, 0x80, 0x15, 0x80]);
    }

    #[test]
    fn a_file_is_measured_each_time_unless_the_chip_is_shut_down() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("t");
        fs::write(&path, "30000\n").unwrap();
        let mut chip = Lm75::open(&Temperature::File(path.clone())).unwrap();
        assert_eq!(register(&mut chip, TEMPERATURE), [30, 0]);
        fs::write(&path, "-1500").unwrap();
        assert_eq!(register(&mut chip, TEMPERATURE), [0xfe, 0x80]);
        chip.write(&[CONFIGURATION, SHUTDOWN]).unwrap();
        fs::write(&path, "40000").unwrap();
        assert_eq!(register(&mut chip, TEMPERATURE), [0xfe, 0x80]);
        chip.write(&[CONFIGURATION, 0]).unwrap();
        fs::write(&path, "warm").unwrap();
        chip.write(&[TEMPERATURE]).unwrap();
        assert!(chip.read(&mut [0; 2]).is_err());
    }
}
