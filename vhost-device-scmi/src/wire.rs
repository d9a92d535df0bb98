//! Messages of the System Control and Management Interface (Arm DEN0056, section 4.1) as virtio carries them (VIRTIO 1.3,
//! section 5.16): a header word, then little-endian words.

/// VIRTIO_SCMI_F_P2A_CHANNELS, as a bit: there is an event queue.
pub const FEATURE_P2A_CHANNELS: u64 = 1 << 0;

/// Bytes of the message header.
pub const HEADER_BYTES: usize = 4;
/// Bytes of a response without return values: the header and the status.
pub const LEAST_RESPONSE: usize = 8;
/// Most bytes of a command that is looked at; a longer one is a violation of every protocol.
pub const MAX_COMMAND: usize = 64;
/// Most bytes of a response. Lists are continued in further responses.
pub const MAX_RESPONSE: usize = 1024;
/// Most bytes of a notification or delayed response: what Linux has room for.
pub const MAX_EVENT: usize = HEADER_BYTES + 128;

/// Bytes of a name in a description, its zero included.
pub const SHORT_NAME: usize = 16;
/// Bytes of an extended name, its zero included.
pub const LONG_NAME: usize = 64;

/// The agent that every guest is.
pub const AGENT: u32 = 1;

/// Protocol identifiers.
pub mod protocol {
    #![allow(missing_docs)] // the specification's names
    pub const BASE: u8 = 0x10;
    pub const POWER_DOMAIN: u8 = 0x11;
    pub const SYSTEM_POWER: u8 = 0x12;
    pub const PERFORMANCE: u8 = 0x13;
    pub const CLOCK: u8 = 0x14;
    pub const SENSOR: u8 = 0x15;
    pub const RESET: u8 = 0x16;
    pub const VOLTAGE: u8 = 0x17;
}

/// Status codes (section 4.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)] // the specification's names
pub enum Status {
    Success = 0,
    NotSupported = -1,
    InvalidParameters = -2,
    Denied = -3,
    NotFound = -4,
    OutOfRange = -5,
    Busy = -6,
    HardwareError = -9,
    ProtocolError = -10,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// A command, or its response.
    Command,
    /// What a command that took longer came to.
    DelayedResponse,
    /// Told without being asked.
    Notification,
    /// Not in use by the specification.
    Other(u8),
}

impl MessageType {
    fn decode(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Command,
            2 => Self::DelayedResponse,
            3 => Self::Notification,
            other => Self::Other(other as u8),
        }
    }

    fn encode(self) -> u32 {
        match self {
            Self::Command => 0,
            Self::DelayedResponse => 2,
            Self::Notification => 3,
            Self::Other(bits) => u32::from(bits) & 3,
        }
    }
}

/// The message header: identifier in bits 0 to 7, type in 8 and 9, protocol in 10 to 17, token in 18 to 27. The rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(pub u32);

impl Header {
    /// A header with these fields.
    pub fn new(protocol: u8, message: u8, kind: MessageType, token: u16) -> Self {
        Self(
            u32::from(message)
                | kind.encode() << 8
                | u32::from(protocol) << 10
                | (u32::from(token) & 0x3ff) << 18,
        )
    }

    /// The message identifier.
    pub fn message(self) -> u8 {
        self.0 as u8
    }

    /// The message type.
    pub fn kind(self) -> MessageType {
        MessageType::decode(self.0 >> 8)
    }

    /// The protocol identifier.
    pub fn protocol(self) -> u8 {
        (self.0 >> 10) as u8
    }

    /// The number that a response repeats.
    pub fn token(self) -> u16 {
        (self.0 >> 18) as u16 & 0x3ff
    }

    /// Whether bits are set that mean nothing.
    pub fn has_reserved_bits(self) -> bool {
        self.0 >> 28 != 0
    }

    /// The header of the delayed response to this command.
    pub fn delayed(self) -> Self {
        Self::new(
            self.protocol(),
            self.message(),
            MessageType::DelayedResponse,
            self.token(),
        )
    }
}

