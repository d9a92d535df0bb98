//! A guest's mistakes: the request fails and the next one is served; only a corrupt ring stops, and only that ring.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_device_core::{
    GuestFault, Layout, LayoutFault, Memory, QueueIndex, Request, RingFault, Serve, Worker,
};

use crate::common::driver::{
    Descriptor, Driver, INDIRECT, INDIRECT_DESC, NEXT, Place, Used, WRITE, readable, writable,
};
use crate::common::guest::{self, BUFFERS, END, HIGH, HOLE};
use crate::common::rig::{Answer, Rig};

const SIZE: u16 = 16;
const TABLE: u64 = HIGH;

/// Milliseconds are enough; a busy machine may take longer, a loop without end takes for ever.
const PATIENCE: Duration = Duration::from_secs(10);

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        length,
        flags,
        next,
    }
}

/// A buffer that is all right.
fn good(flags: u16, next: u16) -> Descriptor {
    descriptor(BUFFERS, 16, flags, next)
}

fn table(length: u32) -> Descriptor {
    descriptor(TABLE, length, INDIRECT, 0)
}

/// Descriptors at the front of the ring's table, and at the front of an indirect one; the head is 0.
struct Chain {
    name: &'static str,
    ring: Vec<Descriptor>,
    indirect: Vec<Descriptor>,
}

fn direct(name: &'static str, ring: &[Descriptor]) -> Chain {
    indirect(name, ring, &[])
}

fn indirect(name: &'static str, ring: &[Descriptor], indirect: &[Descriptor]) -> Chain {
    Chain {
        name,
        ring: ring.to_vec(),
        indirect: indirect.to_vec(),
    }
}

/// One chain at least for each fault that a walk can find.
fn malformed() -> Vec<Chain> {
    let gib = |n: u64| BUFFERS + (n << 30);
    vec![
        direct("unmapped", &[descriptor(HOLE, 1, 0, 0)]),
        direct("runs into the hole", &[descriptor(HOLE - 1, 2, 0, 0)]),
        direct("runs off the end", &[descriptor(END - 1, 2, WRITE, 0)]),
        direct("wraps", &[descriptor(u64::MAX, 2, 0, 0)]),
        direct(
            "is the whole address space",
            &[descriptor(0, u32::MAX, 0, 0)],
        ),
        direct(
            "unmapped behind a good one",
            &[good(NEXT, 1), descriptor(gib(64), 1, WRITE, 0)],
        ),
        direct("points at itself", &[good(NEXT, 0)]),
        direct("loops", &[good(NEXT, 1), good(NEXT, 2), good(NEXT, 1)]),
        direct("next is the size", &[good(NEXT, SIZE)]),
        direct("next is the largest index", &[good(NEXT, u16::MAX)]),
        direct(
            "readable behind writable",
            &[good(WRITE | NEXT, 1), good(0, 0)],
        ),
        indirect("table without an entry", &[table(0)], &[]),
        indirect("table of half an entry", &[table(8)], &[good(0, 0)]),
        indirect("table of one and a half", &[table(24)], &[good(0, 0)]),
        indirect("table of 65536 entries", &[table(16 << 16)], &[good(0, 0)]),
        indirect("table of 4 GiB", &[table(!15)], &[good(0, 0)]),
        indirect("nested table", &[table(16)], &[table(16)]),
        indirect(
            "nested behind a good one",
            &[table(32)],
            &[good(NEXT, 1), table(16)],
        ),
        indirect(
            "table with a next",
            &[descriptor(TABLE, 16, INDIRECT | NEXT, 1), good(0, 0)],
            &[good(0, 0)],
        ),
        direct("unmapped table", &[descriptor(HOLE, 16, INDIRECT, 0)]),
        direct(
            "table runs off the end",
            &[descriptor(END - 16, 32, INDIRECT, 0)],
        ),
        direct(
            "wrapping table",
            &[descriptor(u64::MAX - 15, 32, INDIRECT, 0)],
        ),
        indirect(
            "next outside of its table",
            &[table(32)],
            &[good(NEXT, 2), good(0, 0)],
        ),
        indirect(
            "loops in its table",
            &[table(32)],
            &[good(NEXT, 1), good(NEXT, 0)],
        ),
        indirect(
            "readable behind writable, across tables",
            &[good(WRITE | NEXT, 1), table(16)],
            &[good(0, 0)],
        ),
    ]
}

