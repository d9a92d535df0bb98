//! What a guest can do wrong, as data.

use thiserror::Error;

/// A mistake in one request. The request is completed (with the device's error status, or with used length 0) and the
/// queue goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum GuestFault {
    /// A buffer lies outside guest memory, or wraps around the address space.
    #[error("buffer outside guest memory")]
    Unmapped,
    /// The chain has more than [`MAX_CHAIN_LENGTH`](crate::MAX_CHAIN_LENGTH) descriptors, or loops.
    #[error("descriptor chain too long")]
    ChainTooLong,
    /// A descriptor's `next` field is not below the table's size.
    #[error("descriptor index out of range")]
    DescriptorIndex,
    /// A device-readable descriptor follows a device-writable one (section 2.7.4.2).
    #[error("readable descriptor after a writable one")]
    ReadableAfterWritable,
    /// An indirect table of bad size, nested, chained further, or without the feature (section 2.7.5.3).
    #[error("bad indirect descriptor")]
    Indirect,
    /// The chain's buffers add up to more than 4 GiB.
    #[error("buffers longer than 4 GiB")]
    TooLong,
    /// The device-readable part ends before the request does.
    #[error("request too short")]
    ShortRequest,
    /// The device-writable part is too small for the answer.
    #[error("no room for the answer")]
    ShortAnswer,
    /// The request came on a queue that does not take it.
    #[error("request on the wrong queue")]
    WrongQueue,
    /// The request's fields have no meaning to this device, and there is no status to say so.
    #[error("unknown or invalid request")]
    Invalid,
}

impl GuestFault {
    /// All of them; the position of each is its value as a number.
    pub const ALL: [Self; 10] = [
        Self::Unmapped,
        Self::ChainTooLong,
        Self::DescriptorIndex,
        Self::ReadableAfterWritable,
        Self::Indirect,
        Self::TooLong,
        Self::ShortRequest,
        Self::ShortAnswer,
        Self::WrongQueue,
        Self::Invalid,
    ];

    /// One word for it, in lower case with underscores.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unmapped => "unmapped",
            Self::ChainTooLong => "chain_too_long",
            Self::DescriptorIndex => "descriptor_index",
            Self::ReadableAfterWritable => "readable_after_writable",
            Self::Indirect => "indirect",
            Self::TooLong => "too_long",
            Self::ShortRequest => "short_request",
            Self::ShortAnswer => "short_answer",
            Self::WrongQueue => "wrong_queue",
            Self::Invalid => "invalid",
        }
    }
}

/// The ring itself is corrupt: nothing on it can be trusted. The ring stops until it is set up anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum RingFault {
    /// The driver's available index is more than one ring ahead of ours, or behind it.
    #[error("available index jumped")]
    AvailableIndex,
    /// A head index in the available ring is not below the queue size.
    #[error("head index out of range")]
    HeadIndex,
    /// Part of the ring lies outside guest memory.
    #[error("ring outside guest memory")]
    Unmapped,
    /// More chains were made available than the queue has descriptors.
    #[error("more requests in flight than descriptors")]
    Overcommitted,
}

/// A ring's size or addresses cannot be used; it never starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum LayoutFault {
    /// Not a power of two, zero, or above the queue's limit.
    #[error("queue size {0} is not a power of two up to {1}")]
    Size(u32, u16),
    /// A ring part is not aligned as section 2.7 asks.
    #[error("ring address {0:#x} is misaligned")]
    Misaligned(u64),
    /// A ring part is not in guest memory as a whole.
    #[error("ring address {0:#x} is outside guest memory")]
    Unmapped(u64),
}
