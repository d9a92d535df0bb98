//! What a request asks for, as pure logic: no rings, no host.

use crate::wire::{MAX_PAYLOAD, RequestHeader, Status};

/// A request that can be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// What to do with the payload.
    pub operation: Operation,
    /// Bytes of payload, at most [`MAX_PAYLOAD`].
    pub length: usize,
}

/// What can be done with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing.
    Echo,
    /// The host translates it.
    Translate,
}

impl Command {
    /// The command in a header, for `payload` bytes behind it and `room` bytes for the payload of the answer.
    ///
    /// # Errors
    /// The status that tells the driver what is wrong.
    pub fn decode(header: RequestHeader, payload: u64, room: u64) -> Result<Self, Status> {
        let operation = match header.operation.get() {
            RequestHeader::ECHO => Operation::Echo,
            RequestHeader::TRANSLATE => Operation::Translate,
            _ => return Err(Status::UNSUPPORTED),
        };
        let length = usize::try_from(payload)
            .ok()
            .filter(|length| *length <= MAX_PAYLOAD && payload <= room)
            .ok_or(Status::INVALID)?;
        Ok(Self { operation, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_carried_out_or_has_the_status_of_what_is_wrong_with_it() {
        let max = MAX_PAYLOAD as u64;
        let run = |operation, length| Ok(Command { operation, length });
        let table = [
            (0, 0, 0, run(Operation::Echo, 0)),
            (0, 7, 7, run(Operation::Echo, 7)),
            (1, 7, 100, run(Operation::Translate, 7)),
            (1, max, max, run(Operation::Translate, MAX_PAYLOAD)),
            (1, 7, 6, Err(Status::INVALID)),
            (1, max + 1, max + 1, Err(Status::INVALID)),
            (1, u64::MAX, u64::MAX, Err(Status::INVALID)),
            (2, 0, 0, Err(Status::UNSUPPORTED)),
            (u32::MAX, 7, 7, Err(Status::UNSUPPORTED)),
        ];
        for (operation, payload, room, expected) in table {
            let header = RequestHeader {
                operation: operation.into(),
            };
            assert_eq!(
                Command::decode(header, payload, room),
                expected,
                "operation {operation}, {payload} bytes, room for {room}"
            );
        }
    }
}
