//! Level two: host events and queues meet in one worker, and neither side can make it grow, spin or forget.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crate::common::driver::{EVENT_IDX, readable, writable};
use crate::common::guest::{self, BUFFERS};
use crate::common::stand::Stand;
use crate::devices::stream::Stream;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// Receive buffers are this long.
const BUFFER: u32 = 64;
/// Descriptors of each queue.
const SIZE: u16 = 64;

fn stand(features: u64) -> (Stand<Stream>, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    peer.set_nonblocking(true).unwrap();
    let device = Arc::new(Stream::new(ours).unwrap());
    (Stand::new(&device, guest::memory(), SIZE, features), peer)
}

/// Gives the device receive buffer number `number`, in two pieces.
fn give(stand: &mut Stand<Stream>, number: u64) {
    let at = BUFFERS + number * u64::from(BUFFER);
    let pieces = [writable(at, 7), writable(at + 7, BUFFER - 7)];
    stand.submit(RECEIVE, &pieces);
}

/// Takes what was received; buffer numbers follow from heads, which the driver reuses in order.
fn received(stand: &mut Stand<Stream>, number: &mut u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for used in stand.drivers[usize::from(RECEIVE)].take_all() {
        let at = BUFFERS + *number * u64::from(BUFFER);
        bytes.extend(guest::read(stand.memory.map(), at, used.length as usize));
        *number += 1;
    }
    bytes
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 256) as u8).collect()
}

#[test]
fn bytes_of_the_host_reach_the_guest_in_order_whichever_side_is_first() {
    for features in [0, EVENT_IDX] {
        let (mut stand, mut peer) = stand(features);
        let sent = text(1000);
        let (mut given, mut number, mut seen) = (0, 0, Vec::new());
        // Bytes before buffers.
        peer.write_all(&sent[..500]).unwrap();
        stand.run_until_idle();
        for _ in 0..4 {
            give(&mut stand, given);
            given += 1;
        }
        stand.run_until(|stand| {
            seen.extend(received(stand, &mut number));
            seen.len() >= 4 * BUFFER as usize
        });
        // Buffers before bytes.
        for _ in 0..13 {
            give(&mut stand, given);
            given += 1;
        }
        stand.run_until_idle();
        peer.write_all(&sent[500..]).unwrap();
        stand.run_until(|stand| {
            seen.extend(received(stand, &mut number));
            seen.len() == sent.len()
        });
        assert_eq!(seen, sent);
    }
}

#[test]
fn without_receive_buffers_the_host_waits_and_nothing_grows_or_spins() {
    let (mut stand, mut peer) = stand(EVENT_IDX);
    let mut sent = 0;
    let chunk = text(4096);
    loop {
        match peer.write(&chunk) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        stand.run_until_idle();
        assert!(
            sent < 16 << 20,
            "the device takes bytes that have no buffer"
        );
    }
    // Readable all the time, and nobody looks.
    let wakes: usize = (0..10).map(|_| stand.turn(Duration::from_millis(5))).sum();
    assert_eq!(wakes, 0);
    let mut number = 0;
    give(&mut stand, 0);
    stand.run_until(|stand| received(stand, &mut number).len() == BUFFER as usize);
    stand.run_until_idle();
    let wakes: usize = (0..10).map(|_| stand.turn(Duration::from_millis(5))).sum();
    assert_eq!(wakes, 0);
}

#[test]
fn a_buffer_that_is_too_small_for_anything_fails_alone() {
    let (mut stand, mut peer) = stand(0);
    peer.write_all(b"x").unwrap();
    stand.submit(RECEIVE, &[readable(BUFFERS, 8)]);
    stand.submit(RECEIVE, &[writable(BUFFERS, 8)]);
    let mut lengths = Vec::new();
    stand.run_until(|stand| {
        let used = stand.drivers[0].take_all();
        lengths.extend(used.iter().map(|used| used.length));
        lengths.len() == 2
    });
    assert_eq!(lengths, [0, 1]);
}

