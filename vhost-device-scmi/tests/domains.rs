//! Clocks, power, performance, reset and voltage domains, and system power.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::*;
use vhost_device_testkit::process::TempDir;

const LONG: &str = "a-domain-with-a-long-name";

#[test]
fn clocks_are_set_within_their_rates() {
    let daemon = start_with(&[
        "clock,name=list,rates=48+12+24,rate=24,state=on".to_owned(),
        format!("clock,name={LONG},rates=100:1000:100"),
    ]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(CLOCK, 1, &[]), [2]);
    let attributes = agent.get(CLOCK, 3, &[0]);
    assert_eq!(
        (word(&attributes, 0), text(&attributes[4..20])),
        (3 << 30 | 1, "list".into())
    );
    assert_eq!(attributes.len(), 24);
    let attributes = agent.get(CLOCK, 3, &[1]);
    assert_eq!(
        (word(&attributes, 0), text(&attributes[4..20])),
        (7 << 29, LONG[..15].into())
    );
    assert_eq!(text(&agent.get(CLOCK, 8, &[1])[4..]), LONG);
    assert_eq!(agent.words(CLOCK, 4, &[0, 0]), [3, 12, 0, 24, 0, 48, 0]);
    assert_eq!(agent.words(CLOCK, 4, &[0, 2]), [1, 48, 0]);
    let (_, values) = agent.ask_with(&command(CLOCK, 4, 1, &[0, 0], 20));
    assert_eq!(words(&values), [2 | 1 << 16, 12, 0, 24, 0]);
    assert_eq!(
        agent.words(CLOCK, 4, &[1, 0]),
        [3 | 1 << 12, 100, 0, 1000, 0, 100, 0]
    );
    agent.refused(OUT_OF_RANGE, CLOCK, 4, &[0, 3]);
    agent.refused(OUT_OF_RANGE, CLOCK, 4, &[1, 1]);
    let (down, up, nearest) = (0, 4, 8);
    for (flags, wanted, expected) in [
        (down, 30, 24),
        (up, 30, 48),
        (nearest, 20, 24),
        (down, 12, 12),
    ] {
        agent.tell(CLOCK, 5, &[flags, 0, wanted, 0]);
        assert_eq!(
            agent.words(CLOCK, 6, &[0]),
            [expected, 0],
            "{flags} {wanted}"
        );
    }
    agent.refused(INVALID_PARAMETERS, CLOCK, 5, &[down, 0, 11, 0]);
    agent.refused(INVALID_PARAMETERS, CLOCK, 5, &[up, 0, 0, 1]);
    agent.refused(INVALID_PARAMETERS, CLOCK, 5, &[16, 0, 12, 0]);
    agent.refused(NOT_SUPPORTED, CLOCK, 5, &[1, 0, 12, 0]);
    agent.refused(NOT_FOUND, CLOCK, 5, &[0, 2, 12, 0]);
    assert_eq!(agent.words(CLOCK, 6, &[0]), [12, 0]);
}

#[test]
fn clocks_are_turned_on_and_off_by_agents_of_any_version() {
    let daemon = start_with(&["clock,name=c,rates=1"]);
    let mut agent = Agent::new(&daemon);
    let state = |agent: &mut Agent| agent.words(CLOCK, 0xb, &[0, 0])[1];
    assert_eq!(state(&mut agent), 0);
    agent.tell(CLOCK, 7, &[0, 1, 0]);
    assert_eq!(state(&mut agent), 1);
    assert_eq!(word(&agent.get(CLOCK, 3, &[0]), 0) & 1, 1);
    agent.tell(CLOCK, 7, &[0, 3, 0]);
    assert_eq!(state(&mut agent), 1);
    // version 2: without a value for an extended configuration
    agent.tell(CLOCK, 7, &[0, 0]);
    assert_eq!(state(&mut agent), 0);
    agent.refused(INVALID_PARAMETERS, CLOCK, 7, &[0, 2, 0]);
    agent.refused(NOT_SUPPORTED, CLOCK, 7, &[0, 3 | 1 << 16, 5]);
    agent.refused(NOT_SUPPORTED, CLOCK, 0xb, &[0, 1]);
    agent.refused(PROTOCOL_ERROR, CLOCK, 7, &[0]);
}

