//! Driver and device on two threads, with nothing between them but guest memory and two bells.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use vhost_device_core::embed::NoReactor;
use vhost_device_core::{Poll, QueueIndex, Request, Runner, Serve, Stopped};

use crate::common::driver::{Driver, EVENT_IDX, Place, writable};
use crate::common::guest::{self, BUFFERS};
use crate::common::rig::Answer;

const ROUNDS: u64 = 1_000_000;

/// How often a turn looks at the rings before it lets others have theirs.
const ROUNDS_IN_A_TURN: u64 = 4;

/// Longer than any scheduler takes to let the other side run.
const LOST: Duration = Duration::from_secs(30);

/// What an eventfd is: rung any number of times before somebody listens, it wakes once.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    sleeper: Condvar,
    rings: AtomicU64,
}

impl Bell {
    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        *self.rung.lock().unwrap() = true;
        self.sleeper.notify_one();
    }

    /// Sleeps until it is rung. False: it never was.
    fn wait(&self) -> bool {
        let rung = self.rung.lock().unwrap();
        let (mut rung, _) = self
            .sleeper
            .wait_timeout_while(rung, LOST, |rung| !*rung)
            .unwrap();
        std::mem::take(&mut *rung)
    }

    fn count(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }
}

/// Both ends of one run.
struct Run {
    driver: Driver,
    kick: Arc<Bell>,
    call: Arc<Bell>,
    stop: Arc<AtomicBool>,
    device: std::thread::JoinHandle<(Stopped, u64)>,
}

impl Run {
    fn new(size: u16, features: u64, poll: Poll) -> Self {
        let memory = guest::memory();
        let driver = Driver::from(memory.map(), Place::of_queue(0, size), features, 0xfff0);
        let [kick, call] = [(); 2].map(|()| Arc::new(Bell::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let ring = Arc::clone(&call);
        let start = driver.start(0, &memory, move || ring.ring());
        let answer = Answer(|_: QueueIndex, request: &mut Request<'_>| request.write(&[1u8, 2]));
        let mut runner = Runner::new(Serve(answer), 1, memory, poll);
        let (bell, ended) = (Arc::clone(&kick), Arc::clone(&stop));
        let device = std::thread::spawn(move || {
            let mut turns = 0;
            runner.start(start).unwrap();
            loop {
                turns += 1;
                if !runner.settle(&mut NoReactor) {
                    assert!(bell.wait(), "the device was never kicked");
                    runner.woke();
                }
                if ended.load(Ordering::SeqCst) {
                    let stopped = runner.stop(QueueIndex(0), &mut NoReactor);
                    return (stopped.unwrap(), turns);
                }
                runner.kick(QueueIndex(0), &mut NoReactor);
            }
        });
        Self {
            driver,
            kick,
            call,
            stop,
            device,
        }
    }

    fn submit(&mut self, count: u64) -> u64 {
        let added = (0..count)
            .map_while(|_| self.driver.add(&[writable(BUFFERS, 2)]))
            .count();
        if self.driver.decide_kick() {
            self.kick.ring();
        }
        added as u64
    }

    fn take(&mut self) -> u64 {
        let mut taken = 0;
        while let Some(used) = self.driver.take() {
            assert_eq!(used.length, 2);
            taken += 1;
        }
        taken
    }

    fn finish(self) -> (Stopped, u64) {
        self.stop.store(true, Ordering::SeqCst);
        self.kick.ring();
        self.device.join().unwrap()
    }
}

/// A small generator; the sequence only has to be irregular.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Bursts of irregular length; the driver sleeps when it has nothing else to do.
fn sleeping_driver(size: u16, features: u64, poll: Poll, rounds: u64) {
    let mut run = Run::new(size, features, poll);
    let (mut added, mut taken, mut asked) = (0, 0, 0);
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    while taken < rounds {
        let random = next(&mut seed);
        if added < rounds {
            added += run.submit((1 + random % 8).min(rounds - added));
        }
        taken += run.take();
        // Often enough, both sides sleep.
        if random & 0x300 == 0 || run.driver.free() == 0 || added == rounds {
            while taken < added {
                asked += 1;
                if !run.driver.want_interrupt() {
                    assert!(run.call.wait(), "lost: {added} added, {taken} taken");
                }
                run.driver.refuse_interrupts();
                taken += run.take();
            }
        }
    }
    let (kicks, calls) = (run.kick.count(), run.call.count());
    let (stopped, turns) = run.finish();
    assert_eq!(stopped.counters.requests, rounds);
    assert_eq!(stopped.counters.notified, calls);
    assert_eq!(stopped.fault, None);
    if features & EVENT_IDX != 0 {
        assert!(calls <= asked, "{calls} interrupts, {asked} asked for");
        // The driver kicks at most once each time it was asked to, and that is at most once in each of a turn's rounds.
        let asked = turns * ROUNDS_IN_A_TURN;
        assert!(kicks <= asked, "{kicks} kicks, {asked} asked for");
    }
}

#[test]
fn a_million_rounds_with_the_event_index_lose_no_wake_up() {
    sleeping_driver(256, EVENT_IDX, Poll::off(), ROUNDS);
}

#[test]
fn a_million_rounds_with_flags_lose_no_wake_up() {
    sleeping_driver(256, 0, Poll::off(), ROUNDS);
}

#[test]
fn a_device_that_polls_loses_no_wake_up() {
    for features in [0, EVENT_IDX] {
        let poll = Poll::new(Duration::from_micros(50));
        sleeping_driver(64, features, poll, ROUNDS / 10);
    }
}

#[test]
fn rings_of_every_size_lose_no_wake_up() {
    for size in [1, 2, 64, 256, 1024] {
        for features in [0, EVENT_IDX] {
            sleeping_driver(size, features, Poll::off(), ROUNDS / 100);
        }
    }
}

#[test]
fn a_driver_that_polls_is_never_interrupted() {
    for features in [0, EVENT_IDX] {
        let mut run = Run::new(64, features, Poll::off());
        run.driver.refuse_interrupts();
        let mut taken = 0;
        let mut last = Instant::now();
        while taken < ROUNDS / 10 {
            run.submit(8);
            let more = run.take();
            taken += more;
            run.driver.refuse_interrupts();
            if more > 0 {
                last = Instant::now();
            } else {
                assert!(last.elapsed() < LOST, "the device does not answer");
                std::thread::yield_now();
            }
        }
        assert_eq!(run.call.count(), 0);
        run.finish();
    }
}