/// Two queues of a device that answers each request with its first byte.
fn rig(features: u64) -> Rig<impl Worker> {
    let answer = Answer(|_: QueueIndex, request: &mut Request<'_>| {
        let byte: u8 = request.read()?;
        request.write(&byte)
    });
    Rig::new(Serve(answer), guest::memory(), &[SIZE, SIZE], features)
}

/// Makes the descriptors available as one request with head 0.
fn offer(driver: &mut Driver, chain: &Chain) {
    for (index, descriptor) in (0..).zip(&chain.ring) {
        driver.set_descriptor(driver.place.descriptors, index, *descriptor);
    }
    for (index, descriptor) in (0..).zip(&chain.indirect) {
        driver.set_descriptor(TABLE, index, *descriptor);
    }
    driver.offer(0);
}

fn assert_serves<W: Worker>(rig: &mut Rig<W>, queue: u16, after: &str) {
    let at = BUFFERS + 0x1000;
    guest::write(rig.memory.map(), at, &[0x5a, 0]);
    let driver = &mut rig.drivers[usize::from(queue)];
    let head = driver.add(&[readable(at, 1), writable(at + 1, 1)]).unwrap();
    rig.serve(queue);
    let used = rig.drivers[usize::from(queue)].take_all();
    assert_eq!(used, [Used { head, length: 1 }], "after: {after}");
    assert_eq!(guest::read(rig.memory.map(), at, 2), [0x5a, 0x5a]);
}

#[test]
fn a_malformed_chain_fails_alone_and_the_next_request_is_served() {
    let mut rig = rig(INDIRECT_DESC);
    for chain in malformed() {
        let before = guest::image(rig.memory.map());
        let start = Instant::now();
        offer(&mut rig.drivers[0], &chain);
        rig.serve(0);
        let took = start.elapsed();
        assert!(took < PATIENCE, "{}: {took:?}", chain.name);
        let failed = rig.drivers[0].take_all();
        assert_eq!(failed, [Used { head: 0, length: 0 }], "{}", chain.name);
        let place = rig.drivers[0].place;
        for address in guest::changes(&before, &guest::image(rig.memory.map())) {
            // The test itself wrote the descriptors and the available ring.
            let ours = address < place.used || address >= TABLE;
            let rings = address < BUFFERS;
            assert!(ours || rings, "{}: {address:#x} was written", chain.name);
        }
        assert_serves(&mut rig, 0, chain.name);
        assert_serves(&mut rig, 1, chain.name);
    }
    let stopped = rig.stop(0);
    assert_eq!(stopped.fault, None);
    assert_eq!(stopped.counters.faults, malformed().len() as u64);
}

#[test]
fn malformed_chains_between_good_ones_do_not_disturb_their_order() {
    let mut rig = rig(INDIRECT_DESC);
    let driver = &mut rig.drivers[0];
    let bad = driver.chain(&[readable(HOLE, 1)]).unwrap();
    let good: Vec<u16> = (0..3)
        .map(|i| {
            let at = BUFFERS + 2 * i;
            driver
                .chain(&[readable(at, 1), writable(at + 1, 1)])
                .unwrap()
        })
        .collect();
    let order = [good[0], bad, good[1], bad, bad, good[2]];
    for head in order {
        driver.offer(head);
    }
    rig.serve(0);
    let used = rig.drivers[0].take_all();
    let expected: Vec<Used> = order
        .iter()
        .map(|head| Used {
            head: *head,
            length: u32::from(*head != bad),
        })
        .collect();
    assert_eq!(used, expected);
}

