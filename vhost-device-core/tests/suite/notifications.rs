//! The driver is told when it wants to be told, and tells us when we want to be told (sections 2.7.7 and 2.7.10).

use std::sync::{Arc, Mutex};

use vhost_device_core::{GuestFault, Meter, QueueIndex, Request, Ring, Serve, Service, Start};

use crate::common::driver::{Driver, EVENT_IDX, Place, readable, writable};
use crate::common::guest::{self, BUFFERS};
use crate::common::rig::{Answer, Interrupts, Rig};

/// Bytes that each request of these tests takes.
const ROOM: u32 = 0x1000;

fn fill() -> impl Service {
    Answer(|_: QueueIndex, request: &mut Request<'_>| {
        request.advance_written(u64::MAX);
        Ok(())
    })
}

fn rig(features: u64) -> Rig<Serve<impl Service>> {
    Rig::new(Serve(fill()), guest::memory(), &[64], features)
}

fn add<W>(rig: &mut Rig<W>, count: usize) {
    for _ in 0..count {
        rig.drivers[0].add(&[writable(BUFFERS, ROOM)]).unwrap();
    }
}

#[test]
fn a_batch_is_one_interrupt() {
    for features in [0, EVENT_IDX] {
        let mut rig = rig(features);
        for round in 1..=5 {
            rig.drivers[0].want_interrupt();
            add(&mut rig, 7);
            rig.serve(0);
            assert_eq!(rig.interrupts[0].count(), round);
            assert_eq!(rig.drivers[0].take_all().len(), 7);
        }
        let counters = rig.stop(0).counters;
        assert_eq!((counters.notified, counters.suppressed), (5, 0));
    }
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    for features in [0, EVENT_IDX] {
        let mut rig = rig(features);
        for _ in 0..5 {
            rig.drivers[0].refuse_interrupts();
            add(&mut rig, 7);
            rig.serve(0);
            assert_eq!(rig.drivers[0].take_all().len(), 7);
        }
        assert_eq!(rig.interrupts[0].count(), 0);
        let counters = rig.stop(0).counters;
        assert_eq!((counters.notified, counters.suppressed), (0, 5));
    }
}

#[test]
fn with_the_event_index_the_interrupt_comes_with_the_entry_asked_for() {
    // From 0xfffd, so that the wish and the index wrap around on the way.
    for from in [0, 0xfffd] {
        for wish in 0..8u16 {
            let memory = guest::memory();
            let place = Place::of_queue(0, 64);
            let mut driver = Driver::from(memory.map(), place, EVENT_IDX, from);
            let interrupts = Interrupts::default();
            let mut ring = driver.ring(&memory, 1, interrupts.notifier());
            driver.poke(driver.used_event_address(), from.wrapping_add(wish));
            for done in 0..8 {
                assert_eq!(interrupts.count(), u64::from(done > wish), "{wish} {done}");
                driver.add(&[writable(BUFFERS, 1)]).unwrap();
                let mut queue = ring.queue(&memory);
                queue.next().unwrap().finish();
            }
        }
    }
}

#[test]
fn without_the_event_index_the_used_event_field_means_nothing() {
    let mut rig = rig(0);
    let driver = &rig.drivers[0];
    driver.poke(driver.used_event_address(), 1000);
    add(&mut rig, 1);
    rig.serve(0);
    assert_eq!(rig.interrupts[0].count(), 1);
}

#[test]
fn a_batch_in_which_nothing_is_completed_is_silent() {
    let mut rig = rig(0);
    rig.serve(0);
    assert_eq!(rig.interrupts[0].count(), 0);
    let counters = rig.stop(0).counters;
    assert_eq!((counters.notified, counters.suppressed), (0, 0));
}

#[test]
fn no_kick_is_asked_for_while_requests_are_served_and_one_is_before_sleeping() {
    for features in [0, EVENT_IDX] {
        let memory = guest::memory();
        let shared: Arc<Mutex<Option<Driver>>> = Arc::default();
        let kicks = Arc::new(Mutex::new(0));
        let (driver, counted) = (Arc::clone(&shared), Arc::clone(&kicks));
        let more = Answer(move |_: QueueIndex, _: &mut Request<'_>| {
            // The driver goes on while it is being served.
            if let Some(driver) = driver.lock().unwrap().as_mut()
                && driver.available_index() < 20
            {
                driver.add(&[writable(BUFFERS, 1)]).unwrap();
                *counted.lock().unwrap() += u32::from(driver.decide_kick());
            }
            Ok(())
        });
        let mut rig = Rig::new(Serve(more), memory, &[64], features);
        let mut driver = rig.drivers.remove(0);
        driver.add(&[writable(BUFFERS, 1)]).unwrap();
        assert!(driver.decide_kick(), "an empty ring waits for a kick");
        *shared.lock().unwrap() = Some(driver);
        rig.serve(0);
        assert_eq!(*kicks.lock().unwrap(), 0);
        let mut driver = shared.lock().unwrap().take().unwrap();
        assert_eq!(driver.take_all().len(), 20);
        driver.add(&[writable(BUFFERS, 1)]).unwrap();
        assert!(driver.decide_kick());
    }
}

