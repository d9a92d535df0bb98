//! Simulated sensors: descriptions, readings, configurations, and notifications about them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::*;
use vhost_device_testkit::process::TempDir;

const DESCRIPTION_GET: u32 = 3;
const TRIP_POINT_NOTIFY: u32 = 4;
const TRIP_POINT_CONFIG: u32 = 5;
const AXIS_DESCRIPTION_GET: u32 = 7;
const LIST_UPDATE_INTERVALS: u32 = 8;
const CONFIG_GET: u32 = 9;
const CONFIG_SET: u32 = 0xa;
const CONTINUOUS_UPDATE_NOTIFY: u32 = 0xb;
const NAME_GET: u32 = 0xc;
const AXIS_NAME_GET: u32 = 0xd;

const ASYNC: u32 = 1 << 31;
const UPDATES: u32 = 1 << 30;
const LONG_NAME: u32 = 1 << 29;
const TIMESTAMPS: u32 = 1 << 9;
const EXTENDED: u32 = 1 << 8;

/// One sensor as described.
#[derive(Debug)]
struct Description {
    id: u32,
    low: u32,
    high: u32,
    name: String,
    /// Power, resolution, smallest and largest reading.
    limits: Option<(u32, u32, i64, i64)>,
}

impl Description {
    fn scale(&self) -> i32 {
        (self.high << 16) as i32 >> 27
    }

    fn axes(&self) -> u32 {
        self.high >> 16 & 0x3f
    }
}

fn double(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// All sensors, read in responses with this much room.
fn describe(agent: &mut Agent, room: u32) -> (Vec<Description>, usize) {
    let mut sensors = Vec::new();
    for messages in 1.. {
        let request = command(SENSOR, DESCRIPTION_GET, 1, &[sensors.len() as u32], room);
        let (status, values) = agent.ask_with(&request);
        assert_eq!(status, SUCCESS);
        let (returned, remaining) = (word(&values, 0) & 0xffff, word(&values, 0) >> 16);
        let mut at = 4;
        for _ in 0..returned {
            let low = word(&values, at + 4);
            let limits = (low & EXTENDED != 0).then(|| {
                let words = (word(&values, at + 28), word(&values, at + 32));
                (
                    words.0,
                    words.1,
                    double(&values, at + 36),
                    double(&values, at + 44),
                )
            });
            sensors.push(Description {
                id: word(&values, at),
                low,
                high: word(&values, at + 8),
                name: text(&values[at + 12..at + 28]),
                limits,
            });
            at += if limits.is_some() { 52 } else { 28 };
        }
        assert_eq!(at, values.len());
        if remaining == 0 {
            return (sensors, messages);
        }
        assert!(returned > 0);
    }
    unreachable!()
}

#[test]
fn any_number_of_sensors_is_described_in_as_many_messages_as_it_takes() {
    let mut entries: Vec<String> = (0..20)
        .map(|n| format!("sim,name=s{n},value={n}"))
        .collect();
    entries[7] = "sim,name=s7,type=acceleration,value=1+2+3".into();
    let daemon = start_with(&entries);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(SENSOR, 1, &[]), [20, 0, 0, 0]);
    for (room, most) in [(ROOM, 10), (56, 20), (1016, 2)] {
        let (sensors, messages) = describe(&mut agent, room);
        assert_eq!(sensors.len(), 20);
        assert!(messages <= most, "{messages} messages of {room} bytes");
        for (position, sensor) in sensors.iter().enumerate() {
            assert_eq!(sensor.id as usize, position);
            assert_eq!(sensor.name, format!("s{position}"));
        }
    }
    let answer = agent.ask_with(&command(SENSOR, DESCRIPTION_GET, 1, &[0], 55));
    assert_eq!(answer, (PROTOCOL_ERROR, Vec::new()));
    agent.refused(OUT_OF_RANGE, SENSOR, DESCRIPTION_GET, &[20]);
    agent.refused(OUT_OF_RANGE, SENSOR, DESCRIPTION_GET, &[u32::MAX]);
}

