//! The control socket of a simulated chip: the lines as the outside sees and sets them, with a guest at the other end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::{Duration, Instant};

use common::*;

/// What the system calls ENODEV.
const GONE: &str = "error No such device (os error 19)";

#[test]
fn the_outside_is_told_what_it_did_wrong() {
    let (_daemon, mut outside) = start_sim("s4,names=led");
    assert_eq!(outside.ask("lines"), "ok 4");
    for line in ["4", "-1", "65536", "button", "99999999999999999999"] {
        let answer = outside.ask(&format!("get {line}"));
        assert_eq!(answer, "error there is no such line");
    }
    for command in ["", "get", "set 0", "set 0 2", "watch 1", "lines 1", "Lines"] {
        assert!(outside.ask(command).starts_with("error the commands are"));
    }
    assert_eq!(outside.ask("set led 1"), "ok");
    assert_eq!(outside.ask("get led"), "ok 1");
    let long = "x".repeat(1000);
    assert_eq!(outside.ask(&long), "error the command is too long");
}

#[test]
fn a_watcher_that_does_not_listen_is_forgotten() {
    let (daemon, mut outside) = start_sim("s2");
    let mut lazy = outside.another();
    assert_eq!(lazy.ask("watch"), "ok");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 0, OUT);
    let begin = Instant::now();
    for round in 0..40_000 {
        driver.tell(SET_VALUE, 0, round % 2);
    }
    assert_eq!(outside.ask("get 0"), "ok 1");
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}

#[test]
fn every_watcher_hears_of_every_change_once_and_of_nothing_else() {
    let (daemon, mut outside) = start_sim("s4,wire=0-1,wire=0-2");
    let mut watchers = [outside.another(), outside.another()];
    for watcher in &mut watchers {
        assert_eq!(watcher.ask("watch"), "ok");
        assert_eq!(watcher.ask("watch"), "ok", "twice is no more than once");
    }
    let mut driver = Driver::new(&daemon);
    outside.set(3, 1);
    outside.set(3, 1);
    driver.tell(SET_VALUE, 0, 1);
    driver.tell(SET_DIRECTION, 0, OUT);
    outside.set(1, 0);
    driver.tell(SET_DIRECTION, 0, NONE);
    for watcher in &mut watchers {
        for event in ["3 1", "0 1", "1 1", "2 1", "0 0", "1 0", "2 0"] {
            assert_eq!(watcher.hear(), format!("event {event}"));
        }
        watcher.silent();
        assert_eq!(watcher.ask("get 3"), "ok 1", "it can ask too");
    }
}

#[test]
fn a_change_right_after_the_answer_to_watch_is_told() {
    let (_daemon, mut outside) = start_sim("s4");
    let mut watchers = Vec::new();
    for round in 0..14 {
        let mut watcher = outside.another();
        assert_eq!(watcher.ask("watch"), "ok");
        let value = (round + 1) % 2;
        outside.set(0, value);
        assert_eq!(watcher.hear(), format!("event 0 {value}"));
        watchers.push(watcher);
    }
}

#[test]
fn what_the_outside_pulls_counts_once_nothing_drives_the_line() {
    let (daemon, mut outside) = start_sim("s4,wire=0-1");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 0, OUT);
    for line in [0, 1] {
        outside.set(line, 1);
        assert_eq!(outside.ask(&format!("get {line}")), "ok 0", "driven");
        assert_eq!(driver.value(line), 0);
    }
    driver.tell(SET_DIRECTION, 0, IN);
    for line in [0, 1] {
        assert_eq!(outside.ask(&format!("get {line}")), "ok 1");
        assert_eq!(driver.value(line), 1);
    }
}

#[test]
fn the_outside_sees_which_edges_the_guest_waits_for() {
    let (daemon, mut outside) = start_sim("s4,names=//power button");
    let mut driver = Driver::new(&daemon);
    for (trigger, edges) in [
        (RISING, "rising"),
        (FALLING, "falling"),
        (BOTH, "both"),
        (HIGH, "rising"),
        (LOW, "falling"),
        (NONE, "none"),
    ] {
        driver.tell(SET_IRQ_TYPE, 2, trigger);
        let expected = format!("ok in 0 {edges} power button");
        assert_eq!(outside.ask("info 2"), expected, "trigger {trigger}");
    }
    assert_eq!(outside.ask("info 3"), "ok in 0 none");
}

#[test]
fn an_unplugged_chip_answers_nobody_and_comes_back_as_the_outside_left_it() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 1, IN);
    assert_eq!(outside.ask("unplug"), "ok");
    assert_eq!(outside.ask("unplug"), "ok", "once more changes nothing");
    assert_eq!(outside.ask("get 1"), GONE);
    assert_eq!(outside.ask("info 1"), GONE);
    assert_eq!(outside.ask("lines"), "ok 4");
    outside.set(1, 1);
    driver.refused(GET_VALUE, 1, 0);
    driver.refused(SET_IRQ_TYPE, 1, BOTH);
    drop(driver);
    let mut driver = Driver::new(&daemon);
    driver.refused(GET_VALUE, 1, 0);
    assert_eq!(outside.ask("plug"), "ok");
    assert_eq!(driver.value(1), 1);
    driver.tell(SET_IRQ_TYPE, 1, FALLING);
    let buffer = driver.unmask(1);
    outside.set(1, 0);
    assert_eq!(driver.event(&buffer), VALID);
    assert_eq!(outside.ask("info 1"), "ok in 0 falling");
}

#[test]
fn there_is_room_for_sixteen_clients_and_again_once_one_has_left() {
    let (_daemon, mut outside) = start_sim("s4");
    assert_eq!(outside.ask("lines"), "ok 4");
    let mut others: Vec<Outside> = (1..16).map(|_| outside.another()).collect();
    for other in &mut others {
        assert_eq!(other.ask("lines"), "ok 4");
    }
    let mut surplus = outside.another();
    assert_eq!(surplus.hear(), "error too many clients");
    assert!(surplus.is_closed());
    others.clear();
    // The places are free once their threads have noticed.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !outside.another().is_served() {
        assert!(Instant::now() < deadline, "no place is free");
    }
    assert_eq!(outside.ask("lines"), "ok 4");
}

#[test]
fn a_client_may_leave_at_any_point_without_harm_to_others() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 0, OUT);
    for unfinished in [&b"set 1"[..], b"watch\n", b"\xff\xfe\n", b""] {
        outside.another().say(unfinished);
    }
    let mut watcher = outside.another();
    assert_eq!(watcher.ask("watch"), "ok");
    drop(watcher);
    for value in [1, 0, 1] {
        driver.tell(SET_VALUE, 0, value);
        assert_eq!(outside.ask("get 0"), format!("ok {value}"));
    }
    assert_eq!(outside.ask("get 1"), "ok 0");
}
