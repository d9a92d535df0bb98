//! The virtio SCMI device (VIRTIO 1.3, section 5.16; device ID 32): the platform side of the System Control and Management
//! Interface (Arm DEN0056, version 3.2).
//!
//! The guest is one agent. It sees sensors, clocks, power, performance, reset and voltage domains, and can ask to be shut
//! down or reset; each protocol is served as a whole, but for fast channels and statistics in shared memory, which virtio
//! does not have or the device does not offer. Commands come on the command queue; notifications and delayed responses go to
//! the event queue (VIRTIO_SCMI_F_P2A_CHANNELS), and do not exist without it.
//!
//! The host provides what is behind: IIO channels, hardware monitors, files and pipes for sensors, frequency policies for
//! performance; everything can also be simulated. A [`Config`] says what there is.
//!
//! What is the device's own choice where the specifications leave one:
//!
//! - A command of the wrong length, of a type other than "command" or with reserved bits in its header is answered
//!   PROTOCOL_ERROR; so is one whose return values do not fit into the driver's buffer. One that leaves no room for a status,
//!   or has no header, is completed with length 0.
//! - Of several notifications about the same thing that wait for a buffer the newest is sent. At most 256 wait; the
//!   oldest is dropped for a new one. A notification that does not fit into the driver's buffer is dropped, and the buffer
//!   goes back empty. Delayed responses are never dropped: no more than 64 commands are taken for later, the next is BUSY.
//! - The guest's agent is number 1. Permissions are the host's to give; an agent that sets any is refused.
//! - A sensor that the agent disabled cannot be read: DENIED.
//! - A host that does not answer in time is a HARDWARE_ERROR. So is everything asked of it until it answers again.
//! - When the command queue stops, what waits for the host is answered BUSY.
#![deny(unsafe_code)]

#[cfg(feature = "daemon")]
mod args;
mod config;
mod decimal;
mod device;
mod host;
mod name;
mod options;
mod outbox;
mod platform;
mod protocol;
mod quantity;
#[cfg(feature = "daemon")]
mod sandbox;
mod scan;
mod schedule;
mod wave;
mod wire;

#[cfg(feature = "daemon")]
pub use args::{App, Args, main};
pub use config::{Config, Entry, SystemPower};
pub use device::{Scmi, ScmiWorker};
pub use host::OpenError;
pub use options::SpecError;
