//! The driver's side of a split virtqueue (VIRTIO 1.3, section 2.7), correct or not.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vhost_device_core::{Layout, Memory, Notifier, QueueIndex, Ring, Start};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::guest::RING_ROOM;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const INDIRECT_DESC: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;

/// `struct virtq_desc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}

/// One buffer of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub address: u64,
    pub length: u32,
    pub writable: bool,
}

pub fn readable(address: u64, length: u32) -> Piece {
    Piece {
        address,
        length,
        writable: false,
    }
}

pub fn writable(address: u64, length: u32) -> Piece {
    Piece {
        address,
        length,
        writable: true,
    }
}

/// Where a ring lies.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl Place {
    /// The ring of queue `index`, one behind the other from address 0.
    pub fn of_queue(index: u16, size: u16) -> Self {
        let base = u64::from(index) * RING_ROOM;
        let available = base + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        Self {
            size,
            descriptors: base,
            available,
            used,
        }
    }

    pub fn layout(&self, memory: &Memory) -> Layout {
        Layout::new(
            self.size.into(),
            self.size,
            self.descriptors,
            self.available,
            self.used,
            memory,
        )
        .unwrap()
    }
}

/// What the device returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub head: u16,
    pub length: u32,
}

/// A driver of one queue. It keeps its own indices; what it reads from the ring is what the device wrote.
pub struct Driver {
    pub place: Place,
    map: GuestMemoryMmap,
    features: u64,
    /// The available index that the device may see.
    available: u16,
    /// The available index at the last decision about a kick.
    decided: u16,
    /// Used entries taken.
    seen: u16,
    free: Vec<u16>,
    /// By head: the descriptors of its chain.
    chains: Vec<Vec<u16>>,
}

impl Driver {
    /// A driver of a ring that was reset.
    pub fn new(map: &GuestMemoryMmap, place: Place, features: u64) -> Self {
        Self::from(map, place, features, 0)
    }

    /// A driver in the middle of its life: all indices stand at `index`.
    pub fn from(map: &GuestMemoryMmap, place: Place, features: u64, index: u16) -> Self {
        let driver = Self {
            place,
            map: map.clone(),
            features,
            available: index,
            decided: index,
            seen: index,
            free: (0..place.size).rev().collect(),
            chains: vec![Vec::new(); place.size.into()],
        };
        driver.poke(place.available + 2, index);
        driver.poke(place.used + 2, index);
        driver
    }

    fn event_index(&self) -> bool {
        self.features & EVENT_IDX != 0
    }

    pub fn features(&self) -> u64 {
        self.features
    }

    /// The device's side of the ring by itself, without a runner.
    pub fn ring(&self, memory: &Memory, run: u32, notifier: impl Notifier + 'static) -> Ring {
        Ring::start(self.start(0, memory, notifier), memory, run).unwrap()
    }

    /// The device's side of the ring for a runner.
    pub fn start(&self, index: u16, memory: &Memory, notifier: impl Notifier + 'static) -> Start {
        Start {
            index: QueueIndex(index),
            layout: self.place.layout(memory),
            next_available: self.available,
            features: self.features,
            notifier: Box::new(notifier),
            meter: Arc::default(),
        }
    }

    pub fn poke(&self, address: u64, value: u16) {
        let address = GuestAddress(address);
        self.map
            .store(value.to_le(), address, Ordering::Release)
            .unwrap();
    }

    pub fn peek(&self, address: u64) -> u16 {
        let address = GuestAddress(address);
        u16::from_le(self.map.load(address, Ordering::Acquire).unwrap())
    }

