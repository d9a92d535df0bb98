//! Collects the messages of a group until its end is there.
//!
//! A request with FAIL_NEXT and the one behind it belong to one group, and a group is one transfer: nothing of it reaches
//! the bus before its last message is there, and nothing at all if one of its messages cannot be carried out.

use crate::message::{Direction, MAX_LENGTH, Message, Refusal, Shape};

/// Most messages in one transfer; i2c-dev of the Linux kernel takes no more (I2C_RDWR_IOCTL_MAX_MSGS).
pub const MAX_MESSAGES: usize = 42;

/// What is to be done after a request was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The group goes on: keep the request.
    Hold,
    /// The group is complete, with this request as its last one.
    Run,
    /// The group has failed: refuse this request and all that are held.
    Fail,
}

/// One group, and the buffer for all its bytes.
#[derive(Debug)]
pub struct Group {
    messages: Vec<Message>,
    bytes: Box<[u8]>,
    /// A message has failed, so the ones up to the group's end fail too.
    failing: bool,
}

impl Group {
    /// An empty group. The buffer is of the largest size that a group can need; memory that was never used costs nothing.
    pub fn new() -> Self {
        Self {
            messages: Vec::with_capacity(MAX_MESSAGES),
            bytes: vec![0; MAX_MESSAGES * MAX_LENGTH].into_boxed_slice(),
            failing: false,
        }
    }

    /// Adds the next request. `fill` provides the bytes of a write; the room for a read is zeroed. `fail_next` says whether
    /// the group goes on.
    pub fn add(
        &mut self,
        shape: Result<Shape, Refusal>,
        fail_next: bool,
        fill: impl FnOnce(&mut [u8]) -> Result<(), Refusal>,
    ) -> Step {
        let added = match shape {
            Ok(_) if self.failing => false,
            Ok(shape) => self
                .append(shape, fill)
                .inspect_err(|refusal| log::debug!("{}: {refusal}", shape.address))
                .is_ok(),
            Err(refusal) => {
                log::debug!("request refused: {refusal}");
                false
            }
        };
        if !added {
            self.failing = fail_next;
            return Step::Fail;
        }
        if fail_next { Step::Hold } else { Step::Run }
    }

