//! Interrupts of a simulated chip, over the socket.

mod common;

use std::time::Duration;

use common::*;
use vhost_device_testkit::session::Options;

#[test]
fn edges_interrupt_as_asked_for() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    for (trigger, on_rising, on_falling) in [
        (RISING, true, false),
        (FALLING, false, true),
        (BOTH, true, true),
    ] {
        driver.tell(SET_DIRECTION, 1, IN);
        driver.tell(SET_IRQ_TYPE, 1, trigger);
        let mut buffer = driver.unmask(1);
        for (value, interrupts) in [(1, on_rising), (0, on_falling)] {
            outside.set(1, value);
            if interrupts {
                assert_eq!(driver.event(&buffer), VALID);
                buffer = driver.unmask(1);
            } else {
                driver.no_event();
            }
        }
        driver.tell(SET_IRQ_TYPE, 1, NONE);
        assert_eq!(driver.event(&buffer), INVALID);
    }
}

#[test]
fn an_edge_that_comes_while_masked_is_delivered_once_unmasked() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 1, IN);
    driver.tell(SET_IRQ_TYPE, 1, BOTH);
    for value in [1, 0, 1, 0] {
        outside.set(1, value);
    }
    let buffer = driver.unmask(1);
    assert_eq!(driver.event(&buffer), VALID);
    driver.unmask(1);
    driver.no_event();
}

#[test]
fn a_level_interrupts_as_long_as_it_lasts() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 1, IN);
    for (trigger, active) in [(HIGH, 1), (LOW, 0)] {
        outside.set(1, 1 - active);
        driver.tell(SET_IRQ_TYPE, 1, trigger);
        let buffer = driver.unmask(1);
        driver.no_event();
        outside.set(1, active);
        assert_eq!(driver.event(&buffer), VALID);
        for _ in 0..3 {
            let buffer = driver.unmask(1);
            assert_eq!(driver.event(&buffer), VALID, "it still lasts");
        }
        // over while masked: not latched
        outside.set(1, 1 - active);
        let buffer = driver.unmask(1);
        driver.no_event();
        driver.tell(SET_IRQ_TYPE, 1, NONE);
        assert_eq!(driver.event(&buffer), INVALID);
    }
}

#[test]
fn disarming_either_way_returns_the_buffer_and_stops_edge_detection() {
    for disarm in [SET_IRQ_TYPE, SET_DIRECTION] {
        let (daemon, mut outside) = start_sim("s4");
        let mut driver = Driver::new(&daemon);
        driver.tell(SET_DIRECTION, 1, IN);
        driver.tell(SET_IRQ_TYPE, 1, BOTH);
        let buffer = driver.unmask(1);
        assert_eq!(outside.ask("info 1"), "ok in 0 both");
        driver.tell(disarm, 1, NONE);
        assert_eq!(driver.event(&buffer), INVALID);
        assert_eq!(outside.ask("info 1"), "ok in 0 none");
        outside.set(1, 1);
        // what was latched meanwhile is forgotten too
        driver.tell(SET_IRQ_TYPE, 1, BOTH);
        driver.unmask(1);
        driver.no_event();
    }
}

#[test]
fn reading_a_line_is_not_delayed_by_its_interrupt() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 1, IN);
    driver.tell(SET_IRQ_TYPE, 1, BOTH);
    for round in 0..100 {
        let value = 1 - round % 2;
        outside.set(1, value);
        let begin = std::time::Instant::now();
        assert_eq!(driver.value(1), value, "an interrupt is pending");
        assert!(begin.elapsed() < Duration::from_millis(500));
    }
}

#[test]
fn buffers_that_make_no_sense_come_back_invalid() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    for line in [0, 4, 0xffff] {
        let buffer = driver.unmask(line);
        assert_eq!(driver.event(&buffer), INVALID, "not enabled, or no line");
    }
    driver.tell(SET_IRQ_TYPE, 0, RISING);
    let first = driver.unmask(0);
    let second = driver.unmask(0);
    assert_eq!(driver.event(&second), INVALID, "a second buffer");
    outside.set(0, 1);
    assert_eq!(driver.event(&first), VALID);
}

