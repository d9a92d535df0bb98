//! One walk over a descriptor chain: every field is read once, checked, and turned into segments.

use vm_memory::{Bytes, GuestAddress, VolatileSlice};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::layout::DESCRIPTOR_BYTES;
use crate::fault::GuestFault;
use crate::memory::{Memory, Segment};

/// Most descriptors that one request may have, direct and indirect ones together.
pub const MAX_CHAIN_LENGTH: usize = 1024;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// `struct virtq_desc` (section 2.7.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes)]
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

/// The buffers of one request, in order. Reused from request to request, so that no request allocates.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub readable: Vec<Segment>,
    pub writable: Vec<Segment>,
    pub readable_bytes: u64,
    pub writable_bytes: u64,
}

impl Chain {
    fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
        self.readable_bytes = 0;
        self.writable_bytes = 0;
    }

    /// Adds one buffer. A buffer of length 0 adds nothing: where a request is split is the driver's choice.
    fn push(&mut self, descriptor: &Descriptor, memory: &Memory) -> Result<(), GuestFault> {
        let length = descriptor.length.get();
        let (segments, bytes) = if descriptor.has(WRITE) {
            (&mut self.writable, &mut self.writable_bytes)
        } else if self.writable.is_empty() {
            (&mut self.readable, &mut self.readable_bytes)
        } else {
            return Err(GuestFault::ReadableAfterWritable);
        };
        memory.segments(descriptor.address.get(), length, segments)?;
        *bytes += u64::from(length);
        if self.readable_bytes + self.writable_bytes > u64::from(u32::MAX) {
            return Err(GuestFault::TooLong);
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
                return self.walk_indirect(&descriptor, memory, &mut budget);
            }
            self.push(&descriptor, memory)?;
        }
        Ok(())
    }

    fn walk_indirect(
        &mut self,
        descriptor: &Descriptor,
        memory: &Memory,
        budget: &mut usize,
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
        while let Some(descriptor) = walk.next(budget)? {
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
