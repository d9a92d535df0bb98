//! One walk over a descriptor chain: every field is read once, checked, and turned into segments.

use vm_memory::{Bytes, GuestAddress, VolatileSlice};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::layout::DESCRIPTOR_BYTES;
use crate::fault::GuestFault;
use crate::memory::{Memory, Segment};

/// Most buffers that one request may have, direct and indirect ones together.
pub const MAX_CHAIN_LENGTH: usize = 1024;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// `struct virtq_desc` (section 2.7.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Descriptor {
    address: U64,
    length: U32,
    flags: U16,
    next: U16,
}

impl Descriptor {
    fn has(&self, flag: u16) -> bool {
        self.flags.get() & flag != 0
    }
}

/// The buffers of one request, in order. Reused from request to request, so that no request allocates; and small, as it is
/// moved with its request.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// The readable ones, then the writable ones.
    segments: Vec<Segment>,
    readable: u32,
    // The walk refuses chains above 4 GiB - 1.
    readable_bytes: u32,
    writable_bytes: u32,
}

impl Chain {
    /// Device-readable buffers.
    pub fn readable(&self) -> &[Segment] {
        self.split().0
    }

    /// Device-writable buffers.
    pub fn writable(&self) -> &[Segment] {
        self.split().1
    }

    /// Bytes of all readable buffers.
    pub fn readable_bytes(&self) -> u64 {
        self.readable_bytes.into()
    }

    /// Bytes of all writable buffers.
    pub fn writable_bytes(&self) -> u64 {
        self.writable_bytes.into()
    }

    fn split(&self) -> (&[Segment], &[Segment]) {
        let split = self.segments.split_at_checked(self.readable as usize);
        split.unwrap_or_default()
    }

    fn clear(&mut self) {
        self.segments.clear();
        (self.readable, self.readable_bytes, self.writable_bytes) = (0, 0, 0);
    }

    /// Adds one buffer. A buffer of length 0 adds nothing: where a request is split is the driver's choice.
    fn push(&mut self, descriptor: &Descriptor, memory: &Memory) -> Result<(), GuestFault> {
        let length = descriptor.length.get();
        let writable = descriptor.has(WRITE);
        if !writable && self.segments.len() > self.readable as usize {
            return Err(GuestFault::ReadableAfterWritable);
        }
        memory.segments(descriptor.address.get(), length, &mut self.segments)?;
        let present = self.readable_bytes + self.writable_bytes;
        present.checked_add(length).ok_or(GuestFault::TooLong)?;
        if writable {
            self.writable_bytes += length;
        } else {
            self.readable_bytes += length;
            self.readable = self.segments.len() as u32;
        }
        Ok(())
    }

    /// Walks the chain that starts at `head`. On an error the chain holds no buffers.
    pub fn walk(
        &mut self,
        head: u16,
        table: &VolatileSlice<'_>,
        indirect: bool,
        memory: &Memory,
    ) -> Result<(), GuestFault> {
        self.clear();
        let result = self.walk_direct(head, table, indirect, memory);
        if result.is_err() {
            self.clear();
        }
        result
    }

    fn walk_direct(
        &mut self,
        head: u16,
        table: &VolatileSlice<'_>,
        indirect: bool,
        memory: &Memory,
    ) -> Result<(), GuestFault> {
        let mut budget = MAX_CHAIN_LENGTH;
        let mut walk = Walk::new(head, table);
        while let Some(descriptor) = walk.next(&mut budget)? {
            if descriptor.has(INDIRECT) {
                if !indirect || descriptor.has(NEXT) {
                    return Err(GuestFault::Indirect);
                }
                // It is no buffer itself, and so does not count.
                return self.walk_indirect(&descriptor, memory, budget + 1);
            }
            self.push(&descriptor, memory)?;
        }
        Ok(())
    }

