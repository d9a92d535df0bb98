//! No wake-up is lost and none is unwanted, in any interleaving of driver and device.
//!
//! The device runs on the test's thread. Each of its writes to guest memory is seen by a [`DirtyLog`], which lets the
//! driver act right there: between the used index and the look at the driver's wish, between the device's own wish and
//! its second look at the ring, and so on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vhost_device_core::embed::NoReactor;
use vhost_device_core::{
    DirtyLog, Memory, Poll, QueueIndex, Request, Runner, Serve, Start, Worker,
};

use crate::common;
use crate::common::driver::{Driver, EVENT_IDX, Place, readable};
use crate::common::guest::{self, BUFFERS};
use crate::common::rig::Answer;

/// Which part of the driver makes its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Adds requests and decides about kicks.
    Submitter,
    /// Takes what was used, and asks for interrupts before it sleeps.
    Handler,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    Asleep,
    /// Woken; asks for no more interrupts.
    Refusing,
    Taking,
    Asking,
    /// Has asked, and looks once more.
    Looking,
}

/// The driver's two threads, step by step, and what they must agree on with the device.
struct Guest {
    driver: Driver,
    /// The driver's steps for the next writes of the device.
    script: VecDeque<Vec<Who>>,
    added: u32,
    taken: u32,
    /// Requests were added since the last decision about a kick.
    undecided: bool,
    kicked: bool,
    kicks: u32,
    handling: Handling,
    interrupted: bool,
    /// The used index before the last publication.
    published: u16,
    wanted: u32,
    notified: u32,
}

impl Guest {
    fn step(&mut self, who: Who) -> bool {
        match who {
            Who::Submitter => self.submit(),
            Who::Handler => self.handle(),
        }
    }

    fn submit(&mut self) -> bool {
        if self.undecided {
            self.undecided = false;
            if self.driver.decide_kick() {
                self.kicked = true;
                self.kicks += 1;
            }
            return true;
        }
        self.add()
    }

    fn add(&mut self) -> bool {
        let added = self.driver.add(&[readable(BUFFERS, 1)]).is_some();
        self.undecided |= added;
        self.added += u32::from(added);
        added
    }

    fn handle(&mut self) -> bool {
        self.handling = match self.handling {
            Handling::Asleep if std::mem::take(&mut self.interrupted) => Handling::Refusing,
            Handling::Asleep => return false,
            Handling::Refusing => {
                self.driver.refuse_interrupts();
                Handling::Taking
            }
            Handling::Taking => {
                self.taken += self.driver.take_all().len() as u32;
                Handling::Asking
            }
            Handling::Asking => {
                self.driver.ask_for_interrupt();
                Handling::Looking
            }
            Handling::Looking if self.driver.has_used() => Handling::Refusing,
            Handling::Looking => Handling::Asleep,
        };
        true
    }

    /// Whether the driver's wish lies among the entries from `old` to `new`, by trying each.
    fn wants(&self, old: u16, new: u16, event_index: bool) -> bool {
        if !event_index {
            return self.driver.peek(self.driver.place.available) & 1 == 0;
        }
        let wish = self.driver.peek(self.driver.used_event_address());
        let count = new.wrapping_sub(old);
        (0..count).any(|i| old.wrapping_add(i) == wish)
    }
}

/// Sees the device's writes.
struct Witness {
    guest: Arc<Mutex<Guest>>,
    event_index: bool,
}

impl DirtyLog for Witness {
    fn mark(&self, address: u64, _: u64) {
        let mut guest = self.guest.lock().unwrap();
        for who in guest.script.pop_front().unwrap_or_default() {
            guest.step(who);
        }
        if address == guest.driver.place.used + 2 {
            // The device looks at the wish next.
            let new = guest.driver.used_index();
            let old = std::mem::replace(&mut guest.published, new);
            guest.wanted += u32::from(guest.wants(old, new, self.event_index));
        }
    }
}

/// The device's thread and its guest.
struct Model<W> {
    runner: Runner<W>,
    guest: Arc<Mutex<Guest>>,
    busy: bool,
    wakes: u32,
}

