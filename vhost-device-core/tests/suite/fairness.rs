//! No queue and no driver keeps the thread from its other duties, and none is forgotten.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vhost_device_core::embed::NoReactor;
use vhost_device_core::{
    Io, Origin, Poll, Queue, QueueIndex, Ready, Request, Runner, Serve, Start, Token, Worker,
};

use crate::common::driver::{Driver, EVENT_IDX, Piece, readable, writable};
use crate::common::guest::{self, BUFFERS};
use crate::common::rig::{Answer, OnKick, Rig};

const FIRST: QueueIndex = QueueIndex(0);
const SECOND: QueueIndex = QueueIndex(1);
const THIRD: QueueIndex = QueueIndex(2);

/// Far more than one batch or one turn may serve.
const ENDLESS: u32 = 20_000;

/// A driver that offers a request again while it is being served.
#[derive(Clone)]
struct Refill {
    driver: Arc<Mutex<Option<(Driver, u16)>>>,
    left: Arc<AtomicU32>,
}

impl Refill {
    fn new() -> Self {
        Self {
            driver: Arc::default(),
            left: Arc::new(AtomicU32::new(ENDLESS)),
        }
    }

    fn begin(&self, mut driver: Driver) {
        let head = driver.add(&[readable(BUFFERS, 1)]).unwrap();
        *self.driver.lock().unwrap() = Some((driver, head));
    }

    /// The device took a request.
    fn again(&self) {
        if let Some((driver, head)) = self.driver.lock().unwrap().as_mut()
            && self.left.fetch_sub(1, Ordering::Relaxed) > 1
        {
            driver.offer(*head);
        }
    }

    fn served(&self) -> u32 {
        ENDLESS - self.left.load(Ordering::Relaxed)
    }
}

#[test]
fn drivers_that_never_stop_do_not_keep_the_thread_nor_starve_each_other() {
    let refills = [Refill::new(), Refill::new()];
    let order: Arc<Mutex<Vec<QueueIndex>>> = Arc::default();
    let (again, log) = (refills.clone(), Arc::clone(&order));
    let answer = Answer(move |queue: QueueIndex, _: &mut Request<'_>| {
        log.lock().unwrap().push(queue);
        again[queue.position()].again();
        Ok(())
    });
    let mut rig = Rig::new(Serve(answer), guest::memory(), &[16, 16], 0);
    for (refill, driver) in refills.iter().zip(rig.drivers.drain(..)) {
        refill.begin(driver);
    }
    rig.runner.kick(FIRST, &mut NoReactor);
    rig.runner.kick(SECOND, &mut NoReactor);
    let served = || refills.iter().map(Refill::served).sum::<u32>();
    let batch = 1024;
    assert_eq!(served(), 2 * batch, "one batch each");
    assert!(rig.settle(), "work is left, and the thread is free");
    assert!(served() <= 10 * batch, "{} in one turn", served());
    while rig.settle() {}
    assert_eq!(served(), 2 * ENDLESS, "nothing is forgotten");
    let order = order.lock().unwrap();
    let longest = order.chunk_by(|a, b| a == b).map(<[_]>::len).max();
    assert_eq!(longest, Some(batch as usize), "one queue after the other");
}

#[test]
fn long_requests_and_answers_end_a_batch_earlier() {
    for piece in [readable(BUFFERS, 128 * 1024), writable(BUFFERS, 128 * 1024)] {
        long_requests_end_a_batch_earlier(piece);
    }
}

fn long_requests_end_a_batch_earlier(piece: Piece) {
    let order: Arc<Mutex<Vec<QueueIndex>>> = Arc::default();
    let log = Arc::clone(&order);
    let answer = Answer(move |queue: QueueIndex, request: &mut Request<'_>| {
        log.lock().unwrap().push(queue);
        request.advance_read(u64::MAX);
        request.advance_written(u64::MAX);
        Ok(())
    });
    let mut rig = Rig::new(Serve(answer), guest::memory(), &[64, 64], 0);
    for driver in &mut rig.drivers {
        // Eight are a mebibyte.
        for _ in 0..20 {
            driver.add(&[piece]).unwrap();
        }
    }
    rig.runner.kick(FIRST, &mut NoReactor);
    rig.serve(1);
    let order = order.lock().unwrap();
    let turns: Vec<_> = order.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
    assert_eq!(turns.iter().sum::<usize>(), 40);
    assert!(turns.iter().all(|turn| *turn <= 8), "{turns:?}");
}

