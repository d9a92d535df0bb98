//! One connection's view of guest memory: translation, checks, and the log of pages written.
//!
//! Addresses are guest physical. All access is volatile and by copy; no Rust reference into guest memory is ever made.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice,
};

use crate::fault::GuestFault;

/// Where the pages that a device writes are recorded, for live migration.
pub trait DirtyLog: Send + Sync {
    /// `len` bytes from guest address `address` were written.
    fn mark(&self, address: u64, len: u64);
}

/// A piece of a request's buffer: contiguous in guest memory and within one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address of the first byte.
    pub address: u64,
    /// Length in bytes, never 0.
    pub length: u32,
}

/// An immutable snapshot of guest memory. A changed memory table is a new `Memory`.
#[derive(Clone, Default)]
pub struct Memory {
    // Before the map: what is kept may refer to the mappings.
    keep: Option<Arc<dyn Any + Send + Sync>>,
    map: GuestMemoryMmap,
    log: Option<Arc<dyn DirtyLog>>,
}

impl Memory {
    /// Wraps a memory map. Nothing is logged.
    pub fn new(map: GuestMemoryMmap) -> Self {
        Self::with_log(map, None)
    }

    /// The same memory, with every page written marked in `log`.
    pub fn with_log(map: GuestMemoryMmap, log: Option<Arc<dyn DirtyLog>>) -> Self {
        Self {
            keep: None,
            map,
            log,
        }
    }

    /// The same memory, which keeps `what` alive as long as anybody uses it, requests in flight included.
    pub fn keeping(self, what: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            keep: Some(what),
            ..self
        }
    }

    /// The memory map behind this snapshot.
    pub fn map(&self) -> &GuestMemoryMmap {
        &self.map
    }

    /// Appends the segments of a guest buffer to `out`: one, or more where it crosses from a region into an adjacent one.
    ///
    /// # Errors
    /// [`GuestFault::Unmapped`] if any byte lies outside guest memory; `out` may then hold a part of it.
    pub fn segments(
        &self,
        address: u64,
        length: u32,
        out: &mut Vec<Segment>,
    ) -> Result<(), GuestFault> {
        let mut address = address;
        let mut left = length;
        while left > 0 {
            let region = self
                .map
                .find_region(GuestAddress(address))
                .ok_or(GuestFault::Unmapped)?;
            let room = region.last_addr().0 - address;
            // `room` counts the bytes after this one, so it cannot overflow where a region ends at 2^64.
            let take = u32::try_from(room)
                .unwrap_or(u32::MAX)
                .saturating_add(1)
                .min(left);
            out.push(Segment {
                address,
                length: take,
            });
            left -= take;
            if left > 0 {
                address = address
                    .checked_add(u64::from(take))
                    .ok_or(GuestFault::Unmapped)?;
            }
        }
        Ok(())
    }

    /// Volatile access to `len` bytes at `address`, which must lie within one region.
    pub fn slice(&self, address: u64, len: usize) -> Option<VolatileSlice<'_>> {
        self.map.get_slice(GuestAddress(address), len).ok()
    }

    /// Records that `len` bytes at `address` were written. Free unless a log is in force.
    #[inline]
    pub fn mark(&self, address: u64, len: u64) {
        if let Some(log) = &self.log {
            log.mark(address, len);
        }
    }

    /// Whether writes are being logged.
    pub fn is_logged(&self) -> bool {
        self.log.is_some()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("regions", &self.map.num_regions())
            .field("logged", &self.is_logged())
            .field("kept", &self.keep.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(ranges: &[(u64, usize)]) -> Memory {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|&(start, len)| (GuestAddress(start), len))
            .collect();
        Memory::new(GuestMemoryMmap::from_ranges(&ranges).unwrap())
    }

    type Pieces = Result<Vec<(u64, u32)>, GuestFault>;

    fn segments(memory: &Memory, address: u64, length: u32) -> Pieces {
        let mut out = Vec::new();
        memory.segments(address, length, &mut out)?;
        Ok(out.iter().map(|s| (s.address, s.length)).collect())
    }

    #[test]
    fn buffers_are_split_at_region_borders_and_refused_outside() {
        let memory = memory(&[(0x1000, 0x1000), (0x2000, 0x1000), (0x8000, 0x1000)]);
        let table: &[(u64, u32, Pieces)] = &[
            (0x1000, 0x1000, Ok(vec![(0x1000, 0x1000)])),
            (0x1800, 0x1000, Ok(vec![(0x1800, 0x800), (0x2000, 0x800)])),
            (0x1fff, 2, Ok(vec![(0x1fff, 1), (0x2000, 1)])),
            (0x1000, 0, Ok(vec![])),
            (0, 0, Ok(vec![])),
            (0xfff, 2, Err(GuestFault::Unmapped)),
            (0x2fff, 2, Err(GuestFault::Unmapped)),
            (0x7fff, 1, Err(GuestFault::Unmapped)),
            (0x8fff, 1, Ok(vec![(0x8fff, 1)])),
            (0x8fff, 2, Err(GuestFault::Unmapped)),
            (u64::MAX, 1, Err(GuestFault::Unmapped)),
            (u64::MAX, u32::MAX, Err(GuestFault::Unmapped)),
            (0x1000, u32::MAX, Err(GuestFault::Unmapped)),
        ];
        for (address, length, expected) in table {
            assert_eq!(
                &segments(&memory, *address, *length),
                expected,
                "{address:#x}+{length:#x}"
            );
        }
    }

    #[test]
    fn memory_without_regions_maps_nothing() {
        assert_eq!(
            segments(&Memory::default(), 0, 1),
            Err(GuestFault::Unmapped)
        );
        assert!(Memory::default().slice(0, 1).is_none());
    }
}