#[test]
fn bytes_of_the_guest_reach_a_host_that_takes_them_slowly() {
    for features in [0, EVENT_IDX] {
        let (mut stand, mut peer) = stand(features);
        let sent = text(0x1_0000);
        guest::write(stand.memory.map(), BUFFERS, &sent);
        let rounds = 64;
        let (mut submitted, mut completed, mut seen) = (0, 0, Vec::new());
        let mut turns = 0;
        stand.run_until(|stand| {
            turns += 1;
            while submitted < rounds && stand.drivers[1].free() >= 2 {
                let pieces = [readable(BUFFERS, 1000), readable(BUFFERS + 1000, 0xfc18)];
                stand.submit(TRANSMIT, &pieces);
                submitted += 1;
            }
            let used = stand.drivers[1].take_all();
            assert!(used.iter().all(|used| used.length == 0));
            completed += used.len();
            // Odd sizes, and not every turn.
            if turns % 3 == 0 {
                let mut bytes = vec![0; 30_011];
                match peer.read(&mut bytes) {
                    Ok(count) => seen.extend_from_slice(&bytes[..count]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            completed == rounds && seen.len() == rounds * sent.len()
        });
        assert!(seen.chunks(sent.len()).all(|chunk| chunk == sent));
        // Room to write all the time, and nobody waits for it.
        stand.run_until_idle();
        assert_eq!(stand.turn(Duration::from_millis(20)), 0);
    }
}

/// Fills the socket and leaves a request that the host took a part of.
fn stuck() -> (Stand<Stream>, UnixStream) {
    let (mut stand, peer) = stand(0);
    for _ in 0..SIZE {
        stand.submit(TRANSMIT, &[readable(BUFFERS, 0x1_0000)]);
    }
    stand.run_until_idle();
    let done = stand.drivers[1].take_all().len();
    assert!(done < usize::from(SIZE), "the socket takes megabytes");
    (stand, peer)
}

#[test]
fn a_queue_that_stops_completes_what_the_host_took_a_part_of() {
    let (mut stand, _peer) = stuck();
    let before = stand.drivers[1].available_index();
    let stopped = stand.stop(TRANSMIT);
    let done = stand.drivers[1].take_all().len() as u16;
    assert_eq!(done, 1, "the one begun; the others stay in the ring");
    assert!(stopped.next_available < before);
    stand.run_until_idle();
}

#[test]
fn a_host_that_goes_away_ends_nothing_else() {
    let (mut stand, peer) = stuck();
    drop(peer);
    let mut done = 0;
    stand.run_until(|stand| {
        done += stand.drivers[1].take_all().len();
        stand.drivers[1].free() == usize::from(SIZE)
    });
    assert!(done > 0);
    // Later requests have nowhere to go and are taken all the same.
    stand.submit(TRANSMIT, &[readable(BUFFERS, 10)]);
    give(&mut stand, 0);
    stand.run_until(|stand| stand.drivers[1].take().is_some());
    stand.run_until_idle();
    assert_eq!(
        stand.turn(Duration::from_millis(20)),
        0,
        "a hang-up is not a spin"
    );
    assert!(stand.drivers[0].take().is_none());
}

#[test]
fn a_host_that_only_ends_its_own_half_still_gets_bytes() {
    let (mut stand, mut peer) = stand(0);
    peer.write_all(b"last words").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    for number in 0..3 {
        give(&mut stand, number);
    }
    let (mut number, mut seen) = (0, Vec::new());
    stand.run_until(|stand| {
        seen.extend(received(stand, &mut number));
        seen.len() == 10
    });
    assert_eq!(seen, b"last words");
    stand.run_until_idle();
    assert_eq!(
        stand.turn(Duration::from_millis(20)),
        0,
        "its end is not a spin"
    );
    guest::write(stand.memory.map(), BUFFERS + 0x1000, b"answer");
    stand.submit(TRANSMIT, &[readable(BUFFERS + 0x1000, 6)]);
    stand.run_until(|stand| stand.drivers[1].take().is_some());
    let mut bytes = [0; 6];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"answer");
}
