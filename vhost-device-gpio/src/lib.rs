//! The virtio GPIO device (VIRTIO 1.3, section 5.18; device ID 41).
//!
//! The guest sees a chip with up to [`MAX_LINES`] lines, optionally named, and two queues: requests, and events. Every
//! request of the specification is served; lines can interrupt on rising, falling or both edges and on high or low
//! level (VIRTIO_GPIO_F_IRQ).
//!
//! The host provides a chip: a real one through libgpiod (feature `libgpiod`, on by default), of which all lines or a
//! chosen few are handed out under new numbers, or a simulated one. A [`ChipSpec`] says which.
//!
//! What is the device's own choice where the specification leaves one:
//!
//! - A line that the driver has not configured yet has the direction that the host reports. Once the driver set a
//!   direction, that one is reported, "none" included.
//! - The value of a line that is not active is read without taking hold of the line.
//! - An interrupt may be enabled on a line without a direction; the line is an input as long as it is enabled.
//! - An event buffer for a line whose interrupt is disabled comes back INVALID at once. If the host refused to detect
//!   edges on the line, the buffer is kept until the driver disables the interrupt: a driver that does not look at the
//!   refusal (Linux) would offer it again and again.
//! - When the event queue stops, its buffers come back INVALID; interrupts stay enabled and latch edges. A driver that
//!   was paused, and not reset, offers its buffers again when it sees that.
//! - Lines are let go when the driver sets the direction "none", resets the device, or when the frontend leaves.
#![deny(unsafe_code)]

#[cfg(feature = "daemon")]
mod args;
mod config;
mod device;
mod host;
mod interrupt;
mod line;
mod names;
mod options;
mod request;
#[cfg(feature = "daemon")]
mod sandbox;
mod wire;

#[cfg(feature = "daemon")]
pub use args::{App, Args};
pub use config::{ChipId, ChipSpec, HostSpec, MAX_LINES, SimSpec};
pub use device::{Gpio, GpioWorker, OpenError};
pub use options::SpecError;
