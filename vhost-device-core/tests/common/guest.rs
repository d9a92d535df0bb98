//! A small guest: two adjacent regions from address 0, a hole, and two adjacent regions from 4 GiB.

use std::sync::Arc;

use vhost_device_core::Memory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

const PAGE: usize = 4096;

/// Size of each region.
pub const REGION: u64 = 0x4_0000;
/// Where the first region ends and the second begins.
pub const BORDER: u64 = REGION;
/// Where the second region ends; nothing is mapped from here to [`HIGH`].
pub const HOLE: u64 = 2 * REGION;
/// Where the third region begins.
pub const HIGH: u64 = 1 << 32;
/// Where the third region ends and the fourth begins.
pub const HIGH_BORDER: u64 = HIGH + REGION;
/// Where guest memory ends.
pub const END: u64 = HIGH + 2 * REGION;
/// Room for one ring of any size; ring n lies at n times this.
pub const RING_ROOM: u64 = 0x8000;
/// Free for buffers from here to [`HOLE`]; the rings of up to four queues lie below.
pub const BUFFERS: u64 = 4 * RING_ROOM;

/// Fresh memory, all zero.
pub fn map() -> GuestMemoryMmap {
    let ranges = [0, BORDER, HIGH, HIGH_BORDER].map(|base| (GuestAddress(base), REGION as usize));
    GuestMemoryMmap::from_ranges(&ranges).unwrap()
}

/// Fresh memory without a log of writes.
pub fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(map()))
}

pub fn write(map: &GuestMemoryMmap, address: u64, bytes: &[u8]) {
    map.write_slice(bytes, GuestAddress(address)).unwrap();
}

pub fn read(map: &GuestMemoryMmap, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    map.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// Parts of guest memory: the address of the first byte, and the bytes.
pub type Image = Vec<(u64, Vec<u8>)>;

/// All of guest memory.
pub fn image(map: &GuestMemoryMmap) -> Image {
    let regions = map
        .iter()
        .map(|region| (region.start_addr().0, region.len()));
    image_of(map, regions)
}

/// Parts of it, by address and length.
pub fn image_of(map: &GuestMemoryMmap, parts: impl IntoIterator<Item = (u64, u64)>) -> Image {
    let parts = parts.into_iter();
    parts
        .map(|(base, length)| (base, read(map, base, length as usize)))
        .collect()
}

/// The addresses at which two images of the same guest differ.
pub fn changes(before: &Image, after: &Image) -> Vec<u64> {
    let mut changed = Vec::new();
    for ((base, old), (_, new)) in before.iter().zip(after) {
        let pages = old.chunks(PAGE).zip(new.chunks(PAGE));
        // Most pages are equal, and compared at once.
        for (page, (old, new)) in pages.enumerate().filter(|(_, (old, new))| old != new) {
            let differing = (0..old.len()).filter(|at| old[*at] != new[*at]);
            changed.extend(differing.map(|at| base + (page * PAGE + at) as u64));
        }
    }
    changed
}
