//! A ring in arbitrary guest memory, driven in an arbitrary order, beside the model of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vhost_device_core::{GuestFault, Queue, QueueIndex, Request, Ring, Segments, Start, Ticket};

use crate::arena::{Arena, Place, Touched, contents};
use crate::common::driver::{EVENT_IDX, INDIRECT_DESC};
use crate::model::{Buffers, Model};
use crate::tape::Tape;

/// Requests that the device may keep, all runs together.
const MAX_OPEN: usize = 64;

/// A request that the device keeps.
struct Open {
    ticket: Ticket,
    segments: Segments,
    head: u16,
    buffers: Buffers,
    answer: Answer,
    run: u32,
}

/// What was written to a request.
#[derive(Clone, Copy)]
struct Answer {
    /// From the front.
    filled: u64,
    /// Set aside at the end.
    tail: u64,
    tail_written: bool,
}

impl Answer {
    fn used(&self, buffers: &Buffers) -> u32 {
        if self.tail_written && self.tail > 0 {
            buffers.room() as u32
        } else {
            self.filled as u32
        }
    }
}

/// The real ring and the model of it.
struct Pair {
    arena: Arena,
    ring: Ring,
    model: Model,
    place: Place,
    features: u64,
    interrupts: Arc<AtomicU64>,
    open: Vec<Open>,
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let place = Place::read(&mut tape, 0);
    let flags = tape.u8();
    let features = [0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC][usize::from(flags % 4)];
    let next_available = if flags & 0x80 == 0 { 0 } else { tape.u16() };
    let steps: Vec<[u8; 6]> = (0..tape.u8() % 64)
        .map(|_| [(); 6].map(|()| tape.u8()))
        .collect();
    let image = contents(tape.rest());
    let arena = Arena::new(&image);
    if let Some(mut pair) = Pair::new(arena, place, features, next_available) {
        for [kind, count, b, c, d, e] in steps {
            let (first, second) = (u16::from_le_bytes([b, c]), u16::from_le_bytes([d, e]));
            pair.step(kind, count, first, second);
            pair.compare();
        }
    }
}

fn start(
    arena: &Arena,
    place: Place,
    features: u64,
    next_available: u16,
    run: u32,
    interrupts: &Arc<AtomicU64>,
) -> Option<(Ring, Model)> {
    let interrupts = Arc::clone(interrupts);
    let start = Start {
        index: QueueIndex(0),
        layout: place.layout(&arena.memory).ok()?,
        next_available,
        features,
        notifier: Box::new(move || {
            interrupts.fetch_add(1, Ordering::Relaxed);
        }),
        meter: Arc::default(),
    };
    let ring = Ring::start(start, &arena.memory, run).expect("its layout was checked");
    let model = Model::new(
        arena.contents(),
        place,
        next_available,
        features & EVENT_IDX != 0,
        features & INDIRECT_DESC != 0,
        run,
    );
    Some((ring, model))
}

impl Pair {
    fn new(arena: Arena, place: Place, features: u64, next_available: u16) -> Option<Self> {
        let interrupts = Arc::new(AtomicU64::new(0));
        let (ring, model) = start(&arena, place, features, next_available, 0, &interrupts)?;
        Some(Self {
            arena,
            ring,
            model,
            place,
            features,
            interrupts,
            open: Vec::new(),
        })
    }

    fn step(&mut self, kind: u8, count: u8, first: u16, second: u16) {
        match kind % 8 {
            0..=2 => self.batch(count, first, second),
            3 => self.complete(count.into(), first),
            4 | 5 => self.offer(first),
            6 => self.poke(u64::from(count & 1) << 16 | u64::from(first), second),
            _ => self.restart(first),
        }
    }

    /// One batch: takes requests and ends each in one of the ways there are.
    fn batch(&mut self, count: u8, mut first: u16, second: u16) {
        let count = if count == u8::MAX { 5000 } else { count.into() };
        let mut queue = self.ring.queue(&self.arena.memory);
        if !self.model.open() {
            assert!(queue.next().is_none() && !queue.is_running());
            return;
        }
        for _ in 0..count {
            let expected = self.model.next();
            let request = queue.next();
            assert_eq!(
                request.is_some(),
                expected.is_some(),
                "{:?}",
                self.model.fault
            );
            let (Some(request), Some((head, buffers))) = (request, expected) else {
                break;
            };
            let opened = end(request, &mut self.model, head, buffers, first, second);
            self.open.extend(opened);
            first = first.rotate_left(3).wrapping_add(second);
        }
        while self.open.len() > MAX_OPEN {
            finish(
                &mut queue,
                &mut self.model,
                self.open.remove(0),
                second,
                true,
            );
        }
        drop(queue);
        self.model.publish();
    }

