//! A request: its device-readable bytes in order, its device-writable room in order, and the duty to end it once.
//!
//! How the driver split the bytes over descriptors is invisible here (section 2.7.4: framing is the driver's choice).

use std::borrow::Borrow;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use vm_memory::{Bytes, ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::fault::GuestFault;
use crate::ids::QueueIndex;
use crate::memory::{Memory, Segment};
use crate::ring::{Chain, RequestSlot, Ticket};

/// A position in a list of segments.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    segment: u32,
    offset: u32,
    /// Bytes before the position.
    passed: u64,
}

impl Cursor {
    /// The rest of the current segment, at most `limit` bytes, skipping finished segments.
    fn piece(&mut self, list: &[Segment], limit: u64) -> Option<(u64, usize)> {
        loop {
            let segment = list.get(self.segment as usize)?;
            let left = segment.length - self.offset;
            if left > 0 {
                let length = u64::from(left).min(limit);
                return (length > 0)
                    .then_some((segment.address + u64::from(self.offset), length as usize));
            }
            self.segment += 1;
            self.offset = 0;
        }
    }

    /// Moves on by `bytes`, at most the rest of the current segment.
    fn advance(&mut self, bytes: usize) {
        self.offset += bytes as u32;
        self.passed += bytes as u64;
    }
}

/// The buffers of a request: `M` is how they hold on to guest memory.
#[derive(Debug)]
pub struct Buffers<M> {
    memory: M,
    chain: Chain,
    read: Cursor,
    write: Cursor,
    /// Bytes at the end of the writable part that only [`write_tail`](Self::write_tail) reaches.
    tail: u64,
    tail_written: bool,
}

/// The buffers of a detached request. They keep guest memory mapped until they are dropped.
pub type Segments = Buffers<Arc<Memory>>;

impl<M: Borrow<Arc<Memory>>> Buffers<M> {
    fn new(memory: M, chain: Chain) -> Self {
        Self {
            memory,
            chain,
            read: Cursor::default(),
            write: Cursor::default(),
            tail: 0,
            tail_written: false,
        }
    }

    /// Device-readable bytes not read yet.
    pub fn readable(&self) -> u64 {
        self.chain.readable_bytes() - self.read.passed
    }

    /// Device-writable bytes not written yet, without a reserved tail.
    pub fn writable(&self) -> u64 {
        (self.chain.writable_bytes() - self.write.passed).saturating_sub(self.tail)
    }

    /// The length to report as used: everything up to the last byte written.
    pub fn written(&self) -> u32 {
        let bytes = if self.tail_written {
            self.chain.writable_bytes()
        } else {
            self.write.passed
        };
        // A chain has at most 4 GiB - 1.
        bytes as u32
    }

    /// Reads exactly `out.len()` bytes.
    ///
    /// # Errors
    /// [`GuestFault::ShortRequest`] if fewer are left; nothing is consumed then.
    pub fn read_slice(&mut self, out: &mut [u8]) -> Result<(), GuestFault> {
        if self.readable() < out.len() as u64 {
            return Err(GuestFault::ShortRequest);
        }
        let mut rest = out;
        while !rest.is_empty() {
            let (address, length) = self
                .read
                .piece(self.chain.readable(), rest.len() as u64)
                .ok_or(GuestFault::ShortRequest)?;
            let (now, later) = rest.split_at_mut(length);
            slice(self.memory.borrow(), address, length)?
                .read_slice(now, 0)
                .map_err(|_| GuestFault::Unmapped)?;
            self.read.advance(length);
            rest = later;
        }
        Ok(())
    }

    /// Reads one wire structure. Each byte is read once: the value checked is the value used.
    ///
    /// # Errors
    /// [`GuestFault::ShortRequest`] if the readable part is too short.
    pub fn read<T: FromBytes + IntoBytes>(&mut self) -> Result<T, GuestFault> {
        let mut value = T::new_zeroed();
        self.read_slice(value.as_mut_bytes())?;
        Ok(value)
    }