    /// Writes a descriptor into the table at `table`: the ring's own or an indirect one.
    pub fn set_descriptor(&self, table: u64, index: u16, descriptor: Descriptor) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&descriptor.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&descriptor.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&descriptor.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&descriptor.next.to_le_bytes());
        let address = GuestAddress(table + 16 * u64::from(index));
        self.map.write_slice(&bytes, address).unwrap();
    }

    /// Writes a direct chain. `None` if too few descriptors are free.
    pub fn chain(&mut self, pieces: &[Piece]) -> Option<u16> {
        self.chain_ending_in(pieces, None)
    }

    /// Writes a chain whose last `indirect.len()` buffers stand in an indirect table at `table`.
    pub fn chain_with_indirect(
        &mut self,
        direct: &[Piece],
        indirect: &[Piece],
        table: u64,
    ) -> Option<u16> {
        for (i, piece) in indirect.iter().enumerate() {
            let last = i + 1 == indirect.len();
            self.set_descriptor(
                table,
                i as u16,
                linked(piece, (!last).then(|| i as u16 + 1)),
            );
        }
        let link = Descriptor {
            address: table,
            length: 16 * indirect.len() as u32,
            flags: INDIRECT,
            next: 0,
        };
        self.chain_ending_in(direct, Some(link))
    }

    fn chain_ending_in(&mut self, pieces: &[Piece], end: Option<Descriptor>) -> Option<u16> {
        let needed = pieces.len() + usize::from(end.is_some());
        let kept = self.free.len().checked_sub(needed)?;
        let mut own = self.free.split_off(kept);
        own.reverse();
        let links = own.iter().skip(1).map(|next| Some(*next)).chain([None]);
        let table = self.place.descriptors;
        for (i, (index, next)) in own.iter().zip(links).enumerate() {
            let descriptor = match (pieces.get(i), end) {
                (Some(piece), _) => linked(piece, next),
                (None, Some(end)) => end,
                (None, None) => break,
            };
            self.set_descriptor(table, *index, descriptor);
        }
        let head = *own.first()?;
        self.chains[usize::from(head)] = own;
        Some(head)
    }

    /// Makes a chain available.
    pub fn offer(&mut self, head: u16) {
        let slot = self.available & (self.place.size - 1);
        let entry = self.place.available + 4 + 2 * u64::from(slot);
        self.poke(entry, head);
        self.available = self.available.wrapping_add(1);
        self.poke(self.place.available + 2, self.available);
    }

    /// Writes a direct chain and makes it available. `None` if too few descriptors are free.
    pub fn add(&mut self, pieces: &[Piece]) -> Option<u16> {
        let head = self.chain(pieces)?;
        self.offer(head);
        Some(head)
    }

    /// Whether the device wants to be told about what was made available since the last decision.
    pub fn decide_kick(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let old = std::mem::replace(&mut self.decided, self.available);
        if old == self.available {
            false
        } else if self.event_index() {
            let wish = self.avail_event();
            self.available.wrapping_sub(wish).wrapping_sub(1) < self.available.wrapping_sub(old)
        } else {
            self.used_flags() & 1 == 0
        }
    }

    /// Takes the next used entry and frees its descriptors.
    pub fn take(&mut self) -> Option<Used> {
        if !self.has_used() {
            return None;
        }
        let slot = u64::from(self.seen & (self.place.size - 1));
        let mut entry = [0; 8];
        let address = GuestAddress(self.place.used + 4 + 8 * slot);
        self.map.read_slice(&mut entry, address).unwrap();
        let [a, b, c, d, e, f, g, h] = entry;
        let head = u32::from_le_bytes([a, b, c, d]);
        assert!(head < self.place.size.into(), "used id {head}");
        self.seen = self.seen.wrapping_add(1);
        let chain = std::mem::take(&mut self.chains[head as usize]);
        self.free.extend(chain.into_iter().rev());
        Some(Used {
            head: head as u16,
            length: u32::from_le_bytes([e, f, g, h]),
        })
    }

    /// Takes all used entries.
    pub fn take_all(&mut self) -> Vec<Used> {
        std::iter::from_fn(|| self.take()).collect()
    }

    /// Asks for an interrupt with the next used entry. True if there already is one.
    pub fn want_interrupt(&self) -> bool {
        self.ask_for_interrupt();
        fence(Ordering::SeqCst);
        self.has_used()
    }

    /// The first half of [`want_interrupt`](Self::want_interrupt).
    pub fn ask_for_interrupt(&self) {
        if self.event_index() {
            self.poke(self.used_event_address(), self.seen);
        } else {
            self.poke(self.place.available, 0);
        }
    }

    /// Whether the device returned something that was not taken yet.
    pub fn has_used(&self) -> bool {
        self.used_index() != self.seen
    }

    /// Asks for no interrupt; to be repeated while entries are taken without asking for one.
    pub fn refuse_interrupts(&self) {
        if self.event_index() {
            // Half way around: just behind would be within the batch that the device publishes right now.
            self.poke(self.used_event_address(), self.seen.wrapping_add(0x8000));
        } else {
            self.poke(self.place.available, 1);
        }
    }

    pub fn available_index(&self) -> u16 {
        self.available
    }

    /// Descriptors in no chain.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    pub fn used_index(&self) -> u16 {
        self.peek(self.place.used + 2)
    }

    pub fn used_flags(&self) -> u16 {
        self.peek(self.place.used)
    }

    pub fn avail_event(&self) -> u16 {
        self.peek(self.avail_event_address())
    }

    pub fn avail_event_address(&self) -> u64 {
        self.place.used + 4 + 8 * u64::from(self.place.size)
    }

    pub fn used_event_address(&self) -> u64 {
        self.place.available + 4 + 2 * u64::from(self.place.size)
    }
}

fn linked(piece: &Piece, next: Option<u16>) -> Descriptor {
    Descriptor {
        address: piece.address,
        length: piece.length,
        flags: if piece.writable { WRITE } else { 0 } | if next.is_some() { NEXT } else { 0 },
        next: next.unwrap_or(0),
    }
}
