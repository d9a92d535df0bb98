//! Level one behind a VMM's own rings and event loop, with no vhost-user in the path.

use std::sync::Arc;

use vhost_device_core::{ConfigRefused, Device};

use crate::common::driver::{EVENT_IDX, INDIRECT_DESC, Used, readable, writable};
use crate::common::guest::{self, BUFFERS, HIGH};
use crate::common::stand::Stand;
use crate::devices::echo::{Echo, LARGEST, STATUS_INVALID, STATUS_OK};

const ANSWER: u64 = HIGH;

/// Sends `length` and `payload`, and returns the answer's bytes and status.
fn exchange(stand: &mut Stand<Echo>, length: u32, payload: &[u8], room: u32) -> (Vec<u8>, u8) {
    let map = stand.memory.map().clone();
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(payload);
    guest::write(&map, BUFFERS, &bytes);
    guest::write(&map, ANSWER, &vec![0xee; room as usize + 1]);
    let pieces = [
        readable(BUFFERS, bytes.len() as u32),
        writable(ANSWER, room),
        writable(ANSWER + u64::from(room), 1),
    ];
    let head = stand.submit(0, &pieces);
    let mut used = None;
    stand.run_until(|stand| {
        used = stand.drivers[0].take();
        used.is_some()
    });
    let expected = Used {
        head,
        length: room + 1,
    };
    assert_eq!(used, Some(expected));
    let mut answer = guest::read(&map, ANSWER, room as usize + 1);
    let status = answer.pop().unwrap();
    (answer, status)
}

#[test]
fn a_service_answers_behind_rings_of_a_vmm() {
    for features in [0, EVENT_IDX, EVENT_IDX | INDIRECT_DESC] {
        let device = Arc::new(Echo::default());
        let mut stand = Stand::new(&device, guest::memory(), 16, features);
        for length in [0u32, 1, 255, 256, 257, 1000] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let answer = exchange(&mut stand, length, &payload, length);
            assert_eq!(answer, (payload, STATUS_OK));
        }
        let stopped = stand.stop(0);
        assert_eq!(stopped.next_available, 6);
        assert_eq!(stand.interrupts[0].count(), stopped.counters.notified);
    }
}

#[test]
fn a_length_that_does_not_fit_is_answered_with_a_status() {
    let device = Arc::new(Echo::default());
    let mut stand = Stand::new(&device, guest::memory(), 16, 0);
    let table = [
        (5, 4, 8),
        (u32::MAX, 4, 8),
        (8, 8, 7),
        (1, 1, 0),
        (LARGEST + 1, LARGEST + 1, LARGEST + 1),
    ];
    for (length, payload, room) in table {
        let payload = vec![1; payload as usize];
        let (answer, status) = exchange(&mut stand, length, &payload, room);
        assert_eq!(status, STATUS_INVALID);
        assert!(answer.iter().all(|byte| *byte == 0xee));
    }
    let (answer, status) = exchange(&mut stand, 2, b"ok", 2);
    assert_eq!((answer.as_slice(), status), (&b"ok"[..], STATUS_OK));
}

#[test]
fn a_queue_stopped_and_started_again_goes_on_where_it_was() {
    let device = Arc::new(Echo::default());
    let mut stand = Stand::new(&device, guest::memory(), 4, EVENT_IDX);
    for round in 1..=10u16 {
        let (answer, _) = exchange(&mut stand, 3, b"abc", 3);
        assert_eq!(answer, b"abc");
        let stopped = stand.stop(0);
        assert_eq!(stopped.next_available, round);
        if round == 10 {
            // Made available while nobody serves it: found at the start, without a kick.
            guest::write(stand.memory.map(), BUFFERS, &0u32.to_le_bytes());
            let pieces = [readable(BUFFERS, 4), writable(ANSWER, 1)];
            stand.drivers[0].add(&pieces).unwrap();
        }
        stand.resume(0, stopped);
    }
    assert_eq!(stand.drivers[0].take_all().len(), 1);
}

#[test]
fn the_configuration_changes_what_the_next_request_sees() {
    let device = Arc::new(Echo::default());
    let mut stand = Stand::new(&device, guest::memory(), 4, 0);
    assert_eq!(device.write_config(4, &[0x0f]), Ok(()));
    let mut config = [0; 5];
    device.read_config(0, &mut config);
    assert_eq!(config, [0, 0, 1, 0, 0x0f]);
    let (answer, _) = exchange(&mut stand, 2, &[0xf0, 0x0f], 2);
    assert_eq!(answer, [0xff, 0x00]);
    for (offset, bytes) in [
        (0, &[0][..]),
        (3, &[0, 0]),
        (4, &[]),
        (4, &[0, 0]),
        (5, &[0]),
    ] {
        assert_eq!(device.write_config(offset, bytes), Err(ConfigRefused));
    }
    device.reset();
    let (answer, _) = exchange(&mut stand, 1, &[0xf0], 1);
    assert_eq!(answer, [0xf0]);
}
