//! What an agent finds out about the platform, and what malformed messages come to.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::*;

const EVERYTHING: [&str; 7] = [
    "sim,name=room,value=21.5",
    "clock,name=bus,rates=1000+2000",
    "power,name=gpu",
    "perf,name=cpu,levels=1000+2000",
    "reset,name=usb",
    "voltage,name=vcc,levels=1000+2000",
    "sim,name=motion,type=acceleration,value=0+0+9.81",
];

/// The versions of SCMI 3.2.
const VERSIONS: [(u32, u32); 8] = [
    (BASE, 0x2_0001),
    (POWER, 0x3_0001),
    (SYSTEM, 0x2_0001),
    (PERF, 0x4_0000),
    (CLOCK, 0x3_0000),
    (SENSOR, 0x3_0001),
    (RESET, 0x3_0001),
    (VOLTAGE, 0x2_0001),
];

#[test]
fn the_base_protocol_tells_who_is_there() {
    let daemon = start_with(&EVERYTHING);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(BASE, 1, &[]), [1 << 8 | 7]);
    assert_eq!(text(&agent.get(BASE, 3, &[])), "vhost-device");
    assert_eq!(text(&agent.get(BASE, 4, &[])), "virtio");
    assert_eq!(agent.get(BASE, 3, &[]).len(), 16);
    assert_eq!(agent.words(BASE, 5, &[]), [1]);
    for (asked, agent_id, name) in [(0, 0, "platform"), (1, 1, "guest"), (u32::MAX, 1, "guest")] {
        let answer = agent.get(BASE, 7, &[asked]);
        assert_eq!(
            (word(&answer, 0), text(&answer[4..]).as_str()),
            (agent_id, name)
        );
    }
    agent.refused(NOT_FOUND, BASE, 7, &[2]);
}

#[test]
fn protocols_are_listed_from_any_position_and_in_any_room() {
    let daemon = start_with(&EVERYTHING);
    let mut agent = Agent::new(&daemon);
    let all = [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17];
    for skip in 0..=7 {
        let answer = agent.get(BASE, 6, &[skip]);
        let rest = &all[skip as usize..];
        assert_eq!(word(&answer, 0) as usize, rest.len());
        assert_eq!(answer.len(), 4 + rest.len().next_multiple_of(4));
        assert_eq!(&answer[4..4 + rest.len()], rest);
    }
    agent.refused(INVALID_PARAMETERS, BASE, 6, &[8]);
    // room for one word of them
    let (status, values) = agent.ask_with(&command(BASE, 6, 1, &[1], 8));
    assert_eq!(
        (status, values),
        (SUCCESS, vec![4, 0, 0, 0, 0x12, 0x13, 0x14, 0x15])
    );
    let answer = agent.ask_with(&command(BASE, 6, 1, &[1], 7));
    assert_eq!(answer, (PROTOCOL_ERROR, Vec::new()));
}

#[test]
fn only_protocols_with_something_behind_them_are_offered() {
    let daemon = start_with(&["clock,name=bus,rates=1000"]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(BASE, 6, &[0]), [2, 0x1412]);
    agent.refused(NOT_SUPPORTED, SENSOR, 0, &[]);
    agent.refused(NOT_SUPPORTED, 0x18, 0, &[]);
    agent.refused(NOT_SUPPORTED, 0xff, 0, &[]);
    drop(agent);
    drop(daemon);
    let daemon = start(&[
        "--protocols",
        "sensor,reset",
        "-d",
        EVERYTHING[0],
        "-d",
        EVERYTHING[1],
    ]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(BASE, 6, &[0]), [1, 0x15]);
    agent.refused(NOT_SUPPORTED, CLOCK, 0, &[]);
    agent.refused(NOT_SUPPORTED, SYSTEM, 0, &[]);
}

#[test]
fn a_platform_without_anything_can_be_talked_to() {
    let daemon = start::<&str>(&[]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(BASE, 6, &[0]), [1, 0x12]);
}

/// MESSAGE_ATTRIBUTES and the dispatcher agree on each of the 256 commands of each protocol, with and without an event queue.
#[test]
fn message_attributes_tell_what_there_is() {
    let daemon = start_with(&EVERYTHING);
    let agents: [fn(&vhost_device_testkit::process::Daemon) -> Agent; 2] =
        [Agent::new, Agent::without_events];
    for agent in agents {
        let mut agent = agent(&daemon);
        for (protocol, version) in VERSIONS {
            assert_eq!(agent.words(protocol, 0, &[]), [version]);
            let mut there = Vec::new();
            for message in 0..=0xff {
                let (status, values) = agent.ask(protocol, 2, &[message]);
                // far too long for any command
                let (reply, _) = agent.ask(protocol, message, &[0; 14]);
                match status {
                    SUCCESS => {
                        assert_eq!(values.len(), 4);
                        assert_eq!(reply, PROTOCOL_ERROR, "{protocol:#x} {message:#x}");
                        there.push(message);
                    }
                    NOT_FOUND => assert_eq!(reply, NOT_SUPPORTED, "{protocol:#x} {message:#x}"),
                    other => panic!("{other} for {protocol:#x} {message:#x}"),
                }
            }
            assert!(
                there.starts_with(&[0, 1, 2, 3]) && there.contains(&0x10),
                "{there:x?}"
            );
            agent.refused(NOT_FOUND, protocol, 2, &[0x100]);
        }
    }
}

