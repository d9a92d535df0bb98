//! Bytes fetched ahead, so that many small requests cost one system call.

use std::io;

use vm_memory::VolatileSlice;

use crate::host::Entropy;

/// Bytes fetched at a time: a full queue of 64-byte requests.
const POOL_BYTES: usize = 4096;

/// Random bytes that nobody has seen. What is handed out is wiped.
pub struct Pool {
    bytes: Box<[u8; POOL_BYTES]>,
    next: usize,
    end: usize,
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Self {
        Self {
            bytes: Box::new([0; POOL_BYTES]),
            next: 0,
            end: 0,
        }
    }

    /// Fills as much of `out` as there is at hand, after fetching more from `source` if there is nothing.
    ///
    /// # Errors
    /// As [`Entropy::fill`].
    pub fn fill(&mut self, out: &VolatileSlice<'_>, source: &mut dyn Entropy) -> io::Result<usize> {
        if self.next == self.end {
            self.next = 0;
            self.end = 0;
            self.end = source.fill(&VolatileSlice::from(&mut self.bytes[..]))?;
        }
        let length = out.len().min(self.end - self.next);
        let taken = self
            .bytes
            .get_mut(self.next..self.next + length)
            .unwrap_or_default();
        out.copy_from(taken);
        taken.fill(0);
        self.next += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Sim;

    #[test]
    fn bytes_come_in_order_and_are_wiped_when_given() {
        let mut expected = vec![0; 10_000];
        Sim::new(3)
            .fill(&VolatileSlice::from(&mut expected[..]))
            .unwrap();
        let mut pool = Pool::new();
        let mut source = Sim::new(3);
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let mut out = [0u8; 300];
            let length = pool
                .fill(&VolatileSlice::from(&mut out[..]), &mut source)
                .unwrap();
            assert!(length > 0);
            seen.extend_from_slice(&out[..length]);
            assert!(pool.bytes[..pool.next].iter().all(|byte| *byte == 0));
        }
        assert_eq!(seen[..expected.len()], expected);
    }
}