#[test]
fn clocks_have_parents() {
    let daemon = start_with(&[
        "clock,name=leaf,rates=1,parents=pll+osc",
        "clock,name=osc,rates=1",
        "clock,name=pll,rates=1",
    ]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(word(&agent.get(CLOCK, 3, &[0]), 0) >> 28 & 1, 1);
    assert_eq!(word(&agent.get(CLOCK, 3, &[1]), 0) >> 28 & 1, 0);
    assert_eq!(agent.words(CLOCK, 0xc, &[0, 0]), [2, 2, 1]);
    let (_, values) = agent.ask_with(&command(CLOCK, 0xc, 1, &[0, 0], 8));
    assert_eq!(words(&values), [1 | 1 << 24, 2]);
    assert_eq!(agent.words(CLOCK, 0xe, &[0]), [2]);
    agent.tell(CLOCK, 0xd, &[0, 1]);
    assert_eq!(agent.words(CLOCK, 0xe, &[0]), [1]);
    agent.refused(INVALID_PARAMETERS, CLOCK, 0xd, &[0, 0]);
    agent.refused(OUT_OF_RANGE, CLOCK, 0xc, &[0, 2]);
    for message in [0xc, 0xd] {
        agent.refused(NOT_SUPPORTED, CLOCK, message, &[1, 0]);
    }
    agent.refused(NOT_SUPPORTED, CLOCK, 0xe, &[1]);
}

#[test]
fn what_the_host_does_not_allow_is_denied() {
    let daemon = start_with(&[
        "clock,name=c,rates=1+2,allow=none,parents=c+d",
        "clock,name=d,rates=1+2,allow=rate",
        "power,name=p,state=on,fixed=yes",
        "perf,name=f,levels=1+2,fixed=yes",
        "reset,name=r,fixed=yes",
        "voltage,name=v,levels=1+2,fixed=yes",
    ]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(word(&agent.get(CLOCK, 3, &[0]), 0) & 2, 2);
    assert_eq!(agent.words(CLOCK, 0xf, &[0]), [0]);
    assert_eq!(agent.words(CLOCK, 0xf, &[1]), [1 << 29]);
    agent.refused(DENIED, CLOCK, 5, &[0, 0, 2, 0]);
    agent.refused(DENIED, CLOCK, 7, &[0, 1, 0]);
    agent.refused(DENIED, CLOCK, 0xd, &[0, 1]);
    agent.tell(CLOCK, 5, &[0, 1, 2, 0]);
    agent.refused(DENIED, CLOCK, 7, &[1, 1, 0]);
    agent.refused(DENIED, POWER, 4, &[0, 0, 1 << 30]);
    agent.tell(POWER, 4, &[0, 0, 0]);
    assert_eq!(word(&agent.get(PERF, 3, &[0]), 0) >> 30, 0);
    agent.refused(DENIED, PERF, 5, &[0, 2, 1]);
    agent.refused(DENIED, PERF, 7, &[0, 1]);
    agent.refused(DENIED, RESET, 4, &[0, 1, 0]);
    agent.refused(DENIED, VOLTAGE, 5, &[0, 7]);
    agent.refused(DENIED, VOLTAGE, 7, &[0, 0, 2]);
}

#[test]
fn power_domains_are_on_or_off() {
    let (on, off) = (0, 1 << 30);
    let daemon = start_with(&["power,name=gpu", "power,name=isp,state=on"]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(POWER, 1, &[]), [2, 0, 0, 0]);
    let attributes = agent.get(POWER, 3, &[0]);
    assert_eq!(
        (word(&attributes, 0), text(&attributes[4..])),
        (1 << 31 | 3 << 28, "gpu".into())
    );
    assert_eq!(
        [agent.words(POWER, 5, &[0]), agent.words(POWER, 5, &[1])],
        [[off], [on]]
    );
    agent.tell(POWER, 4, &[0, 0, on]);
    assert_eq!(agent.words(POWER, 5, &[0]), [on]);
    agent.refused(INVALID_PARAMETERS, POWER, 4, &[0, 0, 1]);
    agent.refused(INVALID_PARAMETERS, POWER, 4, &[2, 0, on]);
    agent.refused(NOT_SUPPORTED, POWER, 4, &[1, 0, off]);
    agent.refused(NOT_FOUND, POWER, 4, &[0, 2, on]);
    assert_eq!(text(&agent.get(POWER, 8, &[1])[4..]), "isp");
}

#[test]
fn performance_levels_stay_within_the_limits() {
    let daemon = start_with(&["perf,name=cpu,levels=300:10:5+100+200:7,sustained=200"]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(PERF, 1, &[]), [1 | 1 << 16, 0, 0, 0]);
    let attributes = agent.get(PERF, 3, &[0]);
    assert_eq!(words(&attributes[..16]), [0xf << 28, 0, 200, 200]);
    assert_eq!(text(&attributes[16..]), "cpu");
    let levels = agent.words(PERF, 4, &[0, 0]);
    let expected = [3, 100, 0, 0, 100, 0, 200, 7, 0, 200, 1, 300, 10, 5, 300, 2];
    assert_eq!(levels, expected);
    let (_, values) = agent.ask_with(&command(PERF, 4, 1, &[0, 1], 24));
    assert_eq!(words(&values), [1 | 1 << 16, 200, 7, 0, 200, 1]);
    assert_eq!(agent.words(PERF, 8, &[0]), [200]);
    assert_eq!(agent.words(PERF, 6, &[0]), [300, 100]);
    agent.tell(PERF, 7, &[0, 300]);
    agent.tell(PERF, 5, &[0, 250, 150]);
    // the level follows
    assert_eq!(agent.words(PERF, 8, &[0]), [200]);
    agent.refused(OUT_OF_RANGE, PERF, 7, &[0, 300]);
    agent.refused(OUT_OF_RANGE, PERF, 7, &[0, 150]);
    agent.refused(OUT_OF_RANGE, PERF, 5, &[0, 301, 100]);
    agent.refused(OUT_OF_RANGE, PERF, 5, &[0, 300, 99]);
    agent.refused(OUT_OF_RANGE, PERF, 5, &[0, 199, 150]);
    agent.refused(INVALID_PARAMETERS, PERF, 5, &[0, 100, 200]);
    agent.refused(INVALID_PARAMETERS, PERF, 5, &[0, 0, 0]);
    agent.refused(OUT_OF_RANGE, PERF, 4, &[0, 3]);
    assert_eq!(agent.words(PERF, 6, &[0]), [250, 150]);
    // fast channels are not there
    agent.refused(NOT_FOUND, PERF, 2, &[0xb]);
}

#[test]
fn reset_domains_are_reset() {
    let daemon = start_with(&["reset,name=usb", &format!("reset,name={LONG},delay=5")]);
    let mut agent = Agent::new(&daemon);
    agent.give(8, ROOM);
    assert_eq!(agent.words(RESET, 1, &[]), [2]);
    let attributes = agent.get(RESET, 3, &[0]);
    assert_eq!(
        (words(&attributes[..8]), text(&attributes[8..])),
        (vec![1 << 30, u32::MAX], "usb".into())
    );
    let attributes = agent.get(RESET, 3, &[1]);
    assert_eq!(words(&attributes[..8]), [7 << 29, 5000]);
    assert_eq!(text(&agent.get(RESET, 6, &[1])[4..]), LONG);
    let (autonomous, assert, asynchronous) = (1, 2, 4);
    agent.tell(RESET, 5, &[0, 1]);
    agent.tell(RESET, 4, &[0, autonomous, 0]);
    assert_eq!(agent.event().payload, [1, 0, 0]);
    agent.tell(RESET, 4, &[0, assert, 0]);
    assert_eq!(agent.event().payload, [1, 0, 0]);
    agent.tell(RESET, 4, &[0, assert, 0]);
    agent.tell(RESET, 4, &[0, 0, 0]);
    agent.no_event();
    agent.tell(RESET, 4, &[1, autonomous | asynchronous, 0]);
    let event = agent.event();
    assert_eq!(
        (event.header, event.payload),
        (delayed(RESET, 4, agent.token()), vec![0, 1])
    );
    agent.refused(NOT_SUPPORTED, RESET, 4, &[0, autonomous | asynchronous, 0]);
    agent.refused(INVALID_PARAMETERS, RESET, 4, &[0, autonomous, 1]);
    agent.refused(INVALID_PARAMETERS, RESET, 4, &[0, 8, 0]);
    agent.refused(NOT_FOUND, RESET, 4, &[2, autonomous, 0]);
}

#[test]
fn voltages_are_set_to_their_levels() {
    let daemon = start_with(&[
        "voltage,name=list,levels=3300000+-5000,state=on",
        "voltage,name=range,levels=800000:1200000:25000,level=900000,delay=5",
    ]);
    let mut agent = Agent::new(&daemon);
    agent.give(4, ROOM);
    assert_eq!(agent.words(VOLTAGE, 1, &[]), [2]);
    let attributes = agent.get(VOLTAGE, 3, &[1]);
    assert_eq!(
        (word(&attributes, 0), text(&attributes[4..])),
        (1 << 31, "range".into())
    );
    assert_eq!(
        agent.words(VOLTAGE, 4, &[0, 0]),
        [2, -5000i32 as u32, 3_300_000]
    );
    assert_eq!(
        agent.words(VOLTAGE, 4, &[1, 0]),
        [3 | 1 << 12, 800_000, 1_200_000, 25_000]
    );
    assert_eq!(
        [agent.words(VOLTAGE, 6, &[0]), agent.words(VOLTAGE, 6, &[1])],
        [[7], [0]]
    );
    agent.tell(VOLTAGE, 5, &[1, 7]);
    assert_eq!(agent.words(VOLTAGE, 6, &[1]), [7]);
    agent.refused(INVALID_PARAMETERS, VOLTAGE, 5, &[1, 8]);
    assert_eq!(agent.words(VOLTAGE, 8, &[0]), [-5000i32 as u32]);
    agent.tell(VOLTAGE, 7, &[0, 0, 3_300_000]);
    assert_eq!(agent.words(VOLTAGE, 8, &[0]), [3_300_000]);
    agent.tell(VOLTAGE, 7, &[1, 1, 1_000_000]);
    let event = agent.event();
    assert_eq!(event.header, delayed(VOLTAGE, 7, agent.token()));
    assert_eq!(event.payload, [0, 1, 1_000_000]);
    agent.refused(OUT_OF_RANGE, VOLTAGE, 7, &[1, 0, 1_000_001]);
    agent.refused(OUT_OF_RANGE, VOLTAGE, 7, &[1, 0, 1_225_000]);
    agent.refused(NOT_SUPPORTED, VOLTAGE, 7, &[0, 1, 3_300_000]);
    agent.refused(OUT_OF_RANGE, VOLTAGE, 4, &[0, 2]);
    assert_eq!(agent.words(VOLTAGE, 8, &[1]), [1_000_000]);
}

#[test]
fn changes_are_told_to_who_wants_to_know() {
    let (on, off) = (0, 1 << 30);
    let daemon = start_with(&[
        "clock,name=c,rates=1+2,delay=5",
        "power,name=p,delay=5",
        "perf,name=f,levels=1+2",
    ]);
    let mut agent = Agent::new(&daemon);
    agent.give(32, ROOM);
    for (protocol, message) in [
        (CLOCK, 9),
        (CLOCK, 0xa),
        (POWER, 6),
        (POWER, 7),
        (PERF, 9),
        (PERF, 0xa),
    ] {
        agent.refused(INVALID_PARAMETERS, protocol, message, &[0, 2]);
        agent.refused(NOT_FOUND, protocol, message, &[1, 1]);
        agent.tell(protocol, message, &[0, 1]);
    }
    let told = |agent: &mut Agent, protocol, message, payload: &[u32]| {
        let event = agent.event();
        assert_eq!(event.header, notification(protocol, message));
        assert_eq!(event.payload, payload);
    };
    agent.tell(CLOCK, 5, &[0, 0, 2, 0]);
    told(&mut agent, CLOCK, 1, &[1, 0, 2, 0]);
    told(&mut agent, CLOCK, 0, &[1, 0, 2, 0]);
    agent.tell(CLOCK, 5, &[1, 0, 1, 0]);
    let token = agent.token();
    told(&mut agent, CLOCK, 1, &[1, 0, 1, 0]);
    let event = agent.event();
    assert_eq!(
        (event.header, event.payload),
        (delayed(CLOCK, 5, token), vec![0, 0, 1, 0])
    );
    told(&mut agent, CLOCK, 0, &[1, 0, 1, 0]);
    // the delayed response is not wanted
    agent.tell(CLOCK, 5, &[1 | 2, 0, 2, 0]);
    told(&mut agent, CLOCK, 1, &[1, 0, 2, 0]);
    told(&mut agent, CLOCK, 0, &[1, 0, 2, 0]);
    agent.tell(POWER, 4, &[0, 0, on]);
    told(&mut agent, POWER, 1, &[1, 0, on]);
    told(&mut agent, POWER, 0, &[1, 0, on]);
    agent.tell(POWER, 4, &[1, 0, off]);
    let token = agent.token();
    told(&mut agent, POWER, 1, &[1, 0, off]);
    let event = agent.event();
    assert_eq!(
        (event.header, event.payload),
        (delayed(POWER, 4, token), vec![0, 0, off])
    );
    told(&mut agent, POWER, 0, &[1, 0, off]);
    agent.tell(PERF, 5, &[0, 1, 1]);
    told(&mut agent, PERF, 0, &[1, 0, 1, 1]);
    told(&mut agent, PERF, 1, &[1, 0, 1]);
    // what does not change is not told
    agent.tell(PERF, 5, &[0, 1, 1]);
    for (protocol, message) in [(CLOCK, 9), (CLOCK, 0xa), (POWER, 6), (POWER, 7)] {
        agent.tell(protocol, message, &[0, 0]);
    }
    agent.tell(CLOCK, 5, &[0, 0, 1, 0]);
    agent.tell(POWER, 4, &[0, 0, on]);
    agent.no_event();
}

#[test]
fn a_guest_that_asks_to_be_shut_down_is_refused_unless_the_host_says_otherwise() {
    let daemon = start::<&str>(&[]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(SYSTEM, 1, &[]), [0]);
    assert_eq!(agent.words(SYSTEM, 2, &[3]), [3 << 30]);
    assert_eq!(agent.words(SYSTEM, 4, &[]), [3]);
    for state in [0, 1, 2, 4] {
        agent.refused(DENIED, SYSTEM, 3, &[1, state]);
    }
    for state in [3, 5, 0x8000_0000] {
        agent.refused(INVALID_PARAMETERS, SYSTEM, 3, &[1, state]);
    }
    agent.refused(INVALID_PARAMETERS, SYSTEM, 3, &[2, 0]);
    drop(agent);
    becomes("the log does not tell", || {
        daemon.log().contains("shutdown: refused")
    });
}

#[test]
fn a_guest_that_is_granted_a_shutdown_is_told_to_carry_it_out_if_it_is_a_graceful_one() {
    let daemon = start(&["--system-power", "accept"]);
    let mut agent = Agent::new(&daemon);
    agent.give(4, ROOM);
    agent.tell(SYSTEM, 3, &[1, 0]);
    agent.no_event();
    agent.tell(SYSTEM, 5, &[1]);
    agent.tell(SYSTEM, 3, &[1, 0]);
    let event = agent.event();
    assert_eq!(event.header, notification(SYSTEM, 0));
    assert_eq!(event.payload, [1, 1, 0, 0]);
    agent.tell(SYSTEM, 3, &[0, 1]);
    agent.no_event();
}

#[test]
fn the_host_can_be_told_what_the_guest_asked_for() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("wishes");
    let daemon = start(&["--system-power", &format!("tell={}", path.display())]);
    let mut agent = Agent::new(&daemon);
    for state in [0, 1, 2, 4] {
        agent.tell(SYSTEM, 3, &[0, state]);
    }
    let told = std::fs::read_to_string(&path).unwrap();
    assert_eq!(told, "shutdown\ncold-reset\nwarm-reset\nsuspend\n");
}