    fn walk_indirect(
        &mut self,
        descriptor: &Descriptor,
        memory: &Memory,
        mut budget: usize,
    ) -> Result<(), GuestFault> {
        let bytes = usize::try_from(descriptor.length.get()).map_err(|_| GuestFault::Indirect)?;
        if bytes == 0
            || bytes % DESCRIPTOR_BYTES != 0
            || bytes > MAX_CHAIN_LENGTH * DESCRIPTOR_BYTES
        {
            return Err(GuestFault::Indirect);
        }
        let mut copy = Vec::new();
        let table = match memory.slice(descriptor.address.get(), bytes) {
            Some(table) => table,
            // It may also cross from a region into an adjacent one.
            None => copy_table(descriptor.address.get(), bytes, memory, &mut copy)?,
        };
        let mut walk = Walk::new(0, &table);
        while let Some(descriptor) = walk.next(&mut budget)? {
            if descriptor.has(INDIRECT) {
                return Err(GuestFault::Indirect);
            }
            self.push(&descriptor, memory)?;
        }
        Ok(())
    }
}

fn copy_table<'t>(
    address: u64,
    bytes: usize,
    memory: &Memory,
    copy: &'t mut Vec<u8>,
) -> Result<VolatileSlice<'t>, GuestFault> {
    copy.resize(bytes, 0);
    memory
        .map()
        .read_slice(copy, GuestAddress(address))
        .map_err(|_| GuestFault::Unmapped)?;
    Ok(VolatileSlice::from(copy.as_mut_slice()))
}

/// Follows `next` through one table.
struct Walk<'t, 'm> {
    next: Option<u16>,
    table: &'t VolatileSlice<'m>,
}

impl<'t, 'm> Walk<'t, 'm> {
    fn new(head: u16, table: &'t VolatileSlice<'m>) -> Self {
        Self {
            next: Some(head),
            table,
        }
    }

