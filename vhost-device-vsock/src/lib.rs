//! The virtio socket device (VIRTIO 1.3, section 5.10; device ID 19).
//!
//! The guest sees AF_VSOCK stream and seqpacket sockets under a context ID of its own. Its connections to the host (context ID
//! 2) go to unix sockets in the hybrid style of Firecracker, or to the host's own AF_VSOCK; its connections to other guests of
//! the same process go there, if they have a group in common.
//!
//! Data goes from guest memory to the host's sockets, and back, without a copy of ours: what several packets bring goes out by
//! one system call, and many receive buffers are filled by one.
//!
//! What the device does where the specification leaves it a choice:
//!
//! - A connection that the guest resets, or shuts down both ways, ends for the host program once that has read what was sent
//!   before.
//! - The host's end of a connection is told to the guest when the guest has got all data before it. A guest that does not
//!   confirm is reset after eight seconds.
//! - A guest that breaks the rules of credit has the connection reset, and so has one whose packet is shorter than it says.
//! - A message of no bytes is dropped: nobody could tell it from the end of the connection.
//! - A driver that goes on after this process was started anew, or that was served before, gets a transport reset event.
//!
//! Bounds, of which none allocates before it is used: [`MAX_CONNECTIONS`] connections, [`MAX_LISTENERS`] forwarded ports,
//! [`MAX_BUFFERED`] bytes that wait for host programs and [`MAX_INBOX`] from other guests; a connection that would exceed one is reset.
#![deny(unsafe_code)]

#[cfg(feature = "daemon")]
mod args;
mod backlog;
mod config;
mod connection;
mod credit;
mod device;
mod greeting;
#[allow(unsafe_code, reason = "system calls on sockets and guest memory")]
mod host;
mod hub;
mod options;
mod pace;
#[cfg(feature = "daemon")]
mod sandbox;
mod seqpacket;
mod table;
mod wire;
mod worker;

#[cfg(feature = "daemon")]
pub use args::{App, Args};
pub use config::{
    Config, ConfigError, DEFAULT_GROUP, Forward, Groups, GuestCid, HostSpec, MAX_LISTENERS,
    MAX_UDS_PATH, MAX_WINDOW, MIN_WINDOW, Ports,
};
pub use device::{OpenError, Vsock};
pub use greeting::{Greeting, parse as parse_greeting};
pub use hub::{Hub, MAX_INBOX};
pub use options::GuestSpec;
pub use table::MAX_CONNECTIONS;
pub use worker::{MAX_BUFFERED, VsockWorker};