/// The parameters of a command, read word by word.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// The next word.
    ///
    /// # Errors
    /// [`Status::ProtocolError`] at the end.
    pub fn word(&mut self) -> Result<u32, Status> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Status::ProtocolError)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// The next two words as one number, the lower one first.
    ///
    /// # Errors
    /// [`Status::ProtocolError`] at the end.
    pub fn double(&mut self) -> Result<u64, Status> {
        let low = self.word()?;
        Ok(u64::from(self.word()?) << 32 | u64::from(low))
    }

    /// The next word, in which only `allowed` bits may be set.
    ///
    /// # Errors
    /// [`Status::InvalidParameters`] for other bits, [`Status::ProtocolError`] at the end.
    pub fn flags(&mut self, allowed: u32) -> Result<u32, Status> {
        match self.word()? {
            word if word & !allowed == 0 => Ok(word),
            _ => Err(Status::InvalidParameters),
        }
    }
}

/// The return values of a response or the payload of an event, written word by word.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    /// Writes to `bytes`, which is all the room there is.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, length: 0 }
    }

    /// Bytes written.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Bytes that can still be written.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.length
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Status::ProtocolError`] if there is no room: a driver must provide enough (VIRTIO 1.3, section 5.16.6.1).
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let end = self.length + bytes.len();
        let room = self.bytes.get_mut(self.length..end);
        room.ok_or(Status::ProtocolError)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    /// Appends a word.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn word(&mut self, word: u32) -> Result<(), Status> {
        self.bytes(&word.to_le_bytes())
    }

    /// Appends a signed word.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn signed(&mut self, word: i32) -> Result<(), Status> {
        self.bytes(&word.to_le_bytes())
    }

    /// Appends two words, the lower one first.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn double(&mut self, number: u64) -> Result<(), Status> {
        self.bytes(&number.to_le_bytes())
    }

    /// Appends a signed number of two words, the lower one first.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn signed_double(&mut self, number: i64) -> Result<(), Status> {
        self.bytes(&number.to_le_bytes())
    }

    /// Writes over a word that is there already.
    pub fn patch(&mut self, at: usize, word: u32) {
        let end = at.saturating_add(4).min(self.length);
        if let Some(place) = self.bytes.get_mut(at..end)
            && place.len() == 4
        {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_as_the_specification_draws_them() {
        let header = Header::new(0x15, 6, MessageType::Command, 0x2a5);
        assert_eq!(header.0, 0x2a5 << 18 | 0x15 << 10 | 6);
        assert_eq!(header.delayed().0, header.0 | 2 << 8);
        assert_eq!(Header(1 << 8).kind(), MessageType::Other(1));
        assert_eq!(Header(3 << 8).kind(), MessageType::Notification);
        assert!(Header(1 << 28).has_reserved_bits());
        assert!(!Header(0x0fff_ffff).has_reserved_bits());
    }

    #[test]
    fn nothing_is_written_or_patched_past_the_room() {
        let mut room = [0xaa; 10];
        let mut writer = Writer::new(&mut room[..6]);
        writer.word(1).unwrap();
        assert_eq!(writer.word(2), Err(Status::ProtocolError));
        assert_eq!((writer.length(), writer.room()), (4, 2));
        writer.patch(2, 0xffff_ffff);
        writer.patch(usize::MAX, 0xffff_ffff);
        writer.patch(0, 7);
        assert_eq!(room, [7, 0, 0, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa]);
    }

    proptest! {
        #[test]
        fn every_header_word_is_its_fields(word: u32) {
            let header = Header(word & 0x0fff_ffff);
            let again = Header::new(header.protocol(), header.message(), header.kind(), header.token());
            prop_assert_eq!(header, again);
        }

        #[test]
        fn words_are_read_as_long_as_there_are_any(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            let mut words = Vec::new();
            while let Ok(word) = reader.word() {
                words.extend(word.to_le_bytes());
            }
            prop_assert!(reader.left() < 4);
            prop_assert_eq!(&words[..], &bytes[..bytes.len() / 4 * 4]);
        }
    }
}
