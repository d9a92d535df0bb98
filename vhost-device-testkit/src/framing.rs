//! The ways to spread one request over descriptors. Framing is the driver's choice: every one must give one answer.

use crate::failure::Result;
use crate::memory::Memory;
use crate::random::Random;
use crate::ring::Descriptor;
use crate::{ensure, fail};

/// Where a run of bytes is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// One descriptor.
    Whole,
    /// One descriptor for each byte.
    Bytes,
    /// Two descriptors, the second beginning at this offset.
    At(usize),
    /// Pieces of random length, from this seed.
    Random(u64),
}

impl Split {
    /// The lengths of the pieces of `len` bytes; none is 0.
    pub fn pieces(&self, len: usize) -> Vec<usize> {
        match self {
            _ if len == 0 => Vec::new(),
            Self::Whole => vec![len],
            Self::Bytes => vec![1; len],
            Self::At(at) if *at == 0 || *at >= len => vec![len],
            Self::At(at) => vec![*at, len - at],
            Self::Random(seed) => random_pieces(*seed, len),
        }
    }
}

fn random_pieces(seed: u64, len: usize) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut pieces = Vec::new();
    let mut left = len;
    while left > 0 {
        // At most about 32 pieces, so that a long request still fits a ring.
        let longest = left.min((len / 16).max(4)) as u64;
        let piece = (1 + random.below(longest)) as usize;
        pieces.push(piece);
        left -= piece;
    }
    pieces
}

/// How a request becomes a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framing {
    /// Cuts of the part that the device reads.
    pub readable: Split,
    /// Cuts of the part that the device writes.
    pub writable: Split,
    /// The chain is an indirect table.
    pub indirect: bool,
}

impl Framing {
    /// One descriptor for each direction.
    pub fn whole() -> Self {
        Self {
            readable: Split::Whole,
            writable: Split::Whole,
            indirect: false,
        }
    }

    /// The same chain as an indirect table.
    #[must_use]
    pub fn indirect(self) -> Self {
        Self {
            indirect: true,
            ..self
        }
    }

    /// Every framing worth trying for a request of these lengths, direct and (if `indirect`) indirect, with at most
    /// `limit` descriptors.
    pub fn all(readable: usize, writable: usize, limit: usize, indirect: bool) -> Vec<Self> {
        let mut splits = vec![(Split::Whole, Split::Whole), (Split::Bytes, Split::Bytes)];
        splits.push((Split::Bytes, Split::Whole));
        splits.push((Split::Whole, Split::Bytes));
        splits.extend((1..readable.min(65)).map(|at| (Split::At(at), Split::Whole)));
        splits.extend((1..writable.min(33)).map(|at| (Split::Whole, Split::At(at))));
        splits.extend(
            (writable.saturating_sub(8).max(1)..writable).map(|at| (Split::Whole, Split::At(at))),
        );
        splits.extend((0..8).map(|seed| (Split::Random(seed), Split::Random(seed + 100))));
        let direct = splits
            .into_iter()
            .filter(|(r, w)| r.pieces(readable).len() + w.pieces(writable).len() <= limit)
            .map(|(readable, writable)| Self {
                readable,
                writable,
                indirect: false,
            });
        let framings: Vec<Self> = direct.collect();
        let tables: Vec<Self> = match indirect {
            true => framings.iter().cloned().map(Self::indirect).collect(),
            false => Vec::new(),
        };
        [framings, tables].concat()
    }

    /// Lays a request out in guest memory. Every piece stands alone between guard bytes.
    pub fn place(&self, memory: &Memory, readable: &[u8], writable: u32) -> Placed {
        let mut chain = Vec::new();
        let mut rest = readable;
        for len in self.readable.pieces(readable.len()) {
            let (piece, tail) = rest.split_at(len);
            let address = guarded(memory, len);
            memory.write(address, piece);
            chain.push(Descriptor::readable(address, len as u32));
            rest = tail;
        }
        for len in self.writable.pieces(writable as usize) {
            let address = guarded(memory, len);
            memory.fill(address, len as u64, UNTOUCHED);
            chain.push(Descriptor::writable(address, len as u32));
        }
        Placed {
            chain,
            indirect: self.indirect,
        }
    }
}

const GUARD: u64 = 8;
const GUARD_BYTE: u8 = 0xa5;
/// What writable bytes hold before the device has written them.
pub const UNTOUCHED: u8 = 0xc3;

