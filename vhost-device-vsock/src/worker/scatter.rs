//! Receive buffers of the guest, of which one system call fills many.
//!
//! Chains are taken from the queue as they are wanted, and those that were not needed go back at the end of a turn: so a
//! queue that stops, or guest memory that changes, finds none of them here.

use std::collections::VecDeque;
use std::io;

use vhost_device_core::{GuestFault, Queue, Segments, Ticket};

use crate::host::{Room, Socket, Vectors};
use crate::wire::{HEADER_BYTES, Header};

/// A chain that was taken.
struct Chain {
    ticket: Ticket,
    segments: Segments,
    /// Bytes of data that it can take.
    room: u64,
    /// Bytes of data that it was offered to take in the last system call.
    offered: u32,
}

/// Chains that were taken and are not used yet, in order.
#[derive(Default)]
pub struct Scatter {
    chains: VecDeque<Chain>,
    /// Bytes of data that all of them can take.
    room: u64,
}

/// What one system call brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brought {
    /// Bytes; 0 is the end.
    pub bytes: usize,
    /// Bytes that would have fit.
    pub room: usize,
}

impl Scatter {
    /// Takes chains until there is room for `bytes` of data, or `count` of them, or no more; at least one. A chain without
    /// room for a header is refused. Returns how many there are.
    pub fn reserve(&mut self, queue: &mut Queue<'_>, count: usize, bytes: u32) -> usize {
        while self.chains.is_empty() || (self.chains.len() < count && self.room < bytes.into()) {
            let Some(request) = queue.next() else {
                break;
            };
            if request.writable() < HEADER_BYTES {
                request.fail(GuestFault::ShortAnswer);
                continue;
            }
            let (ticket, segments) = request.detach();
            let room = segments.writable().saturating_sub(HEADER_BYTES);
            self.room += room;
            self.chains.push_back(Chain {
                ticket,
                segments,
                room,
                offered: 0,
            });
        }
        self.chains.len()
    }

    /// Receives up to `limit` bytes into up to `count` chains, behind where their headers will be.
    ///
    /// # Errors
    /// From the socket.
    pub fn receive(
        &mut self,
        socket: &Socket,
        count: usize,
        limit: u32,
        room: &mut Room,
    ) -> io::Result<Brought> {
        let mut left = limit as usize;
        let mut vectors = Vectors::new(std::mem::take(room));
        for chain in &mut self.chains {
            chain.offered = 0;
        }
        for chain in self.chains.iter_mut().take(count) {
            let offered = offer(&chain.segments, left, &mut vectors);
            chain.offered = offered as u32;
            left -= offered;
            if left == 0 {
                break;
            }
        }
        let room_there = vectors.len();
        let result = match room_there {
            0 => Err(io::ErrorKind::StorageFull.into()),
            _ => socket.receive(&mut vectors),
        };
        *room = vectors.into_room();
        Ok(Brought {
            bytes: result?,
            room: room_there,
        })
    }

    /// Completes the first chain, which was filled with up to `bytes` by [`receive`](Self::receive), with the header that
    /// `header` makes for what it has.
    pub fn complete(
        &mut self,
        queue: &mut Queue<'_>,
        bytes: u32,
        header: impl FnOnce(u32) -> Header,
    ) -> u32 {
        let Some(chain) = self.chains.front_mut() else {
            return bytes;
        };
        let length = chain.offered.min(bytes);
        // One that takes nothing has room for a header only.
        if length > 0 && chain.segments.write(&header(length)).is_ok() {
            chain.segments.advance_written(length.into());
        }
        self.finish_first(queue);
        length
    }

    /// Completes the first chain with a packet that is a copy. Returns how many bytes of `data` are in it.
    pub fn send(
        &mut self,
        queue: &mut Queue<'_>,
        data: &[u8],
        header: impl FnOnce(u32) -> Header,
    ) -> usize {
        let Some(chain) = self.chains.front_mut() else {
            return 0;
        };
        let length = usize::try_from(chain.room).map_or(data.len(), |room| room.min(data.len()));
        if length > 0 || data.is_empty() {
            let data = data.get(..length).unwrap_or_default();
            // There is room for both.
            let _ = chain.segments.write(&header(length as u32));
            let _ = chain.segments.write_slice(data);
        }
        self.finish_first(queue);
        length
    }

    /// Completes the first chain with what was written to it.
    fn finish_first(&mut self, queue: &mut Queue<'_>) {
        if let Some(chain) = self.chains.pop_front() {
            self.room -= chain.room;
            queue.complete(chain.ticket, chain.segments.written());
            queue.recycle(chain.segments);
        }
    }

    /// Gives all chains back empty: they are of no use.
    pub fn discard(&mut self, queue: &mut Queue<'_>) {
        while !self.chains.is_empty() {
            self.finish_first(queue);
        }
    }

    /// Leaves the chains that were not used in the queue.
    pub fn put_back(&mut self, queue: &mut Queue<'_>) {
        self.room = 0;
        while let Some(chain) = self.chains.pop_back() {
            queue.put_back(chain.ticket);
            queue.recycle(chain.segments);
        }
    }
}

/// Adds the pieces behind the header to `vectors`, up to `limit` bytes. Returns how many bytes they have.
fn offer<'m>(segments: &'m Segments, limit: usize, vectors: &mut Vectors<'m>) -> usize {
    let mut skip = HEADER_BYTES as usize;
    let mut left = limit;
    for piece in segments.writable_pieces() {
        let skipped = piece.len().min(skip);
        skip -= skipped;
        let length = (piece.len() - skipped).min(left);
        let Ok(piece) = piece.subslice(skipped, length) else {
            break;
        };
        if length > 0 && !vectors.push(&piece) {
            break;
        }
        left -= length;
        if left == 0 {
            break;
        }
    }
    limit - left
}
