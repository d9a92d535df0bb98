//! How a request is split over descriptors is the driver's choice and changes nothing (section 2.7.4).

use std::io;
use std::ops::Range;

use proptest::prelude::*;
use vhost_device_core::{GuestFault, MAX_CHAIN_LENGTH, Request, Ring};
use vm_memory::{Bytes, GuestMemoryMmap};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::common;
use crate::common::driver::{Driver, INDIRECT_DESC, Piece, Place, Used, readable, writable};
use crate::common::guest::{self, BORDER, BUFFERS, HIGH, HIGH_BORDER};

/// An indirect table within one region.
const TABLE: u64 = HIGH;
/// One that crosses into the next region in the middle of a descriptor.
const TABLE_ON_BORDER: u64 = HIGH_BORDER - 24;

/// Where one buffer of a request goes.
#[derive(Clone, Copy, Debug)]
enum Spot {
    Low,
    High,
    /// Across the border of two adjacent regions, if no other buffer is there.
    Border,
}

/// How the driver lays out a request.
#[derive(Clone, Debug)]
struct Framing {
    /// Lengths of the buffers, cut from the front; what is left is one buffer.
    readable: Vec<(u32, Spot)>,
    writable: Vec<(u32, Spot)>,
    /// Buffers that stand in the ring's own table before an indirect one; `None`: all of them, and there is no other.
    direct: Option<usize>,
    table: u64,
}

impl Framing {
    const UNSPLIT: Self = Self {
        readable: Vec::new(),
        writable: Vec::new(),
        direct: None,
        table: TABLE,
    };
}

fn cuts() -> impl Strategy<Value = Vec<(u32, Spot)>> {
    let spot = prop_oneof![Just(Spot::Low), Just(Spot::High), Just(Spot::Border)];
    let length = prop_oneof![3 => 1..40u32, 1 => Just(0), 1 => 40..600u32];
    prop::collection::vec((length, spot), 0..12)
}

prop_compose! {
    fn framing()(
        readable in cuts(),
        writable in cuts(),
        direct in prop::option::of(0..24usize),
        table in prop_oneof![Just(TABLE), Just(TABLE_ON_BORDER)],
    ) -> Framing {
        Framing { readable, writable, direct, table }
    }
}

/// Places buffers so that they do not overlap.
struct Places {
    low: u64,
    high: u64,
    border_is_free: bool,
}

impl Places {
    fn new() -> Self {
        Self {
            low: BUFFERS,
            high: HIGH + 0x8000,
            border_is_free: true,
        }
    }

    fn put(&mut self, length: u32, spot: Spot) -> u64 {
        let length = u64::from(length);
        let next = match spot {
            // Nobody looks where an empty buffer points.
            _ if length == 0 => return 0xdead_0000_0000,
            Spot::Border if std::mem::take(&mut self.border_is_free) => {
                return BORDER - length.div_ceil(2);
            }
            Spot::Low | Spot::Border => &mut self.low,
            Spot::High => &mut self.high,
        };
        let address = *next;
        // A gap behind each buffer, in which a byte too many would show.
        *next += length + 3;
        address
    }

    /// Buffers of `total` bytes in all, cut as wished.
    fn cut(&mut self, total: u32, cuts: &[(u32, Spot)]) -> Vec<(u64, u32)> {
        let mut left = total;
        let mut pieces = Vec::new();
        for (length, spot) in cuts {
            let length = (*length).min(left);
            pieces.push((self.put(length, *spot), length));
            left -= length;
        }
        if left > 0 || pieces.is_empty() {
            pieces.push((self.put(left, Spot::Low), left));
        }
        pieces
    }
}

/// A request in guest memory.
struct Placed {
    input: Vec<(u64, u32)>,
    output: Vec<(u64, u32)>,
}

/// One queue whose device side is driven by hand.
struct Desk {
    map: GuestMemoryMmap,
    memory: std::sync::Arc<vhost_device_core::Memory>,
    driver: Driver,
    ring: Ring,
}

impl Desk {
    fn new() -> Self {
        let map = guest::map();
        let memory = std::sync::Arc::new(vhost_device_core::Memory::new(map.clone()));
        let driver = Driver::new(&map, Place::of_queue(0, 256), INDIRECT_DESC);
        let ring = driver.ring(&memory, 1, || {});
        Self {
            map,
            memory,
            driver,
            ring,
        }
    }

