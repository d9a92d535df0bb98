//! One request as a segment of a bus transfer.

use std::ops::Range;

use thiserror::Error;

use crate::address::Address;
use crate::wire::{FLAG_FAIL_NEXT, FLAG_READ, OutHeader};

/// Longest message, in bytes; i2c-dev of the Linux kernel takes no longer ones.
pub const MAX_LENGTH: usize = 8192;

/// Which way the bytes of a message go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the target to the guest.
    Read,
    /// From the guest to the target.
    Write,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The target.
    pub address: Address,
    /// The direction.
    pub direction: Direction,
    /// Bytes to move, at most [`MAX_LENGTH`]; 0 only addresses the target.
    pub length: usize,
}

/// One message of a transfer. Its bytes are a part of the transfer's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The target.
    pub address: Address,
    /// The direction.
    pub direction: Direction,
    /// Where its bytes are; empty if it only addresses the target.
    pub range: Range<usize>,
}

/// Why a request cannot become a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Fewer readable bytes than the header has.
    #[error("no header")]
    NoHeader,
    /// No writable byte for the status.
    #[error("no room for the status")]
    NoStatus,
    /// The address is neither a 7-bit nor a 10-bit one.
    #[error("bad address")]
    Address,
    /// Flags that no specification defines yet.
    #[error("reserved flags")]
    Flags,
    /// A read request with bytes to write, or a write request with room for more than the status.
    #[error("buffers against the direction")]
    Direction,
    /// More than [`MAX_LENGTH`] bytes.
    #[error("longer than {MAX_LENGTH} bytes")]
    Length,
    /// The guest may not use this address, or it is nobody's.
    #[error("address not allowed")]
    Denied,
    /// Messages of one group go to different adapters of the host.
    #[error("a group over two buses")]
    TwoBuses,
    /// The group has too many messages.
    #[error("too many messages in a group")]
    TooMany,
    /// The bytes to write could not be read.
    #[error("buffer outside guest memory")]
    Memory,
}

impl Shape {
    /// Decodes a request with `readable` bytes behind its header and `writable` bytes before its status.
    ///
    /// # Errors
    /// [`Refusal`] if it means nothing.
    pub fn decode(header: &OutHeader, readable: u64, writable: u64) -> Result<Self, Refusal> {
        let flags = header.flags.get();
        if flags & !(FLAG_FAIL_NEXT | FLAG_READ) != 0 {
            return Err(Refusal::Flags);
        }
        let address = Address::from_wire(header.address.get()).ok_or(Refusal::Address)?;
        let (direction, length, against) = if flags & FLAG_READ != 0 {
            (Direction::Read, writable, readable)
        } else {
            (Direction::Write, readable, writable)
        };
        if against != 0 {
            return Err(Refusal::Direction);
        }
        match usize::try_from(length) {
            Ok(length @ ..=MAX_LENGTH) => Ok(Self {
                address,
                direction,
                length,
            }),
            _ => Err(Refusal::Length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(address: u16, flags: u32, readable: u64, writable: u64) -> Result<Shape, Refusal> {
        let header = OutHeader {
            address: address.into(),
            padding: 0xffff.into(),
            flags: flags.into(),
        };
        Shape::decode(&header, readable, writable)
    }

    #[test]
    fn requests_are_decoded_and_refused_as_documented() {
        let shape = |direction, length| {
            Ok(Shape {
                address: Address::Seven(0x50),
                direction,
                length,
            })
        };
        use Direction::{Read, Write};
        let table = [
            (0xa0, 0, 0, 0, shape(Write, 0)),
            (0xa0, 1, 3, 0, shape(Write, 3)),
            (0xa0, 2, 0, 0, shape(Read, 0)),
            (0xa0, 3, 0, 5, shape(Read, 5)),
            (0xa0, 0, 8192, 0, shape(Write, 8192)),
            (0xa0, 2, 0, 8192, shape(Read, 8192)),
            (0xa0, 0, 8193, 0, Err(Refusal::Length)),
            (0xa0, 2, 0, 8193, Err(Refusal::Length)),
            // lengths are not cut to 16 bits
            (0xa0, 0, 65537, 0, Err(Refusal::Length)),
            (0xa0, 2, 0, u64::MAX, Err(Refusal::Length)),
            (0xa0, 0, 1, 1, Err(Refusal::Direction)),
            (0xa0, 2, 1, 1, Err(Refusal::Direction)),
            (0xa0, 4, 1, 0, Err(Refusal::Flags)),
            (0xa0, u32::MAX, 0, 1, Err(Refusal::Flags)),
            (0xa1, 0, 1, 0, Err(Refusal::Address)),
            (0x01a0, 0, 1, 0, Err(Refusal::Address)),
        ];
        for (address, flags, readable, writable, expected) in table {
            assert_eq!(
                decode(address, flags, readable, writable),
                expected,
                "{address:#x} {flags:#x} {readable} {writable}"
            );
        }
    }
}
