//! The driver's side of a split virtqueue (VIRTIO 1.3, section 2.7), correct by default and wrong wherever asked.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::failure::Result;
use crate::memory::Memory;
use crate::message::VringAddress;
use crate::{ensure, fail, sys};

/// Descriptor flag: another descriptor follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes this buffer.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;
/// Size of a descriptor.
pub const DESCRIPTOR: u64 = 16;
/// Flag of the available ring: no interrupt wanted. Flag of the used ring: no kick wanted.
const QUIET: u16 = 1;

/// One descriptor, as it lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

impl Descriptor {
    /// A buffer that the device reads.
    pub fn readable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            ..Self::default()
        }
    }

    /// A buffer that the device writes.
    pub fn writable(address: u64, len: u32) -> Self {
        Self {
            flags: WRITE,
            ..Self::readable(address, len)
        }
    }

    /// A reference to an indirect table of `len` bytes.
    pub fn table(address: u64, len: u32) -> Self {
        Self {
            flags: INDIRECT,
            ..Self::readable(address, len)
        }
    }

    fn to_bytes(self) -> [u8; DESCRIPTOR as usize] {
        let mut bytes = [0; DESCRIPTOR as usize];
        bytes[0..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// Links descriptors that lie behind one another from index `first` on.
pub fn linked(chain: &[Descriptor], first: u16) -> Vec<Descriptor> {
    let last = chain.len().saturating_sub(1);
    let link = |(at, descriptor): (usize, &Descriptor)| {
        if at == last {
            *descriptor
        } else {
            Descriptor {
                flags: descriptor.flags | NEXT,
                next: first + at as u16 + 1,
                ..*descriptor
            }
        }
    };
    chain.iter().enumerate().map(link).collect()
}

/// Writes a table of descriptors somewhere in guest memory, as it is.
pub fn write_table(memory: &Memory, address: u64, table: &[Descriptor]) {
    for (at, descriptor) in table.iter().enumerate() {
        memory.write(address + at as u64 * DESCRIPTOR, &descriptor.to_bytes());
    }
}

/// One entry of the used ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain that was used.
    pub id: u32,
    /// Bytes written to it.
    pub len: u32,
}

/// Where a ring's three parts lie, as guest addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Number of descriptors.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

impl Parts {
    /// Takes room for a ring of `size` entries out of region `region`, zeroed, each part on pages of its own.
    pub fn take(memory: &Memory, region: usize, size: u16) -> Self {
        let part = |len: u64| {
            let address = memory.take_from(region, len, crate::memory::PAGE);
            memory.fill(address, len, 0);
            address
        };
        let entries = u64::from(size);
        Self {
            size,
            descriptors: part(DESCRIPTOR * entries),
            available: part(6 + 2 * entries),
            used: part(6 + 8 * entries),
        }
    }

    /// The addresses as the device is told: in the frontend's address space.
    pub fn address(&self, memory: &Memory) -> VringAddress {
        VringAddress {
            descriptors: memory.user_address(self.descriptors),
            used: memory.user_address(self.used),
            available: memory.user_address(self.available),
            log: None,
        }
    }

    /// Guest addresses of the used ring's bytes.
    pub fn used_range(&self) -> Range<u64> {
        self.used..self.used + 6 + 8 * u64::from(self.size)
    }
}

/// The driver's side of one ring, with its three eventfds.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<Memory>,
    parts: Parts,
    event_idx: bool,
    free: Vec<u16>,
    chains: Vec<Vec<u16>>,
    /// How many descriptors the last pop freed.
    freed: usize,
    next_available: u16,
    kicked: u16,
    next_used: u16,
    /// Rung by the driver.
    pub kick: EventFd,
    /// Rung by the device when a chain was used.
    pub call: EventFd,
    /// Rung by the device when the ring is broken.
    pub error: EventFd,
}

