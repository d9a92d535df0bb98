//! What a device needs of the host while it serves, beyond what every daemon needs.

use std::fmt;
use std::path::{Path, PathBuf};

pub use syscalls::Sysno;

/// What a device needs of the host while it serves: the system calls it makes, the places in the file system it goes to.
///
/// All that was opened before the process confined itself goes on working, and needs no entry here except for the calls made
/// on it. Declare a device's profile beside the code that makes the calls.
///
/// ```
/// use vhost_device_daemon::confine::{Access, Call, Profile, Sysno};
///
/// /// The request that reads the sensor.
/// const READ_SENSOR: u64 = 0x8004_5301;
///
/// let profile = Profile::new()
///     .call(Call::new(Sysno::ioctl).one_of(1, &[READ_SENSOR]))
///     .place("/dev/sensor0", Access::Use);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub(super) calls: Vec<Call>,
    pub(super) places: Vec<Place>,
    pub(super) descriptors: u64,
    pub(super) network: bool,
    pub(super) capabilities: Vec<Capability>,
}

impl Profile {
    /// A device that needs nothing more.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows a system call. Several entries for the same call add up.
    #[must_use]
    pub fn call(mut self, call: impl Into<Call>) -> Self {
        self.calls.push(call.into());
        self
    }

    /// Keeps a place in the file system reachable under its path: a file, or a folder with all that is, and will be, beneath.
    /// The place must exist when the process confines itself; what may be missing for a while needs its parent folder.
    #[must_use]
    pub fn place(mut self, path: impl Into<PathBuf>, access: Access) -> Self {
        let path = path.into();
        self.places.push(Place { path, access });
        self
    }

    /// So many descriptors may be open for the device itself, in addition to those of the frontends.
    #[must_use]
    pub fn descriptors(mut self, count: u64) -> Self {
        self.descriptors = self.descriptors.saturating_add(count);
        self
    }

    /// Keeps a capability, if the process has it when it is started: the device makes calls that need it while it serves.
    ///
    /// A capability is worth something in the user namespace only that the process was started in. So one that is kept costs that
    /// namespace, and with it, where the process has no privilege to make them, the others: ask for one only if nothing that
    /// [`open`](crate::App::open) could do beforehand helps.
    #[must_use]
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capabilities.push(capability);
        self
    }

    /// Keeps the host's network: the device has business there. Without this, the process is moved to an empty one.
    #[must_use]
    pub fn network(mut self) -> Self {
        self.network = true;
        self
    }
}

/// A privilege of those that root's are divided into (capabilities(7)), with its number. The table has those that a device may
/// come to need; another is one more row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Configures network interfaces.
    NetAdmin = 12,
    /// Locks memory beyond the limit.
    IpcLock = 14,
    /// Accesses I/O ports, and devices by their raw commands.
    SysRawio = 17,
    /// Sets priorities of threads.
    SysNice = 23,
    /// Sets the system's and the hardware's clock.
    SysTime = 25,
    /// Sets timers that wake the machine up.
    WakeAlarm = 35,
}

/// The name that the kernel's header has for it.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::IpcLock => "CAP_IPC_LOCK",
            Self::SysRawio => "CAP_SYS_RAWIO",
            Self::SysNice => "CAP_SYS_NICE",
            Self::SysTime => "CAP_SYS_TIME",
            Self::WakeAlarm => "CAP_WAKE_ALARM",
        })
    }
}

/// A place in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) access: Access,
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// What is done in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Files are read and folders listed.
    Read,
    /// Files and device nodes are read, written and controlled.
    Use,
    /// Unix sockets are connected to.
    Connect,
    /// Unix sockets are made, connected to and removed.
    Sockets,
    /// Names are removed.
    Remove,
}

/// A system call, and what its arguments have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    number: Sysno,
    tests: Vec<Test>,
}

/// What one argument has to be. Only the lower 32 bits are looked at: the calls in question take no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    OneOf {
        argument: u8,
        values: &'static [u64],
    },
    Bits {
        argument: u8,
        mask: u64,
        value: u64,
    },
}

impl Call {
    /// The call with any arguments.
    pub const fn new(number: Sysno) -> Self {
        Self {
            number,
            tests: Vec::new(),
        }
    }

    /// Only if this argument, counted from 0, is one of `values`.
    #[must_use]
    pub fn one_of(mut self, argument: u8, values: &'static [u64]) -> Self {
        self.tests.push(Test::OneOf { argument, values });
        self
    }

    /// Only if the bits `mask` of this argument, counted from 0, are those of `value`.
    #[must_use]
    pub fn bits(mut self, argument: u8, mask: u64, value: u64) -> Self {
        self.tests.push(Test::Bits {
            argument,
            mask,
            value,
        });
        self
    }

    pub(super) fn number(&self) -> Sysno {
        self.number
    }

    pub(super) fn tests(&self) -> &[Test] {
        &self.tests
    }
}

impl From<Sysno> for Call {
    fn from(number: Sysno) -> Self {
        Self::new(number)
    }
}
