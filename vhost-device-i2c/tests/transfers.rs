//! Transfers over the socket: groups, the list of allowed addresses, lengths, chips, a stuck bus.

use std::fs;
use std::time::{Duration, Instant};

use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::process::TempDir;
use vhost_device_testkit::session::Options;

mod common;

use common::{Driver, ERROR, FAIL_NEXT, M_RD, OK, and_next, daemon, read, request, write};

/// Two register chips and a memory.
const BUS: &str = "sim0:0x20=regs:0x21=regs:0x50=24c02";

#[test]
fn a_grouped_write_and_read_is_one_transfer() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    assert_eq!(driver.statuses(&[write(0x20, &[5, 0xaa, 0xbb])]), [OK]);
    assert_eq!(driver.register(0x20, 5, 2), [0xaa, 0xbb]);
}

/// A write with FAIL_NEXT that fails fails the read behind it; one without does not.
#[test]
fn a_failed_request_fails_the_rest_of_its_group_and_no_other() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    let denied = write(0x33, &[0]);
    let good = read(0x20, 1);
    let table = [
        (vec![denied.clone(), good.clone()], vec![ERROR, OK]),
        (
            vec![and_next(denied.clone()), good.clone()],
            vec![ERROR, ERROR],
        ),
        (
            vec![
                and_next(denied.clone()),
                and_next(good.clone()),
                good.clone(),
                good.clone(),
            ],
            vec![ERROR, ERROR, ERROR, OK],
        ),
        (
            vec![and_next(good.clone()), denied.clone(), good.clone()],
            vec![ERROR, ERROR, OK],
        ),
        (
            vec![and_next(good.clone()), good.clone(), denied],
            vec![OK, OK, ERROR],
        ),
    ];
    for (requests, statuses) in table {
        assert_eq!(driver.statuses(&requests), statuses, "{requests:?}");
    }
}

/// The public daemon looked at the first message of a batch only.
#[test]
fn the_list_of_addresses_holds_for_every_message_of_every_batch() {
    let daemon = daemon("sim0:0x20=regs,sim1:0x21=regs", &[]);
    let mut driver = Driver::new(&daemon);
    for denied in (0..0x80).filter(|address| ![0x20, 0x21].contains(address)) {
        for make in [
            |to| read(to, 1),
            |to| write(to, &[]),
            |to| write(to, &[0, 1]),
        ] {
            let batch = [make(0x20), make(denied), make(0x21)];
            assert_eq!(driver.statuses(&batch), [OK, ERROR, OK], "{denied:#x}");
            let group = [and_next(make(0x20)), make(denied), make(0x20)];
            assert_eq!(driver.statuses(&group), [ERROR, ERROR, OK], "{denied:#x}");
        }
    }
}

/// Nothing of a group reaches the bus if part of it is not allowed.
#[test]
fn a_group_with_a_denied_message_changes_nothing() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    let group = [and_next(write(0x20, &[7, 0x99])), write(0x33, &[0])];
    assert_eq!(driver.statuses(&group), [ERROR, ERROR]);
    assert_eq!(driver.register(0x20, 7, 1), [0]);
}

#[test]
fn a_group_over_two_buses_is_refused() {
    let daemon = daemon("sim0:0x20=regs,sim1:0x21=regs", &[]);
    let mut driver = Driver::new(&daemon);
    let group = [and_next(write(0x20, &[7])), read(0x21, 1), read(0x21, 1)];
    assert_eq!(driver.statuses(&group), [ERROR, ERROR, OK]);
}

/// On a chip, a transfer of its own begins with a new address phase: the wrap-around of a memory's page shows whether two
/// writes were one. Unrelated requests that wait in the ring together stay apart, and each has its own status.
#[test]
fn unrelated_requests_are_never_fused() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    let mut requests = Vec::new();
    for number in 0..40u8 {
        requests.push(write(0x20, &[number, number + 100]));
        requests.push(write(0x44, &[number]));
    }
    let statuses = driver.statuses(&requests);
    for pair in statuses.chunks(2) {
        assert_eq!(pair, [OK, ERROR]);
    }
    let all: Vec<u8> = (100..140).collect();
    assert_eq!(driver.register(0x20, 0, 40), all);
}

#[test]
fn zero_length_requests_tell_who_is_there() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    for address in 0..0x80 {
        let expected = if [0x20, 0x21, 0x50].contains(&address) {
            OK
        } else {
            ERROR
        };
        let statuses = driver.statuses(&[write(address, &[]), read(address, 0)]);
        assert_eq!(statuses, [expected, expected], "{address:#x}");
    }
}

/// Lengths were once cut to 16 bits, and buffers made as long as the guest said.
#[test]
fn messages_up_to_8192_bytes_pass_and_longer_ones_do_not() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    for (length, status) in [
        (8191, OK),
        (8192, OK),
        (8193, ERROR),
        (65536, ERROR),
        (65537, ERROR),
    ] {
        assert_eq!(
            driver.statuses(&[read(0x20, length)]),
            [status],
            "read {length}"
        );
        let data = vec![0x5a; length as usize];
        assert_eq!(
            driver.statuses(&[write(0x20, &data)]),
            [status],
            "write {length}"
        );
        assert_eq!(driver.statuses(&[read(0x20, 1)]), [OK]);
    }
}

