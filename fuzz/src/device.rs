//! A whole device behind arbitrary rings and an arbitrary frontend.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vhost_device_core::{
    Device, Interest, Poll, QueueIndex, Reactor, Ready, Runner, Setup, Start, Timer, Token, Waker,
};

#[path = "../../vhost-device-core/tests/devices/echo.rs"]
pub mod echo;

use crate::arena::{Arena, Place, SIZE, contents};
use crate::common::driver::{EVENT_IDX, INDIRECT_DESC};
use crate::tape::Tape;

/// Each queue's ring has this much room, if it is small; buffers follow.
const QUEUE_ROOM: u64 = 0x400;

/// Runs one input against `device`, which keeps no state between connections.
pub fn run<D: Device>(device: &Arc<D>, data: &[u8]) {
    let mut tape = Tape::new(data);
    let flags = tape.u8();
    let features =
        [0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC][usize::from(flags >> 6)];
    let steps: Vec<[u8; 6]> = (0..tape.u8() % 64)
        .map(|_| [(); 6].map(|()| tape.u8()))
        .collect();
    let queues = device.queues().len();
    let places = (0..queues)
        .map(|queue| Place::read(&mut tape, QUEUE_ROOM * queue as u64))
        .collect();
    let arena = Arena::new(&contents(tape.rest()));
    let mut frontend = Frontend::new(device, arena, places, features);
    for [kind, queue, a, b, c, d] in steps {
        let (first, second) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let queue = usize::from(queue) % (queues + 1);
        frontend.step(kind, queue, first, second);
    }
    frontend.end();
    device.reset();
    assert_takes_requests(device);
}

/// A frontend without a socket: the device's runner and all that it may ask for.
struct Frontend<'d, D: Device> {
    device: &'d Arc<D>,
    runner: Runner<D::Worker>,
    reactor: SimReactor,
    arena: Arena,
    places: Vec<Place>,
    features: u64,
}

impl<'d, D: Device> Frontend<'d, D> {
    fn new(device: &'d Arc<D>, arena: Arena, places: Vec<Place>, features: u64) -> Self {
        let mut reactor = SimReactor::default();
        let features = features | device.features();
        let worker = device
            .worker(0, &mut Setup::new(features, &mut reactor))
            .expect("the host is simulated");
        let memory = Arc::clone(&arena.memory);
        let runner = Runner::new(worker, places.len(), memory, Poll::off());
        let mut frontend = Self {
            device,
            runner,
            reactor,
            arena,
            places,
            features,
        };
        for queue in 0..frontend.places.len() {
            frontend.start(queue, 0);
        }
        frontend
    }

    fn step(&mut self, kind: u8, queue: usize, first: u16, second: u16) {
        let before = self.arena.contents();
        self.arena.take_marks();
        let index = QueueIndex(queue as u16);
        match kind % 16 {
            0..=3 => return self.offer(queue, first),
            4 | 5 => {
                let address = u64::from(kind & 1) << 16 | u64::from(first);
                return self.arena.poke(address, second);
            }
            6..=8 => self.runner.kick(index, &mut self.reactor),
            9 => self.fire(first),
            10 => drop(self.runner.stop(index, &mut self.reactor)),
            11 => self.restart(queue, first),
            12 => self.runner.set_memory(Arc::default()),
            13 => self.runner.set_memory(Arc::clone(&self.arena.memory)),
            14 => self.configure(first, second),
            _ => {}
        }
        // Bounded, however the rings look.
        for _ in 0..4 {
            if !self.runner.settle(&mut self.reactor) {
                break;
            }
        }
        self.assert_logged(&before);
    }

    fn offer(&self, queue: usize, head: u16) {
        if let Some(place) = self.places.get(queue) {
            place.offer(&self.arena, head % (place.size + 1));
        }
    }

    fn fire(&mut self, which: u16) {
        let tokens = self.reactor.tokens();
        if let Some(token) = tokens.get(usize::from(which) % tokens.len().max(1)) {
            let ready = Ready {
                readable: true,
                ..Ready::default()
            };
            self.runner.event(*token, ready, &mut self.reactor);
        }
    }

    fn restart(&mut self, queue: usize, next_available: u16) {
        self.runner
            .stop(QueueIndex(queue as u16), &mut self.reactor);
        self.start(queue, next_available);
    }

