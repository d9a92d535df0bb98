//! Level three: requests of two queues are with the host at once, complete in any order, and none outlives its queue.

use std::collections::HashMap;
use std::fs::File;
use std::io::{PipeWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::GuestMemoryMmap;

use crate::common::driver::{EVENT_IDX, INDIRECT_DESC, Used, readable, writable};
use crate::common::guest::{self, BORDER, BUFFERS, HIGH};
use crate::common::stand::{PATIENCE, Stand};
use crate::devices::disk::{
    DEPTH, Disk, GRACE, READ, STATUS_BYTES, STATUS_IO_ERROR, STATUS_OK, STATUS_UNSUPPORTED, WRITE,
};

/// Offset of a file that has no positions.
const NO_OFFSET: u64 = u64::MAX;

/// Headers lie here, 16 bytes each; statuses behind them, 8 bytes each.
const HEADERS: u64 = HIGH + 0x2_0000;
const STATUSES: u64 = HEADERS + 0x1_0000;

/// A file without a name.
fn file(content: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("disk-{}-{:p}", std::process::id(), content));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all_at(content, 0).unwrap();
    file
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 13 + i / 256) as u8).collect()
}

/// One request: where its data lies, by number.
#[derive(Clone, Debug)]
struct Request {
    number: u64,
    operation: u32,
    offset: u64,
    data: Vec<(u64, u32)>,
}

fn submit(stand: &mut Stand<Disk>, queue: u16, request: &Request) -> u16 {
    let mut header = request.operation.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(request.offset.to_le_bytes());
    let at = HEADERS + 16 * request.number;
    guest::write(stand.memory.map(), at, &header);
    let mut pieces = vec![readable(at, 16)];
    let reads = request.operation != WRITE;
    pieces.extend(request.data.iter().map(|(at, length)| {
        if reads {
            writable(*at, *length)
        } else {
            readable(*at, *length)
        }
    }));
    pieces.push(writable(STATUSES + 8 * request.number, STATUS_BYTES as u32));
    stand.submit(queue, &pieces)
}

/// Status code and byte count of a request.
fn status(map: &GuestMemoryMmap, number: u64) -> (u8, u32) {
    let bytes = guest::read(map, STATUSES + 8 * number, 8);
    let count = [bytes[4], bytes[5], bytes[6], bytes[7]];
    (bytes[0], u32::from_le_bytes(count))
}

fn run_one(stand: &mut Stand<Disk>, request: &Request) -> (Used, (u8, u32)) {
    submit(stand, 0, request);
    let mut used = None;
    stand.run_until(|stand| {
        used = stand.drivers[0].take();
        used.is_some()
    });
    (used.unwrap(), status(stand.memory.map(), request.number))
}

#[test]
fn data_moves_between_a_file_and_guest_memory_in_any_framing() {
    let bytes = content(0x2000);
    let disk = Arc::new(Disk::new(file(&bytes)));
    let mut stand = Stand::new(&disk, guest::memory(), 64, EVENT_IDX | INDIRECT_DESC);
    let data = vec![(BORDER - 100, 300), (BUFFERS, 0), (BUFFERS, 1), (HIGH, 699)];
    let read = Request {
        number: 0,
        operation: READ,
        offset: 77,
        data: data.clone(),
    };
    let (used, status) = run_one(&mut stand, &read);
    assert_eq!(used.length, 1000 + STATUS_BYTES as u32);
    assert_eq!(status, (STATUS_OK, 1000));
    let map = stand.memory.map().clone();
    let mut seen = guest::read(&map, BORDER - 100, 300);
    seen.extend(guest::read(&map, BUFFERS, 1));
    seen.extend(guest::read(&map, HIGH, 699));
    assert_eq!(seen, bytes[77..1077]);
    // Back to another place of the file, and read from there in one piece.
    let write = Request {
        number: 1,
        operation: WRITE,
        offset: 0x1800,
        data,
    };
    let (used, status) = run_one(&mut stand, &write);
    assert_eq!(used.length, STATUS_BYTES as u32);
    assert_eq!(status, (STATUS_OK, 1000));
    let check = Request {
        number: 2,
        operation: READ,
        offset: 0x1800,
        data: vec![(BUFFERS, 1000)],
    };
    run_one(&mut stand, &check);
    assert_eq!(guest::read(&map, BUFFERS, 1000), bytes[77..1077]);
}

