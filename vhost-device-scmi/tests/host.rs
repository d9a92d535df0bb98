//! Sensors and frequency policies of the host, on trees of files that look like sysfs; and a host that hangs or goes away.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use vhost_device_testkit::process::TempDir;

/// A folder of attributes.
fn attributes(folder: &Path, list: &[(&str, &str)]) {
    fs::create_dir_all(folder).unwrap();
    for (name, text) in list {
        fs::write(folder.join(name), format!("{text}\n")).unwrap();
    }
}

fn pipe(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    path
}

/// The type, the scale and the name of a sensor.
fn describe(agent: &mut Agent, sensor: u32) -> (u32, i32, String) {
    let answer = agent.get(SENSOR, 3, &[sensor]);
    let high = word(&answer, 12);
    (
        high & 0xff,
        (high << 16) as i32 >> 27,
        text(&answer[16..32]),
    )
}

#[test]
fn iio_channels_are_converted_exactly() {
    let dir = TempDir::new().unwrap();
    let device = dir.path().join("iio:device0");
    attributes(
        &device,
        &[
            ("name", "bma"),
            ("in_accel_x_raw", "-1000"),
            ("in_accel_y_raw", "34"),
            ("in_accel_z_raw", "16384"),
            ("in_accel_scale", "0.000598550"),
            ("in_temp_raw", "2360"),
            ("in_temp_offset", "-2185.2"),
            ("in_temp_scale", "125"),
            ("in_voltage0_raw", "4095"),
            ("in_voltage_scale", "0.8056640625"),
            ("in_voltage1-voltage2_raw", "-7"),
            ("in_voltage-voltage_scale", "1.5"),
            ("in_pressure_input", "101.325"),
            ("in_illuminance0_raw", "5"),
        ],
    );
    let entry = |channel: &str, more: &str| {
        format!("iio,path={},channel={channel}{more}", device.display())
    };
    let daemon = start_with(&[
        entry("in_accel", ",name=motion"),
        entry("in_temp", ""),
        entry("in_voltage0", ""),
        entry("in_voltage0", ",scale=-3"),
        entry("in_voltage1-voltage2", ",name=v12"),
        entry("in_pressure", ""),
        entry("in_illuminance0", ""),
        entry("in_accel_y", ",name=y"),
    ]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(describe(&mut agent, 0), (89, -8, "motion".into()));
    let values = words(&agent.get(SENSOR, 6, &[0, 0]));
    let axes = [0, 4, 8].map(|at| (u64::from(values[at]) | u64::from(values[at + 1]) << 32) as i64);
    assert_eq!(axes, [-59_855_000, 34 * 59_855, 16384 * 59_855]);
    let answer = agent.get(SENSOR, 7, &[0, 0]);
    assert_eq!(
        (text(&answer[16..32]), text(&answer[64..80])),
        ("accel_X".into(), "accel_Y".into())
    );
    // the resolution of an axis: 59855 times ten to the power of -8
    assert_eq!(word(&answer, 32), 59_855 | 0x18 << 27);
    // thousandths of a degree, and a tenth of that for the offset
    assert_eq!(describe(&mut agent, 1), (2, -3, "bma_temp".into()));
    assert_eq!(agent.reading(1), 21_850);
    assert_eq!(describe(&mut agent, 2), (5, -13, "bma_voltage0".into()));
    assert_eq!(agent.reading(2), 4095 * 8_056_640_625);
    assert_eq!(describe(&mut agent, 3), (5, -3, "bma_voltage0".into()));
    assert_eq!(agent.reading(3), 3299);
    assert_eq!(describe(&mut agent, 4), (5, -4, "v12".into()));
    assert_eq!(agent.reading(4), -105);
    assert_eq!(describe(&mut agent, 5), (15, -3, "bma_pressure".into()));
    assert_eq!(agent.reading(5), 101_325);
    assert_eq!(describe(&mut agent, 6), (13, 0, "bma_illuminance".into()));
    assert_eq!(agent.reading(6), 5);
    assert_eq!(agent.reading(7), 34 * 59_855);
    // what changes there is seen
    fs::write(device.join("in_illuminance0_raw"), "17\n").unwrap();
    assert_eq!(agent.reading(6), 17);
}

#[test]
fn a_buffer_gives_the_newest_scan_and_is_off_again_afterwards() {
    let dir = TempDir::new().unwrap();
    let device = dir.path().join("iio:device0");
    attributes(
        &device,
        &[
            ("in_accel_x_raw", "0"),
            ("in_accel_y_raw", "0"),
            ("in_accel_scale", "0.5"),
        ],
    );
    attributes(
        &device.join("scan_elements"),
        &[
            ("in_accel_x_en", "0"),
            ("in_accel_x_index", "1"),
            ("in_accel_x_type", "be:s12/16>>4"),
            ("in_accel_y_en", "0"),
            ("in_accel_y_index", "0"),
            ("in_accel_y_type", "le:s32/32>>0"),
            ("in_timestamp_en", "1"),
            ("in_timestamp_index", "2"),
            ("in_timestamp_type", "le:s64/64>>0"),
        ],
    );
    attributes(&device.join("buffer"), &[("enable", "0"), ("length", "2")]);
    let node = pipe(dir.path(), "node");
    let mut kernel = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&node)
        .unwrap();
    let daemon = start_with(&[format!(
        "iio,path={},channel=in_accel,buffer={},name=motion,intervals=10",
        device.display(),
        node.display()
    )]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(number(&device.join("buffer/enable")), 0);
    let axes = |values: &[u32]| [values[0] as i32, values[4] as i32];
    // y is stored first, in four bytes; x behind it in two; the scan is aligned to four
    let scan =
        |x: i16, y: i32| [&y.to_le_bytes()[..], &(x << 4).to_be_bytes(), &[0xee; 2]].concat();
    kernel
        .write_all(&[scan(1, 2), scan(-3, -100_000)].concat())
        .unwrap();
    let values = agent.words(SENSOR, READING_GET, &[0, 0]);
    assert_eq!(axes(&values), [-15, -500_000]);
    for (file, expected) in [
        ("scan_elements/in_accel_x_en", 1),
        ("scan_elements/in_accel_y_en", 1),
        ("scan_elements/in_timestamp_en", 0),
        ("buffer/length", 64),
        ("buffer/enable", 1),
    ] {
        assert_eq!(number(&device.join(file)), expected, "{file}");
    }
    // half of a scan, and the other half
    let bytes = scan(5, 6);
    kernel.write_all(&bytes[..3]).unwrap();
    assert_eq!(
        axes(&agent.words(SENSOR, READING_GET, &[0, 0])),
        [-15, -500_000]
    );
    kernel.write_all(&bytes[3..]).unwrap();
    assert_eq!(axes(&agent.words(SENSOR, READING_GET, &[0, 0])), [25, 30]);
    agent.give(100, ROOM);
    agent.tell(SENSOR, 0xb, &[0, 1]);
    assert_eq!(axes(&agent.event().payload[2..]), [25, 30]);
    kernel.write_all(&scan(7, 8)).unwrap();
    while axes(&agent.event().payload[2..]) != [35, 40] {}
    drop(agent);
    becomes("the buffer goes on", || {
        number(&device.join("buffer/enable")) == 0
    });
}

#[test]
fn hardware_monitors_are_found_by_name_and_read_in_their_units() {
    let dir = TempDir::new().unwrap();
    let class = dir.path().join("class/hwmon");
    attributes(
        &class.join("hwmon0"),
        &[("name", "acpitz"), ("temp1_input", "27800")],
    );
    attributes(
        &class.join("hwmon1"),
        &[
            ("name", "board"),
            ("temp1_input", "-4500"),
            ("temp1_label", "VRM"),
            ("in0_input", "1049"),
            ("curr1_input", "250"),
            ("power1_input", "2500000"),
            ("energy1_input", "7"),
            ("fan2_input", "1200"),
            ("humidity1_input", "45000"),
            ("freq1_input", "300000000"),
        ],
    );
    let sysfs = dir.path().display().to_string();
    let mut arguments = vec!["--sysfs".to_owned(), sysfs];
    let channels = [
        "temp1",
        "in0",
        "curr1",
        "power1",
        "energy1",
        "fan2",
        "humidity1",
        "freq1",
    ];
    for channel in channels {
        arguments.extend([
            "-d".to_owned(),
            format!("hwmon,chip=board,channel={channel}"),
        ]);
    }
    let path = class.join("hwmon0");
    arguments.extend([
        "-d".to_owned(),
        format!("hwmon,chip={},channel=temp1,name=zone", path.display()),
    ]);
    let daemon = start(&arguments);
    let mut agent = Agent::new(&daemon);
    let expected = [
        (2, -3, "VRM", -4500),
        (5, -3, "board_in0", 1049),
        (6, -3, "board_curr1", 250),
        (7, -6, "board_power1", 2_500_000),
        (8, -6, "board_energy1", 7),
        (19, 0, "board_fan2", 1200),
        (65, -3, "board_humidity1", 45_000),
        (20, 0, "board_freq1", 300_000_000),
        (2, -3, "zone", 27_800),
    ];
    for (sensor, (quantity, scale, name, reading)) in expected.into_iter().enumerate() {
        let sensor = sensor as u32;
        assert_eq!(
            describe(&mut agent, sensor),
            (quantity, scale, name.chars().take(15).collect())
        );
        assert_eq!(agent.reading(sensor), reading, "{name}");
    }
}

/// A policy with three frequencies.
fn policy(sysfs: &Path) -> PathBuf {
    let folder = sysfs.join("devices/system/cpu/cpufreq/policy3");
    attributes(
        &folder,
        &[
            ("scaling_available_frequencies", "2000000 1500000 800000 "),
            ("scaling_cur_freq", "1500000"),
            ("scaling_min_freq", "800000"),
            ("scaling_max_freq", "2000000"),
        ],
    );
    folder
}

fn number(path: &Path) -> u32 {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn a_frequency_policy_of_the_host_is_a_performance_domain() {
    let dir = TempDir::new().unwrap();
    let folder = policy(dir.path());
    let sysfs = dir.path().display().to_string();
    let daemon = start(&[
        "--sysfs",
        &sysfs,
        "-d",
        "cpufreq,policy=3,control=yes,max=1500000",
    ]);
    let mut agent = Agent::new(&daemon);
    agent.give(8, ROOM);
    let attributes = agent.get(PERF, 3, &[0]);
    assert_eq!(
        (word(&attributes, 8), text(&attributes[16..])),
        (1_500_000, "policy3".into())
    );
    let levels = agent.words(PERF, 4, &[0, 0]);
    assert_eq!((levels[0], levels[1], levels[6]), (2, 800_000, 1_500_000));
    assert_eq!(agent.words(PERF, 8, &[0]), [1_500_000]);
    assert_eq!(agent.words(PERF, 6, &[0]), [2_000_000, 800_000]);
    agent.tell(PERF, 9, &[0, 1]);
    agent.tell(PERF, 0xa, &[0, 1]);
    agent.tell(PERF, 7, &[0, 800_000]);
    assert_eq!(agent.event().payload, [1, 0, 800_000]);
    let (min, max) = (
        folder.join("scaling_min_freq"),
        folder.join("scaling_max_freq"),
    );
    assert_eq!((number(&min), number(&max)), (800_000, 800_000));
    agent.tell(PERF, 5, &[0, 1_500_000, 1_500_000]);
    assert_eq!(agent.event().payload, [1, 0, 1_500_000, 1_500_000]);
    assert_eq!((number(&min), number(&max)), (1_500_000, 1_500_000));
    // the host's own limit
    agent.refused(OUT_OF_RANGE, PERF, 7, &[0, 2_000_000]);
    agent.refused(OUT_OF_RANGE, PERF, 5, &[0, 2_000_000, 800_000]);
    drop(agent);
    // with the guest its limits go
    becomes("the limits stay", || {
        (number(&min), number(&max)) == (800_000, 2_000_000)
    });
    // and with the daemon, too
    let mut agent = Agent::new(&daemon);
    agent.tell(PERF, 7, &[0, 800_000]);
    assert_eq!(number(&max), 800_000);
    drop(daemon);
    assert_eq!((number(&min), number(&max)), (800_000, 2_000_000));
}

#[test]
fn a_frequency_policy_is_not_the_guests_to_set_unless_it_is_told() {
    let dir = TempDir::new().unwrap();
    policy(dir.path());
    let sysfs = dir.path().display().to_string();
    let daemon = start(&["--sysfs", &sysfs, "-d", "cpufreq,policy=3"]);
    let mut agent = Agent::new(&daemon);
    agent.refused(DENIED, PERF, 7, &[0, 800_000]);
    agent.refused(DENIED, PERF, 5, &[0, 800_000, 800_000]);
    assert_eq!(agent.words(PERF, 8, &[0]), [1_500_000]);
}

#[test]
fn a_sensor_that_hangs_is_a_hardware_error_in_time_and_others_go_on() {
    let dir = TempDir::new().unwrap();
    let silent = pipe(dir.path(), "silent");
    let file = dir.path().join("room");
    fs::write(&file, "21.5\n").unwrap();
    let patience = Duration::from_millis(200);
    let daemon = start(&[
        "--host-timeout",
        "200",
        "-d",
        &format!("file,path={}", silent.display()),
        "-d",
        &format!("file,path={}", file.display()),
        "-d",
        "sim,name=s,value=3",
    ]);
    let mut agent = Agent::new(&daemon);
    let stuck = command(SENSOR, READING_GET, 7, &[0, 0], ROOM);
    let begin = Instant::now();
    let pending = agent.send(&stuck);
    // The others' answers overtake it.
    for (sensor, reading) in [(1, 21_500), (2, 3000)] {
        let values = agent.words(SENSOR, READING_GET, &[sensor, 0]);
        assert_eq!(values[0], reading);
    }
    agent.session.control.features().unwrap();
    let (status, values) = agent.hear(&stuck, &pending);
    let took = begin.elapsed();
    assert_eq!((status, values.len()), (HARDWARE_ERROR, 0));
    assert!(
        took >= patience && took < patience + Duration::from_secs(2),
        "{took:?}"
    );
    // nobody waits again for what hangs
    let begin = Instant::now();
    for _ in 0..5 {
        agent.refused(HARDWARE_ERROR, SENSOR, READING_GET, &[0, 0]);
    }
    assert!(begin.elapsed() < 4 * patience, "each was waited for");
    // and it comes back, when those that were given up are through
    let mut writer = OpenOptions::new().write(true).open(&silent).unwrap();
    becomes("the sensor does not come back", || {
        let pending = agent.send(&stuck);
        for _ in 0..5 {
            writer.write_all(b"19.25\n").unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        let (status, values) = agent.hear(&stuck, &pending);
        status == SUCCESS && word(&values, 0) == 19_250
    });
}

#[test]
fn a_sensor_that_goes_away_is_a_hardware_error_until_it_comes_back() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("room");
    fs::write(&file, "21.5\n").unwrap();
    let daemon = start_with(&[format!("file,path={}", file.display())]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.reading(0), 21_500);
    File::create(&file).unwrap();
    agent.refused(HARDWARE_ERROR, SENSOR, READING_GET, &[0, 0]);
    fs::write(&file, "hot\n").unwrap();
    agent.refused(HARDWARE_ERROR, SENSOR, READING_GET, &[0, 0]);
    fs::write(&file, "22\n").unwrap();
    assert_eq!(agent.reading(0), 22_000);
    becomes("the log does not tell", || daemon.log().contains("room"));
}

#[test]
fn sensors_of_the_host_are_told_of_and_read_later() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("room");
    fs::write(&file, "1\n").unwrap();
    let silent = pipe(dir.path(), "silent");
    let daemon = start(&[
        "--host-timeout",
        "100",
        "-d",
        &format!("file,path={},intervals=10,delay=0", file.display()),
        "-d",
        &format!("file,path={},intervals=10,delay=0", silent.display()),
    ]);
    let mut agent = Agent::new(&daemon);
    agent.give(200, ROOM);
    agent.tell(SENSOR, READING_GET, &[0, 1]);
    let event = agent.event();
    assert_eq!(event.header, delayed(SENSOR, READING_GET, agent.token()));
    assert_eq!(event.payload, [0, 0, 1000, 0, 0, 0]);
    agent.tell(SENSOR, READING_GET, &[1, 1]);
    let event = agent.event();
    assert_eq!(event.header, delayed(SENSOR, READING_GET, agent.token()));
    assert_eq!(event.payload, [HARDWARE_ERROR as u32]);
    agent.tell(SENSOR, 0xb, &[0, 1]);
    assert_eq!(agent.event().payload, [1, 0, 1000, 0, 0, 0]);
    // trip points too
    agent.tell(SENSOR, 0xb, &[0, 0]);
    agent.tell(SENSOR, 5, &[0, 1, 1500, 0]);
    agent.tell(SENSOR, 4, &[0, 1]);
    std::thread::sleep(Duration::from_millis(50));
    fs::write(&file, "2\n").unwrap();
    let trip = notification(SENSOR, 0);
    loop {
        let event = agent.event();
        if event.header == trip {
            assert_eq!(event.payload, [1, 0, 1 << 16]);
            break;
        }
    }
}

/// What waits for the host when the queue stops is answered, and the queue works again.
#[test]
fn a_queue_that_stops_takes_nothing_with_it() {
    let dir = TempDir::new().unwrap();
    let silent = pipe(dir.path(), "silent");
    let daemon = start(&[
        "--host-timeout",
        "60000",
        "-d",
        &format!("file,path={}", silent.display()),
        "-d",
        "sim,name=s,value=3",
    ]);
    let mut agent = Agent::new(&daemon);
    let stuck = command(SENSOR, READING_GET, 7, &[0, 0], ROOM);
    let pending = [agent.send(&stuck), agent.send(&stuck)];
    assert_eq!(agent.reading(1), 3000);
    let base = agent.session.stop_ring(COMMANDS).unwrap();
    assert_eq!(base, agent.session.rings[COMMANDS].used_index());
    let mut answers = Vec::new();
    for _ in 0..2 {
        let used = agent.session.rings[COMMANDS].pop().unwrap();
        let of = pending
            .iter()
            .find(|one| u32::from(one.head) == used.id)
            .unwrap();
        answers.push(agent.session.answer_of(of, used).unwrap());
    }
    for answer in answers {
        assert_eq!(word(answer.written(), 4) as i32, BUSY);
    }
    agent.session.start_ring(COMMANDS).unwrap();
    agent.session.enable(COMMANDS, true).unwrap();
    assert_eq!(agent.reading(1), 3000);
}