#[test]
fn an_output_has_no_interrupt() {
    let (daemon, _outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 1, OUT);
    driver.refused(SET_IRQ_TYPE, 1, RISING);
    // A driver that ignores the refusal is not sent its buffer back and forth.
    let buffer = driver.unmask(1);
    driver.no_event();
    driver.tell(SET_IRQ_TYPE, 1, NONE);
    assert_eq!(driver.event(&buffer), INVALID);
    driver.tell(SET_DIRECTION, 1, IN);
    driver.tell(SET_IRQ_TYPE, 1, RISING);
    driver.refused(SET_DIRECTION, 1, OUT);
    driver.tell(SET_IRQ_TYPE, 1, NONE);
    driver.tell(SET_DIRECTION, 1, OUT);
}

#[test]
fn a_line_without_a_direction_is_an_input_while_its_interrupt_is_enabled() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_IRQ_TYPE, 2, RISING);
    let buffer = driver.unmask(2);
    outside.set(2, 1);
    assert_eq!(driver.event(&buffer), VALID);
    driver.tell(SET_IRQ_TYPE, 2, NONE);
    assert_eq!(outside.ask("info 2"), "ok in 1 none");
}

#[test]
fn without_the_feature_there_are_no_interrupts() {
    let (daemon, mut outside) = start_sim("s4");
    let options = Options::usual(2);
    let features = options.features & !1;
    let mut driver = Driver::with(daemon.socket(), &options.with_features(features));
    driver.refused(SET_IRQ_TYPE, 0, RISING);
    driver.refused(SET_IRQ_TYPE, 0, NONE);
    let buffer = driver.unmask(0);
    assert_eq!(driver.event(&buffer), INVALID);
    outside.set(0, 1);
    assert_eq!(driver.value(0), 1);
}

#[test]
fn an_interrupt_survives_a_pause_and_its_buffer_comes_back_for_it() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 1, IN);
    driver.tell(SET_IRQ_TYPE, 1, RISING);
    let buffer = driver.unmask(1);
    let base = driver.session.stop_ring(EVENTS).unwrap();
    assert_eq!(base, 1, "nothing is left open");
    assert_eq!(driver.event(&buffer), INVALID);
    outside.set(1, 1);
    driver.session.start_ring(EVENTS).unwrap();
    driver.session.enable(EVENTS, true).unwrap();
    let buffer = driver.unmask(1);
    assert_eq!(driver.event(&buffer), VALID, "latched meanwhile");
}

#[test]
fn a_wire_lets_a_guest_interrupt_itself() {
    let (daemon, _outside) = start_sim("s4,wire=0-1");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 0, OUT);
    driver.tell(SET_DIRECTION, 1, IN);
    driver.tell(SET_IRQ_TYPE, 1, BOTH);
    for value in [1, 0, 1, 0] {
        let buffer = driver.unmask(1);
        driver.tell(SET_VALUE, 0, value);
        assert_eq!(driver.event(&buffer), VALID);
        assert_eq!(u32::from(driver.value(1)), value);
    }
}

#[test]
fn sixty_four_armed_interrupts_cost_nothing_while_nothing_happens() {
    let (daemon, mut outside) = start_sim("s64");
    let mut driver = Driver::new(&daemon);
    let buffers: Vec<_> = (0..64)
        .map(|line| {
            driver.tell(SET_DIRECTION, line, IN);
            driver.tell(SET_IRQ_TYPE, line, BOTH);
            driver.unmask(line)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    let before = daemon.stats().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let after = daemon.stats().unwrap();
    assert_eq!(after.voluntary, before.voluntary, "wake-ups");
    // one main thread, one for control messages, two for the outside; none per line
    assert_eq!(after.threads, 4);
    for (line, buffer) in buffers.iter().enumerate() {
        outside.set(line as u16, 1);
        assert_eq!(driver.event(buffer), VALID);
    }
}
