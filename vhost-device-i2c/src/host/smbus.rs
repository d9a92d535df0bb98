//! Transfers as SMBus calls, for adapters that can do nothing else.
//!
//! An SMBus call is one of a few shapes of a transfer. A transfer of another shape cannot be had from such an adapter; it is
//! refused rather than taken apart, because two calls are two transfers.

use std::io;
use std::ops::Range;

use super::unsupported;
use crate::address::Address;
use crate::message::{Direction, Message};

/// `sizeof(union i2c_smbus_data)`
pub const BLOCK_BYTES: usize = 34;

/// Most bytes in a block.
const BLOCK_MAX: usize = 32;

/// Kinds of calls, by their numbers in linux/i2c.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    Quick = 0,
    Byte = 1,
    ByteData = 2,
    WordData = 3,
    ProcessCall = 4,
    BlockData = 5,
    I2cBlockData = 8,
}

const QUICK: u64 = 0x0001_0000;
const READ_BYTE: u64 = 0x0002_0000;
const WRITE_BYTE: u64 = 0x0004_0000;
const READ_BYTE_DATA: u64 = 0x0008_0000;
const WRITE_BYTE_DATA: u64 = 0x0010_0000;
const READ_WORD_DATA: u64 = 0x0020_0000;
const WRITE_WORD_DATA: u64 = 0x0040_0000;
const PROC_CALL: u64 = 0x0080_0000;
const WRITE_BLOCK_DATA: u64 = 0x0200_0000;
const READ_I2C_BLOCK: u64 = 0x0400_0000;
const WRITE_I2C_BLOCK: u64 = 0x0800_0000;

/// All functions that are of use here.
pub const ANY: u64 = QUICK
    | READ_BYTE
    | WRITE_BYTE
    | READ_BYTE_DATA
    | WRITE_BYTE_DATA
    | READ_WORD_DATA
    | WRITE_WORD_DATA
    | PROC_CALL
    | WRITE_BLOCK_DATA
    | READ_I2C_BLOCK
    | WRITE_I2C_BLOCK;

/// One call.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// The target.
    pub address: Address,
    /// The kernel's word for the direction of the whole call.
    pub direction: Direction,
    /// The first byte on the bus.
    pub command: u8,
    /// What is called.
    pub kind: Kind,
    /// union i2c_smbus_data: a byte, a word in the processor's order, or a length and as many bytes.
    pub data: [u8; BLOCK_BYTES],
    /// Where in the transfer's buffer the answer belongs.
    pub answer: Option<Range<usize>>,
}

impl Call {
    /// The call that is this transfer, on an adapter with these `functions`.
    pub fn plan(messages: &[Message], bytes: &[u8], functions: u64) -> Option<Self> {
        let has = |function| functions & function != 0;
        let (first, second) = match messages {
            [one] => (one, None),
            [one, two] if one.address == two.address && two.direction == Direction::Read => {
                (one, Some(two))
            }
            _ => return None,
        };
        let mut call = Self {
            address: first.address,
            direction: Direction::Write,
            command: 0,
            kind: Kind::Quick,
            data: [0; BLOCK_BYTES],
            answer: None,
        };
        let outgoing = match first.direction {
            Direction::Write => bytes.get(first.range.clone())?,
            // read without a command: at most one byte
            Direction::Read if second.is_none() => {
                call.direction = Direction::Read;
                return match first.range.len() {
                    0 if has(QUICK) => Some(call),
                    1 if has(READ_BYTE) => Some(call.reading(Kind::Byte, first)),
                    _ => None,
                };
            }
            Direction::Read => return None,
        };
        let Some((command, data)) = outgoing.split_first() else {
            return (second.is_none() && has(QUICK)).then_some(call);
        };
        call.command = *command;
        match second {
            Some(answer) => call.read_after(data, answer, has),
            None => call.write(data, has),
        }
    }

    fn write(mut self, data: &[u8], has: impl Fn(u64) -> bool) -> Option<Self> {
        self.kind = match *data {
            [] if has(WRITE_BYTE) => Kind::Byte,
            [byte] if has(WRITE_BYTE_DATA) => {
                self.put(&[byte]);
                Kind::ByteData
            }
            [low, high] if has(WRITE_WORD_DATA) => {
                self.put(&u16::from_le_bytes([low, high]).to_ne_bytes());
                Kind::WordData
            }
            [_, ..] if data.len() <= BLOCK_MAX && has(WRITE_I2C_BLOCK) => {
                self.put_block(data);
                Kind::I2cBlockData
            }
            // an SMBus block carries its length as its first byte
            [length, ref block @ ..]
                if usize::from(length) == block.len()
                    && (1..=BLOCK_MAX).contains(&block.len())
                    && has(WRITE_BLOCK_DATA) =>
            {
                self.put_block(block);
                Kind::BlockData
            }
            _ => return None,
        };
        Some(self)
    }