    fn start(&mut self, queue: usize, next_available: u16) {
        let Some(place) = self.places.get(queue) else {
            return;
        };
        let Ok(layout) = place.layout(&self.arena.memory) else {
            return;
        };
        let start = Start {
            index: QueueIndex(queue as u16),
            layout,
            next_available,
            features: self.features,
            notifier: Box::new(|| {}),
            meter: Arc::default(),
        };
        // Fails where the memory was taken away meanwhile.
        let _ = self.runner.start(start);
    }

    /// Reads or writes the configuration space, within its size as the trait asks.
    fn configure(&self, offset: u16, length: u16) {
        let size = self.device.config_size();
        let offset = u32::from(offset) % (size + 1);
        let length = u32::from(length & 0xff) % (size - offset + 1);
        let mut bytes = vec![0x5a; length as usize];
        self.device.read_config(offset, &mut bytes);
        let _ = self.device.write_config(offset, &bytes);
    }

    /// Whatever changed in guest memory must be in the log.
    fn assert_logged(&self, before: &[u8; SIZE]) {
        let after = self.arena.contents();
        let marks = self.arena.take_marks();
        let lines = before.chunks(64).zip(after.chunks(64)).enumerate();
        for (line, (old, new)) in lines.filter(|(_, (old, new))| old != new) {
            for at in (0..64).filter(|at| old[*at] != new[*at]) {
                let at = line * 64 + at;
                assert!(marks.contains(at), "byte {at:#x} was not logged");
            }
        }
    }

    fn end(mut self) {
        for queue in 0..self.places.len() {
            let index = QueueIndex(queue as u16);
            self.runner.stop(index, &mut self.reactor);
        }
        let before = self.arena.contents();
        for token in self.reactor.tokens() {
            self.runner
                .event(token, Ready::default(), &mut self.reactor);
        }
        assert!(
            before == self.arena.contents(),
            "guest memory was written after all queues stopped"
        );
    }
}

/// A driver that makes no mistake gets its request back from each queue.
fn assert_takes_requests<D: Device>(device: &Arc<D>) {
    let queues = device.queues().len();
    let mut image = vec![0; 0x400];
    // Head 0: one byte to read, then one to write.
    for (at, flags, next) in [(0, 1, 1), (16, 2, 0)] {
        image[at..at + 16]
            .copy_from_slice(&[0, 4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, flags, 0, next, 0]);
    }
    let place = Place::compact(16, 0);
    for queue in 0..queues {
        let arena = Arena::new(&contents(&image));
        let mut frontend = Frontend::new(device, arena, vec![place; queues], 0);
        frontend.offer(queue, 0);
        let index = QueueIndex(queue as u16);
        frontend.runner.kick(index, &mut frontend.reactor);
        while frontend.runner.settle(&mut frontend.reactor) {}
        let used = frontend.arena.peek(place.used + 2);
        assert_eq!(used, 1, "queue {queue} does not answer any more");
    }
}

/// A reactor whose events come from the input.
#[derive(Default)]
pub(crate) struct SimReactor {
    watched: BTreeSet<Token>,
    armed: Arc<Mutex<BTreeSet<Token>>>,
}

impl SimReactor {
    /// What may fire.
    pub fn tokens(&self) -> Vec<Token> {
        let armed = self.armed.lock().unwrap();
        self.watched.union(&armed).copied().collect()
    }
}

impl Reactor for SimReactor {
    fn watch(&mut self, _: BorrowedFd<'_>, _: Interest, token: Token) -> io::Result<()> {
        if self.watched.insert(token) {
            Ok(())
        } else {
            Err(io::ErrorKind::AlreadyExists.into())
        }
    }

    fn interest(&mut self, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn unwatch(&mut self, token: Token) {
        self.watched.remove(&token);
    }

    fn timer(&mut self, token: Token) -> io::Result<Box<dyn Timer>> {
        Ok(Box::new(SimTimer {
            token,
            armed: Arc::clone(&self.armed),
        }))
    }

    fn waker(&mut self, token: Token) -> io::Result<Waker> {
        let armed = Arc::clone(&self.armed);
        Ok(Waker::new(move || {
            armed.lock().unwrap().insert(token);
        }))
    }

    fn config_changed(&mut self) {}
}

struct SimTimer {
    token: Token,
    armed: Arc<Mutex<BTreeSet<Token>>>,
}

impl Timer for SimTimer {
    fn arm(&mut self, _: Duration) {
        self.armed.lock().unwrap().insert(self.token);
    }

    fn disarm(&mut self) {
        self.armed.lock().unwrap().remove(&self.token);
    }
}
