//! The structures and numbers of the specification (VIRTIO 1.3, section 5.10).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// VIRTIO_VSOCK_F_STREAM: stream sockets.
pub const F_STREAM: u64 = 1 << 0;
/// VIRTIO_VSOCK_F_SEQPACKET: sockets that keep the boundaries of messages.
pub const F_SEQPACKET: u64 = 1 << 1;
/// VIRTIO_VSOCK_F_NO_IMPLIED_STREAM: without F_STREAM there are no stream sockets.
pub const F_NO_IMPLIED_STREAM: u64 = 1 << 2;

/// The context ID of the host.
pub const HOST_CID: u64 = 2;

/// Bytes of a [`Header`].
pub const HEADER_BYTES: u64 = 44;

/// VIRTIO_VSOCK_TYPE_STREAM.
pub const TYPE_STREAM: u16 = 1;
/// VIRTIO_VSOCK_TYPE_SEQPACKET.
pub const TYPE_SEQPACKET: u16 = 2;

/// VIRTIO_VSOCK_OP_REQUEST: connect.
pub const OP_REQUEST: u16 = 1;
/// VIRTIO_VSOCK_OP_RESPONSE: connected.
pub const OP_RESPONSE: u16 = 2;
/// VIRTIO_VSOCK_OP_RST: not connected, or not any more.
pub const OP_RST: u16 = 3;
/// VIRTIO_VSOCK_OP_SHUTDOWN: no more data one way, or both.
pub const OP_SHUTDOWN: u16 = 4;
/// VIRTIO_VSOCK_OP_RW: data.
pub const OP_RW: u16 = 5;
/// VIRTIO_VSOCK_OP_CREDIT_UPDATE: how much room there is.
pub const OP_CREDIT_UPDATE: u16 = 6;
/// VIRTIO_VSOCK_OP_CREDIT_REQUEST: asks for a credit update.
pub const OP_CREDIT_REQUEST: u16 = 7;

/// VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE: the sender receives no more.
pub const SHUTDOWN_RECEIVE: u32 = 1 << 0;
/// VIRTIO_VSOCK_SHUTDOWN_F_SEND: the sender sends no more.
pub const SHUTDOWN_SEND: u32 = 1 << 1;
/// Both directions.
pub const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// VIRTIO_VSOCK_SEQ_EOM: the packet ends a message.
pub const SEQ_EOM: u32 = 1 << 0;
/// VIRTIO_VSOCK_SEQ_EOR: the message ends a record.
pub const SEQ_EOR: u32 = 1 << 1;

/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET: all connections are gone.
pub const EVENT_TRANSPORT_RESET: u32 = 0;

/// `struct virtio_vsock_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Header {
    /// Context ID of the sender.
    pub src_cid: U64,
    /// Context ID of the receiver.
    pub dst_cid: U64,
    /// Port of the sender.
    pub src_port: U32,
    /// Port of the receiver.
    pub dst_port: U32,
    /// Bytes of payload behind the header.
    pub len: U32,
    /// Kind of socket.
    pub kind: U16,
    /// Operation.
    pub op: U16,
    /// What they mean depends on the operation.
    pub flags: U32,
    /// The sender's receive buffer for this connection, in bytes.
    pub buf_alloc: U32,
    /// Bytes that the sender's application has taken from it, free running.
    pub fwd_cnt: U32,
}

impl Header {
    /// The answer to a packet that belongs to nothing.
    pub fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: OP_RST.into(),
            ..Self::default()
        }
    }
}

/// `struct virtio_vsock_config`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct Configuration {
    /// The guest's context ID.
    pub guest_cid: U64,
}

/// `struct virtio_vsock_event`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct Event {
    /// What happened.
    pub id: U32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_specified_sizes() {
        assert_eq!(size_of::<Header>() as u64, HEADER_BYTES);
        assert_eq!(size_of::<Configuration>(), 8);
        assert_eq!(size_of::<Event>(), 4);
    }

    #[test]
    fn a_reset_goes_back_to_where_the_packet_came_from() {
        let packet = Header {
            src_cid: 3.into(),
            dst_cid: 2.into(),
            src_port: 10.into(),
            dst_port: 20.into(),
            kind: 77.into(),
            op: OP_RW.into(),
            len: 5.into(),
            ..Header::default()
        };
        let reset = packet.reset();
        assert_eq!((reset.src_cid, reset.dst_cid), (2.into(), 3.into()));
        assert_eq!((reset.src_port, reset.dst_port), (20.into(), 10.into()));
        assert_eq!((reset.kind.get(), reset.op.get()), (77, OP_RST));
        assert_eq!((reset.len.get(), reset.flags.get()), (0, 0));
    }
}
