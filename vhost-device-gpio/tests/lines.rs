//! Lines of a simulated chip as a driver and the outside see them.

mod common;

use common::*;
use vhost_device_testkit::framing::{Answer, Framing};
use vhost_device_testkit::session::{Options, Request};

#[test]
fn an_output_drives_what_the_outside_sees() {
    let (daemon, mut outside) = start_sim("s4,names=led");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_VALUE, 0, 1);
    assert_eq!(outside.ask("info led"), "ok in 0 none led", "not yet");
    driver.tell(SET_DIRECTION, 0, OUT);
    assert_eq!(outside.ask("info led"), "ok out 1 none led");
    assert_eq!(driver.value(0), 1);
    driver.tell(SET_VALUE, 0, 0);
    assert_eq!(outside.ask("get 0"), "ok 0");
    assert_eq!(driver.ask(GET_DIRECTION, 0, 0), (OK, OUT as u8));
}

#[test]
fn an_input_has_the_value_that_the_outside_gives_it() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    for activate in [false, true] {
        if activate {
            driver.tell(SET_DIRECTION, 2, IN);
        }
        for value in [1, 0, 1] {
            outside.set(2, value);
            assert_eq!(
                driver.value(2),
                value,
                "active and inactive are not swapped"
            );
        }
    }
}

#[test]
fn a_direction_is_the_hosts_until_the_driver_sets_one() {
    let (daemon, _outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    assert_eq!(driver.ask(GET_DIRECTION, 1, 0), (OK, IN as u8));
    for direction in [OUT, IN, NONE] {
        driver.tell(SET_DIRECTION, 1, direction);
        assert_eq!(driver.ask(GET_DIRECTION, 1, 0), (OK, direction as u8));
    }
}

#[test]
fn a_deactivated_line_has_forgotten_everything() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_VALUE, 1, 1);
    driver.tell(SET_DIRECTION, 1, OUT);
    driver.tell(SET_DIRECTION, 1, NONE);
    assert_eq!(outside.ask("info 1"), "ok in 0 none");
    driver.tell(SET_DIRECTION, 1, OUT);
    assert_eq!(driver.value(1), 0, "the value from before is forgotten");
}

#[test]
fn what_makes_no_sense_is_refused_and_the_queue_goes_on() {
    let (daemon, _outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    for line in [4, 5, 255, 256, 0x7fff, 0xffff] {
        for kind in GET_DIRECTION..=SET_IRQ_TYPE {
            driver.refused(kind, line, 0);
        }
    }
    for kind in [0, 7, 0x100, 0xffff] {
        driver.refused(kind, 0, 0);
    }
    driver.refused(SET_DIRECTION, 0, 3);
    driver.refused(SET_VALUE, 0, 2);
    driver.refused(SET_IRQ_TYPE, 0, 5);
    driver.refused(GET_LINE_NAMES, 0, 0);
    assert_eq!(driver.value(0), 0);
}

#[test]
fn names_come_as_one_block_whose_length_the_configuration_tells() {
    let (daemon, _outside) = start_sim("s4,names=led//ethernet reset");
    let mut driver = Driver::new(&daemon);
    let block = b"led\0\0ethernet reset\0\0";
    let config = driver.session.control.config(0, 8).unwrap();
    assert_eq!(config[..4], [4, 0, 0, 0]);
    assert_eq!(config[4..], (block.len() as u32).to_le_bytes());
    let names = |room: u32| Request {
        writable: room,
        ..message(GET_LINE_NAMES, 0, 0)
    };
    let whole = [&[OK][..], block].concat();
    for room in [whole.len() as u32, 4096] {
        assert_eq!(driver.answer(&names(room)), whole);
    }
    assert_eq!(driver.answer(&names(whole.len() as u32 - 1)), [ERR, 0]);
}

#[test]
fn a_request_without_room_for_its_answer_does_nothing() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 0, OUT);
    let cramped = Request {
        writable: 1,
        ..message(SET_VALUE, 0, 1)
    };
    assert_eq!(driver.answer(&cramped), [ERR]);
    let none = Request {
        writable: 0,
        ..cramped
    };
    assert_eq!(driver.answer(&none), []);
    assert_eq!(outside.ask("get 0"), "ok 0");
}

#[test]
fn a_header_with_more_behind_it_is_understood() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    outside.set(3, 1);
    let mut long = message(GET_VALUE, 3, 0);
    long.readable.extend([0xff; 100]);
    assert_eq!(driver.answer(&long), [OK, 1]);
}