#[test]
fn an_indirect_descriptor_without_the_feature_fails() {
    let mut rig = rig(0);
    let chain = indirect("not negotiated", &[table(16)], &[good(0, 0)]);
    offer(&mut rig.drivers[0], &chain);
    rig.serve(0);
    assert_eq!(rig.drivers[0].take_all(), [Used { head: 0, length: 0 }]);
    assert_serves(&mut rig, 0, chain.name);
}

#[test]
fn the_write_flag_of_an_indirect_descriptor_is_ignored() {
    let mut rig = rig(INDIRECT_DESC);
    guest::write(rig.memory.map(), BUFFERS, &[9]);
    let entries = [
        descriptor(BUFFERS, 1, NEXT, 1),
        descriptor(BUFFERS + 1, 1, WRITE, 0),
    ];
    let link = descriptor(TABLE, 32, INDIRECT | WRITE, 0);
    offer(&mut rig.drivers[0], &indirect("", &[link], &entries));
    rig.serve(0);
    assert_eq!(rig.drivers[0].take_all(), [Used { head: 0, length: 1 }]);
}

#[test]
fn what_a_device_refuses_fails_alone_too() {
    let faults = [
        GuestFault::ShortRequest,
        GuestFault::ShortAnswer,
        GuestFault::WrongQueue,
        GuestFault::Invalid,
    ];
    let answer = Answer(move |_: QueueIndex, request: &mut Request<'_>| {
        let kind: u8 = request.read()?;
        request.write(&kind)?;
        faults
            .get(usize::from(kind))
            .map_or(Ok(()), |fault| Err(*fault))
    });
    let mut rig = Rig::new(Serve(answer), guest::memory(), &[SIZE], 0);
    let count = faults.len() as u8;
    for kind in 0..=count {
        let at = BUFFERS + 2 * u64::from(kind);
        guest::write(rig.memory.map(), at, &[kind]);
        let head = rig.drivers[0]
            .add(&[readable(at, 1), writable(at + 1, 1)])
            .unwrap();
        rig.serve(0);
        let length = u32::from(kind == count);
        assert_eq!(rig.drivers[0].take_all(), [Used { head, length }]);
    }
    assert_eq!(rig.stop(0).counters.faults, faults.len() as u64);
}