    fn submit(&mut self, payload: &[u8], room: u32, framing: &Framing) -> Placed {
        let mut places = Places::new();
        let placed = Placed {
            input: places.cut(payload.len() as u32, &framing.readable),
            output: places.cut(room, &framing.writable),
        };
        let mut at = 0;
        for (address, length) in &placed.input {
            let bytes = &payload[at..at + *length as usize];
            if !bytes.is_empty() {
                guest::write(&self.map, *address, bytes);
            }
            at += bytes.len();
        }
        let pieces: Vec<Piece> = (placed.input.iter().map(|(a, l)| readable(*a, *l)))
            .chain(placed.output.iter().map(|(a, l)| writable(*a, *l)))
            .collect();
        let head = match framing.direct {
            None => self.driver.chain(&pieces),
            Some(direct) => {
                // An indirect table has at least one entry.
                let (direct, indirect) = pieces.split_at(direct.min(pieces.len() - 1));
                self.driver
                    .chain_with_indirect(direct, indirect, framing.table)
            }
        };
        self.driver.offer(head.unwrap());
        placed
    }

    fn serve(&mut self, serve: impl FnOnce(&mut Request<'_>)) -> Used {
        let mut queue = self.ring.queue(&self.memory);
        let mut request = queue.next().expect("the request was refused");
        serve(&mut request);
        request.finish();
        assert!(queue.next().is_none());
        drop(queue);
        self.driver.take().unwrap()
    }

    /// The bytes of the device-writable buffers, in order.
    fn output(&self, placed: &Placed) -> Vec<u8> {
        let filled = placed.output.iter().filter(|(_, length)| *length > 0);
        filled
            .flat_map(|(address, length)| guest::read(&self.map, *address, *length as usize))
            .collect()
    }
}

/// One step of a device that reads a request or writes an answer.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(usize),
    ReadWord,
    /// Offer up to so many bytes to a sink that takes less and less.
    Drain(u64, usize),
    Write(usize),
    Fill(u64, usize),
    /// Count bytes that something else moved.
    Skip(u64),
    Scatter(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..70usize).prop_map(Step::Read),
        Just(Step::ReadWord),
        (0..200u64, 0..100usize).prop_map(|(limit, take)| Step::Drain(limit, take)),
        (0..70usize).prop_map(Step::Write),
        (0..200u64, 0..100usize).prop_map(|(limit, give)| Step::Fill(limit, give)),
        (0..50u64).prop_map(Step::Skip),
        (0..50u64).prop_map(Step::Scatter),
    ]
}

/// The same request as flat bytes: what any framing must be equal to.
struct Flat {
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
    room: usize,
    next: u8,
}

impl Flat {
    fn fresh(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| {
                self.next = self.next.wrapping_mul(5).wrapping_add(71);
                self.next
            })
            .collect()
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let bytes = self.input[self.read..self.read + length].to_vec();
        self.read += length;
        bytes
    }

    fn step(&mut self, step: Step, request: &mut Request<'_>) {
        let left = self.input.len() - self.read;
        let room = self.room - self.output.len();
        match step {
            Step::Read(length) => {
                let mut bytes = vec![0; length];
                let result = request.read_slice(&mut bytes);
                if length > left {
                    assert_eq!(result, Err(GuestFault::ShortRequest));
                } else {
                    assert_eq!(result, Ok(()));
                    assert_eq!(bytes, self.take(length));
                }
            }
            Step::ReadWord => match request.read::<U32>() {
                Ok(word) => assert_eq!(word.as_bytes(), self.take(4)),
                Err(fault) => assert!(fault == GuestFault::ShortRequest && left < 4),
            },
            Step::Drain(limit, take) => {
                let mut taken = Vec::new();
                let count = request.drain_to(limit, |piece| {
                    let length = piece.len().min(take.saturating_sub(taken.len()));
                    let mut bytes = vec![0; length];
                    piece.read_slice(&mut bytes, 0).unwrap();
                    taken.extend(bytes);
                    Ok(length)
                });
                assert_eq!(count.unwrap(), taken.len() as u64);
                assert_eq!(taken.len(), left.min(limit as usize).min(take));
                assert_eq!(taken, self.take(taken.len()));
            }
            Step::Skip(bytes) => {
                let offered: usize = request.readable_pieces().map(|piece| piece.len()).sum();
                assert_eq!(offered, left);
                request.advance_read(bytes);
                self.read += left.min(bytes as usize);
            }
            Step::Write(length) => {
                let bytes = self.fresh(length);
                let result = request.write_slice(&bytes);
                if length > room {
                    assert_eq!(result, Err(GuestFault::ShortAnswer));
                } else {
                    assert_eq!(result, Ok(()));
                    self.output.extend(bytes);
                }
            }
            Step::Fill(limit, give) => {
                let bytes = self.fresh(give.min(limit as usize).min(room));
                let mut rest = bytes.as_slice();
                let count = request.fill_from(limit, |piece| {
                    let (now, later) = rest.split_at(piece.len().min(rest.len()));
                    piece.write_slice(now, 0).unwrap();
                    rest = later;
                    Ok(now.len())
                });
                assert_eq!(count.unwrap(), bytes.len() as u64);
                self.output.extend(bytes);
            }
            Step::Scatter(wanted) => {
                let bytes = self.fresh(room.min(wanted as usize));
                let mut rest = bytes.as_slice();
                let mut offered = 0;
                for piece in request.writable_pieces() {
                    let (now, later) = rest.split_at(piece.len().min(rest.len()));
                    piece.write_slice(now, 0).unwrap();
                    rest = later;
                    offered += piece.len();
                }
                assert_eq!(offered, room);
                request.advance_written(bytes.len() as u64);
                self.output.extend(bytes);
            }
        }
        assert_eq!(request.readable(), (self.input.len() - self.read) as u64);
        assert_eq!(request.writable(), (self.room - self.output.len()) as u64);
        assert_eq!(request.written(), self.output.len() as u32);
    }
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 256) as u8).collect()
}