#[test]
fn the_hosts_failures_and_short_transfers_are_the_status() {
    let disk = Arc::new(Disk::new(file(&content(100))));
    let mut stand = Stand::new(&disk, guest::memory(), 64, 0);
    let request = |number, operation, offset| Request {
        number,
        operation,
        offset,
        data: vec![(BUFFERS, 64)],
    };
    let table = [
        (request(0, READ, 60), (STATUS_OK, 40)),
        (request(1, READ, 1000), (STATUS_OK, 0)),
        (request(2, READ, 1 << 63), (STATUS_IO_ERROR, 0)),
        (request(3, 7, 0), (STATUS_UNSUPPORTED, 0)),
    ];
    for (request, expected) in &table {
        let (used, status) = run_one(&mut stand, request);
        assert_eq!(status, *expected, "{request:?}");
        assert_eq!(used.length, 64 + STATUS_BYTES as u32);
    }
    // No room for a status, and no header.
    for pieces in [vec![readable(HEADERS, 16)], vec![writable(STATUSES, 8)]] {
        stand.submit(1, &pieces);
        let mut used = None;
        stand.run_until(|stand| {
            used = stand.drivers[1].take();
            used.is_some()
        });
        assert_eq!(used.unwrap().length, 0);
    }
}

#[test]
fn more_requests_than_the_engine_takes_wait_in_both_rings() {
    let bytes = content(0x1_0000);
    let disk = Arc::new(Disk::new(file(&bytes)));
    for features in [0, EVENT_IDX] {
        let mut stand = Stand::new(&disk, guest::memory(), 256, features);
        let per_queue = DEPTH as u64 + 16;
        let mut open = [HashMap::new(), HashMap::new()];
        for number in 0..2 * per_queue {
            let queue = (number % 2) as u16;
            let request = Request {
                number,
                operation: READ,
                offset: number * 256,
                data: vec![(BUFFERS + number * 256, 256)],
            };
            let head = submit(&mut stand, queue, &request);
            open[usize::from(queue)].insert(head, number);
        }
        stand.run_until(|stand| {
            for (queue, open) in open.iter_mut().enumerate() {
                for used in stand.drivers[queue].take_all() {
                    let number = open.remove(&used.head).expect("completed twice");
                    let map = stand.memory.map();
                    assert_eq!(status(map, number), (STATUS_OK, 256));
                    let at = number as usize * 256;
                    let seen = guest::read(map, BUFFERS + number * 256, 256);
                    assert_eq!(seen, bytes[at..at + 256]);
                }
            }
            open.iter().all(HashMap::is_empty)
        });
        assert_eq!(stand.stop(0).counters.requests, per_queue);
        assert_eq!(stand.stop(1).counters.requests, per_queue);
    }
}

/// A device on a pipe that nobody writes to, with `count` reads of one byte on each queue.
fn waiting_reads(count: u64) -> (Stand<Disk>, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let disk = Arc::new(Disk::new(reader));
    let mut stand = Stand::new(&disk, guest::memory(), 64, EVENT_IDX);
    for number in 0..2 * count {
        let request = Request {
            number,
            operation: READ,
            offset: NO_OFFSET,
            data: vec![(BUFFERS + number, 1)],
        };
        submit(&mut stand, (number % 2) as u16, &request);
    }
    stand.run_until_idle();
    assert!(
        stand
            .drivers
            .iter_mut()
            .all(|driver| driver.take().is_none())
    );
    (stand, writer)
}

fn statuses(map: &GuestMemoryMmap, queue: u64, count: u64) -> Vec<(u8, u32)> {
    (0..count).map(|i| status(map, 2 * i + queue)).collect()
}