#[test]
fn requests_for_one_line_are_answered_in_order() {
    let (daemon, mut outside) = start_sim("s4");
    outside.ask("watch");
    let mut driver = Driver::new(&daemon);
    let mut requests = vec![message(SET_DIRECTION, 0, OUT)];
    for value in [1, 0, 1, 0, 1] {
        requests.push(message(SET_VALUE, 0, value));
        requests.push(message(GET_VALUE, 0, 0));
    }
    requests.push(message(SET_DIRECTION, 0, NONE));
    requests.push(message(GET_VALUE, 0, 0));
    let pending: Vec<_> = requests
        .iter()
        .map(|request| driver.session.prepare(request, &Framing::whole()).unwrap())
        .collect();
    driver.session.rings[REQUESTS].submit().unwrap();
    let answers: Vec<Answer> = pending
        .iter()
        .map(|pending| driver.session.finish(REQUESTS, pending).unwrap())
        .collect();
    let values: Vec<u8> = answers.iter().map(|answer| answer.bytes[1]).collect();
    assert_eq!(values, [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
    for value in [1, 0, 1, 0, 1, 0] {
        assert_eq!(outside.hear(), format!("event 0 {value}"));
    }
}

#[test]
fn a_wire_drives_its_input_as_long_as_its_output_is_one() {
    let (daemon, mut outside) = start_sim("s4,wire=0-1,wire=0-2");
    let mut driver = Driver::new(&daemon);
    outside.set(1, 1);
    assert_eq!((driver.value(1), driver.value(2)), (1, 0));
    driver.tell(SET_DIRECTION, 0, OUT);
    assert_eq!((driver.value(1), driver.value(2)), (0, 0));
    driver.tell(SET_VALUE, 0, 1);
    assert_eq!((driver.value(1), driver.value(2)), (1, 1));
    driver.tell(SET_DIRECTION, 0, NONE);
    assert_eq!((driver.value(1), driver.value(2)), (1, 0));
}

#[test]
fn lines_are_let_go_when_the_guest_goes_away() {
    let (daemon, mut outside) = start_sim("s4");
    outside.ask("watch");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_VALUE, 3, 1);
    driver.tell(SET_DIRECTION, 3, OUT);
    assert_eq!(outside.hear(), "event 3 1");
    drop(driver);
    assert_eq!(outside.hear(), "event 3 0");
    assert_eq!(outside.ask("info 3"), "ok in 0 none");
}

#[test]
fn a_reset_lets_lines_go_and_a_pause_does_not() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_VALUE, 3, 1);
    driver.tell(SET_DIRECTION, 3, OUT);
    for queue in [REQUESTS, EVENTS] {
        driver.session.stop_ring(queue).unwrap();
    }
    assert_eq!(outside.ask("info 3"), "ok out 1 none", "paused");
    for queue in [REQUESTS, EVENTS] {
        driver.session.start_ring(queue).unwrap();
        driver.session.enable(queue, true).unwrap();
    }
    assert_eq!(driver.ask(GET_DIRECTION, 3, 0), (OK, OUT as u8));
    driver.session.control.reset_device().unwrap();
    assert_eq!(outside.ask("info 3"), "ok in 0 none", "reset");
}

#[test]
fn rings_that_begin_anew_are_a_reset_guests() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_VALUE, 3, 1);
    driver.tell(SET_DIRECTION, 3, OUT);
    driver.tell(SET_IRQ_TYPE, 1, RISING);
    for queue in [REQUESTS, EVENTS] {
        driver.session.stop_ring(queue).unwrap();
    }
    for queue in [REQUESTS, EVENTS] {
        driver.session.rings[queue].reset();
        driver.session.start_ring(queue).unwrap();
        driver.session.enable(queue, true).unwrap();
    }
    assert_eq!(outside.ask("info 3"), "ok in 0 none");
    assert_eq!(outside.ask("info 1"), "ok in 0 none");
    // and the driver that comes next finds a working device
    driver.tell(SET_VALUE, 3, 1);
    driver.tell(SET_DIRECTION, 3, OUT);
    assert_eq!(outside.ask("info 3"), "ok out 1 none");
}

#[test]
fn a_chip_that_disappears_gives_errors_and_comes_back() {
    let (daemon, mut outside) = start_sim("s4");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 0, OUT);
    outside.ask("unplug");
    driver.refused(GET_VALUE, 1, 0);
    driver.refused(SET_VALUE, 0, 1);
    driver.refused(SET_DIRECTION, 1, IN);
    driver.refused(GET_DIRECTION, 1, 0);
    driver.refused(SET_IRQ_TYPE, 1, RISING);
    driver.tell(SET_DIRECTION, 0, NONE);
    outside.ask("plug");
    assert_eq!(driver.value(1), 0);
}

#[test]
fn a_slow_chip_delays_neither_the_control_socket_nor_shutdown() {
    let mut daemon = start(&["-l", "s4,delay=60000000"]);
    let mut driver = Driver::new(&daemon);
    driver
        .session
        .submit(&message(GET_VALUE, 0, 0), &Framing::whole())
        .unwrap();
    let begin = std::time::Instant::now();
    driver.session.control.config(0, 8).unwrap();
    assert!(begin.elapsed().as_millis() < 200, "{:?}", begin.elapsed());
    daemon.finish().unwrap();
}

#[test]
fn two_guests_have_two_chips() {
    use vhost_device_testkit::process::{Launch, Served};
    let launch = Launch::new(env!("CARGO_BIN_EXE_vhost-device-gpio").into()).unwrap();
    let socket = launch.dir().join("v");
    let launch = launch
        .arguments(["-c", "2", "-l", "s2:s3,names=a", "-s"])
        .arguments([socket.clone()]);
    let mut daemon = Served(launch.spawn().unwrap());
    for (number, lines) in [(0, 2), (1, 3)] {
        let path = socket.with_file_name(format!("v{number}"));
        daemon.wait_listening(&path).unwrap();
        let mut driver = Driver::with(&path, &Options::usual(2));
        assert_eq!(driver.session.control.config(0, 1).unwrap(), [lines]);
        assert_eq!(driver.value(u16::from(lines) - 1), 0);
        driver.refused(GET_VALUE, lines.into(), 0);
    }
}