#[test]
fn descriptions_say_what_the_command_line_said() {
    let daemon = start_with(&[
        "sim,name=room,value=sine:20:5:10,trips=4",
        "sim,name=pump,type=fan,value=1200,min=0,max=5000,trips=0",
        "sim,name=late,type=voltage,scale=-6,value=1,delay=1",
        "kind=sim,name=motion,type=89,value=1+2,axes=left+right",
    ]);
    let mut agent = Agent::new(&daemon);
    let (sensors, _) = describe(&mut agent, ROOM);
    let stamps = TIMESTAMPS | 0x17 << 10;
    assert_eq!(sensors[0].low, UPDATES | stamps | EXTENDED | 4);
    assert_eq!((sensors[0].high & 0xff, sensors[0].scale()), (2, -3));
    assert_eq!(sensors[0].limits, Some((0, 1 | 0x1d << 27, 15_000, 25_000)));
    assert_eq!(sensors[1].low, UPDATES | stamps | EXTENDED);
    assert_eq!((sensors[1].high & 0xff, sensors[1].scale()), (19, 0));
    assert_eq!(sensors[1].limits, Some((0, 1, 0, 5000)));
    assert_eq!(sensors[2].low & ASYNC, ASYNC);
    assert_eq!((sensors[2].high & 0xff, sensors[2].scale()), (5, -6));
    assert_eq!(sensors[2].limits.unwrap().2, i64::MIN);
    assert_eq!(
        (
            sensors[3].axes(),
            sensors[3].high >> 8 & 1,
            sensors[3].low & 0xff
        ),
        (2, 1, 0)
    );
    // one of them can be asynchronous
    assert_eq!(agent.words(SENSOR, 1, &[])[0] >> 16, 64);
    drop(agent);
    // without an event queue nothing is, and nothing is told
    let mut agent = Agent::without_events(&daemon);
    let (sensors, _) = describe(&mut agent, ROOM);
    assert!(
        sensors
            .iter()
            .all(|sensor| sensor.low & (ASYNC | UPDATES | 0xff) == 0)
    );
    assert_eq!(agent.words(SENSOR, 1, &[]), [4, 0, 0, 0]);
    agent.refused(NOT_SUPPORTED, SENSOR, READING_GET, &[2, 1]);
    agent.refused(NOT_SUPPORTED, SENSOR, CONTINUOUS_UPDATE_NOTIFY, &[0, 1]);
    agent.refused(NOT_SUPPORTED, SENSOR, TRIP_POINT_NOTIFY, &[0, 1]);
}

/// The peers' daemon panicked over a name too long, and over two simulated sensors.
#[test]
fn long_names_are_told_apart() {
    let name = "a-sensor-with-a-name-of-sixty-three-characters-which-is-the-most";
    let names = [&name[..63], &name[..15], &name[..16]];
    let entries = names.map(|name| format!("fake,name={name}"));
    let daemon = start_with(&entries);
    let mut agent = Agent::new(&daemon);
    let (sensors, _) = describe(&mut agent, ROOM);
    for (sensor, name) in sensors.iter().zip(names) {
        assert_eq!(sensor.name, name[..name.len().min(15)]);
        assert_eq!(sensor.low & LONG_NAME != 0, name.len() > 15);
        let answer = agent.get(SENSOR, NAME_GET, &[sensor.id]);
        assert_eq!((answer.len(), word(&answer, 0)), (68, 0));
        assert_eq!(text(&answer[4..]), name);
    }
    agent.refused(NOT_FOUND, SENSOR, NAME_GET, &[3]);
}

