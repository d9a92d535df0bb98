//! The driver's side of a ring against the device's side of virtio-queue: two implementations that must agree.

#![allow(clippy::unwrap_used)] // helpers of tests: clippy only exempts the test functions themselves

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::memory::{Memory, Place};
use vhost_device_testkit::ring::{Descriptor, Parts, Ring};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// The same guest memory, seen from the device's side of the mapping.
fn mapped(memory: &Memory) -> GuestMemoryMmap<()> {
    let ranges = memory.regions().iter().map(|region| {
        let place = region.place();
        let file = region.file().try_clone().unwrap();
        (
            GuestAddress(place.guest),
            place.len as usize,
            Some(FileOffset::new(file, place.offset)),
        )
    });
    GuestMemoryMmap::from_ranges_with_files(ranges.collect::<Vec<_>>()).unwrap()
}

struct Pair {
    ring: Ring,
    queue: Queue,
    memory: Arc<Memory>,
    device_memory: GuestMemoryMmap<()>,
}

fn pair(size: u16, event_idx: bool) -> Pair {
    let memory = Arc::new(Memory::new(&Place::usual()).unwrap());
    let parts = Parts::take(&memory, 1, size);
    let ring = Ring::new(Arc::clone(&memory), parts, event_idx).unwrap();
    let mut queue = Queue::new(1024).unwrap();
    queue.set_size(size);
    queue
        .try_set_desc_table_address(GuestAddress(parts.descriptors))
        .unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(parts.available))
        .unwrap();
    queue
        .try_set_used_ring_address(GuestAddress(parts.used))
        .unwrap();
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    let device_memory = mapped(&memory);
    assert!(queue.is_valid(&device_memory));
    Pair {
        ring,
        queue,
        memory,
        device_memory,
    }
}

impl Pair {
    /// Serves one chain: fills all writable bytes with the sum of the readable ones.
    fn serve(&mut self) -> bool {
        let Some(chain) = self.queue.pop_descriptor_chain(&self.device_memory) else {
            return false;
        };
        let head = chain.head_index();
        let (mut sum, mut written) = (0u8, 0);
        for descriptor in chain {
            let mut bytes = vec![0; descriptor.len() as usize];
            if descriptor.is_write_only() {
                bytes.fill(sum);
                self.device_memory
                    .write_slice(&bytes, descriptor.addr())
                    .unwrap();
                written += descriptor.len();
            } else {
                self.device_memory
                    .read_slice(&mut bytes, descriptor.addr())
                    .unwrap();
                sum = bytes.iter().fold(sum, |sum, byte| sum.wrapping_add(*byte));
            }
        }
        self.queue
            .add_used(&self.device_memory, head, written)
            .unwrap();
        if self.queue.needs_notification(&self.device_memory).unwrap() {
            self.ring.call.write(1).unwrap();
        }
        true
    }
}

#[test]
fn every_framing_reaches_the_device_whole() {
    let request: Vec<u8> = (1..=30).collect();
    let sum = request
        .iter()
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    for framing in Framing::all(request.len(), 12, 64, true) {
        let mut pair = pair(64, true);
        let placed = framing.place(&pair.memory, &request, 12);
        let head = if placed.indirect {
            pair.ring.add_indirect(&placed.chain).unwrap()
        } else {
            pair.ring.add(&placed.chain).unwrap()
        };
        assert!(pair.ring.submit().unwrap(), "the first chain always kicks");
        assert!(pair.serve());
        let used = pair.ring.wait(Duration::from_secs(1)).unwrap();
        assert_eq!(used.id, u32::from(head));
        let answer = placed.answer(&pair.memory, used.len).unwrap();
        assert_eq!(answer.written(), [sum; 12], "{framing:?}");
    }
}

#[test]
fn indices_and_descriptors_survive_many_wraps_at_every_size() {
    for size in [1, 2, 64, 1024] {
        let mut pair = pair(size, false);
        let buffer = pair.memory.take(8, 8);
        for round in 0..70_000 {
            pair.ring.add(&[Descriptor::writable(buffer, 8)]).unwrap();
            pair.ring.submit().unwrap();
            assert!(pair.serve());
            assert_eq!(pair.ring.pop().unwrap().len, 8, "round {round}");
        }
        assert_eq!(pair.ring.room(), usize::from(size));
    }
}

