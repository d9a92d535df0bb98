//! Chains from the guest whose data goes to one host program in one system call.

use vhost_device_core::{Segments, Ticket};

use crate::host::{Room, Socket, Vectors};
use crate::table::Slot;

/// Bytes after which the data is sent: the program works on them while we go on.
const ENOUGH_BYTES: u32 = 64 * 1024;

/// Most chains.
const ENOUGH_CHAINS: usize = 128;

/// One packet's data.
pub struct Item {
    /// To complete its chain.
    pub ticket: Ticket,
    /// Where the data is.
    pub segments: Segments,
    /// Bytes that are still to be sent.
    pub left: u32,
}

/// Packets of one connection, in order.
#[derive(Default)]
pub struct Gather {
    /// The connection; `None` if there are no packets.
    pub slot: Option<Slot>,
    /// The packets.
    pub items: Vec<Item>,
    bytes: u32,
}

/// How sending went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is sent.
    Sent,
    /// The host program has to read before the rest can be sent.
    Full,
    /// The host program is gone.
    Gone,
    /// Guest memory cannot be read.
    Unreadable,
}

impl Gather {
    /// Adds a packet; true if it is time to send.
    pub fn push(&mut self, slot: Slot, item: Item) -> bool {
        self.slot = Some(slot);
        self.bytes = self.bytes.saturating_add(item.left);
        self.items.push(item);
        self.bytes >= ENOUGH_BYTES || self.items.len() >= ENOUGH_CHAINS
    }

    /// Sends what the socket takes. Returns how many bytes that was.
    pub fn send(&mut self, socket: &Socket, room: &mut Room) -> (u32, Outcome) {
        let mut sent = 0u32;
        let mut first = 0;
        loop {
            let (offered, result) = self.send_from(first, socket, room);
            let taken = match result {
                _ if offered == 0 => return (sent, Outcome::Sent),
                Ok(taken) => taken,
                Err(error) => return (sent, outcome(&error)),
            };
            sent = sent.saturating_add(u32::try_from(taken).unwrap_or(u32::MAX));
            first = self.advance(first, taken);
            if taken < offered {
                return (sent, Outcome::Full);
            }
        }
    }

    /// One system call, from packet `first` on.
    fn send_from(
        &self,
        first: usize,
        socket: &Socket,
        room: &mut Room,
    ) -> (usize, std::io::Result<usize>) {
        let mut vectors = Vectors::new(std::mem::take(room));
        'items: for item in self.items.iter().skip(first) {
            let mut left = item.left as usize;
            for piece in item.segments.readable_pieces() {
                if left == 0 {
                    break;
                }
                let Ok(piece) = piece.subslice(0, piece.len().min(left)) else {
                    break;
                };
                left -= piece.len();
                if !vectors.push(&piece) {
                    break 'items;
                }
            }
        }
        let offered = vectors.len();
        let result = match offered {
            0 => Ok(0),
            _ => socket.send(&mut vectors, false),
        };
        *room = vectors.into_room();
        (offered, result)
    }

    /// Counts `bytes` as sent, from packet `first` on. Returns the first packet that is not completely sent.
    fn advance(&mut self, first: usize, bytes: usize) -> usize {
        let mut bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut first = first;
        while let Some(item) = self.items.get_mut(first) {
            let now = item.left.min(bytes);
            item.segments.advance_read(now.into());
            item.left -= now;
            bytes -= now;
            if item.left > 0 {
                break;
            }
            first += 1;
        }
        first
    }

    /// Begins anew; the packets have been taken out.
    pub fn clear(&mut self) {
        self.slot = None;
        self.bytes = 0;
    }
}

/// What an error of a socket means.
pub fn outcome(error: &std::io::Error) -> Outcome {
    match (error.kind(), error.raw_os_error()) {
        (std::io::ErrorKind::WouldBlock, _) => Outcome::Full,
        // Of those the kernel runs out for a moment; the socket tells when it is writable.
        (_, Some(libc::EINTR | libc::ENOBUFS | libc::ENOMEM)) => Outcome::Full,
        (_, Some(libc::EFAULT)) => Outcome::Unreadable,
        _ => Outcome::Gone,
    }
}
