//! Every request taken is completed exactly once, or put back.

use std::sync::Arc;

use proptest::prelude::*;
use vhost_device_core::{GuestFault, Memory, Ring, Segments, Ticket};

use crate::common;
use crate::common::driver::{Driver, Place, Used, readable, writable};
use crate::common::guest::{self, BUFFERS};
use crate::common::rig::Interrupts;

/// One queue whose device side is driven by hand; each request is 4 bytes in, 4 bytes out.
struct Desk {
    memory: Arc<Memory>,
    driver: Driver,
    ring: Ring,
    interrupts: Interrupts,
}

impl Desk {
    fn new(size: u16) -> Self {
        let memory = guest::memory();
        let driver = Driver::new(memory.map(), Place::of_queue(0, size), 0);
        let interrupts = Interrupts::default();
        let ring = driver.ring(&memory, 1, interrupts.notifier());
        Self {
            memory,
            driver,
            ring,
            interrupts,
        }
    }

    /// A request whose number is its payload.
    fn submit(&mut self, number: u32) -> u16 {
        let at = BUFFERS + 8 * u64::from(number);
        guest::write(self.memory.map(), at, &number.to_le_bytes());
        let pieces = [readable(at, 4), writable(at + 4, 4)];
        self.driver.add(&pieces).unwrap()
    }

    /// Takes the next request out of the batch.
    fn detach(&mut self) -> (Ticket, Segments) {
        let mut queue = self.ring.queue(&self.memory);
        queue.next().unwrap().detach()
    }

    /// Answers a detached request with its own bytes.
    fn answer(&mut self, (ticket, mut segments): (Ticket, Segments)) {
        let number: [u8; 4] = segments.read().unwrap();
        segments.write(&number).unwrap();
        let mut queue = self.ring.queue(&self.memory);
        queue.complete(ticket, segments.written());
        queue.recycle(segments);
    }

    fn answered(&self, number: u32) -> bool {
        let at = BUFFERS + 8 * u64::from(number) + 4;
        guest::read(self.memory.map(), at, 4) == number.to_le_bytes()
    }
}

#[test]
fn a_request_that_is_dropped_is_completed_once_with_what_was_written() {
    let mut desk = Desk::new(4);
    let head = desk.submit(1);
    let mut queue = desk.ring.queue(&desk.memory);
    let mut request = queue.next().unwrap();
    request.write(&[7u8, 7]).unwrap();
    drop(request);
    assert!(queue.next().is_none());
    drop(queue);
    assert_eq!(desk.driver.take_all(), [Used { head, length: 2 }]);
    assert_eq!(desk.ring.in_flight(), 0);
}

#[test]
fn a_refused_request_is_used_with_length_0_and_counted() {
    let mut desk = Desk::new(4);
    let head = desk.submit(1);
    let mut queue = desk.ring.queue(&desk.memory);
    let mut request = queue.next().unwrap();
    request.write(&[7u8]).unwrap();
    request.fail(GuestFault::Invalid);
    drop(queue);
    assert_eq!(desk.driver.take_all(), [Used { head, length: 0 }]);
    assert_eq!(desk.ring.counters().faults, 1);
}

#[test]
fn a_request_put_back_comes_again_in_the_same_batch_and_in_later_ones() {
    let mut desk = Desk::new(4);
    let head = desk.submit(1);
    for _ in 0..3 {
        let mut queue = desk.ring.queue(&desk.memory);
        for _ in 0..3 {
            let mut request = queue.next().unwrap();
            assert_eq!(request.read(), Ok(1u32.to_le_bytes()));
            request.put_back();
        }
    }
    assert_eq!(desk.interrupts.count(), 0);
    assert_eq!(desk.ring.counters().requests, 0);
    assert_eq!(desk.ring.in_flight(), 0);
    let detached = desk.detach();
    desk.answer(detached);
    assert_eq!(desk.driver.take_all(), [Used { head, length: 4 }]);
    assert_eq!(desk.ring.counters().requests, 1);
}

#[test]
fn detached_requests_go_back_into_the_ring_from_the_last_to_the_first() {
    let mut desk = Desk::new(8);
    let heads: Vec<u16> = (0..3).map(|number| desk.submit(number)).collect();
    let open: Vec<_> = (0..3).map(|_| desk.detach()).collect();
    let mut queue = desk.ring.queue(&desk.memory);
    for (ticket, segments) in open.into_iter().skip(1).rev() {
        queue.put_back(ticket);
        queue.recycle(segments);
    }
    drop(queue);
    assert_eq!(desk.ring.next_available(), 1);
    assert_eq!(desk.ring.in_flight(), 1);
    for number in 1..3 {
        let detached = desk.detach();
        desk.answer(detached);
        let head = heads[number as usize];
        assert_eq!(desk.driver.take_all(), [Used { head, length: 4 }]);
        assert!(desk.answered(number));
    }
    assert_eq!(desk.ring.counters().requests, 3);
}

