//! The device's side of a split virtqueue once more, as plainly as the specification says it: on flat bytes, without
//! segments, slices and atomics. The real one must do the same.

use vhost_device_core::{Counters, MAX_CHAIN_LENGTH, RingFault};

use crate::arena::{Place, SIZE, Touched, position};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const MAX_BATCH: u16 = 1024;
const MAX_BATCH_BYTES: u64 = 1 << 20;
const FLUSH_BYTES: u64 = 32 * 1024;

/// The buffers of one request.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    pub readable: Vec<(u64, u32)>,
    pub writable: Vec<(u64, u32)>,
}

/// One byte after the other of a list of buffers.
fn addresses(buffers: &[(u64, u32)]) -> impl Iterator<Item = u64> {
    buffers
        .iter()
        .flat_map(|(address, length)| *address..address + u64::from(*length))
}

impl Buffers {
    pub fn room(&self) -> u64 {
        self.writable
            .iter()
            .map(|(_, length)| u64::from(*length))
            .sum()
    }

    pub fn length(&self) -> u64 {
        self.readable
            .iter()
            .map(|(_, length)| u64::from(*length))
            .sum()
    }
}

/// A ring and its guest memory.
pub struct Model {
    pub bytes: Box<[u8; SIZE]>,
    pub touched: Touched,
    place: Place,
    event_index: bool,
    indirect: bool,
    pub next_available: u16,
    next_used: u16,
    pub published: u16,
    pub in_flight: u16,
    pub fault: Option<RingFault>,
    pub counters: Counters,
    pub run: u32,
    unpublished: u64,
    /// The present batch: entries known to be available, and how much more may be taken.
    known: u16,
    left: u16,
    written: u64,
}

impl Model {
    pub fn new(
        bytes: Box<[u8; SIZE]>,
        place: Place,
        next_available: u16,
        event_index: bool,
        indirect: bool,
        run: u32,
    ) -> Self {
        let mut model = Self {
            bytes,
            touched: Touched::none(),
            place,
            event_index,
            indirect,
            next_available,
            next_used: 0,
            published: 0,
            in_flight: 0,
            fault: None,
            counters: Counters::default(),
            run,
            unpublished: 0,
            known: 0,
            left: 0,
            written: 0,
        };
        model.published = model.load(place.used + 2);
        model.next_used = model.published;
        model
    }

    fn byte(&self, address: u64) -> u8 {
        self.bytes[position(address, 1).expect("checked before")]
    }

    fn load(&self, address: u64) -> u16 {
        u16::from_le_bytes([self.byte(address), self.byte(address + 1)])
    }

    fn store(&mut self, address: u64, bytes: &[u8]) {
        for (address, byte) in (address..).zip(bytes) {
            self.bytes[position(address, 1).expect("checked before")] = *byte;
        }
        self.touched.add(address, bytes.len());
    }

