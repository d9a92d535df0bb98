//! The guest prints its sensors, and they have the values that the host gave them.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Comparison, Tour};

/// The tour of the SCMI device.
pub const TOUR: Tour = Tour {
    prepare,
    script: include_str!("../../../guest/tour/scmi.sh"),
    compare,
};

/// A file of the host with a temperature, as a sensor of the host would have one.
const ROOM: &str = "room";
/// In degrees Celsius.
const ROOM_TEMPERATURE: &str = "21.5";

/// What the guest is to print: name, value, unit.
const SENSORS: &[[&str; 3]] = &[
    ["room", ROOM_TEMPERATURE, "C"],
    ["processor", "45.678", "C"],
    ["supply", "1.05", "V"],
    ["load", "0.25", "A"],
    ["drain", "2.5", "W"],
];

fn prepare(folder: &Path) -> Result<Vec<OsString>> {
    let room = folder.join(ROOM);
    fs::write(&room, ROOM_TEMPERATURE)?;
    let mut file = OsString::from("file,name=room,type=temperature,scale=-3,path=");
    file.push(room);
    let mut arguments: Vec<OsString> = vec!["--device".into(), file];
    for [name, value, unit] in &SENSORS[1..] {
        let quantity = match *unit {
            "V" => "voltage",
            "A" => "current",
            "W" => "power",
            _ => "temperature",
        };
        let sensor = format!("sim,name={name},type={quantity},value={value}");
        arguments.extend(["--device".into(), sensor.into()]);
    }
    Ok(arguments)
}

fn compare(_: &Path, output: &str) -> Result<Comparison> {
    let mut view = format!("  {:<12}{:>12}{:>12}\n", "sensor", "the guest", "the host");
    for [name, value, unit] in SENSORS {
        let line = output
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(name))
            .with_context(|| format!("the guest has no sensor {name}; it wrote:\n{output}"))?;
        let [_, seen, seen_unit] = line[..] else {
            anyhow::bail!("the guest says of {name}: {}", line.join(" "));
        };
        let close = seen.parse::<f64>()? - value.parse::<f64>()?;
        ensure!(
            close.abs() < 0.000_5 && seen_unit == *unit,
            "the guest says {seen} {seen_unit} of {name}, the host {value} {unit}"
        );
        view += &format!(
            "  {name:<12}{:>12}{:>12}\n",
            format!("{seen} {seen_unit}"),
            format!("{value} {unit}")
        );
    }
    Ok(Comparison {
        view,
        verdict: format!("{} sensors have the host's values", SENSORS.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    const GUEST: &str = "scmi_sensors\nroom 21.500 C\nprocessor 45.678 C\nsupply 1.050 V\nload 0.250 A\ndrain 2.500 W\n";

    #[test]
    fn all_sensors_must_have_the_hosts_values_and_units() {
        let folder = Folder::new("tour").unwrap();
        assert!(compare(folder.path(), GUEST).is_ok());
        for (right, wrong) in [
            ("1.050 V", "1.051 V"),
            ("1.050 V", "1.050 A"),
            ("drain 2.500 W\n", ""),
        ] {
            compare(folder.path(), &GUEST.replace(right, wrong)).unwrap_err();
        }
    }
}