#[test]
fn a_queue_that_stops_resumes_at_the_request_that_was_put_back() {
    let mut desk = Desk::new(4);
    desk.submit(1);
    desk.submit(2);
    let mut queue = desk.ring.queue(&desk.memory);
    queue.next().unwrap().finish();
    queue.next().unwrap().put_back();
    drop(queue);
    assert_eq!(desk.ring.next_available(), 1);
    assert_eq!(desk.ring.published(), 1);
}

proptest! {
    #![proptest_config(common::cases(256))]

    #[test]
    fn detached_requests_may_be_completed_in_any_order_between_others(
        order in Just((0..16u32).collect::<Vec<_>>()).prop_shuffle(),
        sizes in prop::sample::select(vec![32u16, 64, 256]),
        batch in 1..5usize,
    ) {
        let mut desk = Desk::new(sizes);
        let heads: Vec<u16> = (0..16).map(|number| desk.submit(number)).collect();
        let mut open: Vec<_> = (0..16).map(|_| Some(desk.detach())).collect();
        prop_assert!(desk.driver.take().is_none());
        prop_assert_eq!(desk.ring.in_flight(), 16);
        let mut seen = Vec::new();
        for numbers in order.chunks(batch) {
            for number in numbers {
                desk.answer(open[*number as usize].take().unwrap());
            }
            for used in desk.driver.take_all() {
                prop_assert_eq!(used.length, 4);
                seen.push(used.head);
            }
        }
        let expected: Vec<u16> = order.iter().map(|number| heads[*number as usize]).collect();
        prop_assert_eq!(seen, expected);
        prop_assert!((0..16).all(|number| desk.answered(number)));
        prop_assert_eq!(desk.ring.in_flight(), 0);
    }
}

#[test]
fn a_detached_request_goes_on_where_the_batch_left_it() {
    let mut desk = Desk::new(4);
    let at = BUFFERS;
    guest::write(desk.memory.map(), at, b"abcdef");
    desk.driver
        .add(&[readable(at, 6), writable(at + 16, 5)])
        .unwrap();
    let mut queue = desk.ring.queue(&desk.memory);
    let mut request = queue.next().unwrap();
    request.reserve_tail(1).unwrap();
    assert_eq!(request.read::<[u8; 2]>(), Ok(*b"ab"));
    request.write(b"12").unwrap();
    let (ticket, mut segments) = request.detach();
    drop(queue);
    assert_eq!(segments.read::<[u8; 4]>(), Ok(*b"cdef"));
    segments.write(b"34").unwrap();
    assert_eq!(segments.write(b"5"), Err(GuestFault::ShortAnswer));
    segments.write_tail(b"!").unwrap();
    let mut queue = desk.ring.queue(&desk.memory);
    queue.complete(ticket, segments.written());
    drop(queue);
    assert_eq!(desk.driver.take().unwrap().length, 5);
    assert_eq!(guest::read(desk.memory.map(), at + 16, 5), b"1234!");
}

#[test]
fn a_detached_request_keeps_the_memory_it_came_from() {
    let mut desk = Desk::new(4);
    let head = desk.submit(1);
    let detached = desk.detach();
    // A new memory table, with the same ring in other pages.
    let old = std::mem::replace(&mut desk.memory, guest::memory());
    let weak = Arc::downgrade(&old);
    let map = old.map().clone();
    drop(old);
    assert!(weak.upgrade().is_some(), "the request still needs it");
    desk.answer(detached);
    assert!(weak.upgrade().is_none(), "and nobody else does");
    assert_eq!(guest::read(&map, BUFFERS + 12, 4), 1u32.to_le_bytes());
    let new = Driver::new(desk.memory.map(), Place::of_queue(0, 4), 0);
    assert_eq!(head, 0);
    assert_eq!(
        guest::read(desk.memory.map(), new.place.used + 4, 8),
        [0, 0, 0, 0, 4, 0, 0, 0]
    );
}

#[test]
fn a_ticket_from_before_a_reset_completes_nothing() {
    let mut desk = Desk::new(4);
    desk.submit(1);
    let (ticket, segments) = desk.detach();
    desk.driver = Driver::new(desk.memory.map(), Place::of_queue(0, 4), 0);
    desk.ring = desk
        .driver
        .ring(&desk.memory, 2, desk.interrupts.notifier());
    desk.submit(2);
    let open = desk.detach();
    let mut queue = desk.ring.queue(&desk.memory);
    queue.complete(ticket, 4);
    queue.recycle(segments);
    drop(queue);
    assert_eq!(desk.driver.take(), None);
    assert_eq!(desk.ring.in_flight(), 1);
    desk.answer(open);
    assert_eq!(desk.driver.take_all().len(), 1);
    assert_eq!(desk.interrupts.count(), 1);
}

#[test]
fn a_driver_that_offers_one_head_twice_has_each_offer_completed_once() {
    let mut desk = Desk::new(4);
    let head = desk.submit(1);
    desk.driver.offer(head);
    let first = desk.detach();
    let second = desk.detach();
    desk.answer(first);
    desk.answer(second);
    assert_eq!(desk.driver.take_all(), [Used { head, length: 4 }; 2]);
    assert_eq!(desk.ring.in_flight(), 0);
    assert_eq!(desk.ring.fault(), None);
}