impl Ring {
    /// A fresh ring on these parts; `event_idx` as negotiated.
    ///
    /// # Errors
    /// As eventfd(2).
    pub fn new(memory: Arc<Memory>, parts: Parts, event_idx: bool) -> io::Result<Self> {
        Ok(Self {
            memory,
            parts,
            event_idx,
            free: (0..parts.size).rev().collect(),
            chains: vec![Vec::new(); usize::from(parts.size)],
            freed: 0,
            next_available: 0,
            kicked: 0,
            next_used: 0,
            kick: EventFd::new(EFD_NONBLOCK)?,
            call: EventFd::new(EFD_NONBLOCK)?,
            error: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// The memory the ring lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Where the ring lies.
    pub fn parts(&self) -> Parts {
        self.parts
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.parts.size
    }

    /// The index that the next chain is made available under.
    pub fn next_available(&self) -> u16 {
        self.next_available
    }

    /// The index of the next entry that this driver takes from the used ring.
    pub fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Free descriptors.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// Moves the ring's parts elsewhere, as they are, and continues there.
    pub fn move_to(&mut self, memory: Arc<Memory>, parts: Parts) {
        assert_eq!(parts.size, self.parts.size);
        let entries = u64::from(parts.size);
        for (from, to, len) in [
            (
                self.parts.descriptors,
                parts.descriptors,
                DESCRIPTOR * entries,
            ),
            (self.parts.available, parts.available, 6 + 2 * entries),
            (self.parts.used, parts.used, 6 + 8 * entries),
        ] {
            memory.write(to, &self.memory.bytes(from, len));
        }
        self.memory = memory;
        self.parts = parts;
    }

    /// Empties the ring, as after a reset of the device.
    pub fn reset(&mut self) {
        let entries = u64::from(self.parts.size);
        self.memory
            .fill(self.parts.descriptors, DESCRIPTOR * entries, 0);
        self.memory.fill(self.parts.available, 6 + 2 * entries, 0);
        self.memory.fill(self.parts.used, 6 + 8 * entries, 0);
        self.free = (0..self.parts.size).rev().collect();
        self.chains.iter_mut().for_each(Vec::clear);
        (self.next_available, self.kicked, self.next_used) = (0, 0, 0);
        // What was rung before the reset means nothing any more; an empty counter is not an error here.
        let _ = self.kick.read();
        let _ = self.call.read();
        let _ = self.error.read();
    }
}

/// Making chains available.
impl Ring {
    /// Takes `count` descriptors, to be written with [`Ring::set`].
    ///
    /// # Errors
    /// When the ring has no room.
    pub fn take(&mut self, count: usize) -> Result<Vec<u16>> {
        ensure!(
            count <= self.free.len(),
            "the test's ring of {} is full: {count} descriptors wanted, {} free",
            self.parts.size,
            self.free.len()
        );
        Ok(self.free.split_off(self.free.len() - count))
    }

    /// Writes one descriptor of the table, as it is.
    pub fn set(&self, index: u16, descriptor: Descriptor) {
        let address = self.parts.descriptors + u64::from(index) * DESCRIPTOR;
        self.memory.write(address, &descriptor.to_bytes());
    }

    /// Puts a head into the available ring, without telling of it: see [`Ring::publish`]. `owned` descriptors become free
    /// again when the chain is used.
    pub fn expose(&mut self, head: u16, owned: Vec<u16>) {
        if let Some(chain) = self.chains.get_mut(usize::from(head)) {
            *chain = owned;
        }
        self.set_available_entry(self.next_available, head);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Exposes the chain that was popped last once more, as it is.
    pub fn expose_again(&mut self, head: u16) {
        // Taking it back freed its descriptors, which are the last in the list; their own list is empty and has room.
        let mut owned = self.release(head);
        owned.extend(self.free.drain(self.free.len() - self.freed..));
        self.expose(head, owned);
    }

    /// Takes the descriptors away from a head, so that they do not become free when it is used.
    pub fn release(&mut self, head: u16) -> Vec<u16> {
        std::mem::take(&mut self.chains[usize::from(head)])
    }

    /// Adds one chain of direct descriptors; its head. Not yet published.
    ///
    /// # Errors
    /// When the ring has no room.
    pub fn add(&mut self, chain: &[Descriptor]) -> Result<u16> {
        let ids = self.take(chain.len())?;
        for (at, descriptor) in chain.iter().enumerate() {
            let mut descriptor = *descriptor;
            if let Some(next) = ids.get(at + 1) {
                descriptor.flags |= NEXT;
                descriptor.next = *next;
            }
            self.set(ids[at], descriptor);
        }
        let head = ids[0];
        self.expose(head, ids);
        Ok(head)
    }

    /// Adds one chain as an indirect table, which is taken out of guest memory; its head. Not yet published.
    ///
    /// # Errors
    /// When the ring has no room.
    pub fn add_indirect(&mut self, chain: &[Descriptor]) -> Result<u16> {
        let len = chain.len() as u64 * DESCRIPTOR;
        let table = self.memory.take(len, DESCRIPTOR);
        write_table(&self.memory, table, &linked(chain, 0));
        self.add(&[Descriptor::table(table, len as u32)])
    }

    /// Shows everything exposed so far to the device.
    pub fn publish(&self) {
        self.set_available_index(self.next_available);
    }

    /// Whether the device wants to be kicked for what was published since the last kick.
    pub fn wants_kick(&self) -> bool {
        // The published index has to be visible before the device's wish is read.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let since_event = self
                .next_available
                .wrapping_sub(self.available_event())
                .wrapping_sub(1);
            since_event < self.next_available.wrapping_sub(self.kicked)
        } else {
            self.used_flags() & QUIET == 0
        }
    }

    /// Publishes, and kicks if the device wants it; whether it was kicked.
    ///
    /// # Errors
    /// As the eventfd's write.
    pub fn submit(&mut self) -> io::Result<bool> {
        self.publish();
        let wanted = self.wants_kick();
        self.kicked = self.next_available;
        if wanted {
            self.kick.write(1)?;
        }
        Ok(wanted)
    }

    /// Kicks, wanted or not.
    ///
    /// # Errors
    /// As the eventfd's write.
    pub fn kick_always(&mut self) -> io::Result<()> {
        self.kicked = self.next_available;
        self.kick.write(1)
    }
}

/// Taking used chains back.
impl Ring {
    /// The next used entry, if there is one; its descriptors become free.
    pub fn pop(&mut self) -> Option<Used> {
        if self.used_index() == self.next_used {
            return None;
        }
        let used = self.used_entry(self.next_used);
        self.next_used = self.next_used.wrapping_add(1);
        self.freed = 0;
        if let Some(chain) = self.chains.get_mut(used.id as usize) {
            self.freed = chain.len();
            self.free.append(chain);
        }
        Some(used)
    }

    /// Asks for an interrupt at the next used chain.
    pub fn arm(&self) {
        if self.event_idx {
            self.set_used_event(self.next_used);
        } else {
            self.set_available_flags(0);
        }
        // The wish has to be visible before the used index is looked at again.
        fence(Ordering::SeqCst);
    }

    /// Asks for no interrupt: for at least 32,767 used chains with the event index.
    pub fn disarm(&self) {
        if self.event_idx {
            self.set_used_event(self.next_used.wrapping_add(0x8000));
        } else {
            self.set_available_flags(QUIET);
        }
        fence(Ordering::SeqCst);
    }

    /// Sleeps until a chain was used, woken by the call eventfd as a driver is.
    ///
    /// # Errors
    /// When nothing was used in time, or when the interrupt for it got lost.
    pub fn wait(&mut self, timeout: Duration) -> Result<Used> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(used) = self.pop() {
                return Ok(used);
            }
            self.arm();
            if let Some(used) = self.pop() {
                return Ok(used);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let woken = sys::readable(&self.call, left)?;
            if woken {
                self.call.read()?;
            } else if self.used_index() != self.next_used {
                fail!("lost interrupt: a chain was used but the call eventfd stayed silent");
            } else {
                fail!("no chain was used within {timeout:?}");
            }
        }
    }

    /// Waits for a used chain by looking at the ring, with no interrupt needed.
    ///
    /// # Errors
    /// When nothing was used in time.
    pub fn watch(&mut self, timeout: Duration) -> Result<Used> {
        match sys::wait_for(timeout, || self.pop()) {
            Some(used) => Ok(used),
            None => fail!("no chain was used within {timeout:?}"),
        }
    }

    /// Looks at the ring until a chain was used, with no interrupt needed: for benchmarks. Short waits are at the price of a
    /// whole processor; in long ones it rests between two looks, so as to leave the machine to the device.
    ///
    /// # Errors
    /// When nothing was used in time.
    pub fn spin(&mut self, timeout: Duration) -> Result<Used> {
        const LOOKS: usize = 2048;
        const REST: Duration = Duration::from_micros(20);
        for _ in 0..LOOKS {
            if let Some(used) = self.pop() {
                return Ok(used);
            }
            std::hint::spin_loop();
        }
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            std::thread::sleep(REST);
            if let Some(used) = self.pop() {
                return Ok(used);
            }
        }
        fail!("no chain was used within {timeout:?}")
    }

    /// How many times the call eventfd was rung since it was last read; resets it.
    ///
    /// # Errors
    /// As the eventfd's read, except for an empty counter.
    pub fn interrupts(&self) -> io::Result<u64> {
        match self.call.read() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }
}

/// The fields of the ring, for looking and for spoiling.
impl Ring {
    /// Writes the available ring's flags.
    pub fn set_available_flags(&self, flags: u16) {
        let cell = self.memory.u16(self.parts.available);
        cell.store(flags.to_le(), Ordering::Relaxed);
    }

