//! What the devices are asked to be.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Most lines of a device.
pub const MAX_LINES: u16 = 1024;

/// One device's chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChipSpec {
    /// A chip of the host.
    Host(HostSpec),
    /// A simulated chip.
    Sim(SimSpec),
}

/// A chip of the host, and which of its lines the guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// The chip.
    pub chip: ChipId,
    /// Offsets of the lines, which the guest numbers from 0 in this order; all of the chip's lines if there is no list.
    pub lines: Option<Vec<u16>>,
}

/// How a chip is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChipId {
    /// `/dev/gpiochipN`.
    Number(u32),
    /// A device node, or a link to one.
    Path(PathBuf),
    /// The name of a node in `/dev`, or else the label of exactly one chip.
    Name(String),
}

impl fmt::Display for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "gpiochip{number}"),
            Self::Path(path) => path.display().fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A simulated chip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimSpec {
    /// Number of lines, 1 to [`MAX_LINES`].
    pub lines: u16,
    /// Their names, in order; lines without one have an empty one or are missing at the end.
    pub names: Vec<String>,
    /// Pairs of lines: while the first is an output, the second senses its value.
    pub wires: Vec<(u16, u16)>,
    /// How long each access takes, as on a slow bus.
    pub delay: Duration,
    /// Path of a unix socket on which the host side of the lines is seen and set.
    pub control: Option<PathBuf>,
}
