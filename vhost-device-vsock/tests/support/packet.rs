//! Packets (VIRTIO 1.3, section 5.10.6): a header of 44 bytes, all fields little-endian, and a payload.

/// Bytes of a header.
pub const HEADER: usize = 44;

/// The context id of the host.
pub const HOST: u64 = 2;

/// Types of sockets.
pub const STREAM: u16 = 1;
pub const SEQPACKET: u16 = 2;

/// Operations.
pub const REQUEST: u16 = 1;
pub const RESPONSE: u16 = 2;
pub const RST: u16 = 3;
pub const SHUTDOWN: u16 = 4;
pub const RW: u16 = 5;
pub const CREDIT_UPDATE: u16 = 6;
pub const CREDIT_REQUEST: u16 = 7;

/// Flags of SHUTDOWN: the sender will not receive, will not send.
pub const NO_RECEIVE: u32 = 1;
pub const NO_SEND: u32 = 2;

/// Flags of RW on a seqpacket connection: end of a message, end of a record.
pub const EOM: u32 = 1;
pub const EOR: u32 = 2;

/// Feature bits of the device.
pub const F_STREAM: u64 = 1;
pub const F_SEQPACKET: u64 = 1 << 1;
pub const F_NO_IMPLIED_STREAM: u64 = 1 << 2;

/// A packet's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    /// The other side's packet without payload about the same connection, with room for 64 KiB.
    pub fn answer(self, op: u16) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            op,
            buf_alloc: 64 << 10,
            len: 0,
            ..self
        }
    }

    /// As it lies in a buffer.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        for (at, word) in [
            (16, self.src_port),
            (20, self.dst_port),
            (24, self.len),
            (32, self.flags),
            (36, self.buf_alloc),
            (40, self.fwd_cnt),
        ] {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Out of a buffer.
    pub fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        Self {
            src_cid: number(bytes, 0, 8),
            dst_cid: number(bytes, 8, 8),
            src_port: number(bytes, 16, 4) as u32,
            dst_port: number(bytes, 20, 4) as u32,
            len: number(bytes, 24, 4) as u32,
            kind: number(bytes, 28, 2) as u16,
            op: number(bytes, 30, 2) as u16,
            flags: number(bytes, 32, 4) as u32,
            buf_alloc: number(bytes, 36, 4) as u32,
            fwd_cnt: number(bytes, 40, 4) as u32,
        }
    }
}

fn number(bytes: &[u8; HEADER], at: usize, len: usize) -> u64 {
    let mut word = [0; 8];
    word[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(word)
}

/// A packet that the device sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub header: Header,
    /// The payload; empty when it was left where it lies.
    pub payload: Vec<u8>,
}