#[test]
fn axes_are_described_in_as_many_messages_as_it_takes() {
    let long = "an-axis-with-a-long-name";
    let curves = ["1"; 7].join("+");
    let daemon = start_with(&[
        format!("sim,name=seven,type=angle,value={curves},axes=a+b+c+d+e+f+{long}"),
        "sim,name=one,value=1".to_owned(),
    ]);
    let mut agent = Agent::new(&daemon);
    let mut names = Vec::new();
    for first in [0, 2, 4, 6] {
        let answer = agent.get(SENSOR, AXIS_DESCRIPTION_GET, &[0, first]);
        let returned = word(&answer, 0) & 0x3f;
        assert_eq!(returned, 2.min(7 - first));
        assert_eq!(word(&answer, 0) >> 26, 7 - first - returned);
        for at in (4..answer.len()).step_by(48) {
            assert_eq!(word(&answer, at) as usize, names.len());
            assert_eq!(word(&answer, at + 8), 36 | 0x1a << 11);
            names.push((
                text(&answer[at + 12..at + 28]),
                word(&answer, at + 4) >> 9 & 1,
            ));
        }
    }
    assert_eq!(names[5], ("f".into(), 0));
    assert_eq!(names[6], (long[..15].into(), 1));
    let answer = agent.get(SENSOR, AXIS_NAME_GET, &[0, 6]);
    assert_eq!((word(&answer, 0), word(&answer, 4)), (1, 6));
    assert_eq!(text(&answer[8..]), long);
    agent.refused(OUT_OF_RANGE, SENSOR, AXIS_DESCRIPTION_GET, &[0, 7]);
    agent.refused(OUT_OF_RANGE, SENSOR, AXIS_DESCRIPTION_GET, &[1, 0]);
    agent.refused(NOT_FOUND, SENSOR, AXIS_DESCRIPTION_GET, &[2, 0]);
}

#[test]
fn readings_of_all_axes_come_with_timestamps_if_wanted() {
    let daemon = start_with(&[
        "sim,name=motion,type=acceleration,value=0.5+-0.25+9.81",
        "fake,name=counter",
        "sim,name=cold,value=-40.25",
    ]);
    let mut agent = Agent::new(&daemon);
    // Linux takes only axes with such names for an IIO device's.
    let axes = agent.get(SENSOR, AXIS_DESCRIPTION_GET, &[1, 0]);
    assert_eq!(
        [text(&axes[16..32]), text(&axes[64..80])],
        ["axis_X", "axis_Y"]
    );
    let values = agent.get(SENSOR, READING_GET, &[0, 0]);
    let readings = |values: &[u8]| -> Vec<(i64, i64)> {
        let axes = (0..values.len()).step_by(16);
        axes.map(|at| (double(values, at), double(values, at + 8)))
            .collect()
    };
    assert_eq!(
        readings(&values),
        [(500_000, 0), (-250_000, 0), (9_810_000, 0)]
    );
    assert_eq!(
        [agent.reading(1), agent.reading(1), agent.reading(1)],
        [0, 1, 2]
    );
    assert_eq!(agent.reading(2), -40_250);
    let configuration = agent.words(SENSOR, CONFIG_GET, &[0])[0];
    agent.tell(SENSOR, CONFIG_SET, &[0, configuration | 2]);
    let mut last = 0;
    for _ in 0..3 {
        let values = agent.get(SENSOR, READING_GET, &[0, 0]);
        let stamps: Vec<i64> = readings(&values).iter().map(|one| one.1).collect();
        assert!(stamps[0] > last && stamps == [stamps[0]; 3], "{stamps:?}");
        last = stamps[0];
    }
    agent.refused(NOT_FOUND, SENSOR, READING_GET, &[3, 0]);
    agent.refused(INVALID_PARAMETERS, SENSOR, READING_GET, &[0, 2]);
    agent.refused(NOT_SUPPORTED, SENSOR, READING_GET, &[0, 1]);
}

