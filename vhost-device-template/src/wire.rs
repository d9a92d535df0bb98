//! The structures and numbers of the device's chapter of the specification; all integers are little-endian.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Longest payload of a request, in bytes.
pub const MAX_PAYLOAD: usize = 4096;

/// The configuration space.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes)]
#[repr(C)]
pub struct Configuration {
    /// [`MAX_PAYLOAD`].
    pub max_payload: U32,
    /// Added to each byte before it is translated. The driver may write it; reset sets it to 0.
    pub shift: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl Configuration {
    /// Where [`shift`](Self::shift) lies.
    pub const SHIFT_OFFSET: u32 = 4;
}

/// The device-readable part of a request begins with this; the payload follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct RequestHeader {
    /// What to do with the payload: [`ECHO`](Self::ECHO) or [`TRANSLATE`](Self::TRANSLATE).
    pub operation: U32,
}

impl RequestHeader {
    /// Answer with the payload as it is.
    pub const ECHO: u32 = 0;
    /// Answer with the translated payload.
    pub const TRANSLATE: u32 = 1;
}

/// The device-writable part of a request begins with this; the payload of the answer follows.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, PartialEq, Eq)]
#[repr(transparent)]
pub struct Status(U32);

impl Status {
    /// The request was carried out.
    pub const OK: Self = Self(U32::new(0));
    /// There is no such operation.
    pub const UNSUPPORTED: Self = Self(U32::new(1));
    /// The payload is too long, or the room for the answer too short.
    pub const INVALID: Self = Self(U32::new(2));
    /// The host could not do its part.
    pub const HOST_FAILED: Self = Self(U32::new(3));
}