/// What a driver can do to its ring, and how the ring ends.
type Corruption = (&'static str, fn(&mut Driver), RingFault);

const CORRUPTIONS: &[Corruption] = &[
    (
        "index one ring and one ahead",
        |d| jump(d, SIZE + 1),
        RingFault::AvailableIndex,
    ),
    (
        "index half a wrap ahead",
        |d| jump(d, 0x8000),
        RingFault::AvailableIndex,
    ),
    (
        "index one back",
        |d| jump(d, u16::MAX),
        RingFault::AvailableIndex,
    ),
    ("head is the size", |d| d.offer(SIZE), RingFault::HeadIndex),
    (
        "head is the largest",
        |d| d.offer(u16::MAX),
        RingFault::HeadIndex,
    ),
];

fn jump(driver: &mut Driver, by: u16) {
    let index = driver.available_index().wrapping_add(by);
    driver.poke(driver.place.available + 2, index);
}

#[test]
fn a_corrupt_ring_stops_by_itself_and_works_again_after_a_reset() {
    for (name, corrupt, fault) in CORRUPTIONS {
        let mut rig = rig(0);
        assert_serves(&mut rig, 0, "nothing yet");
        corrupt(&mut rig.drivers[0]);
        rig.serve(0);
        assert!(rig.drivers[0].take().is_none(), "{name}");
        let before = guest::image(rig.memory.map());
        rig.serve(0);
        let changes = guest::changes(&before, &guest::image(rig.memory.map()));
        assert_eq!(changes, [0; 0], "{name}: a dead ring is not written");
        assert_serves(&mut rig, 1, name);
        assert_eq!(rig.stop(0).fault, Some(*fault), "{name}");
        let place = rig.drivers[0].place;
        rig.drivers[0] = Driver::new(rig.memory.map(), place, 0);
        let start = rig.drivers[0].start(0, &rig.memory, || {});
        rig.runner.start(start).unwrap();
        assert_serves(&mut rig, 0, name);
    }
}

#[test]
fn requests_before_the_corrupt_entry_are_answered() {
    let mut rig = rig(0);
    let at = BUFFERS;
    let head = rig.drivers[0]
        .add(&[readable(at, 1), writable(at + 1, 1)])
        .unwrap();
    rig.drivers[0].offer(SIZE);
    rig.serve(0);
    assert_eq!(rig.drivers[0].take_all(), [Used { head, length: 1 }]);
    assert_eq!(rig.interrupts[0].count(), 1);
    assert_eq!(rig.stop(0).fault, Some(RingFault::HeadIndex));
}

#[test]
fn more_requests_in_flight_than_descriptors_stop_the_ring() {
    let memory = guest::memory();
    let mut driver = Driver::new(memory.map(), Place::of_queue(0, 4), 0);
    let mut ring = driver.ring(&memory, 1, || {});
    let head = driver.chain(&[readable(BUFFERS, 1)]).unwrap();
    let mut open = Vec::new();
    // A full ring, twice: the second one before anything of the first was given back.
    for _ in 0..2 {
        (0..4).for_each(|_| driver.offer(head));
        let mut queue = ring.queue(&memory);
        while let Some(request) = queue.next() {
            open.push(request.detach());
        }
    }
    assert_eq!(open.len(), 4);
    assert_eq!(ring.fault(), Some(RingFault::Overcommitted));
}

#[test]
fn a_ring_that_loses_its_memory_stops() {
    let mut rig = rig(0);
    let whole = Arc::clone(&rig.memory);
    rig.runner.set_memory(Arc::new(Memory::default()));
    rig.drivers[0].add(&[readable(BUFFERS, 1)]).unwrap();
    rig.serve(0);
    rig.runner.set_memory(whole);
    assert!(rig.drivers[0].take().is_none());
    assert_eq!(rig.stop(0).fault, Some(RingFault::Unmapped));
    assert_serves(&mut rig, 1, "only the queue that was looked at");
}

#[test]
fn a_ring_in_no_memory_does_not_start() {
    let memory = guest::memory();
    let place = Place::of_queue(0, 16);
    let layout = |descriptors, available, used| {
        Layout::new(16, 16, descriptors, available, used, &memory).err()
    };
    let unmapped = |address| Some(LayoutFault::Unmapped(address));
    assert_eq!(layout(place.descriptors, place.available, place.used), None);
    assert_eq!(layout(HOLE, place.available, place.used), unmapped(HOLE));
    assert_eq!(
        layout(place.descriptors, HOLE - 2, place.used),
        unmapped(HOLE - 2)
    );
    assert_eq!(
        layout(place.descriptors, place.available, END - 4),
        unmapped(END - 4)
    );
}

#[test]
fn a_flood_of_the_longest_chains_takes_bounded_work() {
    let mut rig = rig(INDIRECT_DESC);
    let mut answered = 0;
    let driver = &mut rig.drivers[0];
    // A loop through the whole ring: each of 16 offers is walked to the limit.
    for index in 0..SIZE {
        let next = (index + 1) % SIZE;
        driver.set_descriptor(0, index, good(NEXT, next));
    }
    for _ in 0..100 {
        let driver = &mut rig.drivers[0];
        (0..SIZE).for_each(|head| driver.offer(head));
        let start = Instant::now();
        rig.serve(0);
        assert!(start.elapsed() < PATIENCE);
        answered += rig.drivers[0].take_all().len();
    }
    assert_eq!(answered, 1600);
}