#[test]
fn a_file_of_values_is_played_in_steps() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("values");
    std::fs::write(&path, "1 -1\n2.5 -2\n").unwrap();
    let entry = format!(
        "sim,name=table,axes=a+b,values={},step=60000",
        path.display()
    );
    let daemon = start_with(&[entry]);
    let mut agent = Agent::new(&daemon);
    let values = agent.words(SENSOR, READING_GET, &[0, 0]);
    assert_eq!((values[0], values[4] as i32), (1000, -1000));
}

#[test]
fn the_update_interval_is_one_of_those_offered() {
    let daemon = start_with(&["sim,name=s,intervals=2000+50+500"]);
    let mut agent = Agent::new(&daemon);
    let listed = agent.words(SENSOR, LIST_UPDATE_INTERVALS, &[0, 0]);
    let exponent = |power: i32| power as u32 & 0x1f;
    assert_eq!(
        listed,
        [3, 2 << 5, 5 << 5 | exponent(-1), 5 << 5 | exponent(-2)]
    );
    let (status, values) = agent.ask_with(&command(SENSOR, LIST_UPDATE_INTERVALS, 1, &[0, 1], 8));
    assert_eq!(
        (status, words(&values)),
        (SUCCESS, vec![1 | 1 << 16, listed[2]])
    );
    agent.refused(OUT_OF_RANGE, SENSOR, LIST_UPDATE_INTERVALS, &[0, 3]);
    let configured = |seconds: u32, power: i32| seconds << 16 | exponent(power) << 11;
    assert_eq!(
        agent.words(SENSOR, CONFIG_GET, &[0]),
        [configured(2, 0) | 1]
    );
    let down = 0;
    let up = 1 << 9;
    let nearest = 2 << 9;
    for (wanted, rounding, expected) in [
        (configured(5, -1), down, Some(configured(5, -1))),
        (configured(600, -3), down, Some(configured(5, -1))),
        (configured(600, -3), up, Some(configured(2, 0))),
        (configured(600, -3), nearest, Some(configured(5, -1))),
        (configured(1, 3), nearest, Some(configured(2, 0))),
        (configured(1, 3), up, None),
        (configured(1, -3), down, None),
        (configured(5, -1), 3 << 9, None),
        // none: it stays
        (0, nearest, Some(configured(2, 0))),
    ] {
        agent.tell(SENSOR, CONFIG_SET, &[0, configured(2, 0) | 1]);
        match expected {
            Some(expected) => {
                agent.tell(SENSOR, CONFIG_SET, &[0, wanted | rounding | 1]);
                assert_eq!(
                    agent.words(SENSOR, CONFIG_GET, &[0]),
                    [expected | 1],
                    "{wanted:#x}"
                );
            }
            None => agent.refused(
                INVALID_PARAMETERS,
                SENSOR,
                CONFIG_SET,
                &[0, wanted | rounding | 1],
            ),
        }
    }
    agent.refused(INVALID_PARAMETERS, SENSOR, CONFIG_SET, &[0, 1 << 2]);
}

#[test]
fn a_disabled_sensor_is_not_read() {
    let daemon = start_with(&["sim,name=s,value=1"]);
    let mut agent = Agent::new(&daemon);
    let configuration = agent.words(SENSOR, CONFIG_GET, &[0])[0];
    agent.tell(SENSOR, CONFIG_SET, &[0, configuration & !1]);
    agent.refused(DENIED, SENSOR, READING_GET, &[0, 0]);
    agent.tell(SENSOR, CONFIG_SET, &[0, configuration]);
    assert_eq!(agent.reading(0), 1000);
}

#[test]
fn asynchronous_readings_come_with_delayed_responses() {
    let daemon = start_with(&[
        "sim,name=now,value=1",
        "sim,name=late,value=2,delay=20",
        "fake,name=f",
    ]);
    let mut agent = Agent::new(&daemon);
    agent.give(8, ROOM);
    let mut tokens = Vec::new();
    for _ in 0..5 {
        agent.tell(SENSOR, READING_GET, &[1, 1]);
        tokens.push(agent.token());
    }
    for token in tokens {
        let event = agent.event();
        assert_eq!(event.header, delayed(SENSOR, READING_GET, token));
        assert_eq!(event.payload, [0, 1, 2000, 0, 0, 0]);
    }
    agent.no_event();
    // a sensor without them
    agent.refused(NOT_SUPPORTED, SENSOR, READING_GET, &[0, 1]);
}

