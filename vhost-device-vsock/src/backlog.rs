//! What a host program has not taken yet: bytes of a stream.
//!
//! Memory is taken when there is something to keep. Whoever owns a backlog takes it back when there is nothing.

/// Bytes in order, written at the end and taken from the front.
#[derive(Debug, Default)]
pub struct Backlog {
    /// The bytes that wait are those from `start` to `end`; what is behind them was written once, and is not cleared again.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Backlog {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `length` bytes, which `fill` writes, if it can.
    pub fn append(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> bool {
        self.compact(length);
        let end = self.end + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let filled = self.bytes.get_mut(self.end..end).is_some_and(fill);
        if filled {
            self.end = end;
        }
        filled
    }

    /// The bytes that wait.
    pub fn front(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The same, to be changed.
    pub fn front_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Takes up to `count` bytes from the front.
    pub fn take(&mut self, count: usize) {
        self.start = self.end.min(self.start.saturating_add(count));
        self.rewind();
    }

    /// Drops up to `count` bytes at the end.
    pub fn forget_last(&mut self, count: usize) {
        self.end -= count.min(self.len());
        self.rewind();
    }

    /// The memory, if nothing waits: for another one to use.
    pub fn release(&mut self) -> Option<Vec<u8>> {
        (self.is_empty() && self.bytes.capacity() > 0).then(|| std::mem::take(&mut self.bytes))
    }

    /// Uses this memory, if there is none yet.
    pub fn adopt(&mut self, bytes: Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = bytes;
        }
    }

    /// Whether there is no memory yet.
    pub fn is_bare(&self) -> bool {
        self.bytes.capacity() == 0
    }

    fn rewind(&mut self) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Moves the bytes to the front once that pays, if there is not room for `length` more: each is moved once on average.
    fn compact(&mut self, length: usize) {
        if self.end + length > self.bytes.len() && self.start > self.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
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
    fn what_could_not_be_filled_is_not_there_and_memory_goes_to_the_next_one() {
        let mut backlog = Backlog::default();
        assert!(backlog.is_bare() && backlog.release().is_none());
        assert!(backlog.append(1000, |_| true));
        assert!(!backlog.append(7, |_| false));
        assert_eq!(backlog.len(), 1000);
        assert!(backlog.release().is_none(), "something waits");
        backlog.take(usize::MAX);
        let memory = backlog.release().unwrap();
        assert!(backlog.is_bare());
        let mut other = Backlog::default();
        other.adopt(memory);
        assert!(other.append(3, |room| {
            room.copy_from_slice(b"abc");
            true
        }));
        assert_eq!(other.front(), b"abc");
    }
}
