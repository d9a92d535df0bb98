//! The virtio template device (device ID 63).
//!
// template only:
//! It is the starting point of new devices: it has one of each thing that most devices have, and `cargo xtask new-device`
//! copies it. 63 is assigned to no device, and is the highest ID that virtio over PCI can express.
//!
// end of template only
//! The guest sees one queue of requests and a configuration space ([`wire::Configuration`]). A request is a
//! [`wire::RequestHeader`] and a payload; its answer is a [`wire::Status`] and, if that is [`wire::Status::OK`], a payload
//! of the same length: the same bytes, or what the host translates them to. The driver writes one field of the
//! configuration, a number that is added to each byte before it is translated.
//!
//! The host provides a [`Source`] of translations: a file with a table of 256 bytes, or a simulation, which changes nothing
//! and takes as long as it is told to. A host that fails is answered with [`wire::Status::HOST_FAILED`].
//!
//! Not supported: payloads of more than [`wire::MAX_PAYLOAD`] bytes.
#![forbid(unsafe_code)]

#[cfg(feature = "daemon")]
mod args;
mod command;
mod config;
mod device;
mod host;
#[cfg(feature = "daemon")]
mod sandbox;
pub mod wire;

#[cfg(feature = "daemon")]
pub use args::{App, Args};
pub use config::{Config, ConfigError, Source};
pub use device::{Template, TemplateService};