    /// Passes up to `limit` readable bytes to `sink`, one contiguous piece at a time, without a copy of ours. `sink` says
    /// how much it took; less than offered ends the transfer, and so does an error after the first bytes, as in
    /// `writev(2)`. Returns how many bytes were taken.
    ///
    /// # Errors
    /// What `sink` returned for the first piece; nothing is consumed then.
    pub fn drain_to(
        &mut self,
        limit: u64,
        mut sink: impl FnMut(&VolatileSlice<'_>) -> io::Result<usize>,
    ) -> io::Result<u64> {
        let limit = limit.min(self.readable());
        transfer(
            self.memory.borrow(),
            &mut self.read,
            self.chain.readable(),
            limit,
            |_, piece| sink(piece),
        )
    }

    /// As [`drain_to`](Self::drain_to), into a file or socket.
    ///
    /// # Errors
    /// As [`drain_to`](Self::drain_to).
    pub fn write_to(&mut self, sink: &mut impl WriteVolatile, limit: u64) -> io::Result<u64> {
        self.drain_to(limit, |piece| sink.write_volatile(piece).map_err(io_error))
    }

    /// Counts `bytes` read through [`readable_pieces`](Self::readable_pieces), at most what was there.
    pub fn advance_read(&mut self, bytes: u64) {
        let limit = bytes.min(self.readable());
        skip(&mut self.read, self.chain.readable(), limit, |_, _| {});
    }

    /// Appends exactly `bytes` to the answer.
    ///
    /// # Errors
    /// [`GuestFault::ShortAnswer`] if there is less room; nothing is written then.
    pub fn write_slice(&mut self, bytes: &[u8]) -> Result<(), GuestFault> {
        if self.writable() < bytes.len() as u64 {
            return Err(GuestFault::ShortAnswer);
        }
        put(
            self.memory.borrow(),
            &mut self.write,
            self.chain.writable(),
            bytes,
        )
    }

    /// Appends one wire structure to the answer.
    ///
    /// # Errors
    /// [`GuestFault::ShortAnswer`] if there is not room for all of it.
    pub fn write<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<(), GuestFault> {
        self.write_slice(value.as_bytes())
    }

    /// Lets `source` fill up to `limit` bytes of the answer in place, one contiguous piece at a time. `source` says how
    /// much it filled; less than offered ends the transfer, and so does an error after the first bytes, as in
    /// `readv(2)`. Returns how many bytes were filled.
    ///
    /// # Errors
    /// What `source` returned for the first piece; the answer is as before then.
    pub fn fill_from(
        &mut self,
        limit: u64,
        mut source: impl FnMut(&VolatileSlice<'_>) -> io::Result<usize>,
    ) -> io::Result<u64> {
        let limit = limit.min(self.writable());
        let memory: &Arc<Memory> = self.memory.borrow();
        transfer(
            memory,
            &mut self.write,
            self.chain.writable(),
            limit,
            |address, piece| {
                let filled = source(piece)?.min(piece.len());
                if filled > 0 {
                    memory.mark(address, filled as u64);
                }
                Ok(filled)
            },
        )
    }

    /// As [`fill_from`](Self::fill_from), from a file or socket. `Ok(0)` is its end, if there was room.
    ///
    /// # Errors
    /// As [`fill_from`](Self::fill_from).
    pub fn read_from(&mut self, source: &mut impl ReadVolatile, limit: u64) -> io::Result<u64> {
        self.fill_from(limit, |piece| {
            source.read_volatile(&mut { *piece }).map_err(io_error)
        })
    }

    /// Sets the last `bytes` of the writable part aside, for a status that stands behind data.
    ///
    /// # Errors
    /// [`GuestFault::ShortAnswer`] if there is not that much room.
    pub fn reserve_tail(&mut self, bytes: u64) -> Result<(), GuestFault> {
        if self.writable() < bytes {
            return Err(GuestFault::ShortAnswer);
        }
        self.tail += bytes;
        Ok(())
    }

    /// Writes the reserved tail, wherever the data before it ended.
    ///
    /// # Errors
    /// [`GuestFault::ShortAnswer`] unless `bytes` is as long as what was reserved.
    pub fn write_tail(&mut self, bytes: &[u8]) -> Result<(), GuestFault> {
        if bytes.len() as u64 != self.tail {
            return Err(GuestFault::ShortAnswer);
        }
        let mut cursor = seek(
            self.chain.writable(),
            self.chain.writable_bytes() - self.tail,
        );
        put(
            self.memory.borrow(),
            &mut cursor,
            self.chain.writable(),
            bytes,
        )?;
        self.tail_written = self.tail > 0;
        Ok(())
    }

    /// The contiguous pieces of the answer's free room, for scatter input straight into guest memory. Whoever writes to
    /// them reports it with [`advance_written`](Self::advance_written).
    pub fn writable_pieces(&self) -> impl Iterator<Item = VolatileSlice<'_>> {
        let memory: &Memory = self.memory.borrow();
        pieces(memory, self.write, self.chain.writable(), self.writable())
    }

    /// The contiguous pieces of the readable rest, for gather output straight from guest memory.
    pub fn readable_pieces(&self) -> impl Iterator<Item = VolatileSlice<'_>> {
        let memory: &Memory = self.memory.borrow();
        pieces(memory, self.read, self.chain.readable(), self.readable())
    }

    /// Counts `bytes` written through [`writable_pieces`](Self::writable_pieces), at most the room that was there.
    pub fn advance_written(&mut self, bytes: u64) {
        let limit = bytes.min(self.writable());
        let memory: &Memory = self.memory.borrow();
        skip(
            &mut self.write,
            self.chain.writable(),
            limit,
            |address, length| {
                memory.mark(address, length as u64);
            },
        );
    }

    pub(crate) fn into_chain(self) -> Chain {
        self.chain
    }
}