#[test]
fn a_worker_may_take_less_than_a_batch_and_is_kicked_for_the_rest() {
    let kicks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&kicks);
    let worker = OnKick(move |queue: QueueIndex, io: &mut Io<'_>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let mut batch = io.queue(queue).at_most(3);
        while let Some(request) = batch.next() {
            request.finish();
        }
    });
    let mut rig = Rig::new(worker, guest::memory(), &[16], 0);
    let before = kicks.load(Ordering::Relaxed);
    for _ in 0..10 {
        rig.drivers[0].add(&[readable(BUFFERS, 1)]).unwrap();
    }
    rig.serve(0);
    assert_eq!(rig.drivers[0].take_all().len(), 10);
    assert_eq!(kicks.load(Ordering::Relaxed) - before, 4);
    assert_eq!(rig.interrupts[0].count(), 4);
}

/// A worker that serves its queue when an event comes, and sends nothing when it is kicked.
struct OnEvent(Refill);

impl Worker for OnEvent {
    fn kick(&mut self, _: QueueIndex, _: &mut Io<'_>) {}

    fn event(&mut self, _: Token, _: Ready, io: &mut Io<'_>) {
        let mut batch = io.queue(FIRST);
        while let Some(request) = batch.next() {
            request.finish();
            self.0.again();
        }
    }
}

/// The bug: the batch limit stayed set until the queue was opened again, and the thread never slept.
#[test]
fn a_worker_that_does_not_come_back_for_the_rest_of_a_batch_may_sleep() {
    let refill = Refill::new();
    let mut rig = Rig::new(OnEvent(refill.clone()), guest::memory(), &[16], 0);
    refill.begin(rig.drivers.remove(0));
    rig.runner.event(Token(1), Ready::default(), &mut NoReactor);
    assert_eq!(refill.served(), 1024);
    assert!(!rig.settle());
}

/// Leaves receive buffers in the first queue, since there is nothing to receive, and serves the second.
fn receiver(kicks: &Arc<AtomicU32>) -> impl Worker + use<> {
    let kicks = Arc::clone(kicks);
    OnKick(move |queue: QueueIndex, io: &mut Io<'_>| {
        kicks.fetch_add(1, Ordering::Relaxed);
        let mut batch = io.queue(queue);
        while let Some(request) = batch.next() {
            if queue == FIRST {
                request.put_back();
                return;
            }
            request.finish();
        }
    })
}

#[test]
fn buffers_left_in_a_queue_on_purpose_are_no_work() {
    for features in [0, EVENT_IDX] {
        let kicks = Arc::new(AtomicU32::new(0));
        let mut rig = Rig::new(receiver(&kicks), guest::memory(), &[16, 16], features);
        for _ in 0..16 {
            rig.drivers[0].add(&[readable(BUFFERS, 1)]).unwrap();
        }
        rig.serve(0);
        let before = kicks.load(Ordering::Relaxed);
        for _ in 0..10 {
            assert!(!rig.settle());
        }
        assert_eq!(kicks.load(Ordering::Relaxed), before);
    }
}

/// The bug: polling took receive buffers that wait for data for work, kicked without end, and never looked at the queues
/// behind them.
#[test]
fn polling_finds_work_in_a_queue_behind_waiting_receive_buffers() {
    let later: Arc<Mutex<Option<Driver>>> = Arc::default();
    let kicks: Arc<Mutex<Vec<QueueIndex>>> = Arc::default();
    let (driver, log) = (Arc::clone(&later), Arc::clone(&kicks));
    let worker = OnKick(move |queue: QueueIndex, io: &mut Io<'_>| {
        log.lock().unwrap().push(queue);
        let mut batch = io.queue(queue);
        while let Some(request) = batch.next() {
            if queue == FIRST {
                // Nothing was received.
                request.put_back();
                return;
            }
            request.finish();
            if queue == THIRD
                && let Some(driver) = driver.lock().unwrap().as_mut()
            {
                // Meanwhile the driver adds to the second queue.
                driver.add(&[readable(BUFFERS, 1)]).unwrap();
            }
        }
    });
    let poll = Poll::new(Duration::from_millis(100));
    let memory = guest::memory();
    let mut rig = Rig::polling(worker, memory, &[16; 3], EVENT_IDX, poll);
    rig.drivers[0].add(&[readable(BUFFERS, 1)]).unwrap();
    rig.drivers[2].add(&[readable(BUFFERS, 1)]).unwrap();
    *later.lock().unwrap() = Some(rig.drivers.remove(1));
    kicks.lock().unwrap().clear();
    // Nobody kicks. One window is enough, if the machine lets it be one.
    for _ in 0..5 {
        rig.settle();
        if kicks.lock().unwrap().contains(&SECOND) {
            break;
        }
    }
    assert_eq!(*kicks.lock().unwrap(), [FIRST, THIRD, SECOND]);
    assert_eq!(later.lock().unwrap().as_mut().unwrap().take_all().len(), 1);
}

