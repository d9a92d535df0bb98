//! Sensors of a real kernel served to an agent, and what the kernel itself shows meanwhile: iio_dummy, and the sensors of a guest,
//! behind which is another of our daemons.
//!
//! Not among the tests that run everywhere: `cargo xtask test --only hardware` runs these in a machine that has both.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;

const DEVICES: &str = "/sys/bus/iio/devices";
const MONITORS: &str = "/sys/class/hwmon";
const CONFIG: &str = "/sys/kernel/config/iio/devices/dummy";

/// A device of iio_dummy; gone when dropped.
struct Dummy {
    name: &'static str,
    folder: PathBuf,
}

impl Dummy {
    fn new(name: &'static str) -> Self {
        load_dummy();
        fs::create_dir(Path::new(CONFIG).join(name)).unwrap();
        Self {
            name,
            folder: device(name),
        }
    }

    /// A number that the kernel shows.
    fn shown(&self, attribute: &str) -> f64 {
        number(&self.folder.join(attribute))
    }

    fn sensor(&self, channel: &str, more: &str) -> String {
        format!("iio,path={},channel={channel}{more}", self.folder.display())
    }

    fn unplug(&self) {
        fs::remove_dir(Path::new(CONFIG).join(self.name)).unwrap();
    }
}

impl Drop for Dummy {
    fn drop(&mut self) {
        // it may be unplugged already
        let _ = fs::remove_dir(Path::new(CONFIG).join(self.name));
    }
}

const TRIGGERS: &str = "/sys/kernel/config/iio/triggers/hrtimer";

/// A trigger that fires a hundred times a second; gone when dropped.
struct Trigger(PathBuf);

impl Trigger {
    fn new(name: &str) -> Self {
        let trigger = Self(Path::new(TRIGGERS).join(name));
        fs::create_dir(&trigger.0).unwrap();
        fs::write(device(name).join("sampling_frequency"), "100").unwrap();
        trigger
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        // a test that failed already has more to say
        let _ = fs::remove_dir(&self.0);
    }
}

fn load_dummy() {
    if Path::new(CONFIG).exists() {
        return;
    }
    let modules = std::env::var("MODULES").unwrap();
    for module in [
        "industrialio-triggered-buffer",
        "iio_dummy_evgen",
        "iio_dummy",
    ] {
        let path = Path::new(&modules).join(format!("{module}.ko"));
        let status = Command::new("busybox").arg("insmod").arg(path).status();
        assert!(status.unwrap().success(), "{module}");
    }
}

/// The folder below `class` of whatever has this name.
fn named(class: &str, name: &str) -> PathBuf {
    let mut entries = fs::read_dir(class)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| {
        fs::read_to_string(path.join("name")).is_ok_and(|text| text.trim_end() == name)
    };
    entries.find(is_it).unwrap()
}

fn device(name: &str) -> PathBuf {
    named(DEVICES, name)
}

fn number(path: &Path) -> f64 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// The quantity that a sensor has, its reading in the quantity's unit, and its name.
fn read(agent: &mut Agent, sensor: u32) -> (u32, f64, String) {
    let answer = agent.get(SENSOR, 3, &[sensor]);
    let high = word(&answer, 12);
    let scale = (high << 16) as i32 >> 27;
    let reading = agent.reading(sensor) as f64 * 10f64.powi(scale);
    (high & 0xff, reading, text(&answer[16..32]))
}

fn close(one: f64, other: f64) {
    let least = one.abs().max(other.abs()) * 1e-9;
    assert!((one - other).abs() <= least, "{one} is not {other}");
}

const VOLTAGE_TYPE: u32 = 5;
const ACCELERATION_TYPE: u32 = 89;

#[test]
fn channels_of_the_kernel_have_the_values_and_units_that_it_shows() {
    let dummy = Dummy::new("values");
    let daemon = start_with(&[
        dummy.sensor("in_voltage0", ""),
        dummy.sensor("in_voltage1-voltage2", ",name=difference"),
        dummy.sensor("in_voltage3-voltage4", ",name=other"),
        dummy.sensor("in_accel_x", ",type=acceleration"),
    ]);
    let mut agent = Agent::new(&daemon);
    // the kernel's voltages are in thousandths of volts
    let expected = (dummy.shown("in_voltage0_raw") + dummy.shown("in_voltage0_offset"))
        * dummy.shown("in_voltage0_scale")
        / 1000.0;
    let (quantity, reading, name) = read(&mut agent, 0);
    assert_eq!((quantity, name.as_str()), (VOLTAGE_TYPE, "values_voltage0"));
    close(reading, expected);
    assert!(expected > 0.0);
    for (sensor, channel) in [(1, "in_voltage1-voltage2"), (2, "in_voltage3-voltage4")] {
        let raw = dummy.shown(&format!("{channel}_raw"));
        let (quantity, reading, _) = read(&mut agent, sensor);
        assert_eq!(quantity, VOLTAGE_TYPE);
        close(
            reading,
            raw * dummy.shown("in_voltage-voltage_scale") / 1000.0,
        );
    }
    let (quantity, reading, _) = read(&mut agent, 3);
    assert_eq!(quantity, ACCELERATION_TYPE);
    close(reading, dummy.shown("in_accel_x_raw"));
}

