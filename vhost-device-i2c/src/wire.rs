//! The structures and constants of the request queue (VIRTIO 1.3, section 5.13).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// VIRTIO_I2C_F_ZERO_LENGTH_REQUEST: zero-length requests and the read flag. Mandatory for both sides.
pub const F_ZERO_LENGTH_REQUEST: u64 = 1 << 0;

/// VIRTIO_I2C_FLAGS_FAIL_NEXT: the next request belongs to the same group.
pub const FLAG_FAIL_NEXT: u32 = 1 << 0;

/// VIRTIO_I2C_FLAGS_M_RD: the device fills the buffer.
pub const FLAG_READ: u32 = 1 << 1;

/// `struct virtio_i2c_out_hdr`, the device-readable start of a request.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OutHeader {
    /// The target's address, see [`Address::from_wire`](crate::Address::from_wire).
    pub address: U16,
    /// Of no meaning.
    pub padding: U16,
    /// [`FLAG_FAIL_NEXT`], [`FLAG_READ`]; all other bits are reserved.
    pub flags: U32,
}

impl OutHeader {
    /// Whether the next request belongs to the same group.
    pub fn fail_next(&self) -> bool {
        self.flags.get() & FLAG_FAIL_NEXT != 0
    }
}

/// `virtio_i2c_in_hdr.status`, the device-writable last byte of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
pub enum Status {
    /// VIRTIO_I2C_MSG_OK
    Ok = 0,
    /// VIRTIO_I2C_MSG_ERR
    Error = 1,
}