    fn next(&mut self, budget: &mut usize) -> Result<Option<Descriptor>, GuestFault> {
        let Some(index) = self.next else {
            return Ok(None);
        };
        *budget = budget.checked_sub(1).ok_or(GuestFault::ChainTooLong)?;
        let mut descriptor = Descriptor::new_zeroed();
        self.table
            .read_slice(
                descriptor.as_mut_bytes(),
                usize::from(index) * DESCRIPTOR_BYTES,
            )
            .map_err(|_| GuestFault::DescriptorIndex)?;
        self.next = descriptor.has(NEXT).then(|| descriptor.next.get());
        Ok(Some(descriptor))
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestMemoryMmap;

    use super::*;

    const SIZE: u16 = 8;
    /// An indirect table, and the end of guest memory.
    const TABLE: u64 = 0x1_0000;
    const END: u64 = 16 << 20;

    /// Address, length, flags, next.
    type Entry = (u64, u32, u16, u16);

    const fn good(flags: u16, next: u16) -> Entry {
        (0x1000, 16, flags, next)
    }

    const fn table(entries: u32) -> Entry {
        (TABLE, 16 * entries, INDIRECT, 0)
    }

    fn store(memory: &Memory, at: u64, entries: &[Entry]) {
        for (i, (address, length, flags, next)) in (0..).zip(entries) {
            let descriptor = Descriptor {
                address: (*address).into(),
                length: (*length).into(),
                flags: (*flags).into(),
                next: (*next).into(),
            };
            let at = GuestAddress(at + 16 * i);
            memory.map().write_slice(descriptor.as_bytes(), at).unwrap();
        }
    }

    fn walk(ring: &[Entry], indirect: &[Entry], feature: bool) -> Result<Chain, GuestFault> {
        let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), END as usize)]).unwrap();
        let memory = Memory::new(map);
        store(&memory, 0, ring);
        store(&memory, TABLE, indirect);
        let descriptors = memory
            .slice(0, DESCRIPTOR_BYTES * usize::from(SIZE))
            .unwrap();
        let mut chain = Chain::default();
        let result = chain.walk(0, &descriptors, feature, &memory);
        if result.is_err() {
            assert!(chain.readable().is_empty() && chain.writable().is_empty());
            assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (0, 0));
        }
        result.map(|()| chain)
    }

    #[test]
    fn each_mistake_has_a_fault_of_its_own() {
        use GuestFault::*;
        let loops = [good(NEXT, 1), good(NEXT, 0)];
        let backwards = [good(WRITE | NEXT, 1), good(0, 0)];
        let rows: &[(&str, &[Entry], &[Entry], GuestFault)] = &[
            ("outside", &[(END, 1, 0, 0)], &[], Unmapped),
            ("runs out", &[(END - 1, 2, WRITE, 0)], &[], Unmapped),
            ("wraps", &[(u64::MAX, 2, 0, 0)], &[], Unmapped),
            ("table outside", &[(END, 16, INDIRECT, 0)], &[], Unmapped),
            (
                "table wraps",
                &[(u64::MAX - 15, 32, INDIRECT, 0)],
                &[],
                Unmapped,
            ),
            ("loop", &loops, &[], ChainTooLong),
            ("loop in a table", &[table(2)], &loops, ChainTooLong),
            (
                "next is the size",
                &[good(NEXT, SIZE)],
                &[],
                DescriptorIndex,
            ),
            (
                "next is the largest",
                &[good(NEXT, u16::MAX)],
                &[],
                DescriptorIndex,
            ),
            (
                "next leaves its table",
                &[table(1)],
                &[good(NEXT, 1)],
                DescriptorIndex,
            ),
            ("backwards", &backwards, &[], ReadableAfterWritable),
            (
                "backwards in a table",
                &[table(2)],
                &backwards,
                ReadableAfterWritable,
            ),
            (
                "backwards across",
                &[backwards[0], table(1)],
                &[good(0, 0)],
                ReadableAfterWritable,
            ),
            ("no entries", &[table(0)], &[], Indirect),
            (
                "odd length",
                &[(TABLE, 24, INDIRECT, 0)],
                &[good(0, 0)],
                Indirect,
            ),
            ("too many entries", &[table(1025)], &[good(0, 0)], Indirect),
            ("65536 entries", &[table(1 << 16)], &[good(0, 0)], Indirect),
            ("nested", &[table(1)], &[table(1)], Indirect),
            (
                "chained",
                &[(TABLE, 16, INDIRECT | NEXT, 1)],
                &[good(0, 0)],
                Indirect,
            ),
        ];
        for (name, ring, indirect, fault) in rows {
            assert_eq!(walk(ring, indirect, true).err(), Some(*fault), "{name}");
        }
        let without = walk(&[table(1)], &[good(0, 0)], false);
        assert_eq!(without.err(), Some(Indirect));
    }

    /// A chain of this many times `length` bytes, by an indirect table.
    fn long(count: u32, length: u32) -> Vec<Entry> {
        (1..=count)
            .map(|i| (0, length, if i < count { NEXT } else { 0 }, i as u16))
            .collect()
    }

    #[test]
    fn a_chain_may_be_as_long_as_a_used_length_can_say() {
        let mebibytes = |count| long(count, 8 << 20);
        assert_eq!(
            walk(&[table(512)], &mebibytes(512), true).err(),
            Some(GuestFault::TooLong)
        );
        let mut largest = mebibytes(512);
        largest[511].1 -= 1;
        let chain = walk(&[table(512)], &largest, true).unwrap();
        assert_eq!(chain.readable_bytes(), u64::from(u32::MAX));
    }

    #[test]
    fn direct_and_indirect_buffers_count_together() {
        let count = MAX_CHAIN_LENGTH as u32;
        let chain = walk(&[table(count)], &long(count, 1), true).unwrap();
        assert_eq!(chain.readable().len(), MAX_CHAIN_LENGTH);
        let ring = [good(NEXT, 1), good(NEXT, 2), table(count - 2)];
        let chain = walk(&ring, &long(count - 2, 1), true).unwrap();
        assert_eq!(chain.readable().len(), MAX_CHAIN_LENGTH);
        let ring = [good(NEXT, 1), good(NEXT, 2), table(count - 1)];
        let fault = walk(&ring, &long(count - 1, 1), true).unwrap_err();
        assert_eq!(fault, GuestFault::ChainTooLong);
    }
}