#[test]
fn a_reading_is_what_the_kernel_has_now() {
    let dummy = Dummy::new("changes");
    let daemon = start_with(&[dummy.sensor("in_steps", ",scale=0")]);
    let mut agent = Agent::new(&daemon);
    fs::write(dummy.folder.join("in_steps_en"), "1").unwrap();
    for steps in [47, 1_000_000, 3] {
        fs::write(dummy.folder.join("in_steps_input"), steps.to_string()).unwrap();
        assert_eq!(agent.reading(0), steps);
    }
}

#[test]
fn scans_of_a_buffer_are_readings_as_long_as_a_guest_is_there() {
    let trigger = Trigger::new("ticks");
    let dummy = Dummy::new("scans");
    let chosen = dummy.folder.join("trigger/current_trigger");
    fs::write(&chosen, "ticks").unwrap();
    let node = Path::new("/dev").join(dummy.folder.file_name().unwrap());
    let buffer = format!(",name=scan,buffer={}", node.display());
    let daemon = start_with(&[dummy.sensor("in_voltage1-voltage2", &buffer)]);
    let mut agent = Agent::new(&daemon);
    let runs = || number(&dummy.folder.join("buffer/enable")) == 1.0;
    assert!(!runs());
    // what the driver puts into its scans for this channel
    let expected = -33.0 * dummy.shown("in_voltage-voltage_scale") / 1000.0;
    close(read(&mut agent, 0).1, expected);
    assert!(runs());
    let reading = agent.reading(0);
    agent.give(8, ROOM);
    agent.tell(SENSOR, 0xa, &[0, 1 << 16 | 0x1e << 11 | 1]); // every hundredth of a second
    agent.tell(SENSOR, 0xb, &[0, 1]);
    assert_eq!(agent.event().payload[2] as i32, reading as i32);
    drop(agent);
    becomes("the buffer goes on", || !runs());
    drop(daemon);
    // a trigger in use could not be removed
    fs::write(&chosen, "\n").unwrap();
    drop(trigger);
}

#[test]
fn a_device_that_is_unplugged_is_an_error_and_the_others_go_on() {
    let (gone, stays) = (Dummy::new("gone"), Dummy::new("stays"));
    let daemon = start_with(&[
        gone.sensor("in_voltage0", ""),
        stays.sensor("in_voltage0", ""),
    ]);
    let mut agent = Agent::new(&daemon);
    let before = agent.reading(1);
    assert_eq!(agent.reading(0), before);
    gone.unplug();
    agent.refused(HARDWARE_ERROR, SENSOR, READING_GET, &[0, 0]);
    assert_eq!(agent.reading(1), before);
}

/// The accelerometer is behind a platform of ours: its scans are that one's notifications.
#[test]
fn all_axes_of_an_accelerometer_are_one_sensor_also_from_its_buffer() {
    let device = device("accel");
    let shown = ["x", "y", "z"].map(|axis| {
        number(&device.join(format!("in_accel_{axis}_raw")))
            * number(&device.join(format!("in_accel_{axis}_scale")))
    });
    let node = Path::new("/dev").join(device.file_name().unwrap());
    for buffer in [String::new(), format!(",buffer={}", node.display())] {
        let daemon = start_with(&[format!(
            "iio,path={},channel=in_accel{buffer}",
            device.display()
        )]);
        let mut agent = Agent::new(&daemon);
        let high = word(&agent.get(SENSOR, 3, &[0]), 12);
        assert_eq!(high & 0xff, ACCELERATION_TYPE);
        let values = agent.words(SENSOR, READING_GET, &[0, 0]);
        let axis = agent.get(SENSOR, 7, &[0, 0]);
        let scale = (word(&axis, 12) << 16) as i32 >> 27;
        for (at, shown) in [0, 4, 8].into_iter().zip(shown) {
            let raw = (u64::from(values[at]) | u64::from(values[at + 1]) << 32) as i64;
            close(raw as f64 * 10f64.powi(scale), shown);
        }
    }
}

#[test]
fn channels_of_a_hardware_monitor_have_the_values_that_the_kernel_shows() {
    let monitor = named(MONITORS, "scmi_sensors");
    let channels = ["temp1", "in0", "curr1", "power1"];
    let daemon =
        start_with(&channels.map(|channel| format!("hwmon,chip=scmi_sensors,channel={channel}")));
    let mut agent = Agent::new(&daemon);
    for (sensor, (channel, parts)) in (0..).zip(channels.iter().zip([1e3, 1e3, 1e3, 1e6])) {
        let shown = number(&monitor.join(format!("{channel}_input"))) / parts;
        let label = fs::read_to_string(monitor.join(format!("{channel}_label"))).unwrap();
        let (_, reading, name) = read(&mut agent, sensor);
        close(reading, shown);
        assert!(name.contains(label.trim_end()), "{name} for {label}");
    }
}
