//! The log of writes, for live migration: exactly what was written is marked, before the driver can see it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use vhost_device_core::embed::NoReactor;
use vhost_device_core::{
    DirtyLog, GuestFault, Io, Memory, Poll, QueueIndex, Request, Runner, Serve, Worker,
};
use vm_memory::Bytes;

use crate::common::driver::{Driver, EVENT_IDX, INDIRECT_DESC, Piece, Place, readable, writable};
use crate::common::guest::{self, BORDER, BUFFERS, HIGH, HOLE};
use crate::common::rig::{Answer, OnKick};

#[derive(Default)]
struct Marks(Mutex<Vec<(u64, u64)>>);

impl DirtyLog for Marks {
    fn mark(&self, address: u64, len: u64) {
        assert!(len > 0, "nothing was written at {address:#x}");
        self.0.lock().unwrap().push((address, len));
    }
}

impl Marks {
    /// Every byte marked since the last call.
    fn take(&self) -> BTreeSet<u64> {
        let marks = std::mem::take(&mut *self.0.lock().unwrap());
        bytes(marks.iter().map(range))
    }
}

/// Address and length as a range.
fn range((address, length): &(u64, u64)) -> Range<u64> {
    *address..address + length
}

fn bytes(ranges: impl IntoIterator<Item = Range<u64>>) -> BTreeSet<u64> {
    ranges.into_iter().flatten().collect()
}

/// One queue with a log.
struct Desk<W> {
    runner: Runner<W>,
    driver: Driver,
    memory: Arc<Memory>,
    marks: Arc<Marks>,
}

impl<W: Worker> Desk<W> {
    fn new(worker: W, features: u64) -> Self {
        let map = guest::map();
        let marks = Arc::new(Marks::default());
        let memory = Arc::new(Memory::with_log(map, Some(marks.clone())));
        let driver = Driver::new(memory.map(), Place::of_queue(0, 16), features);
        let mut runner = Runner::new(worker, 1, Arc::clone(&memory), Poll::off());
        let start = driver.start(0, &memory, || {});
        runner.start(start).unwrap();
        assert!(!runner.settle(&mut NoReactor));
        let mut desk = Self {
            runner,
            driver,
            memory,
            marks,
        };
        // The first wish for kicks.
        assert_eq!(desk.marks.take(), desk.wish());
        desk.poison();
        desk
    }

    /// Makes every byte that the device may write change when it does.
    fn poison(&mut self) {
        for (at, length) in [(BUFFERS, 0x1000), (BORDER - 0x800, 0x1000), (HIGH, 0x1000)] {
            guest::write(self.memory.map(), at, &vec![0xee; length]);
        }
    }

    /// Where the device asks for kicks, or for none.
    fn wish(&self) -> BTreeSet<u64> {
        let event_index = self.driver.features() & EVENT_IDX != 0;
        let at = if event_index {
            self.driver.avail_event_address()
        } else {
            self.driver.place.used
        };
        bytes([range(&(at, 2))])
    }

    /// Offers chains, lets the device work, and checks its marks: the buffers given, the used ring, and nothing else.
    fn check(&mut self, chains: &[&[Piece]], written: &[(u64, u64)]) {
        let first = u64::from(self.driver.used_index());
        for chain in chains {
            self.driver.add(chain).unwrap();
        }
        let before = guest::image(self.memory.map());
        self.runner.kick(QueueIndex(0), &mut NoReactor);
        assert!(!self.runner.settle(&mut NoReactor));
        let changed = guest::changes(&before, &guest::image(self.memory.map()));
        let used = self.driver.place.used;
        let count = chains.len() as u64;
        let elements = (first..first + count).map(|i| range(&(used + 4 + 8 * (i % 16), 8)));
        let mut expected = bytes(elements.chain(written.iter().map(range)));
        if count > 0 {
            expected.extend(bytes([range(&(used + 2, 2))]));
            expected.extend(self.wish());
        }
        let marked = self.marks.take();
        assert_eq!(marked, expected);
        let unmarked: Vec<_> = changed.iter().filter(|at| !marked.contains(at)).collect();
        assert!(unmarked.is_empty(), "written, not marked: {unmarked:#x?}");
        assert_eq!(self.driver.take_all().len(), chains.len());
    }
}

const FEATURES: [u64; 2] = [INDIRECT_DESC, INDIRECT_DESC | EVENT_IDX];