#[test]
fn requests_without_sense_get_the_error_status_and_the_next_is_served() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    let at = 0x20 << 1;
    let odd = [
        ("reserved flags", request(at, 1 << 2, &[0], 0)),
        ("all flags but the first", request(at, !FAIL_NEXT, &[], 1)),
        ("read bit in the address", request(at | 1, 0, &[0], 0)),
        ("bits above the address", request(at | 0x100, 0, &[0], 0)),
        ("data to write in a read", request(at, M_RD, &[0], 1)),
        ("room to read in a write", request(at, 0, &[0], 1)),
        ("ten bits that nobody has", request(0x20f0, 0, &[], 0)),
    ];
    for (what, request) in odd {
        assert_eq!(
            driver.statuses(&[request, read(0x20, 1)]),
            [ERROR, OK],
            "{what}"
        );
    }
}

#[test]
fn a_group_of_42_passes_and_one_of_43_does_not() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    let group = |length: usize| {
        let mut group = vec![and_next(read(0x20, 1)); length - 1];
        group.push(read(0x20, 1));
        group
    };
    assert_eq!(driver.statuses(&group(42)), [OK; 42]);
    assert_eq!(driver.statuses(&group(43)), [ERROR; 43]);
    let mut after = group(100);
    after.push(read(0x20, 1));
    let statuses = driver.statuses(&after);
    assert_eq!(statuses[..100], [ERROR; 100]);
    assert_eq!(statuses[100], OK);
}

/// The driver adds the requests of a group one by one; the device may be looking meanwhile.
#[test]
fn a_group_that_arrives_in_pieces_is_still_one_transfer() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    driver.batch(&[write(0x20, &[9, 0x42])]);
    let mut pending = driver.submit(&[and_next(write(0x20, &[9]))]);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(
        driver.session.rings[0].used_index(),
        1,
        "nothing runs before the group is whole"
    );
    pending.extend(driver.submit(&[read(0x20, 1)]));
    assert_eq!(driver.finish(&pending), [(vec![], OK), (vec![0x42], OK)]);
}