fn guarded(memory: &Memory, len: usize) -> u64 {
    let begin = memory.take(len as u64 + 2 * GUARD, 1);
    memory.fill(begin, GUARD, GUARD_BYTE);
    memory.fill(begin + GUARD + len as u64, GUARD, GUARD_BYTE);
    begin + GUARD
}

/// A request laid out in guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The descriptors, not yet linked.
    pub chain: Vec<Descriptor>,
    /// Whether they are meant as an indirect table.
    pub indirect: bool,
}

/// What came back for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Bytes that the device says it wrote.
    pub used_len: u32,
    /// All writable bytes, in order, written or not.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The bytes that the device says it wrote.
    pub fn written(&self) -> &[u8] {
        &self.bytes[..self.used_len as usize]
    }
}

impl Placed {
    /// Gathers the answer, and checks what no request may do: more written than there was room, or outside of the buffers.
    ///
    /// # Errors
    /// When the device did one of these.
    pub fn answer(&self, memory: &Memory, used_len: u32) -> Result<Answer> {
        let mut bytes = Vec::new();
        for descriptor in &self.chain {
            check_guards(memory, descriptor)?;
            if descriptor.flags & crate::ring::WRITE != 0 {
                bytes.extend(memory.bytes(descriptor.address, u64::from(descriptor.len)));
            }
        }
        ensure!(
            used_len as usize <= bytes.len(),
            "used length {used_len} is more than the {} writable bytes of the request",
            bytes.len()
        );
        Ok(Answer { used_len, bytes })
    }
}

fn check_guards(memory: &Memory, descriptor: &Descriptor) -> Result<()> {
    let end = descriptor.address + u64::from(descriptor.len);
    for at in [descriptor.address - GUARD, end] {
        let guard = memory.bytes(at, GUARD);
        if guard.iter().any(|byte| *byte != GUARD_BYTE) {
            fail!(
                "bytes outside of the buffer {:#x}+{} were written: {guard:02x?} at {at:#x}",
                descriptor.address,
                descriptor.len
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Place;

    #[test]
    fn pieces_add_up_and_are_never_empty() {
        let splits = [
            Split::Whole,
            Split::Bytes,
            Split::At(0),
            Split::At(5),
            Split::At(4096),
            Split::Random(1),
            Split::Random(2),
        ];
        for split in splits {
            for len in [0, 1, 2, 63, 64, 65, 4096] {
                let pieces = split.pieces(len);
                assert_eq!(pieces.iter().sum::<usize>(), len, "{split:?}");
                assert!(pieces.iter().all(|piece| *piece > 0), "{split:?}");
            }
        }
    }

    #[test]
    fn every_framing_holds_the_same_bytes_in_the_same_order() {
        let request: Vec<u8> = (0..40).collect();
        for framing in Framing::all(request.len(), 20, 1024, true) {
            let memory = Memory::new(&Place::usual()).unwrap();
            let placed = framing.place(&memory, &request, 20);
            let (readable, writable): (Vec<Descriptor>, Vec<Descriptor>) = placed
                .chain
                .into_iter()
                .partition(|d| d.flags & crate::ring::WRITE == 0);
            let bytes: Vec<u8> = readable
                .iter()
                .flat_map(|d| memory.bytes(d.address, u64::from(d.len)))
                .collect();
            assert_eq!(bytes, request, "{framing:?}");
            assert_eq!(writable.iter().map(|d| d.len).sum::<u32>(), 20);
        }
    }

    #[test]
    fn framings_respect_the_limit_of_descriptors() {
        for framing in Framing::all(64, 64, 4, true) {
            let pieces = framing.readable.pieces(64).len() + framing.writable.pieces(64).len();
            assert!(pieces <= 4, "{framing:?}");
        }
    }

    #[test]
    fn a_write_outside_of_the_buffer_is_seen() {
        let memory = Memory::new(&Place::usual()).unwrap();
        let placed = Framing::whole().place(&memory, &[], 16);
        assert_eq!(placed.answer(&memory, 0).unwrap().bytes, [UNTOUCHED; 16]);
        assert!(placed.answer(&memory, 17).is_err());
        memory.write(placed.chain[0].address + 16, &[0]);
        assert!(placed.answer(&memory, 16).is_err());
    }
}