    /// The guest writes a word, if there is memory.
    pub fn poke(&mut self, address: u64, value: u16) {
        if let Some(at) = position(address, 2) {
            self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
    }

    pub fn read(&self, buffers: &[(u64, u32)]) -> Vec<u8> {
        addresses(buffers)
            .map(|address| self.byte(address))
            .collect()
    }

    /// Writes `bytes` to the buffers' bytes from `skip` on.
    pub fn write(&mut self, buffers: &[(u64, u32)], skip: u64, bytes: &[u8]) {
        let places: Vec<u64> = addresses(buffers)
            .skip(skip as usize)
            .take(bytes.len())
            .collect();
        for (address, byte) in places.iter().zip(bytes) {
            self.store(*address, &[*byte]);
        }
    }

    /// Opens a batch. False if the ring is dead.
    pub fn open(&mut self) -> bool {
        self.known = self.next_available;
        self.left = MAX_BATCH;
        self.written = 0;
        self.fault.is_none()
    }

    pub fn next(&mut self) -> Option<(u16, Buffers)> {
        if self.unpublished >= FLUSH_BYTES {
            self.publish();
        }
        loop {
            let head = self.take()?;
            match self.walk(head) {
                Some(buffers) => return Some((head, buffers)),
                None => self.refuse(head),
            }
        }
    }

    fn take(&mut self) -> Option<u16> {
        if self.fault.is_some() {
            return None;
        }
        let size = self.place.size;
        if self.next_available == self.known {
            self.known = self.load(self.place.available + 2);
            let ahead = self.known.wrapping_sub(self.next_available);
            if ahead > size {
                return self.fail(RingFault::AvailableIndex);
            }
            if ahead == 0 {
                return None;
            }
        }
        if self.left == 0 || self.written >= MAX_BATCH_BYTES {
            return None;
        }
        if self.in_flight >= size {
            return self.fail(RingFault::Overcommitted);
        }
        let head = self.load(self.place.available_entry(self.next_available));
        if head >= size {
            return self.fail(RingFault::HeadIndex);
        }
        self.left -= 1;
        self.next_available = self.next_available.wrapping_add(1);
        self.in_flight += 1;
        self.counters.requests += 1;
        Some(head)
    }

    fn fail(&mut self, fault: RingFault) -> Option<u16> {
        self.fault = Some(fault);
        None
    }

    /// The buffers of a chain; `None` if it is malformed.
    fn walk(&self, head: u16) -> Option<Buffers> {
        let mut buffers = Buffers::default();
        let (mut table, mut entries) = (self.place.descriptors, u64::from(self.place.size));
        let mut nested = false;
        let mut index = u64::from(head);
        let mut count = 0;
        loop {
            if count == MAX_CHAIN_LENGTH || index >= entries {
                return None;
            }
            count += 1;
            let at = table + 16 * index;
            let word = |offset| u64::from(self.load(at + offset));
            let address = word(0) | word(2) << 16 | word(4) << 32 | word(6) << 48;
            let length = word(8) as u32 | (word(10) as u32) << 16;
            let (flags, next) = (word(12) as u16, word(14));
            if flags & INDIRECT != 0 {
                let bytes = length as usize;
                let legal = self.indirect
                    && !nested
                    && flags & NEXT == 0
                    && bytes != 0
                    && bytes % 16 == 0
                    && bytes / 16 <= MAX_CHAIN_LENGTH;
                position(address, bytes).filter(|_| legal)?;
                (table, entries, nested, index) = (address, bytes as u64 / 16, true, 0);
                count -= 1;
                continue;
            }
            let writable = flags & WRITE != 0;
            if !writable && buffers.room() > 0 {
                return None;
            }
            if length > 0 {
                position(address, length as usize)?;
                let list = if writable {
                    &mut buffers.writable
                } else {
                    &mut buffers.readable
                };
                list.push((address, length));
            }
            if flags & NEXT == 0 {
                return Some(buffers);
            }
            index = next;
        }
    }

    /// Completes a request.
    pub fn used(&mut self, head: u16, length: u32) {
        let slot = u64::from(self.next_used % self.place.size);
        let mut element = u32::from(head).to_le_bytes().to_vec();
        element.extend(length.to_le_bytes());
        self.store(self.place.used + 4 + 8 * slot, &element);
        self.next_used = self.next_used.wrapping_add(1);
        self.in_flight -= 1;
        self.unpublished += u64::from(length);
        self.written += u64::from(length);
        self.counters.bytes += u64::from(length);
    }

    /// Completes a request of which so much was read.
    pub fn used_after(&mut self, read: u64, head: u16, length: u32) {
        self.written += read;
        self.counters.bytes += read;
        self.used(head, length);
    }

    /// Completes a request that is malformed or was refused by the device.
    pub fn refuse(&mut self, head: u16) {
        self.counters.faults += 1;
        self.used(head, 0);
    }

    pub fn put_back(&mut self) {
        self.next_available = self.next_available.wrapping_sub(1);
        self.in_flight -= 1;
        self.counters.requests -= 1;
    }

    /// Shows the driver what was completed.
    pub fn publish(&mut self) {
        self.unpublished = 0;
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return;
        }
        self.store(self.place.used + 2, &new.to_le_bytes());
        self.published = new;
        let wanted = if self.event_index {
            let event = self.load(self.place.available_entry(0) + 2 * u64::from(self.place.size));
            (0..new.wrapping_sub(old)).any(|i| old.wrapping_add(i) == event)
        } else {
            self.load(self.place.available) & 1 == 0
        };
        if wanted {
            self.counters.notified += 1;
        } else {
            self.counters.suppressed += 1;
        }
    }
}
