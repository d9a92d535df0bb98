//! What a host program has not taken yet: bytes of a stream.
//!
//! Memory is taken when there is something to keep, and given back when there is nothing.

/// Bytes in order, written at the end and taken from the front.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    /// How many of them are taken already.
    start: usize,
}

impl Backlog {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `length` bytes, which `fill` writes, if it can.
    pub fn append(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> bool {
        self.compact();
        let end = self.bytes.len();
        self.bytes.resize(end + length, 0);
        let filled = self.bytes.get_mut(end..).is_some_and(fill);
        if !filled {
            self.bytes.truncate(end);
        }
        filled
    }

    /// The bytes that wait.
    pub fn front(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// The same, to be changed.
    pub fn front_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }

    /// Takes up to `count` bytes from the front.
    pub fn take(&mut self, count: usize) {
        self.start = self.bytes.len().min(self.start.saturating_add(count));
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Drops up to `count` bytes at the end.
    pub fn forget_last(&mut self, count: usize) {
        let keep = self.len().saturating_sub(count);
        self.bytes.truncate(self.start + keep);
        self.take(0);
    }

    /// Moves the bytes to the front once that pays: each byte is moved once on average.
    fn compact(&mut self) {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..50), 0..60usize), 0..100),
        ) {
            let mut backlog = Backlog::default();
            let mut model = VecDeque::new();
            for (bytes, count) in steps {
                let appended = backlog.append(bytes.len(), |room| {
                    room.copy_from_slice(&bytes);
                    true
                });
                prop_assert!(appended);
                model.extend(bytes);
                let count = count.min(model.len());
                let out: Vec<u8> = model.drain(..count).collect();
                prop_assert_eq!(&backlog.front()[..count], &out[..]);
                backlog.take(count);
                prop_assert_eq!(backlog.len(), model.len());
            }
        }
    }

    #[test]
    fn an_empty_backlog_holds_no_memory_and_one_that_could_not_be_filled_nothing_new() {
        let mut backlog = Backlog::default();
        assert!(backlog.append(1000, |_| true));
        assert!(!backlog.append(7, |_| false));
        assert_eq!(backlog.len(), 1000);
        backlog.take(usize::MAX);
        assert_eq!(backlog.bytes.capacity(), 0);
    }
}