proptest! {
    #![proptest_config(common::cases(1000))]

    #[test]
    fn any_framing_and_any_way_to_read_and_write_move_the_same_bytes(
        framing in framing(),
        length in 0..700usize,
        room in 0..700u32,
        steps in prop::collection::vec(step(), 0..20),
    ) {
        let mut desk = Desk::new();
        let input = payload(length);
        let placed = desk.submit(&input, room, &framing);
        let before = guest::image(&desk.map);
        let mut flat = Flat { input, read: 0, output: Vec::new(), room: room as usize, next: 1 };
        let used = desk.serve(|request| {
            for step in &steps {
                flat.step(*step, request);
            }
        });
        prop_assert_eq!(used.length as usize, flat.output.len());
        prop_assert_eq!(&desk.output(&placed)[..flat.output.len()], &flat.output[..]);
        // Nothing is written but the answer and the used ring.
        let written = written_ranges(&placed, used.length);
        for address in guest::changes(&before, &guest::image(&desk.map)) {
            let place = &desk.driver.place;
            let in_used_ring = (place.used..desk.driver.avail_event_address() + 2).contains(&address);
            let in_answer = written.iter().any(|range| range.contains(&address));
            prop_assert!(in_used_ring || in_answer, "{address:#x} was written");
        }
    }

    #[test]
    fn a_reserved_tail_is_at_the_very_end_however_it_is_split(
        framing in framing(),
        room in 0..300u32,
        tail in 0..20usize,
        data in 0..300usize,
    ) {
        let mut desk = Desk::new();
        let placed = desk.submit(&[], room, &framing);
        let room = room as usize;
        let status: Vec<u8> = (1..=tail as u8).collect();
        let data = payload(data);
        let mut fits = false;
        let used = desk.serve(|request| {
            let reserved = request.reserve_tail(tail as u64);
            assert_eq!(reserved.is_ok(), tail <= room);
            if reserved.is_err() {
                assert_eq!(request.writable(), room as u64);
                return;
            }
            assert_eq!(request.writable(), (room - tail) as u64);
            fits = request.write_slice(&data).is_ok();
            assert_eq!(fits, data.len() <= room - tail);
            // What is reserved cannot be reached by other ways.
            let moved = request.fill_from(u64::MAX, |_| Ok(0)).unwrap();
            assert_eq!(moved, 0);
            assert_eq!(request.write_tail(&vec![0; tail + 1]), Err(GuestFault::ShortAnswer));
            assert_eq!(request.write_tail(&status), Ok(()));
        });
        let output = desk.output(&placed);
        if tail > room {
            prop_assert_eq!(used.length, 0);
        } else {
            let prefix = if fits { data.len() } else { 0 };
            prop_assert_eq!(&output[..prefix], &data[..prefix]);
            prop_assert_eq!(&output[room - tail..], &status[..]);
            prop_assert_eq!(used.length as usize, if tail > 0 { room } else { prefix });
        }
    }
}

fn written_ranges(placed: &Placed, length: u32) -> Vec<Range<u64>> {
    let mut left = length;
    let mut ranges = Vec::new();
    for (address, length) in &placed.output {
        let taken = (*length).min(left);
        ranges.push(*address..*address + u64::from(taken));
        left -= taken;
    }
    ranges
}

/// A header with fields of several sizes.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    kind: U32,
    flags: U16,
    queue: U16,
    sector: U64,
}

