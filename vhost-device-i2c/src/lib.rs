//! The virtio I2C adapter (VIRTIO 1.3, section 5.13; device ID 34).
//!
//! The guest sees one adapter with one queue. Each request is one message of a transfer: an address (7 or 10 bits), a
//! direction, up to [`MAX_LENGTH`] bytes or none, and a status. Requests that the driver groups with FAIL_NEXT are one
//! transfer with repeated start conditions, up to [`MAX_MESSAGES`] messages long; requests that it does not group never
//! are. There is no configuration space; VIRTIO_I2C_F_ZERO_LENGTH_REQUEST is mandatory, and a driver without it is
//! rejected.
//!
//! Behind the adapter are one or more [`Bus`]es of the host: adapters, used through i2c-dev, and simulated ones with chips
//! on them. The configuration lists the addresses that the guest may use; each message of each group is checked against
//! it, and nothing of a group reaches a bus unless all of it is allowed and valid. A group that names addresses on two
//! buses is refused, because no bus can carry it out as one transfer.
//!
//! A group is carried out when its last request is there. If that takes longer than a second the group fails, and so do
//! groups with more messages than allowed. A chain that cannot be read ends its group. When the queue stops, a group that
//! is half there stays in the ring.
//!
//! Adapters that know SMBus calls only carry out the transfers that look like one on the bus, and fail the others. A bus
//! that is stuck fails the request after the configured timeout, which the adapter's driver keeps.
//!
//! Not supported: flags of the kernel's i2c_msg that the specification has no word for (such as received lengths), acting
//! as a target, and SMBus alerts.
#![deny(unsafe_code)]

mod address;
#[cfg(feature = "daemon")]
mod args;
mod config;
mod device;
mod group;
mod host;
mod message;
mod routes;
#[cfg(feature = "daemon")]
mod sandbox;
mod wire;

pub use address::{Address, BadAddress};
#[cfg(feature = "daemon")]
pub use args::{App, Args};
pub use config::{Adapter, Bus, Buses, Chip, Config, ConfigError, Temperature};
pub use device::{I2c, I2cWorker};
pub use group::MAX_MESSAGES;
pub use host::OpenError;
pub use host::sim::Model;
pub use message::MAX_LENGTH;