#[test]
fn a_group_without_an_end_fails_after_a_second() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    let begin = Instant::now();
    let statuses = driver.statuses(&[
        and_next(write(0x20, &[9, 1])),
        and_next(write(0x20, &[9, 1])),
    ]);
    assert_eq!(statuses, [ERROR, ERROR]);
    let took = begin.elapsed();
    assert!((900..3000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(
        driver.register(0x20, 9, 1),
        [0],
        "nothing of it reached the bus, and the next one is served"
    );
    // the rest of a failed group is not waited for longer either
    assert_eq!(driver.statuses(&[and_next(write(0x33, &[0]))]), [ERROR]);
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(driver.statuses(&[read(0x20, 1)]), [OK]);
}

/// A guest that is paused in the middle of a group finds it whole afterwards.
#[test]
fn a_group_that_a_stop_cuts_in_two_is_served_after_the_restart() {
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    driver.batch(&[write(0x20, &[9, 0x42])]);
    let mut pending = driver.submit(&[and_next(read(0x20, 1)), and_next(write(0x20, &[9]))]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(
        driver.session.stop_ring(0).unwrap(),
        1,
        "the group stays in the ring"
    );
    driver.session.start_ring_at(0, 1).unwrap();
    driver.session.enable(0, true).unwrap();
    pending.extend(driver.submit(&[read(0x20, 1)]));
    assert_eq!(
        driver.finish(&pending),
        [(vec![0], OK), (vec![], OK), (vec![0x42], OK)]
    );
}

/// Nobody knows what flags a chain had that cannot be read.
#[test]
fn a_chain_that_cannot_be_read_ends_its_group() {
    use vhost_device_testkit::ring::Descriptor;
    let daemon = daemon(BUS, &[]);
    let mut driver = Driver::new(&daemon);
    let session = &mut driver.session;
    let first = session
        .prepare(&and_next(write(0x20, &[9, 1])), &Framing::whole())
        .unwrap();
    let broken = session.rings[0]
        .add(&[Descriptor::readable(0x1000, 8)])
        .unwrap();
    let last = session.prepare(&read(0x20, 1), &Framing::whole()).unwrap();
    session.rings[0].submit().unwrap();
    let mut used: Vec<_> = (0..3)
        .map(|_| session.rings[0].wait(Duration::from_secs(5)).unwrap())
        .collect();
    used.sort_by_key(|used| {
        (
            used.id != u32::from(first.head),
            used.id != u32::from(broken),
        )
    });
    assert_eq!(used[1].len, 0);
    let status = |pending, used| common::parts(&session.answer_of(pending, used).unwrap()).1;
    assert_eq!(status(&first, used[0]), ERROR);
    assert_eq!(status(&last, used[2]), OK);
    assert_eq!(driver.register(0x20, 9, 1), [0]);
}

#[test]
fn ten_bit_addresses_are_targets_of_their_own() {
    let daemon = daemon("sim0:t0x20=regs:0x20=regs:0x3ff=regs", &[]);
    let mut driver = Driver::new(&daemon);
    let ten = |address: u16, flags, data: &[u8], room| {
        let wire = (address & 0xff) << 8 | 0xf0 | (address >> 8) << 1;
        request(wire, flags, data, room)
    };
    assert_eq!(
        driver.statuses(&[
            ten(0x20, 0, &[1, 10], 0),
            ten(0x3ff, 0, &[1, 11], 0),
            write(0x20, &[1, 12])
        ]),
        [OK; 3]
    );
    let answers = driver.batch(&[
        and_next(ten(0x20, 0, &[1], 0)),
        ten(0x20, M_RD, &[], 1),
        and_next(ten(0x3ff, 0, &[1], 0)),
        ten(0x3ff, M_RD, &[], 1),
    ]);
    assert_eq!(answers[1], (vec![10], OK));
    assert_eq!(answers[3], (vec![11], OK));
    assert_eq!(driver.register(0x20, 1, 1), [12]);
    assert_eq!(driver.statuses(&[ten(0x21, 0, &[], 0)]), [ERROR]);
}

#[test]
fn chips_live_as_long_as_the_daemon_and_a_file_longer() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("eeprom.bin");
    fs::write(&path, b"known content").unwrap();
    let list = format!("sim0:0x50=24c02@{}:0x20=regs", path.display());
    let first = daemon(&list, &[]);
    let mut driver = Driver::new(&first);
    assert_eq!(driver.register(0x50, 6, 7), b"content");
    driver.batch(&[write(0x50, b"\x00guest"), write(0x20, &[1, 77])]);
    drop(driver);
    let mut driver = Driver::new(&first);
    assert_eq!(
        driver.register(0x20, 1, 1),
        [77],
        "a reboot of the guest is no power cycle"
    );
    drop(driver);
    drop(first);
    assert_eq!(fs::read(&path).unwrap()[..14], *b"guest content\xff");
    let second = daemon(&list, &[]);
    let mut driver = Driver::new(&second);
    assert_eq!(driver.register(0x50, 0, 5), b"guest");
    assert_eq!(driver.register(0x20, 1, 1), [0]);
}

#[test]
fn a_sensor_shows_what_its_file_says_at_the_moment() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("temp1_input");
    fs::write(&path, "21500\n").unwrap();
    let daemon = daemon(&format!("sim0:0x48=lm75@{}", path.display()), &[]);
    let mut driver = Driver::new(&daemon);
    assert_eq!(driver.register(0x48, 0, 2), [0x15, 0x80]);
    fs::write(&path, "-10000\n").unwrap();
    assert_eq!(driver.register(0x48, 0, 2), [0xf6, 0]);
    fs::write(&path, "gone\n").unwrap();
    assert_eq!(driver.statuses(&[read(0x48, 2)]), [ERROR]);
}

/// The request fails after the deadline, and what it blocked goes on.
#[test]
fn a_stuck_bus_is_an_error_after_the_deadline() {
    let daemon = daemon("sim0:9=stuck,sim1:0x20=regs", &["--bus-timeout", "200"]);
    let mut driver = Driver::new(&daemon);
    let begin = Instant::now();
    assert_eq!(
        driver.statuses(&[write(9, &[]), read(0x20, 1)]),
        [ERROR, OK]
    );
    let took = begin.elapsed();
    assert!((200..1000).contains(&took.as_millis()), "{took:?}");
}

/// While the bus of one connection is stuck, the next one is served: with errors, as long as it lasts.
#[test]
fn a_connection_behind_a_stuck_one_gets_answers_at_once() {
    let daemon = daemon("sim0:9=stuck:0x20=regs", &["--bus-timeout", "3000"]);
    let begin = Instant::now();
    let mut stuck = Driver::new(&daemon);
    stuck.submit(&[write(9, &[])]);
    std::thread::sleep(Duration::from_millis(50));
    drop(stuck);
    let mut driver = Driver::new(&daemon);
    assert_eq!(driver.statuses(&[read(0x20, 1)]), [ERROR]);
    assert!(
        begin.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begin.elapsed()
    );
    std::thread::sleep(Duration::from_millis(3200).saturating_sub(begin.elapsed()));
    assert_eq!(driver.statuses(&[read(0x20, 1)]), [OK]);
}

#[test]
fn a_driver_without_the_mandatory_feature_is_rejected() {
    let daemon = daemon(BUS, &[]);
    let options = Options::usual(1).with_features(!1);
    let mut session = match vhost_device_testkit::session::Session::open(daemon.socket(), &options)
    {
        Err(_) => return,
        Ok(session) => session,
    };
    let pending = session.submit(&read(0x20, 1), &Framing::whole()).unwrap();
    assert!(session.finish(0, &pending).is_err(), "it was served");
}