#[test]
fn each_way_to_write_marks_what_it_writes() {
    for features in FEATURES {
        let answer = Answer(|_: QueueIndex, request: &mut Request<'_>| {
            match request.read::<u8>()? {
                0 => request.write_slice(b"abc")?,
                1 => request.write(&[1u8; 5])?,
                2 => {
                    let step = |piece: &vm_memory::VolatileSlice<'_>| {
                        piece.write_slice(b"fill", 0).unwrap();
                        Ok(4)
                    };
                    assert_eq!(request.fill_from(8, step).unwrap(), 4);
                }
                3 => {
                    for piece in request.writable_pieces() {
                        piece.write_obj(0x77u8, 0).unwrap();
                    }
                    request.advance_written(1);
                }
                4 => {
                    request.reserve_tail(2)?;
                    request.write(&[9u8])?;
                    request.write_tail(b"ok")?;
                }
                5 => assert_eq!(request.fill_from(8, |_| Ok(0)).unwrap(), 0),
                6 => {
                    request.write(&[1u8; 3])?;
                    return Err(GuestFault::Invalid);
                }
                _ => {}
            }
            Ok(())
        });
        let mut desk = Desk::new(Serve(answer), features);
        let at = BUFFERS + 0x100;
        let table: [&[(u64, u64)]; 8] = [
            &[(at, 3)],
            &[(at, 5)],
            &[(at, 4)],
            &[(at, 1)],
            &[(at, 1), (at + 6, 2)],
            &[],
            // Refused, but written all the same.
            &[(at, 3)],
            &[],
        ];
        for (kind, written) in (0u8..).zip(table) {
            desk.poison();
            guest::write(desk.memory.map(), BUFFERS, &[kind]);
            desk.check(&[&[readable(BUFFERS, 1), writable(at, 8)]], written);
        }
        desk.check(&[], &[]);
    }
}

#[test]
fn answers_in_several_regions_are_marked_where_they_lie() {
    for features in FEATURES {
        let answer = Answer(|_: QueueIndex, request: &mut Request<'_>| {
            let room = request.writable() as usize;
            request.write_slice(&vec![0x11; room])
        });
        let mut desk = Desk::new(Serve(answer), features);
        let pieces = [
            writable(HIGH + 0x80, 0x100),
            writable(0xdead_0000_0000, 0),
            writable(BORDER - 0x10, 0x30),
            writable(BUFFERS + 0xfff, 1),
        ];
        let written = pieces
            .iter()
            .map(|piece| (piece.address, u64::from(piece.length)));
        let written: Vec<_> = written.collect();
        desk.check(&[&pieces], &written);
        // A chain that is refused: only the used ring.
        desk.check(&[&[writable(HOLE, 1)]], &[]);
        let chains: [&[Piece]; 3] = [&pieces[..1], &[readable(BUFFERS, 1)], &pieces[2..]];
        desk.check(&chains, &written);
    }
}

#[test]
fn a_detached_request_marks_what_is_written_later() {
    let mut open = None;
    let worker = OnKick(move |queue: QueueIndex, io: &mut Io<'_>| {
        let mut batch = io.queue(queue);
        while let Some(request) = batch.next() {
            open = Some(request.detach());
        }
        if let Some((ticket, mut segments)) = open.take() {
            segments.write(b"later").unwrap();
            batch.complete(ticket, segments.written());
        }
    });
    let mut desk = Desk::new(worker, EVENT_IDX);
    let at = BUFFERS;
    desk.check(&[&[writable(at, 8)]], &[(at, 5)]);
}

#[test]
fn what_the_driver_can_see_is_marked_already() {
    struct Witness(Mutex<Option<(Driver, Vec<u64>)>>);
    impl DirtyLog for Witness {
        fn mark(&self, address: u64, _: u64) {
            let mut inner = self.0.lock().unwrap();
            if let Some((driver, marked)) = inner.as_mut() {
                marked.push(address);
                // The used index is marked last, right behind its store: all else must have been marked by then.
                if driver.has_used() {
                    assert_eq!(address, driver.place.used + 2);
                    assert!(marked.contains(&BUFFERS), "the answer");
                    assert!(
                        marked.contains(&(driver.place.used + 4)),
                        "the used element"
                    );
                    *inner = None;
                }
            }
        }
    }
    let witness = Arc::new(Witness(Mutex::default()));
    let memory = Arc::new(Memory::with_log(guest::map(), Some(witness.clone())));
    let mut driver = Driver::new(memory.map(), Place::of_queue(0, 16), EVENT_IDX);
    let mut ring = driver.ring(&memory, 1, || {});
    driver.add(&[writable(BUFFERS, 4)]).unwrap();
    *witness.0.lock().unwrap() = Some((driver, Vec::new()));
    let mut queue = ring.queue(&memory);
    queue.next().unwrap().write(b"data").unwrap();
    drop(queue);
    assert!(
        witness.0.lock().unwrap().is_none(),
        "the index was never marked"
    );
}