#[test]
fn delayed_responses_wait_for_buffers_and_are_bounded() {
    let daemon = start_with(&["sim,name=late,value=2,delay=0"]);
    let mut agent = Agent::new(&daemon);
    let mut taken = Vec::new();
    loop {
        match agent.ask(SENSOR, READING_GET, &[0, 1]).0 {
            SUCCESS => taken.push(agent.token()),
            status => {
                assert_eq!(status, BUSY);
                break;
            }
        }
        assert!(taken.len() <= 64, "there is no bound");
    }
    assert_eq!(taken.len(), 64);
    assert_eq!(agent.reading(0), 2000);
    for token in taken {
        agent.give(1, ROOM);
        assert_eq!(agent.event().header, delayed(SENSOR, READING_GET, token));
    }
    agent.give(1, ROOM);
    agent.tell(SENSOR, READING_GET, &[0, 1]);
    agent.event();
}

#[test]
fn updates_are_told_once_per_interval_until_they_are_turned_off() {
    let daemon = start_with(&["fake,name=idle", "fake,name=s"]);
    let mut agent = Agent::new(&daemon);
    agent.give(200, ROOM);
    let interval = 1 << 16 | 0x1e << 11; // 10 ms
    agent.tell(SENSOR, CONFIG_SET, &[1, interval | 3]);
    agent.tell(SENSOR, CONTINUOUS_UPDATE_NOTIFY, &[1, 1]);
    let mut last = None;
    for number in 0..10 {
        let event = agent.event();
        assert_eq!(event.header, notification(SENSOR, 1));
        assert_eq!(event.payload[..2], [1, 1]);
        assert_eq!(event.payload.len(), 2 + 3 * 4);
        assert_eq!(event.payload[2], number);
        let stamp = u64::from(event.payload[4]) | u64::from(event.payload[5]) << 32;
        if let Some(last) = last.replace(stamp) {
            // no interval is shorter; how long it is is up to the machine
            assert!(stamp - last >= 9_900_000, "{} ns", stamp - last);
        }
    }
    agent.tell(SENSOR, CONTINUOUS_UPDATE_NOTIFY, &[1, 0]);
    while agent.session.rings[EVENTS].pop().is_some() {}
    agent.no_event();
    agent.refused(
        INVALID_PARAMETERS,
        SENSOR,
        CONTINUOUS_UPDATE_NOTIFY,
        &[1, 2],
    );
    agent.refused(NOT_FOUND, SENSOR, CONTINUOUS_UPDATE_NOTIFY, &[2, 1]);
}

#[test]
fn of_updates_that_find_no_buffer_the_newest_is_told() {
    let daemon = start_with(&["fake,name=s,".trim_end_matches(',')]);
    let mut agent = Agent::new(&daemon);
    let interval = 1 << 16 | 0x1e << 11; // 10 ms
    agent.tell(SENSOR, CONFIG_SET, &[0, interval | 1]);
    agent.tell(SENSOR, CONTINUOUS_UPDATE_NOTIFY, &[0, 1]);
    std::thread::sleep(Duration::from_millis(200));
    agent.tell(SENSOR, CONTINUOUS_UPDATE_NOTIFY, &[0, 0]);
    agent.give(3, ROOM);
    let event = agent.event();
    assert!(event.payload[2] > 0, "the first one was kept");
    agent.no_event();
}

