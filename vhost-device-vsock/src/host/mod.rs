//! The host's side of connections: where a guest's connections go, and where host programs come from.
//!
//! Every connection is a socket that never blocks, whatever is behind it. What is opened while guests are served, and not at
//! the start: one socket per connection, connected to `<uds path>_<port>` or to AF_VSOCK.

mod listener;
mod sim;
mod socket;
mod unix;
mod vectors;
mod vsock;

use std::fmt;
use std::io;

use thiserror::Error;

pub use listener::{Accepted, Listener};
pub use socket::{Connecting, Socket};
pub use vectors::{Room, Vectors};

use crate::config::HostSpec;

/// Most connections that wait for a listener's attention.
const BACKLOG: i32 = 1024;

/// Kinds of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes in order.
    Stream,
    /// Messages in order.
    Seqpacket,
}

impl Kind {
    fn number(self) -> i32 {
        match self {
            Self::Stream => libc::SOCK_STREAM,
            Self::Seqpacket => libc::SOCK_SEQPACKET,
        }
    }
}

/// The host's side cannot be set up.
#[derive(Debug, Error)]
#[error("cannot {action} {object}: {source}")]
pub struct OpenError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub object: String,
    /// Why it failed.
    pub source: io::Error,
}

impl OpenError {
    fn listen(object: impl fmt::Display, source: io::Error) -> Self {
        Self {
            action: "listen on",
            object: object.to_string(),
            source,
        }
    }
}

/// Where a guest's connections to the host go.
#[derive(Debug)]
enum Target {
    Unix(unix::Sockets),
    Vsock(u32),
    Sim(sim::Programs),
}

/// The host's side of one guest.
#[derive(Debug)]
pub struct Host {
    target: Target,
    listeners: Vec<Listener>,
}

impl Host {
    /// Opens the listeners.
    ///
    /// # Errors
    /// [`OpenError`] if one cannot be opened.
    pub fn open(spec: &HostSpec) -> Result<Self, OpenError> {
        match spec {
            HostSpec::Unix(path) => {
                let (sockets, listeners) = unix::Sockets::open(path)?;
                Ok(Self {
                    target: Target::Unix(sockets),
                    listeners,
                })
            }
            HostSpec::Vsock(forward) => Ok(Self {
                target: Target::Vsock(forward.cid),
                listeners: vsock::listen(forward)?,
            }),
            HostSpec::Sim => Ok(Self {
                target: Target::Sim(sim::Programs::default()),
                listeners: Vec::new(),
            }),
        }
    }

    /// Where host programs come from.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Connects to what serves `port` for the guest.
    ///
    /// # Errors
    /// From the operating system: nobody listens there. [`io::ErrorKind::WouldBlock`] if somebody does, and too many are
    /// waiting for him at the moment.
    pub fn connect(&self, port: u32, kind: Kind) -> io::Result<(Socket, Connecting)> {
        match &self.target {
            Target::Unix(sockets) => sockets.connect(port, kind),
            Target::Vsock(cid) => vsock::connect(*cid, port, kind),
            Target::Sim(programs) => programs.connect(port, kind),
        }
    }
}