#[test]
fn a_header_and_an_answer_may_be_split_at_any_byte() {
    let header = Header {
        kind: 0x1122_3344.into(),
        flags: 0x5566.into(),
        queue: 0x7788.into(),
        sector: 0x99aa_bbcc_ddee_ff00.into(),
    };
    let length = size_of::<Header>() as u32;
    for direct in [None, Some(0), Some(1)] {
        for first in 0..=length {
            for second in 0..=length - first {
                let cuts = vec![(first, Spot::Low), (0, Spot::Low), (second, Spot::Border)];
                let framing = Framing {
                    readable: cuts.clone(),
                    writable: cuts,
                    direct,
                    table: TABLE,
                };
                let mut desk = Desk::new();
                let placed = desk.submit(header.as_bytes(), length, &framing);
                let used = desk.serve(|request| {
                    assert_eq!(request.read::<Header>().unwrap(), header);
                    request.write(&header).unwrap();
                });
                assert_eq!(used.length, length);
                assert_eq!(desk.output(&placed), header.as_bytes(), "{framing:?}");
            }
        }
    }
}

/// The bug: an indirect table of as many entries as allowed was refused, since its own descriptor was counted too.
#[test]
fn the_longest_chain_of_single_bytes_is_one_request() {
    let half = MAX_CHAIN_LENGTH / 2;
    let framing = Framing {
        readable: vec![(1, Spot::High); half],
        writable: vec![(1, Spot::Low); half],
        direct: Some(0),
        table: TABLE,
    };
    let mut desk = Desk::new();
    let input = payload(half);
    let placed = desk.submit(&input, half as u32, &framing);
    let used = desk.serve(|request| {
        let mut bytes = vec![0; half];
        request.read_slice(&mut bytes).unwrap();
        assert_eq!(bytes, input);
        request.write_slice(&bytes).unwrap();
    });
    assert_eq!(used.length as usize, half);
    assert_eq!(desk.output(&placed), input);
}

#[test]
fn a_value_too_long_for_what_is_left_consumes_nothing() {
    let mut desk = Desk::new();
    desk.submit(&[1, 2, 3], 3, &Framing::UNSPLIT);
    let used = desk.serve(|request| {
        assert_eq!(request.read::<U32>(), Err(GuestFault::ShortRequest));
        assert_eq!(request.read::<[u8; 3]>(), Ok([1, 2, 3]));
        assert_eq!(request.write(&U32::new(9)), Err(GuestFault::ShortAnswer));
        assert_eq!(request.written(), 0);
        request.write(&[9u8, 8, 7]).unwrap();
    });
    assert_eq!(used.length, 3);
}

/// The bug: a worker that saw WouldBlock behind the first bytes put the request back, and lost them.
#[test]
fn an_error_behind_the_first_bytes_ends_a_transfer_like_a_short_one() {
    let framing = Framing {
        readable: vec![(4, Spot::Low), (4, Spot::High)],
        writable: vec![(4, Spot::Low), (4, Spot::High)],
        ..Framing::UNSPLIT
    };
    let mut desk = Desk::new();
    let placed = desk.submit(b"abcdefgh", 8, &framing);
    let blocked = || io::Error::from(io::ErrorKind::WouldBlock);
    let used = desk.serve(|request| {
        let mut calls = 0;
        let mut once = |length| {
            calls += 1;
            if calls % 2 == 1 {
                Ok(length)
            } else {
                Err(blocked())
            }
        };
        assert_eq!(request.drain_to(8, |piece| once(piece.len())).unwrap(), 4);
        assert_eq!(request.readable(), 4);
        let filled = request.fill_from(8, |piece| {
            piece.write_slice(b"wxyz", 0).unwrap();
            once(4)
        });
        assert_eq!(filled.unwrap(), 4);
        let error = request.fill_from(8, |_| Err(blocked())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(request.written(), 4);
    });
    assert_eq!(used.length, 4);
    assert_eq!(&desk.output(&placed)[..4], b"wxyz");
}

#[test]
fn a_file_is_a_source_and_a_sink_by_itself() {
    let framing = Framing {
        readable: vec![(3, Spot::Border), (0, Spot::Low), (2, Spot::High)],
        writable: vec![(1, Spot::High), (4, Spot::Border)],
        ..Framing::UNSPLIT
    };
    let mut desk = Desk::new();
    let placed = desk.submit(b"to the host", 20, &framing);
    let used = desk.serve(|request| {
        let mut sink = Vec::new();
        assert_eq!(request.write_to(&mut sink, 6).unwrap(), 6);
        assert_eq!(request.write_to(&mut sink, u64::MAX).unwrap(), 5);
        assert_eq!(sink, b"to the host");
        let mut source = io::Cursor::new(b"from the host");
        assert_eq!(request.read_from(&mut source, 4).unwrap(), 4);
        assert_eq!(request.read_from(&mut source, u64::MAX).unwrap(), 9);
        assert_eq!(
            request.read_from(&mut source, u64::MAX).unwrap(),
            0,
            "its end"
        );
    });
    assert_eq!(used.length, 13);
    assert_eq!(&desk.output(&placed)[..13], b"from the host");
}