#[test]
fn a_stopped_queue_has_nothing_outstanding_and_is_not_written_any_more() {
    let count = 16;
    let (mut stand, mut pipe) = waiting_reads(count);
    let map = stand.memory.map().clone();
    let start = Instant::now();
    let stopped = stand.stop(0);
    let took = start.elapsed();
    assert!(took >= GRACE, "{took:?}: the host had no chance to finish");
    assert!(took < PATIENCE, "{took:?}: a host that never answers");
    assert_eq!(stopped.next_available, count as u16);
    assert_eq!(stand.drivers[0].take_all().len() as u64, count);
    assert_eq!(
        statuses(&map, 0, count),
        vec![(STATUS_IO_ERROR, 0); count as usize]
    );
    // What the host gives now must reach the other queue, and only that.
    let before = guest::image(&map);
    pipe.write_all(&vec![0xaa; count as usize]).unwrap();
    let mut done = 0;
    stand.run_until(|stand| {
        done += stand.drivers[1].take_all().len() as u64;
        done == count
    });
    let place = stand.drivers[1].place;
    for address in guest::changes(&before, &guest::image(&map)) {
        let data = address
            .checked_sub(BUFFERS)
            .filter(|number| *number < 2 * count);
        let status = address.checked_sub(STATUSES).map(|offset| offset / 8);
        let second = data.or(status).is_some_and(|number| number % 2 == 1);
        let ring = (place.used..place.used + 0x1000).contains(&address);
        assert!(second || ring, "{address:#x} was written after the stop");
    }
    assert_eq!(
        statuses(&map, 1, count),
        vec![(STATUS_OK, 1); count as usize]
    );
}

#[test]
fn a_stopping_queue_lets_the_host_finish_within_its_grace() {
    let count = 8;
    let (mut stand, mut pipe) = waiting_reads(count);
    let host = std::thread::spawn(move || {
        std::thread::sleep(GRACE / 5);
        pipe.write_all(&vec![0x55; 2 * count as usize]).unwrap();
        pipe
    });
    let start = Instant::now();
    stand.stop(0);
    assert!(start.elapsed() < PATIENCE);
    let map = stand.memory.map().clone();
    assert_eq!(
        statuses(&map, 0, count),
        vec![(STATUS_OK, 1); count as usize]
    );
    assert_eq!(stand.drivers[0].take_all().len() as u64, count);
    stand.stop(1);
    drop(host.join().unwrap());
}

#[test]
fn a_worker_that_is_dropped_leaves_nothing_with_the_host() {
    let (stand, mut pipe) = waiting_reads(16);
    let map = stand.memory.map().clone();
    let memory = Arc::downgrade(&stand.memory);
    drop(stand);
    assert!(
        memory.upgrade().is_none(),
        "somebody still holds guest memory"
    );
    let before = guest::image(&map);
    // The reading end is closed with the device.
    assert!(pipe.write_all(&[0xaa; 32]).is_err());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(guest::changes(&before, &guest::image(&map)), [0; 0]);
}

#[test]
fn no_request_is_lost_or_served_twice_by_many_stops_under_load() {
    let disk = Arc::new(Disk::new(file(&content(0x8000))));
    let mut stand = Stand::new(&disk, guest::memory(), 64, EVENT_IDX);
    let (mut submitted, mut completed) = (0, 0);
    for round in 0..50 {
        while stand.drivers[0].free() >= 3 {
            let number = submitted % 32;
            let request = Request {
                number,
                operation: READ,
                offset: number * 1024,
                data: vec![(BUFFERS + number * 1024, 1024)],
            };
            submit(&mut stand, 0, &request);
            submitted += 1;
        }
        // Now before they are taken, now in the midst of it.
        for _ in 0..round % 3 {
            stand.turn(Duration::ZERO);
        }
        let stopped = stand.stop(0);
        completed += stand.drivers[0].take_all().len() as u64;
        assert_eq!(
            u64::from(stopped.next_available),
            completed,
            "taken, not completed"
        );
        stand.resume(0, stopped);
    }
    stand.run_until(|stand| {
        completed += stand.drivers[0].take_all().len() as u64;
        completed == submitted
    });
    assert_eq!(stand.drivers[0].free(), 64);
}