    /// Writes the available index, whatever it should be.
    pub fn set_available_index(&self, index: u16) {
        let cell = self.memory.u16(self.parts.available + 2);
        cell.store(index.to_le(), Ordering::Release);
    }

    /// Writes the available ring's entry for running index `index`.
    pub fn set_available_entry(&self, index: u16, head: u16) {
        let slot = u64::from(index % self.parts.size);
        let cell = self.memory.u16(self.parts.available + 4 + 2 * slot);
        cell.store(head.to_le(), Ordering::Relaxed);
    }

    /// Writes the field used_event.
    pub fn set_used_event(&self, index: u16) {
        let at = self.parts.available + 4 + 2 * u64::from(self.parts.size);
        self.memory.u16(at).store(index.to_le(), Ordering::Relaxed);
    }

    /// Sets the running indices of this driver, for a ring that starts at another base than 0.
    pub fn set_base(&mut self, index: u16) {
        (self.next_available, self.kicked, self.next_used) = (index, index, index);
        self.set_available_index(index);
        self.set_used_index(index);
    }

    /// Writes the used index, which is the device's to write.
    pub fn set_used_index(&self, index: u16) {
        let cell = self.memory.u16(self.parts.used + 2);
        cell.store(index.to_le(), Ordering::Release);
    }

    /// The used ring's flags.
    pub fn used_flags(&self) -> u16 {
        u16::from_le(self.memory.u16(self.parts.used).load(Ordering::Relaxed))
    }

    /// The used index.
    pub fn used_index(&self) -> u16 {
        let cell = self.memory.u16(self.parts.used + 2);
        u16::from_le(cell.load(Ordering::Acquire))
    }

    /// The used ring's entry for running index `index`.
    pub fn used_entry(&self, index: u16) -> Used {
        let at = self.parts.used + 4 + 8 * u64::from(index % self.parts.size);
        let word = |at| u32::from_le(self.memory.u32(at).load(Ordering::Relaxed));
        Used {
            id: word(at),
            len: word(at + 4),
        }
    }

    /// The field avail_event.
    pub fn available_event(&self) -> u16 {
        let at = self.parts.used + 4 + 8 * u64::from(self.parts.size);
        u16::from_le(self.memory.u16(at).load(Ordering::Relaxed))
    }
}
