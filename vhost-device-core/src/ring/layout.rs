//! Where the parts of a split virtqueue lie (VIRTIO 1.3, section 2.7).

use vm_memory::VolatileSlice;

use crate::fault::{LayoutFault, RingFault};
use crate::memory::Memory;

/// Largest queue size accepted, in descriptors; QEMU's own maximum.
pub const MAX_QUEUE_SIZE: u16 = 1024;

pub(crate) const DESCRIPTOR_BYTES: usize = 16;
/// `flags` and `idx` in front of both rings.
pub(crate) const RING_HEADER_BYTES: usize = 4;
const AVAIL_ENTRY_BYTES: usize = 2;
pub(crate) const USED_ENTRY_BYTES: usize = 8;
/// `used_event` and `avail_event` behind the rings.
const EVENT_BYTES: usize = 2;

/// Size and guest addresses of a split virtqueue, as the driver set them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl Layout {
    /// Checks a ring's size and addresses.
    ///
    /// # Errors
    /// [`LayoutFault`] says which part cannot be used: the size is no power of two or above `limit`, an address is
    /// misaligned, or a part is not in `memory` as a whole.
    pub fn new(
        size: u32,
        limit: u16,
        descriptors: u64,
        available: u64,
        used: u64,
        memory: &Memory,
    ) -> Result<Self, LayoutFault> {
        let limit = limit.min(MAX_QUEUE_SIZE);
        let size = u16::try_from(size)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= limit)
            .ok_or(LayoutFault::Size(size, limit))?;
        for (address, alignment) in [(descriptors, 16), (available, 2), (used, 4)] {
            if address % alignment != 0 {
                return Err(LayoutFault::Misaligned(address));
            }
        }
        let layout = Self {
            size,
            descriptors,
            available,
            used,
        };
        layout.parts(memory).map_err(LayoutFault::Unmapped)?;
        Ok(layout)
    }

    /// Queue size in descriptors, a power of two.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The ring's position for a free-running index.
    pub(crate) fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// Guest address of the used ring.
    pub(crate) fn used_address(&self) -> u64 {
        self.used
    }

    /// Guest address of the used element for a free-running index. Within the ring, so it does not overflow.
    pub(crate) fn used_entry_offset(&self, index: u16) -> usize {
        RING_HEADER_BYTES + USED_ENTRY_BYTES * self.slot(index)
    }

    pub(crate) fn avail_entry_offset(&self, index: u16) -> usize {
        RING_HEADER_BYTES + AVAIL_ENTRY_BYTES * self.slot(index)
    }

    pub(crate) fn used_event_offset(&self) -> usize {
        RING_HEADER_BYTES + AVAIL_ENTRY_BYTES * usize::from(self.size)
    }

    pub(crate) fn avail_event_offset(&self) -> usize {
        RING_HEADER_BYTES + USED_ENTRY_BYTES * usize::from(self.size)
    }

    fn available_bytes(&self) -> usize {
        self.used_event_offset() + EVENT_BYTES
    }

    fn used_bytes(&self) -> usize {
        self.avail_event_offset() + EVENT_BYTES
    }

    /// Maps the three parts for one wake.
    pub(crate) fn map<'m>(&self, memory: &'m Memory) -> Result<Parts<'m>, RingFault> {
        self.parts(memory).map_err(|_| RingFault::Unmapped)
    }

    fn parts<'m>(&self, memory: &'m Memory) -> Result<Parts<'m>, u64> {
        let part = |address, len| memory.slice(address, len).ok_or(address);
        Ok(Parts {
            descriptors: part(self.descriptors, DESCRIPTOR_BYTES * usize::from(self.size))?,
            available: part(self.available, self.available_bytes())?,
            used: part(self.used, self.used_bytes())?,
        })
    }
}

/// The mapped parts of a ring.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'m> {
    pub descriptors: VolatileSlice<'m>,
    pub available: VolatileSlice<'m>,
    pub used: VolatileSlice<'m>,
}

#[cfg(test)]
mod tests {
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    #[test]
    fn sizes_and_addresses_that_cannot_be_used_are_named() {
        let memory =
            Memory::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap());
        let new = |size, d, a, u| Layout::new(size, 256, d, a, u, &memory);
        assert!(new(256, 0, 0x2000, 0x3000).is_ok());
        assert!(new(1, 0, 0x2000, 0x3000).is_ok());
        let table = [
            (0, 0, 0x2000, 0x3000, LayoutFault::Size(0, 256)),
            (3, 0, 0x2000, 0x3000, LayoutFault::Size(3, 256)),
            (255, 0, 0x2000, 0x3000, LayoutFault::Size(255, 256)),
            (512, 0, 0x2000, 0x3000, LayoutFault::Size(512, 256)),
            (65536, 0, 0x2000, 0x3000, LayoutFault::Size(65536, 256)),
            (u32::MAX, 0, 0, 0, LayoutFault::Size(u32::MAX, 256)),
            (16, 8, 0x2000, 0x3000, LayoutFault::Misaligned(8)),
            (16, 0, 0x2001, 0x3000, LayoutFault::Misaligned(0x2001)),
            (16, 0, 0x2000, 0x3002, LayoutFault::Misaligned(0x3002)),
            (16, 0x20000, 0x2000, 0x3000, LayoutFault::Unmapped(0x20000)),
            (16, 0xfff0, 0x2000, 0x3000, LayoutFault::Unmapped(0xfff0)),
            (16, 0, 0xfffe, 0x3000, LayoutFault::Unmapped(0xfffe)),
            (16, 0, 0x2000, 0xfffc, LayoutFault::Unmapped(0xfffc)),
            (
                16,
                0u64.wrapping_sub(16),
                0,
                0,
                LayoutFault::Unmapped(0u64.wrapping_sub(16)),
            ),
        ];
        for (size, d, a, u, expected) in table {
            assert_eq!(
                new(size, d, a, u),
                Err(expected),
                "{size} {d:#x} {a:#x} {u:#x}"
            );
        }
    }
}