#[test]
fn flags_left_by_an_earlier_back_end_are_cleared() {
    let memory = guest::memory();
    let driver = Driver::new(memory.map(), Place::of_queue(0, 64), 0);
    driver.poke(driver.place.used, 1);
    let mut runner = vhost_device_core::Runner::new(
        Serve(fill()),
        1,
        Arc::clone(&memory),
        vhost_device_core::Poll::off(),
    );
    let reactor = &mut vhost_device_core::embed::NoReactor;
    runner.start(driver.start(0, &memory, || {})).unwrap();
    runner.settle(reactor);
    assert_eq!(driver.used_flags(), 0);
}

/// Answers as long as `room`, and looks how much the driver has seen at each request.
fn seen_in_a_batch<S: Service>(
    service: impl FnOnce(Arc<Mutex<Vec<u16>>>, Arc<Mutex<Option<Driver>>>) -> S,
    requests: usize,
    room: u32,
) -> (Vec<u16>, u64) {
    let seen: Arc<Mutex<Vec<u16>>> = Arc::default();
    let shared: Arc<Mutex<Option<Driver>>> = Arc::default();
    let service = service(Arc::clone(&seen), Arc::clone(&shared));
    let mut rig = Rig::new(Serve(service), guest::memory(), &[64], 0);
    let mut driver = rig.drivers.remove(0);
    for _ in 0..requests {
        driver.add(&[writable(BUFFERS, room)]).unwrap();
    }
    *shared.lock().unwrap() = Some(driver);
    rig.serve(0);
    let seen = seen.lock().unwrap().clone();
    (seen, rig.interrupts[0].count())
}

#[test]
fn long_answers_are_published_before_the_batch_ends() {
    let service = |seen: Arc<Mutex<Vec<u16>>>, driver: Arc<Mutex<Option<Driver>>>| {
        Answer(move |_: QueueIndex, request: &mut Request<'_>| {
            let driver = driver.lock().unwrap();
            seen.lock()
                .unwrap()
                .push(driver.as_ref().unwrap().used_index());
            request.advance_written(u64::MAX);
            Ok(())
        })
    };
    // 32 KiB are enough once they are half of it, 128 KiB always
    let (seen, interrupts) = seen_in_a_batch(service, 6, 16 * 1024);
    assert_eq!(seen, [0, 0, 0, 3, 3, 5]);
    assert_eq!(interrupts, 3);
    let (seen, interrupts) = seen_in_a_batch(service, 8, 64 * 1024);
    assert_eq!(seen, [0, 0, 2, 2, 4, 4, 6, 7]);
    assert_eq!(interrupts, 5);
    let (seen, interrupts) = seen_in_a_batch(service, 6, 4096);
    assert_eq!(seen, [0; 6]);
    assert_eq!(interrupts, 1);
}

#[test]
fn a_slow_service_publishes_each_answer_by_itself() {
    struct Slow(Arc<Mutex<Vec<u16>>>, Arc<Mutex<Option<Driver>>>);
    impl Service for Slow {
        const SLOW: bool = true;
        fn serve(&mut self, _: QueueIndex, _: &mut Request<'_>) -> Result<(), GuestFault> {
            let driver = self.1.lock().unwrap();
            self.0
                .lock()
                .unwrap()
                .push(driver.as_ref().unwrap().used_index());
            Ok(())
        }
    }
    let (seen, interrupts) = seen_in_a_batch(Slow, 4, 1);
    assert_eq!(seen, [0, 1, 2, 3]);
    assert_eq!(interrupts, 4);
}

#[test]
fn a_new_notifier_is_rung_at_once_for_what_the_old_one_may_have_lost() {
    let mut rig = rig(0);
    let new = Interrupts::default();
    rig.runner
        .set_notifier(QueueIndex(0), Box::new(new.notifier()));
    assert_eq!(new.count(), 1);
    add(&mut rig, 1);
    rig.serve(0);
    assert_eq!((rig.interrupts[0].count(), new.count()), (0, 2));
}

#[test]
fn a_meter_counts_over_the_runs_of_a_queue() {
    let memory = guest::memory();
    let place = Place::of_queue(0, 64);
    let meter = Arc::new(Meter::default());
    for run in 1..=2 {
        let mut driver = Driver::from(memory.map(), place, 0, 0);
        let start = Start {
            meter: Arc::clone(&meter),
            ..driver.start(0, &memory, Interrupts::default().notifier())
        };
        let mut ring = Ring::start(start, &memory, run).unwrap();
        driver.add(&[writable(BUFFERS, 100)]).unwrap();
        driver
            .add(&[readable(BUFFERS, 1), writable(BUFFERS, 1)])
            .unwrap();
        driver
            .add(&[writable(BUFFERS, 1), readable(BUFFERS, 1)])
            .unwrap();
        let mut queue = ring.queue(&memory);
        for _ in 0..2 {
            let mut request = queue.next().unwrap();
            request.advance_written(u64::MAX);
            request.finish();
        }
        assert!(queue.next().is_none());
        queue.count_dropped();
        drop(queue);
        driver.poke(driver.place.available + 2, 1000);
        assert!(ring.queue(&memory).next().is_none());
        let (totals, run) = (meter.totals(), u64::from(run));
        assert_eq!((totals.starts, totals.corruptions), (run, run));
        assert_eq!((totals.requests, totals.bytes), (3 * run, 101 * run));
        assert_eq!((totals.notified, totals.dropped), (run, run));
        let misplaced = GuestFault::ReadableAfterWritable as usize;
        assert_eq!(totals.faults.iter().sum::<u64>(), run);
        assert_eq!(totals.faults[misplaced], run);
    }
}
