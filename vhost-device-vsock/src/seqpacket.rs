//! Messages on their way to a host program: packets are put together, and kept until the program takes the message.
//!
//! A message is kept as four bytes of length and flag, and its bytes. A message of no bytes is dropped: to the program it would
//! look like the end of the connection.

use crate::backlog::Backlog;

/// Bytes before each message.
const PREFIX: usize = 4;

/// In the prefix: the message ends a record.
const END_OF_RECORD: u32 = 1 << 31;

/// What the end of a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The message goes on in the next packet.
    Open,
    /// The message ends.
    Message,
    /// The message ends, and so does a record.
    Record,
}

/// Messages in order, the last of which may not have ended yet.
#[derive(Debug, Default)]
pub struct Messages {
    backlog: Backlog,
    /// Bytes of the message that has not ended, if there is one.
    open: Option<u32>,
}

impl Messages {
    /// Bytes held, those of prefixes included.
    pub fn len(&self) -> usize {
        self.backlog.len()
    }

    /// Gives memory back, if there is nothing to keep.
    pub fn shrink(&mut self) {
        drop(self.backlog.release());
    }

    /// Whether there is nothing, not even a part of a message.
    pub fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Bytes that appending a packet of `length` bytes takes at most.
    pub fn cost(length: u32) -> usize {
        length as usize + PREFIX
    }

    /// Appends a packet of `length` bytes, which `fill` writes, if it can. False if it cannot.
    pub fn append(&mut self, length: u32, end: End, fill: impl FnOnce(&mut [u8]) -> bool) -> bool {
        let before = match self.open {
            Some(before) => before,
            None => {
                // No prefix yet: a message of no bytes is none.
                self.backlog.append(PREFIX, |room| {
                    room.fill(0);
                    true
                });
                0
            }
        };
        self.open = Some(before);
        if !self.backlog.append(length as usize, fill) {
            return false;
        }
        let total = before.saturating_add(length);
        self.open = Some(total);
        match end {
            End::Open => {}
            End::Message => self.close(total, 0),
            End::Record => self.close(total, END_OF_RECORD),
        }
        true
    }

    fn close(&mut self, total: u32, flag: u32) {
        self.open = None;
        if total == 0 {
            return self.forget_last(PREFIX);
        }
        let prefix = (total & !END_OF_RECORD | flag).to_le_bytes();
        let bytes = self.backlog.front_mut();
        let at = bytes.len().saturating_sub(total as usize + PREFIX);
        if let Some(room) = bytes.get_mut(at..at + PREFIX) {
            room.copy_from_slice(&prefix);
        }
    }

    /// Drops a message that will not end any more. Returns how many bytes of it came.
    pub fn abandon(&mut self) -> u32 {
        let Some(total) = self.open.take() else {
            return 0;
        };
        self.forget_last(total as usize + PREFIX);
        total
    }

    fn forget_last(&mut self, bytes: usize) {
        self.backlog.forget_last(bytes);
    }

    /// The first message, if it is complete, and whether it ends a record.
    pub fn front(&self) -> Option<(&[u8], bool)> {
        let bytes = self.backlog.front();
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX>()?;
        let prefix = u32::from_le_bytes(*prefix);
        let length = (prefix & !END_OF_RECORD) as usize;
        // A message that is open has no prefix yet.
        let message = rest.get(..length).filter(|_| length > 0)?;
        Some((message, prefix & END_OF_RECORD != 0))
    }

    /// Takes the first message. Returns its length.
    pub fn take(&mut self) -> u32 {
        let Some(length) = self.front().map(|(message, _)| message.len()) else {
            return 0;
        };
        self.backlog.take(PREFIX + length);
        length as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end() -> impl Strategy<Value = End> {
        prop_oneof![
            2 => Just(End::Open),
            2 => Just(End::Message),
            1 => Just(End::Record),
        ]
    }

    fn put(messages: &mut Messages, bytes: &[u8], end: End) -> bool {
        messages.append(bytes.len() as u32, end, |room| {
            room.copy_from_slice(bytes);
            true
        })
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_in_order_and_once(
            packets in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..20), end(), 0..3usize),
                0..100,
            ),
        ) {
            let mut messages = Messages::default();
            let (mut expected, mut part, mut seen) = (Vec::new(), Vec::new(), Vec::new());
            let mut take = |messages: &mut Messages| {
                let Some((bytes, record)) = messages.front() else { return false };
                seen.push((bytes.to_vec(), record));
                let length = bytes.len();
                assert_eq!(messages.take() as usize, length);
                true
            };
            for (bytes, end, takes) in packets {
                prop_assert!(put(&mut messages, &bytes, end));
                part.extend(bytes);
                if end != End::Open {
                    let message = std::mem::take(&mut part);
                    if !message.is_empty() {
                        expected.push((message, end == End::Record));
                    }
                }
                for _ in 0..takes {
                    take(&mut messages);
                }
            }
            prop_assert_eq!(messages.abandon() as usize, part.len());
            while take(&mut messages) {}
            prop_assert!(messages.is_empty());
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_packet_that_cannot_be_read_leaves_the_message_open() {
        let mut messages = Messages::default();
        assert!(put(&mut messages, b"ab", End::Open));
        assert!(!messages.append(3, End::Message, |_| false));
        assert_eq!(messages.front(), None);
        assert_eq!(messages.abandon(), 2);
        assert!(messages.is_empty());
    }
}