/// Finds something of the host at every tenth look, ten times.
struct Finder {
    looks: Arc<AtomicU32>,
    found: Arc<AtomicU32>,
}

impl Worker for Finder {
    fn kick(&mut self, _: QueueIndex, _: &mut Io<'_>) {}

    fn poll(&mut self, _: &mut Io<'_>) -> bool {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        let found = look % 10 == 9 && self.found.load(Ordering::Relaxed) < 10;
        if found {
            self.found.fetch_add(1, Ordering::Relaxed);
        }
        found
    }
}

#[test]
fn what_the_host_has_is_found_while_polling_and_never_looked_for_without_it() {
    for longest in [Duration::ZERO, Duration::from_millis(20)] {
        let (looks, found) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let worker = Finder {
            looks: Arc::clone(&looks),
            found: Arc::clone(&found),
        };
        let poll = Poll::new(longest);
        let mut rig = Rig::polling(worker, guest::memory(), &[16], EVENT_IDX, poll);
        for _ in 0..20 {
            rig.settle();
        }
        let (looks, found) = (looks.load(Ordering::Relaxed), found.load(Ordering::Relaxed));
        assert_eq!(
            (looks > 0, found),
            (!longest.is_zero(), if longest.is_zero() { 0 } else { 10 })
        );
    }
}

#[test]
fn a_worker_without_running_queues_does_not_poll() {
    let longest = Duration::from_millis(100);
    let time = || {
        let worker = OnKick(|_: QueueIndex, _: &mut Io<'_>| {});
        let mut runner = Runner::new(worker, 1, guest::memory(), Poll::new(longest));
        let start = Instant::now();
        assert!(!runner.settle(&mut NoReactor));
        start.elapsed()
    };
    // The fastest of a few, for the sake of busy machines.
    let fastest = (0..5).map(|_| time()).min();
    assert!(fastest < Some(longest), "{fastest:?}");
}

#[test]
fn a_kick_of_a_queue_that_does_not_run_does_nothing() {
    let kicks = Arc::new(AtomicU32::new(0));
    let mut rig = Rig::new(receiver(&kicks), guest::memory(), &[16, 16], 0);
    rig.stop(1);
    let before = kicks.load(Ordering::Relaxed);
    for queue in [1, 2, 255, u16::MAX] {
        rig.runner.kick(QueueIndex(queue), &mut NoReactor);
        assert!(rig.runner.stop(QueueIndex(queue), &mut NoReactor).is_none());
    }
    assert_eq!(kicks.load(Ordering::Relaxed), before);
}

#[test]
fn a_worker_sees_whether_a_queue_goes_on_or_begins_anew() {
    let seen: Arc<Mutex<Vec<Origin>>> = Arc::default();
    let log = Arc::clone(&seen);
    let worker = OnKick(move |queue: QueueIndex, io: &mut Io<'_>| {
        let mut batch = io.queue(queue);
        log.lock().unwrap().extend(batch.origin());
        while let Some(request) = batch.next() {
            request.finish();
        }
    });
    let mut rig = Rig::new(worker, guest::memory(), &[16], EVENT_IDX);
    rig.drivers[0].add(&[readable(BUFFERS, 1)]).unwrap();
    rig.serve(0);
    for goes_on in [true, false] {
        let stopped = rig.stop(0);
        assert_eq!(stopped.next_available, 1);
        let start = Start {
            next_available: if goes_on { 1 } else { 0 },
            ..rig.drivers[0].start(0, &rig.memory, || {})
        };
        rig.runner.start(start).unwrap();
        rig.settle();
    }
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.dedup();
    let indices: Vec<_> = seen.iter().map(|origin| origin.index).collect();
    assert_eq!(indices, [0, 1, 0]);
    assert_ne!(seen[0].run, seen[2].run);
    assert!(Queue::stopped().origin().is_none());
}