impl<W: Worker> Model<W> {
    fn new(worker: W, size: u16, from: u16, features: u64, script: Vec<Vec<Who>>) -> Self {
        let map = guest::map();
        let driver = Driver::from(&map, Place::of_queue(0, size), features, from);
        let place = driver.place;
        let guest = Arc::new(Mutex::new(Guest {
            driver,
            script: script.into(),
            added: 0,
            taken: 0,
            undecided: false,
            kicked: false,
            kicks: 0,
            // A driver looks, and asks for interrupts, once it is set up.
            handling: Handling::Asking,
            interrupted: false,
            published: from,
            wanted: 0,
            notified: 0,
        }));
        let witness = Witness {
            guest: Arc::clone(&guest),
            event_index: features & EVENT_IDX != 0,
        };
        let memory = Arc::new(Memory::with_log(map, Some(Arc::new(witness))));
        let interrupted = Arc::clone(&guest);
        let start = Start {
            index: QueueIndex(0),
            layout: place.layout(&memory),
            next_available: from,
            features,
            notifier: Box::new(move || {
                let mut guest = interrupted.lock().unwrap();
                guest.notified += 1;
                guest.interrupted = true;
            }),
            meter: Arc::default(),
        };
        let mut runner = Runner::new(worker, 1, memory, Poll::off());
        runner.start(start).unwrap();
        let busy = runner.settle(&mut NoReactor);
        Self {
            runner,
            guest,
            busy,
            wakes: 0,
        }
    }

    /// One turn of the device's event loop. False if it sleeps.
    fn turn(&mut self) -> bool {
        let kicked = std::mem::take(&mut self.guest.lock().unwrap().kicked);
        if !kicked && !self.busy {
            return false;
        }
        self.wakes += 1;
        if kicked {
            self.runner.kick(QueueIndex(0), &mut NoReactor);
        }
        self.busy = self.runner.settle(&mut NoReactor);
        let guest = self.guest.lock().unwrap();
        assert_eq!(guest.notified, guest.wanted, "interrupts sent and wanted");
        true
    }

    /// Goes on until all sleep. Nothing is added any more.
    fn settle(&mut self) {
        loop {
            let mut guest = self.guest.lock().unwrap();
            guest.script.clear();
            let decided = guest.undecided && guest.submit();
            let handled = guest.handle();
            drop(guest);
            if !self.turn() && !decided && !handled {
                return;
            }
        }
    }
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![Just(Who::Submitter), Just(Who::Handler)]
}

/// `None`: the device's turn.
fn schedule() -> impl Strategy<Value = Vec<Option<Who>>> {
    prop::collection::vec(prop::option::weighted(0.7, who()), 0..120)
}

fn script() -> impl Strategy<Value = Vec<Vec<Who>>> {
    let steps = prop_oneof![2 => Just(Vec::new()), 3 => prop::collection::vec(who(), 1..8)];
    prop::collection::vec(steps, 0..60)
}

fn run(size: u16, from: u16, features: u64, schedule: Vec<Option<Who>>, script: Vec<Vec<Who>>) {
    let answer = Answer(|_: QueueIndex, _: &mut Request<'_>| Ok(()));
    let mut model = Model::new(Serve(answer), size, from, features, script);
    for turn in schedule {
        match turn {
            None => model.turn(),
            Some(who) => model.guest.lock().unwrap().step(who),
        };
    }
    model.settle();
    let guest = model.guest.lock().unwrap();
    assert_eq!(guest.taken, guest.added, "requests that nobody woke up for");
    assert_eq!(guest.driver.free(), usize::from(size));
    assert_eq!(guest.handling, Handling::Asleep);
}

/// Indices from which the rings wrap around at once, and from which they do not.
fn from() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), 0xffe0..=0xffffu16, 0x7ff0..0x8008u16, any::<u16>()]
}

proptest! {
    #![proptest_config(common::cases(2000))]

    #[test]
    fn no_wake_up_is_lost_or_unwanted_in_any_interleaving(
        size in prop::sample::select(vec![1u16, 2, 64, 256, 1024]),
        from in from(),
        features in prop::sample::select(vec![0, EVENT_IDX]),
        schedule in schedule(),
        script in script(),
    ) {
        run(size, from, features, schedule, script);
    }
}

#[test]
fn indices_wrap_around_without_a_lost_request() {
    for (size, from) in [
        (1u16, 0xfff0),
        (2, 0xfff0),
        (64, 0),
        (256, 0xfc00),
        (1024, 0xf000),
    ] {
        for features in [0, EVENT_IDX] {
            let answer = Answer(|_: QueueIndex, _: &mut Request<'_>| Ok(()));
            let mut model = Model::new(Serve(answer), size, from, features, Vec::new());
            let mut rounds = 0u32;
            // Once around and a little more, in steps that do not divide it.
            let goal = 0x1_0000 - u32::from(from) + 2 * u32::from(size) + 7;
            while model.guest.lock().unwrap().added < goal {
                let mut guest = model.guest.lock().unwrap();
                for _ in 0..=rounds % 300 {
                    guest.add();
                }
                drop(guest);
                rounds += 1;
                model.settle();
                let guest = model.guest.lock().unwrap();
                assert_eq!(
                    guest.taken, guest.added,
                    "size {size}, features {features:#x}"
                );
            }
            let guest = model.guest.lock().unwrap();
            assert_eq!((guest.kicks, guest.notified), (rounds, rounds));
            assert_eq!(model.wakes, rounds);
        }
    }
}
