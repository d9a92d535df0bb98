//! One request in any framing, and a device that reads and writes it in any way, beside the same as flat bytes.

use std::ops::Range;
use std::sync::Arc;

use vhost_device_core::{GuestFault, Memory, Request, Ring};
use vm_memory::{Bytes, GuestMemoryMmap};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::driver::{Driver, INDIRECT_DESC, Piece, Place, Used, readable, writable};
use super::guest::{self, BORDER, BUFFERS, HIGH, HIGH_BORDER};

/// An indirect table within one region.
pub const TABLE: u64 = HIGH;
/// One that crosses into the next region in the middle of a descriptor.
pub const TABLE_ON_BORDER: u64 = HIGH_BORDER - 24;

/// Where one buffer of a request goes.
#[derive(Clone, Copy, Debug)]
pub enum Spot {
    Low,
    High,
    /// Across the border of two adjacent regions, if no other buffer is there.
    Border,
}

/// How the driver lays out a request.
#[derive(Clone, Debug)]
pub struct Framing {
    /// Lengths of the buffers, cut from the front; what is left is one buffer.
    pub readable: Vec<(u32, Spot)>,
    pub writable: Vec<(u32, Spot)>,
    /// Buffers that stand in the ring's own table before an indirect one; `None`: all of them, and there is no other.
    pub direct: Option<usize>,
    pub table: u64,
}

impl Framing {
    pub const UNSPLIT: Self = Self {
        readable: Vec::new(),
        writable: Vec::new(),
        direct: None,
        table: TABLE,
    };
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
pub struct Placed {
    pub input: Vec<(u64, u32)>,
    pub output: Vec<(u64, u32)>,
}

/// One queue whose device side is driven by hand.
pub struct Desk {
    pub map: GuestMemoryMmap,
    memory: Arc<Memory>,
    pub driver: Driver,
    ring: Ring,
}

impl Desk {
    pub fn new() -> Self {
        let map = guest::map();
        let memory = Arc::new(Memory::new(map.clone()));
        let driver = Driver::new(&map, Place::of_queue(0, 256), INDIRECT_DESC);
        let ring = driver.ring(&memory, 1, || {});
        Self {
            map,
            memory,
            driver,
            ring,
        }
    }

    pub fn submit(&mut self, payload: &[u8], room: u32, framing: &Framing) -> Placed {
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

    pub fn serve(&mut self, serve: impl FnOnce(&mut Request<'_>)) -> Used {
        let mut queue = self.ring.queue(&self.memory);
        let mut request = queue.next().expect("the request was refused");
        serve(&mut request);
        request.finish();
        assert!(queue.next().is_none());
        drop(queue);
        self.driver.take().unwrap()
    }

    /// The bytes of the device-writable buffers, in order.
    pub fn output(&self, placed: &Placed) -> Vec<u8> {
        let filled = placed.output.iter().filter(|(_, length)| *length > 0);
        filled
            .flat_map(|(address, length)| guest::read(&self.map, *address, *length as usize))
            .collect()
    }
}

/// One step of a device that reads a request or writes an answer.
#[derive(Clone, Copy, Debug)]
pub enum Step {
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

/// The same request as flat bytes: what any framing must be equal to.
struct Flat {
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
    room: usize,
    next: u8,
}

impl Flat {
    fn new(input: Vec<u8>, room: u32) -> Self {
        Self {
            input,
            read: 0,
            output: Vec::new(),
            room: room as usize,
            next: 1,
        }
    }

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

pub fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 256) as u8).collect()
}

/// All that a request of the sizes used here could touch, with room around it. The whole guest would take too long.
const NEIGHBOURHOOD: [(u64, u64); 4] = [
    (0, 0x2000),
    (BUFFERS, 0x8000),
    (BORDER - 0x1000, 0x2000),
    (HIGH + 0x8000, 0x8000),
];

/// Sends one request of `length` bytes with room for `room` to a device that takes `steps`, and compares all it reads, all
/// it writes and all that changes in guest memory with flat bytes.
pub fn check(framing: &Framing, length: usize, room: u32, steps: &[Step]) {
    let mut desk = Desk::new();
    let input = payload(length);
    let placed = desk.submit(&input, room, framing);
    let before = guest::image_of(&desk.map, NEIGHBOURHOOD);
    let mut flat = Flat::new(input, room);
    let used = desk.serve(|request| {
        for step in steps {
            flat.step(*step, request);
        }
    });
    assert_eq!(used.length as usize, flat.output.len());
    assert_eq!(desk.output(&placed)[..flat.output.len()], flat.output[..]);
    // Nothing is written but the answer and the used ring.
    let answer = written_ranges(&placed, used.length);
    let ring = desk.driver.place.used..desk.driver.avail_event_address() + 2;
    let after = guest::image_of(&desk.map, NEIGHBOURHOOD);
    for address in guest::changes(&before, &after) {
        let in_answer = answer.iter().any(|range| range.contains(&address));
        assert!(
            in_answer || ring.contains(&address),
            "{address:#x} was written"
        );
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