    fn append(
        &mut self,
        shape: Shape,
        fill: impl FnOnce(&mut [u8]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if self.messages.len() == MAX_MESSAGES {
            return Err(Refusal::TooMany);
        }
        let start = self.messages.last().map_or(0, |message| message.range.end);
        let range = start..start + shape.length;
        let room = self.bytes.get_mut(range.clone()).ok_or(Refusal::Length)?;
        match shape.direction {
            Direction::Write => fill(room)?,
            Direction::Read => room.fill(0),
        }
        self.messages.push(Message {
            address: shape.address,
            direction: shape.direction,
            range,
        });
        Ok(())
    }

    /// The messages so far, and the buffer that their ranges are about.
    pub fn transfer(&mut self) -> (&[Message], &mut [u8]) {
        (&self.messages, &mut self.bytes)
    }

    /// The first message, if there is one.
    pub fn first(&self) -> Option<&Message> {
        self.messages.first()
    }

    /// What was read for message `number`; nothing for a write.
    pub fn answer(&self, number: usize) -> &[u8] {
        match self.messages.get(number) {
            Some(message) if message.direction == Direction::Read => {
                self.bytes.get(message.range.clone()).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// Whether the requests up to the group's end fail because one before them has failed.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Forgets the messages. Requests that a failed group still expects fail all the same.
    pub fn clear(&mut self) {
        self.messages.clear();
    }

    /// The next request begins a group of its own.
    pub fn reset(&mut self) {
        self.clear();
        self.failing = false;
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::Address;

    fn write(length: usize) -> Shape {
        Shape {
            address: Address::Seven(0x50),
            direction: Direction::Write,
            length,
        }
    }

    fn read(length: usize) -> Shape {
        Shape {
            direction: Direction::Read,
            ..write(length)
        }
    }

    fn add(group: &mut Group, shape: Result<Shape, Refusal>, fail_next: bool) -> Step {
        group.add(shape, fail_next, |room| {
            room.fill(7);
            Ok(())
        })
    }

    #[test]
    fn a_write_and_a_read_become_one_transfer_with_room_of_their_own() {
        let mut group = Group::new();
        assert_eq!(add(&mut group, Ok(write(2)), true), Step::Hold);
        assert_eq!(add(&mut group, Ok(read(3)), false), Step::Run);
        let (messages, bytes) = group.transfer();
        assert_eq!(messages[0].range, 0..2);
        assert_eq!(messages[1].range, 2..5);
        assert_eq!(bytes[..5], [7, 7, 0, 0, 0]);
        bytes[2..5].fill(9);
        assert_eq!(group.answer(0), [0; 0], "a write has nothing to return");
        assert_eq!(group.answer(1), [9, 9, 9]);
    }

    #[test]
    fn a_read_never_shows_bytes_of_an_earlier_transfer() {
        let mut group = Group::new();
        add(&mut group, Ok(write(4)), false);
        group.clear();
        add(&mut group, Ok(read(4)), false);
        assert_eq!(group.answer(0), [0; 4]);
    }

    #[test]
    fn a_failed_message_fails_the_rest_of_its_group_and_nothing_else() {
        let mut group = Group::new();
        assert_eq!(add(&mut group, Ok(write(1)), true), Step::Hold);
        assert_eq!(add(&mut group, Err(Refusal::Denied), true), Step::Fail);
        group.clear();
        assert_eq!(add(&mut group, Ok(write(1)), true), Step::Fail);
        assert_eq!(add(&mut group, Ok(read(1)), false), Step::Fail);
        assert_eq!(add(&mut group, Ok(read(1)), false), Step::Run);
    }

    #[test]
    fn a_failed_message_that_ends_its_group_does_not_fail_the_next_one() {
        let mut group = Group::new();
        assert_eq!(add(&mut group, Err(Refusal::Flags), false), Step::Fail);
        assert_eq!(add(&mut group, Ok(read(1)), false), Step::Run);
    }

    #[test]
    fn forty_two_of_the_longest_messages_fit_and_one_more_fails_the_group() {
        let mut group = Group::new();
        for _ in 1..MAX_MESSAGES {
            assert_eq!(add(&mut group, Ok(write(MAX_LENGTH)), true), Step::Hold);
        }
        assert_eq!(add(&mut group, Ok(read(MAX_LENGTH)), false), Step::Run);
        group.clear();
        for _ in 0..MAX_MESSAGES {
            assert_eq!(add(&mut group, Ok(read(0)), true), Step::Hold);
        }
        assert_eq!(add(&mut group, Ok(read(0)), true), Step::Fail);
        group.clear();
        assert_eq!(add(&mut group, Ok(read(0)), false), Step::Fail);
        assert_eq!(add(&mut group, Ok(read(0)), false), Step::Run);
    }

    #[test]
    fn bytes_that_cannot_be_fetched_fail_the_group() {
        let mut group = Group::new();
        let step = group.add(Ok(write(1)), false, |_| Err(Refusal::Memory));
        assert_eq!(step, Step::Fail);
        assert_eq!(group.first(), None);
    }

    proptest! {
        /// Whatever the requests are: transfers are exactly the runs of requests up to one without FAIL_NEXT, all valid.
        #[test]
        fn groups_are_cut_where_the_flags_cut_them(requests in prop::collection::vec((any::<bool>(), prop::bool::weighted(0.9)), 1..200)) {
            let mut group = Group::new();
            let mut run = Vec::new();
            for (fail_next, valid) in &requests {
                let shape = if *valid { Ok(write(1)) } else { Err(Refusal::Flags) };
                match add(&mut group, shape, *fail_next) {
                    Step::Hold => {}
                    Step::Run => {
                        run.push(group.transfer().0.len());
                        group.clear();
                    }
                    Step::Fail => group.clear(),
                }
            }
            let mut expected = Vec::new();
            for part in requests.split_inclusive(|(fail_next, _)| !fail_next) {
                let complete = part.last().is_some_and(|(fail_next, _)| !fail_next);
                if complete && part.len() <= MAX_MESSAGES && part.iter().all(|(_, valid)| *valid) {
                    expected.push(part.len());
                }
            }
            prop_assert_eq!(run, expected);
        }
    }
}