#[test]
fn trip_points_are_told_when_they_are_passed_in_the_wanted_direction() {
    // between 20 and 40 in a fifth of a second
    let daemon = start_with(&["sim,name=heat,value=square:20:40:0.2,intervals=10,trips=3"]);
    let mut agent = Agent::new(&daemon);
    agent.give(100, ROOM);
    let (rising, falling, both) = (1, 2, 3);
    let point = |number: u32, events: u32| events | number << 4;
    agent.tell(SENSOR, TRIP_POINT_CONFIG, &[0, point(0, rising), 30_000, 0]);
    agent.tell(SENSOR, TRIP_POINT_CONFIG, &[0, point(1, both), 25_000, 0]);
    agent.tell(
        SENSOR,
        TRIP_POINT_CONFIG,
        &[0, point(2, falling), 50_000, 0],
    );
    agent.no_event();
    agent.tell(SENSOR, TRIP_POINT_NOTIFY, &[0, 1]);
    let mut seen = Vec::new();
    for _ in 0..6 {
        let event = agent.event();
        assert_eq!(event.header, notification(SENSOR, 0));
        assert_eq!(event.payload[..2], [1, 0]);
        seen.push(event.payload[2]);
    }
    let up = 1 << 16;
    // it may have begun in the middle
    let begin = seen.iter().position(|one| *one == up).unwrap();
    let expected = [up, up | 1, 1];
    for (one, expected) in seen[begin..].iter().zip(expected.iter().cycle()) {
        assert_eq!(one, expected, "{seen:x?}");
    }
    agent.tell(SENSOR, TRIP_POINT_NOTIFY, &[0, 0]);
    agent.refused(
        INVALID_PARAMETERS,
        SENSOR,
        TRIP_POINT_CONFIG,
        &[0, point(3, both), 0, 0],
    );
    agent.refused(
        INVALID_PARAMETERS,
        SENSOR,
        TRIP_POINT_CONFIG,
        &[0, 1 << 2, 0, 0],
    );
    agent.refused(NOT_FOUND, SENSOR, TRIP_POINT_CONFIG, &[1, 0, 0, 0]);
}

#[test]
fn a_buffer_too_small_for_a_notification_goes_back_and_one_for_a_delayed_response_is_not_its_end() {
    let daemon = start_with(&["sim,name=s,value=3,intervals=10,delay=0"]);
    let mut agent = Agent::new(&daemon);
    agent.give(2, 12);
    agent.give(1, ROOM);
    agent.tell(SENSOR, READING_GET, &[0, 1]);
    assert_eq!(agent.used_buffer(), [0u8; 0]);
    assert_eq!(agent.used_buffer(), [0u8; 0]);
    assert_eq!(agent.event().payload, [0, 0, 3000, 0, 0, 0]);
    agent.give(1, 12);
    agent.tell(SENSOR, CONTINUOUS_UPDATE_NOTIFY, &[0, 1]);
    assert_eq!(agent.used_buffer(), [0u8; 0]);
    agent.give(1, ROOM);
    assert_eq!(agent.event().header, notification(SENSOR, 1));
}

#[test]
fn an_agent_that_comes_next_finds_nothing_of_the_one_before() {
    let daemon = start_with(&[
        "sim,name=s,value=1,intervals=1000+10",
        "clock,name=c,rates=1+2",
    ]);
    let mut agent = Agent::new(&daemon);
    let configuration = agent.words(SENSOR, CONFIG_GET, &[0]);
    agent.tell(SENSOR, CONFIG_SET, &[0, 1 << 16 | 0x1e << 11 | 3]);
    agent.tell(SENSOR, CONTINUOUS_UPDATE_NOTIFY, &[0, 1]);
    agent.tell(CLOCK, 5, &[0, 0, 2, 0]);
    drop(agent);
    let mut agent = Agent::new(&daemon);
    agent.give(4, ROOM);
    assert_eq!(agent.words(SENSOR, CONFIG_GET, &[0]), configuration);
    assert_eq!(agent.words(CLOCK, 6, &[0]), [1, 0]);
    agent.no_event();
}