fn slice(memory: &Memory, address: u64, length: usize) -> Result<VolatileSlice<'_>, GuestFault> {
    memory.slice(address, length).ok_or(GuestFault::Unmapped)
}

fn io_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}

/// Moves the cursor on by `limit` bytes and shows what it passes, address and length.
fn skip(cursor: &mut Cursor, list: &[Segment], limit: u64, mut passed: impl FnMut(u64, usize)) {
    let mut left = limit;
    while let Some((address, length)) = cursor.piece(list, left) {
        passed(address, length);
        cursor.advance(length);
        left -= length as u64;
    }
}

fn put(
    memory: &Memory,
    cursor: &mut Cursor,
    list: &[Segment],
    bytes: &[u8],
) -> Result<(), GuestFault> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (address, length) = cursor
            .piece(list, rest.len() as u64)
            .ok_or(GuestFault::ShortAnswer)?;
        let (now, later) = rest.split_at(length);
        slice(memory, address, length)?
            .write_slice(now, 0)
            .map_err(|_| GuestFault::Unmapped)?;
        memory.mark(address, length as u64);
        cursor.advance(length);
        rest = later;
    }
    Ok(())
}

fn transfer(
    memory: &Memory,
    cursor: &mut Cursor,
    list: &[Segment],
    limit: u64,
    mut step: impl FnMut(u64, &VolatileSlice<'_>) -> io::Result<usize>,
) -> io::Result<u64> {
    let mut left = limit;
    while let Some((address, length)) = cursor.piece(list, left) {
        let piece = slice(memory, address, length).map_err(io::Error::other)?;
        let done = match step(address, &piece) {
            Ok(done) => done.min(length),
            // Bytes that were moved must be accounted for; an error that lasts comes again.
            Err(_) if left < limit => break,
            Err(error) => return Err(error),
        };
        cursor.advance(done);
        left -= done as u64;
        if done < length {
            break;
        }
    }
    Ok(limit - left)
}

fn seek(list: &[Segment], position: u64) -> Cursor {
    let mut cursor = Cursor::default();
    skip(&mut cursor, list, position, |_, _| {});
    cursor
}

fn pieces<'m>(
    memory: &'m Memory,
    cursor: Cursor,
    list: &'m [Segment],
    limit: u64,
) -> impl Iterator<Item = VolatileSlice<'m>> {
    let mut cursor = cursor;
    let mut left = limit;
    std::iter::from_fn(move || {
        let (address, length) = cursor.piece(list, left)?;
        cursor.advance(length);
        left -= length as u64;
        memory.slice(address, length)
    })
}

/// A request taken from a queue. It derefs to its [`Buffers`].
///
/// It ends exactly once: by [`finish`](Self::finish), [`fail`](Self::fail), [`put_back`](Self::put_back) or
/// [`detach`](Self::detach). Dropped, it is finished with what was written so far.
pub struct Request<'q> {
    slot: RequestSlot<'q>,
    buffers: Buffers<&'q Arc<Memory>>,
    ended: bool,
}

impl<'q> Request<'q> {
    pub(crate) fn new(slot: RequestSlot<'q>, chain: Chain) -> Self {
        let buffers = Buffers::new(slot.memory(), chain);
        Self {
            slot,
            buffers,
            ended: false,
        }
    }

    /// The queue that the request came from.
    pub fn queue(&self) -> QueueIndex {
        self.slot.index()
    }

    /// Completes the request with what was written to it.
    pub fn finish(mut self) {
        self.complete();
    }

    /// Refuses the request: it is completed with used length 0, counted and logged.
    pub fn fail(mut self, fault: GuestFault) {
        let chain = self.end();
        self.slot.refuse(chain, fault);
    }

    /// Leaves the request in the ring as if it had not been taken; the next [`Queue::next`](crate::Queue::next) returns
    /// it again. What was already written to its buffers stays there.
    pub fn put_back(mut self) {
        let chain = self.end();
        self.slot.put_back(chain);
    }

    /// Takes the request out of the batch, to be completed later with [`Queue::complete`](crate::Queue::complete).
    pub fn detach(mut self) -> (Ticket, Segments) {
        let segments = Buffers {
            memory: Arc::clone(self.slot.memory()),
            chain: self.end(),
            read: self.buffers.read,
            write: self.buffers.write,
            tail: self.buffers.tail,
            tail_written: self.buffers.tail_written,
        };
        (self.slot.detach(), segments)
    }

    fn complete(&mut self) {
        let (written, read) = (self.buffers.written(), self.buffers.read.passed);
        let chain = self.end();
        self.slot.complete(chain, written, read);
    }

    /// Marks the request as ended and hands out its lists.
    fn end(&mut self) -> Chain {
        self.ended = true;
        std::mem::take(&mut self.buffers.chain)
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.complete();
        }
    }
}

impl<'q> Deref for Request<'q> {
    type Target = Buffers<&'q Arc<Memory>>;

    fn deref(&self) -> &Self::Target {
        &self.buffers
    }
}

impl DerefMut for Request<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.buffers
    }
}