#[test]
fn a_full_ring_takes_no_more_and_gives_all_back() {
    let mut pair = pair(4, true);
    let buffer = Descriptor::writable(pair.memory.take(8, 8), 8);
    for _ in 0..2 {
        pair.ring.add(&[buffer, buffer]).unwrap();
    }
    assert!(pair.ring.add(&[buffer]).is_err());
    pair.ring.submit().unwrap();
    while pair.serve() {}
    assert!(pair.ring.pop().is_some() && pair.ring.pop().is_some());
    assert_eq!((pair.ring.pop(), pair.ring.room()), (None, 4));
}

#[test]
fn kicks_follow_the_devices_wish() {
    for event_idx in [false, true] {
        let mut pair = pair(16, event_idx);
        let buffer = Descriptor::writable(pair.memory.take(8, 8), 8);
        let submit = |pair: &mut Pair| {
            pair.ring.add(&[buffer]).unwrap();
            pair.ring.submit().unwrap()
        };
        pair.queue.enable_notification(&pair.device_memory).unwrap();
        assert!(submit(&mut pair), "event_idx {event_idx}");
        pair.queue
            .disable_notification(&pair.device_memory)
            .unwrap();
        assert!(!submit(&mut pair), "event_idx {event_idx}");
        while pair.serve() {}
        pair.queue.enable_notification(&pair.device_memory).unwrap();
        assert!(submit(&mut pair), "event_idx {event_idx}");
    }
}

#[test]
fn a_disarmed_ring_is_not_interrupted_and_an_armed_one_is() {
    let mut pair = pair(16, true);
    let buffer = Descriptor::writable(pair.memory.take(8, 8), 8);
    let round = |pair: &mut Pair, armed: bool| {
        if armed {
            pair.ring.arm();
        } else {
            pair.ring.disarm();
        }
        pair.ring.add(&[buffer]).unwrap();
        pair.ring.submit().unwrap();
        assert!(pair.serve());
        pair.ring.pop().unwrap();
        pair.ring.interrupts().unwrap()
    };
    assert_eq!(round(&mut pair, true), 1);
    for _ in 0..100 {
        assert_eq!(round(&mut pair, false), 0);
    }
    assert_eq!(round(&mut pair, true), 1);
}

#[test]
fn without_the_event_index_the_wish_is_a_flag() {
    // virtio-queue does not look at this flag, so it is checked where it lies.
    let pair = pair(16, false);
    let flags = || pair.memory.u16(pair.ring.parts().available);
    pair.ring.disarm();
    assert_eq!(flags().load(Ordering::Relaxed), 1u16.to_le());
    pair.ring.arm();
    assert_eq!(flags().load(Ordering::Relaxed), 0);
}

#[test]
fn a_lost_interrupt_is_told_from_a_missing_answer() {
    let mut pair = pair(16, true);
    let buffer = Descriptor::writable(pair.memory.take(8, 8), 8);
    pair.ring.add(&[buffer]).unwrap();
    pair.ring.submit().unwrap();
    let silent = pair.ring.wait(Duration::from_millis(20)).unwrap_err();
    assert!(silent.to_string().contains("no chain was used"));
    pair.ring.add(&[buffer]).unwrap();
    pair.ring.submit().unwrap();
    // The device completes both but rings for neither, a little after the driver went to sleep.
    let mut queue = pair.queue;
    let memory = pair.device_memory;
    let device = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        while let Some(chain) = queue.pop_descriptor_chain(&memory) {
            queue.add_used(&memory, chain.head_index(), 0).unwrap();
        }
    });
    let lost = pair.ring.wait(Duration::from_millis(200)).unwrap_err();
    device.join().unwrap();
    assert!(lost.to_string().contains("lost interrupt"), "{lost}");
}

#[test]
fn a_moved_ring_continues_where_it_was() {
    let mut pair = pair(8, true);
    let buffer = Descriptor::writable(pair.memory.take(8, 8), 8);
    pair.ring.add(&[buffer]).unwrap();
    pair.ring.submit().unwrap();
    let parts = Parts::take(&pair.memory, 0, 8);
    pair.ring.move_to(Arc::clone(&pair.memory), parts);
    pair.queue
        .try_set_desc_table_address(GuestAddress(parts.descriptors))
        .unwrap();
    pair.queue
        .try_set_avail_ring_address(GuestAddress(parts.available))
        .unwrap();
    pair.queue
        .try_set_used_ring_address(GuestAddress(parts.used))
        .unwrap();
    assert!(pair.serve());
    assert!(pair.ring.pop().is_some());
}
