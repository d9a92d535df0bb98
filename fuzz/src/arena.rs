//! A guest small enough to be compared as a whole: two adjacent regions, a hole, and a third one.

use std::sync::{Arc, Mutex, OnceLock};

use vhost_device_core::{DirtyLog, Layout, LayoutFault, Memory};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::tape::Tape;

const FIRST: u64 = 0x1000;
/// Where the second region ends.
const HOLE: u64 = 0x2000;
/// Where the third region begins and ends.
const HIGH: u64 = 0x1_0000;
const END: u64 = 0x1_0800;

/// Bytes of guest memory.
pub const SIZE: usize = (HOLE + END - HIGH) as usize;

/// Where an address lies in flat memory, if `length` bytes from there on are mapped.
pub fn position(address: u64, length: usize) -> Option<usize> {
    let end = address.checked_add(length as u64)?;
    if end <= HOLE {
        Some(address as usize)
    } else if address >= HIGH && end <= END {
        Some((address - HIGH + HOLE) as usize)
    } else {
        None
    }
}

/// A set of bytes of guest memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Touched([u64; SIZE / 64]);

impl Touched {
    pub fn none() -> Self {
        Self([0; SIZE / 64])
    }

    pub fn add(&mut self, address: u64, length: usize) {
        let at = position(address, length).expect("a write outside of guest memory");
        for at in at..at + length {
            self.0[at / 64] |= 1 << (at % 64);
        }
    }

    pub fn contains(&self, position: usize) -> bool {
        self.0[position / 64] >> (position % 64) & 1 != 0
    }
}

/// What the device says it has written.
struct Marks(Mutex<Touched>);

impl DirtyLog for Marks {
    fn mark(&self, address: u64, length: u64) {
        assert!(length > 0, "a write of nothing at {address:#x}");
        self.0.lock().unwrap().add(address, length as usize);
    }
}

/// Guest memory with a log of writes.
pub struct Arena {
    pub memory: Arc<Memory>,
    marks: Arc<Marks>,
}

impl Arena {
    /// Memory with these contents. The mapping is the same one each time.
    pub fn new(contents: &[u8; SIZE]) -> Self {
        static MAP: OnceLock<GuestMemoryMmap> = OnceLock::new();
        let map = MAP.get_or_init(|| {
            let ranges = [(0, FIRST), (FIRST, HOLE - FIRST), (HIGH, END - HIGH)];
            let ranges = ranges.map(|(base, length)| (GuestAddress(base), length as usize));
            GuestMemoryMmap::from_ranges(&ranges).unwrap()
        });
        let (low, high) = contents.split_at(HOLE as usize);
        map.write_slice(low, GuestAddress(0)).unwrap();
        map.write_slice(high, GuestAddress(HIGH)).unwrap();
        let marks = Arc::new(Marks(Mutex::new(Touched::none())));
        let memory = Memory::with_log(map.clone(), Some(marks.clone()));
        Self {
            memory: Arc::new(memory),
            marks,
        }
    }

    pub fn contents(&self) -> Box<[u8; SIZE]> {
        let mut contents = Box::new([0; SIZE]);
        let (low, high) = contents.split_at_mut(HOLE as usize);
        let map = self.memory.map();
        map.read_slice(low, GuestAddress(0)).unwrap();
        map.read_slice(high, GuestAddress(HIGH)).unwrap();
        contents
    }

    /// Everything marked since the last call.
    pub fn take_marks(&self) -> Touched {
        std::mem::replace(&mut self.marks.0.lock().unwrap(), Touched::none())
    }

    /// The guest writes a word, if there is memory.
    pub fn poke(&self, address: u64, value: u16) {
        if position(address, 2).is_some() {
            let map = self.memory.map();
            map.write_obj(value.to_le(), GuestAddress(address)).unwrap();
        }
    }

    pub fn peek(&self, address: u64) -> u16 {
        let value = self.memory.map().read_obj(GuestAddress(address));
        u16::from_le(value.unwrap_or_default())
    }
}

/// Contents of guest memory: `image` from address 0 and again from the third region's beginning.
pub fn contents(image: &[u8]) -> Box<[u8; SIZE]> {
    let mut contents = Box::new([0; SIZE]);
    let (low, high) = contents.split_at_mut(HOLE as usize);
    for part in [low, high] {
        let length = image.len().min(part.len());
        part[..length].copy_from_slice(&image[..length]);
    }
    contents
}

/// Where a ring lies, as the driver says.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl Place {
    /// One part behind the other from `base` on, or each anywhere.
    pub fn read(tape: &mut Tape<'_>, base: u64) -> Self {
        // Up to 256: larger ones have no room here.
        let size = 1 << (tape.u8() % 9);
        if tape.u8() % 2 == 0 {
            Self::compact(size, base)
        } else {
            Self {
                size,
                descriptors: anywhere(tape) & !15,
                available: anywhere(tape) & !1,
                used: anywhere(tape) & !3,
            }
        }
    }

    pub fn compact(size: u16, base: u64) -> Self {
        let available = base + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        Self {
            size,
            descriptors: base,
            available,
            used,
        }
    }

    pub fn layout(&self, memory: &Memory) -> Result<Layout, LayoutFault> {
        Layout::new(
            self.size.into(),
            self.size,
            self.descriptors,
            self.available,
            self.used,
            memory,
        )
    }

    /// Where the entry of the available ring for a free-running index lies.
    pub fn available_entry(&self, index: u16) -> u64 {
        self.available + 4 + 2 * u64::from(index % self.size)
    }

    /// The driver makes a chain available.
    pub fn offer(&self, arena: &Arena, head: u16) {
        let index = arena.peek(self.available + 2);
        arena.poke(self.available_entry(index), head);
        arena.poke(self.available + 2, index.wrapping_add(1));
    }
}

/// An address in or near guest memory.
fn anywhere(tape: &mut Tape<'_>) -> u64 {
    u64::from(tape.u16()) + u64::from(tape.u8() % 2) * HIGH
}
