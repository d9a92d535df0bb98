//! The real thing: a bus that carries out transfers.

mod adapters;
#[allow(unsafe_code, reason = "i2c-dev is used through ioctls")]
mod ioctl;
mod linux;
pub mod sim;
mod smbus;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::address::Address;
use crate::config::{self, Config};
use crate::message::Message;

pub use ioctl::OF_TRANSFERS as IOCTLS_OF_TRANSFERS;
pub use linux::Linux;
pub use sim::Sim;

/// A bus of the host.
pub trait Bus: Send {
    /// Carries out `messages` as one transfer, with a repeated start condition between them and a stop condition behind the
    /// last. Their ranges are about `bytes`: what is written is taken from there, what is read is put there.
    ///
    /// # Errors
    /// [`Failure`] if a message was not carried out; none behind it was either.
    fn transfer(&mut self, messages: &[Message], bytes: &mut [u8]) -> Result<(), Failure>;
}

/// A transfer that ended early.
#[derive(Debug, Error)]
#[error("message {done}: {error}")]
pub struct Failure {
    /// How many messages are known to have been carried out.
    pub done: usize,
    /// Why the next one was not.
    #[source]
    pub error: io::Error,
}

impl Failure {
    /// No message was carried out, as far as is known.
    pub fn whole(error: io::Error) -> Self {
        Self { done: 0, error }
    }
}

/// The error of a target that does not answer.
pub fn not_acknowledged() -> io::Error {
    io::Error::from_raw_os_error(libc::ENXIO)
}

/// The error of a transfer that the bus has no means for.
fn unsupported() -> io::Error {
    io::Error::from_raw_os_error(libc::EOPNOTSUPP)
}

/// A bus that cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A failed system call.
    #[error("cannot {action} {object}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
    /// No adapter has this name.
    #[error("no I2C adapter is called {name:?}")]
    NoAdapter {
        /// The name.
        name: String,
        /// The adapters that there are, as number and name.
        known: Vec<(u32, String)>,
    },
    /// Several adapters have this name.
    #[error("several I2C adapters are called {name:?}: {numbers:?}")]
    Ambiguous {
        /// The name.
        name: String,
        /// Their numbers.
        numbers: Vec<u32>,
    },
    /// A driver of the host's kernel uses an address.
    #[error("address {address} of {adapter} is in use by a driver of this host")]
    Held {
        /// The adapter.
        adapter: config::Adapter,
        /// The address.
        address: Address,
    },
    /// The adapter knows 7-bit addresses only.
    #[error("{adapter} has no 10-bit addresses, but {address} is one")]
    NoTenBit {
        /// The adapter.
        adapter: config::Adapter,
        /// The address.
        address: Address,
    },
    /// The file of a simulated memory is not that memory's.
    #[error("{} has {length} bytes, more than the {size} of the chip", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
        /// The chip's size.
        size: usize,
    },
}

/// Opens a bus.
///
/// # Errors
/// [`OpenError`] if it, or a file of a simulated chip, cannot be used.
pub fn open(bus: &config::Bus, config: &Config) -> Result<Box<dyn Bus>, OpenError> {
    Ok(match bus {
        config::Bus::Adapter { adapter, addresses } => Box::new(Linux::open(
            adapter,
            addresses,
            config.force,
            config.timeout,
        )?),
        config::Bus::Sim { chips } => Box::new(Sim::open(chips, config.timeout)?),
    })
}
