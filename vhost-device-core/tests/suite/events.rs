//! Timers and wakers: a worker acts later, or because another thread says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vhost_device_core::{
    Device, HostError, Io, QueueIndex, QueueSpec, Ready, Segments, Setup, Ticket, Timer, Token,
    Waker, Worker,
};

use crate::common::driver::{EVENT_IDX, writable};
use crate::common::guest::{self, BUFFERS};
use crate::common::stand::Stand;

/// All 32 bits of a token are the worker's.
const TIMER: Token = Token(u32::MAX);
const WAKER: Token = Token(0x8000_0000);

const DELAY: Duration = Duration::from_millis(30);

/// Answers each request after [`DELAY`], and tells of a changed configuration when it is woken.
#[derive(Default)]
struct Delayed {
    waker: Mutex<Option<Waker>>,
}

struct DelayedWorker {
    timer: Box<dyn Timer>,
    waiting: VecDeque<(Ticket, Segments)>,
}

impl Device for Delayed {
    type Worker = DelayedWorker;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new()]
    }

    fn worker(self: &Arc<Self>, _: u16, setup: &mut Setup<'_>) -> Result<DelayedWorker, HostError> {
        let fail = |error| HostError::new("wait for events", error);
        *self.waker.lock().unwrap() = Some(setup.reactor().waker(WAKER).map_err(fail)?);
        Ok(DelayedWorker {
            timer: setup.reactor().timer(TIMER).map_err(fail)?,
            waiting: VecDeque::new(),
        })
    }
}

impl Worker for DelayedWorker {
    fn kick(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        let mut batch = io.queue(queue);
        while let Some(request) = batch.next() {
            self.waiting.push_back(request.detach());
            self.timer.arm(DELAY);
        }
    }

    fn event(&mut self, token: Token, _: Ready, io: &mut Io<'_>) {
        match token {
            TIMER => self.answer(io),
            WAKER => io.reactor().config_changed(),
            Token(other) => panic!("an event of {other:#x}"),
        }
    }

    fn quiesce(&mut self, _: QueueIndex, io: &mut Io<'_>) {
        self.timer.disarm();
        self.answer(io);
    }
}

impl DelayedWorker {
    fn answer(&mut self, io: &mut Io<'_>) {
        let mut batch = io.queue(QueueIndex(0));
        for (ticket, mut segments) in self.waiting.drain(..) {
            segments.write(&[1u8]).unwrap();
            batch.complete(ticket, segments.written());
            batch.recycle(segments);
        }
    }
}

fn stand() -> (Arc<Delayed>, Stand<Delayed>) {
    let device = Arc::new(Delayed::default());
    let stand = Stand::new(&device, guest::memory(), 16, EVENT_IDX);
    (device, stand)
}

#[test]
fn requests_are_answered_when_the_timer_set_last_fires() {
    let (_, mut stand) = stand();
    for _ in 0..3 {
        let start = Instant::now();
        stand.submit(0, &[writable(BUFFERS, 1)]);
        stand.turn(Duration::from_millis(10));
        stand.submit(0, &[writable(BUFFERS + 1, 1)]);
        let mut done = 0;
        stand.run_until(|stand| {
            done += stand.drivers[0].take_all().len();
            done == 2
        });
        assert!(start.elapsed() >= DELAY);
        assert_eq!(guest::read(stand.memory.map(), BUFFERS, 2), [1, 1]);
    }
}

#[test]
fn a_timer_that_is_disarmed_does_not_fire() {
    let (_, mut stand) = stand();
    stand.submit(0, &[writable(BUFFERS, 1)]);
    stand.turn(Duration::from_millis(10));
    stand.stop(0);
    assert_eq!(stand.drivers[0].take_all().len(), 1);
    assert_eq!(stand.turn(DELAY * 2), 0);
}

#[test]
fn a_worker_is_woken_from_another_thread_and_wakes_are_not_lost() {
    let (device, mut stand) = stand();
    let waker = device.waker.lock().unwrap().clone().unwrap();
    for round in 1..=20 {
        let waker = waker.clone();
        let other = std::thread::spawn(move || (0..5).for_each(|_| waker.wake()));
        other.join().unwrap();
        // All five before it ran are one event.
        stand.run_until_idle();
        assert_eq!(stand.reactor.config_changes, round);
    }
}