#[test]
fn an_older_minor_version_of_a_protocol_can_be_agreed_on() {
    let daemon = start_with(&EVERYTHING);
    let mut agent = Agent::new(&daemon);
    for (protocol, version) in VERSIONS {
        agent.tell(protocol, 0x10, &[version]);
        agent.tell(protocol, 0x10, &[version & !0xffff]);
        agent.refused(NOT_SUPPORTED, protocol, 0x10, &[version + 1]);
        agent.refused(NOT_SUPPORTED, protocol, 0x10, &[version - 0x1_0000]);
        agent.refused(NOT_SUPPORTED, protocol, 0x10, &[0]);
    }
}

/// The peers' daemon ended its worker when a request had bytes too many.
#[test]
fn commands_of_another_length_are_violations_of_the_protocol() {
    let daemon = start_with(&EVERYTHING);
    let mut agent = Agent::new(&daemon);
    // the parameters of SENSOR_READING_GET, too short and too long, up to far beyond any command
    for length in (0..8).chain(9..80).chain([1000, 4000]) {
        let mut request = command(SENSOR, READING_GET, 1, &[], 16);
        request.readable.extend(vec![0; length]);
        assert_eq!(
            agent.ask_with(&request),
            (PROTOCOL_ERROR, Vec::new()),
            "{length}"
        );
        assert_eq!(agent.reading(0), 21_500);
    }
}

#[test]
fn what_is_no_command_is_a_violation_of_the_protocol() {
    let daemon = start_with(&EVERYTHING);
    let mut agent = Agent::new(&daemon);
    for bits in [1 << 8, 2 << 8, 3 << 8, 1 << 28, 1 << 31] {
        let mut request = command(SENSOR, READING_GET, 3, &[0, 0], 16);
        let header = word(&request.readable, 0) | bits;
        request.readable[..4].copy_from_slice(&header.to_le_bytes());
        assert_eq!(
            agent.ask_with(&request),
            (PROTOCOL_ERROR, Vec::new()),
            "{bits:#x}"
        );
    }
    // every token comes back
    for token in [0, 1, 0x1ff, 0x3ff] {
        assert_eq!(
            agent
                .ask_with(&command(SENSOR, READING_GET, token, &[0, 0], 16))
                .0,
            SUCCESS
        );
    }
}

#[test]
fn without_room_for_all_return_values_there_are_none() {
    let daemon = start_with(&EVERYTHING);
    let mut agent = Agent::new(&daemon);
    for room in 0..16 {
        let answer = agent.ask_with(&command(SENSOR, READING_GET, 1, &[0, 0], room));
        assert_eq!(answer, (PROTOCOL_ERROR, Vec::new()), "{room}");
    }
    // nor without room for a status, or a header to answer
    for (readable, writable) in [(12, 0), (12, 4), (12, 7), (0, 24), (3, 24)] {
        let mut request = command(SENSOR, READING_GET, 1, &[0, 0], 16);
        request.readable.truncate(readable);
        request.writable = writable;
        let pending = agent.send(&request);
        let answer = agent.session.finish(COMMANDS, &pending).unwrap();
        assert_eq!(answer.used_len, 0, "{readable} {writable}");
    }
    assert_eq!(agent.reading(0), 21_500);
}

#[test]
fn permissions_cannot_be_set_by_the_guest() {
    let daemon = start_with(&EVERYTHING);
    let mut agent = Agent::new(&daemon);
    agent.refused(DENIED, BASE, 9, &[1, 0, 1]);
    agent.refused(NOT_FOUND, BASE, 9, &[2, 0, 1]);
    agent.refused(INVALID_PARAMETERS, BASE, 9, &[1, 0, 2]);
    agent.refused(DENIED, BASE, 0xa, &[1, 0, SENSOR, 1]);
    agent.refused(NOT_FOUND, BASE, 0xa, &[1, 0, 0x18, 1]);
    agent.refused(DENIED, BASE, 0xb, &[0, 0]);
    agent.refused(NOT_FOUND, BASE, 0xb, &[7, 0]);
}

#[test]
fn an_agent_can_have_all_its_settings_forgotten() {
    let daemon = start_with(&EVERYTHING);
    let mut agent = Agent::new(&daemon);
    agent.give(4, ROOM);
    agent.tell(CLOCK, 9, &[0, 1]);
    let configuration = agent.words(SENSOR, 9, &[0]);
    agent.tell(SENSOR, 0xa, &[0, configuration[0] | 2]);
    agent.tell(BASE, 0xb, &[1, 1]);
    assert_eq!(agent.words(SENSOR, 9, &[0]), configuration);
    agent.tell(CLOCK, 5, &[0, 0, 2000, 0]);
    agent.no_event();
    assert_eq!(agent.words(CLOCK, 6, &[0]), [2000, 0]);
}