    fn read_after(
        mut self,
        data: &[u8],
        answer: &Message,
        has: impl Fn(u64) -> bool,
    ) -> Option<Self> {
        let length = answer.range.len();
        if let [low, high] = *data {
            // the kernel counts a process call as a write
            self.put(&u16::from_le_bytes([low, high]).to_ne_bytes());
            self.kind = Kind::ProcessCall;
            self.answer = Some(answer.range.clone());
            return (length == 2 && has(PROC_CALL)).then_some(self);
        }
        if !data.is_empty() {
            return None;
        }
        let kind = match length {
            1 if has(READ_BYTE_DATA) => Kind::ByteData,
            2 if has(READ_WORD_DATA) => Kind::WordData,
            1..=BLOCK_MAX if has(READ_I2C_BLOCK) => Kind::I2cBlockData,
            _ => return None,
        };
        if kind == Kind::I2cBlockData {
            // the length that is asked for
            self.put(&[length as u8]);
        }
        Some(self.reading(kind, answer))
    }

    fn reading(self, kind: Kind, answer: &Message) -> Self {
        Self {
            direction: Direction::Read,
            kind,
            answer: Some(answer.range.clone()),
            ..self
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        for (to, from) in self.data.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    fn put_block(&mut self, block: &[u8]) {
        let [length, room @ ..] = &mut self.data;
        *length = block.len() as u8;
        for (to, from) in room.iter_mut().zip(block) {
            *to = *from;
        }
    }

    /// Puts the answer of a call that was made into the transfer's buffer.
    ///
    /// # Errors
    /// If the target sent another number of bytes than was asked for.
    pub fn finish(self, bytes: &mut [u8]) -> io::Result<()> {
        let Some(range) = self.answer else {
            return Ok(());
        };
        let room = bytes.get_mut(range).ok_or_else(unsupported)?;
        let [first, second, ..] = self.data;
        match self.kind {
            Kind::Byte | Kind::ByteData => room.copy_from_slice(&[first]),
            Kind::WordData | Kind::ProcessCall => {
                room.copy_from_slice(&u16::from_ne_bytes([first, second]).to_le_bytes());
            }
            _ => {
                let block = self.data.get(1..=usize::from(first));
                match block.filter(|block| block.len() == room.len()) {
                    Some(block) => room.copy_from_slice(block),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: u64 = ANY;

    fn message(address: u8, direction: Direction, range: Range<usize>) -> Message {
        Message {
            address: Address::Seven(address),
            direction,
            range,
        }
    }

    fn write(range: Range<usize>) -> Message {
        message(0x20, Direction::Write, range)
    }

    fn read(range: Range<usize>) -> Message {
        message(0x20, Direction::Read, range)
    }

    type Plan = Option<(Kind, Direction, u8, Vec<u8>)>;

    fn plan(messages: &[Message], functions: u64) -> Plan {
        let bytes: Vec<u8> = (0x10..0x80).collect();
        let call = Call::plan(messages, &bytes, functions)?;
        let used = match call.kind {
            Kind::Quick => 0,
            Kind::Byte => 0,
            Kind::ByteData => 1,
            Kind::WordData | Kind::ProcessCall => 2,
            Kind::BlockData | Kind::I2cBlockData => 1 + usize::from(call.data[0]),
        };
        Some((
            call.kind,
            call.direction,
            call.command,
            call.data[..used].to_vec(),
        ))
    }

    #[test]
    fn transfers_become_the_calls_that_look_the_same_on_the_bus() {
        use Direction::{Read, Write};
        let word = u16::from_le_bytes([0x11, 0x12]).to_ne_bytes().to_vec();
        let mut block = vec![32];
        block.extend(0x11..0x31);
        let table: Vec<(Vec<Message>, Plan)> = vec![
            (vec![write(0..0)], Some((Kind::Quick, Write, 0, vec![]))),
            (vec![read(0..0)], Some((Kind::Quick, Read, 0, vec![]))),
            (vec![write(0..1)], Some((Kind::Byte, Write, 0x10, vec![]))),
            (vec![read(0..1)], Some((Kind::Byte, Read, 0, vec![]))),
            (
                vec![write(0..2)],
                Some((Kind::ByteData, Write, 0x10, vec![0x11])),
            ),
            (
                vec![write(0..3)],
                Some((Kind::WordData, Write, 0x10, word.clone())),
            ),
            (
                vec![write(0..4)],
                Some((Kind::I2cBlockData, Write, 0x10, vec![3, 0x11, 0x12, 0x13])),
            ),
            (
                vec![write(0..33)],
                Some((Kind::I2cBlockData, Write, 0x10, block)),
            ),
            (vec![write(0..34)], None),
            (
                vec![write(0..1), read(1..2)],
                Some((Kind::ByteData, Read, 0x10, vec![0])),
            ),
            (
                vec![write(0..1), read(1..3)],
                Some((Kind::WordData, Read, 0x10, vec![0, 0])),
            ),
            (
                vec![write(0..3), read(3..5)],
                Some((Kind::ProcessCall, Write, 0x10, word)),
            ),
            (vec![write(0..3), read(3..6)], None),
            (
                vec![write(0..1), read(1..33)],
                Some((Kind::I2cBlockData, Read, 0x10, {
                    let mut data = vec![32];
                    data.extend([0; 32]);
                    data
                })),
            ),
            (vec![write(0..1), read(1..34)], None),
            (vec![write(0..2), read(2..3)], None),
            (vec![write(0..1), read(1..1)], None),
            (vec![write(0..0), read(0..1)], None),
            (vec![read(0..2)], None),
            (vec![write(0..1), write(1..2)], None),
            (vec![read(0..1), read(1..2)], None),
            (vec![write(0..1), message(0x21, Read, 1..2)], None),
            (vec![write(0..1), read(1..2), read(2..3)], None),
            (vec![], None),
        ];
        for (messages, expected) in table {
            assert_eq!(plan(&messages, ALL), expected, "{messages:?}");
        }
    }

    #[test]
    fn an_adapter_without_a_function_is_not_asked_for_it() {
        // words by a block, where words are missing
        let block = plan(&[write(0..3)], ALL & !WRITE_WORD_DATA);
        assert_eq!(
            block,
            Some((
                Kind::I2cBlockData,
                Direction::Write,
                0x10,
                vec![2, 0x11, 0x12]
            ))
        );
        for (messages, function) in [
            (vec![write(0..0)], QUICK),
            (vec![read(0..1)], READ_BYTE),
            (vec![write(0..1)], WRITE_BYTE),
            (vec![write(0..4)], WRITE_I2C_BLOCK),
            (vec![write(0..3), read(3..5)], PROC_CALL),
            (vec![write(0..1), read(1..4)], READ_I2C_BLOCK),
        ] {
            assert!(plan(&messages, ALL).is_some());
            assert_eq!(plan(&messages, ALL & !function), None, "{messages:?}");
        }
    }

    #[test]
    fn a_block_with_its_length_in_front_needs_no_i2c_blocks() {
        let bytes = [0x10, 3, 7, 8, 9];
        let call = Call::plan(&[write(0..5)], &bytes, WRITE_BLOCK_DATA).unwrap();
        assert_eq!(call.kind, Kind::BlockData);
        assert_eq!(call.data[..4], [3, 7, 8, 9]);
        let wrong = [0x10, 4, 7, 8, 9];
        assert_eq!(Call::plan(&[write(0..5)], &wrong, WRITE_BLOCK_DATA), None);
    }

    #[test]
    fn answers_go_where_the_message_wants_them() {
        let mut bytes = [0x10, 0, 0, 0xee];
        let mut call = Call::plan(&[write(0..1), read(1..3)], &bytes, ALL).unwrap();
        call.put(&0x3412u16.to_ne_bytes());
        call.finish(&mut bytes).unwrap();
        assert_eq!(
            bytes,
            [0x10, 0x12, 0x34, 0xee],
            "the low byte comes first on the bus"
        );

        let mut call = Call::plan(&[write(0..1), read(1..4)], &bytes, ALL).unwrap();
        call.put_block(&[1, 2, 3]);
        call.finish(&mut bytes).unwrap();
        assert_eq!(bytes, [0x10, 1, 2, 3]);
    }

    #[test]
    fn a_block_of_another_length_is_an_error() {
        let mut bytes = [0x10, 0xee, 0xee, 0xee];
        for length in [0, 2, 4, 33, 34, 255] {
            let mut call = Call::plan(&[write(0..1), read(1..4)], &bytes, ALL).unwrap();
            call.put(&[length]);
            assert!(call.finish(&mut bytes).is_err(), "{length}");
        }
        assert_eq!(bytes, [0x10, 0xee, 0xee, 0xee]);
    }

    proptest! {
        #[test]
        fn no_transfer_makes_planning_panic(
            shapes in prop::collection::vec((any::<bool>(), 0..3u8, 0..40usize), 0..4),
            functions in any::<u64>(),
            length in any::<u8>(),
        ) {
            let mut end = 0;
            let messages: Vec<Message> = shapes.iter().map(|(is_read, address, length)| {
                let start = end;
                end += length;
                message(*address, if *is_read { Direction::Read } else { Direction::Write }, start..end)
            }).collect();
            let mut bytes = vec![0x5a; end];
            if let Some(mut call) = Call::plan(&messages, &bytes, functions) {
                prop_assert!(messages.len() <= 2);
                if call.kind == Kind::I2cBlockData {
                    call.data[0] = length;
                }
                let _ = call.finish(&mut bytes);
            }
        }
    }
}