    /// Completes one of the requests kept, perhaps of an earlier run.
    fn complete(&mut self, which: usize, bytes: u16) {
        if self.open.is_empty() {
            return;
        }
        let open = self.open.swap_remove(which % self.open.len());
        let mut queue = self.ring.queue(&self.arena.memory);
        let running = self.model.open();
        finish(&mut queue, &mut self.model, open, bytes, running);
        drop(queue);
        if running {
            self.model.publish();
        }
    }

    fn offer(&mut self, head: u16) {
        let index = self.arena.peek(self.place.available + 2);
        let entry = self.place.available_entry(index);
        self.poke(entry, head % (self.place.size + 1));
        self.poke(self.place.available + 2, index.wrapping_add(1));
    }

    fn poke(&mut self, address: u64, value: u16) {
        self.arena.poke(address, value);
        self.model.poke(address, value);
    }

    fn restart(&mut self, next_available: u16) {
        let run = self.model.run + 1;
        let (place, features) = (self.place, self.features);
        self.interrupts.store(0, Ordering::Relaxed);
        let pair = start(
            &self.arena,
            place,
            features,
            next_available,
            run,
            &self.interrupts,
        );
        (self.ring, self.model) = pair.expect("it started before");
    }

    fn compare(&mut self) {
        let (ring, model) = (&self.ring, &mut self.model);
        assert_eq!(ring.next_available(), model.next_available);
        assert_eq!(ring.published(), model.published);
        assert_eq!(ring.in_flight(), model.in_flight);
        assert_eq!(ring.fault(), model.fault);
        assert_eq!(ring.counters(), model.counters);
        let interrupts = self.interrupts.load(Ordering::Relaxed);
        assert_eq!(interrupts, model.counters.notified);
        assert!(self.arena.contents() == model.bytes, "guest memory differs");
        let touched = std::mem::replace(&mut model.touched, Touched::none());
        assert!(self.arena.take_marks() == touched, "what is marked differs");
    }
}

/// Ends a request in one of the ways there are, after some reading and writing.
fn end(
    mut request: Request<'_>,
    model: &mut Model,
    head: u16,
    buffers: Buffers,
    choice: u16,
    bytes: u16,
) -> Option<Open> {
    assert_eq!(request.readable(), buffers.length());
    assert_eq!(request.writable(), buffers.room());
    let input = model.read(&buffers.readable);
    let mut seen = vec![0; input.len().min(choice.into())];
    request
        .read_slice(&mut seen)
        .expect("no more than there is");
    assert_eq!(seen, input[..seen.len()]);
    let answer = write(&mut request, model, &buffers, choice, bytes);
    match choice >> 12 & 7 {
        0 | 1 => {
            request.finish();
            model.used_after(seen.len() as u64, head, answer.used(&buffers));
        }
        2 => {
            drop(request);
            model.used_after(seen.len() as u64, head, answer.used(&buffers));
        }
        3 => {
            request.fail(GuestFault::Invalid);
            model.refuse(head);
        }
        4 => {
            request.put_back();
            model.put_back();
        }
        _ => {
            let (ticket, segments) = request.detach();
            return Some(Open {
                ticket,
                segments,
                head,
                buffers,
                answer,
                run: model.run,
            });
        }
    }
    None
}

/// Writes an answer, perhaps with a tail set aside.
fn write(
    request: &mut Request<'_>,
    model: &mut Model,
    buffers: &Buffers,
    choice: u16,
    bytes: u16,
) -> Answer {
    let room = buffers.room();
    let tail = u64::from(choice >> 9 & 7).min(room);
    request.reserve_tail(tail).expect("no more than there is");
    let filled = u64::from(bytes >> 4 & 0x3ff).min(room - tail);
    let data: Vec<u8> = (0..filled)
        .map(|i| (i as u8).wrapping_add(bytes as u8))
        .collect();
    request.write_slice(&data).expect("no more than there is");
    model.write(&buffers.writable, 0, &data);
    let tail_written = choice & 0x100 != 0;
    if tail_written {
        let status = vec![0xa5; tail as usize];
        request.write_tail(&status).expect("as long as reserved");
        model.write(&buffers.writable, room - tail, &status);
    }
    Answer {
        filled,
        tail,
        tail_written,
    }
}

/// Completes a request that was kept, with a little more than what was written before.
fn finish(queue: &mut Queue<'_>, model: &mut Model, open: Open, bytes: u16, running: bool) {
    let Open {
        ticket,
        mut segments,
        head,
        buffers,
        mut answer,
        run,
    } = open;
    let left = buffers.room() - answer.tail - answer.filled;
    assert_eq!(segments.writable(), left);
    let data = vec![bytes as u8; left.min(u64::from(bytes & 0xff)) as usize];
    segments.write_slice(&data).expect("no more than there is");
    model.write(&buffers.writable, answer.filled, &data);
    answer.filled += data.len() as u64;
    assert_eq!(segments.written(), answer.used(&buffers));
    queue.complete(ticket, segments.written());
    if running && run == model.run {
        model.used(head, answer.used(&buffers));
    }
    queue.recycle(segments);
}
