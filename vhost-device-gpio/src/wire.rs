//! The specification's structures and numbers (VIRTIO 1.3, section 5.18).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// VIRTIO_GPIO_F_IRQ, as a bit.
pub const FEATURE_IRQ: u64 = 1 << 0;

/// `struct virtio_gpio_config`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct ConfigSpace {
    /// Number of lines.
    pub ngpio: U16,
    /// Zero.
    pub padding: [u8; 2],
    /// Bytes of the block of names; 0 if no line has one.
    pub gpio_names_size: U32,
}

/// `struct virtio_gpio_request`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Request {
    /// One of the message types below.
    pub kind: U16,
    /// The line.
    pub gpio: U16,
    /// Depends on the message.
    pub value: U32,
}

/// `struct virtio_gpio_response`, and the beginning of the answer with the names.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct Response {
    /// Whether the request was carried out.
    pub status: u8,
    /// Depends on the message.
    pub value: u8,
}

/// `struct virtio_gpio_irq_request`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct IrqRequest {
    /// The line.
    pub gpio: U16,
}

/// Message types.
pub mod kind {
    #![allow(missing_docs)] // the specification's names
    pub const GET_LINE_NAMES: u16 = 1;
    pub const GET_DIRECTION: u16 = 2;
    pub const SET_DIRECTION: u16 = 3;
    pub const GET_VALUE: u16 = 4;
    pub const SET_VALUE: u16 = 5;
    pub const SET_IRQ_TYPE: u16 = 6;
}

/// Directions.
pub mod direction {
    #![allow(missing_docs)] // the specification's names
    pub const NONE: u8 = 0;
    pub const OUT: u8 = 1;
    pub const IN: u8 = 2;
}

/// Interrupt trigger types.
pub mod irq {
    #![allow(missing_docs)] // the specification's names
    pub const NONE: u32 = 0;
    pub const EDGE_RISING: u32 = 1;
    pub const EDGE_FALLING: u32 = 2;
    pub const EDGE_BOTH: u32 = 3;
    pub const LEVEL_HIGH: u32 = 4;
    pub const LEVEL_LOW: u32 = 8;
}

/// The request was carried out.
pub const STATUS_OK: u8 = 0;
/// The request was refused, or the host failed.
pub const STATUS_ERR: u8 = 1;

/// The buffer comes back because the interrupt is disabled.
pub const IRQ_STATUS_INVALID: u8 = 0;
/// The buffer comes back because of an interrupt.
pub const IRQ_STATUS_VALID: u8 = 1;
